"""The recurrent net: its parameters' ranges, its dynamics against snnTorch's and by hand, its state."""

import math
from dataclasses import fields, make_dataclass

import numpy as np
import pytest
import snntorch as snn
import torch

from models import eprop
from models.params import Range, check
from models.rsnn import CHOICES, RANGES, RSNN, EpropParams, rebuild


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("lr", -1, "a number above 0"),
        ("lr", float("nan"), "a number above 0"),
        ("lr", np.float32("inf"), "a number above 0"),
        ("lr", 10**400, "a number above 0"),
        ("tau_mem", float("inf"), "a number above 0"),
        ("neurons", 3.5, "an integer at least 1 and at most 65535"),
        ("neurons", 64.0, "an integer at least 1 and at most 65535"),
        ("epochs", "a", "an integer at least 1"),
        ("epochs", True, "an integer at least 1"),
        ("alif_fraction", 1.1, "a number at least 0 and at most 1"),
        ("bias", 2, "true or false"),
        ("rule", "stdp", "one of eprop, bptt"),
        ("reset", None, "one of subtract, zero"),
    ],
)
def test_wrong_parameters_are_named(field, value, rule):
    with pytest.raises(ValueError, match=f"^{field} must be {rule}, not "):
        EpropParams(**{field: value})


def evaluated(**values):
    """Params whose annotations are types: a module without `from __future__ import annotations` has them so."""
    kinds = [("neurons", int, 3), ("lr", float, 0.1), ("bias", bool, False), ("rule", str, "a")]
    return make_dataclass("Evaluated", kinds)(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, None),
        ({"lr": 1}, None),
        ({"neurons": 3.5}, "neurons must be an integer at least 1, not 3.5"),
        ({"bias": 1}, "bias must be true or false, not 1"),
        ({"rule": "b"}, "rule must be one of a, not 'b'"),
    ],
)
def test_annotations_may_be_types_or_text(values, message):
    ranges = {"neurons": Range(1), "lr": Range(0)}
    try:
        check(evaluated(**values), {"rule": ("a",)}, ranges)
    except ValueError as error:
        assert str(error) == message
    else:
        assert message is None


def test_every_field_has_choices_or_a_range():
    names = {field.name for field in fields(EpropParams) if field.type != "bool"}
    assert names == CHOICES.keys() | RANGES.keys()


def test_numbers_of_numpy_and_integers_for_floats_are_taken():
    params = EpropParams(neurons=np.int64(8), lr=np.float32(0.5), tau_mem=20)
    assert (params.neurons, params.lr, params.tau_mem) == (8, 0.5, 20)


def test_decays_are_exponentials_of_the_step():
    net = RSNN(EpropParams(neurons=4, tau_mem=10, tau_adapt=100, tau_out=50, alif_fraction=0.5), 2, 3, step_ms=5.0)
    assert net.hidden.beta.tolist() == pytest.approx([math.exp(-0.5)] * 4)
    assert net.adapt_decay.tolist() == pytest.approx([math.exp(-0.05)] * 4)
    assert net.output.beta.tolist() == pytest.approx([math.exp(-0.1)] * 3)
    assert net.adapt_strength.tolist() == pytest.approx([0, 0, 0.1, 0.1])


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("reset_delay", [True, False])
def test_spikes_equal_stock_rleaky(reset, reset_delay):
    params = EpropParams(neurons=50, reset=reset, reset_delay=reset_delay, input_gain=3.0, threshold=0.7)
    net = RSNN(params, 8, 3).double()
    x = (np.random.default_rng(0).random((6, 120, 8)) < 0.3).astype(np.uint8)
    stock = snn.RLeaky(
        beta=net.hidden.beta, threshold=0.7, linear_features=50, reset_mechanism=reset, reset_delay=reset_delay,
        spike_grad=lambda distance: (distance > 0).double(),  # snnTorch's own would spike in float32
    ).double()  # fmt: skip
    stock.threshold.fill_(net.hidden.threshold[0])  # 0.7 in the same rounding
    stock.recurrent = net.hidden.recurrent
    spikes, potential, expected = torch.zeros(6, 50).double(), torch.zeros(6, 50).double(), []
    with torch.no_grad():
        for current in net.input(torch.as_tensor(x).double()).unbind(1):
            spikes, potential = stock(current, spikes, potential)
            expected.append(spikes)
    expected = torch.stack(expected, 1).numpy()
    assert 0.05 < expected.mean() < 0.6
    for dense in (False, True):
        assert (eprop.run(net, x, dense=dense).spikes() == expected).all()


def test_an_adaptive_neuron_by_hand():
    """Input 2 at each step, decay 1/2, threshold 1, zero reset without delay: v = 2 at every step after a spike.

    The threshold rises by 1.5 with each spike and decays by 1/2 a step: A = 1, 2.5, 1.75, 2.875, ...
    t  v        A        z
    0  2        1        1
    1  2        2.5      0
    2  3        1.75     1
    3  2        2.875    0
    4  3        1.9375   1
    """
    params = EpropParams(neurons=1, alif_fraction=1, adapt_strength=1.5, reset="zero", reset_delay=False)
    net = RSNN(params, 1, 2)
    net.hidden.beta.fill_(0.5)
    net.adapt_decay.fill_(0.5)
    net.input.weight.data.fill_(2)
    for dense in (False, True):
        assert eprop.run(net, np.ones((1, 5, 1), np.uint8), dense=dense).spikes()[0, :, 0].tolist() == [1, 0, 1, 0, 1]
    distances = net.simulate(torch.ones(1, 5, 1))[2][0, :, 0]
    assert distances.tolist() == pytest.approx([1, -0.5, 1.25, -0.875, 1.0625])


def test_state_dict_is_snntorchs():
    net = RSNN(EpropParams(neurons=5), 2, 3)
    stock = snn.RLeaky(beta=torch.ones(5), threshold=torch.ones(5), linear_features=5)
    stock.load_state_dict(net.hidden.state_dict())  # strict: all keys, no other
    assert torch.equal(stock.recurrent.weight, net.hidden.recurrent.weight)


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = RSNN(EpropParams(), 3, 2, seed=7)
    torch.manual_seed(2)
    second, other = RSNN(EpropParams(), 3, 2, seed=7), RSNN(EpropParams(), 3, 2, seed=8)
    assert torch.equal(first.hidden.recurrent.weight, second.hidden.recurrent.weight)
    assert not torch.equal(first.input.weight, other.input.weight)
    assert first.hidden.recurrent.weight.diagonal().abs().max() == 0


@pytest.mark.parametrize("feedback", ["symmetric", "adaptive"])
def test_a_saved_net_is_rebuilt(tmp_path, feedback):
    net = RSNN(EpropParams(neurons=9, bias=True, feedback=feedback), 4, 3, step_ms=5.0, seed=3)
    torch.save(net.saved(), tmp_path / "model.pt")
    copy = rebuild(torch.load(tmp_path / "model.pt", weights_only=True))
    x = (np.random.default_rng(0).random((2, 40, 4)) < 0.5).astype(np.uint8)
    assert torch.equal(eprop.run(copy, x).outputs, eprop.run(net, x).outputs)
    assert copy.params == net.params
