"""Data, splits, seeds and device of a trial.

To add a dataset: write `loaders/<name>.py` with `load(data_dir) -> Data` and a search space
`search_spaces/<objective>_<name>.json`. It is found by its name, and imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loaders import Data
from search_spaces import parts

# Datasets that have another name than their loader's file: "module:function", or a function.
DATASETS: dict[str, str | Callable[..., Data]] = {
    "mnist": "loaders.images:load_mnist",
    "fashion": "loaders.images:load_fashion",
    "cifar10": "loaders.cifar:load_cifar10",
    "cifar100": "loaders.cifar:load_cifar100",
    "tonic": "loaders.tonic_data:load",  # which of them, --tonic says
}
TEST_FRACTION = 0.2  # outer test part, never seen by a search
TEST_FRACTIONS = {"mnist": 0.1, "fashion": 0.1}  # with only the 10,000 test images at hand: 7,000 / 2,000 / 1,000
VALIDATION_FRACTION = 2 / 9  # of the rest: train : validation = 7 : 2


class Splits(NamedTuple):
    """Three disjoint parts of a dataset; `test` is the same whatever the split seed."""

    train: Data
    validation: Data
    test: Data


def load_splits(
    dataset: str, data_dir: Path | None = None, test_seed: int = 0, split_seed: int = 0, tonic: str | None = None
) -> Splits:
    """Load `dataset` and split it, stratified by class.

    The outer test part is the published test set where there is one, else 20 % drawn with `test_seed`. Train and
    validation are the rest, 7 : 2, drawn with `split_seed`. `tonic` names the dataset of "tonic", such as "SHD". Raises
    ValueError for an unknown name, and what the loader raises (`loaders.MissingData` where files are not there).
    """
    return split(dataset, load(dataset, data_dir, tonic), test_seed, split_seed)


def load(dataset: str, data_dir: Path | None = None, tonic: str | None = None) -> Data:
    """Return what the loader of `dataset` returns. Raises as `load_splits`."""
    loader = find_loader(dataset)
    data = loader(data_dir, **check_tonic(dataset, tonic))
    if not isinstance(data, Data):
        raise ValueError(f"the loader of {dataset} must return loaders.Data, not {type(data).__name__}")
    return data


def find_loader(dataset: str) -> Callable[..., Data]:
    """Import the loader of `dataset` alone. Raises ValueError that names the choices, or why it cannot be had."""
    if dataset not in DATASETS:
        return parts.find("loaders", dataset, ("load",), "dataset", DATASETS).load
    known = DATASETS[dataset]
    if callable(known):
        return known
    module, _, function = known.partition(":")
    return getattr(parts.bring(module), function)


def split(dataset: str, data: Data, test_seed: int = 0, split_seed: int = 0) -> Splits:
    """Return the three parts of the `data` of `dataset`."""
    rest, test = data, data.test
    if test is None:
        fraction = TEST_FRACTIONS.get(dataset, TEST_FRACTION)
        test_indices, rest_indices = stratified(data.y, fraction, test_seed)
        rest, test = data.take(rest_indices), data.take(test_indices)
    validation_indices, train_indices = stratified(rest.y, VALIDATION_FRACTION, split_seed)
    return Splits(rest.take(train_indices), rest.take(validation_indices), test)


def check_tonic(dataset: str, tonic: str | None) -> dict:
    """Return what `tonic` asks of the loader of "tonic"; nothing for other datasets.

    Raises ValueError if it names none of tonic's datasets, or is given for a dataset of another kind.
    """
    if dataset == "tonic":
        return parts.bring("loaders.tonic_data").parse(tonic)
    if tonic is not None:
        raise ValueError(f"--tonic {tonic}: only tasks <objective>_tonic take it, not a task on {dataset}")
    return {}


def stratified(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw round(fraction * B) of the labels `y` (B,), every class in proportion; return (drawn, left) indices, sorted.

    Each sample gets its random rank within its class, scaled to (0, 1); the smallest ranks over all classes are drawn.
    So the total is exact and each class is within one sample of its share.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    rank = np.empty(len(y))
    for label in np.unique(y):
        members = order[y[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = order[np.argsort(rank[order], kind="stable")]
    drawn = round(fraction * len(y))
    return np.sort(chosen[:drawn]), np.sort(chosen[drawn:])


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and, where it is loaded, torch: for code that draws from them."""
    import random
    import sys

    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def pick_device(name: str) -> str:
    """Return "cpu" or "cuda" for `name` auto | cpu | cuda. Raises ValueError where CUDA is asked for and not there."""
    if name == "cpu":
        return name
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"
