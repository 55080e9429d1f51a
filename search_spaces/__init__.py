"""Search spaces in NNI's JSON format, one file a task: <objective>_<dataset>[_<variant>].json; the stem is its name.

This module reads them and compares them with the dataclass (Params) of the objective. A choice may be nested, with the
parameters of an option beside its name: {"rule": {"_type": "choice", "_value": [{"_name": "stdp", "a_plus": {...}}]}}.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

FOLDER = Path(__file__).parent
LONGEST = 1000  # letters of a name or value; longer texts are cut in the journal
COLUMNS = ("trial", "parameter_id", "default", "status", "cause", "seed", "split_seed", "test_seed", "wall_seconds")
RESERVED = (*COLUMNS, "code")

Space = dict[str, Any]  # a parameter's name -> its spec {"_type": ..., "_value": [...]}
Parameters = dict[str, Any]  # a parameter's name -> its value


def task_names() -> list[str]:
    """Return the names of all tasks."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def split_task(task: str) -> tuple[str, str]:
    """Return (objective, dataset) of a task's name. Raises ValueError for a task without a search space."""
    if task not in task_names():
        raise ValueError(f"unknown task {task!r}{_nearest(task, task_names())}; choose from: {', '.join(task_names())}")
    parts = task.split("_", 2)
    if len(parts) < 2:
        raise ValueError(f"search_spaces/{task}.json: a task is named <objective>_<dataset>[_<variant>]")
    return parts[0], parts[1]


def load_space(task: str) -> Space:
    """Return the search space of `task`. Raises ValueError with file and reason where it is no proper one."""
    split_task(task)
    path = FOLDER / f"{task}.json"
    try:
        space: Space = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"search_spaces/{path.name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"search_spaces/{path.name} is not valid JSON: {error}") from None
    try:
        check_form(space)
    except ValueError as error:
        raise ValueError(f"search_spaces/{path.name}: {error}") from None
    return space


def flatten(parameters: Parameters) -> Parameters:
    """Turn {"rule": {"_name": "stdp", "a_plus": 0.1}} into {"rule": "stdp", "a_plus": 0.1}, at any depth."""
    flat: Parameters = {}
    for name, value in parameters.items():
        if isinstance(value, dict) and "_name" in value:
            flat[name] = value["_name"]
            flat |= flatten({key: inner for key, inner in value.items() if key != "_name"})
        else:
            flat[name] = value
    return flat


def levels(space: Space) -> Iterator[Space]:
    """Yield `space` and the parameters of every nested option, each as one flat {name: spec}."""
    yield space
    for spec in space.values():
        for option in spec["_value"] if is_nested(spec) else ():
            yield from levels(_inner(option))


def is_nested(spec: dict[str, Any]) -> bool:
    """Tell whether `spec` is a choice between options that have parameters of their own."""
    return spec["_type"] == "choice" and any(isinstance(option, dict) for option in spec["_value"])


def default_parameters(space: Space, params_class: type, given: Parameters | None = None) -> Parameters:
    """Return the task's defaults, flat: Params' defaults moved to the nearest value that each range allows.

    What is in `given` (flat parameters) stays as it is, and of a nested choice that option is taken, else the default.
    """
    fields = {field.name: field.default for field in dataclasses.fields(params_class)} | (given or {})
    chosen: Parameters = {}
    for name, spec in space.items():
        if is_nested(spec):
            options = {option["_name"]: option for option in spec["_value"]}
            chosen[name] = fields.get(name) if fields.get(name) in options else next(iter(options))
            chosen |= default_parameters(_inner(options[chosen[name]]), params_class, given)
        else:
            chosen[name] = given[name] if given and name in given else _nearest_value(fields.get(name), spec)
    return chosen


def check_space(space: Space, params_class: type, fits: Callable[[Any], None] = lambda params: None) -> None:
    """Compare a search space with Params: names, types, and the values at the ends of each range.

    `fits` may refuse Params as well, by a ValueError.

    Raises ValueError that names the parameter, what is wrong and the choices.
    """
    known = get_type_hints(params_class)
    for level in levels(space):
        for name, spec in level.items():
            if name not in known:
                raise ValueError(f"unknown parameter {name!r}{_nearest(name, known)}; known: {', '.join(known)}")
            if known[name] is int and spec["_type"] not in ("choice", "randint"):
                raise ValueError(f"{name} is an integer: use choice or randint, not {spec['_type']} (it yields floats)")
            if name in RESERVED:
                raise ValueError(f"a parameter must not be called {name}: results.csv has a column of that name")
    _check_corners(space, space, {}, params_class, fits)


def _check_corners(
    level: Space, space: Space, chosen: Parameters, params_class: type, fits: Callable[[Any], None]
) -> None:
    """Make Params at the ends of each range of `level`, with the options `chosen` that lead to it in `space`."""
    for name, spec in level.items():
        for value in _corners(spec):
            given = chosen | flatten({name: value})
            try:
                fits(params_class(**(default_parameters(space, params_class, given) | given)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} = {_shown(value)} is within the search space, but {error}") from None
        for option in spec["_value"] if is_nested(spec) else ():
            _check_corners(_inner(option), space, chosen | {name: option["_name"]}, params_class, fits)


def _inner(option: dict[str, Any]) -> Space:
    """The parameters of a nested option."""
    return {name: spec for name, spec in option.items() if name != "_name"}


def make_params(params_class: type, parameters: Parameters) -> Any:
    """Return Params from flat `parameters`. Raises ValueError for an unknown name or a value that Params refuses."""
    known = [field.name for field in dataclasses.fields(params_class)]
    for name in parameters:
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}{_nearest(name, known)}; known: {', '.join(known)}")
    return params_class(**parameters)


def check_form(space: Any) -> None:
    """Raise ValueError for what NNI's own validation leaves out or answers with a traceback."""
    if not isinstance(space, dict) or not space:
        raise ValueError("a search space is an object with at least one parameter")
    names: set[str] = set()
    for name, spec in space.items():
        if not isinstance(spec, dict) or set(spec) != {"_type", "_value"}:
            raise ValueError(f'{name} must be {{"_type": ..., "_value": [...]}}, not {json.dumps(spec)}')
        if not isinstance(spec["_value"], list) or not spec["_value"]:
            raise ValueError(f"{name}: _value must be a list with at least one entry, not {json.dumps(spec['_value'])}")
        names.add(name)
        for text in (name, *(option for option in spec["_value"] if isinstance(option, str))):
            if not text.isprintable():  # as the journal has them
                raise ValueError(f"names and values must be printable, which {text!r} is not")
            if len(text) > LONGEST:
                raise ValueError(f"names and values have at most {LONGEST} letters, not {len(text)}: {text[:60]!r}")
        options = spec["_value"] if is_nested(spec) else []
        if any(not isinstance(option, dict) or not isinstance(option.get("_name"), str) for option in options):
            raise ValueError(f'{name}: every option of a nested choice needs a "_name"')
        for option in options:
            inner = _inner(option)
            if inner:
                check_form(inner)
            if names & inner.keys():
                raise ValueError(
                    f"{name}: {', '.join(sorted(names & inner.keys()))} is named twice in the search space"
                )
            names |= inner.keys()


def _corners(spec: dict[str, Any]) -> list[Any]:
    """The values at the ends of a range; all of a choice's; three standard deviations of an unbounded one."""
    kind, value = spec["_type"], spec["_value"]
    if kind == "choice":
        return [_first_of(option) for option in value]
    if kind == "randint":
        return [value[0], value[1] - 1]
    if kind.endswith("normal"):
        ends = [value[0] - 3 * value[1], value[0] + 3 * value[1]]
        return [math.exp(end) for end in ends] if "log" in kind else ends
    return list(value[:2])


def _first_of(option: Any) -> Any:
    """An option with one value for each of its inner parameters, in the form that NNI hands to a trial."""
    if not isinstance(option, dict):
        return option
    return {name: inner if name == "_name" else _corners(inner)[0] for name, inner in option.items()}


def _nearest_value(default: Any, spec: dict[str, Any]) -> Any:
    kind, value = spec["_type"], spec["_value"]
    numeric = isinstance(default, int | float) and not isinstance(default, bool)
    if kind == "choice":
        if default in value or not numeric or not all(isinstance(option, int | float) for option in value):
            return default if default in value else value[0]
        return min(value, key=lambda option: abs(option - default))
    if not numeric or kind.endswith("normal"):
        return default if numeric else _corners(spec)[0]
    low, high = _corners(spec)
    if kind.startswith("q"):
        default = round(default / value[2]) * value[2]
    return min(max(default, low), high)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _shown(value: object) -> str:
    return json.dumps(value, default=str)
