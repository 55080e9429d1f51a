"""A saved net of either kind (`model.pt`, `best_model.pt`) out of its file."""

from __future__ import annotations

from pathlib import Path

import torch

from models import rsnn, whetstone_net


def load(path: Path) -> dict:
    """Return what a file of weights holds. Raises ValueError with one line for a file that is none of ours."""
    if path.suffix == ".npz":
        raise ValueError(
            f"{path} is a streamnet with plastic synapses; only e-prop and Whetstone nets (.pt) can be taken"
        )
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except Exception as error:  # torch raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no file of weights ({reason[:100]})") from None
    if not isinstance(saved, dict) or not {"state_dict", "params", "n_classes"} <= saved.keys():
        raise ValueError(f"{path} holds no e-prop or Whetstone net of this repository")
    return saved


def is_recurrent(saved: dict) -> bool:
    """Tell an e-prop net from a Whetstone net."""
    return "step_ms" in saved


def rebuild(saved: dict) -> rsnn.RSNN | whetstone_net.WhetstoneNet:
    """Return the net that `load` or a trial's Result holds."""
    return rsnn.rebuild(saved) if is_recurrent(saved) else whetstone_net.rebuild(saved)
