"""Do intervals of a test accuracy cover what they say? A simulation of `--retrain` on Braille's 1,158 recordings.

    python -m benchmarks.coverage [--quick] [--json FILE]

In each experiment all recordings are new: 232 for the test, a pool of 926 that ten splits divide into 720 and 206, all
stratified by the project's own function. The truth is the mean accuracy over all experiments. Beside the intervals of
reports/interval.py stand the corrected resampled t interval (Nadeau and Bengio 2003), which is for errors on what each
split leaves out, and the delete-d jackknife of the splits, which takes all differences between splits for the pool's.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from scipy.stats import t

from benchmarks import add_arguments, finish
from reports import interval
from setup_hpo import TEST_FRACTION, VALIDATION_FRACTION, stratified

RECORDINGS, SPLITS, SEEDS, CLASSES = 1158, 10, 3, 7
FEATURES, UNSEEN, REPEATS, QUICK = 20, 4, 4000, 400
CENTRES = np.random.default_rng(1).normal(size=(CLASSES, FEATURES))
Y = np.arange(RECORDINGS) % CLASSES
TEST, POOL = stratified(Y, TEST_FRACTION, 0)
VALIDATION = np.stack([stratified(Y[POOL], VALIDATION_FRACTION, split)[0] for split in range(SPLITS)])
CASES = [("ridge", None), ("centroid", None), ("noisy", None), ("noisy, one seed", None)]
CASES += [("ridge", "centroid"), ("noisy", "ridge"), ("noisy, one seed", "centroid")]


def main() -> int:
    """Simulate and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    experiments = [experiment(rng) for _ in range(QUICK if args.quick else REPEATS)]
    finish([row for case in CASES for row in rows_of(case, experiments)], args)
    return 0


def experiment(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What learners get right on new recordings, {name: (SPLITS, test recordings)}.

    ridge (regression on classes) and centroid (the nearest) have no noise; noisy is ridge regression without UNSEEN of
    the features, drawn anew for each of SEEDS trainings.
    """
    x = np.concatenate([CENTRES[Y] + rng.normal(size=(RECORDINGS, FEATURES)), np.ones((RECORDINGS, 1))], 1)
    pool, targets = x[POOL], np.eye(CLASSES)[Y[POOL]]
    held = pool[VALIDATION].transpose(0, 2, 1)  # (S, F + 1, left out)
    gram = pool.T @ pool - held @ pool[VALIDATION] + np.eye(FEATURES + 1)
    moment = pool.T @ targets - held @ targets[VALIDATION]  # (S, F + 1, K)
    means = moment[:, :FEATURES] / moment[:, FEATURES:]
    masks = np.ones((SEEDS, SPLITS, FEATURES + 1))
    for mask in masks.reshape(-1, FEATURES + 1):
        mask[rng.permutation(FEATURES)[:UNSEEN]] = 0
    seen = masks[..., None] * masks[..., None, :] * gram + (1 - masks)[..., None] * np.eye(FEATURES + 1)
    weights = {
        "ridge": np.linalg.solve(gram, moment),
        "centroid": np.concatenate([means, -(means**2).sum(1, keepdims=True) / 2], 1),
        "noisy": np.linalg.solve(seen, masks[..., None] * moment),
    }
    right = {name: (x[TEST] @ w).argmax(-1) == Y[TEST] for name, w in weights.items()}
    return right | {"noisy": right["noisy"].mean(0), "noisy, one seed": right["noisy"][0]}


def rights_of(case: tuple[str, str | None], experiments: list[dict]) -> list[np.ndarray]:
    """What the first learner of a case gets right, less what the second does, in each experiment (S, B)."""
    first, second = case
    return [each[first] * 1.0 - (each[second] if second else 0.0) for each in experiments]


def ours(case: tuple[str, str | None], right: np.ndarray) -> tuple[float, float]:
    """The ends of the project's own interval."""
    if case[1] is None:
        return interval.accuracy(right)
    found = interval.estimate(right)
    return found.low, found.high


def of_splits(right: np.ndarray, factor: float) -> tuple[float, float]:
    """The ends of mean +- t error, with an error of sqrt(1 / S + factor) standard deviations of the splits' means."""
    values = right.mean(1)
    half = t.ppf(0.975, SPLITS - 1) * (values.var(ddof=1) * (1 / SPLITS + factor)) ** 0.5
    return values.mean() - half, values.mean() + half


def rows_of(case: tuple[str, str | None], experiments: list[dict]) -> list[dict]:
    """Rows of one case: the truth, and coverage and mean length of each kind of interval."""
    rights = rights_of(case, experiments)
    truth, name = float(np.mean([right.mean() for right in rights])), " minus ".join(filter(None, case))
    left_out, learnt = VALIDATION.shape[1], len(POOL) - VALIDATION.shape[1]
    kinds = {
        "": [ours(case, right) for right in rights],
        ", corrected resampled t": [of_splits(right, left_out / learnt) for right in rights],
        ", jackknife of the splits": [of_splits(right, learnt / left_out) for right in rights],
    }
    rows = [{"name": f"{name}: truth", "value": truth, "unit": ""}]
    for kind, ends in kinds.items():
        low, high = np.array(ends).T
        rows.append({"name": f"{name}: coverage{kind}", "value": float(((low <= truth) & (truth <= high)).mean())})
        rows.append({"name": f"{name}: length{kind}", "value": float((high - low).mean())})
    return [{"unit": "", **row} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
