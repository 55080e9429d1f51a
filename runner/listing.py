"""The experiments in a folder as a table: nni_main.py --list."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runner.flags import UserMistake
from runner.records import read_journal
from runner.resume import hold

COLUMNS = ("id", "task", "tuner", "status", "trials", "best", "started")


def print_experiments(experiments: Path) -> None:
    """Print a row for each experiment in the folder, the newest last."""
    rows = sorted((row for folder in experiments.glob("*/search.json") if (row := describe(folder.parent))), key=_date)
    if not rows:
        print(f"no experiments in {experiments}")
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row[name]) for name in COLUMNS))
    # a table wider than the terminal is wrapped by it: nothing is cut off
    console = Console()
    console.print(table, width=None if console.is_terminal else 200, crop=False, highlight=False, markup=False)


def describe(folder: Path) -> dict | None:
    """Return an experiment's row; None for the link _latest and where search.json cannot be read."""
    try:
        asked = json.loads((folder / "search.json").read_text())
    except (OSError, ValueError):
        return None
    if folder.is_symlink():
        return None
    entries = [entry for entry in read_journal(folder / "journal.jsonl") if entry["status"] != "interrupted"]
    try:
        with hold(folder):
            status = "finished" if len(entries) >= asked["trials"] else "stopped"
    except UserMistake:
        status = "running"
    started = asked.get("started") or (folder / "search.json").stat().st_mtime
    return {
        "id": folder.name,
        "task": asked["task"],
        "tuner": asked["tuner"] + (" (headless)" if asked["headless"] else ""),
        "status": status,
        "trials": f"{len(entries)}/{asked['trials']}",
        "best": _best(folder),
        "started": time.strftime("%Y-%m-%d %H:%M", time.localtime(started)),
    }


def _best(folder: Path) -> str:
    try:
        return f"{json.loads((folder / 'best.json').read_text())['default']:.4f}"
    except (OSError, ValueError, KeyError):
        return "-"


def _date(row: dict) -> str:
    return row["started"]
