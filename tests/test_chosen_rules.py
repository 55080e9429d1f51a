"""The objective with rules given as text and memristors: chosen by params, learning, rebuilt."""

from dataclasses import replace

import numpy as np
import pytest

from search_spaces import check_space, load_space
from setup_hpo import load_splits
from simulator.networks import build
from simulator.objective import rebuild, train_streamnet
from simulator.params import TEXT_RULES, StreamnetParams
from simulator.plasticity import MSE
from simulator.rule_presets import preset

DIGITS = StreamnetParams(
    steps=16, tau_out=6.8, tau_input=3.4, tau_mod=0.52, trace_pre=0.33, trace_post=0.8, trace_mod=0.31, alpha=0.38,
    lr=0.034, w_limit=1.6, precision="float64",
)  # fmt: skip
AS_TEXT = replace(DIGITS, rule="text", text=preset("mse", lr=DIGITS.lr, alpha=DIGITS.alpha))


@pytest.fixture(scope="module")
def digits():
    return load_splits("digits")


def train(params, splits):
    metrics, status, model, _ = train_streamnet(params, splits, lambda _: None, "cpu", 0)
    return metrics, status, model


def test_mse_as_text_learns_what_mse_does(digits):
    (metrics, status, model), (other, _, built_in) = train(AS_TEXT, digits), train(DIGITS, digits)
    assert status == "ok" and metrics["default"] == other["default"] > 0.85
    np.testing.assert_allclose(model["o/synapse0/weights"], built_in["o/synapse0/weights"], atol=1e-9)
    assert metrics["synaptic_operations"] == other["synaptic_operations"]


@pytest.mark.parametrize("rule", sorted(set(TEXT_RULES) - {"text"}))
def test_every_rule_runs_compiled_and_is_rebuilt(digits, rule):
    params = replace(DIGITS, rule=rule, samples=60, precision="float32")
    metrics, _, model = train(params, digits)
    assert 0 <= metrics["default"] <= 1
    net = rebuild(params, model)
    np.testing.assert_array_equal(net.state()["o/synapse0/weights"], model["o/synapse0/weights"])


def test_a_text_in_the_mushroom_body(digits):
    params = replace(
        AS_TEXT, network="mushroom_body", kenyon_cells=200, probability=0.15, w_input_glom=4.0, w_glom_kenyon=0.5,
        w_glom_inh=0.0, w_limit=0.5, tau_kenyon=1.75, tau_lat=2.0, w_input_lat=0.133, w_lat_glom=0.171, samples=300,
    )  # fmt: skip
    metrics, status, _ = train(params, digits)
    assert status == "ok" and metrics["default"] > 0.3


def test_built_in_rules_stay_built_in():
    assert type(build(DIGITS, 64, 10).elements["o"].synapses[0].rule) is MSE


def test_the_space_is_one():
    check_space(load_space("streamnet_digits_rules"), StreamnetParams)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rule": "text", "text": "dw = y0*"}, "text: character 9 of the rule, at the end"),
        ({"rule": "text", "text": ""}, "the rule is empty"),
        ({"rule": "text", "text": "dw = y0*x1"}, "text must have m0 or m1 as a factor"),
        ({"text": "dw = y0*m1"}, "text must be left out where rule is 'mse'"),
        ({"rule": "text", "text": 5}, "text: a rule is a text such as 'dw = .*', not 5"),
        ({"rule": "memristor", "up_volts": 1.0}, "up_volts must be a number at least -9 and at most 0"),
        ({"rule": "memristor", "up_volts": -1.5}, "up_volts must be below -1.5"),
        ({"rule": "memristor", "down_volts": 0.3}, "down_volts must be a number above 0.3 and at most 9"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(StreamnetParams(), **changes)


def test_the_weakest_pulses_that_pass_move_the_device():
    net = build(replace(DIGITS, rule="memristor", up_volts=-1.501, down_volts=0.301), 64, 10)
    up, down, _ = net.elements["o"].synapses[0].swings()
    assert up < 0 < down
