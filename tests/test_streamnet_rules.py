"""Neurons and learning rules against numbers worked by hand and against the released reference."""

import numpy as np
import pytest

from simulator.neurons import LIF, Layer
from simulator.plasticity import FLUSH, MSE, STDP, Decay, ModulatedSTDP, ReleasedMSE
from simulator.run import Trains, run
from simulator.streamnet import StreamNet
from simulator.synapses import OneToOne, Plastic, Static

HALF = 1 / np.log(2)  # the time constant [steps] with exp(-1 / tau) = 1/2


def test_lif_by_hand():
    # a = 1/2, I = 3: v = 1.5, spike. Without refractory step v' = 0 + 1.5: it spikes on; with one: every second step.
    for refractory, v, s in ((False, [1.5] * 4, [1] * 4), (True, [1.5, 0, 1.5, 0], [1, 0, 1, 0])):
        neuron = LIF(1, tau=HALF, refractory=refractory)
        steps = [(neuron.step(np.array([3.0]))[0], neuron.v[0]) for _ in range(4)]
        assert steps == [(spike, pytest.approx(potential)) for spike, potential in zip(s, v, strict=True)]
    # I = 1.2: v = 0.6, 0.9, 1.05 (spike), then 0.6 without, 0 with a refractory step.
    for refractory, after in ((False, 0.6), (True, 0.0)):
        neuron = LIF(1, tau=HALF, refractory=refractory)
        potentials = [(neuron.step(np.array([1.2])), neuron.v[0])[1] for _ in range(4)]
        assert potentials == pytest.approx([0.6, 0.9, 1.05, after])


def test_lif_threshold_is_reached_at_equality():
    assert LIF(1, tau=HALF, threshold=0.5).step(np.array([1.0]))[0] == 1


def two_neurons(rule, weight=0.5):
    """One input and one neuron with a = 1/2, threshold 0.2, all traces halving: t' = (x + t) / 2."""
    return Layer(LIF(1, tau=HALF, threshold=0.2), [Plastic(np.array([[weight]]), rule)])


def weights_after(layer, inputs):
    course = []
    for values in inputs:
        layer.step(*(np.array([float(value)]) for value in values))
        course.append(layer.synapses[0].weights[0, 0])
    return course


def test_stdp_by_hand():
    # x = 1, 0, 0, 1: v = .25 spike (s = 1), t_e = 1/2, t_o = 1/2: dW = .1 * 1/2 - .04 * 1/2 = .03 -> .53
    # then nothing spikes: t_e = 1/4, t_o = 1/4 and t_e = 1/8, t_o = 1/8; dW = 0
    # then x = 1: v = .265 spike: t_e = 9/16, t_o = 9/16: dW = .06 * 9/16 = .03375
    course = weights_after(two_neurons(STDP(0.1, 0.04)), [[1], [0], [0], [1]])
    assert course == pytest.approx([0.53, 0.53, 0.53, 0.56375])


def test_modulated_stdp_by_hand():
    # The same spikes, m = 1, 0, 1, 1: t_m = 1/2, 1/4, 5/8, 13/16.
    # dW = 1/2 * .03, 0, 0, then 13/16 * .03375 (v = .2575, it spikes).
    course = weights_after(two_neurons(ModulatedSTDP(0.1, 0.04)), [[1, 1], [0, 0], [0, 1], [1, 1]])
    assert course == pytest.approx([0.515, 0.515, 0.515, 0.515 + 13 / 16 * 0.03375])


def test_mse_by_hand():
    # lr = .1, alpha = 2, m = 1, 0, 0: t_m = 1/2, 1/4, 1/8; t_e = 1/2, 1/4, 1/8; t_o = 1/2, 1/4, 1/8 (one spike)
    # dW = .1 (2 * 1/2 - 1/2) 1/2 = .025; .1 (1/2 - 1/4) 1/4 = .00625; .1 (1/4 - 1/8) 1/8 = .0015625
    course = weights_after(two_neurons(MSE(0.1, 2.0)), [[1, 1], [0, 0], [0, 0]])
    assert course == pytest.approx([0.525, 0.53125, 0.5328125])


def test_released_mse_by_hand():
    # dW = .1 (1 - 1/2) 1/2 = .025; .1 (0 - 1/4) 1/4 = -.00625; .1 (0 - 1/8) 1/8 = -.0015625
    course = weights_after(two_neurons(ReleasedMSE(0.1)), [[1, 1], [0, 0], [0, 0]])
    assert course == pytest.approx([0.525, 0.51875, 0.5171875])


def test_modulatory_low_pass_comes_before_its_trace():
    # m = 1, 0 low-passed to 1/2, 1/4; the trace of that is 1/4, 1/4. dW = .1 (1/4 - t_o) t_e, t_e = t_o = 1/2, 1/4.
    layer = Layer(LIF(1, HALF, 0.2), [Plastic(np.array([[0.5]]), MSE(0.1, 1.0), tau_mod=HALF)])
    assert weights_after(layer, [[1, 1], [0, 0]]) == pytest.approx([0.4875, 0.4875])


def test_presynaptic_trace_follows_the_unfiltered_input():
    layer = Layer(LIF(1, HALF, 0.2), [Plastic(np.array([[0.5]]), MSE(0.1), tau=3.0)])
    layer.step(np.ones(1), np.zeros(1))
    assert layer.synapses[0].trace_pre[0] == 0.5


@pytest.mark.parametrize("sign, m, bound", [("hybrid", 0, -1.0), ("excitatory", 0, 0.0), ("excitatory", 1, 1.0)])
def test_weights_stop_at_their_bounds(sign, m, bound):
    layer = Layer(LIF(1, HALF, 0.2), [Plastic(np.array([[0.5]]), MSE(50.0, 3.0), sign=sign)])
    trains = [[1, m]] * 4
    assert weights_after(layer, trains)[0 if m == 0 else -1] == bound


def test_excitatory_and_inhibitory_cancel():
    x, weights = np.ones(3), np.random.default_rng(0).random((2, 3))
    currents = [Static(weights, sign).current(x) for sign in ("hybrid", "excitatory", "inhibitory")]
    np.testing.assert_array_equal(currents[0], currents[1])
    np.testing.assert_array_equal(currents[1], -currents[2])


def test_traces_saturate_and_vanish():
    trace = np.zeros(1)
    for _ in range(50):
        trace = Decay(1.0, 1.0).next(trace, np.ones(1))
    assert trace[0] == 10
    assert Decay.of(0.3).next(np.array([0.5]), np.ones(1))[0] == pytest.approx(0.3 + 0.35)
    assert Decay(0.5, 0.5).next(np.array([1.5 * FLUSH]), np.zeros(1))[0] == 0


# Golden values, made once with spikelearn 0.1.2 (MSESynapse, STDPSynapse, SpikingLayer; no reset, learning on).


def trains(steps, n, a, b, c):
    return np.array([[float((a * t + b * i) % c == 0) for i in range(n)] for t in range(steps)])


def start_weights(p, e):
    return ((np.arange(p * e) * 7 % 11) / 11 * 0.2 + 0.05).reshape(p, e)


GOLDEN_MSE = {
    True: (
        "00 00 11 00 00 11 00 00 11 00 10 01",
        [
            [0.29434471276088936, 0.5, 0.4034356218517985],
            [0.39371562037984487, 0.24771191618762037, 0.10280652947075405],
        ],
    ),
    False: (
        "00 00 11 00 11 00 11 00 11 00 11 10",
        [
            [0.26342117928150055, 0.5, 0.3725120883724096],
            [0.3607340765140241, 0.22641046641125243, 0.06982498560493325],
        ],
    ),
}


def as_text(outputs):
    return " ".join("".join(str(int(s)) for s in row) for row in outputs)


@pytest.mark.parametrize("backend", ["step", "graph"])
@pytest.mark.parametrize("refractory", [True, False])
def test_released_mse_equals_the_reference(refractory, backend):
    spikes, weights = GOLDEN_MSE[refractory]
    traces = Decay(0.4, 0.6), Decay(0.3, 0.7), Decay(0.5, 0.5)
    plastic = Plastic(start_weights(2, 3) * 2, ReleasedMSE(0.05), *traces, bounds=(-0.5, 0.5), tau=1.5)
    net = StreamNet({"x": 3, "m": 2})
    net.add("o", Layer(LIF(2, 2.0, 0.2, refractory), [plastic]), "x", "m")
    net.expose("o")
    x, m = trains(12, 3, 1, 1, 2), np.tile([1.0, 0.0], (12, 1))
    (outputs,) = run(net, Trains((x[None], m[None])), backend=backend).outputs
    assert as_text(outputs[0]) == spikes
    np.testing.assert_allclose(plastic.weights, weights, rtol=0, atol=1e-15)


@pytest.mark.parametrize("backend", ["step", "graph"])
def test_stdp_in_a_loop_with_delayed_inhibition_equals_the_reference(backend):
    net = StreamNet({"x": 3})
    inhibition = Static(start_weights(3, 2), "inhibitory", tau=2.0, delay=1)
    net.add("a", Layer(LIF(3, 1.5, 0.1), [OneToOne(np.array([0.6, 0.5, 0.4])), inhibition]), "x")
    stdp = Plastic(start_weights(2, 3) * 2, STDP(0.03, 0.02), Decay(0.5, 0.5), Decay(0.6, 0.4), bounds=(-0.6, 0.6))
    net.add("b", Layer(LIF(2, 2.5, 0.1, refractory=True), [stdp]), "a")
    net.connect("b", "a", 1)
    net.expose("b")
    net.expose("a")
    x = np.minimum(trains(15, 3, 2, 3, 5) + trains(15, 3, 1, 1, 3), 1)
    outputs = np.concatenate(run(net, Trains((x[None],)), backend=backend).outputs, axis=2)[0]
    expected = "00100 01011 10011 01100 00001 00110 11110 00001 00010 11100 00101 11010 00101 11001 00010"
    assert as_text(outputs) == expected
    golden = [
        [0.125360167007395, 0.3699535417355045, 0.22615956613108712],
        [0.48375950325124667, 0.3383130070985882, 0.1938160252624139],
    ]
    np.testing.assert_allclose(stdp.weights, golden, rtol=0, atol=1e-15)
