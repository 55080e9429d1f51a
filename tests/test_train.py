"""train_eprop on a part of the real digits: accuracy, repeatability, silent and saturated nets, interruption."""

import functools
import math

import numpy as np
import pytest
import torch

import train_hpo
from loaders import Data
from loaders.events import augment
from models import eprop, training
from models.encoders import encode
from models.rsnn import EpropParams, rebuild
from setup_hpo import Splits, load_splits


@functools.cache
def digits():
    return load_splits("digits")


@functools.cache
def few():
    """A tenth of the digits."""
    return Splits(*(part.take(np.arange(0, len(part.y), 10)) for part in digits()))


def train(splits=None, report=None, seed=0, **changes):
    params = EpropParams(**{"neurons": 32, "epochs": 3} | changes)
    return train_hpo.train_eprop(params, splits or few(), report or (lambda metrics: None), "cpu", seed)


def test_digits_are_learned():
    reports = []
    result = train(digits(), reports.append, neurons=64, epochs=8)
    assert result.status == "ok"
    assert result.metrics["default"] >= 0.92  # chance 0.1; defaults reach 0.97
    assert result.metrics["test_accuracy"] >= 0.90
    assert [report["epoch"] for report in reports] == list(range(1, 9))
    assert [report["default"] for report in reports] == list(
        np.maximum.accumulate([report["validation_accuracy"] for report in reports])
    )
    assert reports[-1]["default"] == result.metrics["default"]
    assert result.metrics["epochs"] == 8 and result.metrics["parameters"] == 64 * (16 + 63 + 10) + 10
    assert all(type(value) in (int, float) and math.isfinite(value) for value in result.metrics.values())


def test_bptt_learns_digits_too():
    assert train(digits(), rule="bptt", epochs=2).metrics["default"] >= 0.75


def test_the_saved_model_repeats_the_test_accuracy(tmp_path):
    result = train()
    torch.save(result.model, tmp_path / "model.pt")
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    net, test = rebuild(model), few().test
    guesses = eprop.predict(net, eprop.run(net, encode(test.x, net.params)).outputs).numpy()
    assert (guesses == test.y).mean() == pytest.approx(result.metrics["test_accuracy"])
    assert model["class_names"] == list("0123456789") and model["step_ms"] == 1.0


@pytest.mark.parametrize("changes", [{}, {"coding": "poisson"}, {"feedback": "adaptive", "alif_fraction": 0.5}])
def test_the_same_seed_gives_the_same_metrics(changes):
    first, second, other = (train(seed=seed, **changes).metrics for seed in (3, 3, 4))
    for metrics in (first, second, other):
        del metrics["seconds"]
    assert first == second != other


def test_dense_torch_trains_alike(monkeypatch):
    """The way of other devices, run on this one: the losses agree but for rounding."""
    reports = []
    train(report=reports.append, epochs=2)
    monkeypatch.setattr(eprop, "run", functools.partial(eprop.run, dense=True))
    train(report=reports.append, epochs=2)
    assert reports[3]["loss"] == pytest.approx(reports[1]["loss"], rel=0.02)
    assert reports[3]["rate_hz"] == pytest.approx(reports[1]["rate_hz"], rel=0.02)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_optimizers_and_schedules_lower_the_loss(optimizer, schedule):
    reports = []
    lr = {"adam": 0.01, "rmsprop": 0.003, "sgd": 0.005}[optimizer]
    train(report=reports.append, optimizer=optimizer, schedule=schedule, lr=lr, epochs=4, rate_cost=0)
    assert reports[-1]["loss"] < 0.8 * reports[0]["loss"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"threshold": 1e6}, "silent"), ({"input_gain": 300.0, "threshold": 0.01}, "saturated")],
)
def test_a_dead_or_saturated_net_is_evaluated_as_it_stands(changes, status):
    reports = []
    result = train(report=reports.append, **changes)
    assert (result.status, result.metrics["epochs"], len(reports)) == (status, 0, 1)
    assert 0 <= result.metrics["default"] <= 0.5
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert (result.metrics["rate_hz"] == 0) == (status == "silent")


def test_a_net_that_falls_silent_in_training_stops_there():
    result = train(rate_target=0, rate_cost=1e5, lr=0.3, epochs=20)
    assert result.status == "silent"
    assert 1 <= result.metrics["epochs"] < 20


def test_the_guards_can_be_switched_off():
    assert train(threshold=1e6, silent_fraction=1, epochs=2).metrics["epochs"] == 2
    assert train(input_gain=300, threshold=0.01, saturated_activity=1, epochs=2).metrics["epochs"] == 2


def test_silent_samples_are_counted_over_the_epoch():
    state = training.Condition(EpropParams(silent_spikes=2, silent_fraction=0.25), expected=8)
    state.add(torch.tensor([[1, 0], [2, 0]]), steps=10)  # one of two is silent, one of eight
    assert state.status == "ok"
    state.add(torch.tensor([[0, 0], [0, 1]]), steps=10)  # three of eight
    assert state.status == "silent"


def interrupt(epoch):
    def report(metrics):
        if metrics["epoch"] == epoch:
            raise KeyboardInterrupt

    return report


def test_an_interruption_keeps_the_best_weights():
    result = train(report=interrupt(2), epochs=50)
    assert (result.status, result.metrics["epochs"]) == ("interrupted", 2)
    assert result.metrics["default"] == train(epochs=50, report=interrupt(2)).metrics["default"] > 0.1


def test_an_interruption_before_the_first_epoch_is_raised(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(eprop, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train()


def test_patience_stops_early():
    result = train(lr=1e-9, patience=2, epochs=50)
    assert (result.status, result.metrics["epochs"], result.metrics["best_epoch"]) == ("ok", 3, 1)


def test_objectives_name_their_parameters_and_data():
    assert train_hpo.params_class("eprop") is EpropParams
    assert train_hpo.kind_of(few().train) in train_hpo.OBJECTIVES["eprop"].kinds
    with pytest.raises(ValueError, match="unknown objective 'backprop'; choose from: eprop"):
        train_hpo.params_class("backprop")


def test_augmentation_is_for_training_events_and_drawn_anew():
    rng = np.random.default_rng(0)
    events = Data((rng.random((6, 40, 3)) < 0.3).astype(np.uint8), np.zeros(6, np.int64), ("a", "b"), step_ms=5.0)
    part = training.Encoded(events, EpropParams(drop_events=0.5), 0, augment)
    np.testing.assert_array_equal(part.x, events.x)  # validation and test stay as they are: only fit redraws, its train
    draws = []
    for _ in range(2):
        part.redraw()
        draws.append(part.x)
        assert (part.x <= events.x).all() and part.x.sum() < 0.7 * events.x.sum()
    assert not np.array_equal(*draws)


def test_images_are_not_augmented():
    with pytest.raises(ValueError, match="only events can be augmented"):
        train(time_jitter=1.0)
