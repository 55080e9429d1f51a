"""The page: sentences and pictures as one HTML file that needs no network; each picture also as PNG and PDF."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from reports.parameters import short
from runner.records import write_atomic
from runner.texts import printable

DPI = 150  # of the PNGs

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: #1d2127; font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 1240px; margin: 0 auto; padding: 1rem; display: grid; gap: 1rem; align-items: start; }
main > * { min-width: 0; } h1, .quiet, section.wide { grid-column: 1 / -1; }
@media (min-width: 1000px) { main { grid-template-columns: 1fr 1fr; } section.tall { grid-row: span 2; } }
h1 { font-size: 1.5rem; margin: .4rem 0 -.8rem; } h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
section { background: #fff; border: 1px solid #dfe2e7; border-radius: 8px; padding: 1rem; }
p, ul { margin: .4rem 0; } ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
.figures.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
figure { margin: 0; min-width: 0; } img { display: block; width: 100%; max-width: 660px; height: auto; margin: 0 auto; }
figcaption { font-size: .85rem; color: #5a616b; margin-top: .25rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem 0 .2rem .9rem; text-align: right; border-bottom: 1px solid #eceef1; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: normal;
  min-width: 6rem; position: sticky; left: 0; background: #fff; }
td { font-variant-numeric: tabular-nums; }
pre { background: #f5f6f8; padding: .6rem; overflow-x: auto; font-size: .85rem; }
a { color: #1f5aa0; } .quiet { color: #5a616b; font-size: .9rem; }
"""


@dataclass
class Picture:
    """A figure that is drawn when the page is written."""

    name: str  # of its files
    title: str
    draw: Callable  # -> matplotlib figure
    caption: str = ""


@dataclass
class Section:
    """A part of the page."""

    title: str
    sentences: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    table: list[list] = field(default_factory=list)  # the first row is the head
    code: str = ""  # shown as it stands
    listed: bool = False  # sentences as a list
    small: bool = False  # many small pictures
    wide: bool = True  # over both columns of a wide screen
    tall: bool = False  # beside two others

    def __bool__(self) -> bool:
        return bool(self.sentences or self.pictures or self.table or self.code)


def write_page(folder: Path, title: str, subtitle: str, sections: list[Section], step=lambda text: None) -> Path:
    """Write index.html and the pictures' files into `folder`, drawing one after the other; return the page's path.

    `step` is called with what is being drawn. A picture that cannot be drawn is replaced by a line that says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    body = "".join(_section(part, folder, step) for part in sections if part)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n'
        f'<body><main><h1>{escape(title)}</h1><p class="quiet">{escape(subtitle)}</p>\n{body}</main></body></html>\n'
    )
    write_atomic(folder / "index.html", page.encode())
    return folder / "index.html"


def _section(part: Section, folder: Path, step) -> str:
    sentences = [f"<li>{escape(s)}</li>" if part.listed else f"<p>{escape(s)}</p>" for s in part.sentences]
    text = "".join(sentences)
    text = f"<ul>{text}</ul>" if part.listed and text else text
    figures = "".join(_figure(picture, folder, step) for picture in part.pictures)
    figures = f'<div class="figures{" small" if part.small else ""}">{figures}</div>' if figures else ""
    code = f"<pre>{escape(part.code)}</pre>" if part.code else ""
    inside = f"<h2>{escape(part.title)}</h2>{text}{_table(part.table)}{code}{figures}"
    kind = " class=wide" if part.wide else " class=tall" if part.tall else ""
    return f"<section{kind}>{inside}</section>\n"


def _figure(picture: Picture, folder: Path, step) -> str:
    step(picture.title)
    try:
        data = save(picture.draw(), folder, picture.name)
    except Exception as error:  # one picture less, but a page
        reason = escape(f"{picture.title}: could not be drawn ({type(error).__name__}: {error})")
        return f"<figure><figcaption>{reason}</figcaption></figure>"
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    links = f'<a href="{picture.name}.png">PNG</a> <a href="{picture.name}.pdf">PDF</a>'
    caption = escape(f"{picture.title}. {picture.caption}".strip())
    return (
        f'<figure><img src="{source}" alt="{escape(picture.title)}"><figcaption>{caption} {links}</figcaption></figure>'
    )


def save(figure, folder: Path, name: str) -> bytes:
    """Write a figure as PNG and PDF; return the PNG."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    figure.savefig(pdf, format="pdf", dpi=DPI)
    small = _smaller(png)
    (folder / f"{name}.png").write_bytes(small)
    (folder / f"{name}.pdf").write_bytes(pdf.getvalue())
    return small


def _smaller(png: io.BytesIO) -> bytes:
    """The same picture in 256 colours: a third of the size."""
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(smaller, "PNG")
    return smaller.getvalue()


def _table(rows: list[list]) -> str:
    if not rows:
        return ""
    head, *body = ["".join(_cell(value, tag) for value in row) for row, tag in zip(rows, _tags(rows), strict=True)]
    return f'<div class="table"><table><tr>{head}</tr>{"".join(f"<tr>{row}</tr>" for row in body)}</table></div>'


def _tags(rows: list[list]) -> list[str]:
    return ["th"] + ["td"] * (len(rows) - 1)


def _cell(value, tag: str) -> str:
    return f"<{tag}>{escape(short(value))}</{tag}>"


def escape(text: str) -> str:
    """A text as HTML, with control characters escaped (each takes ten letters at most)."""
    return html.escape("\n".join(printable(line, 10 * len(line) + 1) for line in text.split("\n")))


def file_name(text: str) -> str:
    """A name that is safe for a file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def space_text(space: dict) -> str:
    """A search space as its file would say it, one parameter a line."""
    lines = [f"    {json.dumps(name)}: {json.dumps(spec)}" for name, spec in space.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n" if lines else ""
