"""What the compiled networks share: a layer of neurons with one plastic synapse, on a compact block of its state.

`scratch` (K + 2, inputs) holds the weights, then the filtered inputs and the presynaptic traces, of those inputs only
that have been active; its first `size` columns count, a multiple of 32 (poisson_kernel.padded_size), filled with zeros.
Two habits make the loops fast: constants are copied into local variables, for the compiler cannot know that no array
overlaps them, and rows are indexed, not sliced, for a slice is counted as a reference.
"""

from __future__ import annotations

import numpy as np

from simulator.compiled import njit
from simulator.graph_kernel import MODULATED_STDP, MSE, RELEASED_MSE, STDP
from simulator.lowering import RULES, rule_constants
from simulator.plasticity import FLUSH

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


def constants(layer, precision) -> np.ndarray:
    """Return the constants of a layer with one plastic synapse, as an array of one record."""
    neuron, synapse, rule = layer.neuron, layer.synapses[0], layer.synapses[0].rule
    values = {"rule": RULES[type(rule)], "decay": neuron.decay, "gain": 1 - neuron.decay, "threshold": neuron.threshold}
    values |= {"refractory": neuron.refractory, "keep": synapse.filter.keep, "pass_": 1 - synapse.filter.keep}
    values |= {"mod_keep": synapse.filter_mod.keep, "mod_pass": 1 - synapse.filter_mod.keep}
    for name, decay in (("pre", synapse.pre), ("post", synapse.post), ("mod", synapse.mod)):
        values |= {f"{name}_gain": decay.gain, f"{name}_limit": decay.limit}
        values["mod_trace_keep" if name == "mod" else f"{name}_keep"] = decay.keep
    values |= {"low": synapse.bounds[0], "high": synapse.bounds[1], "flush": FLUSH, "one": 1, "zero": 0}
    values["rule_a"], values["rule_b"] = rule_constants(rule)
    table = np.zeros(1, dtype=constants_dtype(precision))
    for name, value in values.items():
        table[name] = value
    return table


@njit(cache=True)
def flushed(value, flush, zero):
    """Return `value`, or 0 where it is nearer to 0 than the smallest normal numbers."""
    return zero if abs(value) < flush else value


@njit(cache=True, fastmath=FAST)
def step_plastic(p, scratch, size, x, before, small, label, learn, factors, counts, counters):
    """One step with the inputs x (size,), after inputs `before`. First the last step's dW, then currents and neurons.

    small (5, K) are v, s, t_post, m, t_mod of the neurons; `label` is the class whose modulatory channel spikes, -1 for
    none; factors (3, K) carries rows and others of the next dW from step to step. counts (K,) and counters are added
    to. Returns how many inputs spiked.
    """
    n_out = len(counts)
    timed = p.rule == STDP or p.rule == MODULATED_STDP
    arrived = _low_pass(p, x, scratch, size)
    if learn and timed:
        change_all(p, scratch, size, before, factors)
    if learn and not timed:
        _change_and_sum(p, scratch, size, factors)
    else:
        _sum(p, scratch, size, factors)
    _integrate(p, small, factors)
    _move_output_traces(p, small, label)
    _set_factors(p, small, factors)
    _move_traces(p, x, scratch, size)
    counters[1] += n_out * arrived
    for k in range(n_out):
        spiked = small[1, k] > p.zero
        counts[k] += spiked
        counters[0] += spiked
    return arrived


@njit(cache=True, fastmath=FAST)
def change_all(p, scratch, size, x, factors):
    """Apply dW = rows * trace + others * x to all weights."""
    low, high, n_out = p.low, p.high, factors.shape[1]
    for k in range(n_out):
        row, other = factors[0, k], factors[1, k]
        for j in range(size):
            w = scratch[k, j] + row * scratch[n_out + 1, j] + other * x[j]
            scratch[k, j] = min(max(w, low), high)


@njit(cache=True, fastmath=FAST)
def _change_and_sum(p, scratch, size, factors):
    """Apply dW = rows * trace to all weights and sum the currents, in one pass."""
    low, high, n_out = p.low, p.high, factors.shape[1]
    for k in range(n_out):
        total, row = p.zero, factors[0, k]
        for j in range(size):
            w = min(max(scratch[k, j] + row * scratch[n_out + 1, j], low), high)
            scratch[k, j] = w
            total += w * scratch[n_out, j]
        factors[2, k] = total


@njit(cache=True, fastmath=FAST)
def _sum(p, scratch, size, factors):
    """Sum the currents."""
    n_out = factors.shape[1]
    for k in range(n_out):
        total = p.zero
        for j in range(size):
            total += scratch[k, j] * scratch[n_out, j]
        factors[2, k] = total


@njit(cache=True, fastmath=FAST)
def _low_pass(p, x, scratch, size):
    """Advance the filtered inputs; return how many spikes arrived."""
    passed, keep, flush, zero, at = p.pass_, p.keep, p.flush, p.zero, scratch.shape[0] - 2
    arrived = zero
    for j in range(size):
        scratch[at, j] = flushed(passed * x[j] + keep * scratch[at, j], flush, zero)
        arrived += x[j]
    return int(arrived)


@njit(cache=True, fastmath=FAST)
def _move_traces(p, x, scratch, size):
    gain, keep, limit, flush, zero = p.pre_gain, p.pre_keep, p.pre_limit, p.flush, p.zero
    at = scratch.shape[0] - 1
    for j in range(size):
        scratch[at, j] = flushed(min(gain * x[j] + keep * scratch[at, j], limit), flush, zero)


@njit(cache=True, fastmath=FAST)
def _integrate(p, small, factors):
    """Advance potentials and spikes with the currents in factors[2]."""
    decay, gain, threshold, zero, one = p.decay, p.gain, p.threshold, p.zero, p.one
    ignoring = one if p.refractory > zero else zero
    for k in range(small.shape[1]):
        spiked = small[1, k]
        v = (one - spiked) * decay * small[0, k] + (one - ignoring * spiked) * (gain * factors[2, k])
        small[0, k], small[1, k] = v, one if v >= threshold else zero


@njit(cache=True, fastmath=FAST)
def _move_output_traces(p, small, label):
    """Advance the postsynaptic trace, the low-passed modulatory input and its trace."""
    flush, zero, m_keep = p.flush, p.zero, p.mod_keep
    gain, keep, limit = p.post_gain, p.post_keep, p.post_limit
    for k in range(small.shape[1]):
        small[2, k] = flushed(min(gain * small[1, k] + keep * small[2, k], limit), flush, zero)
        small[3, k] = flushed(m_keep * small[3, k], flush, zero)
    if label >= 0:
        small[3, label] += p.mod_pass
    gain, keep, limit = p.mod_gain, p.mod_trace_keep, p.mod_limit
    for k in range(small.shape[1]):
        small[4, k] = flushed(min(gain * small[3, k] + keep * small[4, k], limit), flush, zero)


@njit(cache=True, fastmath=FAST)
def _set_factors(p, small, factors):
    """Fill the factors of the next dW; see `plasticity.py`."""
    a, b, one, rule = p.rule_a, p.rule_b, p.one, p.rule
    for k in range(small.shape[1]):
        s, t_post, m, t_mod = small[1, k], small[2, k], small[3, k], small[4, k]
        if rule == MSE:
            factors[0, k] = a * (b * t_mod - t_post)
        elif rule == RELEASED_MSE:
            factors[0, k] = a * (m - t_post)
        else:
            factor = one if rule == STDP else t_mod
            factors[0, k], factors[1, k] = a * factor * s, -b * factor * t_post


@njit(cache=True)
def gather(values, channels, compact, row):
    """compact[row, j] = values[channels[j]]"""
    for j in range(len(channels)):
        compact[row, j] = values[channels[j]]


@njit(cache=True)
def scatter(compact, row, channels, values):
    """values[channels[j]] = compact[row, j]"""
    for j in range(len(channels)):
        values[channels[j]] = compact[row, j]
