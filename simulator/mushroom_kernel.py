"""The mushroom body, compiled. Made fast by

- bit-sliced counting: which Kenyon cells a glomerulus reaches is a row of bits; the rows of the spiking glomeruli are
  added with carry-save adders, for 64 cells per word (512 with vector instructions);
- following only Kenyon cells that have spiked: others have no trace and give no current. Their weights are copied into
  a compact block, and back after the sample.

Cell c is bit c // (8 W) of byte c % (8 W) of a row of W words, so that counts unpack into bytes in order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from simulator.plastic_kernel import FAST, change_all, scatter, step_plastic
from simulator.poisson_kernel import encode_block, padded_size

SEGMENT = 128  # words whose counts are collected at a time: 8,192 cells
HIDDEN = ("glom", "lat", "inh", "kc")
CONSTANTS = (
    *(f"{name}_{what}" for name in HIDDEN for what in ("decay", "gain", "threshold")),
    *("w_input_glom", "w_input_lat", "w_lat_glom", "w_glom_inh", "w_inh_kenyon", "w_glom_kenyon", "one", "zero"),
)
OPERATIONS = ("ops_input", "ops_lat", "ops_inh", "ops_glom_inh")  # per spike: synapses that it reaches
_PLANE = tuple(np.uint64(SEGMENT * plane) for plane in range(8))  # where the bits of counts begin, lowest first
_ONES = np.uint64(0x0101010101010101)


def hidden_dtype(precision) -> np.dtype:
    """Return the record of the hidden layers' constants."""
    return np.dtype([(name, precision) for name in CONSTANTS] + [(name, np.int64) for name in OPERATIONS])


def pack_masks(mask: np.ndarray) -> np.ndarray:
    """Return a connection mask (E, cells) as rows of bits (E, W) uint64; see the module."""
    cells = mask.shape[1]
    width = -(-cells // 512) * 64  # bytes
    padded = np.zeros((len(mask), 8 * width), dtype=bool)
    padded[:, :cells] = mask
    packed = np.packbits(padded.reshape(len(mask), 8, width), axis=1, bitorder="little")  # (E, 1, width)
    return np.ascontiguousarray(packed.reshape(len(mask), width)).view(np.uint64)


@njit(cache=True)
def run_mushroom_body(
    hidden,
    masks,
    fan_out,
    constants,
    images,
    labels,
    start,
    bounds,
    seed,
    steps,
    learn,
    reset,
    state,
    counts,
    counters,
    seen,
    block,
):
    """Show images (B, N) uint8 to C nets; as `shallow_kernel.run_shallow`.

    hidden, constants (C,) records; masks (C, N, W) uint64; fan_out (C, N). state = (weights (C, cells, K),
    f (C, cells), t_pre (C, cells), small (C, 5, K), glom (C, 2, N), single (C, 4), kenyon (C, cells), spiked (C, padded
    cells) uint8): glom is v and s, single v and s of the lateral and of the inhibitory neuron, kenyon v. To
    seen (C, B, cells) uint8 the Kenyon cells' spikes are added, unless it is empty.
    """
    weights, f, t_pre, small, glom, single, kenyon, spiked = state
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
    factors = np.zeros((3, len(counts)), scratch.dtype)
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
        arrived = step_plastic(p, scratch, size, now, before, small, label, learn, factors, counts, counters)
        _drive(masks, active, n_active, planes, unpacked)
        counters[0] += arrived if t > 0 else 0  # what the Kenyon cells put out in the step before
        _step_kenyon(h, unpacked, inhibited, kenyon, spiked)
        for c in range(len(seen)):
            seen[c] += spiked[c]
        _step_single(h.inh_decay, h.inh_gain, h.inh_threshold, h.w_glom_inh * n_active, single[2:4])
        for i in range(n_active):
            counters[1] += fan_out[active[i]]
        counters[1] += n_active * h.ops_glom_inh + lateral * h.ops_lat + inhibited * h.ops_inh
        bright = _fill(x, pixels, train[t])
        _step_glomeruli(h, x, lateral, glom[0], glom[1])
        _step_single(h.lat_decay, h.lat_gain, h.lat_threshold, h.w_input_lat * bright, single[0:2])
        n_active = _list_bright(glom[1], pixels, active)
        counters[0] += n_active + int(single[1]) + int(single[3])
        counters[1] += int(bright) * h.ops_input
    counters[0] += _count(spiked)
    if learn:
        change_all(p, scratch, padded_size(n_cells), arrivals[(len(train) - 1) % 2], factors)
        _copy_weights(cells, n_cells, scratch, weights)
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
    count, n_out = 0, weights.shape[1]
    for c in range(len(f)):
        if f[c] != 0 or t_pre[c] != 0:
            listed[c], cells[count] = 1, c
            for k in range(n_out):
                scratch[k, count] = weights[c, k]
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
    n_out = weights.shape[1]
    for i in range(before, count):
        row = weights[cells[i]]
        for k in range(n_out):
            scratch[k, i] = row[k]
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
def _copy_weights(cells, count, scratch, weights):
    n_out = weights.shape[1]
    for i in range(count):
        row = weights[cells[i]]
        for k in range(n_out):
            row[k] = scratch[k, i]


@njit(cache=True)
def _fill(x, pixels, train):
    """Spread a step's compact spikes over all inputs; return their number."""
    x[:] = 0
    bright = x[0]
    for j in range(len(pixels)):
        x[pixels[j]] = train[j]
        bright += train[j]
    return bright


@njit(cache=True)
def _drive(masks, active, n_active, planes, unpacked):
    """Count, for each Kenyon cell, its spiking glomeruli: `unpacked` (8, W) holds the counts as bytes."""
    words = unpacked.shape[1]
    for first in range(0, words, SEGMENT):
        last = min(first + SEGMENT, words)
        planes[:] = 0
        for i in range(0, n_active - 7, 8):
            a, b = active[i : i + 4], active[i + 4 : i + 8]
            _add_eight(
                planes,
                *(masks[a[0], first:last], masks[a[1], first:last], masks[a[2], first:last], masks[a[3], first:last]),
                *(masks[b[0], first:last], masks[b[1], first:last], masks[b[2], first:last], masks[b[3], first:last]),
            )
        for i in range(n_active - n_active % 8, n_active):
            _add_one(planes, masks[active[i], first:last])
        for bit in range(8):
            _unpack(planes, np.uint64(bit), unpacked[bit, first:last])


@njit(cache=True)
def _add_eight(planes, a, b, c, d, e, f, g, h):
    """Add eight rows of bits to the bit-sliced counts: seven full adders, then the carry of eights."""
    for w in range(np.uint64(len(a))):
        ones, twos_a = _full_adder(planes[w], a[w], b[w])
        ones, twos_b = _full_adder(ones, c[w], d[w])
        twos, fours_a = _full_adder(planes[w + _PLANE[1]], twos_a, twos_b)
        ones, twos_a = _full_adder(ones, e[w], f[w])
        ones, twos_b = _full_adder(ones, g[w], h[w])
        twos, fours_b = _full_adder(twos, twos_a, twos_b)
        fours, carry = _full_adder(planes[w + _PLANE[2]], fours_a, fours_b)
        planes[w], planes[w + _PLANE[1]], planes[w + _PLANE[2]] = ones, twos, fours
        carry = _add_carry(planes, w + _PLANE[3], carry)
        carry = _add_carry(planes, w + _PLANE[4], carry)
        carry = _add_carry(planes, w + _PLANE[5], carry)
        carry = _add_carry(planes, w + _PLANE[6], carry)
        _add_carry(planes, w + _PLANE[7], carry)


@njit(cache=True)
def _full_adder(a, b, c):
    """Return (sum, carry) of three bits, in 64 places at once."""
    half = a ^ b
    return half ^ c, (a & b) | (half & c)


@njit(cache=True)
def _add_carry(planes, at, carry):
    """Add one bit to planes[at]; return the carry."""
    old = planes[at]
    planes[at] = old ^ carry
    return old & carry


@njit(cache=True)
def _add_one(planes, row):
    for w in range(np.uint64(len(row))):
        carry = row[w]
        for plane in _PLANE:
            carry = _add_carry(planes, w + plane, carry)


@njit(cache=True)
def _unpack(planes, bit, counts):
    """Collect one bit of each byte of all planes into counts, one byte each."""
    for w in range(np.uint64(len(counts))):
        total = (planes[w] >> bit) & _ONES
        for power in range(1, 8):
            total += ((planes[w + _PLANE[power]] >> bit) & _ONES) << np.uint64(power)
        counts[w] = total


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
