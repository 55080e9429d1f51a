"""The objective: it learns, says what went wrong, repeats itself, imports nothing slow; parameters, search spaces."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loaders import Data
from search_spaces import default_parameters, load_space, make_params
from setup_hpo import Splits, load_splits
from simulator import objective
from simulator.networks import build
from simulator.objective import VALIDATION_SEED, accuracy, flat_images, rebuild, train_streamnet
from simulator.params import StreamnetParams
from simulator.run import Images, Record, run

DIGITS = StreamnetParams(
    steps=16, tau_out=6.8, tau_input=3.4, tau_mod=0.52, trace_pre=0.33, trace_post=0.8, trace_mod=0.31, alpha=0.38,
    lr=0.034, w_limit=1.6,
)  # fmt: skip
MUSHROOM = replace(
    DIGITS, network="mushroom_body", kenyon_cells=500, probability=0.15, w_input_glom=4.0, w_glom_kenyon=0.5,
    tau_glom=1.0, w_glom_inh=0.0, w_limit=0.5, tau_kenyon=1.75, tau_lat=2.0, w_input_lat=0.133, w_lat_glom=0.171,
    w_inh_kenyon=0.76,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return load_splits("digits")


def train(params, splits, seed=0):
    reports = []
    metrics, status, model, _ = train_streamnet(params, splits, reports.append, "cpu", seed)
    assert reports == [{"default": metrics["default"]}]
    return metrics, status, model


@pytest.mark.parametrize("params, least", [(DIGITS, 0.85), (MUSHROOM, 0.5)])
def test_it_learns_digits(digits, params, least):
    metrics, status, model = train(params, digits)
    assert status == "ok" and metrics["samples"] == 1118 and metrics["epochs"] == 1
    assert metrics["default"] > least and metrics["test_accuracy"] > least and metrics["train_accuracy"] > least
    assert metrics["parameters"] == model["o/synapse0/weights"].size == 10 * (64 if params is DIGITS else 500)
    assert all(np.isfinite(value) for value in metrics.values())


def test_same_seed_same_result_and_a_rebuilt_model_agrees(digits):
    (first, _, model), (second, _, again), (other, _, _) = (train(MUSHROOM, digits, seed) for seed in (0, 0, 1))
    seconds = first.pop("seconds"), second.pop("seconds"), other.pop("seconds")
    assert first == second and first != other and min(seconds) > 0
    for name, array in model.items():
        np.testing.assert_array_equal(array, again[name])
    images = flat_images(digits.validation)
    rebuilt = accuracy(rebuild(MUSHROOM, model), MUSHROOM, images, digits.validation.y, VALIDATION_SEED)[0]
    assert rebuilt == first["default"]


def test_a_model_is_rebuilt_with_its_own_connections_only(digits):
    model = train(replace(MUSHROOM, samples=20), digits)[2]
    with pytest.raises(ValueError, match="another net, with other fixed weights or connections"):
        rebuild(replace(MUSHROOM, probability=0.16), model)


def test_operations_are_counted_as_defined(digits):
    # The shallow net: every input spike meets ten plastic synapses; nothing else spikes but the output.
    metrics, _, model = train(DIGITS, digits)
    net = rebuild(DIGITS, model)
    shown = Images(flat_images(digits.validation), None, DIGITS.steps, VALIDATION_SEED)
    record = run(net, shown, learn=False, backend="step")
    from simulator.encoders import encode_images

    inputs = encode_images(shown.images, DIGITS.steps, VALIDATION_SEED).sum()
    assert metrics["synaptic_operations"] == pytest.approx(10 * inputs / 320)
    assert metrics["spikes_per_inference"] == pytest.approx(record.spikes / 320, rel=0.01)
    assert metrics["effective_acs"] == metrics["synaptic_operations"] and metrics["effective_macs"] == 0
    assert metrics["dense_operations"] == 16 * 64 * 10  # steps, pixels, classes
    assert metrics["activation_sparsity"] == pytest.approx(1 - metrics["spikes_per_inference"] / (16 * 10))


def test_costs_of_a_mushroom_body_by_hand():
    net = build(MUSHROOM, 64, 10, seed=0)
    record = Record(np.zeros((4, 10)), spikes=160, operations=400, backend="", reason="")
    found = objective.costs(net, MUSHROOM, record, updates=7)
    assert found["spikes_per_inference"] == 40 and found["synaptic_operations"] == 100
    assert found["membrane_updates"] == 7 and found["neuron_operations"] == 4 * 7
    silent = found["neuron_steps"] - 7
    assert silent == 16 * (64 + 1 + 1 + 500 + 10) - 7
    assert found["energy_nj"] == pytest.approx((100 * 23.6 + 7 * 81 + silent * 52) / 1000)
    # from the input to 64 glomeruli one to one, and the lateral neuron; inhibition; glomeruli to 500 Kenyon cells; ...
    sizes = 64 + 64 + 64 + 64 + 64 * 500 + 500 + 500 * 10
    assert found["dense_operations"] == 16 * sizes
    assert found["activation_sparsity"] == pytest.approx(1 - 40 / (16 * (64 + 1 + 1 + 500 + 10)))
    absent = 64 * 500 - net.elements["kc"].synapses[0].mask.sum() + 64  # and w_glom_inh is 0
    absent += (net.elements["o"].synapses[0].weights == 0).sum()
    assert found["connection_sparsity"] == pytest.approx(absent / sizes)


def test_membrane_updates_by_hand(digits):
    """White pixels spike in each step; the weights of 0 drive nothing, one of 1 drives one output neuron each step."""
    params = replace(DIGITS, steps=5, scale=9.0)
    net = build(params, 64, 10, seed=0)
    white = np.full((2, 64), 255, np.uint8)
    net.elements["o"].synapses[0].weights[...] = 0
    assert objective.membrane_updates(net, params, white) == 10  # the first step
    net.elements["o"].synapses[0].weights[3, 7] = 0.1  # below the threshold: its potential rises in each step
    before = {name: array.copy() for name, array in net.state().items()}
    assert objective.membrane_updates(net, params, white) == 10 + 4
    assert not net.monitors and all((net.state()[name] == array).all() for name, array in before.items())
    mushroom = build(MUSHROOM, 64, 10, seed=0)
    dark = objective.membrane_updates(mushroom, MUSHROOM, np.zeros((1, 64), np.uint8))
    assert dark == 64 + 1 + 1 + 500 + 10  # nothing moves but for the first step
    assert train(DIGITS, digits)[0]["membrane_updates"] <= 16 * 10


@pytest.mark.parametrize("task, most", [("streamnet_mnist", 4), ("streamnet_mnist_mushroom", 6)])
def test_output_neurons_spike_as_often_as_in_the_paper(task, most):
    """Section IV: 8 steps a sample reduce "the number of output spikes to 4 in the case of the shallow network, and 6"
    in the mushroom body. Here everything drives the output as hard as it can, and inhibition is off."""
    space = load_space(task)
    params = replace(make_params(StreamnetParams, default_parameters(space, StreamnetParams)), kenyon_cells=50)
    params = replace(params, tau_out=1.0, tau_kenyon=1.0, w_lat_glom=0.0, w_inh_kenyon=0.0, w_glom_kenyon=9.0)
    net = build(params, 784, 10, seed=0)
    net.elements["o"].synapses[0].weights[...] = 100.0
    shown = Images(np.full((3, 784), 255, np.uint8), None, params.steps)
    assert run(net, shown, learn=False).counts.tolist() == [[most] * 10] * 3


@pytest.mark.parametrize(
    "changes, status",
    [
        ({"w_glom_kenyon": 0.0}, "silent"),
        ({"w_glom_kenyon": 9.0}, "saturated"),
        ({"network": "shallow", "lr": 0.0}, "silent"),
    ],
)
def test_hopeless_nets_are_finished_trials(digits, changes, status):
    metrics, found, _ = train(replace(MUSHROOM, **changes), digits)
    assert found == status and 0 <= metrics["default"] <= 1
    assert metrics["samples"] == (1118 if changes.get("lr") == 0 else 20)


def test_flooded_output_is_saturated_and_the_probe_leaves_no_trace(digits):
    from simulator.networks import build

    params = replace(DIGITS, w_limit=90.0, lr=0.0, tau_input=0.0)
    net = build(params, 64, 10)
    net.elements["o"].synapses[0].weights[...] = 90.0
    net.elements["o"].counters[:] = -1000000  # what was counted before says nothing
    before = {name: array.copy() for name, array in net.state().items()}
    assert objective.probe(net, params, flat_images(digits.train)[:20], digits.train.y[:20], 0) == "saturated"
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("network", ["shallow", "mushroom_body"])
def test_unsupervised_learning_brings_projections_nearer(digits, network):
    base = replace(MUSHROOM, network=network, task="unsupervised", rule="stdp", init=1.0, w_limit=0.5, a_minus=0.002)
    still, learning = (train(replace(base, a_plus=a, a_minus=m), digits)[0] for a, m in ((0.0, 0.0), (0.01, 0.004)))
    assert learning["default"] > still["default"] + 0.1
    assert learning["default"] <= 1


def test_similarity_by_hand(monkeypatch):
    # W^T r = (3, 4) for r = (1, 1) and W = [[3, 0], [0, 4]]: unit vector (.6, .8). x = (0, 255): distance to (0, 1) is
    # sqrt(.36 + .04) = .6325. A sample without output spikes has distance 1.
    from simulator.networks import build

    net = build(replace(DIGITS, w_limit=5.0), 2, 2)
    net.elements["o"].synapses[0].weights[...] = [[3, 0], [0, 4]]
    record = run(net, Images(np.zeros((2, 2), np.uint8), None))
    shown = record._replace(counts=np.array([[1, 1], [0, 0]]))
    monkeypatch.setattr(objective, "run", lambda *args, **options: shown)
    images = np.array([[0, 255], [0, 255]], dtype=np.uint8)
    assert objective.similarity(net, DIGITS, images, None, 0)[0] == pytest.approx(1 - (np.sqrt(0.4) + 1) / 2)


def test_interrupt_evaluates_as_it_stands(digits, monkeypatch):
    original, calls = objective.run, []

    def interrupted(net, shown, learn, *args, **options):
        calls.append(learn)
        if len(calls) == 3:  # after the probe and the first part
            raise KeyboardInterrupt
        return original(net, shown, learn, *args, **options)

    monkeypatch.setattr(objective, "run", interrupted)
    metrics, status, _ = train(DIGITS, digits)
    assert status == "interrupted" and metrics["samples"] == 1000 and metrics["default"] > 0.7


def test_learning_in_parts_is_learning_at_once(digits, monkeypatch):
    whole = train(DIGITS, digits)[2]
    monkeypatch.setattr(objective, "CHUNK", 300)
    np.testing.assert_array_equal(train(DIGITS, digits)[2]["o/synapse0/weights"], whole["o/synapse0/weights"])


def test_events_are_refused():
    events = Data(np.zeros((4, 5, 3), np.uint8), np.zeros(4, np.int64), ("a", "b"), step_ms=1.0)
    with pytest.raises(ValueError, match=r"streamnet takes uint8 images \(B, H, W\), not uint8 of shape \(4, 5, 3\)"):
        train(DIGITS, Splits(events, events, events))


@pytest.mark.parametrize(
    "field, value, rule",
    [
        ("network", "deep", "one of shallow, mushroom_body"),
        ("steps", 0, "an integer at least 1"),
        ("steps", 8.0, "an integer at least 1"),
        ("reset", 1, "true or false"),
        ("lr", -0.1, "a number at least 0"),
        ("tau_out", 0, "a number above 0"),
        ("alpha", float("nan"), "a number at least 0"),
        ("alpha", "1", "a number at least 0"),
        ("trace_pre", 1.5, "a number above 0 and at most 1"),
        ("probability", 1.5, "a number above 0 and at most 1"),
        ("samples", -1, "an integer at least 0"),
    ],
)
def test_wrong_parameters_are_named(field, value, rule):
    with pytest.raises(ValueError, match=f"{field} must be {rule}, not {value!r}"):
        StreamnetParams(**{field: value})


def test_rule_and_task_must_agree():
    with pytest.raises(ValueError, match="rule must be stdp where task is unsupervised, not 'mse'"):
        StreamnetParams(task="unsupervised")
    with pytest.raises(ValueError, match="rule must be a modulated one where task is supervised, not 'stdp'"):
        StreamnetParams(rule="stdp")


def test_nothing_slow_is_imported():
    code = (
        "import sys; from setup_hpo import load_splits; from simulator.objective import *\n"
        "splits = load_splits('digits')\n"
        "train_streamnet(StreamnetParams(samples=30), splits, print, 'cpu', 0)\n"
        "slow = {'torch', 'tonic', 'sklearn', 'pandas', 'nni'} & set(sys.modules)\n"
        "sys.exit(f'imported: {slow}' if slow else 0)"
    )
    root = Path(__file__).parent.parent
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
