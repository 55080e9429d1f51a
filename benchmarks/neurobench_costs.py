"""Costs of two small nets as NeuroBench counts them, beside `models.metrics`. It needs NeuroBench, without its torch:

pip install --no-deps neurobench==2.3.0 && python -m benchmarks.neurobench_costs

Weights and decays are sums of few powers of two, so that no rounding decides what a neuron does.
"""

from __future__ import annotations

import json

import numpy as np
import snntorch as snn
import torch
from torch import nn

from models import training
from models.rsnn import RSNN, EpropParams
from models.whetstone_costs import costs as whetstone_costs
from models.whetstone_net import WhetstoneNet
from models.whetstone_params import WhetstoneParams
from models.whetstone_training import Images

SAMPLES, STEPS, CHANNELS, CLASSES = 8, 20, 6, 3


class Samples:
    """A part of a dataset: x and y."""

    step_ms = None

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.y = x, np.zeros(len(x), np.int64)


def recurrent() -> tuple[RSNN, Samples]:
    """Return a net with decay 1/2, a fifth of its weights 0, and binary samples (B, T, C) that begin empty."""
    rng = np.random.default_rng(0)
    net = RSNN(EpropParams(neurons=12), CHANNELS, CLASSES)
    for tensor in (net.input.weight, net.hidden.recurrent.weight, net.readout.weight):
        tensor.data = torch.as_tensor(_eighths(rng, tensor.shape))
    net.hidden.recurrent.weight.data.fill_diagonal_(0)
    net.hidden.beta.fill_(0.5)
    net.output.beta.fill_(0.5)
    x = (rng.random((SAMPLES, STEPS, CHANNELS)) < 0.3).astype(np.uint8)
    x[:, :4] = 0
    return net, Samples(x)


def whetstone() -> tuple[WhetstoneNet, Images]:
    """Return a convolutional net at sharpness 1, a fifth of its weights 0, and images (B, 8, 8, 1)."""
    rng = np.random.default_rng(1)
    sizes = {"conv1_features": 3, "conv2_features": 4, "conv3_features": 5, "dense_features": 8, "width": 12}
    net = WhetstoneNet(WhetstoneParams(network="conv", **sizes), (8, 8, 1), CLASSES).eval()
    for link in net.links:
        link.weight.data = torch.as_tensor(_eighths(rng, link.weight.shape))
    net.sharpen(1.0)
    return net, Images(Samples(rng.choice([0, 51, 255], (SAMPLES, 8, 8, 1)).astype(np.uint8)), "cpu")


def ours() -> dict[str, dict]:
    """Return the costs of both nets as trials report them."""
    return {"recurrent": training.costs(*recurrent()), "whetstone": whetstone_costs(*whetstone())}


class Steps(nn.Module):
    """A recurrent net in single steps of snnTorch's own neurons, as NeuroBench takes them."""

    def __init__(self, net: RSNN) -> None:
        super().__init__()
        size, cell = net.params.neurons, net.hidden
        self.input, self.readout = net.input, net.readout
        self.hidden = snn.RLeaky(cell.beta, linear_features=size, threshold=cell.threshold, init_hidden=True)
        self.hidden.recurrent = cell.recurrent
        self.output = snn.Leaky(net.output.beta, threshold=1e9, reset_mechanism="none", init_hidden=True)

    def reset(self) -> None:
        """Begin a sequence."""
        self.hidden.reset_mem()
        self.output.reset_mem()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Take a step x (B, C)."""
        return self.output(self.readout(self.hidden(self.input(x)))), None


class Pool(nn.Module):
    """The maximum of 2 x 2, as long as there are so many."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H / 2, W / 2)."""
        return nn.functional.max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x


def layered(net: WhetstoneNet) -> nn.Sequential:
    """Return the net as a row of modules."""
    row = []
    for link, unit in zip(net.links, net.units, strict=True):
        is_conv = isinstance(link, nn.Conv2d)
        row += [link, unit, Pool()] if is_conv else [nn.Flatten(), link, unit]
    return nn.Sequential(*row, net.decoder)


def theirs() -> dict[str, dict]:
    """Return NeuroBench's figures for both nets."""
    from neurobench.models import SNNTorchModel, TorchModel

    from models.whetstone import Unit

    net, samples = recurrent()
    spiking = _measured(SNNTorchModel(Steps(net)), torch.as_tensor(samples.x).float())
    net, images = whetstone()
    model = TorchModel(layered(net))
    model.add_activation_module(Unit)
    return {"recurrent": spiking, "whetstone": _measured(model, net.pixels(images.x).contiguous())}


@torch.no_grad()
def _measured(model, x: torch.Tensor) -> dict:
    from neurobench.metrics import static, workload

    found = {kind.__name__: kind()(model) for kind in (static.ParameterCount, static.Footprint)}
    found["ConnectionSparsity"] = static.ConnectionSparsity()(model)
    model.register_hooks()
    batch = (x, torch.zeros(len(x)))
    output = model(x)
    kinds = [workload.SynapticOperations, workload.MembraneUpdates]
    for kind in [*kinds, workload.NeuronOperations] if _neuron_operations_known(model) else kinds:
        found[kind.__name__] = kind()(model, output, batch)
    by_layer = [torch.stack(list(hook.activation_outputs)) for hook in model.activation_hooks]
    found["spikes"] = [int(torch.count_nonzero(each)) for each in by_layer]
    found["ActivationSparsity"] = workload.ActivationSparsity()(model, output, batch)
    model.cleanup_hooks()
    return found


def _neuron_operations_known(model) -> bool:
    """Let NeuroBench count a leaky neuron with a loop, or without reset, as its leaky neuron; False for other units."""
    from neurobench.metrics.workload.neuron_operations import neuron_ops_reset_operations as known

    known["Leaky"]["none"] = known["Leaky"]["subtract"]
    known["RLeaky"] = known["Leaky"]
    return all(type(hook.layer).__name__ in known for hook in model.activation_hooks)


def _eighths(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    weights = rng.integers(-8, 12, shape) / 8
    return (weights * (rng.random(shape) > 0.2)).astype(np.float32)


if __name__ == "__main__":
    print(json.dumps({"NeuroBench": theirs(), "models.metrics": ours()}, indent=1))
