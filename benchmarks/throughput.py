"""How many trials a second? NNI, the headless runner and Optuna on an objective that does nothing.

    python -m benchmarks.throughput [--quick] [--json FILE]

The objectives are `noop`, and `imports`, which imports torch and snntorch: both in a temporary copy of the repository,
with a dataset of four samples. Each searches three parameters at random. NNI starts a process for every trial, at
concurrency 1, 2 and 4; the headless runner has 2 processes for all of them; Optuna has 2 processes that share a journal
file (JournalStorage). The variants take turns. A rate is the number of trials over the time from the first trial's
start to the last one's end, so the start of the search is left out, and the start of a trial's process is not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import add_arguments, finish
from runner.records import read_journal
from runner.resume import read_starts

ROOT = Path(__file__).parent.parent
SPACE = {
    "a": {"_type": "uniform", "_value": [0, 1]},
    "b": {"_type": "loguniform", "_value": [0.001, 1]},
    "c": {"_type": "choice", "_value": [1, 2, 3]},
}
OBJECTIVE = """

from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class NoopParams:
    a: float = 0.5
    b: float = 0.5
    c: int = 1


def train_noop(params, splits, report, device, seed):
    return Result({"default": params.a * params.b}, "ok", None)


def train_imports(params, splits, report, device, seed):
    import snntorch, torch
    return Result({"default": params.a * params.b}, "ok", None)


OBJECTIVES["noop"] = Objective("train_hpo:NoopParams", train_noop, ("features",))
OBJECTIVES["imports"] = Objective("train_hpo:NoopParams", train_imports, ("features",))
"""
DATASET = """

def load_nothing(data_dir):
    return Data(np.zeros((20, 1), np.float32), np.arange(20) % 2, ("a", "b"))


DATASETS["nothing"] = load_nothing
"""
OPTUNA = """
import sys
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
path, trials, imports, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "imports", int(sys.argv[4])
storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
sampler = optuna.samplers.RandomSampler(seed=seed)
study = optuna.create_study(study_name="s", storage=storage, sampler=sampler, load_if_exists=True)

def objective(trial):
    if imports:
        import snntorch, torch
    a, b = trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0.001, 1, log=True)
    return a * b * trial.suggest_categorical("c", [1, 2, 3]) / 3

study.optimize(objective, n_trials=trials)
"""
SPAN = """
import json, sys
import optuna
storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(sys.argv[1]))
trials = optuna.load_study(study_name="s", storage=storage).trials
starts, ends = [t.datetime_start for t in trials], [t.datetime_complete for t in trials]
print(json.dumps([len(trials), (max(ends) - min(starts)).total_seconds()]))
"""


def main() -> None:
    """Measure in turns and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args()
    rounds, few, many = (1, 6, 200) if args.quick else (3, 12, 600)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder, "repository"))
        variants = make_variants(repository, few, many)
        for number in range(rounds):
            for name, variant in variants.items():
                rate = variant(number)
                rates.setdefault(name, []).append(rate)
                print(f"round {number + 1} of {rounds}, {name}: {rate:.3g} trials/s", file=sys.stderr)
    finish([row for objective in ("noop", "imports") for row in rows(rates, objective)], args)


def make_repository(target: Path) -> Path:
    """Return a copy of the repository that has the objectives and the dataset."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "experiments", "docs", "tests"))
    for name, text in (("train_hpo.py", OBJECTIVE), ("setup_hpo.py", DATASET)):
        with (target / name).open("a") as file:
            file.write(text)
    for objective in ("noop", "imports"):
        (target / "search_spaces" / f"{objective}_nothing.json").write_text(json.dumps(SPACE))
    return target


def make_variants(repository: Path, few: int, many: int) -> dict[str, Callable[[int], float]]:
    """Return {name: function of the round that returns trials per second}; NNI runs `few` trials per slot."""

    def ours(objective: str, trials: int, concurrency: int, *flags: str) -> Callable[[int], float]:
        return lambda number: run_search(repository, objective, trials, concurrency, number, *flags)

    variants = {}
    for objective in ("noop", "imports"):
        for concurrency in (1, 2, 4):
            variants[f"{objective}: NNI, concurrency {concurrency}"] = ours(objective, few * concurrency, concurrency)
        variants[f"{objective}: headless, 2 workers"] = ours(objective, many, 2, "--headless")
        variants[f"{objective}: Optuna, 2 processes"] = lambda number, name=objective: run_optuna(name, many, number)
    return variants


def rows(rates: dict[str, list[float]], objective: str) -> list[dict]:
    """Return the table's rows of an objective; the headless runner's is compared with the others, round by round."""
    headless, found = f"{objective}: headless, 2 workers", []
    for name, values in rates.items():
        if name.startswith(f"{objective}: "):
            found.append({"name": name, "value": statistics.median(values), "unit": "1/s"})
    for other in (f"{objective}: Optuna, 2 processes", f"{objective}: NNI, concurrency 2"):
        ratio = statistics.median(a / b for a, b in zip(rates[headless], rates[other], strict=True))
        value = statistics.median(rates[headless])
        found.append({"name": headless, "value": value, "unit": "1/s", "against": other, "ratio": ratio})
    return found


def run_search(repository: Path, objective: str, trials: int, concurrency: int, number: int, *flags: str) -> float:
    """Run one search of this project to its end; return its trials per second."""
    identifier = f"{objective}-{concurrency}-{number}{''.join(flags)}"
    words = [
        sys.executable,
        "nni_main.py",
        f"{objective}_nothing",
        "--id",
        identifier,
        "--no-check",
        "--tuner",
        "random",
    ]
    words += ["--trials", str(trials), "--concurrency", str(concurrency), *flags]
    subprocess.run(words, cwd=repository, check=True, stdout=subprocess.DEVNULL)
    folder = repository / "experiments" / identifier
    starts = {start["trial"]: start["time"] for start in read_starts(folder / "events.jsonl")}
    entries = read_journal(folder / "journal.jsonl")
    ends = [starts[entry["trial"]] + entry["wall_seconds"] for entry in entries if entry["status"] == "ok"]
    if len(ends) != trials:
        raise RuntimeError(f"{identifier}: {len(ends)} of {trials} trials ended well")
    return trials / (max(ends) - min(starts.values()))


def run_optuna(objective: str, trials: int, number: int) -> float:
    """Run Optuna in two processes on one journal file; return its trials per second."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "journal.log"))
        half = [sys.executable, "-W", "ignore", "-c", OPTUNA, path, str(trials // 2), objective]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([*half, str(2 * number + half_number)], env=environment) for half_number in (0, 1)
        ]
        if any([process.wait() for process in processes]):
            raise RuntimeError("a process of Optuna failed")
        asked = [sys.executable, "-W", "ignore", "-c", SPAN, path]
        done, seconds = json.loads(subprocess.run(asked, capture_output=True, check=True, text=True).stdout)
    return done / seconds


if __name__ == "__main__":
    main()
