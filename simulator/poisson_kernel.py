"""The Poisson generator of `encoders.py`, compiled: the same spikes, for blocks of images, bright pixels only."""

from __future__ import annotations

import numpy as np

from simulator.compiled import njit
from simulator.encoders import GOLDEN_32, GOLDEN_64, pixel_thresholds

_GOLDEN_64, _MIX_A, _MIX_B = np.uint64(GOLDEN_64), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN_32, _MUL_A, _MUL_B = np.uint32(GOLDEN_32), np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_S30, _S27, _S31, _S32 = (np.uint64(shift) for shift in (30, 27, 31, 32))
_S16, _S15 = np.uint32(16), np.uint32(15)


@njit(cache=True)
def step_key(seed, t):
    """Return the 32-bit key of step `t` of the stream `seed`, both uint64."""
    z = (seed + np.uint64(1)) * _GOLDEN_64 + t
    z = (z ^ (z >> _S30)) * _MIX_A
    z = (z ^ (z >> _S27)) * _MIX_B
    return np.uint32((z ^ (z >> _S31)) >> _S32)


@njit(cache=True, inline="always")
def draw(key, channel):
    """Return the uniform random uint32 of a channel. Numba widens products to 64 bits: each is cut back to 32."""
    h = np.uint32(np.uint32(channel * _GOLDEN_32) + key)
    h = np.uint32(np.uint32(h ^ (h >> _S16)) * _MUL_A)
    h = np.uint32(np.uint32(h ^ (h >> _S15)) * _MUL_B)
    return np.uint32(h ^ (h >> _S16))


@njit(cache=True, inline="always")
def padded_size(size):
    """Return `size` rounded up to a multiple of 32, so that vector loops leave no rest to do one by one."""
    return (size + 31) // 32 * 32


@njit(cache=True)
def encode_block(images, first, start, bounds, seed, everything, index, sizes, limits, spikes):
    """Encode the images (B, N) uint8 from `first` on into spikes (block, T, N), compact: channel j is pixel index[j].
    The first image of all is sample `start` of the random stream.

    Listed in `index` (block, N) are the `sizes` (block,) pixels that can spike, or all with `everything`. `bounds`
    (256,) holds the thresholds of pixel values, `limits` (N,) uint32 is scratch.
    """
    steps = spikes.shape[1]
    for b in range(min(len(sizes), len(images) - first)):
        size = 0
        for pixel in range(images.shape[1]):
            bound = bounds[images[first + b, pixel]]
            index[b, size] = pixel
            limits[size] = bound
            size += 1 if everything or bound > 0 else 0
        sizes[b] = size
        padded = min(padded_size(size), spikes.shape[2])
        for t in range(steps):
            key = step_key(seed, np.uint64((start + first + b) * steps + t))
            train = spikes[b, t]
            for j in range(size):
                train[j] = draw(key, index[b, j]) < limits[j]
            for j in range(size, padded):
                train[j] = 0


def encode_all(images: np.ndarray, steps: int, seed: int, scale: float = 1.0, first: int = 0) -> np.ndarray:
    """Return what `encoders.encode_images` does, (B, T, N) uint8, compiled."""
    count, n = images.shape
    spikes = np.zeros((count, steps, n), np.uint8)
    index, sizes, limits = np.zeros((count, n), np.uint32), np.zeros(count, np.int64), np.zeros(n, np.uint32)
    images = np.require(images, requirements=("C", "W"))
    encode_block(images, 0, first, pixel_thresholds(scale), np.uint64(seed), True, index, sizes, limits, spikes)
    return spikes
