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
SEEDS = (0, 1, 2, 3, 4)
ARCHITECTURE = ("dense_features", "dense2_features", "width")


def points(space: dict) -> list[dict]:
    """Return every configuration of a space of choices, the last parameter changing fastest (as NNI's GridSearch)."""
    values = [spec["_value"] for spec in space.values()]
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]


def make_table(seeds: tuple[int, ...] = SEEDS, processes: int | None = None, space: dict | None = None) -> dict:
    """Train every configuration with every seed; return {"space", "seeds", "points"}.

    `space` has the searched parameters alone; a point has its "params", and an accuracy a seed as "validation", "test".
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
    rows: dict[int, list] = {}
    for group, of_group in zip(groups.values(), found, strict=True):
        rows |= dict(zip(group, of_group, strict=True))
    searched = {name: spec for name, spec in space.items() if len(spec["_value"]) > 1}
    kept = [_point(point, searched, rows[index]) for index, point in enumerate(configurations)]
    return {"space": searched, "seeds": list(seeds), "points": kept}


def _point(point: dict, searched: dict, accuracies: list[tuple[float, float]]) -> dict:
    validation, test = zip(*accuracies, strict=True)
    return {"params": {name: point[name] for name in searched}, "validation": list(validation), "test": list(test)}


def write_table(table: dict, path: Path = FILE) -> None:
    """Write the table, a point a line."""
    rows = ",\n".join(json.dumps(point) for point in table["points"])
    head = f'"space": {json.dumps(table["space"])}, "seeds": {json.dumps(table["seeds"])}'
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{{{head}, "points": [\n{rows}\n]}}\n')


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
