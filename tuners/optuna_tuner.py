"""Optuna's samplers as NNI tuners: Gaussian process, tree-structured Parzen estimator, NSGA-II, quasi-Monte Carlo.

The space is flattened to all its leaves, since Optuna's Gaussian process models only what all trials share. Every leaf
is an index, where it has few values, or a place in [0, 1] (tuners.space).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuners import space as spaces
from tuners.aim import Aim
from tuners.asktell import ENUMERATED, AskTellTuner, Trial
from tuners.space import Leaf

GP_LIMIT = 300  # results, from which on a proposal of the Gaussian process would cost more than half a second;
# with more models, one for each objective and limit, after fewer
RANDOM_STARTS = {"gp": 2, "tpe": 10}  # the papers' number for Bayesian search; Optuna's own default
RATED = 2048  # unseen configurations of a discrete space that the Gaussian process chooses from


class UnseenGP(optuna.samplers.GPSampler):
    """Optuna's Gaussian process; where `unseen()` lists what is left of a discrete space it takes the best of that.

    Optuna's own search of the acquisition's maximum comes back to points that were tried, and what it is moved to then
    has no claim to be good.
    """

    def __init__(self, unseen: Callable[[], list[dict]], **arguments):
        super().__init__(warn_independent_sampling=False, **arguments)
        self.unseen = unseen

    def _optimize_acqf(self, acqf, best_params: np.ndarray | None) -> np.ndarray:
        """Return the normalised parameters to try; Optuna names this method as one to override."""
        rows = self.unseen()
        if not rows:
            return super()._optimize_acqf(acqf, best_params)
        places = acqf.search_space.get_normalized_params(rows, rows)
        return places[int(np.argmax(acqf.eval_acqf_no_grad(places)))]


class OptunaTuner(AskTellTuner):
    """One of Optuna's samplers behind NNI's interface.

    sampler      gp: Gaussian process, expected improvement (from GP_LIMIT results on the sampler goes on as tpe);
                 tpe: multivariate, with a constant liar (Bergstra et al. 2011); nsga2: Deb et al. 2002; qmc: Sobol'
    starts       random configurations before the model, of gp (default 2) and tpe (default 10)
    objectives   [(metric, "max" or "min"), ...]: default [("default", by optimize_mode)]
    limits       [(metric, "<" or ">", bound), ...], for gp, tpe and nsga2
    """

    def __init__(
        self,
        sampler: str = "gp",
        optimize_mode: str = "maximize",
        seed: int = 0,
        starts: int | None = None,
        objectives: list | None = None,
        limits: list | None = None,
        journal: str = "",
    ):
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
        mode = "max" if optimize_mode == "maximize" else "min"
        aim = Aim([tuple(o) for o in objectives or [("default", mode)]], [tuple(limit) for limit in limits or []])
        super().__init__(optimize_mode, seed, aim, journal)
        self.sampler = sampler
        self.starts = RANDOM_STARTS.get(sampler, 0) if starts is None else starts

    def _start(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.searched = [leaf for leaf in self.leaves if leaf.values is None or len(leaf.values) > 1]
        self.distributions = {leaf.key: _distribution(leaf, self.sampler == "qmc") for leaf in self.searched}
        if self.sampler == "gp":
            sampler = UnseenGP(self._coordinates_left, seed=self.seed, n_startup_trials=self.starts)
        else:
            sampler = SAMPLERS[self.sampler](self.seed, self.starts)
        self.coordinates: dict[str, dict] = {}  # of unseen configurations, as far as they were needed
        self.farthest: dict[int, float] = {}  # largest excess over each limit
        self._begin(sampler)

    def _begin(self, sampler: optuna.samplers.BaseSampler) -> None:
        directions = ["maximize"] * len(self.aim.objectives)  # scores are turned so that larger is better
        self.study = optuna.create_study(sampler=sampler, directions=directions)

    def _forget(self) -> None:
        self._begin(self.study.sampler)

    def _ask(self) -> tuple[dict, optuna.Trial]:
        models = len(self.aim.objectives) + len(self.aim.limits)
        if isinstance(self.study.sampler, optuna.samplers.GPSampler) and len(self.done) >= GP_LIMIT // (2 * models - 1):
            self.study.sampler = tpe(self.seed, 0)
        trial = self.study.ask(self.distributions)
        return self._point(trial.params), trial

    def _coordinates_left(self) -> list[dict]:
        """What is unseen of a discrete space, in Optuna's terms; RATED of it at most; nothing of a larger space."""
        if self.size > ENUMERATED:
            return []
        unseen = self._all_unseen()
        names = list(unseen)
        if len(names) > RATED:
            names = [names[index] for index in self.rng.choice(len(names), RATED, replace=False)]
        for name in names:
            if name not in self.coordinates:
                point = self._complete(spaces.unnest(self.space, unseen[name]))
                self.coordinates[name] = self._coordinates(point)
        return [self.coordinates[name] for name in names]

    def _coordinates(self, point: dict) -> dict:
        return {leaf.key: _coordinate(leaf, point[leaf.key]) for leaf in self.searched}

    def _adopt(self, point: dict) -> optuna.Trial:
        self.study.enqueue_trial(self._coordinates(point))
        return self.study.ask(self.distributions)

    def _discard(self, handle: optuna.Trial) -> None:
        self.study.tell(handle, state=optuna.trial.TrialState.FAIL)

    def _tell(self, trial: Trial, scores: tuple[float, ...]) -> None:
        handle = trial.handle or self._adopt(trial.point)
        handle.set_user_attr("failed", trial.failed)
        for index, ((name, sign, bound), over) in enumerate(zip(self.aim.limits, trial.excess, strict=True)):
            if np.isfinite(over):
                self.farthest[index] = max(over, self.farthest.get(index, 0.0))
            else:  # a made-up number that is far from the others would hide what they differ in
                over = self.farthest.get(index) or abs(bound) or 1.0
            handle.set_constraint(f"{name}{sign}{bound}", over)
        self.study.tell(handle, list(scores))

    def _point(self, coordinates: dict) -> dict:
        point = {leaf.key: leaf.value(0.5) for leaf in self.leaves}
        for leaf in self.searched:
            chosen = coordinates[leaf.key]
            point[leaf.key] = leaf.value(chosen) if leaf.values is None else leaf.values[chosen]
        return point


def tpe(seed: int, starts: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator over all parameters together."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=starts, multivariate=True, constant_liar=True)


def nsga2(seed: int, starts: int) -> optuna.samplers.BaseSampler:
    """Non-dominated sorting genetic algorithm, Optuna's population of 50."""
    return optuna.samplers.NSGAIISampler(seed=seed)


def qmc(seed: int, starts: int) -> optuna.samplers.BaseSampler:
    """A scrambled Sobol' sequence: fills the space evenly and learns nothing."""
    return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_asynchronous_seeding=False)


SAMPLERS = {"gp": UnseenGP, "tpe": tpe, "nsga2": nsga2, "qmc": qmc}


def _distribution(leaf: Leaf, indexed: bool) -> optuna.distributions.BaseDistribution:
    """An index for a leaf of few values (as a category where their order means nothing), else a place in [0, 1]."""
    if leaf.values is None:
        return FloatDistribution(0, 1)
    if leaf.ordered or indexed:
        return IntDistribution(0, len(leaf.values) - 1)
    return CategoricalDistribution(tuple(range(len(leaf.values))))


def _coordinate(leaf: Leaf, value) -> float | int:
    unit = leaf.unit(value)
    return unit if leaf.values is None else min(int(unit * len(leaf.values)), len(leaf.values) - 1)
