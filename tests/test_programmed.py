"""Synapses with rules given as text: against built-in rules and written-out recursions; run() against step()."""

from pathlib import Path

import numpy as np
import pytest

from simulator.awake_kernel import all_awake, awake_table
from simulator.encoders import encode_images
from simulator.neurons import LIF, Layer
from simulator.plasticity import MSE, STDP, Decay, ModulatedSTDP, ReleasedMSE
from simulator.poisson_kernel import encode_all
from simulator.programmed import Programmed, TextRule
from simulator.rule_presets import PRESETS, preset
from simulator.run import Images, Trains, run
from simulator.streamnet import StreamNet
from simulator.synapses import Plastic

E, P = 7, 4
TRACES = {"pre": Decay(1.0, 0.7), "post": Decay(0.6, 0.8), "mod": Decay(0.5, 0.6)}
MORE = {"x2": Decay(0.7, 0.9), "y2": Decay(1.0, 0.85), "y3": Decay(0.3, 0.3)}


def net_with(synapse):
    net = StreamNet({"x": E, "m": P})
    net.add("o", Layer(LIF(P, 2.0, 0.25), [synapse]), "x", *(["m"] if synapse.rule.modulated else []))
    net.expose("o")
    return net


def start(seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.9, (P, E))


def programmed(text, **options):
    return net_with(Programmed(start(), TextRule(text, **MORE), **TRACES, **options))


def trains(samples=5, steps=12, seed=1):
    rng = np.random.default_rng(seed)
    return tuple((rng.random((samples, steps, size)) < 0.4).astype(float) for size in (E, P))


def assert_same(net, other, equal=np.testing.assert_array_equal):
    first, second = net.state(), other.state()
    assert first.keys() == second.keys()
    for name, array in first.items():
        equal(array, second[name], err_msg=name)


BUILT_IN = {
    "stdp": (STDP(0.05, 0.03), {"a_plus": 0.05, "a_minus": 0.03}),
    "modulated_stdp": (ModulatedSTDP(0.05, 0.03), {"a_plus": 0.05, "a_minus": 0.03}),
    "mse": (MSE(0.03, 1.7), {"lr": 0.03, "alpha": 1.7}),
    "mse_released": (ReleasedMSE(0.03), {"lr": 0.03}),
}


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("tau_mod", [0.0, 1.5])
def test_text_equals_the_built_in_rule(name, tau_mod):
    rule, parameters = BUILT_IN[name]
    net = net_with(Plastic(start(), rule, **TRACES, tau=1.2, tau_mod=tau_mod))
    text = programmed(preset(name, **parameters), tau=1.2, tau_mod=tau_mod)
    for x, m in zip(*(train[0] for train in trains(1, 60)), strict=True):
        net.step(x, m)
        text.step(x, m)
        expected, found = (n.state()["o/synapse0/weights"] for n in (net, text))
        if "stdp" in name:
            np.testing.assert_array_equal(found, expected)  # to the bit
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)  # MSE brackets its sum
    assert not np.array_equal(found, start())


def test_weight_terms_equal_a_written_out_recursion():
    text = "dw = 0.3*y0*x1*(0.8 - w) - 0.2*x0*y1*(w + 0.4) - 2^-4*u1*w + 0.01*u1*sgn(w - 0.1)"
    net = programmed(text)
    w, x1, y1 = start(), np.zeros(E), np.zeros(P)
    for t, (x, m) in enumerate(zip(*(train[0] for train in trains(1, 40)), strict=True), 1):
        (y,) = net.step(x, m)
        x1, y1 = x + 0.7 * x1, 0.6 * y + 0.8 * y1
        new = w.copy()
        for i in range(P):
            for j in range(E):
                new[i, j] += 0.3 * y[i] * x1[j] * (0.8 - w[i, j]) - 0.2 * x[j] * y1[i] * (w[i, j] + 0.4)
                if t % 2 == 0:
                    new[i, j] += -w[i, j] / 16 + 0.01 * np.sign(w[i, j] - 0.1)
        w = np.clip(new, -1, 1)
        np.testing.assert_allclose(net.state()["o/synapse0/weights"], w, rtol=0, atol=1e-14)


def test_all_targets_read_the_values_from_before():
    net = programmed("dt = 0.1*u0; dw = 0.5*u0*t; dd = 2*u0*t - 2*u0*w", delays=3.0)
    w, t, d = start(), np.zeros((P, E)), np.full((P, E), 3.0)
    for _ in range(5):
        net.step(np.zeros(E), np.zeros(P))
        w, t, d = np.clip(w + 0.5 * t, -1, 1), t + 0.1, np.clip(d + 2 * (t - w), 0, 7)
        state = net.state()
        for name, expected in (("weights", w), ("tag", t), ("delays", d)):
            np.testing.assert_allclose(state[f"o/synapse0/{name}"], expected, atol=1e-14)


def test_a_tag_is_cleared_by_a_reset_and_stays_within_its_limit():
    net = programmed("dt = 0.4*u0", tag_limit=0.5)
    for expected in (0.4, 0.5, 0.5):
        net.step(np.zeros(E), np.zeros(P))
        assert (net.state()["o/synapse0/tag"] == expected).all()
    net.reset()
    assert not net.state()["o/synapse0/tag"].any()


@pytest.mark.parametrize("k, due", [(0, range(1, 10)), (1, (2, 4, 6, 8)), (2, (4, 8)), (3, (8,))])
def test_periods(k, due):
    net = programmed(f"dw = 0.001*u{k}")
    for t in range(1, 10):
        net.step(np.zeros(E), np.zeros(P))
        np.testing.assert_allclose(
            net.state()["o/synapse0/weights"], start() + 0.001 * sum(step <= t for step in due), atol=1e-14
        )
        if t == 5:
            net.reset()  # steps are counted on


def test_delays_let_each_input_through_late():
    rule = TextRule("dd = 0*u0*d")
    delays = np.array([[0.0, 1.4, 1.5, 3.0]])
    synapse = Programmed(np.array([[1.0, 0.1, 0.01, 0.001]]), rule, delays=delays, max_delay=3)
    spike = np.ones(4)
    found = [synapse.current(x)[0] for x in (spike, 0 * spike, 0 * spike, 0 * spike, 0 * spike)]
    assert found == pytest.approx([1.0, 0.1, 0.01, 0.001, 0.0])


def test_traces_contain_the_present_spike():
    net = StreamNet({"x": 1})
    net.add("o", Layer(LIF(1, 2.0, 0.1), [Programmed(np.array([[0.5]]), TextRule("dw = 2^-4*x0*x1"), Decay(1, 0.5))]))
    net.connect("x", "o")
    net.step(np.ones(1))
    assert net.state()["o/synapse0/weights"] == 0.5 + 1 / 16


def test_triplets_see_the_trace_before_the_spike():
    # One output spike alone: y2 was 0 just before it, so that the triplet term is 0.
    rule = TextRule(preset("triplet", a3_plus=0.1, a2_minus=0.0, y2_gain=1.0), y2=Decay(1.0, 0.9))
    synapse = Programmed(np.array([[0.5]]), rule, Decay(1, 0.5))
    synapse.update(np.ones(1), np.ones(1))
    assert synapse.weights == 0.5
    synapse.update(np.ones(1), np.ones(1))  # x1 = 1.5, y2 before it 0.9
    assert synapse.weights[0, 0] == pytest.approx(0.5 + 0.1 * 1.5 * 0.9)


def test_without_learning_only_traces_move():
    net = programmed("dw = 0.1*u0; dt = 0.1*u0; dd = 0.1*u0", delays=1.0)
    net.step(np.ones(E), np.ones(P), learn=False)
    state = {name.split("/")[-1]: array for name, array in net.state().items()}
    assert np.array_equal(state["weights"], start()) and (state["delays"] == 1).all() and not state["tag"].any()
    assert state["trace_pre"].all() and state["epochs"] == 1


TEXTS = {name: preset(name) for name in PRESETS} | {
    "three targets": "dt = 0.3*y0*x1 - 0.2*x0*y2 - 0.1*u0*t; dw = 0.2*u0*t*m1 - 0.001*u0*sgn(w - 0.3); dd = u0*t",
    "every name": "dw = 0.03*m0*x0*(x2 - 1)*y0 - 0.02*y0*x1*y3*(y2 - 0.5)*(w + 0.1)*(1 - t)*(d + 1);"
    "dt = 0.2*x0*(y0 - 0.4)",
    "periods": "dw = 0.03*u2 - 2^-5*u2*w*x1",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("reset", [True, False])
def test_run_equals_step(name, reset):
    options = {"tau": 1.3, "tau_mod": 0.8, "delay": 1, "max_delay": 3}
    nets = [programmed(TEXTS[name], **options) for _ in range(2)]
    for seed, learn in ((1, True), (2, True), (3, False)):
        fast = run(nets[0], Trains(trains(seed=seed), reset), learn)
        slow = run(nets[1], Trains(trains(seed=seed), reset), learn, backend="step")
        assert fast.backend == "graph" and slow.backend == "step"
        np.testing.assert_array_equal(fast.outputs[0], slow.outputs[0])
        np.testing.assert_array_equal(fast.counts, slow.counts)
        assert (fast.spikes, fast.operations) == (slow.spikes, slow.operations) and (fast.spikes > 0 or seed > 1)
        assert_same(*nets, lambda a, b, err_msg: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=err_msg))
    assert not np.array_equal(nets[0].state()["o/synapse0/weights"], start())


def test_run_with_images_and_a_saved_state(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (40, E), dtype=np.uint8)
    nets = [programmed(preset("r_stdp")) for _ in range(2)]
    run(nets[0], Images(images[:20], np.arange(20) % P))
    nets[0].save(tmp_path / "net.npz")
    nets[1].restore(tmp_path / "net.npz")
    for net in nets:
        run(net, Images(images[20:], np.arange(20) % P, first=20))
    assert_same(*nets)


def test_mistakes_are_refused_in_a_line():
    for make, message in (
        (lambda: TextRule("dw = y0*y2"), "names y2, which needs a trace"),
        (lambda: TextRule("dw = y1"), "needs a dependency"),
        (lambda: Programmed(start(), STDP()), "rule must be one of TextRule, not STDP"),
        (lambda: Programmed(start(), TextRule("dt = y0"), tag_limit=0), "tag_limit must be above 0"),
        (lambda: Programmed(start(), TextRule("dd = y0"), delays=9), "delays must be from 0 to max_delay = 7"),
        (lambda: Programmed(start(), TextRule("dd = y0"), delays=np.zeros(5)), "delays must have"),
        (lambda: Programmed(start(), TextRule("dw = y0"), delays=3), "delays are for rules that name d"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            make()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("scale, first", [(1.0, 0), (0.3, 7)])
def test_the_compiled_encoding_draws_the_same_spikes(scale, first):
    images = np.random.default_rng(0).integers(0, 256, (5, 37), dtype=np.uint8)
    found = encode_all(images, 6, 11, scale, first)
    np.testing.assert_array_equal(found, encode_images(images, 6, 11, scale, first))
    assert found.dtype == np.uint8


def test_only_inputs_that_have_spiked_are_visited_where_the_rule_allows_it():
    for text, everything in (
        ("dw = y0*x1 - x0*y1*w", False),
        ("dt = y0*x1 - u0*t; dw = u0*t*y1", False),
        ("dw = y0*(x1 - 1)", True),
        ("dw = u4*w", True),
        ("dt = u0*y1; dw = u0*t", True),
    ):
        synapse = Programmed(start(), TextRule(text))
        assert all_awake(synapse) == everything
        assert awake_table(synapse)[0] == (E if everything else 0)
