"""An NNI search space as a flat list of leaves, for engines that know no nesting; and its configurations counted.

    leaves = flat(space)                       # every parameter of every option, at any depth
    point = {leaf.key: leaf.draw(rng) for leaf in leaves}
    nest(space, point)                         # the active ones, as NNI hands them to a trial

A point is a dict with a value for every leaf, also for the inactive ones. Sources: NNI 3.0's documentation of search
spaces; nni.common.hpo_utils, which says so, may change without notice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from statistics import NormalDist
from typing import Any

TAIL = 1e-6  # of an unbounded distribution, cut off at both ends
INDEXED = 1000  # a range of so many values or fewer is searched by their index


@dataclass(frozen=True)
class Leaf:
    """One parameter: its place, NNI's type and arguments. `unit` and `value` map it to [0, 1] and back."""

    key: str  # names of the parameters and options that lead here, joined by "/"
    kind: str  # choice | randint | uniform | quniform | loguniform | qloguniform | normal | qnormal | lognormal | ...
    args: tuple  # of a choice the options (of a nested one their names), else NNI's numbers
    parents: tuple = ()  # (key, option) of each choice that it is nested in, which must have chosen so

    @cached_property
    def values(self) -> tuple | None:
        """All values in order, where they are few; None for a continuous range or a long one."""
        if self.kind == "choice":
            return tuple(sorted(self.args)) if self.ordered else self.args
        if self.kind == "randint" and self.args[1] - self.args[0] <= INDEXED:
            return tuple(range(*self.args))
        return self.all_values() if self.kind == "quniform" and self.count <= INDEXED else None

    @cached_property
    def count(self) -> float:
        """How many different values there are; infinite for a continuous range."""
        if self.kind == "choice":
            return len(distinct(self.args))
        if self.kind == "randint":
            return self.args[1] - self.args[0]
        return len(self._multiples) if self.kind.startswith("q") else math.inf

    @cached_property
    def _multiples(self) -> range:
        """Which multiples of its step a rounded range has."""
        low, high = self._rounded(0.0), self._rounded(1.0)
        return range(round(low / self.args[2]), round(high / self.args[2]) + 1)

    def all_values(self) -> tuple:
        """Return all values of a leaf that has a finite number of them."""
        if self.kind == "choice":
            return self.values
        if self.kind == "randint":
            return tuple(range(*self.args))
        low, high = self._rounded(0.0), self._rounded(1.0)
        return tuple(dict.fromkeys(min(max(number * self.args[2], low), high) for number in self._multiples))

    @cached_property
    def ordered(self) -> bool:
        """Whether values that are near each other are alike: all but choices of other things than numbers."""
        return self.kind != "choice" or all(
            isinstance(option, int | float) and not isinstance(option, bool) for option in self.args
        )

    def value(self, unit: float) -> Any:
        """Return the value at `unit` in [0, 1]: at equal distances, or as probable as, the range's type says."""
        if (values := self.values) is not None:
            return values[min(int(unit * len(values)), len(values) - 1)]
        if self.kind == "randint":
            return min(self.args[0] + int(unit * (self.args[1] - self.args[0])), self.args[1] - 1)
        return self._rounded(unit)

    def _rounded(self, unit: float) -> float:
        """The value of a range at `unit`, a multiple of its step where it has one."""
        low, high = self.args[:2]
        if "normal" in self.kind:
            value = NormalDist(low, high).inv_cdf(TAIL + (1 - 2 * TAIL) * unit)
            value = math.exp(value) if "log" in self.kind else value
        elif "log" in self.kind:
            value = min(max(math.exp(math.log(low) + unit * math.log(high / low)), low), high)
        else:
            value = low + unit * (high - low)
        if self.kind.startswith("q"):
            value = round(value / self.args[2]) * self.args[2]
            value = value if "normal" in self.kind else min(max(value, low), high)
        return value

    def unit(self, value: Any) -> float:
        """Return the place of `value` in [0, 1]. Raises ValueError for one that a choice does not have."""
        if (values := self.values) is not None:
            if value not in values and not self.ordered:
                raise ValueError(f"{self.key} = {value!r} is not among {', '.join(map(repr, values))}")
            index = values.index(value) if value in values else _nearest(values, value)
            return (index + 0.5) / len(values)
        low, high = self.args[:2]
        if self.kind == "randint":
            return (value - low + 0.5) / (high - low)
        if "normal" in self.kind:
            if "log" in self.kind:
                value = math.log(value) if value > 0 else -math.inf
            return min(max((NormalDist(low, high).cdf(value) - TAIL) / (1 - 2 * TAIL), 0.0), 1.0)
        if "log" in self.kind:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def own(self, value: Any) -> Any:
        """Return the leaf's own value that `value` stands for, 0.0 for 0 but not for False. Raises ValueError."""
        if self.values is not None:
            found = [each for each in self.values if _same(each, value)]
            known = f"among {', '.join(map(repr, self.values))}"
        else:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            near = self.value(self.unit(value)) if is_number else None
            anywhere = self.kind == "normal" or (self.kind == "lognormal" and is_number and value > 0)
            fits = is_number and (_same(near, value) or (anywhere and math.isfinite(value)))
            found = [near if self.count < math.inf else value] if fits else []
            known = f"in {self.kind} {list(self.args)}"
        if not found:
            raise ValueError(f"{self.key} = {value!r} is not {known}")
        return found[0]

    def draw(self, rng) -> Any:
        """Return a random value, by numpy's generator `rng`."""
        return self.value(rng.random())


def flat(space: dict, above: str = "", parents: tuple = ()) -> list[Leaf]:
    """Return all leaves of `space`; a nested choice is a leaf, followed by those of its options."""
    leaves = []
    for name, spec in space.items():
        key = above + name
        options = spec["_value"] if spec["_type"] == "choice" else ()
        nested = [option for option in options if isinstance(option, dict)]
        names = [option["_name"] if isinstance(option, dict) else option for option in options]
        leaves.append(Leaf(key, spec["_type"], tuple(names or spec["_value"]), parents))
        for option in nested:
            leaves += flat(_inner(option), f"{key}/{option['_name']}/", (*parents, (key, option["_name"])))
    return leaves


def nest(space: dict, point: dict, above: str = "") -> dict:
    """Return the active part of `point` in the form that NNI hands to a trial."""
    parameters = {}
    for name, spec in space.items():
        value = point[above + name]
        option = _option(spec, value)
        parameters[name] = value
        if option is not None:
            parameters[name] = {"_name": value} | nest(_inner(option), point, f"{above}{name}/{value}/")
    return parameters


def unnest(space: dict, parameters: dict, above: str = "") -> dict:
    """Return the values of the active leaves from `parameters` in NNI's form or, names being unique, in the flat one.

    Raises ValueError where one is missing or not among a choice's options.
    """
    point = {}
    for name, spec in space.items():
        if name not in parameters:
            raise ValueError(f"{above}{name} is missing")
        value = parameters[name]
        inside = value if isinstance(value, dict) else parameters
        value = value["_name"] if isinstance(value, dict) else value
        leaf = Leaf(above + name, spec["_type"], tuple(_names(spec)))
        point[leaf.key] = value = leaf.own(value)
        if (option := _option(spec, value)) is not None:
            point |= unnest(_inner(option), inside, f"{above}{name}/{value}/")
    return point


def fits(space: dict, parameters: dict) -> bool:
    """Tell whether `parameters`, nested or flat, are a configuration of `space`."""
    try:
        unnest(space, parameters)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return False
    return True


def identity(parameters: dict) -> str:
    """Return a text that is the same for equal configurations."""
    return json.dumps(parameters, sort_keys=True)


def size(space: dict) -> float:
    """Return the number of different configurations; infinite where a range is continuous or long."""
    total = 1
    for name, spec in space.items():
        options = [option for option in spec["_value"] if isinstance(option, dict)] if spec["_type"] == "choice" else []
        if options:
            plain = len(distinct([option for option in spec["_value"] if not isinstance(option, dict)]))
            total *= plain + sum(size(_inner(option)) for option in options)
        else:
            total *= Leaf(name, spec["_type"], tuple(spec["_value"])).count
    return total


def everything(space: dict) -> Iterator[dict]:
    """Yield every configuration of a finite space, each once, in NNI's form."""
    per_parameter = []
    for name, spec in space.items():
        choices = []
        values = Leaf(name, spec["_type"], tuple(_names(spec))).all_values()
        for value in distinct(values) if spec["_type"] == "choice" else values:
            option = _option(spec, value)
            inner = [{}] if option is None else everything(_inner(option))
            choices += [({"_name": value} | rest if option is not None else value) for rest in inner]
        per_parameter.append([(name, choice) for choice in choices])
    for combination in product(*per_parameter):
        yield dict(combination)


def distinct(values: Iterable) -> list:
    """Return the different ones among the values of a leaf: 1 and 1.0 are one, True is another."""
    found = []
    for value in values:
        if not any(_same(each, value) for each in found):
            found.append(value)
    return found


def _names(spec: dict) -> list:
    if spec["_type"] != "choice":
        return spec["_value"]
    return [option["_name"] if isinstance(option, dict) else option for option in spec["_value"]]


def _option(spec: dict, value) -> dict | None:
    """The nested option that is called `value`; None where the parameter is not nested."""
    options = spec["_value"] if spec["_type"] == "choice" else ()
    return next((option for option in options if isinstance(option, dict) and option["_name"] == value), None)


def _inner(option: dict) -> dict:
    return {name: spec for name, spec in option.items() if name != "_name"}


def _same(own: Any, value: Any) -> bool:
    """Whether two values are one, as after a way through JSON and Node: 1 and 1.0 are, True and 1 are not."""
    numbers = [isinstance(each, int | float) and not isinstance(each, bool) for each in (own, value)]
    if all(numbers):
        return math.isclose(own, value, rel_tol=1e-9)
    return own == value and not any(numbers)


def _nearest(values: tuple, value: float) -> int:
    return min(range(len(values)), key=lambda index: abs(values[index] - value))
