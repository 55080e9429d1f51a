"""Which hyperparameters matter, by Optuna: the journal becomes a study with the search space's distributions."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass, field

from reports.parameters import Parameter, told
from reports.read import Search

DRAWN = 500  # trials that fANOVA looks at, at most; it takes minutes for thousands
RUNS = 3  # with seeds 0, 1, ...: each draws its trials and grows its forest
TREES = 16  # of a forest: a quarter of Optuna's default, for the same figures within 0.005 on 500 trials
LEAST = 10  # scored trials, fewer say nothing


@dataclass
class Importance:
    """How much of the first objective's variation each parameter explains, the most first; parts that add up to 1."""

    method: str
    shares: dict[str, list[float]]  # parameter -> one number a run
    among: str = ""  # which trials, where not all: "rule = stdp"
    note: str = ""
    foretold: float | None = None  # part of the variation of unseen trials that a forest foretells; chance: 0 or less
    order: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.order = sorted(self.shares, key=lambda name: -self.median(name))

    def median(self, name: str) -> float:
        """The middle of the runs."""
        return statistics.median(self.shares[name])


def make_study(search: Search, entries: list[dict] | None = None):
    """Return an Optuna study of the search's trials (or of `entries`): scored ones COMPLETE, all others FAIL.

    A trial has the parameters that were active in it; fixed ones are left out.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = {parameter.name: parameter for parameter in search.searched}
    distributions = {name: distribution(parameter) for name, parameter in known.items()}
    study = optuna.create_study(direction="minimize" if search.least_is_best else "maximize")
    trials = []
    for entry in search.entries if entries is None else entries:
        params = {name: told(value) for name, value in entry["parameters"].items() if name in known}
        state = {"value": search.value(entry)} if search.is_valued(entry) else {"state": TrialState.FAIL}
        used = {name: distributions[name] for name in params}
        trials.append(create_trial(params=params, distributions=used, user_attrs={"trial": entry["trial"]}, **state))
    study.add_trials(trials)
    return study


def distribution(parameter: Parameter):
    """Return the parameter's range as Optuna says it. Steps are left out: recorded values may be off by rounding."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def importances(search: Search, step=lambda text: None) -> list[Importance]:
    """Return the importances: of the parameters that all trials have, then of each nested option's own.

    Up to DRAWN trials fANOVA takes all; beyond, it takes DRAWN of them in each run, and PED-ANOVA takes all. `step` is
    called with what is being reckoned. Empty where there is nothing to explain: fewer than LEAST scored trials, or all
    with the same score.
    """
    common = [parameter.name for parameter in search.searched if parameter.parent is None]
    found = [fanova(search.scored, search, common, step)]
    if len(search.scored) > DRAWN:
        found.append(ped_anova(search, common, step))
    for parent in dict.fromkeys(parameter.parent for parameter in search.searched if parameter.parent):
        chosen = [entry for entry in search.scored if entry["parameters"].get(parent[0]) == parent[1]]
        inner = [parameter.name for parameter in search.searched if parameter.parent == parent]
        found.append(fanova(chosen, search, [*common, *inner], step, " = ".join(parent)))
    return [importance for importance in found if importance is not None]


def fanova(entries: list[dict], search: Search, names: list[str], step, among: str = "") -> Importance | None:
    """Return the importances of `names` among the trials that have them all, by fANOVA; None where it cannot say."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    names = [name for name in names if len({str(told(entry["parameters"].get(name))) for entry in entries}) > 1]
    entries = [entry for entry in entries if names and all(name in entry["parameters"] for name in names)]
    if len(entries) < LEAST or len({search.value(entry) for entry in entries}) < 2:
        return None
    shares: dict[str, list[float]] = {name: [] for name in names}
    foretold = foretold_part(random.Random(0).sample(entries, min(DRAWN, len(entries))), search, names)
    for seed in range(RUNS):
        step(f"importance, fANOVA {seed + 1} of {RUNS}{', ' + among if among else ''}")
        drawn = random.Random(seed).sample(entries, min(DRAWN, len(entries)))
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        for name, share in get_param_importances(make_study(search, drawn), evaluator=evaluator, params=names).items():
            shares[name].append(float(share))
    if len(entries) > DRAWN:
        method = f"fANOVA on {DRAWN} of {len(entries)} trials, drawn with seeds 0 to {RUNS - 1}"
    else:
        method = f"fANOVA on all {len(entries)} trials with a score, {RUNS} forests (seeds 0 to {RUNS - 1})"
    return Importance(method, shares, among, foretold=foretold)


def foretold_part(entries: list[dict], search: Search, names: list[str]) -> float:
    """Return the part of the scores' variation that a random forest foretells for trials that it has not seen.

    Importances always add up to 1, also where the scores are mere noise; this tells. It is the forest's R^2 out of bag.
    """
    from sklearn.ensemble import RandomForestRegressor

    parameters = [parameter for parameter in search.searched if parameter.name in names]
    places = [[p.position(entry["parameters"][p.name]) for p in parameters] for entry in entries]
    forest = RandomForestRegressor(50, oob_score=True, random_state=0)
    return forest.fit(places, [search.value(entry) for entry in entries]).oob_score_


def ped_anova(search: Search, names: list[str], step) -> Importance | None:
    """Return the importances for reaching the best tenth, by PED-ANOVA on all trials; None where it cannot say."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    step(f"importance, PED-ANOVA on {len(search.scored)} trials")
    if len({search.value(entry) for entry in search.scored}) < 2:
        return None
    names = [name for name in names if all(name in entry["parameters"] for entry in search.scored)]
    if not names:
        return None
    study = make_study(search, search.scored)
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=names)
    method = f"PED-ANOVA on all {len(search.scored)} trials with a score"
    note = "what decides whether a trial gets into the best tenth"
    return Importance(method, {name: [float(share)] for name, share in shares.items()}, note=note)
