"""The objectives: what a trial trains.

To add one: write `models/<name>.py` with a dataclass `Params` and `train(params, splits, report, device, seed) ->
Result`, and a search space `search_spaces/<name>_<dataset>.json`. It is found by its name, and imported only when it is
used. The functions here are of objectives that have another name than their file; heavy imports stay inside them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import is_dataclass
from types import ModuleType
from typing import NamedTuple

from models import Result
from search_spaces import parts

KINDS = ("events", "signals", "images", "features")  # of data
NEEDED = ("Params", "train")  # of a file in models/ that is an objective


class Objective(NamedTuple):
    """Where an objective's Params are, its training function, and the kinds of data that it takes."""

    params: str  # "module:Class"; imported when it is needed
    train: Callable[..., Result]
    kinds: tuple[str, ...] = KINDS
    check: Callable = lambda params, data: None  # raises ValueError where they do not go together
    rebuild: Callable | None = None  # rebuild(Result.model).predict(x) -> classes (B,); --check tries it


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


def find_objective(name: str) -> Objective:
    """Return the objective of that name, imported if it is a file in models/.

    Raises ValueError that names the choices, or what is wrong with the file.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    return _of_module(parts.find("models", name, NEEDED, "objective", _places()))


def _places() -> dict[str, str]:
    return {name: objective.params for name, objective in OBJECTIVES.items()}


def _of_module(module: ModuleType) -> Objective:
    path = parts.shown(module.__file__)
    kinds = getattr(module, "KINDS", KINDS)
    if not isinstance(kinds, tuple | list) or not kinds or any(kind not in KINDS for kind in kinds):
        raise ValueError(f"{path}: KINDS must be a tuple of {', '.join(KINDS)}, not {kinds!r}")
    given = {name: getattr(module, name) for name in ("train", "check", "rebuild") if hasattr(module, name)}
    for name, function in given.items():
        if not callable(function):
            raise ValueError(f"{path}: {name} must be a function, not {function!r}")
    return Objective(f"{module.__name__}:Params", kinds=tuple(kinds), **given)


def params_class(objective: str) -> type:
    """Import and return the Params dataclass of an objective. Raises ValueError as `find_objective`."""
    module, _, name = find_objective(objective).params.partition(":")
    found = getattr(parts.bring(module), name)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ValueError(f"{module}: {name} must be a dataclass, not {found!r}")
    return found


def params_module(objective: str) -> str:
    """Return the name of the module that Params of an objective are in; imports nothing. Raises ValueError."""
    if objective in OBJECTIVES:
        return OBJECTIVES[objective].params.partition(":")[0]
    parts.find_file("models", objective, NEEDED, "objective", _places())
    return f"models.{objective}"


def kind_of(data) -> str:
    """Return the kind of a loaders.Data: events or signals (with time), images or features."""
    if data.step_ms is not None:
        return "signals" if data.x.dtype.kind == "f" else "events"
    return "features" if data.x.ndim == 2 else "images"
