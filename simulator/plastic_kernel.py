"""What the compiled networks share: a layer of neurons with one plastic synapse, on a compact block of its state.

`scratch` (K + 2, inputs) holds the weights, then the filtered inputs and the presynaptic traces, of those inputs only
that have been active; its first `size` columns count, a multiple of 32 (poisson_kernel.padded_size), filled with zeros.
Constants are copied into local variables before loops: the compiler cannot know that an array does not overlap them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator.plasticity import FLUSH

STDP, MODULATED_STDP, MSE, RELEASED_MSE = 0, 1, 2, 3  # as in graph_kernel.py
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan", "ninf"}  # values are finite, so that the compiler may use vectors

CONSTANTS = (
    *("decay", "gain", "threshold", "refractory"),  # output neurons: a and 1 - a
    *("keep", "pass_", "mod_keep", "mod_pass"),  # low-passes: b and 1 - b
    *("pre_gain", "pre_keep", "pre_limit", "post_gain", "post_keep", "post_limit", "mod_gain", "mod_trace_keep"),
    *("mod_limit", "low", "high", "rule_a", "rule_b", "flush", "one", "zero"),
)


def constants_dtype(precision) -> np.dtype:
    """Return the record of a plastic layer's constants, all of one precision, so that no sum is widened."""
    return np.dtype([("rule", np.int64)] + [(name, precision) for name in CONSTANTS])


def constants(layer, rule_code: int, precision) -> np.ndarray:
    """Return the constants of a layer with one plastic synapse, as an array of one record."""
    neuron, synapse, rule = layer.neuron, layer.synapses[0], layer.synapses[0].rule
    values = {"rule": rule_code, "decay": neuron.decay, "gain": 1 - neuron.decay, "threshold": neuron.threshold}
    values |= {"refractory": neuron.refractory, "keep": synapse.filter.keep, "pass_": 1 - synapse.filter.keep}
    values |= {"mod_keep": synapse.filter_mod.keep, "mod_pass": 1 - synapse.filter_mod.keep}
    for name, decay in (("pre", synapse.pre), ("post", synapse.post), ("mod", synapse.mod)):
        values |= {f"{name}_gain": decay.gain, f"{name}_limit": decay.limit}
        values["mod_trace_keep" if name == "mod" else f"{name}_keep"] = decay.keep
    values |= {"low": synapse.bounds[0], "high": synapse.bounds[1], "flush": FLUSH, "one": 1, "zero": 0}
    values["rule_a"] = rule.lr if hasattr(rule, "lr") else rule.a_plus
    values["rule_b"] = rule.a_minus if hasattr(rule, "a_minus") else getattr(rule, "alpha", 0.0)
    table = np.zeros(1, dtype=constants_dtype(precision))
    for name, value in values.items():
        table[name] = value
    return table


@njit(cache=True, fastmath=FAST)
def step_neurons(p, current, small, label, rows, others):
    """Advance the output neurons (K,) by one step with `current`; fill the factors (rows, others) of the next dW.

    small (5, K) are v, s, t_post, m, t_mod. `label` is the class whose modulatory channel spikes, -1 for none. Returns
    the number of spikes.
    """
    flush, zero = p.flush, p.zero
    spikes = _integrate(p, current, small[0], small[1])
    _follow(small[2], small[1], p.post_gain, p.post_keep, p.post_limit, flush, zero)
    keep, m = p.mod_keep, small[3]
    for k in range(len(m)):
        m[k] = flushed(keep * m[k], flush, zero)
    if label >= 0:
        m[label] += p.mod_pass
    _follow(small[4], m, p.mod_gain, p.mod_trace_keep, p.mod_limit, flush, zero)
    _set_factors(p, small, rows, others)
    return spikes


@njit(cache=True, fastmath=FAST)
def _integrate(p, current, v, s):
    decay, gain, threshold, zero, one = p.decay, p.gain, p.threshold, p.zero, p.one
    ignoring = one if p.refractory > zero else zero
    total = zero
    for k in range(len(v)):
        awake, driven = one - s[k], gain * current[k]
        v[k] = awake * decay * v[k] + (one - ignoring * s[k]) * driven
        s[k] = one if v[k] >= threshold else zero
        total += s[k]
    return int(total)


@njit(cache=True, fastmath=FAST)
def _follow(trace, x, gain, keep, limit, flush, zero):
    for k in range(len(trace)):
        trace[k] = flushed(min(gain * x[k] + keep * trace[k], limit), flush, zero)


@njit(cache=True, inline="always")
def flushed(value, flush, zero):
    """Return `value`, or 0 where it is nearer to 0 than the smallest normal numbers."""
    return zero if abs(value) < flush else value


@njit(cache=True, fastmath=FAST)
def _set_factors(p, small, rows, others):
    s, t_post, m, t_mod = small[1], small[2], small[3], small[4]
    a, b, one = p.rule_a, p.rule_b, p.one
    if p.rule == MSE or p.rule == RELEASED_MSE:
        for k in range(len(s)):
            rows[k] = a * ((b * t_mod[k] if p.rule == MSE else m[k]) - t_post[k])
    else:
        for k in range(len(s)):
            factor = one if p.rule == STDP else t_mod[k]
            rows[k], others[k] = a * factor * s[k], -b * factor * t_post[k]


@njit(cache=True, fastmath=FAST)
def step_plastic(p, scratch, size, x, before, small, label, learn, factors, counts, counters):
    """One step with the inputs x (size,), after inputs `before`. First the last step's dW, then currents and neurons.

    factors (3, K) carries rows and others of the next dW from step to step; counts (K,) and counters are added to.
    """
    n_out = len(counts)
    current, filtered, trace = factors[2], scratch[n_out], scratch[n_out + 1]
    timed = p.rule == STDP or p.rule == MODULATED_STDP
    counters[1] += n_out * _low_pass(p, x, filtered, size)
    if learn and timed:
        change_all(p, scratch, size, before, factors)
    for k in range(n_out):
        if learn and not timed:
            current[k] = _change_and_dot(p, scratch[k], factors[0, k], trace, filtered, size)
        else:
            current[k] = _dot(p, scratch[k], filtered, size)
    counters[0] += step_neurons(p, current, small, label, factors[0], factors[1])
    _move_traces(p, x, trace, size)
    for k in range(n_out):
        counts[k] += small[1, k] > p.zero


@njit(cache=True, fastmath=FAST)
def change_all(p, scratch, size, x, factors):
    """Apply dW = rows * trace + others * x to all weights."""
    n_out = scratch.shape[0] - 2
    for k in range(n_out):
        _change(p, scratch[k], factors[0, k], scratch[n_out + 1], factors[1, k], x, size)


@njit(cache=True)
def gather(values, channels, compact):
    """compact[j] = values[channels[j]]"""
    for j in range(len(channels)):
        compact[j] = values[channels[j]]


@njit(cache=True)
def scatter(compact, channels, values):
    """values[channels[j]] = compact[j]"""
    for j in range(len(channels)):
        values[channels[j]] = compact[j]


@njit(cache=True, fastmath=FAST)
def _low_pass(p, x, filtered, size):
    """Advance the filtered spikes; return how many spikes arrived."""
    passed, keep, flush, zero = p.pass_, p.keep, p.flush, p.zero
    arrived = zero
    for j in range(size):
        filtered[j] = flushed(passed * x[j] + keep * filtered[j], flush, zero)
        arrived += x[j]
    return int(arrived)


@njit(cache=True, fastmath=FAST)
def _move_traces(p, x, trace, size):
    gain, keep, limit, flush, zero = p.pre_gain, p.pre_keep, p.pre_limit, p.flush, p.zero
    for j in range(size):
        trace[j] = flushed(min(gain * x[j] + keep * trace[j], limit), flush, zero)


@njit(cache=True, fastmath=FAST)
def _dot(p, w, filtered, size):
    total = p.zero
    for j in range(size):
        total += w[j] * filtered[j]
    return total


@njit(cache=True, fastmath=FAST)
def _change_and_dot(p, w, row, trace, filtered, size):
    """Apply dW = row * trace to one neuron's weights and return its current."""
    total, low, high = p.zero, p.low, p.high
    for j in range(size):
        changed = min(max(w[j] + row * trace[j], low), high)
        w[j] = changed
        total += changed * filtered[j]
    return total


@njit(cache=True, fastmath=FAST)
def _change(p, w, row, trace, other, x, size):
    """Apply dW = row * trace + other * x to one neuron's weights."""
    low, high = p.low, p.high
    for j in range(size):
        w[j] = min(max(w[j] + row * trace[j] + other * x[j], low), high)
