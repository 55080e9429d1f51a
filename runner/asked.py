"""The form of an experiment's search.json: what each of its values must be like, whoever has edited it.

well_formed(json.loads(text))    # without the values of another form
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from runner.flags import HIGHEST_SEED
from runner.records import is_number
from search_spaces import check_form, levels
from tuners import ASSESSORS
from tuners.aim import parse_limit, parse_objectives

RANGES = ("randint", "uniform", "quniform", "loguniform", "qloguniform", "normal", "qnormal", "lognormal", "qlognormal")


def well_formed(asked: dict) -> dict:
    """Return what of a search.json has the form in which it is written."""
    return {name: value for name, value in asked.items() if name not in FORM or FORM[name](value)}


def _is_count(least: int, most: int = HIGHEST_SEED) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_text(value) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_place(value) -> bool:
    """A folder, a file or an address, whatever letters it has."""
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_bool(value) -> bool:
    return isinstance(value, bool)


def _or_none(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or holds(value)


def _is_aim(parse: Callable[[str], object]) -> Callable[[object], bool]:
    """Objectives and limits are lists of lists, of which each word by word is what the command line takes."""

    def holds(value) -> bool:
        try:
            return isinstance(value, list) and all(parse(word) for word in value)
        except (ValueError, TypeError, IndexError):
            return False

    return holds


def _is_space(value) -> bool:
    try:
        check_form(value)
        return all(_has_values(spec) for level in levels(value) for spec in level.values())
    except (ValueError, RecursionError):
        return value == {}


def _has_values(spec: dict) -> bool:
    """Tell whether a parameter's values are as many numbers as its type takes."""
    kind, values = spec["_type"], spec["_value"]
    numbers = all(is_number(value) and abs(value) <= sys.float_info.max for value in values)
    return kind == "choice" or (kind in RANGES and numbers and len(values) == 2 + kind.startswith("q"))


def _is_time(value) -> bool:
    return is_number(value) and 0 < value < 1e12


def _is_objectives(value) -> bool:
    """Early experiments have the text of the command line."""
    return _is_aim(parse_objectives)([value]) if isinstance(value, str) else _is_aim(_parse_pair)(value)


def _parse_pair(pair) -> object:
    return parse_objectives("{}:{}".format(*pair))


FORM = dict.fromkeys(("task", "device", "tuner"), _is_text)
FORM |= dict.fromkeys(("warm_start", "tonic"), _or_none(_is_text))
FORM |= dict.fromkeys(("dask", "data_dir", "machines"), _or_none(_is_place))
FORM |= {"assessor": lambda value: _is_text(value) and value in ASSESSORS}
FORM |= {"objectives": _or_none(_is_objectives)}
FORM |= {"limit": _or_none(_is_aim(lambda limit: parse_limit("{}{}{}".format(*limit))))}
FORM |= dict.fromkeys(("seed", "split_seed", "test_seed"), _is_count(0, HIGHEST_SEED))
FORM |= dict.fromkeys(("repeats", "trials", "trials_per_gpu"), _is_count(1))
FORM |= dict.fromkeys(("concurrency", "gpus", "threads"), _or_none(_is_count(1)))
FORM |= dict.fromkeys(("duration", "trial_duration"), _or_none(_is_time))
FORM |= dict.fromkeys(("headless", "tensorboard"), _is_bool)
FORM |= {"space": _is_space, "started": _is_time, "code": _is_text, "data": _or_none(_is_text)}
FORM |= {"versions": lambda value: isinstance(value, dict) and all(map(_is_text, [*value, *value.values()]))}
