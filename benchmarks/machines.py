"""Searches on two machines by SSH: is a trial lost or swapped, and what does a machine cost that drops out?

    python -m benchmarks.machines [--quick] [--json FILE]

Runs two real searches of 40 trials at concurrency 4 (--quick: 12) in a copy of the repository, over two "machines" on
this one (benchmarks/two_machines.py says what these are): one undisturbed; in the other, a machine's SSH server and all
its sessions are killed after a quarter of the trials, and start again 10 s later. A trial is swapped where its own
record, or our table, has other parameters than the manager gave out for it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import add_arguments, finish
from benchmarks.swaps import ROOT, SHORT_TRIALS, read_table, same
from benchmarks.two_machines import TestMachine, two_machines, why_not
from runner.manager import read_events
from runner.records import read_record

AWAY_SECONDS = 10


def main() -> None:
    """Run both searches and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args()
    if reason := why_not():
        sys.exit(f"benchmarks.machines: {reason}")
    trials = 12 if args.quick else 40
    with tempfile.TemporaryDirectory() as folder, two_machines(Path(folder)) as machines:
        repository = Path(folder, "repository")
        shutil.copytree(ROOT, repository, ignore=shutil.ignore_patterns(".*", "experiments", "docs", "tests"))
        (repository / "search_spaces" / "eprop_digits_short.json").write_text(json.dumps(SHORT_TRIALS))
        (repository / "machines.json").write_text(json.dumps([machine.entry for machine in machines]))
        rows = search(repository, machines, "undisturbed", trials) + search(repository, machines, "drop-out", trials)
    finish(rows, args)


def search(repository: Path, machines: list[TestMachine], name: str, trials: int) -> list[dict]:
    """Run one search to its end and return its rows."""
    words = [
        sys.executable,
        "nni_main.py",
        "eprop_digits_short",
        "--id",
        name,
        "--no-check",
        "--no-report",
        "--tuner",
        "random",
    ]
    words += ["--trials", str(trials), "--concurrency", "4", "--machines", "machines.json"]
    folder = repository / "experiments" / name
    process = subprocess.Popen(words, cwd=repository, stdout=sys.stderr)
    ran_at_loss = drop_out(machines[0], folder, process, trials // 4) if name == "drop-out" else set()
    listening = set()
    while process.poll() is None:
        listening = listening.union(*(machine.listening() for machine in machines))
        time.sleep(1)
    counts = count(folder, machines)
    if name == "drop-out":
        counts["running there when the machine dropped out"] = len(ran_at_loss)
    counts["addresses listened on, other than 127.0.0.1"] = len(listening - {"127.0.0.1"})
    counts["processes left on the machines"] = left_over(machines)
    return [{"name": f"{name}: {what}", "value": value, "unit": ""} for what, value in counts.items()]


def drop_out(machine: TestMachine, folder: Path, process: subprocess.Popen, after: int) -> set[str]:
    """Let a machine drop out after so many trials, and come back; return the trials that ran there."""
    while process.poll() is None and len(of_kind(folder, "end")) < after:
        time.sleep(0.2)
    machine.drop_out()
    here = {event["trial"] for event in of_kind(folder, "start") if event["machine"] == machine.name}
    ended = {event["trial"] for event in of_kind(folder, "end") if event["cause"] != "machine_lost"}
    time.sleep(AWAY_SECONDS)
    machine.come_back()
    return here - ended


def of_kind(folder: Path, kind: str) -> list[dict]:
    """Return the manager's events of one kind."""
    return [event for event in read_events(folder / "events.jsonl", 0)[0] if event["event"] == kind]


def count(folder: Path, machines: list[TestMachine]) -> dict[str, float]:
    """Count what became of the trials of a search."""
    starts = {event["trial"]: event for event in of_kind(folder, "start")}
    rows = {row["trial"]: row for row in read_table(folder)}
    swapped = 0
    for trial, start in starts.items():
        given = start["parameters"]
        paths = list(folder.glob(f"environments/*/trials/{trial}/record.json"))
        record = read_record(paths[0].parent) if paths else None
        row_differs = not all(same(rows[trial][name], value) for name, value in given.items())
        swapped += row_differs or (record is not None and record["parameters"] != given)
    counts = {"trials": len(rows), "lost": sum(row["status"] == "lost" for row in rows.values())}
    counts["ended otherwise than ok"] = sum(row["status"] not in ("ok", "lost", "silent") for row in rows.values())
    counts["swapped"] = swapped
    for number, machine in enumerate(machines, 1):
        counts[f"on machine {number}"] = sum(start["machine"] == machine.name for start in starts.values())
    ups = [event for event in of_kind(folder, "machine") if event["state"] == "up"]
    counts["times that a machine came back"] = len(ups) - len(machines)
    ends = [event["time"] for event in of_kind(folder, "end")]
    counts["seconds from the first start to the last end"] = max(ends) - min(s["time"] for s in starts.values())
    return counts


def left_over(machines: list[TestMachine]) -> int:
    """Return how many keepers and trials still run some seconds after the end."""
    deadline = time.monotonic() + 30
    while any(machine.processes() for machine in machines) and time.monotonic() < deadline:
        time.sleep(0.5)
    return sum(len(machine.processes()) for machine in machines)


if __name__ == "__main__":
    main()
