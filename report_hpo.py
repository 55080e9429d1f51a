"""After the search: a picture of its trials, as PNG and PDF, beside the tables that the search itself writes.

python report_hpo.py experiments/<id>
"""

from __future__ import annotations

import sys
from pathlib import Path

from runner.flags import OneLineParser, UserMistake
from runner.records import read_journal

COLUMNS = 5  # panels in a row
LOG_RATIO = 5  # a parameter whose values span more than this is drawn on a logarithmic axis
FEW = 6  # so many different values, or fewer, are drawn as choices


def main() -> int:
    """Draw the trials of one experiment."""
    parser = OneLineParser(description="Draw the trials of an experiment.")
    parser.add_argument("folder", type=Path, help="experiments/<id>")
    folder = parser.parse_args().folder
    try:
        entries = scored_trials(folder)
    except UserMistake as mistake:
        print(f"report_hpo.py: {mistake}", file=sys.stderr)
        return 2
    (folder / "report").mkdir(exist_ok=True)
    figure = draw_trials(entries)
    for suffix in ("png", "pdf"):
        figure.savefig(folder / "report" / f"trials.{suffix}", dpi=130)
        print(folder / "report" / f"trials.{suffix}")
    return 0


def scored_trials(folder: Path) -> list[dict]:
    """Return the journal entries that carry a score, in the order of their start. Raises UserMistake where none do."""
    if not (folder / "journal.jsonl").exists():
        raise UserMistake(f"{folder} has no journal.jsonl: give the folder of an experiment, experiments/<id>")
    entries = [entry for entry in read_journal(folder / "journal.jsonl") if "default" in entry["result"]]
    if not entries:
        raise UserMistake(f"{folder}: no trial has a result yet")
    return sorted(entries, key=lambda entry: entry["sequence"])


def draw_trials(entries: list[dict]):
    """Return a figure: best so far over the trials, and the score against each searched parameter."""
    from matplotlib.figure import Figure

    searched = [name for name in dict.fromkeys(name for entry in entries for name in entry["parameters"])]
    searched = [name for name in searched if len({str(entry["parameters"].get(name)) for entry in entries}) > 1]
    rows = -(-(len(searched) + 1) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).flatten()
    draw_progress(panels[0], entries)
    for panel, name in zip(panels[1:], searched, strict=False):
        draw_parameter(panel, entries, name)
    for panel in panels[len(searched) + 1 :]:
        panel.set_axis_off()
    for panel in panels[::COLUMNS]:
        panel.set_ylabel("best validation accuracy")
    return figure


def draw_progress(panel, entries: list[dict]) -> None:
    """Scores in the order of the trials' start, and the best so far."""
    scores = [entry["result"]["default"] for entry in entries]
    panel.plot(range(1, len(scores) + 1), scores, "o", color="tab:blue", alpha=0.6, label="trial")
    best = [max(scores[: end + 1]) for end in range(len(scores))]
    panel.step(range(1, len(scores) + 1), best, where="post", color="tab:orange", label="best so far")
    panel.set_xlabel("trial")
    panel.legend(loc="lower right")


def draw_parameter(panel, entries: list[dict], name: str) -> None:
    """Scores against one parameter; the best trial is marked."""
    from matplotlib.ticker import LogLocator

    having = [entry for entry in entries if name in entry["parameters"]]
    having.sort(key=lambda entry: (isinstance(entry["parameters"][name], str), entry["parameters"][name]))
    values = [entry["parameters"][name] for entry in having]
    scores = [entry["result"]["default"] for entry in having]
    if isinstance(values[-1], str) or len(set(values)) <= FEW < len(values):
        values = [str(value) for value in values]  # an axis of names
        panel.margins(x=0.2)
    elif min(values) > 0 and max(values) / min(values) > LOG_RATIO:
        panel.set_xscale("log", subs=[])
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
    panel.plot(values, scores, "o", color="tab:blue", alpha=0.6)
    top = scores.index(max(scores))
    panel.plot(values[top : top + 1], scores[top : top + 1], "*", color="tab:orange", markersize=14)
    panel.set_xlabel(name)


if __name__ == "__main__":
    sys.exit(main())
