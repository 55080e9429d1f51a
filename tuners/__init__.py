"""The search engines and assessors on offer, as NNI's configuration wants them, and why the others are refused."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent


def nni_tpe(seed: int) -> dict:
    """Tree-structured Parzen estimator (Bergstra et al. 2011)."""
    return {"name": "TPE", "class_args": {"optimize_mode": "maximize", "seed": seed}}


def random(seed: int) -> dict:
    """Random search without repeats."""
    return {"name": "Random", "class_args": {"seed": seed}}


def grid(seed: int) -> dict:
    """Every combination in order; continuous ranges are refined by bisection. Draws nothing, so needs no seed."""
    return {"name": "GridSearch"}


def nni_evolution(seed: int) -> dict:
    """Naive evolution (Real et al. 2017), with the seed that NNI's own lacks."""
    return {
        "class_name": "tuners.evolution.SeededEvolution",
        "code_directory": ROOT,
        "class_args": {"optimize_mode": "maximize", "seed": seed},
    }


def gp(seed: int) -> dict:
    """Gaussian process with expected improvement, by Optuna; as tpe from 300 results on."""
    return _optuna("gp", seed)


def tpe(seed: int) -> dict:
    """Multivariate tree-structured Parzen estimator that knows what is pending, by Optuna."""
    return _optuna("tpe", seed)


def nsga2(seed: int) -> dict:
    """Genetic algorithm for several objectives (Deb et al. 2002), by Optuna."""
    return _optuna("nsga2", seed)


def qmc(seed: int) -> dict:
    """Scrambled Sobol' sequence, by Optuna: spread evenly, learns nothing."""
    return _optuna("qmc", seed)


def forest(seed: int) -> dict:
    """Extremely randomised trees and their confidence bound, for thousands of trials (arXiv 2302.13210)."""
    return _ours("forest.ForestTuner", seed=seed)


def _optuna(sampler: str, seed: int) -> dict:
    return _ours("optuna_tuner.OptunaTuner", sampler=sampler, seed=seed)


def _ours(class_name: str, **class_args) -> dict:
    class_args = {"optimize_mode": "maximize"} | class_args
    return {"class_name": f"tuners.{class_name}", "code_directory": ROOT, "class_args": class_args}


TUNERS = {
    "gp": gp,
    "tpe": tpe,
    "forest": forest,
    "nsga2": nsga2,
    "qmc": qmc,
    "nni-tpe": nni_tpe,
    "nni-evolution": nni_evolution,
    "random": random,
    "grid": grid,
}
DEFAULT_TUNER = "gp"  # few evaluations, see benchmarks.tuners
WITH_AIMS = ("gp", "tpe", "nsga2")  # take several objectives and limits
WITH_JOURNAL = ("gp", "tpe", "nsga2", "qmc", "forest")  # learn from an earlier search's journal


def __getattr__(name: str):
    """Import OptunaTuner and ForestTuner when they are asked for: what lists the tuners needs no engine."""
    module = {"OptunaTuner": "optuna_tuner", "ForestTuner": "forest"}.get(name)
    if module is None:
        raise AttributeError(f"module 'tuners' has no attribute {name!r}")
    return getattr(import_module(f"tuners.{module}"), name)


# Refused, lower case: the reason, as measured with NNI 3.0.
REFUSED_TUNERS = {
    "gptuner": "NNI's GP raises at its first model-based proposal (scipy 1.11 and later); use gp",
    "metis": "NNI's Metis raises at its first model-based proposal (scipy 1.11 and later); use gp",
    "smac": "NNI's SMAC cannot be installed (its ConfigSpaceNNI does not build); use forest",
    "bohb": "NNI's BOHB raises on the first result; use tpe with --assessor medianstop",
    "hyperband": "NNI's Hyperband raises on the first result; use random with --assessor medianstop",
    "anneal": "NNI's Anneal (hyperopt 0.1.2) raises on current Python; use nni-evolution",
    "tpe_legacy": "NNI's old TPE (hyperopt 0.1.2) raises on current Python; use tpe",
    "dngo": "NNI's DNGO needs pybnn, which does not install; use gp",
    "ppo": "NNI's PPO needs TensorFlow and is meant for architectures; use tpe",
    "pbt": "PBT changes hyperparameters within a run, so no result belongs to one configuration; use nni-evolution",
    "batch": "Batch runs a fixed list of configurations; use grid with choices of one value",
    "networkmorphism": "NetworkMorphism searches architectures, not hyperparameters; use nni-evolution",
    "regularizedevolution": "RegularizedEvolution searches architectures, not hyperparameters; use nni-evolution",
    "evolution": "say nni-evolution for NNI's evolution",
    "gridsearch": "say grid for NNI's GridSearch",
}


def medianstop(epochs: int | None) -> dict:
    """Stop a trial worse than the median of earlier ones at its epoch; from a quarter of the epochs on, or the 5th."""
    start = max(1, epochs // 4) if epochs else 5
    return {"name": "Medianstop", "class_args": {"optimize_mode": "maximize", "start_step": start}}


def curvefitting(epochs: int) -> dict:
    """Stop a trial whose learning curve, extrapolated to `epochs`, does not reach the best so far."""
    return {
        "name": "Curvefitting",
        "class_args": {"epoch_num": epochs, "start_step": min(6, epochs), "threshold": 0.95},
    }


ASSESSORS = {"none": None, "medianstop": medianstop, "curvefitting": curvefitting}
