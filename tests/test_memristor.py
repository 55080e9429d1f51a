"""VTEAM devices against the literature's numbers, and synapses made of them; run() against step()."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.description import from_json, to_json
from simulator.memristor import DEVICES, WINDOWS, Memristive, Pulses, Vteam
from simulator.neurons import LIF, Layer
from simulator.plasticity import Decay
from simulator.programmed import TextRule
from simulator.rule_presets import preset
from simulator.run import Trains, run
from simulator.streamnet import StreamNet

MAGIC = DEVICES["magic"]
Z = np.linspace(0, 1, 21)


@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_the_dead_band_is_exact(device):
    for volts in (device.v_on, 0.999 * device.v_on, 0.0, 0.5 * device.v_off, device.v_off):
        assert device.rate(volts) == 0
        np.testing.assert_array_equal(device.pulse(Z, volts, 1e3), Z)
    beyond = np.nextafter(device.v_off, 1), np.nextafter(device.v_on, -1)
    assert device.rate(beyond[0]) >= 0 >= device.rate(beyond[1])


@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_signs_and_bounds(device):
    up, down = 1.5 * device.v_off, 1.5 * device.v_on
    assert device.rate(up) > 0 > device.rate(down)
    swing = 1 / device.rate(up)
    assert (device.pulse(Z[:-1], up, 0.1 * swing) > Z[:-1]).all()
    assert (device.pulse(Z[1:], down, -0.1 / device.rate(down)) < Z[1:]).all()
    assert (device.pulse(Z, up, 99 * swing) == 1).all() and (device.pulse(Z, down, -99 / device.rate(down)) == 0).all()


@pytest.mark.parametrize("resistance", ["linear", "exponential"])
def test_resistance_at_both_ends_and_back(resistance):
    device = replace(MAGIC, resistance=resistance)
    assert device.ohms(np.array([0.0, 1.0])) == pytest.approx([1e3, 300e3])
    np.testing.assert_allclose(device.state_of(device.ohms(Z)), Z, atol=1e-12)


TIMES = [  # (device, volts, seconds of a full swing)
    *(("technion", volts, time) for volts, time in ((0.5, 250e-9), (1, 122e-9), (2, 61e-9))),
    *(("technion", volts, time) for volts, time in ((-0.5, 89e-12), (-1, 4.7e-12), (-2, 0.41e-12))),
    *(("magic", volts, time) for volts, time in ((0.5, 167e-9), (1, 1.11e-9), (2, 32e-12), (-2, 1.12e-9))),
    ("magic", -3, 13.9e-12),
]


@pytest.mark.parametrize("name, volts, seconds", TIMES)
def test_full_swing_times(name, volts, seconds):
    assert 1 / abs(DEVICES[name].rate(volts)) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize("volts", [1.0, -2.0])
def test_pulses_add_up_without_window(volts):
    z = np.full(3, 0.5)
    for _ in range(8):
        z = MAGIC.pulse(z, volts, 2e-11)
    np.testing.assert_allclose(z, MAGIC.pulse(np.full(3, 0.5), volts, 8 * 2e-11), atol=1e-14)
    assert abs(z[0] - 0.5) > 0.1


def test_biolek_integration_is_fine():
    # dz/dt = r (1 - z^4) from 0, r t = 0.36: against 100,000 Euler steps.
    device, swing = replace(MAGIC, window="biolek"), MAGIC.rate(1.0) * 4e-10
    z = 0.0
    for _ in range(100_000):
        z += swing / 100_000 * (1 - z**4)
    assert device.pulse(np.zeros(1), 1.0, 4e-10)[0] == pytest.approx(z, rel=1e-5)


def test_windows_that_stick_are_refused_or_warned_of():
    for window in ("joglekar", "prodromakis"):
        with pytest.raises(ValueError, match=rf"the window {window} sticks: a device at z = 0 stays there for ever"):
            replace(MAGIC, window=window)
        with pytest.warns(UserWarning, match="sticks"):
            device = replace(MAGIC, window=window, may_stick=True)
        assert device.pulse(np.zeros(1), 1.0, 1e-8) == 0
    with pytest.raises(ValueError, match=r"kvatinsky sticks: a device at z = 0\.4"):
        replace(MAGIC, window="kvatinsky")
    for device in (
        MAGIC,
        replace(MAGIC, window="biolek"),
        replace(MAGIC, window="kvatinsky", close_off=0.8, close_on=0.2),
    ):
        risen = device.pulse(np.zeros(1), 1.0, 1e-8)
        assert risen > 0.7 and device.pulse(risen, -2.0, 1e-8) < risen - 0.4


def test_windows_by_hand():
    with pytest.warns(UserWarning):
        found = [
            replace(MAGIC, window=name, may_stick=True).window_at(0.25, True) for name in WINDOWS if name != "biolek"
        ]
    assert found[:1] == [1.0]
    assert found[2:] == pytest.approx([1 - 0.5**4, 1 - (0.25**2 + 0.75) ** 2])
    biolek = replace(MAGIC, window="biolek")
    assert biolek.window_at(0.25, True) == pytest.approx(1 - 0.75**4)
    assert biolek.window_at(0.25, False) == pytest.approx(1 - 0.25**4)


E, P = 6, 3


def net_with(text="dw = 0.1*y0*x1 - 0.1*x0*y1", device=MAGIC, **pulses):
    weights = np.random.default_rng(0).uniform(-0.5, 0.5, (P, E))
    rule = TextRule(text, y2=Decay(1.0, 0.8), x2=Decay(1.0, 0.8))
    synapse = Memristive(weights, rule, Decay(1, 0.7), device=device, pulses=Pulses(**pulses), tau=1.1)
    np.testing.assert_allclose(synapse.weights, weights, atol=1e-12)
    net = StreamNet({"x": E, "m": P})
    net.add("o", Layer(LIF(P, 2.0, 0.15), [synapse]), "x", *(["m"] if rule.modulated else []))
    net.expose("o")
    return net, synapse


def trains(seed=1, samples=6, steps=10):
    rng = np.random.default_rng(seed)
    return Trains(tuple((rng.random((samples, steps, size)) < 0.4).astype(float) for size in (E, P)))


def test_one_pulse_per_change_with_the_sign_of_the_rule():
    net, synapse = net_with("dw = 0.1*x0*y0 - 0.1*x0")
    before, x = synapse.z.copy(), np.array([1, 1, 0, 0, 1, 0.0])
    net.step(x, np.zeros(P))
    expected = before + MAGIC.rate(1.0) * 2e-11 * x * (1 - net.outputs[0][:, None])
    np.testing.assert_allclose(synapse.z, np.clip(expected, 0, 1), atol=1e-14)


@pytest.mark.parametrize("backend", ["step", "graph"])
@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
@pytest.mark.parametrize("limit", [0.24, 0.7, 1.0])
def test_weights_stay_within_their_bounds(backend, device, limit):
    volts = {"up_volts": 2 * device.v_on, "down_volts": 3 * device.v_off}
    for text, end in (("dw = u0", limit), ("dw = (-1)*u0", -limit)):
        rule, pulses = TextRule(text), Pulses(up_seconds=1, down_seconds=1, **volts)
        synapse = Memristive(np.zeros((2, 1)), rule, bounds=(-limit, limit), device=device, pulses=pulses)
        net = StreamNet({"x": 1})
        net.add("o", Layer(LIF(2, 2.0), [synapse]), "x")
        net.expose("o")
        run(net, Trains((np.ones((1, 1, 1)),)), backend=backend)
        np.testing.assert_allclose(synapse.weights, end, rtol=1e-12)
        assert abs(synapse.weights).max() <= limit
        assert from_json(to_json(net)).elements["o"].synapses[0].z == pytest.approx(synapse.z)


def test_changes_below_the_least_bring_no_pulse():
    net, synapse = net_with("dw = 0.1*x0", least=0.11)
    before = synapse.z.copy()
    net.step(np.ones(E), np.zeros(P))
    np.testing.assert_array_equal(synapse.z, before)


def test_reading_within_the_dead_band_disturbs_nothing_and_beyond_it_does():
    for volts, same in ((0.29, True), (0.3, True), (0.4, False), (-1.6, False)):
        for backend in ("step", "graph"):
            net, synapse = net_with(read_volts=volts, read_seconds=1e-8)
            before = synapse.weights.copy()
            run(net, trains(), False, backend=backend)
            assert np.array_equal(synapse.weights, before) == same
            assert same or (np.sign(synapse.weights - before) == -np.sign(volts)).any()


@pytest.mark.parametrize("text", ["stdp", "mse", "r_stdp", "triplet", "soft_bounds", "weight_decay"])
@pytest.mark.parametrize("window", ["clip", "biolek"])
def test_run_equals_step(text, window):
    device = replace(MAGIC, window=window, resistance="exponential" if text == "mse" else "linear")
    pairs = [net_with(preset(text), device, read_volts=0.35, read_seconds=1e-10) for _ in range(2)]
    for seed, learn in ((1, True), (2, True), (3, False)):
        fast = run(pairs[0][0], trains(seed), learn)
        slow = run(pairs[1][0], trains(seed), learn, backend="step")
        assert fast.backend == "graph"
        np.testing.assert_array_equal(fast.outputs[0], slow.outputs[0])
        for name, array in pairs[0][0].state().items():
            np.testing.assert_allclose(array, pairs[1][0].state()[name], rtol=0, atol=1e-11, err_msg=name)


def test_mistakes_are_refused():
    for make, message in (
        (lambda: replace(MAGIC, v_on=0.8), "v_on of a VTEAM device must be below 0"),
        (lambda: replace(MAGIC, k_off=-1), "k_off of a VTEAM device must be above 0"),
        (lambda: replace(MAGIC, r_on=1e6), "r_on must be below r_off"),
        (lambda: replace(MAGIC, window="round"), "window must be one of clip"),
        (lambda: replace(MAGIC, p=0), "p must be a whole number"),
        (lambda: Vteam(-1, 1, 1, 1, -1, float("nan"), 1, 2), "v_off must be a finite number"),
        (lambda: Pulses(up_seconds=-1), "up_seconds must be at least 0"),
        (lambda: Memristive(np.eye(1), TextRule("dw = y0"), device="magic"), "device must be a Vteam, not 'magic'"),
        (lambda: net_with(up_volts=-1.0), "pulses of -1 V up and 1 V down must lie below v_on = -1.5 V"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
