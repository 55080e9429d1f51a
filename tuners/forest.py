"""Asynchronous model-based search with a forest, as an NNI tuner: for mixed spaces and thousands of trials.

    tuner = ForestTuner(optimize_mode="maximize", seed=0)

The search of papers on co-designed neuromorphic systems (AMBS: Balaprakash et al. 2018, DeepHyper): a forest is fitted
to all results, and of many candidates the one with the best confidence bound, mean + KAPPA * standard deviation over
the trees (a lower bound, where the loss is minimised), is proposed. Running trials count as results as bad as the
median one (a constant liar), so that concurrent proposals keep apart: the lie is entered into the leaves that it falls
into and does not need a new fit. Costs are bounded at any number of results n:

- at most ROWS of them are fitted: the best, the newest, and a random rest; a fit serves max(1, n / REFIT_SHARE) results
- candidates: SAMPLED random ones and LOCAL near the best; of a discrete space of at most LISTED, all unseen ones
"""

from __future__ import annotations

import numpy as np

from tuners.base import SearchTuner

STARTS = 10  # random configurations before the first model
TREES = 64
KAPPA = 1.96  # of the confidence bound
SAMPLED, LOCAL, LISTED = 2000, 1000, 5000  # candidates
PARENTS = 10  # best results, near which local candidates are drawn
ROWS = 2000  # results that a fit uses
REFIT_SHARE = 500  # at n results a fit serves for n / 500 further ones


class ForestTuner(SearchTuner):
    """Extra-trees and a confidence bound behind NNI's Tuner interface."""

    def __init__(self, starts: int = STARTS, trees: int = TREES, kappa: float = KAPPA, **arguments):
        super().__init__(**arguments)
        if self.limits or len(self.objectives) > 1:
            raise ValueError("the forest takes one objective and no limits")
        self.starts, self.trees, self.kappa = starts, trees, kappa

    def start(self) -> None:
        """Forget the model of an earlier search space."""
        self.model, self._fitted = None, (-1, 0)

    def propose(self, parameter_id: int) -> tuple | None:
        """Return the unseen candidate with the best bound."""
        if len(self.scored()) < self.starts:
            return None
        self._fit_if_due()
        if not self._candidates_left():
            return None
        best = int(np.argmax(self._bounds() + self._excluded))
        codes = tuple(self.candidates[best].tolist())
        self._excluded[(self.candidates == codes).all(1)] = -np.inf
        self._lie(np.array([codes]))
        return codes

    def _fit_if_due(self) -> None:
        """Fit anew when enough has come since; draw new candidates with it."""
        revision, number = self._fitted
        due = max(1, len(self.observed) // REFIT_SHARE)
        if self.model is None or revision != self.revision or len(self.observed) - number >= due:
            self._fit()
            self._draw_candidates()
            self._fitted = (self.revision, len(self.observed))

    def _fit(self) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        codes = np.array([observation.codes for observation in self.observed if self._tells(observation)])
        values = np.array([o.values[0] if o.values else -np.inf for o in self.observed if self._tells(o)])
        values[np.isneginf(values)] = values[np.isfinite(values)].min()  # a failure is as bad as the worst result
        rows = self._chosen_rows(values)
        seed = int(self.rng.integers(2**31))
        self.model = ExtraTreesRegressor(self.trees, min_samples_leaf=1, max_features=1.0, random_state=seed)
        self.model.fit(self.features(codes[rows]), values[rows])
        self.liar = float(np.median(values))
        self.parents = [tuple(row) for row in codes[np.argsort(-values, kind="stable")[:PARENTS]].tolist()]

    @staticmethod
    def _tells(observation) -> bool:
        return observation.values is not None or observation.failed

    def _chosen_rows(self, values: np.ndarray) -> np.ndarray:
        """Return the rows to fit: all, or the best quarter of ROWS, the newest quarter, and a random rest."""
        if len(values) <= ROWS:
            return np.arange(len(values))
        kept = set(np.argsort(-values, kind="stable")[: ROWS // 4].tolist())
        kept |= set(range(len(values) - ROWS // 4, len(values)))
        others = np.setdiff1d(np.arange(len(values)), list(kept))
        return np.concatenate([sorted(kept), self.rng.choice(others, ROWS - len(kept), replace=False)]).astype(int)

    def features(self, codes: np.ndarray) -> np.ndarray:
        """Return what the trees see: codes, and for a category of several options one column each."""
        columns = []
        for index, leaf in enumerate(self.space.leaves):
            several = leaf.kind == "category" and len(leaf.options) > 2
            numbers = range(len(leaf.options)) if several else ()
            columns += [codes[:, index] == number for number in numbers] or [codes[:, index]]
        return np.stack(columns, axis=1).astype(np.float32)

    def _draw_candidates(self) -> None:
        """Set the candidates, none of which was seen, and how each tree values them, with the running trials' lies."""
        self.candidates = self._unseen_candidates()
        self._excluded = np.zeros(len(self.candidates))
        if not len(self.candidates):
            return
        features = self.features(self.candidates)
        self._trees = [tree.tree_ for tree in self.model.estimators_]
        self._leaves = [tree.apply(features) for tree in self._trees]  # of each candidate
        self._means = [tree.value[:, 0, 0].copy() for tree in self._trees]
        self._counts = [tree.n_node_samples.astype(float) for tree in self._trees]
        if self.pending:
            self._lie(np.array(list(self.pending.values())))

    def _unseen_candidates(self) -> np.ndarray:
        if self.space.table is not None and int(self.unseen.sum()) <= LISTED:
            return self.space.table[self.unseen]
        drawn = [self.space.random_rows(self.rng, SAMPLED)]
        for parent in self.parents:
            spread = float(self.rng.choice((0.2, 0.1, 0.05, 0.02)))
            drawn.append(self.space.neighbours(parent, self.rng, LOCAL // PARENTS, spread))
        rows = np.concatenate(drawn)
        return rows[[codes not in self.seen for codes in map(tuple, rows.tolist())]]

    def _candidates_left(self) -> bool:
        if len(self.candidates) and np.isfinite(self._excluded).any():
            return True
        self._draw_candidates()
        return len(self.candidates) > 0

    def _lie(self, rows: np.ndarray) -> None:
        """Enter the liar's value for running trials into the leaves in which they lie."""
        features = self.features(rows)
        for tree, means, counts in zip(self._trees, self._means, self._counts, strict=True):
            lies = np.bincount(tree.apply(features), minlength=len(means))
            means += lies * (self.liar - means) / (counts + lies)
            counts += lies

    def _bounds(self) -> np.ndarray:
        values = np.stack([means[leaves] for means, leaves in zip(self._means, self._leaves, strict=True)])
        return values.mean(0) + self.kappa * values.std(0)
