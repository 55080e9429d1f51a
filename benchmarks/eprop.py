"""How much faster is e-prop than BPTT? CPU seconds and extra peak memory per batch, forward pass and gradients.

    python -m benchmarks.eprop [--quick] [--json FILE] [--eprop-pytorch DIR]

Measured: models.eprop (LIF, and half of the neurons ALIF) against BPTT through stock snn.RLeaky on the same net, batch
and surrogate, N = 50, 100, 400 hidden neurons, 64 samples of 256 steps, 12 inputs firing in 20 % of the steps, 7
classes, loss in the last half, one thread, float32. The peer multiplies its input weights once before the time loop and
computes its readout once after it, its filter as one matrix product. The rounds are interleaved; given are medians, and
medians of the ratios of a round. Each memory figure comes from a process of its own. The kernels work event by event,
so their time grows with the firing rates, which are printed; dense products do not care.

What was tried (times BPTT at the three sizes): dense torch, as it is kept for other devices, 1.8 / 1.5 / 1.3; dense
torch with three calls a step, 7.5 / 5.5 / 2.5, on another machine; numba event by event with a function call per inner
loop, 8 / 8 / 5.5; the same inlined, as it is: 13 / 10 / 8. Stacking configurations was not tried.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))  # before torch

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import snntorch as snn
import torch

from benchmarks import add_arguments, finish
from models import eprop
from models.rsnn import RSNN, EpropParams, Surrogate

BATCH, STEPS, CHANNELS, CLASSES, STEP_MS = 64, 256, 12, 7, 5.0
SIZES = (50, 100, 400)
PEER = "BPTT, snn.RLeaky"
METHODS = ("e-prop, LIF", "e-prop, ALIF", PEER)


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--eprop-pytorch", type=Path, metavar="DIR", help="also measure this copy of ChFrenkel's code")
    parser.add_argument("--memory-of", nargs=2, metavar=("METHOD", "N"), help=argparse.SUPPRESS)  # in its own process
    args = parser.parse_args()
    if args.memory_of:
        return print(extra_memory(args.memory_of[0], int(args.memory_of[1])))
    if args.eprop_pytorch and not (args.eprop_pytorch / "models.py").is_file():
        parser.exit(2, f"--eprop-pytorch: {args.eprop_pytorch} has no models.py; give the folder of eprop-PyTorch\n")
    sizes = SIZES[:2] if args.quick else SIZES
    rows = [row for size in sizes for row in compare(size, 3 if args.quick else 11)]
    rows += [row for size in sizes for row in compare_memory(size)]
    if args.eprop_pytorch:
        rows += [compare_eprop_pytorch(args.eprop_pytorch, *shape) for shape in ((50, 8), (100, 4), (400, 1))]
    finish(rows, args)


def compare(size: int, rounds: int) -> list[dict]:
    """Time the methods in turns; the peer's spikes are checked to be e-prop's."""
    x, y = batch()
    steps = {method: step_of(method, size) for method in METHODS}
    rates = {method: float(step(x, y)) / (BATCH * STEPS * size) for method, step in steps.items()}
    assert abs(rates[PEER] - rates[METHODS[0]]) < 1e-4, f"not the same net: {rates}"
    seconds = {method: [] for method in METHODS}
    for _ in range(rounds):
        for method, step in steps.items():
            seconds[method].append(cpu_seconds(step, x, y))
    rows = []
    for method in METHODS:
        name = f"{method}, N = {size}, {rates[method]:.1%} firing"
        rows.append(row(name, seconds[method], "s", PEER, seconds[PEER], faster=True) if method != PEER
                    else {"name": name, "value": statistics.median(seconds[PEER]), "unit": "s"})  # fmt: skip
    lif, alif = (seconds[method] for method in METHODS[:2])
    return [*rows, row(f"ALIF against LIF, N = {size}", alif, "s", "the cost of LIF", lif)]


def row(name: str, values: list[float], unit: str, against: str, others: list[float], faster: bool = False) -> dict:
    """Return the row of a median and of the median ratio: values to others or, `faster`, others to values."""
    pairs = zip(others, values, strict=True) if faster else zip(values, others, strict=True)
    ratio = statistics.median(value / other for value, other in pairs)
    against = f"faster than {against}" if faster else against
    return {"name": name, "value": statistics.median(values), "unit": unit, "against": against, "ratio": ratio}


def compare_memory(size: int) -> list[dict]:
    """Measure the extra peak memory of each method in a process of its own."""
    megabytes = {}
    for method in METHODS:
        command = [sys.executable, "-m", "benchmarks.eprop", "--memory-of", method, str(size)]
        megabytes[method] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [
        row(f"{method}, N = {size}, extra memory", [megabytes[method]], "MB", f"that of {PEER}", [megabytes[PEER]])
        for method in METHODS
    ]  # fmt: skip


def extra_memory(method: str, size: int) -> float:
    """Return by how much three batches raise this process's peak memory over one sample's [MB]."""
    step, (x, y) = step_of(method, size), batch()
    step(x[:1], y[:1])  # loads and compiles what is needed
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the imports
    before = peak_memory()
    for _ in range(3):
        step(x, y)
    return peak_memory() - before


def peak_memory() -> float:
    """Return the peak of this process's resident memory [MB], as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1e3


def batch(samples: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Return random spikes (B, T, C) and labels (B,)."""
    rng = np.random.default_rng(0)
    return (rng.random((samples, STEPS, CHANNELS)) < 0.2).astype(np.uint8), rng.integers(0, CLASSES, samples)


def net_of(size: int, alif_fraction: float = 0.0) -> RSNN:
    """Return a net whose neurons fire in 5 to 10 % of the steps."""
    params = EpropParams(
        neurons=size, tau_mem=100, tau_out=100, target_window=0.5, alif_fraction=alif_fraction, adapt_strength=0.05,
        tau_adapt=500, input_gain=1.0, recurrent_gain=0.3,
    )  # fmt: skip
    return RSNN(params, CHANNELS, CLASSES, STEP_MS)


def step_of(method: str, size: int):
    """Return a function of a batch that computes the gradients and returns the number of spikes."""
    if method == PEER:
        return bptt_step(net_of(size))
    net = net_of(size, alif_fraction=0.5 if "ALIF" in method else 0.0)
    return lambda x, y: eprop.learn(net, x, y)[1].counts.sum()


def bptt_step(net: RSNN):
    """Return a function of a batch that computes the gradients through stock snn.RLeaky with the net's weights."""
    cell = snn.RLeaky(
        beta=net.hidden.beta, threshold=net.hidden.threshold, linear_features=net.params.neurons,
        spike_grad=lambda distance: Surrogate.apply(distance, net.hidden.threshold, net.params.dampening),
    )  # fmt: skip
    cell.recurrent = net.hidden.recurrent
    start = eprop.window_start(net, STEPS)
    lags = torch.arange(start, STEPS)[:, None] - torch.arange(STEPS)  # (T', T)
    kernel = torch.where(lags >= 0, net.output.beta[0] ** lags.clamp(min=0), 0.0)

    def step(x: np.ndarray, y: np.ndarray) -> torch.Tensor:
        net.zero_grad(set_to_none=True)
        currents = net.input(torch.from_numpy(x).float()).transpose(0, 1).contiguous().unbind(0)
        spikes = potential = torch.zeros_like(currents[0])
        fired = []
        for current in currents:
            spikes, potential = cell(current, spikes, potential)
            fired.append(spikes)
        fired = torch.stack(fired)  # (T, B, N)
        outputs = torch.tensordot(kernel, net.readout(fired), 1)  # (T', B, K)
        labels = torch.from_numpy(y).expand(len(outputs), -1)
        torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten()).backward()
        return fired.detach().sum()

    return step


def compare_eprop_pytorch(folder: Path, size: int, samples: int, rounds: int = 3) -> dict:
    """Time ChFrenkel's eprop-PyTorch against models.eprop on `samples` samples: it keeps (B, N, N, T) arrays."""
    spec = importlib.util.spec_from_file_location("eprop_pytorch_models", folder / "models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net, (x, y) = net_of(size), batch(samples)
    other = module.SRNN(
        CHANNELS, size, CLASSES, STEPS, 1.0, 100.0, 100.0, 0.0, 0.3, STEP_MS, "LIF", True, (1, 1, 1), (1, 1, 1),
        STEPS // 2, False, False, torch.device("cpu"),
    )  # fmt: skip
    for weights, own in ((other.w_in, net.input), (other.w_rec, net.hidden.recurrent), (other.w_out, net.readout)):
        weights.data.copy_(own.weight.data)
    inputs = torch.from_numpy(x).float().transpose(0, 1)  # (T, B, C)
    targets = torch.nn.functional.one_hot(torch.from_numpy(y), CLASSES).float().expand(STEPS, -1, -1)
    eprop.learn(net, x, y)
    seconds = {"own": [], "other": []}
    with torch.no_grad():
        for _ in range(rounds):
            seconds["own"].append(cpu_seconds(eprop.learn, net, x, y))
            seconds["other"].append(cpu_seconds(other, inputs, targets, True))
    name = f"e-prop, LIF, N = {size}, batches of {samples}"
    return row(name, seconds["own"], "s", "eprop-PyTorch", seconds["other"], faster=True)


def cpu_seconds(function, *arguments) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


if __name__ == "__main__":
    main()
