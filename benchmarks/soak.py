"""Does a long search lose anything? A thousand short trials die, fail and hang at random; the driver is killed too.

    python -m benchmarks.soak [--trials 1000] [--kills 20] [--quick] [--json FILE]

Runs a headless search in a temporary copy of the repository. During its first half the driver is killed, with SIGKILL,
SIGTERM or SIGINT, at random moments, and the search is resumed; the second half is left alone, and memory and open
files are looked at. Then every trial must be in the journal and in results.csv once, with the status that its fault
calls for, and no process may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import add_arguments, finish
from runner.flags import count
from runner.records import read_journal

ROOT = Path(__file__).parent.parent
OBJECTIVE = """

from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class SoakParams:
    fault: int = 0
    weight: float = 0.5


def train_soak(params, splits, report, device, seed):
    import os, signal, time
    import numpy as np
    if params.fault == 1:
        raise RuntimeError("as asked")
    if params.fault == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if params.fault == 3:
        os._exit(7)
    if params.fault == 4:
        time.sleep(90)
    time.sleep(params.weight / 20)
    return Result({"default": params.weight}, "ok", {"weights": np.zeros(10000)})


OBJECTIVES["soak"] = Objective("train_hpo:SoakParams", train_soak, ("images",))
"""
FAULTS = {1: "failed", 2: "killed", 3: "failed", 4: "timed_out"}  # the status that each calls for; 0: ok
LIMIT = 3  # time for a trial [s]
SPACE = {
    "fault": {"_type": "choice", "_value": list(range(30))},  # above 4: no fault, too
    "weight": {"_type": "uniform", "_value": [0, 1]},
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass
class Seen:
    """What the processes of the undisturbed half held: one number for each look."""

    memory: list[float] = field(default_factory=list)  # of the driver [MB]
    slots: list[float] = field(default_factory=list)  # of the largest other process [MB]
    files: list[int] = field(default_factory=list)  # that the driver has open


def main() -> int:
    """Soak, print the counts, and return 1 where anything is lost, doubled, wrong or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--trials", type=count(10), help="budget (default 1000; --quick: 100)")
    parser.add_argument("--kills", type=count(0), help="of the driver (default 20; --quick: 3)")
    args = parser.parse_args()
    trials, kills = args.trials or (100 if args.quick else 1000), args.kills or (3 if args.quick else 20)
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder, "repository"))
        began = time.time()
        lost = disturb(repository, trials, kills)
        seen = leave_alone(repository, trials)
        counts = {"lost": lost} | check(repository, trials)
        counts["processes left"] = len(processes_of(repository))
    rows = [
        {"name": "trials", "value": trials, "unit": ""},
        {"name": "kills of the driver", "value": kills, "unit": ""},
    ]
    rows += [{"name": name, "value": number, "unit": ""} for name, number in counts.items()]
    rows += flatness(seen)
    finish([*rows, {"name": "time in all", "value": time.time() - began, "unit": "s"}], args)
    return int(any(counts.values()))


def make_repository(target: Path) -> Path:
    """Return a copy of the repository that has the objective."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "experiments", "docs", "tests"))
    with (target / "train_hpo.py").open("a") as file:
        file.write(OBJECTIVE)
    (target / "search_spaces" / "soak_digits.json").write_text(json.dumps(SPACE))
    return target


def start(repository: Path, trials: int, resumed: bool) -> subprocess.Popen:
    """Start the search, or go on with it."""
    how = ["--resume", "soak"] if resumed else ["--id", "soak", "--tuner", "random", "--trial-duration", str(LIMIT)]
    words = [
        sys.executable,
        "nni_main.py",
        "soak_digits",
        "--headless",
        "--no-check",
        "--no-report",
        "--concurrency",
        "2",
        *how,
    ]
    return subprocess.Popen([*words, "--trials", str(trials)], cwd=repository, stdout=subprocess.DEVNULL)


def journal(repository: Path) -> dict[int, dict]:
    """Return the journal's entries of trials that have ended, by parameter_id."""
    entries = read_journal(repository / "experiments" / "soak" / "journal.jsonl")
    return {entry["parameter_id"]: entry for entry in entries if entry["status"] != "interrupted"}


def disturb(repository: Path, trials: int, kills: int) -> int:
    """Run the first half, killing the driver at random moments. Returns how many finished trials were then gone."""
    generator, before, lost = random.Random(0), {}, 0
    for number in range(kills):
        driver = start(repository, trials, resumed=number > 0)
        wanted = trials // 2 * (number + 1) // kills
        while len(journal(repository)) < wanted and driver.poll() is None:
            time.sleep(0.1)
        time.sleep(generator.random() / 2)
        driver.send_signal(generator.choice(SIGNALS))
        driver.wait()
        after = journal(repository)
        lost += sum(after.get(identifier) != entry for identifier, entry in before.items())
        before = after
        print(f"kill {number + 1} of {kills}: {len(after)} trials have ended, {lost} lost", file=sys.stderr)
    return lost


def leave_alone(repository: Path, trials: int) -> Seen:
    """Run the second half to its end, and look at the processes meanwhile."""
    seen, driver = Seen(), start(repository, trials, resumed=True)
    process = psutil.Process(driver.pid)
    while driver.poll() is None:
        time.sleep(0.5)
        with contextlib.suppress(psutil.Error, ValueError):
            slots = max(child.memory_info().rss for child in process.children())
            seen.files.append(process.num_fds())
            seen.memory.append(process.memory_info().rss / 1e6)
            seen.slots.append(slots / 1e6)
    return seen


def check(repository: Path, trials: int) -> dict[str, int]:
    """Count trials that are missing, doubled or have the wrong status, in the journal and in results.csv."""
    entries = journal(repository)
    with (repository / "experiments" / "soak" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    late = [entry for entry in entries.values() if entry["wall_seconds"] >= LIMIT]  # on a busy machine
    in_time = [entry for entry in entries.values() if entry["wall_seconds"] < LIMIT]
    wrong = sum(entry["status"] != FAULTS.get(entry["parameters"]["fault"], "ok") for entry in in_time)
    wrong += sum(entry["status"] not in ("timed_out", *_right(entry)) for entry in late)
    configurations = {json.dumps(entry["parameters"], sort_keys=True) for entry in entries.values()}
    return {
        "missing in the journal": len(set(range(trials)) - entries.keys()),
        "missing in results.csv": len(set(range(trials)) - {int(row["parameter_id"]) for row in rows}),
        "doubled": len(rows) - trials + len(entries) - len(configurations),
        "with a wrong status": wrong,
    }


def _right(entry: dict) -> list[str]:
    return [FAULTS.get(entry["parameters"]["fault"], "ok")]


def flatness(seen: Seen) -> list[dict]:
    """Return the median of the first and of the last quarter of what was seen."""
    rows = []
    for name, values, unit in (
        ("memory of the driver", seen.memory, "MB"),
        ("memory of a slot", seen.slots, "MB"),
        ("open files", seen.files, ""),
    ):
        values = values[6:-3]  # without the start and the end
        quarter = max(1, len(values) // 4)
        for part, few in (("first quarter", values[:quarter]), ("last quarter", values[-quarter:])):
            value = sorted(few)[len(few) // 2] if few else float("nan")
            rows.append({"name": f"{name}, {part} of the second half", "value": value, "unit": unit})
    return rows


def processes_of(repository: Path) -> list[psutil.Process]:
    """Return the processes that work in the copy."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(str(repository)):
                found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main())
