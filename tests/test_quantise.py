"""Weights of few bits: a worked example, torch's own fake quantisation, and training."""

import numpy as np
import pytest
import torch

import train_hpo
from models import eprop, training
from models.quantise import on_grid, quantised, snap, step_of
from models.rsnn import RSNN, EpropParams, rebuild
from models.whetstone_net import WhetstoneNet
from models.whetstone_params import WhetstoneParams
from setup_hpo import load_splits

SMALL = {"neurons": 20, "steps_per_row": 2, "epochs": 3}


def test_a_worked_example():
    """3 bits: -3 to 3. The largest weight is 0.9, so a step is 0.3."""
    weights = torch.tensor([-0.9, -0.2, 0.05, 0.31, 0.7])
    step = step_of(weights, 3)
    assert float(step) == pytest.approx(0.3)
    torch.testing.assert_close(on_grid(weights, step), torch.tensor([-0.9, -0.3, 0.0, 0.3, 0.6]))


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_it_is_torchs_fake_quantisation(bits):
    weights = torch.randn(50, 40, generator=torch.Generator().manual_seed(bits))
    most = 2 ** (bits - 1) - 1
    theirs = torch.fake_quantize_per_tensor_affine(weights, float(weights.abs().max()) / most, 0, -most, most)
    ours = on_grid(weights, step_of(weights, bits))
    far = (ours - theirs).abs() > 1e-5  # torch multiplies by 1 / step: a half may be rounded to its other side
    assert far.float().mean() < 0.001 and len(ours.unique()) <= 2 * most + 1


def test_weights_that_are_all_zero_stay_so():
    weights = torch.zeros(3)
    assert torch.equal(on_grid(weights, step_of(weights, 4)), weights)


def test_gradients_are_those_of_the_quantised_net_and_the_weights_come_back():
    net, other = (RSNN(EpropParams(**SMALL), 8, 3, seed=1) for _ in range(2))
    x = (np.random.default_rng(0).random((4, 30, 8)) < 0.3).astype(np.uint8)
    before = [weight.clone() for weight in net.weights()]
    with quantised(net, 3):
        loss, _ = eprop.learn(net, x, np.arange(4) % 3)
    snap(other, 3)
    assert loss == eprop.learn(other, x, np.arange(4) % 3)[0]
    for mine, theirs, kept in zip(net.weights(), other.weights(), before, strict=True):
        assert torch.equal(mine.grad, theirs.grad) and torch.equal(mine, kept) and not torch.equal(theirs, kept)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("eprop", SMALL),
        ("eprop", SMALL | {"rule": "bptt", "epochs": 1}),
        ("eprop", SMALL | {"feedback": "adaptive", "alif_fraction": 0.5}),
        ("whetstone", {"sh_start": 3, "sh_duration": 1}),
        ("whetstone", {"sh_start": 3, "sh_duration": 1, "batch_norm": True}),
        ("whetstone", {"activation": "ste", "epochs": 2, "dense2_features": 0}),
    ],
)
def test_a_net_trained_with_weight_bits_has_such_weights(kind, changes):
    splits = load_splits("digits")
    params = train_hpo.params_class(kind)(weight_bits=4, **changes)
    result = train_hpo.OBJECTIVES[kind].train(params, splits, lambda metrics: None, "cpu", 0)
    state = result.model["state_dict"]
    names = ("input.weight", "hidden.recurrent.weight", "readout.weight", *(f"links.{i}.weight" for i in range(3)))
    weights = [state[name] for name in names if name in state]
    assert weights and all(len(weight.unique()) <= 15 for weight in weights)
    assert result.metrics["default"] > 0.4  # of ten classes
    assert result.metrics["footprint_bytes"] < 4 * sum(weight.numel() for weight in weights)


def test_they_learn_what_rounding_afterwards_loses():
    """2 bits leave -s, 0, s: a net that has learnt with them is far better than one that is rounded to them."""
    splits = load_splits("digits")
    test = training.Encoded(splits.test, EpropParams(**SMALL), training.TEST_SEED)
    accuracies = []
    for bits in (2, 0):
        params = EpropParams(weight_bits=bits, **SMALL | {"epochs": 8})
        result = train_hpo.train_eprop(params, splits, lambda metrics: None, "cpu", 0)
        net = rebuild(result.model)
        snap(net, 2)
        accuracies.append(training.accuracy(net, test))
    assert accuracies[0] > accuracies[1] + 0.1


def test_one_bit_is_refused():
    for kind in (EpropParams, WhetstoneParams):
        with pytest.raises(ValueError, match=r"weight_bits must be 0 \(off\) or an integer at least 2 .*, not 1"):
            kind(weight_bits=1)
        with pytest.raises(ValueError, match="weight_bits must be an integer at least 0 and at most 16, not 17"):
            kind(weight_bits=17)


def test_zero_bits_leave_the_weights():
    net = WhetstoneNet(WhetstoneParams(), (8, 8, 1), 10)
    before = [weight.clone() for weight in net.weights()]
    snap(net, 0)
    assert all(torch.equal(old, new) for old, new in zip(before, net.weights(), strict=True))
