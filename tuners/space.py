"""An NNI search space as a vector: its nested choices flattened to leaves, each leaf one number (its code).

    space = Space({"lr": {"_type": "loguniform", "_value": [1e-4, 1]}, "size": {"_type": "choice", "_value": [10, 20]}})
    codes = space.random(numpy.random.default_rng(0))      # (0.53, 1.0)
    space.decode(codes)                                    # {"lr": 0.0131, "size": 20}, in NNI's nested form

A leaf of kind "category" is coded by the number of its option, one of kind "order" (numbers at equal distances) by its
rank, one of kind "unit" by a place in 0..1: linear, logarithmic or, for normal ones, by probability. A leaf that the
chosen options switch off has a fixed code, so equal configurations have equal codes. Every proposal stays within three
standard deviations of a normal parameter, the range in which search spaces are checked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

MOST_OPTIONS = 10_000  # a numeric range with more values is treated as continuous, and rounded
MOST_LISTED = 20_000  # a discrete space of at most so many configurations is enumerated
DIGITS = 10  # of a place: a value and what is read back from its text get the same code
DEVIATIONS = 3.0  # of a normal parameter
TAIL = NormalDist().cdf(-DEVIATIONS)


@dataclass(frozen=True)
class Leaf:
    """One parameter, with the options of nested choices that switch it on."""

    name: str  # unique: the path of names and options, such as rule/stdp/a_plus
    path: tuple  # the path, an option as its number: ("rule", 0, "a_plus")
    conditions: tuple  # ((leaf's index, option's number), ...)
    kind: str  # category | order | unit
    spec: tuple  # (NNI's _type, its _value)
    options: tuple | None = None  # all values, where they are few
    places: tuple | None = None  # of the options in 0..1, for kind unit

    def snap(self, codes: np.ndarray) -> np.ndarray:
        """Return the nearest codes that stand for a value."""
        if self.kind != "unit":
            return np.clip(np.rint(codes), 0, len(self.options) - 1)
        codes = np.round(np.clip(codes, 0.0, 1.0), DIGITS)
        if self.places is not None:
            places = np.array(self.places)
            middles = (places[1:] + places[:-1]) / 2
            return places[np.searchsorted(middles, codes)]
        if not is_rounded(self.spec[0]):
            return codes
        return np.array([round(place_of(value_at(c, *self.spec), *self.spec), DIGITS) for c in codes.tolist()])

    def value(self, code: float):
        """Return the value of a code that `snap` has returned."""
        if self.places is not None:
            return self.options[self.places.index(code)]
        return self.options[int(code)] if self.options is not None else value_at(code, *self.spec)

    def code(self, value) -> float:
        """Return the code of a value. Raises ValueError where the leaf does not have it."""
        if self.kind == "category" or self.options is not None:
            for number, option in enumerate(self.options):
                if same(option, value):
                    return self.places[number] if self.places is not None else float(number)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            place = place_of(value, *self.spec)
            if -1e-9 <= place <= 1 + 1e-9:
                return float(self.snap(np.array([place]))[0])
        raise ValueError(f"{self.name} = {value!r} is outside of the search space")

    @cached_property
    def rest(self) -> float:
        """The code while the leaf is switched off."""
        return float(self.snap(np.array([0.5]))[0]) if self.kind == "unit" else 0.0

    @property
    def codes(self) -> tuple | None:
        """All codes, where they are few."""
        if self.options is None:
            return None
        return self.places if self.places is not None else tuple(map(float, range(len(self.options))))


def same(option, value) -> bool:
    """Tell whether two values of a choice are one: 1 is 1.0 but not true; floats to within rounding."""
    if isinstance(option, bool) or isinstance(value, bool):
        return option is value
    if isinstance(option, float) and isinstance(value, int | float):
        return math.isclose(option, value, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(option, dict) and "_name" in option:
        return option["_name"] == (value.get("_name") if isinstance(value, dict) else value)
    return option == value


def is_rounded(kind: str) -> bool:
    """Tell whether a type of NNI's has only multiples of something."""
    return kind.startswith("q") or kind == "randint"


def value_at(place: float, kind: str, bounds: tuple) -> float:
    """Return the value of a numeric type at a place in 0..1, as NNI defines it: round(x / q) * q, clipped."""
    if kind == "randint":
        return min(int(bounds[0] + place * (bounds[1] - bounds[0])), bounds[1] - 1)
    log = "log" in kind
    if kind.endswith("normal"):  # bounds are those of the logarithm
        value = NormalDist(bounds[0], bounds[1]).inv_cdf(TAIL + place * (1 - 2 * TAIL))
        value = math.exp(value) if log else value
    elif log:
        value = math.exp(math.log(bounds[0]) + place * (math.log(bounds[1]) - math.log(bounds[0])))
    else:
        value = bounds[0] + place * (bounds[1] - bounds[0])
    if kind.startswith("q"):
        value = multiple(round(value / bounds[2]), bounds[2])
    return value if kind.endswith("normal") else min(max(value, bounds[0]), bounds[1])


def place_of(value: float, kind: str, bounds: tuple) -> float:
    """Return the place of a value, beyond 0..1 where it is out of range: the inverse of `value_at`."""
    if kind == "randint":
        return (value + 0.5 - bounds[0]) / (bounds[1] - bounds[0])
    log = "log" in kind
    value = (math.log(value) if value > 0 else -math.inf) if log else value
    if kind.endswith("normal"):
        value = min(max(value, bounds[0] - DEVIATIONS * bounds[1]), bounds[0] + DEVIATIONS * bounds[1])
        return (NormalDist(bounds[0], bounds[1]).cdf(value) - TAIL) / (1 - 2 * TAIL)
    low, high = (math.log(bounds[0]), math.log(bounds[1])) if log else bounds[:2]
    return (value - low) / (high - low) if high > low else 0.5


def multiple(number: int, step: float) -> float:
    """Return number * step without the last digits' noise: 0.3, not 0.30000000000000004."""
    return float(f"{number * step:.12g}")


class Space:
    """The leaves of a search space and what can be done with their codes."""

    def __init__(self, space: dict):
        self.leaves: list[Leaf] = []
        self._add(space, (), ())

    def _add(self, level: dict, path: tuple, conditions: tuple) -> None:
        for name, spec in level.items():
            if name == "_name":
                continue
            leaf = make_leaf(self._label((*path, name)), (*path, name), conditions, spec["_type"], spec["_value"])
            index = len(self.leaves)
            self.leaves.append(leaf)
            if spec["_type"] != "choice":
                continue
            for number, option in enumerate(leaf.options):
                if isinstance(option, dict) and "_name" in option:
                    self._add(option, (*path, name, number), (*conditions, (index, number)))

    def _label(self, path: tuple) -> str:
        """The path as text; an option by its name."""
        words, here = [], None
        for step in path:
            if isinstance(step, int):
                words.append(str(here.options[step]["_name"]))
            else:
                words.append(step)
                known = path[: path.index(step) + 1]
                here = next((leaf for leaf in self.leaves if leaf.path == known), here)
        return "/".join(words)

    @cached_property
    def size(self) -> int | None:
        """The number of configurations; None for a space with a continuous parameter."""
        return self._size_of(())

    def _size_of(self, conditions: tuple) -> int | None:
        total = 1
        for index, leaf in enumerate(self.leaves):
            if leaf.conditions != conditions:
                continue
            if leaf.options is None:
                return None
            inner = [self._size_of((*conditions, (index, number))) for number in range(len(leaf.options))]
            if None in inner:
                return None
            total *= sum(inner)
        return total

    @cached_property
    def table(self) -> np.ndarray | None:
        """All configurations of a small discrete space, a row of codes each; None for other spaces."""
        if self.size is None or self.size > MOST_LISTED:
            return None
        return np.array(list(self._rows(0, ())), dtype=float).reshape(self.size, len(self.leaves))

    def _rows(self, index: int, chosen: tuple) -> Iterator[tuple]:
        """Yield the codes of all configurations that begin with `chosen`."""
        if index == len(self.leaves):
            yield chosen
            return
        leaf = self.leaves[index]
        for code in leaf.codes if self._is_active(leaf, chosen) else (leaf.rest,):
            yield from self._rows(index + 1, (*chosen, code))

    @staticmethod
    def _is_active(leaf: Leaf, codes) -> bool:
        return all(codes[index] == number for index, number in leaf.conditions)

    def snap(self, codes) -> tuple[float, ...]:
        """Return the codes of the nearest configuration; what is switched off at rest."""
        return tuple(self.snap_rows(np.array([codes], dtype=float))[0].tolist())

    def snap_rows(self, codes: np.ndarray) -> np.ndarray:
        """The same for many, a row each."""
        snapped = np.empty_like(codes)
        for index, leaf in enumerate(self.leaves):
            snapped[:, index] = np.where(self._active(leaf, snapped), leaf.snap(codes[:, index]), leaf.rest)
        return snapped

    @staticmethod
    def _active(leaf: Leaf, codes: np.ndarray) -> np.ndarray:
        """Tell in which rows a leaf is switched on."""
        active = np.ones(len(codes), dtype=bool)
        for index, number in leaf.conditions:
            active &= codes[:, index] == number
        return active

    def random(self, rng: np.random.Generator) -> tuple[float, ...]:
        """Draw a configuration as NNI's types define their distributions."""
        return tuple(self.random_rows(rng, 1)[0].tolist())

    def random_rows(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Draw many, a row each."""
        return self.snap_rows(self._draw(rng, number))

    def _draw(self, rng: np.random.Generator, number: int) -> np.ndarray:
        draws = rng.random((number, len(self.leaves)))
        for index, leaf in enumerate(self.leaves):
            if leaf.kind != "unit":
                draws[:, index] = np.floor(draws[:, index] * len(leaf.options))
        return draws

    def decode(self, codes) -> dict:
        """Return NNI's nested parameters of snapped codes: what is switched on, and nothing else."""
        parameters: dict = {}
        for leaf, code in zip(self.leaves, codes, strict=True):
            if self._is_active(leaf, codes):
                level = parameters
                for step in (step for step in leaf.path[:-1] if isinstance(step, str)):
                    level = level[step]
                value = leaf.value(code)
                nested = isinstance(value, dict) and "_name" in value
                level[leaf.path[-1]] = {"_name": value["_name"]} if nested else value
        return parameters

    def encode(self, parameters: dict) -> tuple[float, ...]:
        """Return the codes of NNI's nested parameters or of the journal's flat ones. Raises ValueError if foreign."""
        codes: list[float] = []
        for leaf in self.leaves:
            if not self._is_active(leaf, codes):
                codes.append(leaf.rest)
                continue
            try:
                codes.append(leaf.code(look_up(parameters, leaf.path)))
            except KeyError:
                raise ValueError(f"{leaf.name} is missing") from None
        return tuple(codes)

    def neighbours(self, codes, rng: np.random.Generator, number: int, spread: float = 0.1) -> np.ndarray:
        """Return configurations near `codes`, a row each: one or two parameters changed, numbers by a normal step."""
        changeable = [
            index
            for index, leaf in enumerate(self.leaves)
            if self._is_active(leaf, codes) and (leaf.options is None or len(leaf.options) > 1)
        ]
        if not changeable:
            return np.empty((0, len(self.leaves)))
        first, second = rng.choice(changeable, size=(2, number))
        second = np.where(rng.random(number) < 0.5, first, second)
        rows = self._draw(rng, number)  # what a changed choice switches on stays at random
        for index, leaf in enumerate(self.leaves):
            if self._is_active(leaf, codes):
                changed = (first == index) | (second == index)
                rows[:, index] = np.where(changed, step_from(leaf, codes[index], rng, number, spread), codes[index])
        return self.snap_rows(rows)


def step_from(leaf: Leaf, code: float, rng: np.random.Generator, number: int, spread: float) -> np.ndarray:
    """Return codes at a normal step from `code`, at least one rank away; any other option of a category."""
    if leaf.kind == "category":
        return (code + rng.integers(1, max(2, len(leaf.options)), number)) % len(leaf.options)
    steps = spread * rng.normal(size=number)
    if leaf.places is not None:
        steps = np.sign(steps) * np.maximum(np.abs(steps), 1.0 / len(leaf.options))
    if leaf.kind == "unit":
        return code + steps
    return code + np.sign(steps) * np.maximum(np.rint(np.abs(steps) * len(leaf.options)), 1)


def look_up(parameters: dict, path: tuple):
    """Return the value at a leaf's path of nested parameters, or by its name in flat ones. Raises KeyError."""
    level = parameters
    for step in (step for step in path[:-1] if isinstance(step, str)):
        level = level.get(step, parameters)
        level = level if isinstance(level, dict) else parameters
    return level[path[-1]] if path[-1] in level else parameters[path[-1]]


def make_leaf(name: str, path: tuple, conditions: tuple, kind: str, value: list) -> Leaf:
    """Return the leaf of one parameter in NNI's JSON."""
    spec = (kind, tuple(value) if kind != "choice" else ())
    if kind == "choice":
        options = []
        for option in value:
            if not any(same(other, option) for other in options):
                options.append(option)
        numbers = all(isinstance(option, int | float) and not isinstance(option, bool) for option in options)
        options = tuple(sorted(options) if numbers else options)
        return Leaf(name, path, conditions, "order" if numbers else "category", spec, options)
    if kind == "randint" and value[1] - value[0] <= MOST_OPTIONS:
        return Leaf(name, path, conditions, "order", spec, tuple(range(math.ceil(value[0]), math.ceil(value[1]))))
    options = multiples(*spec) if kind.startswith("q") else None
    if options is None:
        return Leaf(name, path, conditions, "unit", spec)
    gaps = np.diff(options)
    if kind == "quniform" and (len(options) < 3 or np.allclose(gaps, gaps[0])):
        return Leaf(name, path, conditions, "order", spec, options)
    return Leaf(name, path, conditions, "unit", spec, options, tuple(place_of(o, *spec) for o in options))


def multiples(kind: str, bounds: tuple) -> tuple | None:
    """Return all values of a rounded type in order; None where they are more than MOST_OPTIONS."""
    low, high = value_at(0.0, kind, bounds), value_at(1.0, kind, bounds)
    first, last = round(low / bounds[2]), round(high / bounds[2])
    if last - first > MOST_OPTIONS:
        return None
    values = [multiple(number, bounds[2]) for number in range(first, last + 1)]
    if not kind.endswith("normal"):
        values = [min(max(value, bounds[0]), bounds[1]) for value in values]
    return tuple(sorted(set(itertools.chain(values, (low, high)))))
