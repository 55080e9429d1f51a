"""Adaptive, conductance-based and recurrent neurons by hand, and compiled as stepped."""

import numpy as np
import pytest

from simulator.more_neurons import AdaptiveLIF, ConductanceLayer, ConductanceLIF, RecurrentLayer
from simulator.neurons import LIF, Layer
from simulator.plasticity import MSE, STDP
from simulator.programmed import Programmed, TextRule
from simulator.run import Trains, run
from simulator.streamnet import StreamNet
from simulator.synapses import Plastic, Static

HALF = 1 / np.log(2)  # the time constant [steps] with exp(-1 / tau) = 1/2


def test_adaptation_by_hand():
    # a = rho = 1/2, beta = 1, I = 3: v = 1.5 and b = 0: spike; then b = 1/2, v = 1.5 = 1 + 1/2: spike; b = 3/4: none,
    # v goes on to .75 + 1.5 = 2.25 with b = 3/8: spike.
    neuron = AdaptiveLIF(1, HALF, beta=1.0, tau_adapt=HALF)
    found = [(neuron.step(np.array([3.0]))[0], neuron.v[0], neuron.adaptation[0]) for _ in range(4)]
    assert found == [pytest.approx(row) for row in [(1, 1.5, 0), (1, 1.5, 0.5), (0, 1.5, 0.75), (1, 2.25, 0.375)]]


def test_without_beta_it_is_lif():
    neuron, other = AdaptiveLIF(5, 3.0, beta=0.0), LIF(5, 3.0)
    for current in np.random.default_rng(0).random((30, 5)) * 5:
        np.testing.assert_array_equal(neuron.step(current), other.step(current))


def test_conductances_by_hand():
    # g_e = 1, g_i = 0, e_exc = 4: u = 2, total 2: v = 2 - 2 exp(-2 / tau). With exp(-1 / tau) = 1/2: v = 1.5, spike.
    neuron = ConductanceLIF(1, HALF, e_exc=4.0, e_inh=-1.0)
    assert neuron.step_with(np.ones(1), np.zeros(1)) == 1 and neuron.v == pytest.approx(1.5)
    # then from 0, g_e = g_i = 1: u = 1, total 3: v = 1 - 1/8: none.
    assert neuron.step_with(np.ones(1), np.ones(1)) == 0 and neuron.v == pytest.approx(7 / 8)
    # inhibition alone: u = -1/2, total 2: v = -1/2 + (7/8 + 1/2) / 4.
    neuron.step_with(np.zeros(1), np.ones(1))
    assert neuron.v == pytest.approx(-0.5 + 1.375 / 4)


def test_potentials_stay_between_the_reversal_potentials():
    neuron = ConductanceLIF(50, 2.0, threshold=4.0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        neuron.step_with(*rng.exponential(50, (2, 50)))
        assert (neuron.v <= neuron.e_exc).all() and (neuron.v >= neuron.e_inh).all()


def test_recurrent_input_comes_a_step_late():
    # Neuron 0 spikes at the input, neuron 1 a step later through the recurrent weight.
    net = StreamNet({"x": 1})
    recurrent = Static(np.array([[0.0, 0.0], [5.0, 0.0]]))
    net.add("o", RecurrentLayer(LIF(2, HALF), [Static(np.array([[5.0], [0.0]]))], recurrent), "x")
    net.expose("o")
    assert [net.step([x])[0].tolist() for x in (1, 0, 0)] == [[1, 0], [0, 1], [0, 0]]


def random_net(seed):
    rng = np.random.default_rng(seed)
    net = StreamNet({"x": 5, "m": 4})
    exc, inh = rng.uniform(0, 0.6, (6, 5)), rng.uniform(0, 0.4, (6, 4))
    plastic = Plastic(rng.uniform(0, 0.9, (6, 5)), STDP(0.05, 0.03), sign="excitatory")
    synapses = [Static(exc, "excitatory", 1.5), Static(inh, "inhibitory", delay=1), plastic]
    net.add("g", ConductanceLayer(ConductanceLIF(6, 3.0, refractory=bool(seed % 2)), synapses), "x", "m", "x")
    adaptive = AdaptiveLIF(4, 2.0, 0.2, bool(seed % 2), beta=0.7, tau_adapt=5.0)
    learns = Plastic(rng.uniform(-0.3, 0.3, (4, 4)), MSE(0.03, 1.7))
    net.add("r", RecurrentLayer(adaptive, [Static(rng.uniform(-0.2, 0.9, (4, 6)))], learns), "g", "m")
    text = Programmed(rng.uniform(-0.2, 0.8, (3, 4)), TextRule("dw = 0.05*y0*x1 - 0.03*x0*y1*w"))
    net.add("o", Layer(AdaptiveLIF(3, 2.0, 0.2), [text]), "r")
    for name in ("g", "r", "o"):
        net.expose(name)
    return net


@pytest.mark.parametrize("seed", range(4))
def test_run_equals_step(seed):
    nets = [random_net(seed) for _ in range(2)]
    rng = np.random.default_rng(seed)
    shown = Trains(tuple((rng.random((6, 20, n)) < 0.5).astype(float) for n in (5, 4)), reset=bool(seed % 2))
    fast, slow = run(nets[0], shown), run(nets[1], shown, backend="step")
    assert fast.backend == "graph"
    for one, other in zip(fast.outputs, slow.outputs, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.any()
    assert (fast.spikes, fast.operations) == (slow.spikes, slow.operations)
    for name, array in nets[0].state().items():
        np.testing.assert_allclose(array, nets[1].state()[name], rtol=0, atol=1e-12, err_msg=name)


def test_mistakes_are_refused():
    hybrid = Static(np.ones((1, 1)))
    for make, message in (
        (lambda: AdaptiveLIF(1, 2.0, beta=-1), "beta of AdaptiveLIF must be at least 0"),
        (lambda: AdaptiveLIF(1, 2.0, tau_adapt=0), "tau_adapt of AdaptiveLIF must be above 0"),
        (lambda: ConductanceLIF(1, 2.0, e_exc=0.5), "e_exc must be above the threshold 1"),
        (lambda: ConductanceLIF(1, 2.0, e_inh=2), "e_inh must be below the threshold"),
        (lambda: ConductanceLayer(ConductanceLIF(1, 2.0), [hybrid]), "synapse 0 is hybrid"),
        (lambda: ConductanceLayer(LIF(1, 2.0), [hybrid]), "a ConductanceLayer has ConductanceLIF neurons"),
        (lambda: RecurrentLayer(LIF(2, 2.0), [], hybrid), "recurrent synapses take 1 inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
