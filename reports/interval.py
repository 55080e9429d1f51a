"""How sure a mean test accuracy is, or the difference of two: the one place where intervals come from.

    accuracy(right)             right (S, B): what each of S trainings got right on the same B test samples
    estimate(right - other)     the difference of two methods on the same splits

The target is the mean accuracy over new trainings and new test samples. Trainings and samples are crossed random
effects (every training is tested on every sample), so that the variance of the mean is

    var(means of samples) / B + max(0, var(means of trainings) / S - var(rest) / (S B))

with `rest` what means of trainings and of samples leave (MS_samples + MS_trainings - MS_rest over S B in terms of mean
squares; degrees of freedom by Satterthwaite). The first part is the choice of the test samples, and what all trainings
have in common on them; the second the luck of each split and seed, without that of the samples, which is in the first.
Left out is what all splits owe to the pool that they are drawn from: of a smooth learner n1 / n2 times the variance of
its splits' true accuracies (delete-d jackknife; n1 learnt, n2 left out), which ten splits cannot tell from 0. Intervals
hold without it where pools are drawn anew, too (benchmarks/coverage.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NONE_IN = 3.0  # where no sample differs from another: up to 3 in B would have been missed with 95 % ("rule of three")


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval, and the p value of a mean of 0."""

    mean: float
    low: float
    high: float
    p: float


def estimate(right: np.ndarray, level: float = 0.95) -> Estimate:
    """Return the mean of `right` (S, B) with its interval. Raises ValueError for fewer than two splits or samples."""
    from scipy.stats import t

    mean, (variance, freedom) = float(right.mean()), _variance(right)
    if variance == 0:
        half = NONE_IN / right.shape[1]
        return Estimate(mean, mean - half, mean + half, float(mean == 0))
    half, p = t.ppf((1 + level) / 2, freedom) * variance**0.5, 2 * t.sf(abs(mean) / variance**0.5, freedom)
    return Estimate(mean, mean - half, mean + half, float(p))


def accuracy(right: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the interval of an accuracy: Wilson's (1927), as of so many samples as have this variance.

    Near 1, mean +- t errors would be too short. Raises as `estimate`.
    """
    from scipy.stats import t

    mean, (variance, freedom) = float(right.mean()), _variance(right)
    samples = mean * (1 - mean) / variance if variance else right.shape[1]
    widened = t.ppf((1 + level) / 2, freedom) ** 2 / samples
    centre = (mean + widened / 2) / (1 + widened)
    half = (widened * (mean * (1 - mean) + widened / 4)) ** 0.5 / (1 + widened)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _variance(right: np.ndarray) -> tuple[float, float]:
    """The variance of the mean and its degrees of freedom, see above."""
    splits, samples = right.shape
    if splits < 2 or samples < 2:
        raise ValueError(f"an interval needs two splits and two test samples, not {splits} and {samples}")
    by_split, by_sample, mean = right.mean(1), right.mean(0), right.mean()
    rest = right - by_split[:, None] - by_sample + mean
    noise = (rest**2).sum() / ((splits - 1) * (samples - 1))
    of_samples, of_splits = by_sample.var(ddof=1) / samples, by_split.var(ddof=1) / splits
    variance = of_samples + max(0.0, of_splits - noise / (splits * samples))
    if variance == 0:
        return 0.0, float(samples - 1)
    return float(variance), float(variance**2 / (of_samples**2 / (samples - 1) + of_splits**2 / (splits - 1)))


def right_of(record: dict) -> np.ndarray | None:
    """Return what a training got right on the test part (B,); None for a record without it, or that contradicts it."""
    try:
        tested = sum(map(sum, record["confusion"]))
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(record["right"]), np.uint8))[:tested]
        told = record["result"]["test_accuracy"]
    except (KeyError, TypeError, ValueError):
        return None
    whole = 0 < tested == len(bits)
    return bits.astype(float) if whole and abs(bits.mean() - told) < 1e-6 else None
