"""Synapses: how spikes become current in a layer. Static, one-to-one, sparse and plastic ones; all can be filtered.

A synapse gives the current I = W f, inhibitory ones I = -W f, where f is its input x after the filter:

    f' = (1 - b) x + b f,  b = exp(-1 / tau)      low-pass;  tau = 0 passes x through

and with `delay` d it uses f of d steps ago. Its sign is "hybrid" (any weight), "excitatory" or "inhibitory" (weights at
least 0). An operation is a nonzero input that meets a nonzero static weight or a plastic one, whatever its weight.
"""

from __future__ import annotations

import numpy as np

from simulator.plasticity import RULES, Decay, flushed
from simulator.streamnet import whole

SIGNS = ("hybrid", "excitatory", "inhibitory")


class Filter:
    """Low-pass (`tau` above 0 [steps]) or pass-through (`tau` 0) of N channels, `delay` whole steps late."""

    def __init__(self, n: int, tau: float = 0.0, delay: int = 0):
        if not 0 <= tau < np.inf:
            raise ValueError(f"tau of a filter must be at least 0 steps (0 passes through) and finite, not {tau}")
        self.n, self.tau, self.delay = n, float(tau), whole("delay of a filter [steps]", delay, 0)
        self.keep = float(np.exp(-1 / tau)) if tau > 0 else 0.0
        self.reset()

    def reset(self) -> None:
        """Set the filtered values, delayed ones included, to zero."""
        self.value = np.zeros(self.n)
        self.late = np.zeros((self.delay, self.n))  # oldest first

    def step(self, x: np.ndarray) -> np.ndarray:
        """Take x (N,) and return the filtered values (N,) of `delay` steps ago."""
        self.value = flushed((1 - self.keep) * x + self.keep * self.value)
        if self.delay == 0:
            return self.value
        oldest = self.late[0].copy()
        self.late = np.concatenate([self.late[1:], self.value[None]])
        return oldest

    def state(self) -> dict[str, np.ndarray]:
        """Return the filtered values (N,) where the filter remembers any, and those on their way (delay, N)."""
        arrays = {"value": self.value} if self.keep or self.delay else {}
        return arrays | ({"late": self.late} if self.delay else {})


class Static:
    """All-to-all synapses with fixed `weights` (P, E)."""

    def __init__(self, weights: np.ndarray, sign: str = "hybrid", tau: float = 0.0, delay: int = 0):
        self.weights = np.array(weights, dtype=float)
        if self.weights.ndim != 2 or not self.weights.size:
            raise ValueError(f"weights must have the shape (neurons, inputs), not {self.weights.shape}")
        check_sign(sign, self.weights)
        self.sign = sign
        self.n_post, self.n_pre = self.weights.shape
        self.input_sizes = (self.n_pre,)
        self.filter = Filter(self.n_pre, tau, delay)
        self.fan_out = np.count_nonzero(self.weights, axis=0)  # (E,)

    def current(self, x: np.ndarray) -> np.ndarray:
        """Return the current (P,) that input x (E,) causes."""
        return signed(self.sign) * (self.weights @ self.filter.step(x))

    def update(self, spikes: np.ndarray, x: np.ndarray, learn: bool = True) -> None:
        """Nothing changes in a static synapse."""

    def operations(self, x: np.ndarray) -> int:
        """Return how many nonzero inputs meet a nonzero weight."""
        return int(self.fan_out[x != 0].sum())

    def reset(self) -> None:
        """Empty the filter."""
        self.filter.reset()

    def state(self) -> dict[str, np.ndarray]:
        """Return the filter's arrays."""
        return {f"filter_{key}": array for key, array in self.filter.state().items()}

    def fixed(self) -> dict[str, np.ndarray]:
        """Return what no step changes: the weights."""
        return {"weights": self.weights}


class OneToOne(Static):
    """Input n reaches neuron n only, with weight `weights[n]`."""

    def __init__(self, weights: np.ndarray, sign: str = "hybrid", tau: float = 0.0, delay: int = 0):
        weights = np.array(weights, dtype=float)
        if weights.ndim != 1 or not weights.size:
            raise ValueError(f"weights of OneToOne must be a vector, not of shape {weights.shape}")
        check_sign(sign, weights)
        self.weights, self.sign = weights, sign
        self.n_post = self.n_pre = len(weights)
        self.input_sizes = (self.n_pre,)
        self.filter = Filter(self.n_pre, tau, delay)
        self.fan_out = np.not_equal(weights, 0).astype(np.int64)

    def current(self, x: np.ndarray) -> np.ndarray:
        """Return the current (N,) that input x (N,) causes."""
        return signed(self.sign) * (self.weights * self.filter.step(x))


class Sparse(Static):
    """Synapses of one common `weight` that exist with a `probability`, drawn once from `seed`: `mask` (E, P).

    `seed` has no default, for two layers must not get the same connections unasked.
    """

    def __init__(
        self,
        n_pre: int,
        n_post: int,
        probability: float,
        weight: float,
        seed: int,
        sign: str = "hybrid",
        tau: float = 0.0,
        delay: int = 0,
    ):
        if not 0 <= probability <= 1:
            raise ValueError(f"the connection probability must be from 0 to 1, not {probability}")
        check_sign(sign, np.array([weight]))
        self.n_pre, self.n_post = whole("n_pre of Sparse", n_pre), whole("n_post of Sparse", n_post)
        self.weight, self.sign = float(weight), sign
        self.probability, self.seed = float(probability), whole("seed of Sparse", seed, 0)
        rng = np.random.default_rng(self.seed)
        self.mask = rng.random((self.n_pre, self.n_post), dtype=np.float32) < probability
        self.mask.flags.writeable = False  # what follows from it is made once
        self.input_sizes = (self.n_pre,)
        self.filter = Filter(self.n_pre, tau, delay)
        self.fan_out = self.mask.sum(axis=1) * int(weight != 0)
        self._targets = [np.flatnonzero(row) for row in self.mask]

    def current(self, x: np.ndarray) -> np.ndarray:
        """Return the current (P,) that input x (E,) causes."""
        f = self.filter.step(x)
        total = np.zeros(self.n_post)
        for channel in np.flatnonzero(f):
            total[self._targets[channel]] += f[channel]
        return (signed(self.sign) * self.weight) * total

    def fixed(self) -> dict[str, np.ndarray]:
        """Return what no step changes: the connections, packed to bits, and their weight."""
        return {"mask": np.packbits(self.mask), "weight": np.array(self.weight)}


class Plastic(Static):
    """All-to-all synapses that learn. Modulated rules have a second port: the modulatory input m, one per neuron.

    Args: `weights` (P, E) at the beginning, within `bounds`; `rule` of plasticity.py; `pre`, `post` and `mod` the
    traces of input, output and modulatory input; `bounds` (low, high), by default -1 to 1 for hybrid and 0 to 1 for
    other synapses; `tau`, `delay` the filter of the input; `tau_mod` the low-pass of the modulatory input [steps]. The
    presynaptic trace follows the input itself, neither low-passed nor delayed; the modulatory trace follows the
    low-passed m. Raises ValueError naming what does not fit.
    """

    rules = RULES  # that it knows; `Programmed` follows rules given as text

    def __init__(
        self,
        weights: np.ndarray,
        rule,
        pre: Decay = Decay(),  # noqa: B008 (frozen)
        post: Decay = Decay(),  # noqa: B008
        mod: Decay = Decay(),  # noqa: B008
        bounds: tuple[float, float] | None = None,
        sign: str = "hybrid",
        tau: float = 0.0,
        tau_mod: float = 0.0,
        delay: int = 0,
    ):
        super().__init__(weights, sign, tau, delay)
        if type(rule) not in self.rules:  # the kernels know them by type, and not what a derived class does
            names = ", ".join(known.__name__ for known in self.rules)
            raise ValueError(f"rule must be one of {names}, not {rule!r}")
        for name, trace in (("pre", pre), ("post", post), ("mod", mod)):
            if type(trace) is not Decay:
                raise ValueError(f"{name} must be a trace such as Decay.of(0.3), not {trace!r}")
        self.rule, self.pre, self.post, self.mod = rule, pre, post, mod
        self.bounds = check_bounds(bounds, sign, self.weights)
        self.fan_out = np.full(self.n_pre, self.n_post)
        self.filter_mod = Filter(self.n_post, tau_mod)
        if rule.modulated:
            self.input_sizes = (self.n_pre, self.n_post)
        self._clear_traces()

    def current(self, x, m=None):
        """Return the current (P,) that input x (E,) causes; the modulatory input m (P,) adds none."""
        return super().current(x)

    def update(self, spikes, x, m=None, learn=True):
        """Advance the traces by x (E,), m (P,) and the neurons' new `spikes` (P,); then, if `learn`, the weights."""
        self.trace_pre = self.pre.next(self.trace_pre, x)
        self.trace_post = self.post.next(self.trace_post, spikes)
        filtered = None
        if self.rule.modulated:
            filtered = self.filter_mod.step(m)
            self.trace_mod = self.mod.next(self.trace_mod, filtered)
        if learn:
            rows, others = self.rule.factors(spikes, self.trace_post, filtered, self.trace_mod)
            self.weights += np.outer(rows, self.trace_pre)
            if others is not None:
                self.weights += np.outer(others, x)
            np.clip(self.weights, *self.bounds, out=self.weights)

    def reset(self) -> None:
        """Empty filters and traces; weights stay."""
        super().reset()
        self.filter_mod.reset()
        self._clear_traces()

    def state(self) -> dict[str, np.ndarray]:
        """Return weights (P, E), traces and filtered values."""
        arrays = {"weights": self.weights, "trace_pre": self.trace_pre, "trace_post": self.trace_post}
        if self.rule.modulated:
            arrays |= {"trace_mod": self.trace_mod, "filter_mod_value": self.filter_mod.value}
        return arrays | super().state()

    def fixed(self):
        """Return nothing: its weights are state."""
        return {}

    def _clear_traces(self) -> None:
        self.trace_pre = np.zeros(self.n_pre)
        self.trace_post = np.zeros(self.n_post)
        self.trace_mod = np.zeros(self.n_post)


def signed(sign: str) -> float:
    """Return -1.0 for "inhibitory", else 1.0."""
    return -1.0 if sign == "inhibitory" else 1.0


def check_sign(sign: str, weights: np.ndarray) -> None:
    """Raise ValueError for an unknown sign, and for weights that are not finite or not of that sign."""
    if sign not in SIGNS:
        raise ValueError(f"sign must be one of {', '.join(SIGNS)}, not {sign!r}")
    if not np.isfinite(weights).all():
        raise ValueError("weights must be finite numbers")
    if sign != "hybrid" and (weights < 0).any():
        raise ValueError(
            f"weights of {sign} synapses must be at least 0 (their sign is applied), not {weights.min():g}"
        )


def check_bounds(bounds: tuple[float, float] | None, sign: str, weights: np.ndarray) -> tuple[float, float]:
    """Return the bounds of plastic weights, or the sign's own. Raises ValueError where weights are outside them."""
    bounds = bounds if bounds is not None else (-1.0 if sign == "hybrid" else 0.0, 1.0)
    if np.shape(bounds) != (2,) or not -np.inf < bounds[0] < bounds[1] < np.inf:
        raise ValueError(f"bounds must be finite numbers (low, high) with low < high, not {bounds}")
    low, high = bounds
    if sign != "hybrid" and low < 0:
        raise ValueError(f"bounds of {sign} synapses must be at least 0, not {low}")
    if weights.min() < low or weights.max() > high:
        raise ValueError(
            f"weights from {weights.min():g} to {weights.max():g} lie outside the bounds {low:g} to {high:g}"
        )
    return float(low), float(high)
