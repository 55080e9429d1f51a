"""Units that Whetstone sharpens from a ramp to a step, the decoding of their output, and batch-norm folding.

    unit = Unit("brelu")
    unit.sharpen(0.5)
    y = unit(x)

W. Severa, C. Vineyard, R. Dellana, S. Verzi, J. Aimone, "Training deep neural networks for binary communication with
the Whetstone method", Nature Machine Intelligence 1, 86 (2019). The equations are theirs, the code is not.
Letters in shapes: B samples, K classes, W output neurons.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

LEAST_WIDTH = 0.001  # of the ramp, just before sharpness 1
SIGMOID_KNEE = 4 * math.log(2 + math.sqrt(3))  # puts the roots of the third derivative at a quarter of the width
THRESHOLD = {"brelu": 0.5, "sigmoid": 0.0, "ste": 0.5}  # of the step; the threshold itself gives 1


class Step(torch.autograd.Function):
    """1 where x is at least the threshold, else 0. The gradient is zero, not absent: a sharp net trains on."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, threshold: float) -> torch.Tensor:
        return (x >= threshold).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple:
        return torch.zeros_like(gradient), None


class StraightThrough(torch.autograd.Function):
    """The step with the gradient of the ramp of width 1: 1 within 0.5 of the threshold (Hubara et al. 2016, eq. 4)."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, threshold: float) -> torch.Tensor:
        ctx.save_for_backward((x - threshold).abs() <= 0.5)
        return (x >= threshold).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple:
        return gradient * ctx.saved_tensors[0], None


def ramp(x: torch.Tensor, sharpness: float | torch.Tensor, kind: str) -> torch.Tensor:
    """Return the unit's output for a sharpness below 1; with w = 1 - sharpness and k = 4 ln(2 + sqrt 3):

    brelu:    y = clip((x - 0.5) / (w + 0.001) + 0.5, 0, 1)
    sigmoid:  y = 1 / (1 + exp(clip(-k x / (w + 0.001), -40, 40)))
    """
    width = 1 - sharpness + LEAST_WIDTH
    if kind == "brelu":
        return torch.clamp((x - 0.5) / width + 0.5, 0, 1)
    return torch.sigmoid(torch.clamp(x * (SIGMOID_KNEE / width), -40, 40))


class Unit(nn.Module):
    """A layer of units. `sharpness` (0 ramp .. 1 step) is a buffer, so that a saved net keeps it; ste is always 1."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("sharpness", torch.tensor(1.0 if kind == "ste" else 0.0, dtype=torch.float64))

    def sharpen(self, sharpness: float) -> None:
        """Set the sharpness; a straight-through unit stays at 1."""
        if self.kind != "ste":
            self.sharpness.fill_(sharpness)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "ste":
            return StraightThrough.apply(x, THRESHOLD["ste"])
        sharpness = float(self.sharpness)
        return Step.apply(x, THRESHOLD[self.kind]) if sharpness == 1 else ramp(x, sharpness, self.kind)


class Decoder(nn.Module):
    """Compare the output neurons with each class's key; `key` (K, W) of zeros and ones is a buffer.

    logits = (2 a - 1) (2 key - 1)^T: how many of the neurons agree with the key, less those that do not.
    """

    def __init__(self, key: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("key", key.float())

    def forward(self, activity: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of activity (B, W)."""
        return (2 * activity - 1) @ (2 * self.key - 1).T


def make_key(n_classes: int, width: int, overlapping: bool, seed: int) -> torch.Tensor:
    """Draw a distinct key for each class: width // n_classes of the `width` output neurons. Returns (K, W) of 0, 1.

    Disjoint keys share no neuron; width % n_classes neurons then belong to no class. Raises ValueError where a class
    would have none.
    """
    check_width(n_classes, width)
    size, rng = width // n_classes, np.random.default_rng(seed)
    if not overlapping:
        chosen = rng.permutation(width)[: size * n_classes].reshape(n_classes, size)
        return _rows(chosen, width)
    keys: list[tuple[int, ...]] = []
    while len(keys) < n_classes:
        candidate = tuple(sorted(rng.choice(width, size, replace=False).tolist()))
        if candidate not in keys:
            keys.append(candidate)
    return _rows(np.array(keys), width)


def check_width(n_classes: int, width: int) -> None:
    """Raise ValueError where there are fewer output neurons than classes."""
    if width < n_classes:
        raise ValueError(f"width must be at least the number of classes, {n_classes}, not {width}")


def fold(link: nn.Linear | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Take the batch norm into the weights of `link`, in place; computed with 64 bits.

    W' = g W,  b' = g (b - mean) + beta  with g = gamma / sqrt(var + eps). Where a sum lies within rounding of the
    threshold a unit could still flip; with 64-bit nets none was seen to, and with 32 bits none on the test's inputs.
    """
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    offset = gain * (link.bias.double() - norm.running_mean.double()) + norm.bias.double()
    shape = (-1,) + (1,) * (link.weight.dim() - 1)
    with torch.no_grad():
        link.weight.copy_(gain.view(shape) * link.weight.double())
        link.bias.copy_(offset)


def _rows(chosen: np.ndarray, width: int) -> torch.Tensor:
    key = torch.zeros(len(chosen), width)
    return key.scatter_(1, torch.as_tensor(chosen), 1.0)
