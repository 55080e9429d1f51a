"""The 1,797 handwritten digits that scikit-learn ships (8 x 8 pixels, ten classes): real data without a download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository (CC BY 4.0), test part.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from loaders import Data


def load(data_dir: Path | None = None) -> Data:
    """Return the digits: x uint8 (1797, 8, 8) scaled from 0..16 to 0..255, y int64 (1797,). `data_dir` is not used."""
    with gzip.open(_packaged_file()) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)  # (1797, 65): 64 pixels, label
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return Data(images, table[:, -1].copy(), tuple(str(digit) for digit in range(10)))


def _packaged_file() -> Path:
    """Find the file without importing scikit-learn, which costs a trial more CPU time than an epoch of training."""
    folder = find_spec("sklearn").submodule_search_locations[0]
    return Path(folder, "datasets", "data", "digits.csv.gz")
