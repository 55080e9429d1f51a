"""How fast is the streamnet simulator? Samples per second while learning MNIST at 8 steps, against spikelearn 0.1.2.

    pip install -r benchmarks/requirements-streamnet.txt
    HPO_DATA_DIR=<folder with MNIST> python -m benchmarks.streamnet [--quick] [--json FILE]

CPU time of one thread; the variants take turns, and a ratio is the median over the turns. Spikelearn is given its spike
trains, ours draws them within the measured time; each turn learns from the beginning, set-up of the kernel included.
Before that, the reference and the float64 kernel must put out the same spikes. Most of the reference's time in the
mushroom body is a dense product with a matrix of which 4 % is not 0; so it runs with scipy's csc matrix there as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import add_arguments, finish
from benchmarks.spikelearn_nets import reference_net, show
from loaders import MissingData, images
from simulator.encoders import encode_images
from simulator.networks import build
from simulator.params import StreamnetParams
from simulator.run import Images, run, run_batch

REFERENCE = "spikelearn 0.1.2"
SPARSE = f"{REFERENCE}, scipy's csc"
SAMPLES = {  # per turn: of the reference, of step, of run, of the batch of 64
    "shallow": (100, 100, 4000, 400),
    "mushroom_body": (8, 20, 1000, 0),
}
STEPS, BATCH, TURNS, SEED = 8, 64, 7, 3


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args()
    try:
        import spikelearn  # noqa: F401

        data = images.load_mnist(Path(os.environ["HPO_DATA_DIR"]) if "HPO_DATA_DIR" in os.environ else None)
    except (ImportError, MissingData) as missing:
        print(f"benchmarks.streamnet: {missing}; see benchmarks/requirements-streamnet.txt", file=sys.stderr)
        return 2
    x, y = data.x.reshape(len(data.x), -1), data.y
    finish([row for network in SAMPLES for row in measure(network, x, y, 3 if args.quick else TURNS)], args)
    return 0


def measure(network: str, x: np.ndarray, y: np.ndarray, turns: int) -> list[dict]:
    """Return the rows of one network."""
    params = StreamnetParams(network=network)
    variants = make_variants(params, x, y)
    for variant in variants.values():
        variant()  # compiles, fills caches
    seconds = {name: [] for name in variants}
    for _ in range(turns):
        for name, variant in variants.items():
            began = time.process_time()
            shown = variant()
            seconds[name].append((time.process_time() - began) / shown)
    rows = []
    for name, per_sample in seconds.items():
        row = {"name": f"{network}: {name}", "value": 1 / float(np.median(per_sample)), "unit": "1/s"}
        against = [other for other in (REFERENCE, SPARSE) if other in seconds and name not in (REFERENCE, other)]
        ratios = {other: float(np.median(np.divide(seconds[other], per_sample))) for other in against}
        rows += [row | {"against": other, "ratio": ratio} for other, ratio in ratios.items()] or [row]
    return rows


def make_variants(params: StreamnetParams, x: np.ndarray, y: np.ndarray) -> dict:
    """Return {name: function that shows samples and returns their number}."""
    few, stepped, many, batched = SAMPLES[params.network]
    nets = {name: build(params, x.shape[1], 10) for name in ("reference", "step", "float64", "float32")}
    kinds = {REFERENCE: False, SPARSE: True} if params.network == "mushroom_body" else {REFERENCE: False}
    references = {name: reference_net(params, nets["reference"], sparse) for name, sparse in kinds.items()}
    trains = encode_images(x[:few], STEPS, SEED).astype(float)
    expected = run(build(params, x.shape[1], 10), _images(x, y, few)).counts

    def with_reference(reference):
        def variant() -> int:
            for sample in range(few):
                show(reference, trains[sample], y[sample], params.tau_mod)
            return few

        return variant

    def with_run(name: str, samples: int, precision: str, backend: str = "fast"):
        def variant() -> int:
            run(nets[name], _images(x, y, samples), True, precision, backend)
            return samples

        return variant

    for name, reference in references.items():
        found = np.array([show(reference, trains[i], y[i], params.tau_mod) for i in range(few)])
        if not np.array_equal(found, expected):
            raise AssertionError(f"{params.network}: {name} puts out other spikes: {np.abs(found - expected).sum():g}")
    variants = {
        **{name: with_reference(reference) for name, reference in references.items()},
        "float64 step": with_run("step", stepped, "float64", "step"),
        "float64 run": with_run("float64", many, "float64"),
        "float32 run": with_run("float32", many, "float32"),
    }
    if batched:
        batch = [build(params, x.shape[1], 10, seed) for seed in range(BATCH)]
        variants[f"batch of {BATCH}, float32"] = lambda: BATCH * len(run_batch(batch, _images(x, y, batched))[0].counts)
    return variants


def _images(x: np.ndarray, y: np.ndarray, samples: int) -> Images:
    return Images(x[:samples], y[:samples], STEPS, SEED)


if __name__ == "__main__":
    sys.exit(main())
