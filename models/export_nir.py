"""A trained net as a file of the Neuromorphic Intermediate Representation, for other simulators and chips.

    python -m models.export_nir experiments/<id>/best_model.pt net.nir

J. E. Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for interoperable
brain-inspired computing", Nature Communications 15:8122 (2024). A recurrent net is the row input, w_in, neurons, w_out,
readout, output, with a loop from the neurons through w_rec; its biases are in w_in, since a reader's loop puts out
nothing in the first step. A Whetstone net is a row of weights, thresholds and sums over 2 x 2. What NIR has no node for
is refused. What it leaves to its reader, such as the step of time and what an output means, is in the graph's metadata.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import nir
import numpy as np
import torch

from models.rsnn import RSNN
from models.saved import load, rebuild
from models.whetstone import THRESHOLD
from models.whetstone_net import POOL, WhetstoneNet

ENCODING = ("coding", "scan", "steps_per_row", "tail_steps")


def main(arguments: list[str] | None = None) -> int:
    """Export the file that the command line names. Returns the exit status: 2 for a mistake, told in one line."""
    parser = argparse.ArgumentParser(prog="export_nir", description="Write a trained net as a NIR file.")
    parser.error = lambda message: parser.exit(2, f"export_nir: {message}\n")  # one line
    parser.add_argument("model", type=Path, help="model.pt or best_model.pt of an e-prop or a Whetstone search")
    parser.add_argument("nir", type=Path, help="the file to write")
    args = parser.parse_args(arguments)
    try:
        saved = load(args.model)
        content = io.BytesIO()
        nir.write(content, export(rebuild(saved), saved.get("class_names")))
        args.nir.write_bytes(content.getvalue())
    except ValueError as mistake:
        print(f"export_nir: {mistake}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"export_nir: cannot write {args.nir} ({error.strerror})", file=sys.stderr)
        return 2
    print(args.nir)
    return 0


def export(net: RSNN | WhetstoneNet, class_names: list[str] | None = None) -> nir.NIRGraph:
    """Return the net as a graph. Raises ValueError that names what NIR cannot say."""
    with torch.no_grad():
        nodes, edges, metadata = _recurrent(net) if isinstance(net, RSNN) else _whetstone(net)
    metadata |= {"params": json.dumps(vars(net.params)), "class_names": json.dumps(class_names or [])}
    return nir.NIRGraph(nodes, edges, metadata | {"producer": "models/export_nir.py"})


def _recurrent(net: RSNN) -> tuple[dict, list, dict]:
    """Neurons by NIR's LIF, tau dv/dt = -v + R I, in forward Euler steps: v += dt / tau (R I - v).

    So v = (1 - dt / tau) v + dt / tau R I, which is the net's own v = beta v + I for tau = dt / (1 - beta) and
    R = tau / dt. The readout is an LI node in the same way.
    """
    _refuse(net)
    cell, step = net.hidden, net.step_ms / 1000
    threshold = _array(cell.threshold)
    tau, tau_out = (step / (1 - decay) for decay in (_decay(cell.beta, "tau_mem"), _decay(net.output.beta, "tau_out")))
    zero, zero_out = np.zeros_like(tau), np.zeros_like(tau_out)
    nodes = {
        "input": nir.Input(np.array([net.input.in_features])),
        "w_in": nir.Affine(_array(net.input.weight), _array(cell.recurrent.bias)),
        "w_rec": nir.Linear(_array(cell.recurrent.weight)),
        "neurons": nir.LIF(tau, tau / step, zero, threshold, zero),
        "w_out": nir.Affine(_array(net.readout.weight), _array(net.readout.bias)),
        "readout": nir.LI(tau_out, tau_out / step, zero_out),
        "output": nir.Output(np.array([net.readout.out_features])),
    }
    row = ["input", "w_in", "neurons", "w_out", "readout", "output"]
    edges = [*zip(row, row[1:], strict=False), ("neurons", "w_rec"), ("w_rec", "neurons")]
    encoding = {name: getattr(net.params, name) for name in ENCODING}
    metadata = {
        "dt": step,  # as all times in the file, in seconds
        "integration": "forward Euler with step dt [s]; v > v_threshold fires and is reset in the same step",
        "recurrence": "spikes reach w_rec one step after they fire; in the first step it puts out 0",
        "prediction": f"the class with the largest mean output in the last {net.params.target_window} of the steps",
        "encoding": f"spikes of 0 and 1; of images by models/encoders.py with {json.dumps(encoding)}",
    }
    return nodes, edges, metadata


def _refuse(net: RSNN) -> None:
    """Raise ValueError for neurons that NIR has no node for."""
    params = net.params
    if bool(net.adapt_strength.any()):
        raise ValueError(f"NIR has no adaptive threshold: alif_fraction must be 0, not {params.alif_fraction:g}")
    if params.reset != "zero":
        raise ValueError(f"NIR's neurons are reset to a value: reset must be zero, not {params.reset}")
    if params.reset_delay:
        raise ValueError("NIR's neurons are reset in the step in which they fire: reset_delay must be false, not true")


def _decay(decay: torch.Tensor, name: str) -> np.ndarray:
    values = _array(decay).astype(np.float64)
    if (values >= 1).any():
        raise ValueError(f"{name} is so long that the decay of a step is 1 in 32 bits: nothing leaks")
    return values


def _whetstone(net: WhetstoneNet) -> tuple[dict, list, dict]:
    """Batch norms in the weights, steps as thresholds, the maximum of 2 x 2 zeros and ones as sum and threshold."""
    blunt = [f"{name} {level:g}" for name, level in zip(net.names, net.levels(), strict=True) if level != 1]
    if blunt:
        raise ValueError(f"NIR has steps, no ramps: the sharpness of every layer must be 1, not {', '.join(blunt)}")
    net = net.folded()
    shape = np.array([net.shape[2], *net.shape[:2]] if net.params.network == "conv" else [int(np.prod(net.shape))])
    nodes = {"input": nir.Input(shape)}
    threshold = _just_below(THRESHOLD[net.params.activation])
    for name, link in zip(net.names, net.links, strict=True):
        if isinstance(link, torch.nn.Conv2d):
            nodes[f"{name}_weights"] = _convolution(link, shape)
            shape = np.array([link.out_channels, *shape[1:]])
        else:
            if len(shape) > 1:
                nodes["flatten"] = nir.Flatten(shape, start_dim=0)  # no batch axis
            nodes[f"{name}_weights"] = nir.Affine(_array(link.weight), _array(link.bias))
            shape = np.array([link.out_features])
        nodes[f"{name}_spikes"] = nir.Threshold(np.full(shape, threshold))
        if len(shape) > 1 and min(shape[1:]) >= POOL:
            side = np.array([POOL, POOL])
            nodes[f"{name}_sum"] = nir.SumPool2d(side, side, np.array([0, 0]))
            shape = np.array([shape[0], *shape[1:] // POOL])
            nodes[f"{name}_any"] = nir.Threshold(np.full(shape, np.float32(0.5)))
    votes = 2 * _array(net.decoder.key) - 1  # (K, W): logits = (2 a - 1) votes^T
    nodes["votes"] = nir.Affine(2 * votes, -votes.sum(1))
    nodes["output"] = nir.Output(np.array([net.n_classes]))
    metadata = {
        "integration": "no time: one pass from input to output",
        "threshold": "a unit is 1 from its threshold on; as NIR's Threshold is 1 above it, the file has the next less",
        "encoding": "pixels from 0 to 1 as real numbers, "
        + ("(C, H, W)" if net.params.network == "conv" else "(H, W, C) in a row"),
        "prediction": "the class with the largest output",
    }
    if net.params.weight_bits and net.params.batch_norm:
        metadata["weights"] = (
            f"of {net.params.weight_bits} bits times the factor of a batch norm, another one for each unit or filter: "
            "they have one step a unit, no longer one a layer"
        )
    return nodes, list(zip(nodes, list(nodes)[1:], strict=False)), metadata


def _convolution(link: torch.nn.Conv2d, shape: np.ndarray) -> nir.Conv2d:
    """Return the node. A filter of even side gets a first row and column of zeros: torch pads such ones unevenly."""
    weight = _array(link.weight)
    even = 1 - weight.shape[-1] % 2
    weight = np.pad(weight, ((0, 0), (0, 0), (even, 0), (even, 0)))
    return nir.Conv2d(tuple(map(int, shape[1:])), weight, 1, weight.shape[-1] // 2, 1, 1, _array(link.bias))


def _just_below(threshold: float) -> np.float32:
    return np.nextafter(np.float32(threshold), np.float32(-np.inf))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


if __name__ == "__main__":
    sys.exit(main())
