"""Loaders: what lies on disk in, arrays out. `load(data_dir) -> Data` in <name>.py is found by its name.

Letters in shapes: B samples, T steps, N channels, H x W pixels, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Data:
    """Labelled samples as they are on disk, not encoded.

    `test` holds the published test set where the data comes with one; it is then the outer test part.
    """

    x: np.ndarray  # uint8 events (B, T, N), float32 signals (B, T, C), uint8 images 0..255 (B, H, W[, C]) or
    # float32 features (B, F)
    y: np.ndarray  # int64 (B,), 0..K-1
    class_names: tuple[str, ...]  # K names
    step_ms: float | None = None  # length of a step of events or signals [ms]; None for data without time
    test: Data | None = None

    def take(self, indices: np.ndarray) -> Data:
        """Return the samples at `indices` (int, any order), without the published test set."""
        return Data(self.x[indices], self.y[indices], self.class_names, self.step_ms)


class MissingData(Exception):
    """What a loader raises where its files are not there: one line that says what is missing and where to get it."""


def data_folder(data_dir: Path | None, needs: str) -> Path:
    """Return `data_dir` where it is a folder. Raises MissingData naming what `needs` (a file or dataset) was sought."""
    if data_dir is None:
        raise MissingData(f"{needs} is needed, but no data folder is set: use --data-dir or HPO_DATA_DIR")
    if not Path(data_dir).is_dir():
        raise MissingData(f"{needs} is needed, but the data folder {data_dir} does not exist")
    return Path(data_dir)
