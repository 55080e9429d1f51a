"""What classical methods reach on events: a support vector machine and a random forest on binned counts.

    python -m benchmarks.braille_baselines [--data-dir DIR] [--splits 10] [--augment '{"time_shift": 100}']

Bins and hyperparameters are chosen on the validation part, as a search chooses its own; both learn from the train part
alone, as a trial's net does, and the test part is looked at once. With --augment they learn from changed copies of it
as well (`loaders.events.augment`), as a net does that is trained so: the fair comparison for that net.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import median

import numpy as np

from loaders import events

BINS = (4, 8, 16, 32, 64)  # time bins over a whole recording
COSTS = (1.0, 3.0, 10.0, 30.0)  # C of the support vector machine (radial kernel, features scaled to unit variance)
COPIES = 4  # changed copies of the train part, where it is augmented
LEAVES = (1, 2)  # smallest leaf of a tree; 300 trees, sqrt(features) looked at in each node


def baselines(splits, seed: int = 0, augmentation: dict[str, float] | None = None) -> dict[str, np.ndarray]:
    """Return what {"svm": ..., "forest": ...} get right on the test part (B,) of `splits` (Data of events).

    `augmentation` has strengths of `loaders.events.augment`; COPIES changed copies then join the train part. `seed` is
    the forest's and the augmentation's. About 12 CPU s for 720 Braille recordings to train on, 90 with augmentation.
    """
    train, copies = splits.train, COPIES if augmentation else 0
    x = [train.x, *(events.augment(train.x, train.step_ms, (seed, i), **augmentation) for i in range(copies))]
    sets = (np.concatenate(x), np.tile(train.y, 1 + copies)), splits.validation, splits.test
    return {"svm": _best(sets, _machines()), "forest": _best(sets, _forests(seed))}


def binned(x: np.ndarray, bins: int) -> np.ndarray:
    """Return the events of `x` (B, T, N) counted in `bins` bins of time as equal as can be: float32 (B, bins * N)."""
    edges = np.arange(bins) * x.shape[1] // bins
    return np.add.reduceat(x, edges, axis=1, dtype=np.float32).reshape(len(x), -1)


def _best(sets: tuple, models: list) -> np.ndarray:
    """Return what the pair of bins and model with the best validation accuracy, the first of equals, gets right."""
    (x, y), validation, test = sets
    best, right = -1.0, np.zeros(0, bool)
    for bins in BINS:
        counts = binned(x, bins)
        for model in models:
            model.fit(counts, y)
            score = model.score(binned(validation.x, bins), validation.y)
            if score > best:
                best, right = score, model.predict(binned(test.x, bins)) == test.y
    return right


def _machines() -> list:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return [make_pipeline(StandardScaler(), SVC(C=cost)) for cost in COSTS]


def _forests(seed: int) -> list:
    from sklearn.ensemble import RandomForestClassifier

    return [RandomForestClassifier(300, min_samples_leaf=leaf, random_state=seed) for leaf in LEAVES]


def main() -> None:
    """Print the accuracies on several train/validation splits, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-dir", type=Path, default=os.environ.get("HPO_DATA_DIR"), help="folder of the recordings"
    )
    parser.add_argument("--splits", type=int, default=10, help="train/validation splits, seeds 0, 1, ... (default 10)")
    parser.add_argument("--augment", type=json.loads, metavar="JSON", help="strengths of an augmentation")
    args = parser.parse_args()
    from setup_hpo import load_splits

    rows = []
    for split_seed in range(args.splits):
        splits = load_splits("braille", args.data_dir, split_seed=split_seed)
        found = baselines(splits, split_seed, args.augment)
        rows.append({name: right.mean() for name, right in found.items()})
        print(
            f"split {split_seed}: " + "  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True
        )
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name}: median {median(values):.3f}, from {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    main()
