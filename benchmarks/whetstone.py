"""Accuracy and seconds per epoch of a sharpened net on MNIST, against the straight-through baseline and the original.

    HPO_DATA_DIR=<folder with MNIST> python -m benchmarks.whetstone [--keras-python PATH] [--quick] [--json FILE]

The dense net 784-256-64-100 of the original's example, with Adadelta, and the same with batch norm. All variants train
side by side, epoch by epoch in turn, on one thread; seconds are CPU time. PATH is a Python 3.7 with the original and
the packages that `benchmarks/keras_whetstone.py` names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks import add_arguments, finish
from loaders import MissingData
from runner.flags import OneLineParser

OURS, NORMALISED, BASELINE = "sharpened", "sharpened, batch norm", "straight-through"
SEED = 0
LATE = 2  # epochs: the original counts one late, and its sum of small steps may end just below 1


def settings(quick: bool):
    """Return the WhetstoneParams that all variants share."""
    from models.whetstone_params import WhetstoneParams

    return WhetstoneParams(
        dense_features=256, dense2_features=64, width=100, overlapping=True, optimizer="adadelta", lr=4.0, rho=0.95,
        epsilon=1e-8, batch_size=128, sh_start=1 if quick else 8, sh_duration=1 if quick else 3, sh_intermission=1,
    )  # fmt: skip


def main() -> int:
    """Measure and print; return the exit status."""
    parser = OneLineParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--keras-python", type=Path, metavar="PATH", help="a Python 3.7 with the original Whetstone")
    args = parser.parse_args()
    if args.keras_python and not os.access(args.keras_python, os.X_OK):
        parser.error(f"--keras-python: {args.keras_python} is no program")
    os.environ["OMP_NUM_THREADS"] = "1"
    from setup_hpo import load_splits

    try:
        splits = load_splits("mnist", Path(os.environ["HPO_DATA_DIR"]) if "HPO_DATA_DIR" in os.environ else None)
    except MissingData as missing:
        print(f"benchmarks.whetstone: {missing}", file=sys.stderr)
        return 2
    finish(measure(settings(args.quick), splits, args.keras_python), args)
    return 0


def measure(params, splits, keras_python: Path | None) -> list[dict]:
    """Train the variants in turn and return the rows."""
    import torch

    torch.set_num_threads(1)
    normalised = replace(params, batch_norm=True)
    variants = {
        OURS: Torch(params, splits),
        NORMALISED: Torch(normalised, splits),
        BASELINE: Torch(replace(params, activation="ste"), splits),
    }
    against = {}
    if keras_python:
        for ours, theirs in ((OURS, params), (NORMALISED, normalised)):
            other = Keras(keras_python, theirs, splits)
            against[ours] = other.name + ours.removeprefix(OURS)
            variants[against[ours]] = other
        against[BASELINE] = against[OURS]
    epochs = params.sh_start + 3 * params.sh_duration + 2 * params.sh_intermission + LATE
    seconds = {name: [] for name in variants}
    for _ in range(epochs):
        for name, variant in variants.items():
            seconds[name].append(variant.epoch())
    rows = []
    for name, variant in variants.items():
        median = float(np.median(seconds[name]))
        rows.append({"name": f"{name}: CPU seconds per epoch", "value": median, "unit": "s"})
        if name in against:
            ratio = float(np.median(np.divide(seconds[against[name]], seconds[name])))
            rows[-1] |= {"against": against[name], "ratio": ratio}
        accuracy = variant.accuracy()
        rows.append({"name": f"{name}: validation accuracy, binary", "value": accuracy, "unit": ""})
    return rows


class Torch:
    """A net of ours, trained an epoch at a time."""

    def __init__(self, params, splits) -> None:
        from models.sharpeners import make_sharpener
        from models.whetstone_net import WhetstoneNet
        from models.whetstone_training import Images, make_optimizer

        self.train, self.validation = Images(splits.train, "cpu"), Images(splits.validation, "cpu")
        self.net = WhetstoneNet(params, self.train.x.shape[1:], len(splits.train.class_names), SEED)
        self.optimizer, self.sharpener = make_optimizer(self.net), make_sharpener(params, len(self.net.units))
        self.rng, self.epochs, self.updates = np.random.default_rng(SEED), 0, 0

    def epoch(self) -> float:
        """Train one epoch; return its CPU seconds."""
        from models.whetstone_training import train_epoch

        began = time.process_time()
        state = (self.net, self.optimizer, self.sharpener, self.train, self.rng)
        loss, self.updates = train_epoch(*state, self.epochs, self.updates)
        spent = time.process_time() - began
        self.epochs += 1
        self.net.sharpen(self.sharpener.at(float(self.epochs)))
        self.sharpener.end_epoch(loss)
        return spent

    def accuracy(self) -> float:
        """Return the accuracy on validation at sharpness 1."""
        from models.whetstone_training import accuracy

        return accuracy(self.net, self.validation)


class Keras:
    """The same net in another Python, told by lines when to train an epoch."""

    def __init__(self, python: Path, params, splits) -> None:
        from models.whetstone import make_key

        self.folder = tempfile.TemporaryDirectory()
        flat = {name: (part.x.reshape(len(part.x), -1) / 255).astype(np.float32) for name, part in _parts(splits)}
        key = make_key(len(splits.train.class_names), params.width, params.overlapping, SEED).numpy()
        arrays = {f"x_{name}": x for name, x in flat.items()} | {f"y_{name}": part.y for name, part in _parts(splits)}
        np.savez(Path(self.folder.name, "data.npz"), key=key, **arrays)
        sizes = [params.dense_features, params.dense2_features, params.width]
        Path(self.folder.name, "settings.json").write_text(json.dumps(asdict(params) | {"sizes": sizes, "seed": SEED}))
        command = [str(python), str(Path(__file__).with_name("keras_whetstone.py")), self.folder.name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.name, self.last = self._answer()["ready"], 0.0

    def epoch(self) -> float:
        """Train one epoch; return its CPU seconds."""
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.last, self.sharpness = answer["accuracy"], answer["sharpness"]
        return answer["cpu_seconds"]

    def accuracy(self) -> float:
        """Return the accuracy on validation after the last epoch, and end the process."""
        self.process.stdin.close()
        self.process.wait(60)
        if set(self.sharpness) != {1.0}:
            raise RuntimeError(f"the original's layers did not all become sharp: {self.sharpness}")
        return self.last

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                "the Python of --keras-python ended; run benchmarks/keras_whetstone.py by hand to see why"
            )
        return json.loads(line)


def _parts(splits):
    return (("train", splits.train), ("validation", splits.validation))


if __name__ == "__main__":
    sys.exit(main())
