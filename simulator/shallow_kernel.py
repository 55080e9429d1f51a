"""The shallow network, compiled. Made fast by

- following only the pixels that can spike: their weights are copied into a compact block, and back after the sample;
- one pass over the weights per step, which applies the last step's dW and sums the new currents;
- encoding each block of samples once for all configurations of a batch.
"""

from __future__ import annotations

import numpy as np

from simulator.compiled import njit
from simulator.plastic_kernel import change_all, gather, scatter, step_plastic
from simulator.poisson_kernel import encode_block, padded_size


@njit(cache=True)
def run_shallow(constants, shown, options, state, totals, block):
    """Show images to C nets of the records constants (C,).

    shown = (images (B, N) uint8, labels (B,) int64, -1 for none, number of the first image in the random stream, the
    256 thresholds of pixels, seed); options = (steps, learn, reset); state = (weights (C, K, N), f (C, N), t_pre
    (C, N), small (C, 5, K)), where small are v, s, t_post, m, t_mod. totals = (counts (C, B, K), counters (C, 1, 2)):
    to these the output spikes, and [spikes, operations], are added.
    """
    (images, labels, start, bounds, seed), (steps, learn, reset), (counts, counters) = shown, options, totals
    weights, f, t_pre, small = state
    n, precision = images.shape[1], weights.dtype
    index, sizes = np.zeros((block, n), np.uint32), np.zeros(block, np.int64)
    spikes, limits = np.zeros((block, steps, padded_size(n)), precision), np.zeros(n, np.uint32)
    factors = np.zeros((3, weights.shape[1]), precision)
    scratch = np.zeros((weights.shape[1] + 2, padded_size(n)), precision)
    for first in range(0, len(images), block):
        encode_block(images, first, start, bounds, seed, not reset, index, sizes, limits, spikes)
        for c in range(len(constants)):
            for b in range(min(block, len(images) - first)):
                if reset:
                    f[c], t_pre[c], small[c] = 0.0, 0.0, 0.0
                own = (weights[c], f[c], t_pre[c], small[c])
                pixels, label, total = index[b, : sizes[b]], labels[first + b], counts[c, first + b]
                _show(constants[c], own, pixels, spikes[b], label, learn, total, counters[c, 0], scratch, factors)


@njit(cache=True)
def _show(p, own, pixels, train, label, learn, counts, counters, scratch, factors):
    """Show one sample: copy its pixels' part of the state into `scratch`, step, copy back."""
    weights, f, t_pre, small = own
    n_out, size = len(weights), padded_size(len(pixels))
    scratch[:, len(pixels) : size] = 0.0
    gather(f, pixels, scratch, n_out)
    gather(t_pre, pixels, scratch, n_out + 1)
    for k in range(n_out):
        gather(weights[k], pixels, scratch, k)
    factors[:] = 0.0
    for t in range(len(train)):
        before = train[max(t - 1, 0)]
        step_plastic(p, scratch, size, train[t], before, small, label, learn, factors, counts, counters)
    if learn:
        change_all(p, scratch, size, train[len(train) - 1], factors)
        for k in range(n_out):
            scatter(scratch, k, pixels, weights[k])
    scatter(scratch, n_out, pixels, f)
    scatter(scratch, n_out + 1, pixels, t_pre)
