"""The problems of benchmarks.tuners: search spaces whose best value is known, answered in microseconds.

Each is a function of the search's seed that returns a Problem. Values are to be maximised.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

from tuners.space import everything

GRID = Path(__file__).parent / "data" / "whetstone_digits_grid.json"


@dataclass(frozen=True)
class Problem:
    """A search space and what its points are worth."""

    name: str
    space: dict  # NNI's form
    value: Callable[[dict], float]  # what the search sees
    judged: Callable[[dict], float]  # what its choice is judged by
    top: float  # the best of `value`
    best: float  # the best of `judged`
    budget: int  # evaluations at most


def choice(*values) -> dict:
    """A choice in NNI's form."""
    return {"_type": "choice", "_value": list(values)}


def whetstone_grid(seed: int) -> Problem:
    """256 trainings of a sharpened net on digits: searched on one training seed's figures, judged on the others' mean.

    Searches take the training seeds in turn.
    """
    table = json.loads(GRID.read_text())
    chosen = seed % len(table["seeds"])
    seen = {_key(point["params"]): point["validation"][chosen] for point in table["points"]}
    judged = {_key(p["params"]): fmean(_without(p["validation"], chosen)) for p in table["points"]}
    best = max(judged.values())
    return Problem(
        "a grid", table["space"], lambda p: seen[_key(p)], lambda p: judged[_key(p)], max(seen.values()), best, 40
    )


def whole_grid() -> tuple[float, float]:
    """Return how many points are within 0.01 of the best as judged, and in what part of the seeds that point is which
    is best on the seed itself: what the whole grid, trained with one seed, gets. Means over the seeds."""
    seeds = range(len(json.loads(GRID.read_text())["seeds"]))
    near, found = [], []
    for problem in map(whetstone_grid, seeds):
        points = list(everything(problem.space))
        near.append(sum(problem.best - problem.judged(point) <= 0.01 for point in points))
        found.append(problem.best - problem.judged(max(points, key=problem.value)) <= 0.01)
    return fmean(near), fmean(found)


def published_rows(seed: int) -> Problem:
    """Parsa et al., Table II: its 15 rows and the optimum of the grid, which it names, with a surrogate between them.

    The surrogate is ridge regression on the level at each learning rate and, at lr = 1, the other effects and duration
    times intermission; points that were not published get noise of 0.35 points, and stay below the optimum. It is
    additive by construction, which is kind to Gaussian processes.
    """
    import numpy as np

    space = {
        "lr": choice(1e-4, 1),
        "decay": choice(1e-8, 1e-6),
        "sh_start": choice(15, 25),
        "sh_duration": choice(3, 7),
        "sh_intermission": choice(2, 5),
        "conv1_filter": choice(3, 7),
        "conv1_features": choice(64, 128),
        "dense_features": choice(256, 1024),
    }
    published = {tuple(int(bit) for bit in bits): value for bits, value in PUBLISHED.items()}  # 1 = the larger value

    def features(bits: tuple) -> list[float]:
        live, signs = bits[0], [2 * bit - 1 for bit in bits[1:]]
        effects = [live * sign for sign in [*signs, signs[2] * signs[3]]]
        return [live, 1 - live, *effects, (1 - live) * signs[3], (1 - live) * signs[1]]

    x, y = np.array([features(bits) for bits in published]), np.array(list(published.values()))
    ridge = 0.05 * np.diag([0, 0, *[1] * (x.shape[1] - 2)])
    weights = np.linalg.solve(x.T @ x + ridge, x.T @ y)
    noise = random.Random(0)
    values = {}
    for bits in product((0, 1), repeat=8):
        fitted = float(np.dot(features(bits), weights)) + noise.gauss(0, 0.35)
        values[bits] = published.get(bits, min(fitted, max(published.values()) - 0.05))

    def value(parameters: dict) -> float:
        return values[tuple(spec["_value"].index(parameters[name]) for name, spec in space.items())]

    return Problem("b published", space, value, value, max(values.values()), max(values.values()), 60)


# Bits: lr, decay, start, duration, intermission, filter 1, features 1, dense; accuracy in percent
PUBLISHED = {
    "00100000": 5.61,
    "01110110": 6.37,
    "11000111": 38.65,
    "00001001": 7.69,
    "11111000": 49.69,
    "11111100": 43.4,
    "11101101": 45.19,
    "01100011": 7.59,
    "11110111": 47.84,
    "11101100": 41.34,
    "01110010": 6.11,
    "11110011": 53.13,
    "10111001": 51.54,
    "11111011": 52.38,
    "11110001": 51.69,
    "11101011": 53.34,
}


def continuous(seed: int) -> Problem:
    """Nine continuous parameters as in Table I of arXiv 2302.13210: a ridge of learning rate times weight limit, a
    corner of chance where both are large, weak slopes in the rest. The best is 0.92."""
    log = {"_type": "loguniform", "_value": [1e-4, 1e-1]}
    unit = {"_type": "uniform", "_value": [0, 1]}
    space = {"lr": log, "w_limit": {"_type": "loguniform", "_value": [0.01, 1]}} | {f"x{i}": unit for i in range(7)}
    middle, weight = (0.3, 0.7, 0.5, 0.2, 0.8, 0.4, 0.6), (0.2, 0.15, 0.1, 0.05, 0.05, 0.02, 0.01)

    def value(p: dict) -> float:
        ridge = math.log10(p["lr"] / 4e-3) + 0.5 * math.log10(p["w_limit"] / 0.2)
        along = math.log10(p["w_limit"] / 0.2)
        rest = sum(w * (p[f"x{i}"] - m) ** 2 for i, (m, w) in enumerate(zip(middle, weight, strict=True)))
        if p["lr"] * p["w_limit"] > 0.02:
            return 0.1
        return max(0.1, 0.92 - 0.25 * ridge**2 - 0.03 * along**2 - rest)

    return Problem("c continuous", space, value, value, 0.92, 0.92, 100)


def nested(seed: int) -> Problem:
    """A nested, mixed space of 240 configurations: which of four rules, each with parameters of its own."""
    space = {
        "rule": choice(
            {"_name": "stdp", "ratio": choice(0.5, 1.0, 2.0, 4.0), "window": choice(5, 10, 20)},
            {"_name": "mse", "margin": choice(0, 0.1, 0.2, 0.3)},
            {"_name": "fixed"},
            {"_name": "random", "spread": choice("low", "middle", "high")},
        ),
        "lr": choice(0.001, 0.003, 0.01, 0.03),
        "neurons": choice(50, 100, 200),
    }

    def value(p: dict) -> float:
        rule, lr = p["rule"], math.log10(p["lr"])
        size = {50: 0.0, 100: 0.02, 200: 0.03}[p["neurons"]]
        if rule["_name"] == "stdp":
            base = 0.86 - 0.03 * abs(math.log2(rule["ratio"]) - 1) - 0.02 * abs(math.log2(rule["window"] / 10))
        elif rule["_name"] == "mse":
            base = 0.9 - 0.3 * abs(rule["margin"] - 0.2) - 0.02 * (p["neurons"] == 50)
        else:
            base = 0.5 + 0.1 * (rule.get("spread") == "middle")
        best_lr = {"stdp": -2.0, "mse": -2.5}.get(rule["_name"], -1.5)
        return base + size - 0.08 * (lr - best_lr) ** 2

    best = max(map(value, everything(space)))
    return Problem("d nested", space, value, value, best, best, 40)


PROBLEMS = {"a": whetstone_grid, "b": published_rows, "c": continuous, "d": nested}


def _without(values: list, index: int) -> list:
    return values[:index] + values[index + 1 :]


def _key(parameters: dict) -> str:
    return json.dumps(parameters, sort_keys=True)
