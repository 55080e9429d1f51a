"""What a search is after: one objective or several, and limits that a configuration must keep.

--objectives default:max,energy_nj:min      --limit "synaptic_operations<1e6"
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field
from numbers import Real

MODES = ("max", "min")


@dataclass
class Aim:
    """Objectives (metric, "max" or "min") in the order in which they rank; limits (metric, "<" or ">", bound)."""

    objectives: list[tuple[str, str]] = field(default_factory=lambda: [("default", "max")])
    limits: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """The metrics that are looked at, each once."""
        return list(dict.fromkeys(name for name, *_ in [*self.objectives, *self.limits]))

    def scores(self, metrics: dict) -> tuple[float, ...] | None:
        """Return the objectives' values, larger is better; None where one is missing or not finite."""
        values = [_finite(metrics.get(name)) for name, _ in self.objectives]
        if any(value is None for value in values):
            return None
        return tuple(v if mode == "max" else -v for v, (_, mode) in zip(values, self.objectives, strict=True))

    def place(self, metrics: dict) -> tuple:
        """What ranks a trial, the less the better: within the limits before others, then by the objectives in turn, so
        that none is ahead of another that dominates it. Of equals the earlier trial is the better."""
        scores = self.scores(metrics)
        return scores is None, not self.is_kept(metrics), *(-score for score in scores or ())

    def excess(self, metrics: dict) -> tuple[float, ...]:
        """Return by how much each limit is broken: at most 0 where it holds, infinite where its metric is missing."""
        over = []
        for name, sign, bound in self.limits:
            value = _finite(metrics.get(name))
            over.append(math.inf if value is None else (value - bound if sign == "<" else bound - value))
        return tuple(over)

    def is_kept(self, metrics: dict) -> bool:
        """Whether all limits hold."""
        return all(over <= 0 for over in self.excess(metrics))

    def front(self, candidates: list[dict]) -> list[bool]:
        """Tell for each dict of metrics whether it is on the Pareto front: within the limits, and no other within them
        is at least as good in every objective and better in one."""
        import numpy as np  # not at the top: who reads a command line needs none

        scores = [self.scores(metrics) if self.is_kept(metrics) else None for metrics in candidates]
        known = sorted({score for score in scores if score is not None}, reverse=True)  # who dominates comes before
        front = np.empty((0, len(self.objectives)))
        for score in known:
            if not (front >= score).all(1).any():
                front = np.vstack([front, score])
        best = set(map(tuple, front.tolist()))
        return [score in best for score in scores]


def parse_objectives(text: str) -> list[tuple[str, str]]:
    """Read "default:max,energy_nj:min". Raises ValueError with the rule."""
    objectives = []
    for word in text.split(","):
        name, _, mode = word.strip().partition(":")
        if not re.fullmatch(r"\w+", name) or mode not in MODES:
            raise ValueError(f"must be like default:max,energy_nj:min, not {text!r}")
        if name in dict(objectives):
            raise ValueError(f"{name} is named twice in {text!r}")
        objectives.append((name, mode))
    return objectives


def parse_limit(text: str) -> tuple[str, str, float]:
    """Read "synaptic_operations<1e6". Raises ValueError with the rule."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>])\s*(\S+)\s*", text)
    try:
        bound = float(match[3])
    except (TypeError, ValueError):
        bound = math.nan
    if not math.isfinite(bound):
        raise ValueError(f"must be like synaptic_operations<1e6 or rate_hz>1, not {text!r}")
    return match[1], match[2], bound


def _finite(value) -> float | None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= sys.float_info.max else None  # an integer may be larger
