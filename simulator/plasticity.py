"""Traces and learning rules: how a plastic synapse changes its weights.

Symbols, per step: x presynaptic and s postsynaptic spikes, m the modulatory input (after its low-pass), and their
traces t_e, t_o, t_m, which already contain this step. Every rule here is a sum of two outer products,

    dW = rows t_e^T + others x^T        dW (P, E), rows and others (P,)

so that a rule is a function from (s, t_o, m, t_m) to (rows, others). Afterwards weights are clipped to their bounds.
Sources: spikelearn 0.1.2 (released code) for STDP, modulated STDP and `ReleasedMSE`; arXiv 2302.13210 section III-B for
`MSE`, whose equation 3 is lost in the text and read here as dW = lr (alpha t_m - t_o) t_e^T: an anti-covariance
rule with a moving threshold set by the modulatory trace, minus the gradient of (alpha t_m - t_o)^2 / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np

FLUSH = 1e-30  # filtered values and traces below this are set to 0, before they become denormal and slow


@dataclass(frozen=True)
class Decay:
    """A trace t' = min(gain x + keep t, limit). `Decay.of(a)` is the one-parameter form, gain a and keep 1 - a."""

    gain: float = 0.5  # added per spike
    keep: float = 0.5  # fraction that stays after a step
    limit: float = 10.0  # upper bound

    def __post_init__(self):
        if not 0 <= self.gain < np.inf:
            raise ValueError(f"gain of a trace must be at least 0 and finite, not {self.gain}")
        if not 0 <= self.keep <= 1:
            raise ValueError(f"keep of a trace must be from 0 to 1, not {self.keep}")
        if not 0 < self.limit < np.inf:
            raise ValueError(f"limit of a trace must be above 0 and finite, not {self.limit}")

    @classmethod
    def of(cls, a: float) -> Decay:
        """Return the trace with gain `a` and keep 1 - `a`."""
        return cls(a, 1 - a)

    def next(self, trace: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the trace (N,) after a step with input x (N,)."""
        return flushed(np.minimum(self.gain * x + self.keep * trace, self.limit))


def flushed(values: np.ndarray) -> np.ndarray:
    """Return `values` with those nearer to 0 than FLUSH set to 0."""
    return np.where(np.abs(values) < FLUSH, 0.0, values)


@dataclass(frozen=True)
class STDP:
    """Spike-timing-dependent plasticity: dW = a_plus s t_e^T - a_minus t_o x^T."""

    a_plus: float = 0.01  # weight gained per unit of presynaptic trace at a postsynaptic spike
    a_minus: float = 0.01  # weight lost per unit of postsynaptic trace at a presynaptic spike
    modulated = False

    def __post_init__(self):
        _check_finite(self)

    def factors(self, s, t_o, m, t_m):
        """Return (rows, others), each (P,)."""
        return self.a_plus * s, -self.a_minus * t_o


@dataclass(frozen=True)
class ModulatedSTDP:
    """STDP with row p times the modulatory trace of neuron p: dW = t_m * (a_plus s t_e^T - a_minus t_o x^T)."""

    a_plus: float = 0.01
    a_minus: float = 0.01
    modulated = True

    def __post_init__(self):
        _check_finite(self)

    def factors(self, s, t_o, m, t_m):
        """Return (rows, others), each (P,)."""
        return self.a_plus * (t_m * s), -self.a_minus * (t_m * t_o)


@dataclass(frozen=True)
class MSE:
    """The paper's ternary rule: dW = lr (alpha t_m - t_o) t_e^T."""

    lr: float = 0.002  # learning rate
    alpha: float = 1.0  # weight of the modulatory trace
    modulated = True

    def __post_init__(self):
        _check_finite(self)

    def factors(self, s, t_o, m, t_m):
        """Return (rows, None)."""
        return self.lr * (self.alpha * t_m - t_o), None


@dataclass(frozen=True)
class ReleasedMSE:
    """The released code's rule, of the modulatory input without trace and alpha: dW = lr (m - t_o) t_e^T."""

    lr: float = 0.002  # learning rate
    modulated = True

    def __post_init__(self):
        _check_finite(self)

    def factors(self, s, t_o, m, t_m):
        """Return (rows, None)."""
        return self.lr * (m - t_o), None


def _check_finite(rule) -> None:
    for name, value in vars(rule).items():
        if not isinstance(value, Real) or not np.isfinite(value):
            raise ValueError(f"{name} of {type(rule).__name__} must be a finite number, not {value}")


RULES = (STDP, ModulatedSTDP, MSE, ReleasedMSE)
