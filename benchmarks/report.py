"""How long does the report of a large search take, and how much memory? On a made-up journal, in a process of its own.

python -m benchmarks.report [--trials 10000] [--task eprop_braille_wide]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import add_arguments, finish
from search_spaces import flatten, load_space

ROOT = Path(__file__).resolve().parent.parent
QUICK = 1000  # trials


def main() -> int:
    """Make the journal, report it, print what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--trials", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--task", default="eprop_braille_wide", help="whose space is drawn from")
    args = parser.parse_args()
    trials = QUICK if args.quick else args.trials
    with tempfile.TemporaryDirectory() as folder:
        write_journal(Path(folder), args.task, trials)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "report_hpo.py", folder], cwd=ROOT, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(done.stderr)
        size = (Path(folder) / "report" / "index.html").stat().st_size
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    names = f"report of {trials} trials, {len(load_space(args.task))} hyperparameters: "
    measured = {"time": (seconds, "s"), "CPU time": (used.ru_utime + used.ru_stime, "s")}
    measured |= {"peak memory": (used.ru_maxrss / 1024, "MB"), "page": (size / 2**20, "MB")}
    finish([{"name": names + name, "value": value, "unit": unit} for name, (value, unit) in measured.items()], args)
    return 0


def write_journal(folder: Path, task: str, trials: int, seed: int = 0) -> None:
    """Write search.json and a journal of random trials: most ok, some silent, failed or stopped early.

    The scores depend on the first range of numbers in the space, and on luck.
    """
    space, rng = load_space(task), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_text(json.dumps({"task": task, "space": space, "tuner": "random"}))
    leading = next(name for name, spec in space.items() if spec["_type"].endswith("uniform"))
    low, high = space[leading]["_value"][:2]
    lines = []
    for number in range(trials):
        parameters = flatten({name: draw(spec, rng) for name, spec in space.items()})
        good = 1 - abs(parameters[leading] - low) / (high - low)
        lines.append(json.dumps(made_up(number, parameters, good, rng)))
    (folder / "journal.jsonl").write_text("\n".join(lines) + "\n")


def draw(spec: dict, rng: random.Random):
    """Draw a value as NNI does, of the types that this repository's spaces have."""
    kind, value = spec["_type"], spec["_value"]
    if kind == "choice":
        chosen = rng.choice(value)
        nested = isinstance(chosen, dict)
        return {k: v if k == "_name" else draw(v, rng) for k, v in chosen.items()} if nested else chosen
    if kind == "randint":
        return rng.randrange(*value)
    low, high = value[:2]
    return math.exp(rng.uniform(math.log(low), math.log(high))) if "log" in kind else rng.uniform(low, high)


def made_up(number: int, parameters: dict, good: float, rng: random.Random) -> dict:
    """A journal entry whose score rises with `good` (0 to 1)."""
    status = rng.choices(("ok", "silent", "failed", "early_stopped"), (85, 8, 4, 3))[0]
    score = 0.14 if status == "silent" else round(0.5 + 0.45 * good + 0.05 * rng.random(), 4)
    result = {"default": score, "train_accuracy": min(1, score + 0.03), "test_accuracy": score - 0.01 * rng.random()}
    result |= {"energy_nj": 1000 * (0.1 + good) * rng.uniform(0.5, 2), "epochs": 60}
    return {
        "trial": f"t{number:07}",
        "parameter_id": number,
        "sequence": number,
        "parameters": parameters,
        "status": status,
        "cause": f"ValueError: batch {number} is empty" if status == "failed" else None,
        "result": {} if status == "failed" else result,
        "seeds": {"seed": 0, "split_seed": 0, "test_seed": 0, "repeats": 1},
        "repeats": [],
        "wall_seconds": round(rng.uniform(5, 30), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
