"""Benchmarks: side-by-side measurements, each a command `python -m benchmarks.<name>` that prints a table.

A row is a dict: name, value and unit of what was measured, and where it was measured against something else, `against`
and `ratio`. `--json FILE` writes them with the machine that they were measured on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all benchmarks share."""
    parser.add_argument("--quick", action="store_true", help="measure less, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")


def finish(rows: list[dict], args: argparse.Namespace) -> None:
    """Print the rows as a table and, with --json, write {"machine": ..., "rows": [...]}."""
    width = max(len(row["name"]) for row in rows)
    print(machine())
    for row in rows:
        against = f"{row['ratio']:8.2f} x {row['against']}" if row.get("ratio") is not None else ""
        print(f"{row['name']:{width}}  {row['value']:>10.4g} {row['unit']:6}{against}".rstrip())
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def machine() -> str:
    """Return processor, cores, system and Python in a line."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
