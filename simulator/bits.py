"""A streamnet whose learnt weights have fewer bits: its score against their number. NumPy alone.

    rows = sweep(params, load(Path("best_model.npz")), splits, [2, 4, 8])

Symmetric, with one step for all: q = 2^(b-1) - 1 and s = max |w| / q give  w' = s round(w / s), as in
models/quantise.py. Fixed connections, thresholds and decays stay as they are.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from models.metrics import footprint_bytes
from simulator.objective import TEST_SEED, VALIDATION_SEED, flat_images, rebuild, score
from simulator.params import StreamnetParams
from simulator.streamnet import StreamNet


def load(path: Path) -> dict[str, np.ndarray]:
    """Return what a file of weights holds. Raises ValueError with one line for a file that is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no file of weights ({type(error).__name__})") from None


def sweep(params: StreamnetParams, model: dict, splits, bits: list[int]) -> list[dict[str, float]]:
    """Return a row for the net as it is (bits 0) and for each number of bits: scores, and the memory in bytes.

    Raises ValueError where `params` are not those of the model.
    """
    rows = []
    for number in (0, *bits):
        try:
            net = rebuild(params, model)
        except KeyError as missing:
            raise ValueError(f"the file of weights holds no streamnet: it has no {missing}") from None
        weights = net.elements["o"].synapses[0].weights
        if number:
            weights[...] = snapped(weights, number)
        row = {"bits": number} | _scores(net, params, splits)
        arrays = [*net.state().values(), *net.fixed().values()]
        rows.append(row | {"footprint_bytes": footprint_bytes(arrays, [weights], number)})
    return rows


def snapped(weights: np.ndarray, bits: int) -> np.ndarray:
    """Return the nearest points of the grid."""
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    return np.round(weights / step) * step if step else weights


def _scores(net: StreamNet, params: StreamnetParams, splits) -> dict[str, float]:
    """Return the scores of both parts, whose spikes are those of the trial."""
    return {
        f"{name}_accuracy": score(net, params, flat_images(part), part.y, seed)[0]
        for name, part, seed in (
            ("validation", splits.validation, VALIDATION_SEED),
            ("test", splits.test, TEST_SEED),
        )
    }
