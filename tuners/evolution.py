"""NNI's Evolution tuner, repaired: it draws from unseeded generators and raises when an early-stopped trial ends."""

from __future__ import annotations

import random

import numpy as np
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner


class SeededEvolution(EvolutionTuner):
    """NNI's naive evolution (Real et al. 2017, Large-Scale Evolution of Image Classifiers), reproducible.

    The seed fixes the proposals as long as results arrive in the same order (always so at concurrency 1).
    """

    def __init__(self, optimize_mode: str = "maximize", population_size: int = 32, seed: int = 0):
        super().__init__(optimize_mode, population_size)
        self._seed = seed

    def update_search_space(self, search_space: dict) -> None:
        """Take the search space and draw the first population from the seed."""
        super().update_search_space(search_space)
        random.seed(self._seed)  # selection and mutation draw from Python's generator, which is this process's own
        self.random_state = np.random.RandomState(self._seed)
        self.population = []
        for _ in range(self.population_size):
            self._random_generate_individual()

    def generate_parameters(self, parameter_id: int, **kwargs) -> dict:
        """Return a configuration; where more trials run than the population has individuals, a random one more."""
        if not self.population:
            self._random_generate_individual()
        return super().generate_parameters(parameter_id, **kwargs)

    def trial_end(self, parameter_id: int, success: bool, **kwargs) -> None:
        """Note the end of a trial. One that was stopped after its result had come is no failure (NNI: KeyError)."""
        super().trial_end(parameter_id, success or parameter_id not in self.running_trials, **kwargs)
