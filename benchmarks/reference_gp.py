"""Bayesian optimisation as Parsa et al. describe it (section III-B), with NNI's methods, for comparison in benchmarks.

Two random configurations, then a Gaussian process over those seen (Matern 5/2, a length scale per parameter) and of all
configurations not yet tried the one with the largest expected improvement. For spaces of choices small enough to list.
"""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np

RANDOM_STARTS = 2


class ReferenceGP:
    """Proposes each configuration once. The larger the value the better."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def update_search_space(self, space: dict) -> None:
        """Take a space of choices."""
        self.names, options = list(space), [spec["_value"] for spec in space.values()]
        self.points = list(itertools.product(*options))
        places = [np.linspace(0, 1, len(values)) for values in options]
        self.x = np.array(list(itertools.product(*places)))  # numbers by their order, within 0..1
        self.left, self.asked, self.values = list(range(len(self.points))), {}, {}

    def generate_parameters(self, parameter_id: int, **_) -> dict:
        """Return the next configuration."""
        if len(self.values) < RANDOM_STARTS:
            index = int(self.rng.choice(self.left))
        else:
            index = self.left[int(np.argmax(self._improvement()))]
        self.left.remove(index)
        self.asked[parameter_id] = index
        return dict(zip(self.names, self.points[index], strict=True))

    def receive_trial_result(self, parameter_id: int, parameters: dict, value: float, **_) -> None:
        """Note a result."""
        self.values[self.asked[parameter_id]] = value

    def _improvement(self) -> np.ndarray:
        """Expected improvement over the best so far of each configuration that is left."""
        from scipy.stats import norm
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern, WhiteKernel

        kernel = Matern(np.ones(self.x.shape[1]), (0.1, 100), nu=2.5) + WhiteKernel(1e-2, (1e-6, 1))
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=int(self.rng.integers(2**31)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of length scales at their bounds
            process.fit(self.x[list(self.values)], list(self.values.values()))
        mean, deviation = process.predict(self.x[self.left], return_std=True)
        gain = mean - max(self.values.values())
        distance = gain / np.maximum(deviation, 1e-9)
        return gain * norm.cdf(distance) + deviation * np.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)
