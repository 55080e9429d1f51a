"""Are the numbers right? What NNI's database, its REST answers and our files say against what the trials ran with.

    python -m benchmarks.swaps [--quick] [--json FILE]

Runs three real searches of 40 trials at concurrency 4 (--quick: one of 12), in a copy of the repository with trials of
one to three epochs. A trial's record.json, which it wrote itself, holds the parameters that it ran with. A mismatch is
a trial for which another source says something else; a lost final is a trial that ended well and whose final result is
not there. Plain NNI 3.0 showed 7 to 14 mismatches in 24 trials at concurrency 4, and loses finals of trials that report
before it has stored them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from benchmarks import add_arguments, finish
from runner.records import WITH_DEFAULT, read_record
from search_spaces import flatten

ROOT = Path(__file__).parent.parent
SHORT_TRIALS = {
    "epochs": {"_type": "choice", "_value": [1, 2, 3]},
    "neurons": {"_type": "choice", "_value": [10, 20, 40]},
    "coding": {"_type": "choice", "_value": ["rate", "latency"]},
    "lr": {"_type": "loguniform", "_value": [0.001, 0.1]},
    "tau_mem": {"_type": "uniform", "_value": [5, 50]},
}


def main() -> None:
    """Run the searches and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args()
    experiments, trials = (1, 12) if args.quick else (3, 40)
    totals = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "repository")
        shutil.copytree(ROOT, repository, ignore=shutil.ignore_patterns(".*", "experiments", "docs", "tests"))
        (repository / "search_spaces" / "eprop_digits_short.json").write_text(json.dumps(SHORT_TRIALS))
        for number in range(experiments):
            counts = count_differences(*run_search(repository, f"swaps{number}", trials, seed=number))
            print(f"search {number + 1} of {experiments}: {counts}", file=sys.stderr)
            totals = {name: totals.get(name, 0) + value for name, value in counts.items()}
    finish([{"name": name, "value": value, "unit": "trials"} for name, value in totals.items()], args)


def run_search(repository: Path, identifier: str, trials: int, seed: int) -> tuple[Path, dict]:
    """Run one search to its end; return its folder and what the REST API said while the web UI was up."""
    words = [
        sys.executable,
        "nni_main.py",
        "eprop_digits_short",
        "--keep",
        "--id",
        identifier,
        "--no-check",
        "--no-report",
    ]
    words += ["--trials", str(trials), "--concurrency", "4", "--seed", str(seed), "--tuner", "random"]
    process = subprocess.Popen(words, cwd=repository, stdout=subprocess.PIPE, text=True)
    url, answers = None, {}
    for line in process.stdout:
        if line.startswith("web UI: "):
            url = line.split()[-1]
        if line.startswith("finished"):
            answers = {name: ask(url, name) for name in ("trial-jobs", "export-data", "metric-data")}
            process.send_signal(signal.SIGINT)
    process.wait()
    return repository / "experiments" / identifier, answers


def ask(url: str, name: str) -> list[dict]:
    """Return a REST answer of NNI's manager."""
    with urllib.request.urlopen(f"{url}/api/v1/nni/{name}", timeout=30) as answer:
        return json.load(answer)


def count_differences(folder: Path, answers: dict) -> dict[str, int]:
    """Compare every source with the trials' own records."""
    records = {
        path.parent.name: read_record(path.parent) for path in folder.glob("environments/*/trials/*/record.json")
    }
    ran_with = {trial: record["parameters"] for trial, record in records.items()}
    ended_well = {trial for trial, record in records.items() if record["status"] in WITH_DEFAULT}
    sources = {
        "database": database_parameters(folder),
        "REST": {job["trialJobId"]: parameters_of(job["hyperParameters"][0]) for job in answers["trial-jobs"]},
        "export": {entry["trialJobId"]: flatten(entry["parameter"]) for entry in answers["export-data"]},
        "results.csv": table_parameters(folder, ran_with),
    }
    finals = {metric["trialJobId"] for metric in answers["metric-data"] if metric["type"] == "FINAL"}
    counts = {"trials": len(records), "finals lost by NNI": len(ended_well - finals)}
    scored = {row["trial"] for row in read_table(folder) if row["default"]}
    counts["finals lost in results.csv"] = len(ended_well - scored)
    for name, said in sources.items():
        counts[f"mismatches: {name}"] = sum(said.get(trial) != own for trial, own in ran_with.items())
    return counts


def parameters_of(text: str) -> dict:
    """Return the parameters in NNI's packed form {"parameter_id": ..., "parameters": {...}}."""
    return flatten(json.loads(text)["parameters"])


def database_parameters(folder: Path) -> dict[str, dict]:
    """Return what NNI's sqlite database says that each trial ran with."""
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as database:
        rows = database.execute("SELECT trialJobId, data FROM TrialJobEvent WHERE data IS NOT NULL").fetchall()
    return {trial: parameters_of(data) for trial, data in rows}


def read_table(folder: Path) -> list[dict]:
    """Return the rows of results.csv."""
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table_parameters(folder: Path, ran_with: dict[str, dict]) -> dict[str, dict]:
    """Return the parameters in results.csv, each in the type that the trial had."""
    said = {}
    for row in read_table(folder):
        own = ran_with.get(row["trial"], {})
        said[row["trial"]] = {name: value if same(row[name], value) else row[name] for name, value in own.items()}
    return said


def same(text: str, value) -> bool:
    """Tell whether a table's `text` says `value`."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(text) == value if numeric else text == str(value)


if __name__ == "__main__":
    main()
