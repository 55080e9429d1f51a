"""The two parts of a task, found by their names: objective models/<name>.py, dataset loaders/<name>.py.

    names("loaders", ("load",))                          # ["braille", "digits"], nothing is imported
    find("loaders", "digits", ("load",), "dataset", {})  # the module

A package (models/<name>/__init__.py) is found as well. A name has letters and digits only, since `_` divides a task's
name; so nobody can ask for a path, a private module or a submodule. What is wrong with a file is a ValueError.
"""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

Place = str | Callable[..., Any]  # of what has another name than its file: "module:function", or the function
ROOT = Path(__file__).parent.parent  # not resolved: as modules have it in __file__


def files(folder: str) -> dict[str, Path]:
    """Return name -> file of the modules and packages in `folder`, a folder of the repository."""
    modules = {path.stem: path for path in (ROOT / folder).glob("*.py") if path.is_file()}
    packages = {path.parent.name: path for path in (ROOT / folder).glob("*/__init__.py") if path.is_file()}
    return modules | packages  # of two with one name Python imports the package


def names(folder: str, needs: Iterable[str]) -> list[str]:
    """Return the names in `folder` whose files define all that is needed, as far as their text says."""
    return [name for name in _defining(folder, needs) if name.isalnum()]


def find(folder: str, name: str, needs: Iterable[str], kind: str, others: Mapping[str, Place]) -> ModuleType:
    """Import and return the module of `name`.

    `others` are choices beside those in `folder`: name -> "module:function" or the function. They are told if they are
    there. Raises ValueError as `find_file`, and for a file that cannot be imported or lacks what is needed.
    """
    path = find_file(folder, name, needs, kind, others)
    module = bring(f"{folder}.{name}")
    if lacking := [need for need in needs if not hasattr(module, need)]:
        lack = f"{shown(path)} has no {' and no '.join(lacking)}, so {name} is no {kind}"
        raise ValueError(f"{lack}; {_choices(folder, needs, others)}")
    return module


def find_file(folder: str, name: str, needs: Iterable[str], kind: str, others: Mapping[str, Place]) -> Path:
    """Return the file of `name`, and import nothing. Raises ValueError for a name without one."""
    if name.isalnum() and name in (found := files(folder)):
        return found[name]
    hint = _underscored(folder, name, needs)
    raise ValueError(f"unknown {kind} {name!r}{hint}; {_choices(folder, needs, others)}")


def bring(module: str) -> ModuleType:
    """Import `module`. Raises ValueError with the cause in one line if that fails."""
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:  # a file of the user's may raise anything
        raise ValueError(f"{module} cannot be imported: {type(error).__name__}: {error}{_place(error)}") from error


def is_there(place: Place) -> bool:
    """Tell whether there is the module of "module:function"; only the package that it is in gets imported."""
    try:
        return callable(place) or find_spec(place.partition(":")[0]) is not None
    except Exception:  # the package is not there, or raises
        return False


def shown(path: str | Path) -> str:
    """Return a file's path as the user knows it, from the repository's folder."""
    return str(Path(path).relative_to(ROOT))


def _choices(folder: str, needs: Iterable[str], others: Mapping[str, Place]) -> str:
    there = {name for name, place in others.items() if is_there(place)}
    return f"choose from: {', '.join(sorted(there.union(names(folder, needs))))}"


def _place(error: BaseException) -> str:
    """Return the last line of the repository's own parts that an error came through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path != Path(__file__) and path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            return f" ({shown(path)}, line {frame.lineno})"
    return ""


def _underscored(folder: str, name: str, needs: Iterable[str]) -> str:
    """Return a hint for who has named a file gestures_left.py and asks for eprop_gestures_left."""
    close = [found for found in _defining(folder, needs) if found.startswith(f"{name}_")]
    return f" ({folder}/{close[0]}.py is not found: its name must have letters and digits only)" if close else ""


def _defining(folder: str, needs: Iterable[str]) -> Iterator[str]:
    for name, path in sorted(files(folder).items()):
        if set(needs) <= _defined(path):
            yield name


def _defined(path: Path) -> set[str]:
    """Return the names that a file defines or imports at its top; empty for a file that Python cannot read."""
    try:
        statements = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str | None] = set()
    for statement in statements:
        for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
            found.add(getattr(target, "id", None))
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in statement.names}
        found.add(getattr(statement, "name", None))
    return {name for name in found if name is not None}
