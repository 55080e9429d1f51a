"""The experiments in a folder as a table: nni_main.py --list."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runner.flags import UserMistake
from runner.records import read_journal
from runner.resume import hold, read_request
from runner.texts import printable
from runner.web_address import read_address

COLUMNS = ("id", "task", "tuner", "status", "trials", "best", "started")


def print_experiments(experiments: Path) -> None:
    """Print a row for each experiment in the folder, the newest last."""
    folders = [path.parent for path in experiments.glob("*/search.json")]
    rows = sorted((describe(folder) for folder in folders if not folder.is_symlink()), key=_date)  # _latest is a link
    if not rows:
        print(f"no experiments in {experiments}")
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(printable(str(row[name])) for name in COLUMNS))
    # a table wider than the terminal is wrapped by it: nothing is cut off
    console = Console()
    console.print(table, width=None if console.is_terminal else 200, crop=False, highlight=False, markup=False)
    for row in rows:
        if row["status"] == "running" and (address := read_address(experiments / row["id"])):
            console.print(f"web UI of {row['id']}: {address}", soft_wrap=True, highlight=False, markup=False)


def describe(folder: Path) -> dict:
    """Return an experiment's row, mostly empty where its files cannot be read."""
    try:
        return _describe(folder)
    except (UserMistake, OSError, ValueError, TypeError, KeyError):
        return dict.fromkeys(COLUMNS, "-") | {"id": folder.name, "status": "damaged"}


def _describe(folder: Path) -> dict:
    asked = read_request(folder)
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
    except (OSError, ValueError, TypeError, KeyError):
        return "-"


def _date(row: dict) -> str:
    return row["started"]
