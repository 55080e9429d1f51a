"""Spike generators: Poisson, periodic and given sequences, as elements and, for images, as whole spike trains.

The Poisson generator draws no stream of random numbers: whether channel c spikes in step t of seed r is a pure function
of (r, t, c), so that spikes depend neither on the order of evaluation nor on what else runs, here as in the kernels:

    key = upper 32 bits of splitmix64((r + 1) 0x9E3779B97F4A7C15 + t)
    h = lowbias32(c 0x9E3779B9 + key)          both modulo 2^32
    spike where h < ceil(2^32 p), at most 2^32 - 1

Generators with one seed put out the same noise: give each Poisson element of a net its own, and another one than that
of the images shown to it (`run.Images.seed`).

splitmix64: Steele, Lea and Flood, OOPSLA 2014. lowbias32: C. Wellons, hash prospector (public domain).
"""

from __future__ import annotations

import numpy as np

from simulator.streamnet import Element, whole

GOLDEN_64, GOLDEN_32 = 0x9E3779B97F4A7C15, 0x9E3779B9
MASK_64 = 2**64 - 1


def step_key(seed: int, t: int) -> int:
    """Return the 32-bit key of step `t` of the random stream `seed`."""
    z = ((seed + 1) * GOLDEN_64 + t) & MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64
    return (z ^ (z >> 31)) >> 32


def draws(seed: int, t: int, n: int) -> np.ndarray:
    """Return h (N,) uint32: the uniform random numbers of `n` channels in step `t` of the stream `seed`."""
    h = np.arange(n, dtype=np.uint32) * np.uint32(GOLDEN_32) + np.uint32(step_key(seed, t))
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))


def thresholds(probability: np.ndarray) -> np.ndarray:
    """Return the uint32 bound that a draw has to stay below to spike with `probability` (above 1 counts as 1)."""
    scaled = np.ceil(np.clip(probability, 0.0, 1.0) * 2.0**32)
    return np.minimum(scaled, 2.0**32 - 1).astype(np.uint32)


def pixel_thresholds(scale: float = 1.0) -> np.ndarray:
    """Return the thresholds (256,) of pixels 0..255 for p = scale x / 255."""
    return thresholds(scale * np.arange(256) / 255)


def encode_images(images: np.ndarray, steps: int, seed: int, scale: float = 1.0, first: int = 0) -> np.ndarray:
    """Return Poisson spikes (B, T, N) uint8 of `images` (B, N) uint8; image i has the steps from (first + i) T on."""
    bounds = pixel_thresholds(scale)[images]  # (B, N)
    spikes = np.empty((len(images), steps, images.shape[1]), dtype=np.uint8)
    for sample in range(len(images)):
        for t in range(steps):
            spikes[sample, t] = draws(seed, (first + sample) * steps + t, images.shape[1]) < bounds[sample]
    return spikes


class Generator(Element):
    """A source of N spike trains with p = scale * rate, cut to 0..1: rates given here, or at a port in each step.

    Args: `n` trains; `rates` (N,), at least 0 [spikes per step]; `scale` at least 0. Raises ValueError for others.
    """

    def __init__(self, n: int, rates: np.ndarray | None = None, scale: float = 1.0):
        super().__init__((n,) if rates is None else (), (n,))
        if not 0 <= scale < np.inf:
            raise ValueError(f"scale must be at least 0 and finite, not {scale}")
        self.n, self.scale = int(n), float(scale)
        self.rates = None if rates is None else np.array(rates, dtype=float)
        if rates is not None and self.rates.shape != (n,):
            raise ValueError(f"rates of {n} spike trains must have the shape ({n},), not {self.rates.shape}")
        if rates is not None and not (np.isfinite(self.rates) & (self.rates >= 0)).all():
            raise ValueError(f"rates must be at least 0 and finite, not {self.rates.min()} to {self.rates.max()}")

    def step(self, *inputs, learn=True):
        """Put out the next spikes."""
        p = np.clip(self.scale * (inputs[0] if self.rates is None else self.rates), 0.0, 1.0)
        spikes = self.spikes(p)
        self.outputs = (np.asarray(spikes, dtype=float),)
        return self.outputs

    def spikes(self, p: np.ndarray) -> np.ndarray:
        """Return the next spikes (N,) at the spikes per step `p` (N,)."""
        raise NotImplementedError


class Poisson(Generator):
    """Independent spikes with probability scale * rate in each step.

    The step number `t` goes on over a reset, for two samples must not see the same noise; set `t[0]` to go to a step.
    `seed` has no default: generators of one seed, and images shown with it, have the same noise.
    """

    def __init__(self, n: int, rates: np.ndarray | None = None, scale: float = 1.0, *, seed: int):
        super().__init__(n, rates, scale)
        self.seed = whole("seed of Poisson", seed, 0)
        self.t = np.zeros(1, dtype=np.int64)

    def spikes(self, p):
        """Return the next spikes."""
        drawn = draws(self.seed, int(self.t[0]), self.n) < thresholds(p)
        self.t += 1
        return drawn

    def state(self):
        """Return outputs and step number."""
        return super().state() | {"t": self.t}


class Periodic(Generator):
    """Regular spikes: a phase grows by scale * rate per step; at 1 it spikes and loses 1."""

    def __init__(self, n: int, rates: np.ndarray | None = None, scale: float = 1.0):
        super().__init__(n, rates, scale)
        self.phase = np.zeros(n)

    def spikes(self, p):
        """Return the next spikes."""
        self.phase = self.phase + p
        spikes = self.phase >= 1
        self.phase = self.phase - spikes
        return spikes

    def reset(self):
        """Set the phases to zero."""
        super().reset()
        self.phase = np.zeros(self.n)

    def state(self):
        """Return outputs and phases."""
        return super().state() | {"phase": self.phase}


class Sequence(Element):
    """Plays the given spikes (T, N) over and over; a reset goes back to the first row."""

    def __init__(self, spikes: np.ndarray):
        self.sequence = np.array(spikes, dtype=float)
        if self.sequence.ndim != 2 or not len(self.sequence):
            raise ValueError(f"a sequence has the shape (steps, trains), not {self.sequence.shape}")
        if not np.isfinite(self.sequence).all():
            raise ValueError("a sequence must be finite numbers")
        super().__init__((), (self.sequence.shape[1],))
        self.t = np.zeros(1, dtype=np.int64)

    def step(self, *inputs, learn=True):
        """Put out the next row."""
        self.outputs = (self.sequence[self.t[0] % len(self.sequence)].copy(),)
        self.t += 1
        return self.outputs

    def reset(self):
        """Go back to the first row."""
        super().reset()
        self.t = np.zeros(1, dtype=np.int64)

    def state(self):
        """Return outputs and step number."""
        return super().state() | {"t": self.t}
