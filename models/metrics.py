"""What a spiking net costs to run: spikes, synaptic operations, an estimate of its energy. No torch.

Letters in shapes: B samples, T steps, C input channels, N neurons, K classes.
"""

from __future__ import annotations

import numpy as np

# Energy of one synaptic operation [pJ], from table 3 of the SENECA article (PMC10326429), save for the last: Horowitz,
# ISSCC 2014, a float32 addition. What counts as an operation differs between platforms: compare nets on one of them.
PICOJOULES_PER_OPERATION = {
    "loihi": 23.6,
    "truenorth": 2.5,  # 26 is quoted as well
    "spinnaker": 45.0,
    "spinnaker2": 10.0,
    "odin": 12.7,
    "reckon": 5.3,
    "mubrain": 26.0,
    "neuronflow": 20.0,
    "tianjic": 1.54,
    "seneca": 2.8,
    "cmos_45nm": 0.9,
}
ENERGY_PLATFORM = "loihi"  # which one `energy_nj` in a trial's metrics means


def effective_operations(activity: np.ndarray, weights: np.ndarray) -> float:
    """Return the effective synaptic operations per sample of activity (B, T, C) through weights (N, C).

    NeuroBench's definition (effective accumulates for binary activity): an operation is a nonzero input meeting a
    nonzero weight; biases do not count.
    """
    fan_out = np.count_nonzero(weights, axis=0)  # (C,)
    events = np.count_nonzero(activity, axis=(0, 1))  # (C,)
    return float(events @ fan_out / len(activity))


def recurrent_net_operations(
    inputs: np.ndarray, spikes: np.ndarray, w_in: np.ndarray, w_rec: np.ndarray, w_out: np.ndarray
) -> float:
    """Return effective operations per sample of inputs (B, T, C) and hidden spikes (B, T, N) through all weights.

    w_in (N, C), w_rec (N, N), w_out (K, N). The last step's spikes still reach the readout, but no neuron.
    """
    return (
        effective_operations(inputs, w_in)
        + effective_operations(spikes[:, :-1], w_rec)
        + effective_operations(spikes, w_out)
    )


def energy_nj(operations: float, platform: str = ENERGY_PLATFORM) -> float:
    """Return an estimate of the energy of so many synaptic operations [nJ]. Raises ValueError for another platform."""
    if platform not in PICOJOULES_PER_OPERATION:
        raise ValueError(f"platform must be one of {', '.join(PICOJOULES_PER_OPERATION)}, not {platform!r}")
    return operations * PICOJOULES_PER_OPERATION[platform] / 1000
