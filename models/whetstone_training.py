"""Training of a Whetstone net: sharpen while learning, score at sharpness 1 alone, measure what an inference costs.

Letters in shapes: B samples, H x W pixels, C channels, N units of a layer, K classes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from models.quantise import quantised
from models.sharpeners import make_sharpener
from models.whetstone import check_width
from models.whetstone_costs import costs
from models.whetstone_net import WhetstoneNet, rebuild
from models.whetstone_params import WhetstoneParams

EVALUATION_BATCH = 250  # all layers' activity of a batch is kept: 1.1 GB in the largest net of the search spaces

Report = Callable[[dict], None]


class Images:
    """A part of the data on the device: x uint8 (B, H, W, C), y (B,)."""

    def __init__(self, data, device: str) -> None:
        """Take a loaders.Data of uint8 images. Raises ValueError for another kind."""
        if data.x.dtype != np.uint8 or data.step_ms is not None or data.x.ndim not in (3, 4):
            raise ValueError(f"whetstone takes uint8 images (B, H, W[, C]), not {data.x.dtype} of shape {data.x.shape}")
        x = data.x if data.x.ndim == 4 else data.x[..., None]
        self.x, self.y = torch.as_tensor(x, device=device), torch.as_tensor(data.y, device=device)

    def batches(self, size: int, order: np.ndarray | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (x, y) in slices of `size`, in `order` where it is given."""
        if order is not None:
            order = torch.as_tensor(order, device=self.x.device)
        for start in range(0, len(self.y), size):
            chosen = slice(start, start + size) if order is None else order[start : start + size]
            yield self.x[chosen], self.y[chosen]


@dataclass
class Best:
    """The fully sharpened weights with the best validation accuracy, or while there are none, the best if forced."""

    accuracy: float = -1.0  # at sharpness 1
    epoch: int = 0
    sharp: bool = False  # all layers had reached sharpness 1 by training
    saved: dict | None = None  # WhetstoneNet.saved()
    epochs: int = 0  # evaluated so far
    unsharpened: float | None = None  # validation accuracy as it stood, in the last epoch before any sharpening

    def offer(self, net: WhetstoneNet, accuracy: float, epoch: int, sharp: bool) -> None:
        """Keep a copy of the weights if they are better. Sharpened ones replace forced ones, however good."""
        self.epochs = epoch
        if accuracy > self.accuracy or sharp > self.sharp:
            self.accuracy, self.epoch, self.sharp, self.saved = accuracy, epoch, sharp, net.saved()


def train(
    params: WhetstoneParams, splits, report: Report, device: str, seed: int
) -> tuple[dict, str, dict, np.ndarray]:
    """Train a net on `splits.train` and return (metrics, status, model, predicted); status ok | silent | interrupted.

    `predicted` are the classes of the test part (B,).

    `report` gets a dict after each epoch. A KeyboardInterrupt after the first evaluated epoch ends the training, and
    the best weights so far are evaluated. Raises ValueError for data that do not fit.
    """
    started = time.perf_counter()
    parts = [Images(data, device) for data in splits]
    check(params, splits.train)
    with repeatable(params.deterministic):
        net = WhetstoneNet(params, parts[0].x.shape[1:], len(splits.train.class_names), seed).to(device)
        best, interrupted = fit(net, parts[0], parts[1], report, seed)
        net = rebuild(best.saved).to(device)
        try:
            measures, predicted = measure(net, *parts)
        except KeyboardInterrupt:
            interrupted, (measures, predicted) = True, measure(net, *parts)
    status = "interrupted" if interrupted else "ok"
    if status == "ok" and measures["silent_fraction"] > params.silent_fraction:
        status = "silent"
    found = {
        "default": best.accuracy,
        "epochs": best.epochs,
        "best_epoch": best.epoch,
        "fully_sharpened": int(best.sharp),
    }
    if best.unsharpened is not None:
        found["accuracy_before_sharpening"] = best.unsharpened
    model = net.saved() | {"class_names": list(splits.train.class_names)}
    return found | measures | {"seconds": time.perf_counter() - started}, status, model, predicted


def check(params: WhetstoneParams, data) -> None:
    """Raise ValueError where the parameters do not fit the data (a loaders.Data)."""
    check_width(len(data.class_names), params.width)
    if params.batch_norm and len(data.y) == 1:
        raise ValueError("batch_norm needs at least two training samples: one has no variance")


def fit(net: WhetstoneNet, train: Images, validation: Images, report: Report, seed: int) -> tuple[Best, bool]:
    """Train to the end of the sharpening, or for `epochs`. Returns the best weights and whether it was interrupted."""
    params, best, rng = net.params, Best(), np.random.default_rng(seed)
    net.to(memory_format=torch.channels_last)
    torch.manual_seed(seed)  # of the noise
    sharpener = make_sharpener(params, len(net.units))
    optimizer, updates = make_optimizer(net), 0
    try:
        for epoch in range(params.epochs or sharpener.epochs):
            loss, updates = train_epoch(net, optimizer, sharpener, train, rng, epoch, updates)
            net.sharpen(sharpener.at(epoch + 1.0))
            sharpener.end_epoch(loss)
            with quantised(net, params.weight_bits):
                _evaluate_epoch(net, validation, best, report, {"epoch": epoch + 1, "loss": loss})
            if not math.isfinite(loss) or (best.sharp and params.activation != "ste"):
                break
    except KeyboardInterrupt:
        if best.saved is None:
            raise
        return best, True
    return best, False


def train_epoch(net, optimizer, sharpener, train: Images, rng, epoch: int, updates: int) -> tuple[float, int]:
    """Train on every sample once, sharpening before each batch. Returns the mean loss and the updates so far."""
    net.train()
    order = rng.permutation(len(train.y))
    size, kind = net.params.batch_size, train.x.device.type
    batches = math.ceil(len(order) / size)
    losses = torch.zeros((), device=train.x.device)
    for batch, (x, y) in enumerate(train.batches(size, order)):
        if len(y) == 1 and batch:  # one sample has no variance
            continue
        net.sharpen(sharpener.at(epoch + batch / batches))
        set_rate(optimizer, net.params, updates)
        optimizer.zero_grad()
        with quantised(net, net.params.weight_bits):
            with torch.autocast(kind, torch.bfloat16, enabled=net.params.autocast):
                activity = net.activities(net.pixels(x))[-1]
            loss = nn.functional.cross_entropy(net.decoder(activity.float()), y)
            loss.backward()
        optimizer.step()
        losses += loss.detach() * len(y)
        updates += 1
    return float(losses) / len(order), updates


def make_optimizer(net: WhetstoneNet) -> torch.optim.Optimizer:
    """Return the optimiser with Keras' meaning of its parameters; `set_rate` belongs to it."""
    params, weights = net.params, [weights for weights in net.parameters() if weights.requires_grad]
    if params.optimizer == "adam":
        return torch.optim.Adam(weights, params.lr, eps=params.epsilon)
    if params.optimizer == "adadelta":
        return torch.optim.Adadelta(weights, params.lr, rho=params.rho, eps=params.epsilon)
    return torch.optim.RMSprop(weights, params.lr, alpha=params.rho, eps=params.epsilon)


def set_rate(optimizer: torch.optim.Optimizer, params: WhetstoneParams, update: int) -> None:
    """Set the rate of update 0, 1, ...: lr / (1 + decay update).

    Keras' Adam adds epsilon to the root before its bias is corrected, torch's after: the latter's is set to agree.
    """
    for group in optimizer.param_groups:
        group["lr"] = params.lr / (1 + params.decay * update)
        if params.optimizer == "adam":
            group["eps"] = params.epsilon / math.sqrt(1 - group["betas"][1] ** (update + 1))


@contextmanager
def fully_sharpened(net: WhetstoneNet) -> Iterator[None]:
    """Within, the net is in evaluation mode at sharpness 1."""
    levels, training = net.levels(), net.training
    net.eval()
    net.sharpen(1.0)
    try:
        yield
    finally:
        net.sharpen(levels)
        net.train(training)


@contextmanager
def repeatable(asked: bool) -> Iterator[None]:
    """Within, torch refuses what does not repeat itself, where that is asked for."""
    before = torch.are_deterministic_algorithms_enabled()
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@torch.no_grad()
def accuracy(net: WhetstoneNet, images: Images, sharp: bool = True) -> float:
    """Return the part of the images classified rightly, at sharpness 1 or as the net stands, in evaluation mode.

    Raises RuntimeError where a unit at sharpness 1 puts out anything but 0 and 1.
    """
    if sharp:
        with fully_sharpened(net):
            return _accuracy(net, images, True)
    training = net.training
    result = _accuracy(net.eval(), images, False)
    net.train(training)
    return result


def _accuracy(net: WhetstoneNet, images: Images, sharp: bool) -> float:
    return float((_predictions(net, images, sharp) == images.y).sum()) / len(images.y)


def _predictions(net: WhetstoneNet, images: Images, sharp: bool) -> torch.Tensor:
    found = []
    for x, _ in images.batches(EVALUATION_BATCH):
        activities = net.activities(net.pixels(x))
        if sharp:
            check_binary(activities)
        found.append(net.decoder(activities[-1]).argmax(1))
    return torch.cat(found)


@torch.no_grad()
def predictions(net: WhetstoneNet, images: Images) -> np.ndarray:
    """Return the class (B,) that the net gives each image at sharpness 1. Raises RuntimeError as `accuracy`."""
    with fully_sharpened(net):
        return _predictions(net, images, True).cpu().numpy()


def check_binary(activities: list[torch.Tensor]) -> None:
    """Raise RuntimeError where an activity is neither 0 nor 1."""
    if not all(bool(((activity == 0) | (activity == 1)).all()) for activity in activities):
        raise RuntimeError("a unit of a fully sharpened net put out a value that is neither 0 nor 1")


def measure(net: WhetstoneNet, train: Images, validation: Images, test: Images) -> tuple[dict, np.ndarray]:
    """Return the chosen net's accuracies at sharpness 1 with, on the validation part, what an inference costs; and the
    classes that it gives the test part (B,)."""
    net.sharpen(1.0)
    predicted = predictions(net, test)
    tested = float((predicted == test.y.cpu().numpy()).mean())
    return {"train_accuracy": accuracy(net, train), "test_accuracy": tested} | costs(net, validation), predicted


def _evaluate_epoch(net, validation: Images, best: Best, report: Report, measures: dict) -> None:
    """Evaluate as if sharpened now and as it stands, keep the weights if they are the best, report what is finite."""
    sharp = min(net.levels()) == 1
    forced = accuracy(net, validation)
    stands = forced if sharp else accuracy(net, validation, sharp=False)
    if not any(net.levels()):
        best.unsharpened = stands
    best.offer(net, forced, measures["epoch"], sharp)
    measures = {
        "default": best.accuracy,
        "sharpened_accuracy": forced,
        "validation_accuracy": stands,
        "sharpness": sum(net.levels()) / len(net.units),
        **measures,
    }
    report({name: value for name, value in measures.items() if math.isfinite(value)})
