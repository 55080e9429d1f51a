"""Optuna's samplers as NNI tuners: Gaussian process, Parzen estimator, NSGA-II and quasi-random search.

    tuner = OptunaTuner(sampler="gp", optimize_mode="maximize", seed=0)

gp    Gaussian process (Matern 5/2, a length scale a parameter) with log expected improvement; two random starts as in
      papers on Bayesian search for spiking systems (Parsa et al. 2019, 2020). Running trials are integrated over. Of a
      small discrete space every unseen configuration is rated. After `gp_limit` results the Parzen estimator takes
      over: a Gaussian process costs n^3.
tpe   multivariate tree-structured Parzen estimator (Bergstra et al. 2011), running trials counted as bad
nsga2 NSGA-II (Deb et al. 2002), for several objectives and many trials
qmc   scrambled Sobol points, which do not learn

Optuna is asked for one number a leaf of the search space (see `tuners.space`), in its own terms: it never sees the
nesting. A failed trial is told as the worst value so far, and marked. GP imports torch at its first model.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, TPESampler
from optuna.trial import TrialState, create_trial

from tuners.base import Observation, SearchTuner

SAMPLERS = ("gp", "tpe", "nsga2", "qmc")
GP_LIMIT = 300  # results; a proposal takes about half a second there
GP_LIMIT_SEVERAL = 100  # with several objectives or limits: one Gaussian process each
STARTS = {"gp": 2, "tpe": 10}  # random configurations before the first model
POPULATION = 20  # of NSGA-II
TRIES = 20  # proposals of a sampler, all seen before, until a neighbour is taken
RATED = 4000  # unseen configurations of a discrete space that the Gaussian process rates one by one
GENERATION = NSGAIISampler._get_generation_key()

optuna.logging.set_verbosity(optuna.logging.ERROR)


class OptunaTuner(SearchTuner):
    """One of Optuna's samplers behind NNI's Tuner interface."""

    def __init__(self, sampler: str = "gp", starts: int | None = None, gp_limit: int | None = None, **arguments):
        super().__init__(**arguments)
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
        if sampler == "qmc" and (self.limits or len(self.objectives) > 1):
            raise ValueError("sampler 'qmc' does not learn: it takes one objective and no limits")
        self.sampler = sampler
        self.starts = STARTS.get(sampler, 0) if starts is None else starts
        several = bool(self.limits) or len(self.objectives) > 1
        self.gp_limit = gp_limit or (GP_LIMIT_SEVERAL if several else GP_LIMIT)
        self._engines: dict[str, BaseSampler] = {}
        self._built = -1  # the revision that the study shows

    def start(self) -> None:
        """Translate the search space into Optuna's terms."""
        varied = [i for i, leaf in enumerate(self.space.leaves) if leaf.options is None or len(leaf.options) > 1]
        self.varied = {self.space.leaves[index].name: index for index in varied}
        ranked = self.sampler == "qmc"  # which knows numbers only
        self.distributions = {name: distribution(self.space.leaves[i], ranked) for name, i in self.varied.items()}
        self._engines = {}
        self._built = -1

    def propose(self, parameter_id: int) -> tuple | None:
        """Tell what is new, then ask."""
        self._synchronise()
        if not self.varied:
            return None
        trial = self.study.ask(self.distributions)
        self.trials[parameter_id] = trial
        return self.codes_of(trial.params)

    def codes_of(self, parameters: dict) -> tuple:
        """Return the snapped codes of Optuna's parameters; what has one value only is added."""
        codes = [leaf.rest for leaf in self.space.leaves]
        for name, code in parameters.items():
            codes[self.varied[name]] = code
        return self.space.snap(codes)

    def parameters_of(self, codes: tuple) -> dict:
        """Return Optuna's parameters of codes."""
        return {name: int(codes[i]) if self._counts(name) else codes[i] for name, i in self.varied.items()}

    def _counts(self, name: str) -> bool:
        return not isinstance(self.distributions[name], FloatDistribution)

    def choose(self, study, trial) -> dict:
        """Return the parameters of the next trial: new ones, by the sampler that is in charge now."""
        codes = self.random_unseen() if self._is_starting() else self._sampled_unseen(study, trial)
        return self.parameters_of(codes or self.space.random(self.rng))  # the base class finds out that none is left

    def _is_starting(self) -> bool:
        """Are there too few results for a model, or is there nothing to rank?"""
        return self.sampler in STARTS and self._told_scored < max(1, self.starts)

    def _sampled_unseen(self, study, trial) -> tuple | None:
        engine = self.engine()
        for _ in range(1 if isinstance(engine, UnseenGP) else TRIES):
            found = engine.sample_relative(study, trial, self.distributions)
            for name in self.distributions.keys() - found.keys():
                found[name] = engine.sample_independent(study, trial, name, self.distributions[name])
            codes = self.codes_of(found)
            if codes not in self.seen:
                return codes
        near = map(tuple, self.space.neighbours(codes, self.rng, TRIES).tolist())
        near = (codes for codes in near if codes not in self.seen)
        return next(near, None) or self.random_unseen()

    def engine(self) -> BaseSampler:
        """Return Optuna's sampler in charge: what was asked for, or what the Gaussian process hands over to."""
        name = "tpe" if self.sampler == "gp" and self._told_scored > self.gp_limit else self.sampler
        if name not in self._engines:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Optuna calls experimental
                self._engines[name] = self._make(name)
        return self._engines[name]

    def _make(self, name: str) -> BaseSampler:
        if name == "gp":
            return UnseenGP(self)
        if name == "tpe":
            return TPESampler(seed=self.seed, multivariate=True, n_startup_trials=self.starts, constant_liar=True)
        if name == "nsga2":
            return NSGAIISampler(seed=self.seed, population_size=POPULATION)
        return QMCSampler(seed=self.seed, scramble=True, warn_independent_sampling=False)

    # the study

    def _synchronise(self) -> None:
        """Bring the study up to date with what was observed; anew where earlier observations have changed."""
        worst = self._worst()
        if self._built != self.revision or (self._failures_told and worst != self._told_worst):
            self._rebuild()
        if worst is None:
            return  # without a single value a failure says nothing yet: it stays a running trial
        for observation in self.observed[self._told :]:
            self._tell(observation, worst)
        self._told, self._told_worst = len(self.observed), worst

    def _rebuild(self) -> None:
        directions = ["maximize"] * len(self.objectives)
        self.study = optuna.create_study(directions=directions, sampler=Steered(self))
        self.trials = {}  # parameter id -> Optuna's running trial
        self._built, self._told, self._told_worst = self.revision, 0, None
        self._told_scored = self._failures_told = 0
        for parameter_id, codes in self.pending.items():
            self.study.enqueue_trial(self.parameters_of(codes))
            self.trials[parameter_id] = self._ask_enqueued()

    def _ask_enqueued(self):
        """Make the trial that was enqueued a running one, without asking a sampler for it."""
        steered, self.study.sampler = self.study.sampler, optuna.samplers.RandomSampler()
        trial = self.study.ask(self.distributions)
        self.study.sampler = steered
        return trial

    def _worst(self) -> tuple | None:
        scored = [observation.values for observation in self.scored()]
        return tuple(min(column) for column in zip(*scored, strict=True)) if scored else None

    def _tell(self, observation: Observation, worst: tuple) -> None:
        trial = self.trials.pop(observation.parameter_id, None)
        if observation.values is None and not observation.failed:
            if trial is not None:
                self.study.tell(trial, state=TrialState.FAIL)
            return
        values, excess = observation.values or worst, self._known_excess(observation)
        self._told_scored += 1
        self._failures_told += observation.failed
        parameters = self.parameters_of(observation.codes)
        if trial is not None and trial.params == parameters:
            for number, amount in enumerate(excess):
                trial.set_constraint(str(number), amount)
            if observation.failed:
                trial.set_user_attr("failed", True)
            self.study.tell(trial, list(values))
            return
        if trial is not None:
            self.study.tell(trial, state=TrialState.FAIL)
        self.study.add_trial(
            create_trial(
                values=list(values),
                params=parameters,
                distributions=self.distributions,
                user_attrs={"failed": True} if observation.failed else {},
                system_attrs={GENERATION: 0},
                constraints={str(number): amount for number, amount in enumerate(excess)} or None,
            )
        )

    def _known_excess(self, observation: Observation) -> list[float]:
        """Return the excess over each limit; where it is unknown the worst that was seen, at least 1."""
        found = observation.excess or [math.nan] * len(self.limits)
        return [amount if math.isfinite(amount) else self._worst_excess(i) for i, amount in enumerate(found)]

    def _worst_excess(self, number: int) -> float:
        return max([1.0, *(o.excess[number] for o in self.scored() if math.isfinite(o.excess[number]))])


def distribution(leaf, ranked: bool):
    """Return a leaf's distribution in Optuna's terms."""
    if leaf.kind == "unit":
        return FloatDistribution(0.0, 1.0)
    number = len(leaf.options)
    return (
        CategoricalDistribution(range(number))
        if leaf.kind == "category" and not ranked
        else IntDistribution(0, number - 1)
    )


class Steered(BaseSampler):
    """Lets the tuner decide on all parameters of a trial at once."""

    def __init__(self, tuner: OptunaTuner):
        self.tuner = tuner

    def infer_relative_search_space(self, study, trial) -> dict:
        """All of it."""
        return self.tuner.distributions

    def sample_relative(self, study, trial, search_space: dict) -> dict:
        """The tuner's choice."""
        return self.tuner.choose(study, trial)

    def sample_independent(self, study, trial, param_name: str, param_distribution):
        """Never needed."""
        raise NotImplementedError


class UnseenGP(GPSampler):
    """Optuna's Gaussian process, restricted to configurations that were not seen."""

    def __init__(self, tuner: OptunaTuner):
        super().__init__(seed=tuner.seed, n_startup_trials=1, warn_independent_sampling=False)
        self.tuner = tuner

    def _optimize_acqf(self, acqf, best_params: np.ndarray | None) -> np.ndarray:
        """Rate all that is unseen where that is possible; else search, and where the end is known, the best sample."""
        tuner = self.tuner
        if tuner.space.table is not None and (left := np.flatnonzero(tuner.unseen)).size:
            if left.size > RATED:
                left = tuner.rng.choice(left, RATED, replace=False)
            places = self.places(tuner.space.table[left])
            return places[int(np.argmax(acqf.eval_acqf_no_grad(places)))]
        found = self.snapped(super()._optimize_acqf(acqf, best_params))
        if self.codes(found) not in tuner.seen:
            return found
        samples = acqf.search_space.sample_normalized_params(self._n_preliminary_samples, self._rng.rng)
        order = np.argsort(-acqf.eval_acqf_no_grad(samples))
        snapped = (self.snapped(samples[number]) for number in order)
        return next((places for places in snapped if self.codes(places) not in tuner.seen), found)

    def places(self, codes: np.ndarray) -> np.ndarray:
        """Return rows of codes as Optuna normalises them: a rank as the middle of its share of 0..1."""
        columns = []
        for name, index in self.tuner.varied.items():
            kind, options = self.tuner.space.leaves[index].kind, self.tuner.space.leaves[index].options
            columns.append((codes[:, index] + 0.5) / len(options) if kind == "order" else codes[:, index])
            del name
        return np.stack(columns, axis=1)

    def codes(self, places: np.ndarray) -> tuple:
        """The snapped codes of normalised parameters."""
        found = {}
        for (name, index), place in zip(self.tuner.varied.items(), places.tolist(), strict=True):
            leaf = self.tuner.space.leaves[index]
            found[name] = place * len(leaf.options) - 0.5 if leaf.kind == "order" else place
        return self.tuner.codes_of(found)

    def snapped(self, places: np.ndarray) -> np.ndarray:
        """Normalised parameters moved to the nearest configuration."""
        return self.places(np.array([self.codes(places)]))[0]
