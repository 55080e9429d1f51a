"""Does a long search lose anything? A thousand short trials die, fail and hang at random; the driver is killed too.

    python -m benchmarks.soak [--nni] [--trials 1000] [--kills 20] [--quick] [--json FILE]

Runs a search in a temporary copy of the repository, headless or (--nni: 200 trials, 8 kills) with NNI's manager. During
its first half the driver is killed, with SIGKILL, SIGTERM or SIGINT, at random moments, and the search is resumed; the
second half is left alone, and memory and open files are looked at. Then every trial must be in the journal and in
results.csv once, with the status that its fault calls for, and no process may be left.

With --nni, and as root, another user of the machine tries throughout to read, steer and end the search
(benchmarks/intruder.py): nothing may be answered.

With --nni a second search follows, of which everything (driver, manager, tuner, trials) is killed with SIGKILL at a
random moment, twenty times; then a resume must end with the full budget.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
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
from benchmarks.intruder import intruder
from runner.flags import count
from runner.ports import next_free_port
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
LIMIT, NNI_LIMIT = 3, 25  # time for a trial [s]; with NNI it includes a Python's start on a busy machine
EVERYTHING = 20  # kills of all processes
SPACE = {
    "fault": {"_type": "choice", "_value": list(range(30))},  # above 4: no fault, too
    "weight": {"_type": "uniform", "_value": [0, 1]},
}
PLAIN_SPACE = SPACE | {"fault": {"_type": "choice", "_value": [9]}}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass
class Soak:
    """A search of the copy."""

    repository: Path
    identifier: str
    trials: int  # budget
    port: int | None  # of NNI's manager; None: headless

    @property
    def nni(self) -> bool:
        """Whether NNI's manager runs the trials."""
        return self.port is not None

    @property
    def folder(self) -> Path:
        """Where the search's results are."""
        return self.repository / "experiments" / self.identifier

    @property
    def limit(self) -> int:
        """Time for a trial [s]."""
        return NNI_LIMIT if self.nni else LIMIT

    def start(self) -> subprocess.Popen:
        """Start the search, or go on with it."""
        words = [
            sys.executable,
            "nni_main.py",
            "soak_digits",
            "--no-check",
            "--no-report",
            "--trials",
            str(self.trials),
        ]
        words += ["--port", str(self.port)] if self.nni else []
        if (self.folder / "search.json").exists():
            words += ["--resume", self.identifier]
        else:
            words += ["--id", self.identifier, "--tuner", "random", "--concurrency", "2"]
            words += ["--trial-duration", str(self.limit), *([] if self.nni else ["--headless"])]
            shutil.rmtree(self.folder, ignore_errors=True)  # killed before it had begun
        return subprocess.Popen(words, cwd=self.repository, stdout=subprocess.DEVNULL)

    def journal(self) -> dict[int, dict]:
        """Return the journal's entries of trials that have ended, by parameter_id."""
        entries = read_journal(self.folder / "journal.jsonl")
        return {entry["parameter_id"]: entry for entry in entries if entry["status"] != "interrupted"}


@dataclass
class Seen:
    """What the processes of the undisturbed half held: one number for each look."""

    memory: list[float] = field(default_factory=list)  # of the driver [MB]
    others: list[float] = field(default_factory=list)  # of the largest child: a slot, or NNI's manager [MB]
    files: list[int] = field(default_factory=list)  # that the driver has open


def main() -> int:
    """Soak, print the counts, and return 1 where anything is lost, doubled, wrong or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--trials", type=count(10), help="budget (default 1000, with --nni 200; --quick: a tenth)")
    parser.add_argument("--kills", type=count(0), help="of the driver (default 20, with --nni 8; --quick: 3)")
    parser.add_argument("--nni", action="store_true", help="with NNI's manager")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so would drivers
    trials = args.trials or (200 if args.nni else 1000) // (10 if args.quick else 1)
    kills = args.kills or (3 if args.quick else 8 if args.nni else 20)
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder, "repository"))
        port = next_free_port(23000) if args.nni else None
        soak = Soak(repository, "soak", trials, port)
        began = time.time()
        with another_user(port) as visit:
            lost = disturb(soak, kills)
            seen = leave_alone(soak)
            counts = {"lost": lost} | check(soak)
            counts["processes left"] = len(processes_of(repository))
            if args.nni:
                counts |= kill_everything(repository, port, 3 if args.quick else EVERYTHING)
    counts["answered to another user"] = len(visit["answered"])
    rows = [
        {"name": "trials", "value": trials, "unit": ""},
        {"name": "kills of the driver", "value": kills, "unit": ""},
    ]
    rows.append({"name": "requests of another user", "value": sum(visit["statuses"].values()), "unit": ""})
    rows += [{"name": name, "value": number, "unit": ""} for name, number in counts.items()]
    rows += flatness(seen)
    finish([*rows, {"name": "time in all", "value": time.time() - began, "unit": "s"}], args)
    return int(any(counts.values()))


def another_user(port: int | None):
    """Return a context in which another user tries everything at `port`, if there is one and this user may do that."""
    if port is None or os.geteuid() != 0:
        return contextlib.nullcontext({"answered": [], "statuses": {}})
    return intruder({port: 403})


def make_repository(target: Path) -> Path:
    """Return a copy of the repository that has the objective."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "experiments", "docs", "tests"))
    with (target / "train_hpo.py").open("a") as file:
        file.write(OBJECTIVE)
    (target / "search_spaces" / "soak_digits.json").write_text(json.dumps(SPACE))
    return target


def disturb(soak: Soak, kills: int) -> int:
    """Run the first half, killing the driver at random moments. Returns how many finished trials were then gone."""
    generator, before, lost = random.Random(0), {}, 0
    for number in range(kills):
        driver = soak.start()
        wanted = soak.trials // 2 * (number + 1) // kills
        while len(soak.journal()) < wanted and driver.poll() is None:
            time.sleep(0.1)
        time.sleep(generator.random() * (8 if soak.nni else 0.5))
        driver.send_signal(generator.choice(SIGNALS))
        driver.wait()
        after = soak.journal()
        lost += sum(after.get(identifier) != entry for identifier, entry in before.items())
        before = after
        print(f"kill {number + 1} of {kills}: {len(after)} trials have ended, {lost} lost", file=sys.stderr)
    return lost


def leave_alone(soak: Soak) -> Seen:
    """Run the second half to its end, and look at the processes meanwhile."""
    seen, driver = Seen(), soak.start()
    process = psutil.Process(driver.pid)
    while driver.poll() is None:
        time.sleep(0.5)
        with contextlib.suppress(psutil.Error, ValueError):
            other = max(child.memory_info().rss for child in process.children())
            seen.files.append(process.num_fds())
            seen.memory.append(process.memory_info().rss / 1e6)
            seen.others.append(other / 1e6)
    return seen


def kill_everything(repository: Path, port: int, kills: int) -> dict[str, int]:
    """Kill all processes of a search at random moments and resume it; count what is then wrong."""
    (repository / "search_spaces" / "soak_digits.json").write_text(json.dumps(PLAIN_SPACE))
    soak, generator, before, lost = Soak(repository, "everything", 4 * kills, port), random.Random(1), {}, 0
    for number in range(kills):
        driver = soak.start()
        time.sleep(generator.uniform(1, 25))
        for process in [psutil.Process(driver.pid), *processes_of(repository)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        driver.wait()
        after = soak.journal()
        lost += sum(after.get(identifier) != entry for identifier, entry in before.items())
        before = after
        print(f"all killed {number + 1} of {kills} times: {len(after)} trials have ended, {lost} lost", file=sys.stderr)
    exit_status = soak.start().wait()
    counts = {"lost": lost, "exit status": exit_status} | check(soak, killed=True)
    counts["processes left"] = len(processes_of(repository))
    return {f"everything killed: {name}": number for name, number in counts.items()}


def check(soak: Soak, killed: bool = False) -> dict[str, int]:
    """Count trials that are missing, doubled or have the wrong status, in the journal and in results.csv.

    `killed`: trials were killed from outside, and may say so.
    """
    entries, wanted = soak.journal(), set(range(soak.trials))
    with (soak.folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = sum(entry["status"] not in _right(entry, soak.limit, killed) for entry in entries.values())
    configurations = {json.dumps(entry["parameters"], sort_keys=True) for entry in entries.values()}
    return {
        "missing in the journal": len(wanted - entries.keys()),
        "missing in results.csv": len(wanted - {int(row["parameter_id"]) for row in rows}),
        "doubled": len(rows) - soak.trials + len(entries) - len(configurations),
        "with a wrong status": wrong,
    }


def _right(entry: dict, limit: float, killed: bool) -> list[str]:
    """The statuses that a trial may have; on a busy machine any may take too long."""
    right = [FAULTS.get(entry["parameters"]["fault"], "ok"), *(["killed"] if killed else [])]
    return [*right, "timed_out"] if entry["wall_seconds"] >= limit else right


def flatness(seen: Seen) -> list[dict]:
    """Return the median of the first and of the last quarter of what was seen."""
    rows = []
    for name, values, unit in (
        ("memory of the driver", seen.memory, "MB"),
        ("memory of its largest child", seen.others, "MB"),
        ("open files", seen.files, ""),
    ):
        values = values[6:-3]  # without the start and the end
        quarter = max(1, len(values) // 4)
        for part, few in (("first quarter", values[:quarter]), ("last quarter", values[-quarter:])):
            value = sorted(few)[len(few) // 2] if few else float("nan")
            rows.append({"name": f"{name}, {part} of the second half", "value": value, "unit": unit})
    return rows


def processes_of(repository: Path) -> list[psutil.Process]:
    """Return the processes that work in the copy, by their folder or, as NNI's manager, by their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            places = [process.cwd(), *process.cmdline()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(repository) in place for place in places):
                found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main())
