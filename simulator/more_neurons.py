"""Adaptive and conductance-based neurons, and layers with recurrent synapses.

Symbols as in neurons.py: a = exp(-1 / tau), input current I, threshold v0, s the spikes of the last step.
"""

from __future__ import annotations

import numpy as np

from simulator.neurons import LIF, Layer
from simulator.synapses import Static


class AdaptiveLIF(LIF):
    """LIF neurons whose threshold rises with their own spikes (Bellec et al. 2018, NeurIPS, eq. 1 and 2).

        b' = rho b + (1 - rho) s,  rho = exp(-1 / tau_adapt)       s' = 1 where v' >= v0 + beta b'

    `beta` at least 0, `tau_adapt` above 0 [steps]. State: `adaptation` b (N,) beside v and spikes.
    """

    def __init__(self, n, tau, threshold=1.0, refractory=False, beta: float = 1.0, tau_adapt: float = 20.0):
        if not 0 <= beta < np.inf:
            raise ValueError(f"beta of AdaptiveLIF must be at least 0 and finite, not {beta}")
        if not 0 < tau_adapt < np.inf:
            raise ValueError(f"tau_adapt of AdaptiveLIF must be above 0 steps and finite, not {tau_adapt}")
        self.beta, self.tau_adapt = float(beta), float(tau_adapt)
        super().__init__(n, tau, threshold, refractory)

    @property
    def keep(self) -> float:
        """rho = exp(-1 / tau_adapt)."""
        return float(np.exp(-1 / self.tau_adapt))

    def reset(self) -> None:
        """Set potentials, spikes and adaptation to zero."""
        super().reset()
        self.adaptation = np.zeros(self.n)

    def step(self, current):
        """Integrate `current` (N,) over one step. Returns the spikes (N,)."""
        self.adaptation = self.keep * self.adaptation + (1 - self.keep) * self.spikes
        super().step(current)
        self.spikes = (self.v >= self.threshold + self.beta * self.adaptation).astype(float)
        return self.spikes

    def state(self):
        """Return potentials, spikes and adaptation, each (N,)."""
        return super().state() | {"adaptation": self.adaptation}


class ConductanceLIF(LIF):
    """LIF neurons driven by conductances, in units of the leak's; they need a ConductanceLayer.

        tau dv/dt = -v + g_e (e_exc - v) + g_i (e_inh - v)

    solved for constant g over a step: v' = u + (v (1 - s) - u) exp(-(1 + g_e + g_i) / tau), u = (g_e e_exc + g_i e_inh)
    / (1 + g_e + g_i). With `refractory`, v' = 0 in the step after a spike. The resting potential is 0 and the threshold
    by default 1; `e_exc` and `e_inh` are by default those of 0 and -80 mV for a rest of -65 and a threshold of -50 mV.
    """

    def __init__(self, n, tau, threshold=1.0, refractory=False, e_exc: float = 65 / 15, e_inh: float = -1.0):
        super().__init__(n, tau, threshold, refractory)
        if not threshold < e_exc < np.inf:
            raise ValueError(f"e_exc must be above the threshold {threshold:g} and finite, not {e_exc}")
        if not -np.inf < e_inh < threshold:
            raise ValueError(f"e_inh must be below the threshold {threshold:g} and finite, not {e_inh}")
        self.e_exc, self.e_inh = float(e_exc), float(e_inh)

    def step(self, current):
        """Integrate a purely excitatory conductance (N,)."""
        return self.step_with(current, np.zeros(self.n))

    def step_with(self, excitation: np.ndarray, inhibition: np.ndarray) -> np.ndarray:
        """Integrate the conductances g_e and g_i (N,), both at least 0, over one step. Returns the spikes (N,)."""
        total = 1 + excitation + inhibition
        u = (excitation * self.e_exc + inhibition * self.e_inh) / total
        v = u + ((1 - self.spikes) * self.v - u) * np.exp(-total / self.tau)
        self.v = (1 - self.spikes) * v if self.refractory else v
        self.spikes = (self.v >= self.threshold).astype(float)
        return self.spikes


class ConductanceLayer(Layer):
    """ConductanceLIF neurons; their synapses, excitatory or inhibitory, give conductances W f in place of currents."""

    def __init__(self, neuron, synapses):
        super().__init__(neuron, synapses)
        if not isinstance(neuron, ConductanceLIF):
            raise ValueError(f"a ConductanceLayer has ConductanceLIF neurons, not {type(neuron).__name__}")
        for number, synapse in enumerate(self.synapses):
            if synapse.sign == "hybrid":
                raise ValueError(f"synapse {number} is hybrid: conductances are excitatory or inhibitory")

    def step(self, *inputs, learn=True):
        """Advance by one step; see Layer."""
        given = self._divide(inputs)
        excitation, inhibition = np.zeros(self.neuron.n), np.zeros(self.neuron.n)
        for synapse, own in given:
            if synapse.sign == "inhibitory":
                inhibition -= synapse.current(*own)
            else:
                excitation += synapse.current(*own)
        spikes = self.neuron.step_with(excitation, inhibition)
        return self._put_out(spikes, given, learn)


class RecurrentLayer(Layer):
    """A layer whose last synapse, `recurrent` (N, N), receives its own spikes of the last step: I += W s.

    Its input ports are those of `synapses`, then the modulatory one of a `recurrent` that learns by a modulated rule.
    """

    def __init__(self, neuron: LIF, synapses: list | tuple, recurrent):
        if isinstance(neuron, LIF) and isinstance(recurrent, Static) and recurrent.n_pre != neuron.n:
            raise ValueError(f"recurrent synapses take {recurrent.n_pre} inputs, but the layer has {neuron.n} neurons")
        super().__init__(neuron, [*synapses, recurrent])  # which refuses other types
        self.recurrent = recurrent
        self.own_port = sum(len(synapse.input_sizes) for synapse in synapses)
        self.input_sizes = (*self.input_sizes[: self.own_port], *self.input_sizes[self.own_port + 1 :])

    def step(self, *inputs, learn=True):
        """Advance by one step; see Layer."""
        ahead, behind = inputs[: self.own_port], inputs[self.own_port :]
        return super().step(*ahead, self.neuron.spikes, *behind, learn=learn)
