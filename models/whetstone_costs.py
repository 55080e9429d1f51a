"""What an inference of a sharpened Whetstone net costs: spikes, operations, memory (`models.metrics`).

Letters in shapes: B samples, N units of a layer.
"""

from __future__ import annotations

import torch
from torch import nn

from models import metrics
from models.whetstone_net import WhetstoneNet

BATCH = 1000


@torch.no_grad()
def costs(net: WhetstoneNet, images) -> dict[str, float | int]:
    """Return the means over `images` (whetstone_training.Images), at sharpness 1 in evaluation mode.

    A unit at 1 is a spike. A dead unit is never 1; a filter counts once for each position. A unit takes one step, in
    which its sum is a membrane potential that is set once.
    """
    net.eval()
    fired = [0.0] * len(net.names)  # (N,) once added to
    work, silent = metrics.Workload(len(images.y)), 0
    for x, _ in images.batches(BATCH):
        quiet = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for layer, (inputs, activity) in enumerate(net.trace(net.pixels(x))):
            _add_operations(work, net.links[layer], inputs)
            activity = activity.flatten(1)  # (B, N)
            fired[layer] = fired[layer] + activity.sum(0, dtype=torch.float64)
            if layer < len(net.names) - 1:
                quiet |= ~activity.any(1)
        silent += int(quiet.sum())
    rates = [counts / len(images.y) for counts in fired]
    work.spikes = float(sum(counts.sum() for counts in fired))
    work.activations = work.updates = work.neuron_steps = len(images.y) * sum(len(rate) for rate in rates)
    per_layer = {}
    for name, rate in zip(net.names, rates, strict=True):
        per_layer |= {f"rate_{name}": float(rate.mean()), f"dead_{name}": int((rate == 0).sum())}
    arrays = [weight.detach().cpu().numpy() for weight in net.weights()]
    return {
        **work.metrics(),
        "neuron_operations": 0.0,  # decay and reset, which a unit without a past has not
        "silent_fraction": silent / len(images.y),
        "parameters": net.size(),
        "connection_sparsity": metrics.connection_sparsity(arrays),
        "footprint_bytes": metrics.footprint_bytes(net.deployed(), arrays, net.params.weight_bits),
        **per_layer,
    }


def _add_operations(work: metrics.Workload, link: nn.Module, inputs: torch.Tensor) -> None:
    """Add what inputs took on their way through a layer's weights."""
    done = effective_operations(link, inputs)
    if bool(((inputs == 0) | (inputs == 1)).all()):
        work.acs += done
    else:
        work.macs += done
    full = torch.ones_like(inputs[:1])
    work.dense += len(inputs) * effective_operations(link, full, torch.ones_like(link.weight))


def effective_operations(link: nn.Module, inputs: torch.Tensor, weights: torch.Tensor | None = None) -> float:
    """Count nonzero inputs that meet nonzero weights, over all samples (NeuroBench's effective operations)."""
    weights = link.weight if weights is None else weights
    weights, active = (weights != 0).float(), (inputs != 0).float()
    if isinstance(link, nn.Conv2d):
        return float(nn.functional.conv2d(active, weights, padding="same").sum(dtype=torch.float64))
    return float(active.sum(0, dtype=torch.float64) @ weights.sum(0, dtype=torch.float64))
