"""Costs of nets against counts by hand and against NeuroBench's own figures."""

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks import neurobench_costs
from models import metrics, training
from models.rsnn import RSNN, EpropParams


def test_operations_of_a_small_net_by_hand():
    """Two inputs, two neurons without self-connections, three outputs, three steps, two samples."""
    inputs = np.array([[[1, 0], [1, 1], [0, 0]], [[0, 0], [0, 0], [0, 1]]])  # 3 + 1 events
    spikes = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [0, 0], [0, 1]]])  # 3 + 1 spikes, 3 of them in the last step
    w_in = np.array([[0.5, 0.0], [0.5, -1.0]])  # input 0 reaches both neurons, input 1 only the second
    w_rec = np.array([[0.0, 2.0], [3.0, 0.0]])
    # inputs: 2 events of input 0 * 2 + 2 events of input 1 * 1 = 6; recurrent: 1 spike before the last step * 1;
    # readout: 4 spikes * 3 = 12
    found = metrics.recurrent_net_workload(inputs, spikes, w_in, w_rec, np.ones((3, 2))).metrics()
    assert found["synaptic_operations"] == found["effective_acs"] == (6 + 1 + 12) / 2 and found["effective_macs"] == 0
    assert found["dense_operations"] == 3 * (2 * 2 + 2 * 2 + 2 * 3)  # each step, absent weights too
    assert found["spikes_per_inference"] == 4 / 2 and found["activation_sparsity"] == 1 - 4 / 12
    assert metrics.connection_sparsity([w_in, w_rec]) == (1 + 2) / 8


def test_energy_is_the_sources():
    # Davies et al. 2018, table 2: 23.6 pJ a synaptic operation, 81 / 52 pJ an update of an active / inactive neuron
    assert metrics.energy_nj(1000) == pytest.approx(23.6)
    assert metrics.energy_nj(1000, updates=100, neuron_steps=300) == pytest.approx(23.6 + 8.1 + 10.4)
    # Sharp et al. 2012, abstract: "100 nJ per neuron per millisecond and 43 nJ per postsynaptic potential"
    assert metrics.energy_nj(1, platform="spinnaker") == pytest.approx(43)
    assert metrics.energy_nj(1, 0, 1, 2, "spinnaker") == pytest.approx(43 + 2 * 100)
    # Stromatias et al. 2013, abstract: 1.8e9 synaptic events a second on 48 chips of less than 1 W each
    assert 0.5 < 48 / 1.8e9 * 1e9 / metrics.energy_nj(1, platform="spinnaker") < 2
    assert metrics.energy_nj(2000, 100, 50, 60, "cmos_45nm") == pytest.approx(1.8 + 0.46)  # nothing known of neurons
    with pytest.raises(ValueError, match="platform must be one of loihi, .*, not 'abacus'"):
        metrics.energy_nj(1, platform="abacus")


def test_costs_of_a_net_by_hand():
    """Each step one input spike fires both neurons at once, which reset to zero without delay and ignore each other."""
    params = EpropParams(neurons=2, reset="zero", reset_delay=False, recurrent_gain=0)
    net = RSNN(params, n_inputs=1, n_classes=3, step_ms=5.0)
    net.input.weight.data.fill_(2)

    class Samples:
        x, y = np.ones((4, 10, 1), np.uint8), np.zeros(4, np.int64)

    assert training.costs(net, Samples) == {
        "spikes_per_inference": 20,
        "rate_hz": 200,  # once per 5 ms
        "synaptic_operations": 10 * 2 + 0 + 20 * 3,  # absent recurrent weights cost nothing
        "effective_acs": 80,
        "effective_macs": 0,
        "dense_operations": 10 * (2 + 4 + 6),
        "activation_sparsity": 0,  # all fire
        "connection_sparsity": pytest.approx(4 / 12),  # the recurrent weights are all 0
        # the hidden potentials are 0 after each step, the readout's change; the first step counts for all five
        "membrane_updates": 5 + 9 * 3,
        "neuron_steps": 50,
        "neuron_operations": 4 * 32,
        "energy_nj": pytest.approx((80 * 23.6 + 32 * 81 + 18 * 52) / 1000),
        "energy_nj_cmos_45nm": pytest.approx(80 * 0.9 / 1000),
        "footprint_bytes": 4 * 27 + 2 * 8,  # numbers of 32 bits, snnTorch's two marks of the reset have 64
        "silent_fraction": 0,
        "parameters": 2 + 2 + (6 + 3),  # the diagonal of the recurrent weights is not there
    }


# What NeuroBench 2.3.0 prints for the nets of `python -m benchmarks.neurobench_costs`
NEUROBENCH = {
    "recurrent": {
        "ParameterCount": 267,
        "Footprint": 1204,
        "ConnectionSparsity": 0.2698,
        "SynapticOperations": {"Effective_MACs": 0.0, "Effective_ACs": 1068.375, "Dense": 5040.0},
        "MembraneUpdates": 249.25,
        "NeuronOperations": {"Effective Neuron Ops": 997.0, "Neuron Dense Ops": 1200.0},
        "spikes": [632, 0],
        "ActivationSparsity": 0.7366666666666667,
    },
    "whetstone": {
        "ParameterCount": 675,
        "Footprint": 2884,
        "ConnectionSparsity": 0.2302,
        "SynapticOperations": {"Effective_MACs": 735.0, "Effective_ACs": 1913.375, "Dense": 4260.0},
        "MembraneUpdates": 0.0,
        "spikes": [756, 474, 120, 32, 56],
        "ActivationSparsity": 0.3927364864864865,
    },
}


@pytest.mark.parametrize("kind", NEUROBENCH)
def test_costs_are_neurobenchs(kind):
    found, golden = neurobench_costs.ours()[kind], NEUROBENCH[kind]
    if find_spec("neurobench"):
        assert neurobench_costs.theirs()[kind] == golden
    names = {"Effective_MACs": "effective_macs", "Effective_ACs": "effective_acs", "Dense": "dense_operations"}
    for theirs, ours in names.items():
        assert found[ours] == golden["SynapticOperations"][theirs]
    assert found["connection_sparsity"] == pytest.approx(golden["ConnectionSparsity"], abs=5e-5)  # theirs is rounded
    assert found["spikes_per_inference"] == sum(golden["spikes"]) / 8
    if kind == "recurrent":
        assert found["membrane_updates"] == golden["MembraneUpdates"]
        # theirs counts the readout as 3 neurons that never fire
        assert 12 * (1 - found["activation_sparsity"]) == pytest.approx(15 * (1 - golden["ActivationSparsity"]))
        assert found["parameters"] == golden["ParameterCount"] - 12 - 12  # no self-connections, no biases that are 0
        assert found["footprint_bytes"] == golden["Footprint"]
        operations = golden["NeuronOperations"]
        assert found["neuron_operations"] == operations["Effective Neuron Ops"]
        assert 4 * found["neuron_steps"] == operations["Neuron Dense Ops"]
    else:
        assert found["membrane_updates"] == 3 * 64 + 4 * 16 + 5 * 4 + 8 + 12  # each unit is computed once
        assert found["activation_sparsity"] == pytest.approx(golden["ActivationSparsity"])
        assert found["parameters"] == golden["ParameterCount"]
        assert found["footprint_bytes"] == golden["Footprint"] - 5 * 8  # each layer's sharpness, which is 1
        assert found["neuron_operations"] == 0  # NeuroBench has none for units without a state


def test_weights_of_few_bits_take_less_memory():
    weights, other = np.zeros((2, 8), np.float32), np.zeros(3, np.float32)
    assert metrics.footprint_bytes([weights, other], [weights]) == 64 + 12
    assert metrics.footprint_bytes([weights, other], [weights], bits=4) == 8 + 12


def test_only_neurons_that_adapt_take_memory_for_it():
    lif, half, all_ = (RSNN(EpropParams(neurons=10, alif_fraction=part), 3, 2) for part in (0.0, 0.5, 1.0))
    sizes = [metrics.footprint_bytes(net.deployed(), net.weights()) for net in (lif, half, all_)]
    assert np.diff(sizes).tolist() == [5 * 2 * 4] * 2  # a decay and a strength of 32 bits for each of five neurons
