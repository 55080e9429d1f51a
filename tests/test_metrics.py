"""Synaptic operations and energy against counts by hand."""

import numpy as np
import pytest

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
    assert metrics.recurrent_net_operations(inputs, spikes, w_in, w_rec, np.ones((3, 2))) == (6 + 1 + 12) / 2


def test_energy_is_operations_times_the_platforms_picojoules():
    assert metrics.energy_nj(1000) == pytest.approx(23.6)  # Loihi
    assert metrics.energy_nj(2000, "cmos_45nm") == pytest.approx(1.8)
    with pytest.raises(ValueError, match="platform must be one of loihi, .*, not 'abacus'"):
        metrics.energy_nj(1, "abacus")


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
        "energy_nj": pytest.approx(80 * 23.6 / 1000),
        "silent_fraction": 0,
        "parameters": 2 + 2 + (6 + 3),  # the diagonal of the recurrent weights is not there
    }
