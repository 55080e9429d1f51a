"""Leaky integrate-and-fire neurons, and the layer that joins them with their synapses to an element.

Equations 1 and 2 of arXiv 2302.13210, whose text lost them; here as in the released spikelearn 0.1.2, with a =
exp(-1 / tau), input current I, threshold v0, and s = 1 where the neuron spiked in the last step:

    v' = (1 - s) a v + (1 - a) I            without a refractory step
    v' = (1 - s) (a v + (1 - a) I)          with one: the step after a spike ignores its input
    s' = 1 where v' >= v0, else 0
"""

from __future__ import annotations

import numpy as np

from simulator.streamnet import Element, whole
from simulator.synapses import Static


class LIF:
    """N leaky integrate-and-fire neurons with the reset v = 0.

    Args: `n` neurons; `tau` decay time of the potential [steps], above 0; `threshold` above 0; `refractory`: the step
    after a spike is silent. State: `v` and `spikes`, each (N,). Raises ValueError naming what is out of range.
    """

    def __init__(self, n: int, tau: float, threshold: float = 1.0, refractory: bool = False):
        if not 0 < tau < np.inf:
            raise ValueError(f"tau of LIF must be above 0 steps and finite, not {tau}")
        if not 0 < threshold < np.inf:
            raise ValueError(f"threshold of LIF must be above 0 and finite, not {threshold}")
        n = whole("n of LIF", n)
        self.n, self.tau, self.threshold, self.refractory = n, float(tau), float(threshold), bool(refractory)
        self.reset()

    @property
    def decay(self) -> float:
        """a = exp(-1 / tau)."""
        return float(np.exp(-1 / self.tau))

    def reset(self) -> None:
        """Set potentials and spikes to zero."""
        self.v = np.zeros(self.n)
        self.spikes = np.zeros(self.n)

    def step(self, current: np.ndarray) -> np.ndarray:
        """Integrate `current` (N,) over one step. Returns the spikes (N,), 1.0 or 0.0."""
        a, awake = self.decay, 1 - self.spikes
        driven = (1 - a) * current
        self.v = awake * (a * self.v + driven) if self.refractory else awake * a * self.v + driven
        self.spikes = (self.v >= self.threshold).astype(float)
        return self.spikes

    def state(self) -> dict[str, np.ndarray]:
        """Return potentials and spikes, each (N,)."""
        return {"v": self.v, "spikes": self.spikes}


class Layer(Element):
    """Neurons with their synapses: an element whose input ports are those of the synapses, in order.

    Without synapses it has one port, the current (N,). A step computes all currents, then the neurons, then traces
    and, where `learn` is on, weights. `counters` = [spikes put out, synaptic operations] since the layer was made: an
    operation is a spike (any nonzero input) that meets a synapse; see `synapses.py`. Raises ValueError where a synapse
    reaches another number of neurons.
    """

    def __init__(self, neuron: LIF, synapses: list | tuple = ()):
        if not isinstance(synapses, list | tuple):
            raise ValueError(f"synapses of a layer must be a list, not {type(synapses).__name__}")
        if not isinstance(neuron, LIF):
            raise ValueError(f"the neurons of a layer must be LIF, not {type(neuron).__name__}")
        for number, synapse in enumerate(synapses):
            if not isinstance(synapse, Static):
                raise ValueError(f"synapse {number} must be one of synapses.py, not {type(synapse).__name__}")
            if synapse.n_post != neuron.n:
                raise ValueError(f"synapse {number} reaches {synapse.n_post} neurons, but the layer has {neuron.n}")
        sizes = [size for synapse in synapses for size in synapse.input_sizes] or [neuron.n]
        super().__init__(tuple(sizes), (neuron.n,))
        self.neuron, self.synapses = neuron, tuple(synapses)
        self.counters = np.zeros(2, dtype=np.int64)
        self.outputs = (neuron.spikes,)

    def step(self, *inputs, learn=True):
        """Advance by one step; see the class."""
        given = self._divide(inputs)
        current = sum(synapse.current(*own) for synapse, own in given) if given else inputs[0]
        spikes = self.neuron.step(current)
        return self._put_out(spikes, given, learn)

    def _put_out(self, spikes, given, learn: bool) -> tuple:
        """Let the synapses learn from the spikes (N,), count, and return the outputs."""
        for synapse, own in given:
            synapse.update(spikes, *own, learn=learn)
            self.counters[1] += synapse.operations(own[0])
        self.counters[0] += int(spikes.sum())
        self.outputs = (spikes,)
        return self.outputs

    def reset(self) -> None:
        """Reset neurons, filters and traces; weights and counters stay."""
        self.neuron.reset()
        for synapse in self.synapses:
            synapse.reset()
        self.outputs = (self.neuron.spikes,)

    def state(self) -> dict[str, np.ndarray]:
        """Return the neurons' arrays, the counters, and those of synapse i as "synapse<i>/<array>"."""
        inner = {
            f"synapse{i}/{key}": array for i, syn in enumerate(self.synapses) for key, array in syn.state().items()
        }
        return {**self.neuron.state(), "counters": self.counters, **inner}

    def fixed(self) -> dict[str, np.ndarray]:
        """Return the fixed weights or connections of synapse i as "synapse<i>/<array>"."""
        return {f"synapse{i}/{key}": array for i, syn in enumerate(self.synapses) for key, array in syn.fixed().items()}

    def parts(self) -> list:
        """Return the layer, its neurons and its synapses."""
        return [self, self.neuron, *self.synapses]

    def _divide(self, inputs) -> list[tuple]:
        """Pair every synapse with the inputs at its ports."""
        pairs, first = [], 0
        for synapse in self.synapses:
            last = first + len(synapse.input_sizes)
            pairs.append((synapse, inputs[first:last]))
            first = last
        return pairs
