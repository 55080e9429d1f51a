"""The mushroom body, compiled. Made fast by

- counting each Kenyon cell's spiking glomeruli bit by bit, for many cells at a time (drive_kernel.py);
- following only Kenyon cells that have spiked: others have no trace and give no current. Their weights are copied into
  a compact block, and back after the sample.
"""

from __future__ import annotations

import numpy as np

from simulator.compiled import njit
from simulator.drive_kernel import SEGMENT, count_spiking
from simulator.plastic_kernel import FAST, change_all, scatter, step_plastic
from simulator.poisson_kernel import encode_block, padded_size

HIDDEN = ("glom", "lat", "inh", "kc")
CONSTANTS = (
    *(f"{name}_{what}" for name in HIDDEN for what in ("decay", "gain", "threshold")),
    *("w_input_glom", "w_input_lat", "w_lat_glom", "w_glom_inh", "w_inh_kenyon", "w_glom_kenyon", "one", "zero"),
)
OPERATIONS = ("ops_input_glom", "ops_input_lat", "ops_lat", "ops_inh", "ops_glom_inh")  # per spike: synapses it reaches
GLOM, LAT, INH, KC, OUT = range(5)  # rows of the counters


def hidden_dtype(precision) -> np.dtype:
    """Return the record of the hidden layers' constants."""
    return np.dtype([(name, precision) for name in CONSTANTS] + [(name, np.int64) for name in OPERATIONS])


@njit(cache=True)
def run_mushroom_body(tables, shown, options, state, totals, block):
    """Show images to C nets. shown, options as in `shallow_kernel.run_shallow`.

    tables = (hidden (C,) records, masks (C, N, W) uint64, fan_out (C, N), constants (C,) records). state = (weights
    (C, K, cells), f (C, cells), t_pre (C, cells), small (C, 5, K), glom (C, 2, N), single (C, 4), kenyon (C, cells),
    spiked (C, padded cells) uint8): glom is v and s, single v and s of the lateral and of the inhibitory neuron, kenyon
    v. totals = (counts, counters (C, 5, 2) by layer, seen (C, B, cells) uint8): to `seen`, unless empty, Kenyon cells'
    spikes are added.
    """
    (hidden, masks, fan_out, constants), (images, labels, start, bounds, seed) = tables, shown
    weights, f, t_pre, small, glom, single, kenyon, spiked = state
    (steps, learn, reset), (counts, counters, seen) = options, totals
    n, cells, precision = images.shape[1], kenyon.shape[1], weights.dtype
    index, sizes = np.zeros((block, n), np.uint32), np.zeros(block, np.int64)
    spikes, limits = np.zeros((block, steps, padded_size(n)), precision), np.zeros(n, np.uint32)
    wide = padded_size(cells)
    drive = (np.zeros(8 * SEGMENT, np.uint64), np.zeros((8, masks.shape[2]), np.uint64))
    lists = (np.zeros(n, np.uint64), np.zeros(cells, np.uint32), np.zeros(len(spiked[0]), np.uint8))
    buffers = (np.zeros(n, precision), np.zeros((2, wide), precision), np.zeros((small.shape[2] + 2, wide), precision))
    for first in range(0, len(images), block):
        encode_block(images, first, start, bounds, seed, False, index, sizes, limits, spikes)
        for c in range(len(constants)):
            for b in range(min(block, len(images) - first)):
                if reset:
                    f[c], t_pre[c], small[c], glom[c], single[c], kenyon[c] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                    spiked[c] = 0
                own = (weights[c], f[c], t_pre[c], small[c], glom[c], single[c], kenyon[c], spiked[c])
                given = (index[b, : sizes[b]], spikes[b], labels[first + b], masks[c], fan_out[c])
                total = (counts[c, first + b], counters[c], seen[c, first + b] if seen.size else seen[c, 0])
                _show(hidden[c], constants[c], own, given, learn, reset, total, drive, lists, buffers)


@njit(cache=True)
def _show(h, p, own, given, learn, reset, total, drive, lists, buffers):
    """Show one sample. Within a step, every layer reads what the others did in the last one: outputs come first."""
    weights, f, t_pre, small, glom, single, kenyon, spiked = own
    pixels, train, label, masks, fan_out = given
    (counts, counters, seen), (planes, unpacked), (active, cells, listed) = total, drive, lists
    x, arrivals, scratch = buffers
    factors, out_counters = np.zeros((3, len(counts)), scratch.dtype), counters[OUT]
    listed[:], n_cells, n_active = 0, 0, 0
    if not reset:
        n_active = _list_spiking(glom[1], active)
        n_cells = _list_traces(own, cells, listed, scratch)
    for t in range(len(train)):
        lateral, inhibited = single[1] > h.zero, single[3] > h.zero
        n_cells = _list_new(spiked, cells, listed, n_cells, weights, scratch)
        size = padded_size(n_cells)
        now, before = arrivals[t % 2], arrivals[(t + 1) % 2]
        _arrive(spiked, cells, n_cells, now, before, t == 0)
        arrived = step_plastic(p, scratch, size, now, before, small, label, learn, factors, counts, out_counters)
        count_spiking(masks, active, n_active, planes, unpacked)
        counters[KC, 0] += arrived if t > 0 else 0  # what the Kenyon cells put out in the step before
        _step_kenyon(h, unpacked, inhibited, kenyon, spiked)
        for c in range(len(seen)):
            seen[c] += spiked[c]
        _step_single(h.inh_decay, h.inh_gain, h.inh_threshold, h.w_glom_inh * n_active, single[2:4])
        for i in range(n_active):
            counters[KC, 1] += fan_out[active[i]]
        counters[KC, 1] += inhibited * h.ops_inh
        counters[INH, 1] += n_active * h.ops_glom_inh
        bright = _fill(x, pixels, train[t])
        _step_glomeruli(h, x, lateral, glom[0], glom[1])
        _step_single(h.lat_decay, h.lat_gain, h.lat_threshold, h.w_input_lat * bright, single[0:2])
        n_active = _list_bright(glom[1], pixels, active)
        counters[GLOM, 0] += n_active
        counters[LAT, 0] += int(single[1])
        counters[INH, 0] += int(single[3])
        counters[GLOM, 1] += int(bright) * h.ops_input_glom + lateral * h.ops_lat
        counters[LAT, 1] += int(bright) * h.ops_input_lat
    counters[KC, 0] += _count(spiked)
    if learn:
        change_all(p, scratch, padded_size(n_cells), arrivals[(len(train) - 1) % 2], factors)
        for k in range(len(weights)):
            scatter(scratch, k, cells[:n_cells], weights[k])
    scatter(scratch, len(counts), cells[:n_cells], f)
    scatter(scratch, len(counts) + 1, cells[:n_cells], t_pre)


@njit(cache=True)
def _list_spiking(s, active):
    """List the glomeruli that spike, whatever the image."""
    count = 0
    for i in range(len(s)):
        if s[i] > 0:
            active[count] = i
            count += 1
    return count


@njit(cache=True)
def _list_bright(s, pixels, active):
    """List the glomeruli that spike: only those of pixels with input can, for other currents are not positive."""
    count = 0
    for j in range(len(pixels)):
        active[count] = pixels[j]
        count += s[pixels[j]] > 0
        if count == len(active):
            break
    return count


@njit(cache=True)
def _list_traces(own, cells, listed, scratch):
    """List the Kenyon cells that have a trace or a filtered value from the sample before; copy them into scratch."""
    weights, f, t_pre = own[0], own[1], own[2]
    count, n_out = 0, len(weights)
    for c in range(len(f)):
        if f[c] != 0 or t_pre[c] != 0:
            listed[c], cells[count] = 1, c
            for k in range(n_out):
                scratch[k, count] = weights[k, c]
            scratch[n_out, count], scratch[n_out + 1, count] = f[c], t_pre[c]
            count += 1
    scratch[n_out:, count : padded_size(count)] = 0.0
    return count


@njit(cache=True)
def _list_new(spiked, cells, listed, count, weights, scratch):
    """Append the Kenyon cells that spiked and are not listed yet; return the new length of the list."""
    spiked_words, listed_words, before = spiked.view(np.uint64), listed.view(np.uint64), count
    for w in range(len(spiked_words)):
        if spiked_words[w] & ~listed_words[w]:
            for c in range(8 * w, 8 * w + 8):
                if spiked[c] > listed[c]:
                    listed[c], cells[count] = 1, c
                    count += 1
    n_out = len(weights)
    for k in range(n_out):
        for i in range(before, count):
            scratch[k, i] = weights[k, cells[i]]
    scratch[n_out:, before : padded_size(count)] = 0.0
    return count


@njit(cache=True)
def _arrive(spiked, cells, count, now, before, first):
    """Collect the listed cells' spikes into `now`."""
    for i in range(count):
        now[i] = spiked[cells[i]]
    now[count : padded_size(count)] = 0
    if first:
        now[count:], before[:] = 0, 0


@njit(cache=True)
def _fill(x, pixels, train):
    """Spread a step's compact spikes over all inputs; return their number."""
    x[:] = 0
    bright = x[0]
    for j in range(len(pixels)):
        x[pixels[j]] = train[j]
        bright += train[j]
    return bright


@njit(cache=True, fastmath=FAST)
def _step_kenyon(h, unpacked, inhibited, v, s):
    counts = unpacked.reshape(-1).view(np.uint8)
    decay, threshold, zero, one = h.kc_decay, h.kc_threshold, h.zero, h.one
    weight, damping = h.kc_gain * h.w_glom_kenyon, h.kc_gain * h.w_inh_kenyon if inhibited else zero
    for c in range(len(v)):
        awake = zero if s[c] else decay
        new = awake * v[c] + (weight * (one * counts[c]) - damping)
        v[c] = new
        s[c] = new >= threshold


@njit(cache=True)
def _count(s):
    total = 0
    for c in range(len(s)):
        total += s[c]
    return total


@njit(cache=True, fastmath=FAST)
def _step_glomeruli(h, x, lateral, v, s):
    decay, gain, weight, threshold, zero, one = (
        *(h.glom_decay, h.glom_gain, h.w_input_glom),
        *(h.glom_threshold, h.zero, h.one),
    )
    damping = h.w_lat_glom if lateral else zero
    for i in range(len(v)):
        new = (one - s[i]) * decay * v[i] + gain * (weight * x[i] - damping)
        v[i] = new
        s[i] = one if new >= threshold else zero


@njit(cache=True)
def _step_single(decay, gain, threshold, current, vs):
    """Advance one neuron, vs = (v, s)."""
    vs[0] = gain * current if vs[1] > 0 else decay * vs[0] + gain * current
    vs[1] = vs[0] >= threshold
