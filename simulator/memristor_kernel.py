"""The motion of VTEAM memristors under a pulse, compiled; `memristor.py` tells the equations and uses it in step().

The state is z, from 0 (low resistance) to 1. A pulse is given as its `swing`: by how much it would move z if there were
neither window nor bounds, below 0 for the "on" branch.
"""

from __future__ import annotations

import numpy as np

from simulator.compiled import njit

CLIP, BIOLEK, KVATINSKY, JOGLEKAR, PRODROMAKIS = range(5)
FINE = 0.05  # the most that z would move in one of the integration's steps, without window
LONGEST = 50.0  # swings of a pulse: a longer one moves no further


@njit(cache=True)
def window(z, on, kind, p, first, second):
    """Return f(z), by which the rate is multiplied; `on`: of the on branch, where z falls."""
    if kind == BIOLEK:
        return 1.0 - (z - (1.0 if on else 0.0)) ** (2 * p)
    if kind == KVATINSKY:  # first, second: where the off and the on branch close, p: how sharply; all in units of z
        return np.exp(-np.exp((second - z) / p)) if on else np.exp(-np.exp((z - first) / p))
    if kind == JOGLEKAR:
        return 1.0 - (2.0 * z - 1.0) ** (2 * p)
    if kind == PRODROMAKIS:  # first: j, its height
        return first * (1.0 - ((z - 0.5) ** 2 + 0.75) ** p)
    return 1.0


@njit(cache=True)
def moved(z, swing, kind, p, first, second):
    """Return z after a pulse: exact without a window, else integrated by Runge-Kutta steps of fourth order."""
    if kind == CLIP or swing == 0.0:
        return min(max(z + swing, 0.0), 1.0)
    swing = min(max(swing, -LONGEST), LONGEST)
    steps, on = int(np.ceil(abs(swing) / FINE)), swing < 0.0
    h = swing / steps
    for _ in range(steps):
        a = window(z, on, kind, p, first, second)
        b = window(min(max(z + 0.5 * h * a, 0.0), 1.0), on, kind, p, first, second)
        c = window(min(max(z + 0.5 * h * b, 0.0), 1.0), on, kind, p, first, second)
        d = window(min(max(z + h * c, 0.0), 1.0), on, kind, p, first, second)
        z = min(max(z + h * (a + 2.0 * b + 2.0 * c + d) / 6.0, 0.0), 1.0)
    return z


@njit(cache=True)
def all_moved(z, swing, kind, p, first, second):
    """Return `moved` of an array z of any shape, with a swing of the same shape for each."""
    result = np.empty(z.size)
    flat, swings = z.ravel(), swing.ravel()
    for k in range(len(flat)):
        result[k] = moved(flat[k], swings[k], kind, p, first, second)
    return result.reshape(z.shape)


@njit(cache=True)
def weight_of(z, offset, scale, r_on, r_off, exponential):
    """Return offset + scale / R(z); works on numbers and arrays."""
    if exponential:
        return offset + scale / (r_on * (r_off / r_on) ** z)
    return offset + scale / (r_on + (r_off - r_on) * z)
