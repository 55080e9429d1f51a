"""A trial's epochs for TensorBoard, on request: `--tensorboard`. Needs the package tensorboard, which is optional.

NNI's web UI opens TensorBoard on the trials that are marked there (its detail page); `runner/preload.js` repairs that:
plain NNI 3.0 looks into a folder that no trial writes to, and serves on every network interface.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from runner.flags import UserMistake


def check_tensorboard() -> None:
    """Raise UserMistake where the package is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserMistake("--tensorboard needs the package tensorboard: pip install tensorboard")


def tensorboard_log(folder: Path | None) -> Callable[[dict[str, float]], None]:
    """Return what writes an epoch's metrics, one curve each, to `folder`/tensorboard; nothing where that is None.

    Raises UserMistake where the package is not installed.
    """
    check_tensorboard()
    if folder is None:
        return lambda metrics: None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    epochs = 0

    def log(metrics: dict[str, float]) -> None:
        nonlocal epochs
        epochs += 1
        for name, value in metrics.items():
            writer.add_scalar(name, value, epochs)
        writer.flush()  # a trial may be killed

    return log
