"""Rules given as text, compiled: a small bytecode made of their products, and the kernel that runs it.

In the whole numbers at `synapse.program`: how many products, then for each of them its target (0 w, 1 d, 2 t), its k of
u<k> (-1: due in every step), how many factors of rows, columns and elements it has, and their codes. At
`synapse.numbers` in the pool: for each product its scale, then the constant of each factor. What is computed, and in
which order, is defined by `Programmed`. The state is in the block of awake_kernel.py, A awake inputs wide.
"""

from __future__ import annotations

import numpy as np

from simulator.awake_kernel import X0, X1, X2, block_of, block_rows, move_trace
from simulator.compiled import njit
from simulator.memristor_kernel import moved, weight_of
from simulator.programmed import COLUMNS, ROWS, Programmed, divide

SIGN = 3  # added to the codes 0, 1, 2 of w, d, t where their sign counts
TARGETS = ("w", "d", "t")


def assemble(synapse: Programmed) -> tuple[np.ndarray, np.ndarray]:
    """Return (program, numbers) of a synapse's rule."""
    rules = synapse.rule.rules
    program, numbers = [sum(len(products) for products in rules.values())], []
    for target, products in rules.items():
        for product in products:
            k = int(product.dependency[1]) if product.dependency[0] == "u" else -1
            kinds = divide(product)
            program += [TARGETS.index(target), k, *(len(kind) for kind in kinds)]
            for kind, names in zip(kinds, (ROWS, COLUMNS, TARGETS), strict=True):
                program += [names.index(factor.name) + SIGN * factor.sign for factor in kind]
            numbers += [product.scale] + [factor.constant for kind in kinds for factor in kind]
    return np.array(program), np.array(numbers, dtype=float)


@njit(cache=True)
def follow_text(synapse, pool, whole, rows, learn):
    """Advance the traces and, if `learn`, change w, d and t; rows (6, P) are y0 to y3, m0 and m1 of this step."""
    block, count = block_of(synapse, pool), whole[synapse.awake]
    if synapse.has_device and synapse.swing_read != 0.0:
        _read(synapse, block, count)
    move_trace(block[X1], block[X0], count, synapse.pre_gain, synapse.pre_keep, synapse.pre_limit)
    if synapse.x2_gain > 0.0:
        move_trace(block[X2], block[X0], count, synapse.x2_gain, synapse.x2_keep, synapse.x2_limit)
    pool[synapse.epochs] += 1.0
    if learn:
        _change(synapse, pool, whole, block, count, rows)


@njit(cache=True)
def _change(synapse, pool, whole, block, count, rows):
    n_products = whole[synapse.program]
    table = np.empty((n_products, 5), np.int64)  # target, elements, their places in `whole` and in the pool, is due
    by_row, by_column = np.ones((n_products, synapse.n_post)), np.ones((n_products, count))
    at, number = synapse.program + 1, synapse.numbers
    columns = np.array([X0, X1, X2])
    for p in range(n_products):
        k, n_rows, n_columns = whole[at + 1], whole[at + 2], whole[at + 3]
        table[p, 0], table[p, 1] = whole[at], whole[at + 4]
        table[p, 4] = k < 0 or int(pool[synapse.epochs]) % (1 << max(k, 0)) == 0
        scale, at, number = pool[number], at + 5, number + 1
        for f in range(n_rows):
            _multiply(by_row[p], rows[whole[at + f]], pool[number + f])
        by_row[p] *= scale * table[p, 4]
        at, number = at + n_rows, number + n_rows
        for f in range(n_columns):
            _multiply(by_column[p], block[columns[whole[at + f]]], pool[number + f])
        at, number = at + n_columns, number + n_columns
        table[p, 2], table[p, 3] = at, number
        at, number = at + table[p, 1], number + table[p, 1]
    scratch = np.empty((4, count))  # weights, delays and tags of before, and a product
    remember = synapse.has_device or table[:, 1].max() > 0
    for i in range(synapse.n_post):
        _change_row(synapse, pool, whole, block, i, table, by_row, by_column, scratch, remember)


@njit(cache=True)
def _multiply(product, values, constant):
    """Multiply `product` (N,) by the first N values, plus the constant."""
    for j in range(len(product)):
        product[j] *= values[j] + constant


@njit(cache=True)
def _change_row(synapse, pool, whole, block, i, table, by_row, by_column, scratch, remember):
    """Add all products to the synapses of neuron i, then clip what has changed. `remember`: w, d, t are read, too."""
    _, weights, delays, tags, devices, _ = block_rows(synapse)
    own = (weights + i, delays + i, tags + i)
    lows, highs = (synapse.low, 0.0, -synapse.tag_limit), (synapse.high, 1.0 * synapse.max_delay, synapse.tag_limit)
    count, changed = by_column.shape[1], 0  # a bit for each target
    if remember:
        for z in range(3):
            if z == 0 or (z == 1 and synapse.has_delays > 0) or (z == 2 and synapse.has_tag > 0):
                scratch[z] = block[own[z], :count]
    for p in range(len(table)):
        if by_row[p, i] != 0.0:
            changed |= 1 << table[p, 0]
            _add_product(whole, pool, table[p], by_row[p, i], by_column[p], scratch, block[own[table[p, 0]]])
    for z in range(3):
        if changed & (1 << z):
            _clip(block[own[z]], count, lows[z], highs[z])
    if synapse.has_device and changed & 1:
        _pulse(synapse, block[weights + i], block[devices + i], scratch[0])


@njit(cache=True)
def _add_product(whole, pool, place, coefficient, column, scratch, values):
    if place[1] == 0:
        for a in range(len(column)):
            values[a] += coefficient * column[a]
        return
    term = scratch[3]
    for a in range(len(column)):
        term[a] = coefficient * column[a]
    for e in range(place[1]):
        code, constant = whole[place[2] + e], pool[place[3] + e]
        if code < SIGN:
            _multiply(term, scratch[code], constant)
        else:
            _multiply(term, np.sign(scratch[code - SIGN] + constant), 0.0)
    for a in range(len(column)):
        values[a] += term[a]


@njit(cache=True)
def _clip(values, count, low, high):
    for a in range(count):
        value = values[a]
        value = low if value < low else value
        values[a] = high if value > high else value


@njit(cache=True)
def _read(synapse, block, count):
    """Let the reading of the inputs that spike disturb the devices."""
    _, weights, _, _, devices, _ = block_rows(synapse)
    for a in range(count):
        if block[X0, a] != 0.0:
            for i in range(synapse.n_post):
                _move_device(synapse, block[weights + i], block[devices + i], a, synapse.swing_read)


@njit(cache=True)
def _pulse(synapse, weights, devices, old):
    """Turn the changes of weights (A,) since `old` into pulses to their devices."""
    for a in range(len(old)):
        change = weights[a] - old[a]
        weights[a] = old[a]
        if change > synapse.least:
            _move_device(synapse, weights, devices, a, synapse.swing_up)
        elif change < -synapse.least:
            _move_device(synapse, weights, devices, a, synapse.swing_down)


@njit(cache=True)
def _move_device(synapse, weights, devices, a, swing):
    devices[a] = moved(devices[a], swing, synapse.window, synapse.window_p, synapse.window_first, synapse.window_second)
    weights[a] = weight_of(
        devices[a], synapse.offset, synapse.scale, synapse.r_on, synapse.r_off, synapse.exponential != 0
    )
    _clip(weights[a : a + 1], 1, synapse.low, synapse.high)  # rounding may have led beyond them
