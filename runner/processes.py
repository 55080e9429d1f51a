"""The processes of an experiment: all that its manager starts carries a mark, by which it is found and ended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "HPO_MANAGED_BY"  # environment variable of manager, tuner and trials: "<our pid> <our start> <folder>"
SLOT = "HPO_SLOT"  # the same of a slot's process and what its trials start: "<our pid> <slots> <number>"
OWN_START = psutil.Process().create_time()  # once: it moves when the clock is set


def end_leftovers(experiments: Path) -> list[str]:
    """Kill what runs of experiments in folder `experiments` whose starting process is gone; return their ids."""
    left = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            mark = process.environ().get(MARK)
            folder = Path(mark.split(maxsplit=2)[2]) if mark else None
            if folder and folder.parent == experiments.resolve() and not _is_alive(mark):
                left[process] = folder.name
    _kill(list(left))
    return sorted(set(left.values()))


def _kill(processes: list[psutil.Process]) -> None:
    """Kill managers first, which would note of the others that something has killed them."""
    managers = [process for process in processes if is_manager(process)]
    for group in (managers, processes):
        for process in group:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(group, timeout=1)


def is_manager(process: psutil.Process) -> bool:
    """Tell whether a process is a manager of NNI's."""
    try:
        return any(word.endswith("nni_node/main.js") for word in process.cmdline())
    except psutil.Error:
        return False


def mark_of(experiment) -> str:
    """Return the mark of what this process starts for an experiment."""
    return mark_for(folder_of(experiment))


def folder_of(experiment) -> Path:
    """Return the folder of an experiment."""
    return Path(experiment.config.experiment_working_directory, experiment.id).resolve()


def mark_for(folder: Path) -> str:
    """Return the mark of what this process starts for the experiment in `folder`."""
    return f"{os.getpid()} {OWN_START:.0f} {folder.resolve()}"


def _is_alive(mark: str) -> bool:
    """Tell whether the process that left `mark` still runs. Its parent would not tell: orphans are re-parented."""
    pid, started, _ = mark.split(maxsplit=2)
    try:
        process = psutil.Process(int(pid))
        # the clock may have been set meanwhile, which moves start times a little
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(started)) < 5
    except psutil.NoSuchProcess:
        return False


def kill_family(experiment) -> None:
    """Kill all that the manager has started."""
    kill_carrying(MARK, mark_of(experiment))


def kill_carrying(variable: str, value: str) -> None:
    """Kill what carries a mark; again, as long as something new comes up."""
    deadline = time.monotonic() + 5
    while (family := carrying(variable, value)) and time.monotonic() < deadline:
        _kill(family)


def family_of(experiment) -> list[psutil.Process]:
    """Return manager, tuner, trials and all below them: whatever carries the experiment's mark, orphans included."""
    return carrying(MARK, mark_of(experiment))


def carrying(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes but this one whose environment has `variable` with this value."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value and process.pid != os.getpid():
                found.append(process)
    return found


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started inside."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
