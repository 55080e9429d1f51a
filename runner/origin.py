"""What a score comes from, beside the parameters: the code, the data and the packages. Trials of one search share them.

code_hash(ROOT)         # "3f2a91bc04", of the Python and JSON files that a search and its trials can read
fingerprint(data)       # of what a loader returned
changes(before, now)    # lines on what differs
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGES = ("nni", "torch", "snntorch", "numpy", "numba", "optuna")
NOT_OF_A_TRIAL = {"experiments", "data", "tests", "docs", "benchmarks", "reports", "report_hpo.py", "machines.json"}
DIGITS = 10  # of a hash, each of 4 bits


@lru_cache
def code_hash(root: Path) -> str:
    """Return a short hash of the checkout's Python and JSON files, by their names and contents; once a process.

    A file that is written while the process imports may be missed. JSON counts where Python files lie beside it, as
    search spaces do, so that what searches write does not; folders are looked into where they hold Python files.
    """
    digest = hashlib.blake2b()
    for path in sorted(_code_files(root)):
        content = _content(path)
        digest.update(f"{path.relative_to(root)} {len(content)}\n".encode(errors="surrogateescape") + content)
    return digest.hexdigest()[:DIGITS]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it is gone again, or not ours to read
        return b""


def _code_files(folder: Path) -> Iterator[Path]:
    try:
        found = list(os.scandir(folder))
    except OSError:  # as in _content
        return
    entries = [entry for entry in found if entry.name[0] != "." and entry.name not in NOT_OF_A_TRIAL]
    if not any(entry.name.endswith(".py") for entry in entries):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _code_files(Path(entry.path))
        elif entry.name.endswith((".py", ".json")):
            yield Path(entry.path)


def fingerprint(data) -> str:
    """Return a short hash of what a loader returned (loaders.Data): arrays with shape and type, names, step, test."""
    import numpy as np

    digest = hashlib.blake2b()
    for name, value in sorted(vars(data).items()):
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).view(np.uint8) if value.size else b"")
        else:
            told = fingerprint(value) if isinstance(value, type(data)) else repr(value)
            digest.update(f"{name} {told}\n".encode(errors="backslashreplace"))
    return digest.hexdigest()[:DIGITS]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@lru_cache
def version(package: str) -> str:
    """Return the version of an installed package."""
    return importlib.metadata.version(package)


def changes(before: dict, now: dict) -> list[str]:
    """Return a line for the code and one for the packages where they are not what they were.

    `before` and `now` have "code" and "versions"; an experiment of an earlier state of this project has neither.
    """
    if "code" not in before or "versions" not in before:
        return ["it was begun before code, data and versions were noted: whether they have changed cannot be told"]
    lines = []
    if before["code"] != now["code"]:
        told = "results.csv has in `code` what each trial ran with"
        lines.append(f"the code has changed since: {before['code']}, now {now['code']}; {told}")
    names = sorted(before["versions"].keys() | now["versions"].keys())
    pairs = [(name, before["versions"].get(name, "none"), now["versions"].get(name, "none")) for name in names]
    if differing := [f"{name} {was}, now {there}" for name, was, there in pairs if was != there]:
        lines.append(f"package versions have changed since: {'; '.join(differing)}")
    return lines
