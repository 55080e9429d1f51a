"""How many evaluations the tuners need, on problems whose best is known, and what a proposal costs.

    python -m benchmarks.tuners [--problems a b c d e] [--engines gp forest ...] [--seeds 24] [--pending 1 8] [--cost]

All runs in one process, through NNI's Tuner methods, as fast as the tuners are. With `--pending P` there are P trials
at a time, of which always the oldest ends. The problems are in benchmarks.tuner_problems; e has two objectives.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import time
import warnings
from collections import deque

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from benchmarks import add_arguments, finish  # noqa: E402
from benchmarks.tuner_problems import PROBLEMS, Problem, whole_grid  # noqa: E402

COST_SPACE = {f"x{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(9)}
COST_SPACE["kind"] = {"_type": "choice", "_value": ["a", "b", "c"]}
COST_SIZES = {"forest": (100, 1000, 10_000), "gp": (100, 250), "tpe": (100, 1000, 10_000), "nni-tpe": (100, 1000)}


def engines() -> dict:
    """Return name -> factory(seed) of every tuner on offer that learns, and of random search."""
    import tuners

    ours = {name: lambda seed, name=name: tuners.OptunaTuner(name, seed=seed) for name in ("gp", "tpe", "nsga2", "qmc")}
    return ours | {
        "forest": lambda seed: tuners.ForestTuner(seed=seed),
        "nni-tpe": _nni_tpe,
        "nni-evolution": _nni_evolution,
        "random": _random,
    }


def main() -> int:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--problems", nargs="*", choices=[*PROBLEMS, "e"], default=[*PROBLEMS, "e"])
    parser.add_argument("--engines", nargs="*", choices=list(engines()), default=list(engines()))
    parser.add_argument("--seeds", type=int, default=24, help="searches of each engine (default 24)")
    parser.add_argument("--pending", nargs="*", type=int, default=[1, 8], help="trials at a time (default 1 and 8)")
    parser.add_argument("--cost", action="store_true", help="only the CPU seconds of a proposal")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.pending = 3, args.pending[:1]
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    rows = [] if args.cost else quality(args)
    finish(rows + cost([name for name in COST_SIZES if name in args.engines], args.quick), args)
    return 0


def quality(args: argparse.Namespace) -> list[dict]:
    """Return the rows of all problems, engines and numbers of pending trials; print a line for each as it is there."""
    rows = []
    if "a" in args.problems:
        near, found = whole_grid()
        rows.append({"name": "a grid, points of 256 within a point of the best", "value": near, "unit": "mean"})
        rows.append({"name": "a grid, all 256 of one seed, within a point", "value": found, "unit": "part"})
    for key in args.problems:
        for pending in args.pending:
            for engine in args.engines:
                row = (
                    two_objectives(engine, pending, args.seeds) if key == "e" else one(key, engine, pending, args.seeds)
                )
                rows += row
                print(" ".join(f"{part['name']}: {part['value']:.4g} {part['unit']};" for part in row), flush=True)
    return rows


def one(key: str, engine: str, pending: int, seeds: int) -> list[dict]:
    """Run one engine on one problem with several seeds and return its rows."""
    problems = [PROBLEMS[key](seed) for seed in range(seeds)]
    runs = [evaluate(engines()[engine](seed), problem, pending) for seed, problem in enumerate(problems)]
    problem = problems[0]
    rows, title = [], f"{problem.name}, {engine}, {pending} pending"
    for label, share in (("2 %", 0.02), ("0.5 %", 0.005)):
        needed = [
            _needed(seen, each.top * (1 - share), each.budget)
            for each, (seen, _, _) in zip(problems, runs, strict=True)
        ]
        rows.append({"name": f"{title}, to {label}", "value": statistics.median(needed), "unit": "median"})
    for after in (15, 40):
        if after <= problem.budget:
            lost = [each.best - judged[after - 1] for each, (_, judged, _) in zip(problems, runs, strict=True)]
            regret = statistics.fmean(lost)
            rows.append({"name": f"{title}, regret after {after}", "value": regret, "unit": "mean"})
            if key == "a":
                near = sum(value <= 0.01 for value in lost) / seeds
                rows.append({"name": f"{title}, within a point after {after}", "value": near, "unit": "part"})
            if key == "d":
                found = sum(value <= 0 for value in lost) / seeds
                rows.append({"name": f"{title}, best found after {after}", "value": found, "unit": "part"})
    rows.append({"name": f"{title}, repeats", "value": sum(repeats for *_, repeats in runs), "unit": "all"})
    return rows


def evaluate(tuner, problem: Problem, pending: int) -> tuple[list[float], list[float], int]:
    """Search; return the best so far that was seen, the worth of what would be chosen then, and the repeats."""
    seen, judged, tried, best = [], [], set(), -float("inf")
    chosen, repeats = -float("inf"), 0
    for parameters in ask_and_tell(tuner, problem.space, problem.value, problem.budget, pending):
        value = problem.value(parameters)
        if value > best:
            best, chosen = value, problem.judged(parameters)
        seen.append(best)
        judged.append(chosen)
        key = json.dumps(parameters, sort_keys=True, default=float)
        repeats += key in tried
        tried.add(key)
    return seen, judged, repeats


def ask_and_tell(tuner, space: dict, value, budget: int, pending: int):
    """Yield the configurations in the order in which they end, `pending` at a time."""
    tuner.update_search_space(space)
    waiting, asked = deque(), 0
    for _ in range(budget):
        while len(waiting) < pending and asked < budget:
            waiting.append((asked, tuner.generate_multiple_parameters([asked], st_callback=None)[0]))
            asked += 1
        identifier, parameters = waiting.popleft()
        tuner.receive_trial_result(identifier, parameters, value(parameters))
        tuner.trial_end(identifier, True)
        yield parameters


def two_objectives(engine: str, pending: int, seeds: int) -> list[dict]:
    """Accuracy against energy in five parameters, 60 evaluations: the hypervolume over that of the best front, 1."""
    import tuners

    space = {f"x{i}": {"_type": "uniform", "_value": [0, 1]} for i in range(5)}
    volumes = []
    for seed in range(seeds):
        if engine in tuners.WITH_AIMS:
            tuner = tuners.OptunaTuner(engine, seed=seed, objectives=[("accuracy", "max"), ("energy", "min")])
            told = _accuracy_and_energy
        else:
            tuner, told = engines()[engine](seed), lambda p: _accuracy_and_energy(p)["accuracy"]
        points = [_accuracy_and_energy(p) for p in ask_and_tell(tuner, space, told, 60, pending)]
        volumes.append(_hypervolume([(p["accuracy"], p["energy"]) for p in points]) / 0.75)
    name = f"e two objectives, {engine}, {pending} pending, hypervolume"
    return [{"name": name, "value": statistics.median(volumes), "unit": "median"}]


def _accuracy_and_energy(p: dict) -> dict[str, float]:
    """Accuracy 1 - (1 - x0)^3 less what x1 to x4 miss of 0.5, energy x0: the front dominates 3/4 of the square."""
    missed = sum((p[f"x{i}"] - 0.5) ** 2 for i in range(1, 5))
    return {"accuracy": 1 - (1 - p["x0"]) ** 3 - missed, "energy": p["x0"]}


def _hypervolume(points: list[tuple[float, float]]) -> float:
    """Area that the points dominate above accuracy 0 and below energy 1."""
    area, reached = 0.0, 0.0
    energy_before = 1.0
    steps = []
    for accuracy, energy in sorted(points, key=lambda point: point[1]):
        if accuracy > reached and energy < 1:
            steps.append((energy, accuracy))
            reached = accuracy
    for energy, accuracy in reversed(steps):
        area += accuracy * (energy_before - energy)
        energy_before = energy
    return area


def cost(names: list[str], quick: bool) -> list[dict]:
    """CPU seconds of a result and a proposal with 64 pending, after n results; of one of 64 proposals at once."""
    rows = []
    for name in names:
        for known in COST_SIZES[name][: 1 if quick else None]:
            single, together = _cost(engines()[name](0), known)
            rows.append({"name": f"{name} after {known}, one proposal", "value": single, "unit": "CPU s"})
            rows.append({"name": f"{name} after {known}, each of 64 at once", "value": together, "unit": "CPU s"})
    return rows


def _cost(tuner, known: int) -> tuple[float, float]:
    import numpy as np

    rng = np.random.default_rng(0)
    tuner.update_search_space(COST_SPACE)
    points = [{f"x{i}": float(rng.random()) for i in range(9)} | {"kind": "abc"[rng.integers(3)]} for _ in range(known)]
    with contextlib.redirect_stdout(io.StringIO()):
        tuner.import_data([{"parameter": point, "value": point["x0"] - point["x1"] ** 2} for point in points])
    tuner.generate_multiple_parameters(list(range(64)), st_callback=None)
    turns = max(3, known // 200)  # a forest serves for several
    start = time.process_time()
    for turn in range(turns):
        parameters = tuner.generate_multiple_parameters([1000 + turn], st_callback=None)[0]
        tuner.receive_trial_result(1000 + turn, parameters, 0.1)
    middle = time.process_time()
    tuner.generate_multiple_parameters(list(range(2000, 2064)), st_callback=None)
    return (middle - start) / turns, (time.process_time() - middle) / 64


def _needed(best_so_far: list[float], goal: float, budget: int) -> int:
    """Evaluations until the goal; one more than the budget where it was not reached."""
    return next((number for number, value in enumerate(best_so_far, 1) if value >= goal), budget + 1)


def _nni_tpe(seed: int):
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    return TpeTuner(optimize_mode="maximize", seed=seed)


def _nni_evolution(seed: int):
    from tuners.evolution import SeededEvolution

    return SeededEvolution(seed=seed)


def _random(seed: int):
    from nni.algorithms.hpo.random_tuner import RandomTuner

    return RandomTuner(seed=seed)


if __name__ == "__main__":
    raise SystemExit(main())
