"""Do exported nets predict the same in another simulator? norse and nirtorch read the file and run it. It needs norse:

pip install --no-deps norse==1.1.0 && python -m benchmarks.nir_norse      # with its torchvision it would replace torch

norse's own `from_nir` leaves out what NIR says in LI, Threshold and the resistance r of LIF; these nodes are mapped to
norse's cells here, all others by norse, and nirtorch steps the graph with its loop.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path

import nir
import nirtorch
import numpy as np
import torch
from torch import nn

import train_hpo
from models import training, whetstone_training
from models.export_nir import main as write_nir
from models.rsnn import EpropParams
from models.saved import rebuild
from models.whetstone_params import WhetstoneParams
from setup_hpo import load_splits

SAMPLES = 200
SHARP = {"sh_start": 4, "sh_duration": 1, "sh_intermission": 0}
CONV = {"network": "conv", "activation": "ste", "epochs": 5, "dense_features": 64}
CONV |= {"conv1_features": 8, "conv2_features": 16, "conv3_features": 16}
NETS = {
    "eprop": EpropParams(reset="zero", reset_delay=False, neurons=40, epochs=4, tau_out=20.0),
    "eprop, trained biases": EpropParams(
        reset="zero", reset_delay=False, neurons=40, epochs=4, tau_out=20.0, bias=True
    ),
    "whetstone": WhetstoneParams(**SHARP, dense_features=64, batch_norm=True),
    "whetstone, convolutions": WhetstoneParams(**SHARP | CONV),
}


class Scaled(nn.Module):
    """A norse cell behind the resistance r of its node."""

    def __init__(self, r, cell) -> None:
        super().__init__()
        self.r, self.cell = torch.as_tensor(r), cell

    def forward(self, x, state=None):
        """Take a step."""
        return self.cell(self.r * x, state)


class Above(nn.Module):
    """norse's step function behind a threshold."""

    def __init__(self, threshold) -> None:
        super().__init__()
        self.threshold = torch.as_tensor(threshold)  # (N,)

    def forward(self, x):
        """1 above the threshold."""
        from norse.torch.functional.heaviside import heaviside

        return heaviside(x - self.threshold)


def module_of(node: nir.NIRNode, dt: float) -> nn.Module | None:
    """Return norse's module for a node."""
    import norse.torch as norse
    from norse.torch.utils.import_nir import _import_norse_module

    if isinstance(node, nir.LI | nir.LIF):
        told = {"tau_mem_inv": 1 / torch.as_tensor(node.tau), "v_leak": torch.as_tensor(node.v_leak)}
        if isinstance(node, nir.LI):
            return Scaled(node.r, norse.LIBoxCell(norse.LIBoxParameters(**told), dt=dt))
        told |= {"v_th": torch.as_tensor(node.v_threshold), "v_reset": torch.as_tensor(node.v_reset)}
        return Scaled(node.r, norse.LIFBoxCell(norse.LIFBoxParameters(**told), dt=dt))
    if isinstance(node, nir.Threshold):
        return Above(node.threshold)
    if isinstance(node, nir.Flatten):
        return nn.Flatten(1)  # nir counts axes without that of the samples
    return _import_norse_module(node, dt=dt)


@torch.no_grad()
def outputs_of(path: Path, x: torch.Tensor) -> torch.Tensor:
    """Run a NIR file on x (B, T, ...) in steps of the time that its metadata tells. Returns (B, T, K)."""
    graph = nir.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = nirtorch.load(graph, lambda node: module_of(node, float(graph.metadata.get("dt", 1)))).double()
    state, outputs = None, []
    for t in range(x.shape[1]):
        _, state = net(x[:, t].double(), state)  # nirtorch hands out what came last, which may be the loop's weights
        outputs.append(state.cache["output"])
    return torch.stack(outputs, 1)


def compare(params) -> tuple[int, int]:
    """Train on digits, export, and return (equal predictions of SAMPLES test samples, rightly predicted ones)."""
    splits, objective = load_splits("digits"), "eprop" if isinstance(params, EpropParams) else "whetstone"
    result = train_hpo.OBJECTIVES[objective].train(params, splits, lambda metrics: None, "cpu", 0)
    net, test = rebuild(result.model), splits.test.take(np.arange(SAMPLES))
    with tempfile.TemporaryDirectory() as folder:
        torch.save(result.model, Path(folder) / "model.pt")
        with contextlib.redirect_stdout(None):
            write_nir([f"{folder}/model.pt", f"{folder}/net.nir"])
        if objective == "eprop":
            samples = training.Encoded(test, params, training.TEST_SEED)
            ours = training.predictions(net, samples)
            outputs = outputs_of(f"{folder}/net.nir", torch.as_tensor(samples.x))
            outputs = outputs[:, -round(params.target_window * outputs.shape[1]) :].mean(1)
        else:
            ours = whetstone_training.predictions(net, whetstone_training.Images(test, "cpu"))
            pixels = torch.as_tensor(test.x).float() / 255
            shown = pixels[:, None, None] if params.network == "conv" else pixels.flatten(1)[:, None]
            outputs = outputs_of(f"{folder}/net.nir", shown)[:, 0]
    theirs = outputs.argmax(1).numpy()
    return int((theirs == ours).sum()), int((theirs == test.y).sum())


if __name__ == "__main__":
    for name, params in NETS.items():
        equal, right = compare(params)
        print(f"{name}: {equal} of {SAMPLES} predictions are equal, {right} are right")
