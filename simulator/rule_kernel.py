"""Rules given as text, compiled: a small bytecode made of their products, and the kernel that runs it.

In the whole numbers at `synapse.program`: how many products, then for each of them its target (0 w, 1 d, 2 t), its k of
u<k> (-1: due in every step), how many factors of rows, columns and elements it has, and their codes. At
`synapse.numbers` in the pool: for each product its scale, then the constant of each factor. What is computed, and in
which order, is defined by `Programmed`. A sum over (P, E) visits only those columns and rows where it is not 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit

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
def change_by_program(synapse, pool, whole, rows, columns):
    """Change weights, delays and tags; rows (6, P) are y0 to y3, m0, m1, columns (3, E) are x0 to x2."""
    n_post, n_pre, count = synapse.n_post, synapse.n_pre, whole[synapse.program]
    table = np.empty((count, 4), np.int64)  # per product: target, elements, their places in `whole` and in the pool
    by_row, by_column = np.ones((count, n_post)), np.ones((count, n_pre))
    active, n_active = np.empty((count, n_pre), np.int64), np.zeros(count, np.int64)
    at, number = synapse.program + 1, synapse.numbers
    for p in range(count):
        k, n_rows, n_columns = whole[at + 1], whole[at + 2], whole[at + 3]
        table[p, 0], table[p, 1] = whole[at], whole[at + 4]
        due = k < 0 or int(pool[synapse.epochs]) % (1 << max(k, 0)) == 0
        scale, at, number = pool[number], at + 5, number + 1
        _multiply(by_row[p], rows, whole[at : at + n_rows], pool[number : number + n_rows])
        by_row[p] *= scale
        at, number = at + n_rows, number + n_rows
        _multiply(by_column[p], columns, whole[at : at + n_columns], pool[number : number + n_columns])
        at, number = at + n_columns, number + n_columns
        n_active[p] = _not_zero(by_column[p], active[p]) if due else 0
        table[p, 2], table[p, 3] = at, number
        at, number = at + table[p, 1], number + table[p, 1]
    old = np.empty((3, n_pre))
    for i in range(n_post):
        _change_row(synapse, pool, whole, i, table, by_row, by_column, active, n_active, old)


@njit(cache=True)
def _multiply(product, values, codes, constants):
    """Multiply `product` (N,) by the coded rows of `values` (kinds, N), each plus its constant."""
    for f in range(len(codes)):
        for j in range(len(product)):
            product[j] *= values[codes[f], j] + constants[f]


@njit(cache=True)
def _not_zero(values, places):
    """Write the places of values other than 0 and return how many they are."""
    count = 0
    for j in range(len(values)):
        places[count] = j
        count += values[j] != 0.0
    return count


@njit(cache=True)
def _change_row(synapse, pool, whole, i, table, by_row, by_column, active, n_active, old):
    """Add all products to the synapses of neuron i, then clip what has changed."""
    n_pre, count = synapse.n_pre, len(table)
    starts = (synapse.weights + i * n_pre, synapse.delays + i * n_pre, synapse.tag + i * n_pre)
    lows, highs = (synapse.low, 0.0, -synapse.tag_limit), (synapse.high, 1.0 * synapse.max_delay, synapse.tag_limit)
    _remember(synapse, pool, table, n_pre, starts, old)
    for p in range(count):
        coefficient, target = by_row[p, i], pool[starts[table[p, 0]] : starts[table[p, 0]] + n_pre]
        if coefficient != 0.0:
            for a in range(n_active[p]):
                j = active[p, a]
                term = coefficient * by_column[p, j]
                for e in range(table[p, 1]):
                    code, constant = whole[table[p, 2] + e], pool[table[p, 3] + e]
                    term *= _element(old, code, j, constant)
                target[j] += term
    for p in range(count):
        if by_row[p, i] != 0.0:
            low, high, start = lows[table[p, 0]], highs[table[p, 0]], starts[table[p, 0]]
            for a in range(n_active[p]):
                at = start + active[p, a]
                pool[at] = min(max(pool[at], low), high)


@njit(cache=True)
def _remember(synapse, pool, table, n_pre, starts, old):
    """Copy the row's weights, delays and tags of before, if any product has them as factors."""
    read = 0
    for p in range(len(table)):
        read += table[p, 1]
    if read > 0:
        for z in range(3):
            if z == 0 or (z == 1 and synapse.has_delays > 0) or (z == 2 and synapse.has_tag > 0):
                old[z] = pool[starts[z] : starts[z] + n_pre]


@njit(cache=True)
def _element(old, code, j, constant):
    if code < SIGN:
        return old[code, j] + constant
    return np.sign(old[code - SIGN, j] + constant)


@njit(cache=True)
def add_delayed(synapse, pool, value, current):
    """Put the filtered input at the front of the line, and add the current of every synapse at its own delay."""
    n_pre = synapse.n_pre
    line = pool[synapse.line : synapse.line + (synapse.max_delay + 1) * n_pre]
    for at in range(len(line) - 1, n_pre - 1, -1):
        line[at] = line[at - n_pre]
    line[:n_pre] = value
    for i in range(synapse.n_post):
        total = 0.0
        for j in range(n_pre):
            at = i * n_pre + j
            late = int(np.floor(pool[synapse.delays + at] + 0.5))
            total += pool[synapse.weights + at] * line[late * n_pre + j]
        current[i] += synapse.sign * total
