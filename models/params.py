"""Validation of hyperparameters, shared by the Params dataclasses. It imports no numerical library."""

from __future__ import annotations

import math
from dataclasses import fields
from numbers import Integral, Real
from typing import NamedTuple, get_type_hints

MOST_BITS = 16  # of a quantised weight


class Range(NamedTuple):
    """Values from `low` to `high`; `low` itself is excluded where `above` is set."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        try:
            if not math.isfinite(value):
                return False
        except OverflowError:  # an integer larger than any float
            return False
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        upper = "" if math.isinf(self.high) else f" and at most {self.high:g}"
        return f"{'above' if self.above else 'at least'} {self.low:g}{upper}"


def check(params: object, choices: dict[str, tuple[str, ...]], ranges: dict[str, Range]) -> None:
    """Check every field of the dataclass `params` by its annotation (int, float, bool or str), choices or range.

    Raises ValueError that names the field, its value and what it must be. A float field takes integers; an int field
    takes no floats, for 3.0 comes from a search space that would give 3.5 next.
    """
    annotations = get_type_hints(type(params))  # types, also where a module has annotations as text
    for field in fields(params):
        name, value, annotation = field.name, getattr(params, field.name), annotations[field.name]
        if annotation is bool:
            _require(isinstance(value, bool), name, value, "true or false")
        elif annotation is str:
            fits = isinstance(value, str) and value in choices[name]
            _require(fits, name, value, "one of " + ", ".join(choices[name]))
        else:
            kind, noun = (Integral, "an integer") if annotation is int else (Real, "a number")
            fits = isinstance(value, kind) and not isinstance(value, bool) and value in ranges[name]
            _require(fits, name, value, f"{noun} {ranges[name]}")


def check_bits(name: str, bits: int) -> None:
    """Raise ValueError for 1, with which a symmetric grid holds nothing but 0."""
    _require(bits != 1, name, bits, f"0 (off) or an integer at least 2 and at most {MOST_BITS}")


def _require(fits: bool, name: str, value: object, rule: str) -> None:
    if not fits:
        raise ValueError(f"{name} must be {rule}, not {value!r}")
