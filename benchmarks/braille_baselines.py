"""What classical methods reach on events: a support vector machine and a random forest on binned counts.

    python -m benchmarks.braille_baselines [--data-dir DIR] [--splits 10]

Bins and hyperparameters are chosen on the validation part, as a search chooses its own; both learn from the train part
alone, as a trial's net does, and the test part is looked at once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median

import numpy as np

BINS = (4, 8, 16, 32, 64)  # time bins over a whole recording
COSTS = (1.0, 3.0, 10.0, 30.0)  # C of the support vector machine (radial kernel, features scaled to unit variance)
LEAVES = (1, 2)  # smallest leaf of a tree; 300 trees, sqrt(features) looked at in each node


def baselines(splits, seed: int = 0) -> dict[str, float]:
    """Return the test accuracies {"svm": ..., "forest": ...} on `splits` (train, validation, test: Data of events).

    `seed` is the forest's; the support vector machine has none. About 12 CPU s for 720 Braille recordings to train on.
    """
    return {"svm": _best(splits, _machines()), "forest": _best(splits, _forests(seed))}


def binned(x: np.ndarray, bins: int) -> np.ndarray:
    """Return the events of `x` (B, T, N) counted in `bins` bins of time as equal as can be: float32 (B, bins * N)."""
    edges = np.arange(bins) * x.shape[1] // bins
    return np.add.reduceat(x, edges, axis=1, dtype=np.float32).reshape(len(x), -1)


def _best(splits, models: list) -> float:
    """Return the test accuracy of the pair of bins and model with the best validation accuracy, the first of equals."""
    best = (-1.0, 0.0)
    for bins in BINS:
        train, validation, test = (binned(part.x, bins) for part in splits)
        for model in models:
            model.fit(train, splits.train.y)
            score = model.score(validation, splits.validation.y)
            if score > best[0]:
                best = (score, model.score(test, splits.test.y))
    return best[1]


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
    args = parser.parse_args()
    from setup_hpo import load_splits

    rows = []
    for split_seed in range(args.splits):
        rows.append(baselines(load_splits("braille", args.data_dir, split_seed=split_seed), split_seed))
        print(
            f"split {split_seed}: " + "  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True
        )
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name}: median {median(values):.3f}, from {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    main()
