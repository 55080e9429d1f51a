"""What a spiking net costs to run, by NeuroBench's definitions, and estimates of its energy. No torch.

J. Yik et al., "The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems", Nature
Communications 16:1545 (2025), section "Algorithm track: complexity metrics"; details as in its package, version 2.3.0.
`python -m benchmarks.neurobench_costs` compares with that package.

Letters in shapes: B samples, T steps, C input channels, N neurons, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Platform:
    """Published energies [pJ]; 0 where none is known, so that nothing is counted for neurons."""

    ac: float  # of an accumulate operation; a neuromorphic chip knows one kind of synaptic operation
    mac: float  # of a multiply-accumulate operation
    active: float = 0.0  # of a neuron in a step in which its potential changes
    idle: float = 0.0  # of a neuron in another step


# What counts as an operation differs between platforms: compare nets on one of them.
PLATFORMS = {
    "loihi": Platform(23.6, 23.6, active=81, idle=52),
    "truenorth": Platform(2.5, 2.5),
    "spinnaker": Platform(43_000, 43_000, active=100_000, idle=100_000),  # in steps of 1 ms
    "spinnaker2": Platform(10, 10),
    "odin": Platform(12.7, 12.7),
    "reckon": Platform(5.3, 5.3),
    "mubrain": Platform(26, 26),
    "neuronflow": Platform(20, 20),
    "tianjic": Platform(1.54, 1.54),
    "seneca": Platform(2.8, 2.8),
    "cmos_45nm": Platform(0.9, 4.6),  # float32: an addition 0.9, a product 3.7
}
SOURCES = (
    "Loihi: Davies et al., IEEE Micro 2018, table 2, with 81 and 52 pJ for a neuron's step in which its potential "
    "changes or does not; SpiNNaker: Sharp et al., J. Neurosci. Methods 2012, with 100 nJ for each neuron and step "
    "of 1 ms (at most 27 nJ for an operation, all else included, by Stromatias et al., IJCNN 2013); cmos_45nm: "
    "Horowitz, ISSCC 2014; others: table 3 of the SENECA article (PMC10326429). Where nothing is said of neurons it "
    "is the energy of synaptic operations alone. For TrueNorth 26 pJ is quoted as well, for SpiNNaker2 450 pJ"
)
ENERGY_PLATFORM = "loihi"  # which one `energy_nj` in a trial's metrics means
DIGITAL_PLATFORM = "cmos_45nm"  # `energy_nj_cmos_45nm`: it tells multiplications from additions
LEAKY_OPERATIONS = 4  # NeuroBench's for an update of a leaky neuron with reset: two products and two sums


@dataclass
class Workload:
    """What inferences took, summed over samples; NeuroBench takes the means over them."""

    samples: int = 0
    spikes: float = 0.0  # activations that are not 0
    activations: float = 0.0  # all: one for each neuron and step
    acs: float = 0.0  # accumulate operations: a nonzero binary input meets a nonzero weight; biases do not count
    macs: float = 0.0  # multiply-accumulate operations: the same where the layer's input is not binary
    dense: float = 0.0  # operations if nothing were 0
    updates: float = 0.0  # membrane potentials that changed in a step; in the first step all count
    neuron_steps: float = 0.0  # potentials, changed or not: one for each neuron and step, the readout's too

    def metrics(self) -> dict[str, float]:
        """Return the means over the samples, by the names that a trial's metrics have."""
        acs, macs, updates = self.acs / self.samples, self.macs / self.samples, self.updates / self.samples
        neuron_steps = self.neuron_steps / self.samples
        return {
            "spikes_per_inference": self.spikes / self.samples,
            "activation_sparsity": 1 - self.spikes / self.activations,
            "synaptic_operations": acs + macs,  # effective ones
            "effective_acs": acs,
            "effective_macs": macs,
            "dense_operations": self.dense / self.samples,
            "membrane_updates": updates,
            "neuron_steps": neuron_steps,
            "neuron_operations": LEAKY_OPERATIONS * updates,
            "energy_nj": energy_nj(acs, macs, updates, neuron_steps),
            f"energy_nj_{DIGITAL_PLATFORM}": energy_nj(acs, macs, platform=DIGITAL_PLATFORM),
        }


def recurrent_net_workload(
    inputs: np.ndarray, spikes: np.ndarray, w_in: np.ndarray, w_rec: np.ndarray, w_out: np.ndarray
) -> Workload:
    """Return what binary inputs (B, T, C) and hidden spikes (B, T, N) took, but for the membrane updates.

    w_in (N, C), w_rec (N, N), w_out (K, N). The last step's spikes still reach the readout, but no neuron. The readout
    puts out no spikes.
    """
    steps = inputs.shape[0] * inputs.shape[1]
    return Workload(
        samples=len(inputs),
        spikes=float(spikes.sum(dtype=np.int64)),
        activations=spikes.size,
        acs=_operations(inputs, w_in) + _operations(spikes[:, :-1], w_rec) + _operations(spikes, w_out),
        dense=steps * (w_in.size + w_rec.size + w_out.size),
        neuron_steps=steps * (len(w_rec) + len(w_out)),
    )


def add(parts: Iterable[Workload]) -> Workload:
    """Return the sum of workloads."""
    return Workload(*(sum(numbers) for numbers in zip(*(vars(part).values() for part in parts), strict=True)))


def connection_sparsity(weights: Iterable[np.ndarray]) -> float:
    """Return the part of the weights, biases left out, that is 0."""
    counts = [(weight.size, np.count_nonzero(weight)) for weight in weights]
    total, present = (sum(column) for column in zip(*counts, strict=True))
    return float(1 - present / total)


def footprint_bytes(tensors: Iterable, weights: Iterable, bits: int = 0) -> float:
    """Return the memory of all parameters and buffers [bytes]; of them, `weights` take `bits` each unless that is 0."""
    total = sum(tensor.nbytes for tensor in tensors)
    return float(total - sum(weight.nbytes - weight.nbytes // weight.itemsize * bits / 8 for weight in weights if bits))


def energy_nj(
    acs: float, macs: float = 0.0, updates: float = 0.0, neuron_steps: float = 0.0, platform: str = ENERGY_PLATFORM
) -> float:
    """Return an estimate of the energy [nJ] of synaptic operations and, where the platform's is known, of neurons.

    `updates` of the `neuron_steps` change a potential. Raises ValueError for another platform.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform must be one of {', '.join(PLATFORMS)}, not {platform!r}")
    cost = PLATFORMS[platform]
    synapses = acs * cost.ac + macs * cost.mac
    return (synapses + updates * cost.active + (neuron_steps - updates) * cost.idle) / 1000


def _operations(activity: np.ndarray, weights: np.ndarray) -> float:
    """Return how often nonzero activity (B, T, C) meets nonzero weights (N, C)."""
    fan_out = np.count_nonzero(weights, axis=0)  # (C,)
    events = np.count_nonzero(activity, axis=(0, 1))  # (C,)
    return float(events @ fan_out)
