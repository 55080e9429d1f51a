"""The state of synapses with rules given as text, compiled: only of the inputs that count, side by side in a block.

An input that has not spiked since the reset has neither traces nor current, and all products with its traces, or with
its tag, are 0. Where every product is of that kind (`is_local`), only inputs that have spiked are awake, else all are.
At `synapse.awake` in the whole numbers: [how many are awake, their channels.., a flag for each channel]. At
`synapse.block` in the pool: rows of E values, whose first columns are the awake inputs, in the order of those channels:

    x0, filtered input, x1, x2, filtered inputs still late (delay), the line of delayed ones, weights (P), delays (P),
    tags (P), states of memristors (P)

A channel's column is copied into the block when it wakes up, and back at a reset and at the end.
"""

from __future__ import annotations

import numpy as np

from simulator.compiled import njit
from simulator.memristor import Memristive
from simulator.plasticity import FLUSH
from simulator.programmed import Programmed, divide
from simulator.rule_language import Product

X0, VALUE, X1, X2, LATE = 0, 1, 2, 3, 4  # rows of a block; the others depend on the synapse


def is_local(product: Product) -> bool:
    """Tell whether a product is 0 for an input whose traces and tags are."""
    _, columns, elements = divide(product)
    return any(factor.constant == 0 for factor in columns + [each for each in elements if each.name == "t"])


def all_awake(synapse: Programmed) -> bool:
    """Tell whether all inputs have to be visited."""
    return not all(is_local(product) for products in synapse.rule.rules.values() for product in products)


def awake_table(synapse: Programmed) -> np.ndarray:
    """Return [how many inputs are awake, their channels, a flag for each] (1 + 2 E,) in the synapse's state."""
    arrays = [synapse.filter.value[None], synapse.filter.late, synapse.line, synapse.trace_pre[None]]
    arrays += [synapse.trace_x2[None], *([synapse.tag] if synapse.tag.size else [])]
    flags = np.concatenate(arrays).any(axis=0) | all_awake(synapse)
    channels = np.flatnonzero(flags)
    return np.concatenate([[len(channels)], channels, np.zeros(len(flags) - len(channels)), flags]).astype(np.int64)


def empty_block(synapse: Programmed) -> np.ndarray:
    """Return the block of a synapse (rows, E), still without the awake inputs."""
    rows = LATE + synapse.filter.delay + len(synapse.line)
    rows += synapse.n_post * (1 + bool(synapse.delays.size) + bool(synapse.tag.size))
    return np.zeros((rows + synapse.n_post * isinstance(synapse, Memristive), synapse.n_pre))


@njit(cache=True)
def block_rows(synapse):
    """Return where in the block the line, weights, delays, tags and devices begin, and how many rows it has."""
    line = LATE + synapse.delay
    weights = line + (synapse.max_delay + 1 if synapse.has_delays > 0 else 0)
    delays = weights + synapse.n_post
    tags = delays + (synapse.n_post if synapse.has_delays > 0 else 0)
    devices = tags + (synapse.n_post if synapse.has_tag > 0 else 0)
    return line, weights, delays, tags, devices, devices + (synapse.n_post if synapse.has_device else 0)


@njit(cache=True)
def block_of(synapse, pool):
    """Return the block (rows, E) of a synapse."""
    rows = block_rows(synapse)[5]
    return pool[synapse.block : synapse.block + rows * synapse.n_pre].reshape(rows, synapse.n_pre)


@njit(cache=True)
def wake_up(synapse, pool, whole, x):
    """Let the inputs that spike for the first time since the reset count, too; return how many do."""
    at, n = synapse.awake, synapse.n_pre
    count = whole[at]
    if count < n:
        flags = whole[at + 1 + n : at + 1 + 2 * n]
        for j in range(n):  # without branches, which would be hard to foretell
            new = (flags[j] == 0) & (x[j] != 0.0)
            flags[j] |= new
            whole[at + 1 + count] = j
            count += new
            if count == n:
                break
        if count > whole[at]:
            bring_in(synapse, pool, whole, whole[at], count)
        whole[at] = count
    return count


@njit(cache=True)
def fall_asleep(synapse, pool, whole):
    """At a reset, before the pool is cleared: save what is kept; then no input counts, or all do."""
    at, n = synapse.awake, synapse.n_pre
    bring_back(synapse, pool, whole)
    whole[at] = n if synapse.all_awake else 0
    for j in range(n):
        whole[at + 1 + j] = j
        whole[at + 1 + n + j] = synapse.all_awake


@njit(cache=True)
def bring_in(synapse, pool, whole, first, last):
    """Copy the state of the awake inputs number first..last-1 into the block."""
    _copy(synapse, pool, whole[synapse.awake + 1 : synapse.awake + 1 + last], first, True)


@njit(cache=True)
def bring_back(synapse, pool, whole):
    """Copy the state of all awake inputs from the block to where it belongs."""
    _copy(synapse, pool, whole[synapse.awake + 1 : synapse.awake + 1 + whole[synapse.awake]], 0, False)


@njit(cache=True)
def _copy(synapse, pool, channels, first, into):
    n, p, block = synapse.n_pre, synapse.n_post, block_of(synapse, pool)
    line, weights, delays, tags, devices, end = block_rows(synapse)
    parts = (
        (VALUE, X1, synapse.value),
        (X1, X2, synapse.trace_pre),
        (X2, LATE, synapse.trace_x2),
        (LATE, line, synapse.late),
        (line, weights, synapse.line),
        (weights, weights + p, synapse.weights),
        (delays, tags, synapse.delays),
        (tags, devices, synapse.tag),
        (devices, end, synapse.device),
    )
    for begin, until, at in parts:
        for row in range(begin, until):
            own = block[row]
            home = pool[at + (row - begin) * n : at + (row - begin + 1) * n]
            for a in range(first, len(channels)):
                if into:
                    own[a] = home[channels[a]]
                else:
                    home[channels[a]] = own[a]


@njit(cache=True)
def receive(synapse, block, channels, x):
    """Gather the spikes of the awake inputs and advance their filter; return how many spiked."""
    keep, spikes, value, arrived = synapse.keep, block[X0], block[VALUE], 0
    for a in range(len(channels)):
        spike = x[channels[a]]
        filtered = (1.0 - keep) * spike + keep * value[a]
        spikes[a], value[a] = spike, 0.0 if abs(filtered) < FLUSH else filtered
        arrived += 1 if spike != 0.0 else 0
    return arrived


@njit(cache=True)
def move_trace(trace, x, count, gain, keep, limit):
    """Advance the first `count` values of a trace."""
    for k in range(count):
        moved = min(gain * x[k] + keep * trace[k], limit)
        trace[k] = 0.0 if abs(moved) < FLUSH else moved


@njit(cache=True)
def add_current(synapse, block, count, current):
    """Add the current of the awake inputs to `current`, each synapse with its delay if it has one."""
    line, weights, delays, _, _, _ = block_rows(synapse)
    value = _let_through(synapse, block, count)
    if synapse.has_delays == 0:
        for i in range(synapse.n_post):
            current[i] += synapse.sign * _dot(block[weights + i], value, count)
        return
    for row in range(weights - 1, line, -1):
        block[row, :count] = block[row - 1, :count]
    block[line, :count] = value[:count]
    for i in range(synapse.n_post):
        total = 0.0
        for a in range(count):
            total += block[weights + i, a] * block[line + int(np.floor(block[delays + i, a] + 0.5)), a]
        current[i] += synapse.sign * total


@njit(cache=True)
def _let_through(synapse, block, count):
    """Return the filtered values of `delay` steps ago and put the new ones at the end of the queue."""
    if synapse.delay == 0:
        return block[VALUE]
    oldest, last = block[LATE].copy(), LATE + synapse.delay - 1
    for row in range(LATE, last):
        block[row, :count] = block[row + 1, :count]
    block[last, :count] = block[VALUE, :count]
    return oldest


@njit(cache=True, fastmath={"reassoc", "contract"})
def _dot(weights, value, count):
    total = 0.0
    for a in range(count):
        total += weights[a] * value[a]
    return total
