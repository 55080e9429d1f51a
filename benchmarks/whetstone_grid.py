"""Make the truth table of a small search space: every configuration of `whetstone_digits_case1`, with several seeds.

    python -m benchmarks.grid_vs_bayes --make-table

Nets of one architecture are trained at once (`models.whetstone_stack`), architectures side by side in processes.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from pathlib import Path

import search_spaces

TASK = "whetstone_digits_case1"
FILE = Path(__file__).parent / "data" / "whetstone_digits_grid.json"
SEEDS = (0, 1, 2, 3)  # the first half to search on, the second to judge by
ARCHITECTURE = ("dense_features", "dense2_features", "width")


def points(space: dict) -> list[dict]:
    """Return every configuration of a space of choices, the last parameter changing fastest (as NNI's GridSearch)."""
    values = [spec["_value"] for spec in space.values()]
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]


def make_table(seeds: tuple[int, ...] = SEEDS, processes: int | None = None, space: dict | None = None) -> dict:
    """Train every configuration with every seed; return {"space", "seeds", "points", "validation", "test"}.

    `points` are indices into each parameter's values; the accuracies have a row a point, a column a seed.
    """
    space = space or search_spaces.load_space(TASK)
    configurations = points(space)
    groups: dict[tuple, list[int]] = {}
    for index, point in enumerate(configurations):
        groups.setdefault(tuple(point.get(name) for name in ARCHITECTURE), []).append(index)
    jobs = [([configurations[index] for index in group], seeds) for group in groups.values()]
    if processes == 1:
        found = [_train_group(job) for job in jobs]
    else:
        with multiprocessing.get_context("spawn").Pool(processes or os.cpu_count(), _one_thread) as pool:
            found = pool.map(_train_group, jobs, chunksize=1)
    accuracies = {}
    for group, rows in zip(groups.values(), found, strict=True):
        accuracies |= dict(zip(group, rows, strict=True))
    order = range(len(configurations))
    return {
        "task": TASK,
        "space": space,
        "seeds": list(seeds),
        "points": [[spec["_value"].index(point[name]) for name, spec in space.items()] for point in configurations],
        "validation": [[validation for validation, _ in accuracies[index]] for index in order],
        "test": [[test for _, test in accuracies[index]] for index in order],
    }


def write_table(table: dict, path: Path = FILE) -> None:
    """Write the table, one row of numbers a line."""
    parts = []
    for name, value in table.items():
        if name in ("points", "validation", "test"):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            parts.append(f' "{name}": [\n{rows}\n ]')
        else:
            parts.append(f' "{name}": {json.dumps(value)}')
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def read_table(path: Path = FILE) -> dict:
    """Return the table that `write_table` wrote."""
    return json.loads(path.read_text())


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _train_group(job: tuple[list[dict], tuple[int, ...]]) -> list[list[tuple[float, float]]]:
    """Return for each configuration its (validation, test) accuracy with each seed."""
    from models.whetstone_params import WhetstoneParams
    from models.whetstone_stack import train_stack
    from setup_hpo import load_splits

    configurations, seeds = job
    params = [WhetstoneParams(**point) for point in configurations]
    each = [(one, seed) for one in params for seed in seeds]
    found = train_stack([one for one, _ in each], [seed for _, seed in each], load_splits("digits"))
    rounded = [(round(validation, 4), round(test, 4)) for validation, test in found]
    return [rounded[start : start + len(seeds)] for start in range(0, len(rounded), len(seeds))]
