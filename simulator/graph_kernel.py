"""One compiled kernel for every graph of known elements, in float64: it interprets the tables made by `lowering.py`.

All signals of a step lie in one vector, all state in another (`pool`); a LAYER and its SYNAPSES say where. What is
computed, and in which order, is defined by `Layer.step` and the synapses.
"""

from __future__ import annotations

import numpy as np

from simulator.awake_kernel import add_current, block_of, bring_back, bring_in, fall_asleep, receive, wake_up
from simulator.compiled import njit
from simulator.plasticity import FLUSH
from simulator.rule_kernel import follow_text

LIF, ADAPTIVE, CONDUCTANCE = 0, 1, 2  # neurons
DENSE, ONE_TO_ONE, SPARSE = 0, 1, 2  # kinds of synapse; a plastic one is dense with a rule
NO_RULE, STDP, MODULATED_STDP, MSE, RELEASED_MSE, TEXT = -1, 0, 1, 2, 3, 4

_INT, _FLOAT = np.int64, np.float64
LAYER = np.dtype(
    [(name, _INT) for name in ("n", "signal", "v", "first", "count", "refractory", "neuron", "adaptation")]
    + [(name, _FLOAT) for name in ("decay", "threshold", "tau", "beta", "keep", "e_exc", "e_inh")]
)  # signal: offset in the signals; v, adaptation: in the pool; first, count: its synapses
_OFFSETS = (  # source..: in the signals; weights..mod_value: in the pool; starts..fan_out: in the whole numbers
    "kind n_post n_pre source mod_source weights value delay late rule "
    "trace_pre trace_post trace_mod mod_value starts targets fan_out"
)
_TEXT_OFFSETS = (  # of rules given as text (rule_kernel.py): program and awake in the whole numbers, others in the pool
    "program numbers epochs delays max_delay line tag has_delays has_tag awake block "
    "all_awake modulated trace_x2 trace_y2 trace_y3"
)
_NUMBERS = (
    "sign weight keep mod_keep low high rule_a rule_b pre_gain pre_keep pre_limit post_gain post_keep post_limit "
    "mod_gain mod_keep_trace mod_limit"
)
_TEXT_NUMBERS = "tag_limit x2_gain x2_keep x2_limit y2_gain y2_keep y2_limit y3_gain y3_keep y3_limit"
_DEVICE_OFFSETS = "has_device device window exponential"  # of memristors (memristor_kernel.py): device in the pool
_DEVICE_NUMBERS = "swing_up swing_down swing_read least window_p window_first window_second offset scale r_on r_off"
SYNAPSE = np.dtype(
    [(name, _INT) for name in f"{_OFFSETS} {_TEXT_OFFSETS} {_DEVICE_OFFSETS}".split()]
    + [(name, _FLOAT) for name in f"{_NUMBERS} {_TEXT_NUMBERS} {_DEVICE_NUMBERS}".split()]
)


@njit(cache=True)
def run_graph(given, sample_steps, reset, learn, layers, synapses, pool, rest, signals, whole, counters, shown, out):
    """Advance by len(given) steps (T, inputs); write the signals `shown` into `out` (T, shown).

    `reset`: clear signals and pool[rest:] before every `sample_steps`-th step. counters (layers, 2) are added to.
    """
    n_given = given.shape[1]
    fresh = np.zeros_like(signals)
    largest = 0
    for layer in layers:
        largest = max(largest, layer.n)
    current = np.empty((2, largest))
    for synapse in synapses:
        if synapse.rule == TEXT:
            bring_in(synapse, pool, whole, 0, whole[synapse.awake])
    for t in range(len(given)):
        if reset and t % sample_steps == 0:
            _reset(synapses, pool, rest, signals, whole)
        signals[:n_given] = given[t]
        for index in range(len(layers)):
            _step_layer(layers[index], synapses, pool, signals, fresh, whole, current, counters[index], learn)
        signals[n_given:] = fresh[n_given:]
        for k in range(len(shown)):
            out[t, k] = signals[shown[k]]
    for synapse in synapses:
        if synapse.rule == TEXT:
            bring_back(synapse, pool, whole)


@njit(cache=True)
def _reset(synapses, pool, rest, signals, whole):
    for synapse in synapses:
        if synapse.rule == TEXT:
            fall_asleep(synapse, pool, whole)
    pool[rest:] = 0.0
    signals[:] = 0.0
    for synapse in synapses:
        if synapse.rule == TEXT:
            bring_in(synapse, pool, whole, 0, whole[synapse.awake])


@njit(cache=True)
def _receive(synapse, pool, signals, whole, current):
    """_add_current for a rule given as text; returns how many spikes arrived."""
    x, block = signals[synapse.source : synapse.source + synapse.n_pre], block_of(synapse, pool)
    count = wake_up(synapse, pool, whole, x)
    arrived = receive(synapse, block, whole[synapse.awake + 1 : synapse.awake + 1 + count], x)
    add_current(synapse, block, count, current)
    return arrived


@njit(cache=True)
def _step_layer(layer, synapses, pool, signals, fresh, whole, current, counters, learn):
    n, at = layer.n, layer.signal
    current[:, :n] = 0.0
    for index in range(layer.first, layer.first + layer.count):
        synapse = synapses[index]
        own = current[1 if layer.neuron == CONDUCTANCE and synapse.sign < 0.0 else 0]
        if synapse.rule == TEXT:
            counters[1] += synapse.n_post * _receive(synapse, pool, signals, whole, own)
        else:
            _add_current(synapse, pool, signals, whole, own)
    for i in range(n):
        v = _potential(layer, pool[layer.v + i], signals[at + i], current[0, i], -current[1, i])
        threshold = layer.threshold
        if layer.neuron == ADAPTIVE:
            b = layer.keep * pool[layer.adaptation + i] + (1.0 - layer.keep) * signals[at + i]
            pool[layer.adaptation + i] = b
            threshold += layer.beta * b
        pool[layer.v + i] = v
        fresh[at + i] = 1.0 if v >= threshold else 0.0
        counters[0] += v >= threshold
    for index in range(layer.first, layer.first + layer.count):
        synapse = synapses[index]
        if synapse.rule == TEXT:
            _follow_text(synapse, pool, signals, whole, fresh[at : at + n], learn)
            continue
        for j in range(synapse.n_pre):
            if signals[synapse.source + j] != 0.0:
                counters[1] += whole[synapse.fan_out + j]
        if synapse.rule != NO_RULE:
            _update_weights(synapse, pool, signals, fresh[at : at + n], learn)


@njit(cache=True)
def _potential(layer, v, spiked, excitation, inhibition):
    """Return the potential after a step; see neurons.py and more_neurons.py."""
    awake = 1.0 - spiked
    if layer.neuron == CONDUCTANCE:
        total = 1.0 + excitation + inhibition
        u = (excitation * layer.e_exc + inhibition * layer.e_inh) / total
        v = u + (awake * v - u) * np.exp(-total / layer.tau)
        return awake * v if layer.refractory else v
    driven = (1.0 - layer.decay) * excitation
    return awake * (layer.decay * v + driven) if layer.refractory else awake * layer.decay * v + driven


@njit(cache=True)
def _flushed(value):
    return 0.0 if abs(value) < FLUSH else value


@njit(cache=True)
def _add_current(synapse, pool, signals, whole, current):
    """Advance the filter of a synapse and add what it lets through to `current`."""
    n_pre = synapse.n_pre
    keep = synapse.keep
    value = pool[synapse.value : synapse.value + n_pre]
    for j in range(n_pre):
        value[j] = _flushed((1.0 - keep) * signals[synapse.source + j] + keep * value[j])
    if synapse.delay > 0:
        value = _late(synapse, pool, value)
    if synapse.kind == DENSE:
        for i in range(synapse.n_post):
            row = pool[synapse.weights + i * n_pre : synapse.weights + (i + 1) * n_pre]
            total = 0.0
            for j in range(n_pre):
                total += row[j] * value[j]
            current[i] += synapse.sign * total
    elif synapse.kind == ONE_TO_ONE:
        for j in range(n_pre):
            current[j] += synapse.sign * (pool[synapse.weights + j] * value[j])
    else:
        total = np.zeros(synapse.n_post)
        for j in range(n_pre):
            if value[j] != 0.0:
                for k in range(whole[synapse.starts + j], whole[synapse.starts + j + 1]):
                    total[whole[synapse.targets + k]] += value[j]
        for i in range(synapse.n_post):
            current[i] += synapse.sign * synapse.weight * total[i]


@njit(cache=True)
def _late(synapse, pool, value):
    """Return the values of `delay` steps ago and put the new ones at the end of the queue."""
    n, length = synapse.n_pre, synapse.delay * synapse.n_pre
    queue = pool[synapse.late : synapse.late + length]
    oldest = queue[:n].copy()
    for k in range(length - n):
        queue[k] = queue[k + n]
    queue[length - n :] = value
    return oldest


@njit(cache=True)
def _move_trace(trace, x, gain, keep, limit):
    for k in range(len(trace)):
        trace[k] = _flushed(min(gain * x[k] + keep * trace[k], limit))


@njit(cache=True)
def _update_weights(synapse, pool, signals, spikes, learn):
    n_pre, n_post = synapse.n_pre, synapse.n_post
    x = signals[synapse.source : synapse.source + n_pre]
    t_pre = pool[synapse.trace_pre : synapse.trace_pre + n_pre]
    t_post = pool[synapse.trace_post : synapse.trace_post + n_post]
    _move_trace(t_pre, x, synapse.pre_gain, synapse.pre_keep, synapse.pre_limit)
    _move_trace(t_post, spikes, synapse.post_gain, synapse.post_keep, synapse.post_limit)
    t_mod, m = t_post, t_post  # not read by STDP
    if synapse.rule != STDP:
        m, t_mod = _move_modulation(synapse, pool, signals)
    if not learn:
        return
    for i in range(n_post):
        at_trace, at_input = _factors(synapse, spikes[i], t_post[i], m[i], t_mod[i])
        row = pool[synapse.weights + i * n_pre : synapse.weights + (i + 1) * n_pre]
        for j in range(n_pre):
            w = row[j] + at_trace * t_pre[j] + at_input * x[j]
            row[j] = min(max(w, synapse.low), synapse.high)


@njit(cache=True)
def _follow_text(synapse, pool, signals, whole, spikes, learn):
    """_update_weights for a rule given as text."""
    n_post, rows = synapse.n_post, np.zeros((6, synapse.n_post))
    t_post = pool[synapse.trace_post : synapse.trace_post + n_post]
    y2, y3 = pool[synapse.trace_y2 : synapse.trace_y2 + n_post], pool[synapse.trace_y3 : synapse.trace_y3 + n_post]
    _move_trace(t_post, spikes, synapse.post_gain, synapse.post_keep, synapse.post_limit)
    _move_trace(y2, spikes, synapse.y2_gain, synapse.y2_keep, synapse.y2_limit)
    _move_trace(y3, spikes, synapse.y3_gain, synapse.y3_keep, synapse.y3_limit)
    rows[0], rows[1], rows[2], rows[3] = spikes, t_post, y2, y3
    if synapse.modulated:
        rows[4], rows[5] = _move_modulation(synapse, pool, signals)
    follow_text(synapse, pool, whole, rows, learn)


@njit(cache=True)
def _move_modulation(synapse, pool, signals):
    """Advance the low-passed modulatory input and its trace; return both (P,)."""
    n_post = synapse.n_post
    m = pool[synapse.mod_value : synapse.mod_value + n_post]
    for i in range(n_post):
        m[i] = _flushed((1.0 - synapse.mod_keep) * signals[synapse.mod_source + i] + synapse.mod_keep * m[i])
    t_mod = pool[synapse.trace_mod : synapse.trace_mod + n_post]
    _move_trace(t_mod, m, synapse.mod_gain, synapse.mod_keep_trace, synapse.mod_limit)
    return m, t_mod


@njit(cache=True)
def _factors(synapse, s, t_post, m, t_mod):
    """Return what the rule multiplies the presynaptic trace and the input with, for one neuron."""
    if synapse.rule == STDP:
        return synapse.rule_a * s, -synapse.rule_b * t_post
    if synapse.rule == MODULATED_STDP:
        return synapse.rule_a * (t_mod * s), -synapse.rule_b * (t_mod * t_post)
    if synapse.rule == MSE:
        return synapse.rule_a * (synapse.rule_b * t_mod - t_post), 0.0
    return synapse.rule_a * (m - t_post), 0.0
