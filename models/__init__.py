"""Models: spiking nets, their learning rules, encodings and metrics. They import nothing from the repository's root.

An objective is a file <name>.py, or a package, with a dataclass `Params` and `train(params, splits, report, device,
seed) -> Result`; it is found by its name. It may have KINDS, `check` and `rebuild` (see `train_hpo.Objective`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Result:
    """What a trial found. `metrics["default"]` is the best validation accuracy; all numbers are finite."""

    metrics: dict[str, float | int | str]
    status: str  # ok | silent | saturated | interrupted
    model: dict | None  # for model.pt, loadable with weights_only=True; or, all NumPy arrays, for model.npz
    predicted: Any = None  # class of each sample of the test part (B,), where the objective tells it
