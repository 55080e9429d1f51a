"""Nets trained at once learn what each learns alone."""

from dataclasses import replace

import numpy as np
import pytest

from loaders import Data
from models.whetstone_params import WhetstoneParams
from models.whetstone_stack import train_stack
from models.whetstone_training import train
from setup_hpo import Splits, load_splits

BASE = WhetstoneParams(dense_features=24, dense2_features=16, width=20, batch_size=32, batch_norm=True)


@pytest.fixture(scope="module")
def few():
    return Splits(*(part.take(np.arange(0, len(part.y), 3)) for part in load_splits("digits")))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "rmsprop"},
        {"optimizer": "adadelta", "lr": 2.0, "batch_norm": False},
        {"activation": "sigmoid", "sharpener": "uniform", "bn_scale": False},
    ],
)
def test_a_stack_learns_what_each_net_learns_alone(few, changes):
    first = replace(BASE, **changes)
    nets = [
        replace(first, sh_start=4, sh_duration=2, sh_intermission=0, decay=1e-3),
        replace(first, sh_start=2, sh_duration=1, sh_intermission=1, lr=first.lr / 2, rho=0.95),
    ]
    seeds = [0, 5]
    together = train_stack(nets, seeds, few)
    for params, seed, (validation, test) in zip(nets, seeds, together, strict=True):
        alone, *_ = train(params, few, lambda metrics: None, "cpu", seed)
        assert alone["fully_sharpened"] == 1
        # rounding differs, and a sharp step turns it into other bits: a few of 107 and 120 samples
        assert validation == pytest.approx(alone["default"], abs=0.06)
        assert test == pytest.approx(alone["test_accuracy"], abs=0.06)


def test_one_epoch_gives_the_same_weights(few):
    """Before rounding can grow: the nets' weights after an epoch agree to float32's precision."""
    import torch

    from models import whetstone_stack as stacked
    from models.sharpeners import make_sharpener
    from models.whetstone_net import WhetstoneNet
    from models.whetstone_training import Images, make_optimizer, train_epoch

    nets = [replace(BASE, lr=1e-3, decay=0.01), replace(BASE, lr=4e-3, rho=0.8)]
    data, sharpener = Images(few.train, "cpu"), make_sharpener(BASE, 3)
    both = [WhetstoneNet(params, (8, 8, 1), 10, seed) for seed, params in enumerate(nets)]
    stack = stacked.Stack(both)
    optimizer = stacked.Optimizer([weight for weight in stack.weights.values() if weight.requires_grad], nets)
    orders = torch.as_tensor(np.stack([np.random.default_rng(seed).permutation(len(data.y)) for seed in (0, 1)]))
    pixels = both[0].pixels(data.x)
    updates = stacked._train_epoch(stack, optimizer, [sharpener] * 2, pixels, data.y, orders, 0, 0)
    for seed, net in enumerate(both):
        before = net.links[0].weight.clone()
        _, alone = train_epoch(net, make_optimizer(net), sharpener, data, np.random.default_rng(seed), 0, 0)
        assert alone == updates
        for layer in range(3):
            torch.testing.assert_close(
                stack.weights[f"weight{layer}"][seed], net.links[layer].weight, atol=2e-4, rtol=0
            )
            torch.testing.assert_close(stack.mean[layer][seed][0], net.norms[layer].running_mean, atol=2e-4, rtol=0)
            torch.testing.assert_close(stack.variance[layer][seed][0], net.norms[layer].running_var, atol=2e-4, rtol=0)
        assert (net.links[0].weight - before).abs().max() > 0.01


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer": "adam"}, "optimizer must be one of .* in a stack, not 'adam'"),
        ({"sharpener": "adaptive"}, "sharpener must be one of"),
    ],
)
def test_what_cannot_be_stacked_is_named(few, changes, message):
    with pytest.raises(ValueError, match=message):
        train_stack([replace(BASE, **changes)], [0], few)


def test_architectures_are_not_mixed(few):
    with pytest.raises(ValueError, match="dense_features must be the same in a stack, not 24 and 25"):
        train_stack([BASE, replace(BASE, dense_features=25)], [0, 0], few)


def test_too_narrow_an_output_is_refused():
    few = Splits(*[Data(np.zeros((4, 8, 8), np.uint8), np.arange(4), tuple("abcd"))] * 3)
    with pytest.raises(ValueError, match="width must be at least the number of classes, 4, not 3"):
        train_stack([replace(BASE, width=3)], [0], few)
