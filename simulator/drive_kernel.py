"""Counting, for each of many cells, how many of its inputs spike: bit-sliced, compiled.

Which cells an input reaches is a row of bits. The rows of the spiking inputs are added with carry-save adders, for 64
cells per word (512 with vector instructions). Cell c is bit c // (8 W) of byte c % (8 W) of a row of W words, so that
counts, one byte each, unpack in order. A count must not exceed 255.
"""

from __future__ import annotations

import numpy as np

from simulator.compiled import njit

SEGMENT = 128  # words whose counts are collected at a time: 8,192 cells
_PLANE = tuple(np.uint64(SEGMENT * plane) for plane in range(8))  # where the bits of counts begin, lowest first
_ONES = np.uint64(0x0101010101010101)


def pack_masks(mask: np.ndarray) -> np.ndarray:
    """Return a connection mask (E, cells) as rows of bits (E, W) uint64; see the module."""
    cells = mask.shape[1]
    width = -(-cells // 512) * 64  # bytes
    padded = np.zeros((len(mask), 8 * width), dtype=bool)
    padded[:, :cells] = mask
    packed = np.packbits(padded.reshape(len(mask), 8, width), axis=1, bitorder="little")  # (E, 1, width)
    return np.ascontiguousarray(packed.reshape(len(mask), width)).view(np.uint64)


@njit(cache=True)
def count_spiking(masks, active, n_active, planes, unpacked):
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
