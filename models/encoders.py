"""Data into spikes: encode(x, params, rng) -> (B, T, C) uint8 of zeros and ones.

Images (B, H, W) uint8 0..255 are shown row by row in H blocks of `steps_per_row` steps, then `tail_steps` empty steps.
Block r shows row r on W channels and, with scan "both", column r on H more. `coding` turns the intensity p = x / 255
into spikes within the block's k steps:
    thermometer  on in the first round(p k) steps
    rate         on in round(p k) steps, spread evenly, the first one included
    latency      on once, in step k - round(p k): the brighter the earlier; never where round(p k) is 0
    poisson      on in each step with probability p, drawn from `rng`
Events (B, T, C) pass as they are, clipped to 1. Letters in shapes: B samples, T steps, C channels, H x W pixels.
"""

from __future__ import annotations

import numpy as np

IMAGE_STEP_MS = 1.0  # what one step of an encoded image counts as


def encode(x: np.ndarray, params, rng: np.random.Generator | None = None, events: bool = False) -> np.ndarray:
    """Return x as spikes (B, T, C) uint8; `params` has coding, scan, steps_per_row and tail_steps.

    `events` says that x is (B, T, C) events and not images. Raises ValueError for another kind of data, for images that
    are not square with scan "both", and for coding "poisson" without `rng`.
    """
    if x.ndim != 3 or x.dtype != np.uint8:
        raise ValueError(f"x must be uint8 images (B, H, W) or events (B, T, C), not {x.dtype} of shape {x.shape}")
    if events:
        return np.minimum(x, 1)
    pixels = _scanned(x, params.scan)  # (B, H, C)
    spikes = _coded(pixels, params.coding, params.steps_per_row, rng)  # (B, H, k, C)
    spikes = spikes.reshape(len(x), -1, pixels.shape[2])
    return np.pad(spikes, ((0, 0), (0, params.tail_steps), (0, 0)))


def _scanned(images: np.ndarray, scan: str) -> np.ndarray:
    """Return what is shown in each block (B, H, C): a row, and the column of the same number with scan "both"."""
    if scan == "row":
        return images
    if images.shape[1] != images.shape[2]:
        raise ValueError(f"scan both needs square images, not {images.shape[1]} x {images.shape[2]}; choose scan row")
    return np.concatenate([images, images.transpose(0, 2, 1)], axis=2)


def _coded(pixels: np.ndarray, coding: str, k: int, rng: np.random.Generator | None) -> np.ndarray:
    """Return spikes (B, H, k, C) uint8 for intensities (B, H, C) uint8."""
    if coding == "poisson":
        if rng is None:
            raise ValueError("coding poisson draws spikes: it needs rng, a numpy random generator")
        draws = rng.random((*pixels.shape[:2], k, pixels.shape[2]), dtype=np.float32)
        return (draws * 255 < pixels[:, :, None]).astype(np.uint8)
    step = np.arange(k)[:, None]  # (k, 1)
    count = ((2 * k * pixels.astype(np.int64) + 255) // 510)[:, :, None]  # round(p k), halves upward, (B, H, 1, C)
    if coding == "thermometer":
        on = step < count
    elif coding == "rate":
        on = step * count % k < count
    elif coding == "latency":
        on = (step == k - count) & (count > 0)
    else:
        raise ValueError(f"coding must be one of thermometer, rate, latency, poisson, not {coding!r}")
    return on.astype(np.uint8)
