"""Asynchronous model-based search with a forest surrogate, after papers on automated neuromorphic co-design.

Yanguas-Gil et al. 2023 (arXiv 2302.13210, section II-B) by DeepHyper (Balaprakash et al. 2018): a forest is fitted to
what is known, and of many candidates the one with the best confidence bound, mean + KAPPA * deviation between the
trees, is tried next. The paper's forest is a random forest: each tree has the best splits of a bootstrap sample
(bagging). Ours are extremely randomised trees, random splits of all the results, which are fitted in less than half of
the time. The paper gives no KAPPA and does not say what stands for pending trials: 1.96 and a constant lie are ours.
"""

from __future__ import annotations

import numpy as np

from tuners import space as spaces
from tuners.asktell import ENUMERATED, AskTellTuner, Trial
from tuners.space import Leaf

STARTS = 10  # random configurations before the model
TREES = 50
KAPPA = 1.96  # the known against the unknown; not in the paper
ROWS = 2_000  # results that the forest is fitted to; beyond that the best fifth, the latest fifth and a random rest
RANDOM, LOCAL = 1_000, 500  # candidates in a space too large to enumerate: anywhere, and near the best
NEAR = 10  # so many best points have neighbours among the candidates
REFIT = 16  # proposals from one forest at most
STALE = 200  # a forest is fitted anew once one result in so many is new to it; at every result up to 400
INACTIVE = -1.0


class ForestTuner(AskTellTuner):
    """Extremely randomised trees (Geurts et al. 2006) and their upper confidence bound, behind NNI's interface."""

    def __init__(self, optimize_mode: str = "maximize", seed: int = 0, starts: int = STARTS, journal: str = ""):
        super().__init__(optimize_mode, seed, journal=journal)
        self.starts = starts

    def _start(self) -> None:
        self.searched = [leaf for leaf in self.leaves if leaf.values is None or len(leaf.values) > 1]
        self.pool: dict[str, np.ndarray] | None = None  # units (L,) of every unseen configuration, where they are few
        self._forget()

    def _forget(self) -> None:
        self.rows: list[np.ndarray] = []  # units (L,) of each result
        self.scores: list[float] = []
        self.forest, self.proposals, self.unfitted = None, 0, 0  # and how many came from it, how many it does not know

    def _ask(self) -> tuple[dict, None]:
        if len(self.rows) < self.starts:
            return self._random(), None
        if self.forest is None or self.proposals >= REFIT or self.unfitted >= max(1, len(self.rows) // STALE):
            self._fit()
        self.proposals += 1
        units = self._candidates()
        features = self._features(units)
        votes = np.array(
            [tree.tree_.predict(features)[:, 0] for tree in self.forest.estimators_]
        )  # (trees, candidates)
        for index in np.argsort(-(votes.mean(0) + KAPPA * votes.std(0)), kind="stable"):
            point = self._point(units[index])
            if spaces.identity(spaces.nest(self.space, point)) not in self.seen:
                return point, None
        return self._random(), None

    def _adopt(self, point: dict) -> None:
        pass

    def _discard(self, handle: None) -> None:
        pass

    def _tell(self, trial: Trial, scores: tuple[float, ...]) -> None:
        self.rows.append(self._units(trial.point))
        self.scores.append(scores[0])
        self.unfitted += 1

    def _fit(self) -> None:
        """Fit the forest to at most ROWS results, and to a lie for each pending trial: the mean of the results."""
        from sklearn.ensemble import ExtraTreesRegressor

        chosen = self._training_rows()
        scores = np.array(self.scores)[chosen]
        pending = [self._units(trial.point) for trial in self.pending.values()]
        units = np.array([self.rows[index] for index in chosen] + pending)
        lies = np.full(len(pending), scores.mean())
        self.forest = ExtraTreesRegressor(TREES, min_samples_leaf=1, random_state=int(self.rng.integers(2**31)))
        self.forest.fit(self._features(units), np.concatenate([scores, lies]))
        self.proposals, self.unfitted = 0, 0

    def _training_rows(self) -> np.ndarray:
        total = len(self.rows)
        if total <= ROWS:
            return np.arange(total)
        best = np.argsort(self.scores)[-ROWS // 5 :]
        latest = np.arange(total - ROWS // 5, total)
        rest = self.rng.choice(total, ROWS - len(best) - len(latest), replace=False)
        return np.unique(np.concatenate([best, latest, rest]))

    def _candidates(self) -> np.ndarray:
        """Return units (candidates, L): of every unseen configuration or, in a large space, random and local ones."""
        if self.size > ENUMERATED:
            anywhere = self.rng.random((RANDOM, len(self.searched)))
            return self._snap(np.concatenate([anywhere, self._near()]))
        if self.pool is None:
            points = {name: spaces.unnest(self.space, each) for name, each in self._all_unseen().items()}
            self.pool = {name: self._units(self._complete(point)) for name, point in points.items()}
        self.pool = {name: self.pool[name] for name in self._all_unseen()}
        return np.array(list(self.pool.values()))

    def _near(self) -> np.ndarray:
        """Neighbours (LOCAL, L) of the best points: one or two units redrawn, or moved by a little."""
        best = np.argsort(self.scores)[-NEAR:]
        rows = np.array(self.rows)[self.rng.choice(best, LOCAL)]
        rows = np.where(rows < 0, self.rng.random(rows.shape), rows)  # inactive leaves may become active
        for _ in range(2):
            column = self.rng.integers(rows.shape[1], size=LOCAL)
            moved = np.clip(rows[np.arange(LOCAL), column] + self.rng.normal(0, 0.1, LOCAL), 0, 1)
            rows[np.arange(LOCAL), column] = np.where(self.rng.random(LOCAL) < 0.3, self.rng.random(LOCAL), moved)
        return rows

    def _snap(self, units: np.ndarray) -> np.ndarray:
        """Move units (rows, L) to the middle of their values, and to INACTIVE where another option was chosen."""
        column = {leaf.key: index for index, leaf in enumerate(self.searched)}
        for leaf, values in zip(self.searched, units.T, strict=True):
            if leaf.values is not None:
                values[:] = (np.minimum(np.floor(values * len(leaf.values)), len(leaf.values) - 1) + 0.5) / len(
                    leaf.values
                )
            for parent, option in leaf.parents:
                if parent in column:
                    values[units[:, column[parent]] != self.searched[column[parent]].unit(option)] = INACTIVE
        return units

    def _point(self, units: np.ndarray) -> dict:
        point = {leaf.key: leaf.value(0.5) for leaf in self.leaves}
        return point | {
            leaf.key: leaf.value(float(unit)) for leaf, unit in zip(self.searched, units, strict=True) if unit >= 0
        }

    def _units(self, point: dict) -> np.ndarray:
        """The point's places in [0, 1] (L,)."""
        return self._snap(np.array([[leaf.unit(point[leaf.key]) for leaf in self.searched]]))[0]

    def _features(self, units: np.ndarray) -> np.ndarray:
        """Units (rows, L) as the forest's features: a column of zeros and ones for each option that has no order."""
        columns = []
        for leaf, column in zip(self.searched, units.T, strict=True):
            columns += [column] if leaf.ordered else _one_hot(leaf, column)
        return np.stack(columns, 1).astype(np.float32)


def _one_hot(leaf: Leaf, column: np.ndarray) -> list[np.ndarray]:
    index = np.floor(column * len(leaf.values))
    return [index == number for number in range(len(leaf.values))]
