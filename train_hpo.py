"""The objectives: what a trial trains, one function each.

To add one: write `train_x(params, splits, report, device, seed) -> Result`, its Params beside its model, a line in
OBJECTIVES and a search space `search_spaces/x_<dataset>.json`. Heavy imports stay inside the functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple


@dataclass
class Result:
    """What a trial found. `metrics["default"]` is the best validation accuracy; all numbers are finite."""

    metrics: dict[str, float | int | str]
    status: str  # ok | silent | saturated | interrupted
    model: dict | None  # for model.pt, loadable with weights_only=True; or, all NumPy arrays, for model.npz
    predicted: Any = None  # class of each sample of the test part (B,), where the objective tells it


class Objective(NamedTuple):
    """Where an objective's Params are, its training function, and the kinds of data that it takes."""

    params: str  # "module:Class"; imported when it is needed
    train: Callable[..., Result]
    kinds: tuple[str, ...]  # of "events", "images", "features"
    check: Callable = lambda params, data: None  # raises ValueError where they do not go together


def train_eprop(params, splits, report: Callable[[dict], None], device: str, seed: int) -> Result:
    """Train a recurrent spiking net (`models.rsnn.EpropParams`) by e-prop or BPTT.

    `splits` has train, validation and test (loaders.Data); `report` gets a dict after each epoch, whose "default" is
    the best validation accuracy so far. A KeyboardInterrupt after the first epoch ends the training, and the best
    weights are evaluated; in the evaluation it is too late to save time. Raises ValueError for data that cannot be
    encoded.
    """
    from loaders.events import augment
    from models import training
    from models.rsnn import RSNN, rebuild

    start = time.perf_counter()
    train = training.Encoded(splits.train, params, seed, augment)
    validation = training.Encoded(splits.validation, params, training.VALIDATION_SEED)
    test = training.Encoded(splits.test, params, training.TEST_SEED)
    names, step_ms = splits.train.class_names, training.step_length(splits.train)
    net = RSNN(params, train.x.shape[2], len(names), step_ms, seed).to(device)
    best, status = training.fit(net, train, validation, report, seed)
    net = rebuild(best.saved).to(device)
    plain_train = training.Encoded(splits.train, params, seed)  # not augmented

    def measure() -> tuple:
        return training.measures(net, plain_train, validation, test), training.predictions(net, test)

    try:
        measures, predicted = measure()
    except KeyboardInterrupt:
        status = "interrupted"
        measures, predicted = measure()
    seconds = time.perf_counter() - start
    metrics = {
        "default": best.accuracy,
        "epochs": best.epochs,
        "best_epoch": best.epoch,
        **measures,
        "seconds": seconds,
    }
    return Result(metrics, status, best.saved | {"class_names": list(names)}, predicted)


def check_eprop(params, data) -> None:
    """Encode and augment one sample. Raises ValueError where the parameters do not fit the data."""
    from loaders.events import augment
    from models.training import Encoded

    Encoded(data.take([0]), params, 0, augment).redraw()


def train_streamnet(params, splits, report: Callable[[dict], None], device: str, seed: int) -> Result:
    """Learn a stream of images online (`simulator.params.StreamnetParams`), then evaluate with learning off.

    It runs on the CPU whatever `device` says, and imports no torch. The model is arrays, for
    `simulator.objective.rebuild`. Raises ValueError for data that are not images.
    """
    from simulator import objective

    return Result(*objective.train_streamnet(params, splits, report, device, seed))


def train_whetstone(params, splits, report: Callable[[dict], None], device: str, seed: int) -> Result:
    """Train a net whose units are sharpened to steps (`models.whetstone_params.WhetstoneParams`); it is scored binary.

    A reported "default" is the best validation accuracy so far with all units forced to steps; once they have become
    that by training, the best since. The model is for `models.whetstone_net.rebuild`. A KeyboardInterrupt after the
    first epoch ends the training. Raises ValueError for data that are not images.
    """
    from models import whetstone_training

    return Result(*whetstone_training.train(params, splits, report, device, seed))


def check_whetstone(params, data) -> None:
    """Raise ValueError where the parameters do not fit the data."""
    from models.whetstone_training import check

    check(params, data)


OBJECTIVES = {
    "eprop": Objective("models.rsnn:EpropParams", train_eprop, ("events", "images"), check_eprop),
    "streamnet": Objective("simulator.params:StreamnetParams", train_streamnet, ("images",)),
    "whetstone": Objective("models.whetstone_params:WhetstoneParams", train_whetstone, ("images",), check_whetstone),
}


def params_class(objective: str) -> type:
    """Import and return the Params dataclass of an objective. Raises ValueError for an unknown name."""
    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}; choose from: {', '.join(OBJECTIVES)}")
    module, name = OBJECTIVES[objective].params.split(":")
    return getattr(import_module(module), name)


def kind_of(data) -> str:
    """Return the kind of a loaders.Data: events (with time), images or features."""
    if data.step_ms is not None:
        return "events"
    return "features" if data.x.ndim == 2 else "images"
