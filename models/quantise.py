"""Weights of few bits, while training and after it. (For a trained net at several numbers of bits: models/bits.py.)

    with quantised(net, bits=4):        # the weights lie on the grid; afterwards they are what they were
        loss.backward()                 # gradients for the weights as they are outside: straight-through
    snap(net, bits=4)                   # they stay there

Symmetric, one step per tensor: with q = 2^(b-1) - 1 and s = max |w| / q,  w' = s round(w / s), so that zero stays zero
(Jacob et al., CVPR 2018, eq. 1 with Z = 0). While training, forward and backward pass see w' and the gradient moves w
(Courbariaux et al., BinaryConnect, NIPS 2015, algorithm 1). Nothing is clipped: the largest weight sets the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def step_of(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the step s of the tensor's grid, above 0 also where all weights are 0."""
    return (tensor.abs().max() / (2 ** (bits - 1) - 1)).clamp(min=torch.finfo(tensor.dtype).tiny)


def on_grid(tensor: torch.Tensor, step: torch.Tensor | float) -> torch.Tensor:
    """Return the nearest multiples of `step`, halves to the even one."""
    return torch.round(tensor / step) * step


@contextmanager
def quantised(net, bits: int) -> Iterator[None]:
    """Within, `net.weights()` lie on the grids of so many bits; 0 leaves them."""
    kept = [(weight, weight.data) for weight in net.weights()]
    snap(net, bits)
    try:
        yield
    finally:
        for weight, data in kept:
            weight.data = data


def snap(net, bits: int) -> None:
    """Put each tensor of `net.weights()` on its grid for good; 0 leaves them."""
    for weight in net.weights() if bits else ():
        weight.data = on_grid(weight.data, step_of(weight.data, bits))
