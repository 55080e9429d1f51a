"""A trained net with weights of fewer bits: its accuracy against their number.

    rows = sweep(load(Path("best_model.pt")), splits, [2, 4, 8])

Two ways to round. Weights: each layer's on a grid of its own, all else as it is; a Whetstone net's batch norm then acts
as a threshold for each unit. Integer: as hardware without floating point holds the net (`snap_integer`).
"""

from __future__ import annotations

import torch
from torch import nn

from models import metrics, training, whetstone_training
from models.quantise import on_grid, snap, step_of
from models.rsnn import RSNN
from models.saved import is_recurrent, rebuild
from models.whetstone import THRESHOLD
from models.whetstone_net import WhetstoneNet

DECAY_STEP = 2.0**-12  # of a decay: Loihi has 12 bits for it (Davies et al., IEEE Micro 38(1), 2018)
PIXEL_STEP = 1 / 255  # of a Whetstone net's input


def sweep(saved: dict, splits, bits: list[int]) -> list[dict[str, float]]:
    """Return a row for the net as it is (bits 0) and for each number of bits: accuracies, and the memory in bytes."""
    parts = _parts(saved, splits)
    whole = rebuild(saved)
    rows = [{"bits": 0} | _accuracies(whole, parts) | {"footprint_bytes": _memory(whole, whole.params.weight_bits)}]
    for number in bits:
        net, integer = rebuild(saved), snap_integer(rebuild(saved), number)
        snap(net, number)
        row = {"bits": number} | _accuracies(net, parts) | _accuracies(integer, parts, "integer_")
        rows.append(row | {"footprint_bytes": _memory(integer, number)})
    return rows


def _memory(net: RSNN | WhetstoneNet, bits: int) -> float:
    """Return the memory of the net as deployed [bytes]."""
    return metrics.footprint_bytes(net.deployed(), [weight.detach() for weight in net.weights()], bits)


@torch.no_grad()
def snap_integer(net: RSNN | WhetstoneNet, bits: int) -> RSNN | WhetstoneNet:
    """Return the net with whole numbers for weights, thresholds and biases; sums may be as wide as they need.

    Weights that meet in a neuron are counted in one step, and its threshold, bias and adaptation in the same: a neuron
    does not care for the unit. Decays are multiples of DECAY_STEP. A batch norm goes into the weights before.
    """
    if isinstance(net, WhetstoneNet):
        return _snap_units(net.folded(), bits)
    cell = net.hidden
    step = _count_in_steps([net.input.weight, cell.recurrent.weight], bits)
    for values in (cell.recurrent.bias, net.adapt_strength, cell.threshold):
        values.copy_(torch.round(values / step))
    cell.threshold.clamp_(min=1)  # 0 would fire without input
    net.readout.bias.copy_(torch.round(net.readout.bias / _count_in_steps([net.readout.weight], bits)))
    for decay in (cell.beta, net.output.beta, net.adapt_decay):
        decay.copy_(on_grid(decay, DECAY_STEP))
    return net


def _snap_units(net: WhetstoneNet, bits: int) -> WhetstoneNet:
    """A unit compares its sum with threshold - bias, which thus is what must be whole; pixels are whole numbers too.

    Half a step is taken off: whole sums are never there, so that rounding cannot decide.
    """
    threshold = THRESHOLD[net.params.activation]
    for layer, link in enumerate(net.links):
        unit = 1 if layer else PIXEL_STEP
        step = _count_in_steps([link.weight], bits) * unit
        link.weight.div_(unit)
        link.bias.copy_(threshold - torch.round((threshold - link.bias) / step) + 0.5)
    return net


def _count_in_steps(weights: list[nn.Parameter], bits: int) -> torch.Tensor:
    """Replace weights by whole numbers of one step; return the step."""
    step = step_of(torch.cat([weight.flatten() for weight in weights]), bits)
    for weight in weights:
        weight.copy_(torch.round(weight / step))
    return step


def _parts(saved: dict, splits) -> dict:
    """Return the validation and test part as the net takes them, encoded as in its trial."""
    if not is_recurrent(saved):
        return {name: whetstone_training.Images(getattr(splits, name), "cpu") for name in ("validation", "test")}
    params = rebuild(saved).params
    seeds = {"validation": training.VALIDATION_SEED, "test": training.TEST_SEED}
    return {name: training.Encoded(getattr(splits, name), params, seed) for name, seed in seeds.items()}


def _accuracies(net: RSNN | WhetstoneNet, parts: dict, prefix: str = "") -> dict[str, float]:
    score = training.accuracy if isinstance(net, RSNN) else whetstone_training.accuracy
    return {f"{prefix}{name}_accuracy": score(net, part) for name, part in parts.items()}
