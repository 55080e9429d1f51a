"""The objective whetstone on real digits: binary when scored, honest about it, repeatable; optimisers by hand."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

import train_hpo
from loaders import Data
from models import whetstone_training as training
from models.whetstone_costs import effective_operations
from models.whetstone_net import WhetstoneNet, rebuild
from models.whetstone_params import WhetstoneParams
from setup_hpo import Splits, load_splits

SHORT = {"dense_features": 64, "dense2_features": 0, "width": 40, "sh_start": 4, "sh_duration": 3, "sh_intermission": 0}


@functools.cache
def digits():
    return load_splits("digits")


@functools.cache
def few():
    return Splits(*(part.take(np.arange(0, len(part.y), 5)) for part in digits()))


def train(splits=None, report=None, seed=0, **changes):
    params = WhetstoneParams(**SHORT | changes)
    return train_hpo.train_whetstone(params, splits or few(), report or (lambda metrics: None), "cpu", seed)


def test_digits_are_learned_and_scored_sharp():
    reports = []
    result = train(digits(), reports.append)
    metrics = result.metrics
    assert result.status == "ok" and metrics["fully_sharpened"] == 1
    assert metrics["default"] >= 0.88 and metrics["test_accuracy"] >= 0.86  # chance .1
    assert metrics["accuracy_before_sharpening"] >= 0.93
    assert [report["epoch"] for report in reports] == list(range(1, 11)) and metrics["epochs"] == 10  # 4 + 3 + 3
    # two layers: [4, 7) and [7, 10); the mean of their sharpness at the end of each epoch
    assert [report["sharpness"] for report in reports] == pytest.approx(
        [0, 0, 0, 0, 1 / 6, 2 / 6, 0.5, 4 / 6, 5 / 6, 1]
    )
    forced = [report["sharpened_accuracy"] for report in reports]
    assert [report["default"] for report in reports[:-1]] == list(np.maximum.accumulate(forced[:-1]))
    assert reports[-1]["default"] == forced[-1] == reports[-1]["validation_accuracy"] == metrics["default"]
    assert reports[3]["validation_accuracy"] == metrics["accuracy_before_sharpening"] > forced[3]
    assert all(type(value) in (int, float) and math.isfinite(value) for value in metrics.values())
    assert (result.predicted == digits().test.y).mean() == pytest.approx(metrics["test_accuracy"])


@pytest.mark.parametrize(
    "changes, least",
    [
        ({"activation": "ste", "epochs": 8, "batch_norm": True}, 0.85),
        ({"activation": "sigmoid", "batch_norm": True}, 0.8),
        ({"sharpener": "uniform", "sh_duration": 6}, 0.8),
        ({"sharpener": "simple"}, 0.8),
        ({"sharpener": "adaptive", "sh_start": 3}, 0.8),
        ({"optimizer": "adadelta", "lr": 1.0, "epsilon": 1e-6}, 0.7),
        ({"optimizer": "adam"}, 0.6),
    ],
)
def test_every_kind_learns_digits(changes, least):
    metrics = train(digits(), **changes).metrics
    assert metrics["default"] >= least and metrics["fully_sharpened"] == 1


def test_the_convolutional_net_learns_digits():
    small = {"conv1_features": 16, "conv2_features": 16, "conv3_features": 32, "width": 40, "sh_start": 4, "epochs": 4}
    metrics = train(digits(), network="conv", **small).metrics
    assert metrics["accuracy_before_sharpening"] >= 0.85
    assert {"rate_conv1", "dead_conv3", "rate_dense1", "rate_output"} <= set(metrics)


def test_a_net_cut_off_is_forced_and_says_so():
    result = train(epochs=6)
    assert result.metrics["fully_sharpened"] == 0 and result.metrics["epochs"] == 6
    net = rebuild(result.model)
    assert net.levels() == [1, 1]  # as it was scored
    assert training.accuracy(net, training.Images(few().validation, "cpu")) == result.metrics["default"]


def test_the_saved_model_repeats_the_test_accuracy(tmp_path):
    result = train()
    torch.save(result.model, tmp_path / "model.pt")
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    net, test = rebuild(model), few().test
    guesses = net(net.pixels(torch.as_tensor(test.x)[..., None])).argmax(1).numpy()
    assert (guesses == test.y).mean() == result.metrics["test_accuracy"]
    assert model["class_names"] == list("0123456789")


@pytest.mark.parametrize("changes", [{}, {"noise_location": "after_dense1"}, {"deterministic": True}])
def test_the_same_seed_gives_the_same_metrics(changes):
    first, second, other = (train(seed=seed, **changes).metrics for seed in (3, 3, 4))
    for metrics in (first, second, other):
        del metrics["seconds"]
    assert first == second != other
    assert not torch.are_deterministic_algorithms_enabled()


def test_it_trains_with_bfloat16_products():
    assert train(digits(), autocast=True).metrics["default"] >= 0.85


def test_a_net_that_puts_out_nothing_is_silent():
    result = train(lr=1e-9)  # Glorot's weights reach the threshold of .5 in few units
    assert train(lr=1e-9, silent_fraction=1).status == "ok"
    dark = Splits(*(Data(part.x * 0, part.y, part.class_names) for part in few()))
    silent = train(dark, lr=1e-9)
    assert (silent.status, silent.metrics["silent_fraction"]) == ("silent", 1)
    assert result.metrics["silent_fraction"] < 1 and silent.metrics["spikes_per_inference"] == 0
    assert silent.metrics["dead_dense1"] == 64


def test_a_net_that_diverges_is_a_finished_trial():
    result = train(lr=1e30)
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert 0 <= result.metrics["default"] <= 0.5


def interrupt(epoch):
    def report(metrics):
        if metrics["epoch"] == epoch:
            raise KeyboardInterrupt

    return report


def test_an_interruption_keeps_the_best_weights():
    result = train(report=interrupt(5))
    assert (result.status, result.metrics["epochs"], result.metrics["fully_sharpened"]) == ("interrupted", 5, 0)
    assert result.metrics["default"] == train(epochs=5).metrics["default"] > 0.1


def test_an_interruption_before_the_first_epoch_is_raised(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train()


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width must be at least the number of classes, 10, not 9"):
        train(width=9)
    with pytest.raises(ValueError, match="width must be at least"):
        train_hpo.check_whetstone(WhetstoneParams(width=9), few().train)
    events = Data(np.zeros((2, 5, 3), np.uint8), np.zeros(2, np.int64), ("a", "b"), step_ms=1.0)
    with pytest.raises(ValueError, match="whetstone takes uint8 images"):
        training.Images(events, "cpu")


def test_activities_that_are_not_binary_raise():
    training.check_binary([torch.tensor([0.0, 1.0])])
    for bad in (0.5, float("nan")):
        with pytest.raises(RuntimeError, match="neither 0 nor 1"):
            training.check_binary([torch.tensor([0.0, 1.0]), torch.tensor([bad, 1.0])])


def by_hand(kind, gradients, lr, rho, epsilon, decay):
    """Keras 2.1.6's update rules in plain numbers, for one weight that starts at 0."""
    weight = square = moved = first = 0.0
    for update, gradient in enumerate(gradients):
        rate = lr / (1 + decay * update)
        if kind == "adam":
            first, square = 0.9 * first + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            rate *= math.sqrt(1 - 0.999 ** (update + 1)) / (1 - 0.9 ** (update + 1))
            weight -= rate * first / (math.sqrt(square) + epsilon)
            continue
        square = rho * square + (1 - rho) * gradient**2
        if kind == "rmsprop":
            weight -= rate * gradient / (math.sqrt(square) + epsilon)
        else:
            change = gradient * math.sqrt(moved + epsilon) / math.sqrt(square + epsilon)
            weight -= rate * change
            moved = rho * moved + (1 - rho) * change**2
    return weight


@pytest.mark.parametrize("kind, lr", [("rmsprop", 0.1), ("adadelta", 1.0), ("adam", 0.1)])
def test_optimisers_mean_what_keras_means(kind, lr):
    settings = {"lr": lr, "rho": 0.8, "epsilon": 0.01, "decay": 0.5}
    net = WhetstoneNet(WhetstoneParams(optimizer=kind, batch_norm=True, bn_center=False, **settings), (8, 8, 1), 10)
    optimizer, weight, gradients = training.make_optimizer(net), net.links[0].weight, (0.3, -0.1, 0.7, 0.02)
    assert not any(norm.bias is taken for norm in net.norms for taken in optimizer.param_groups[0]["params"])
    with torch.no_grad():
        weight.zero_()
    for update, gradient in enumerate(gradients):
        weight.grad = torch.full_like(weight, gradient)
        training.set_rate(optimizer, net.params, update)
        optimizer.step()
    assert weight[0, 0].item() == pytest.approx(by_hand(kind, gradients, **settings), rel=1e-5)


def test_a_sharp_net_does_not_learn():
    net = WhetstoneNet(WhetstoneParams(**SHORT), (8, 8, 1), 10)
    net.sharpen(1.0)
    before = [weight.clone() for weight in net.parameters()]
    nn.functional.cross_entropy(net(torch.rand(4, 64)), torch.zeros(4, dtype=torch.int64)).backward()
    training.make_optimizer(net).step()
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_effective_operations_by_hand():
    dense = nn.Linear(3, 2)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor([[1.0, 0, 2], [3, 4, 5]]))  # columns with 2, 1 and 2 weights
    assert effective_operations(dense, torch.tensor([[1.0, 1, 0], [0.0, 0.5, 1]])) == (2 + 1) + (1 + 2)
    conv = nn.Conv2d(1, 2, 3, padding="same")
    corner, middle = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5)
    corner[0, 0, 0, 0] = middle[0, 0, 2, 2] = 1
    # a pixel in the middle meets all 9 weights of both filters, one in the corner 4 of each
    assert effective_operations(conv, middle) == 18 and effective_operations(conv, corner) == 8
