"""The search engines and assessors on offer, as NNI's configuration wants them, and why the others are refused."""

from __future__ import annotations

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


TUNERS = {"nni-tpe": nni_tpe, "random": random, "grid": grid, "nni-evolution": nni_evolution}
DEFAULT_TUNER = "nni-tpe"

# Refused, lower case: the reason, as measured with NNI 3.0.
REFUSED_TUNERS = {
    "gp": "NNI's GP raises at its first model-based proposal (scipy 1.11 and later); use nni-tpe",
    "metis": "NNI's Metis raises at its first model-based proposal (scipy 1.11 and later); use nni-tpe",
    "smac": "NNI's SMAC cannot be installed (its ConfigSpaceNNI does not build); use nni-tpe",
    "bohb": "NNI's BOHB raises on the first result; use nni-tpe with --assessor medianstop",
    "hyperband": "NNI's Hyperband raises on the first result; use random with --assessor medianstop",
    "anneal": "NNI's Anneal (hyperopt 0.1.2) raises on current Python; use nni-evolution",
    "tpe_legacy": "NNI's old TPE (hyperopt 0.1.2) raises on current Python; use nni-tpe",
    "dngo": "NNI's DNGO needs pybnn, which does not install; use nni-tpe",
    "ppo": "NNI's PPO needs TensorFlow and is meant for architectures; use nni-tpe",
    "pbt": "PBT changes hyperparameters within a run, so no result belongs to one configuration; use nni-evolution",
    "batch": "Batch runs a fixed list of configurations; use grid with choices of one value",
    "networkmorphism": "NetworkMorphism searches architectures, not hyperparameters; use nni-evolution",
    "regularizedevolution": "RegularizedEvolution searches architectures, not hyperparameters; use nni-evolution",
    "tpe": "say nni-tpe for NNI's TPE",
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
