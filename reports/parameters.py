"""The search space as ranges: where a value lies in its range, at which edge, and what to search next."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from search_spaces import is_nested, make_params, split_task

ROOT = Path(__file__).resolve().parent.parent
EDGE = 0.05  # part of a range that counts as its edge
FEW = 6  # so many different numbers, or fewer, are choices where the space is not known
LOG_RATIO = 20  # without a space, values that span more than this are taken as logarithmic


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter and its range."""

    name: str
    low: float | None = None  # of a range of numbers; None for choices
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple = ()  # as they are told: texts, numbers or booleans
    parent: tuple[str, str] | None = None  # (parameter, option) that it belongs to
    known: bool = True  # the range comes from a search space, not from the values alone
    unit: str = ""
    meaning: str = ""

    @property
    def fixed(self) -> bool:
        """Whether it cannot vary."""
        return len(self.choices) == 1 or (not self.choices and self.low == self.high)

    @property
    def label(self) -> str:
        """Its name with its unit."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers."""
        return not self.choices or all(_is_number(choice) for choice in self.choices)

    def holds(self, value) -> bool:
        """Tell whether `value` is one that the range can have: of its kind, and positive on a logarithmic one."""
        if self.choices:
            return told(value) in self.choices
        return _is_number(value) and math.isfinite(value) and (value > 0 or not self.log)

    def position(self, value) -> float:
        """Return where `value` lies, from 0 (least) to 1 (greatest); choices are evenly spaced."""
        if self.choices:
            ordered = sorted(self.choices) if self.ordered else list(self.choices)
            return ordered.index(told(value)) / max(1, len(ordered) - 1) if told(value) in ordered else 0.5
        if self.high == self.low:
            return 0.5
        scale = math.log if self.log else float
        place = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return min(1.0, max(0.0, place))

    def edge(self, value) -> str:
        """Return "lower" or "upper" where `value` lies at an end of the range, else "".

        A number is within EDGE of the range's length from the end. Of three or more numbers to choose from it is the
        least or the greatest; of two, each would be, so that says nothing.
        """
        if not self.known or not self.ordered or (self.choices and len(self.choices) < 3):
            return ""
        place = self.position(value)
        return "lower" if place <= EDGE else "upper" if place >= 1 - EDGE else ""


def told(value):
    """Return a value as a choice is told: lists and the like as JSON."""
    return value if isinstance(value, str | int | float | bool) or value is None else json.dumps(value)


def short(value) -> str:
    """A value as a sentence or a table shows it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return str(told(value))


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parameters_of(space: dict, entries: list[dict], task: str) -> list[Parameter]:
    """Return the parameters of a search space, inner ones of nested choices included, and those that trials had beside.

    A range is stretched where a trial lies outside of it (the space was changed during the search).
    """
    values: dict[str, list] = {}
    for entry in entries:
        for name, value in entry["parameters"].items():
            values.setdefault(name, []).append(value)
    comments = field_comments(task)
    flat = _flat_specs(space, None)
    found = [_parameter(name, spec, parent, values.get(name, [])) for name, (spec, parent) in flat.items()]
    found += [_guessed(name, seen) for name, seen in values.items() if name not in flat]
    return [_explained(parameter, comments) for parameter in found]


def _flat_specs(space: dict, parent: tuple[str, str] | None) -> dict[str, tuple[dict, tuple[str, str] | None]]:
    """Return name -> (spec, parent) of all levels; a nested choice is a choice between its options' names."""
    flat = {}
    for name, spec in space.items():
        options = [option for option in spec["_value"] if isinstance(option, dict)] if is_nested(spec) else []
        names = [option["_name"] if isinstance(option, dict) else option for option in spec["_value"]]
        flat[name] = ({"_type": "choice", "_value": names} if options else spec, parent)
        for option in options:
            inner = {key: value for key, value in option.items() if key != "_name"}
            flat |= _flat_specs(inner, (name, option["_name"]))
    return flat


def _parameter(name: str, spec: dict, parent, values: list) -> Parameter:
    kind, given = spec["_type"], spec["_value"]
    if kind == "choice":
        choices = dict.fromkeys(told(value) for value in [*given, *values])
        return Parameter(name, choices=tuple(choices), parent=parent)
    numbers = [value for value in values if _is_number(value) and (value > 0 or "log" not in kind)]
    if kind.endswith("normal"):  # without bounds: as far as the trials went
        return _guessed(name, numbers or [0, 0], parent, "log" in kind)
    low, high = (given[0], given[1] - 1) if kind == "randint" else given[:2]
    return Parameter(name, min([low, *numbers]), max([high, *numbers]), "log" in kind, kind == "randint", parent=parent)


def _guessed(name: str, values: list, parent=None, log: bool | None = None) -> Parameter:
    """A parameter of which no space is known: its range is that of the values."""
    different = dict.fromkeys(told(value) for value in values)
    if log is None and (not all(_is_number(value) for value in different) or len(different) <= FEW):
        return Parameter(name, choices=tuple(different), parent=parent, known=False)
    low, high = min(values), max(values)
    log = low > 0 and high / low > LOG_RATIO if log is None else log and low > 0
    return Parameter(name, low, high, log, parent=parent, known=False)


def _explained(parameter: Parameter, comments: dict[str, tuple[str, str]]) -> Parameter:
    meaning, unit = comments.get(parameter.name, ("", ""))
    return Parameter(**{**vars(parameter), "meaning": meaning, "unit": unit})


def field_comments(task: str) -> dict[str, tuple[str, str]]:
    """Return name -> (meaning, unit) from the comments beside the fields of the task's Params; empty where unknown.

    The unit is what stands in square brackets. The source is read as text: importing it may need torch.
    """
    try:
        from train_hpo import params_module

        path = ROOT / params_module(split_task(task)[0]).replace(".", "/")
        paths = sorted(path.glob("*.py")) if (path / "__init__.py").is_file() else [path.with_suffix(".py")]
        source = "\n".join(path.read_text() for path in paths)
    except (ImportError, OSError, ValueError):
        return {}
    comments = {}
    for name, comment in re.findall(r"^ {4}(\w+): [^=\n]+=[^#\n]*# (.+)$", source, re.MULTILINE):
        unit = re.search(r"\[([^\]]+)\]", comment)
        comments.setdefault(name, (re.sub(r"\s*\[[^\]]+\]", "", comment).rstrip(" ,:;"), unit[1] if unit else ""))
    return comments


def beyond(parameter: Parameter, edge: str) -> list:
    """Return values beyond the `edge` of the range, the boldest first: half, a quarter, a tenth of its length away.

    A logarithmic range is measured in its logarithm. Below a positive end half of it is offered last. Of numbers to
    choose from it is one more step, of the same ratio where they span more than LOG_RATIO.
    """
    if parameter.choices:
        return [_next_choice(sorted(parameter.choices), edge)]
    scale, back = (math.log, math.exp) if parameter.log else (float, float)
    low, high = scale(parameter.low), scale(parameter.high)
    steps = [(high - low) * part for part in (0.5, 0.25, 0.1)]
    found = [back(high + step if edge == "upper" else low - step) for step in steps]
    if edge == "lower" and parameter.low > 0:
        found.append(parameter.low / 2)
    return [round(value) if parameter.integer else float(f"{value:.3g}") for value in found]


def _next_choice(values: list, edge: str):
    last, before = (values[-1], values[-2]) if edge == "upper" else (values[0], values[1])
    if values[0] > 0 and values[-1] / values[0] > LOG_RATIO:
        following = last * last / before
    else:
        following = 2 * last - before
        following = last / 2 if following <= 0 < last else following
    return round(following) if isinstance(last, int) and following >= 1 else float(f"{following:.3g}")


def refusal(task: str, parameters: dict, name: str, value) -> str:
    """Return why the objective would refuse `value` for `name`; "" where it takes it or cannot be asked."""
    if not task:
        return ""
    try:
        from train_hpo import params_class

        params = params_class(split_task(task)[0])
    except Exception:  # the objective's own packages may be missing where the report is made
        return ""
    try:
        make_params(params, parameters | {name: value})
    except (TypeError, ValueError) as error:
        return str(error)
    return ""
