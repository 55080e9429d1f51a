"""Texts that others have made, such as an error's message or a metric's name, as files and terminals can take them.

printable("\\x1b[31m\\ud800")      # no escape sequence, no letter without an encoding, at most MOST letters, one line
"""

from __future__ import annotations

import math
import sys
from typing import Any

MOST = 1000  # letters of a text
DEEPEST = 20  # levels of lists and dicts within each other; what lies below is left out
FORMULA = ("=", "+", "-", "@")  # with which a cell begins that a spreadsheet reckons or runs


def printable(text: str, most: int = MOST) -> str:
    """Return `text` as one line in which what cannot be printed is escaped, cut to `most` letters."""
    line = text[: most + 1]
    if not line.isprintable():
        line = "".join(map(_shown, line))
    return line if len(line) <= most else line[: most - 1] + "…"


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() else letter.encode("unicode_escape").decode()


def clean(value: Any, levels: int = DEEPEST) -> Any:
    """Return JSON's `value` with every text in it, names included, made printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict | list) and not levels:
        return "…"
    if isinstance(value, dict):
        return {printable(name): clean(inner, levels - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [clean(inner, levels - 1) for inner in value]
    return value


def one_line(error: object) -> str:
    """Return what an error says as one line for a terminal, long enough to list the choices."""
    return printable(" ".join(str(error).split()), 10 * MOST)


def harmless(cell: Any) -> Any:
    """Return a cell of a table with an apostrophe before a text that a spreadsheet would take for a formula."""
    if isinstance(cell, str) and cell.lstrip()[:1] in FORMULA and not _is_number(cell):
        return f"'{cell}"
    return cell


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def take_any_terminal() -> None:
    """Let what stdout and stderr have no letter for be escaped, such as … on an ASCII terminal, and not raise."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's have none
            stream.reconfigure(errors="backslashreplace")
