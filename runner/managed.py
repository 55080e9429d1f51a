"""A search with NNI's manager: started or resumed, followed, repaired once where NNI stands still, ended.

A resume is a new manager on a database made from the journal (runner/database.py), with a tuner that knows the journal
(runner/resumed.py): what a crash did to NNI's own state does not matter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner import database, manager
from runner.resume import trials_of
from runner.search import Search, print_closing
from runner.texts import one_line
from runner.watchdog import Stalled
from runner.web_address import address_of

ROOT = Path(__file__).resolve().parent.parent
LEAST_FREE = 2**20  # bytes of disk without which going on is no use


@dataclass
class Parts:
    """What belongs to one request: see nni_main.py."""

    configure: Callable[[dict], object]  # the tuner's settings -> NNI's ExperimentConfig
    tuner: Callable[[int], dict]  # a seed -> the tuner's settings
    start: Callable[[object], None]  # start the manager of an Experiment
    seed: int
    slots: int  # trials at once
    keep: bool  # leave the web UI up


def conduct(search: Search, parts: Parts) -> int:
    """Begin the search, or go on with it where its folder holds trials; returns the exit status.

    The results are written and nothing is left running, however it ends.
    """
    exit_status = 0
    try:
        search.settle()
        if ended := search.counts.total():
            search.console.print(f"{ended} trials have ended before")
        follow(search, parts)
    except KeyboardInterrupt:
        exit_status = 0 if search.finished else 130
    except SystemExit as terminated:
        exit_status = terminated.code
    except (RuntimeError, OSError, sqlite3.Error) as error:  # of OSError: a full disk
        search.console.print(f"nni_main.py: {_one_line(error)}", soft_wrap=True)
        exit_status = 1
    with _signals_ignored():
        with contextlib.suppress(OSError):  # what could be written is
            search.results.write_table()
        print_closing(search.results, search.console)
    return exit_status or (0 if search.results.ranking() else 1)


def follow(search: Search, parts: Parts) -> None:
    """Run managers until the budget is spent. Raises RuntimeError where one stands still again before a trial ended."""
    repaired_at = None  # number of trials that had ended at the last repair
    while search.counts.total() < search.trials and not search.out_of_time():
        try:
            return run_manager(search, parts)
        except Stalled as fault:
            check_disk(search.results.folder)
            if search.counts.total() == repaired_at:
                raise RuntimeError(f"{fault}, again: the search is ended; --resume goes on with it") from None
            repaired_at = search.counts.total()
            search.console.print(f"{fault}; NNI is started anew, and the search goes on", soft_wrap=True)
    search.finished = True
    search.say_what_is_spent()


def run_manager(search: Search, parts: Parts) -> None:
    """Start a manager, follow it to the end, stop it and enter what it leaves."""
    experiment = make_experiment(search, parts)
    try:
        parts.start(experiment)
        search.url = address_of(experiment.port)
        search.console.print(f"web UI: {search.url}", soft_wrap=True)
        search.follow(experiment, parts.slots)
        if parts.keep:
            search.results.write_table()
            search.console.print(f"finished; the web UI stays at {search.url} until Ctrl-C", soft_wrap=True)
            signal.pause()
    finally:
        with _signals_ignored():  # the results get written first
            if search.running:
                search.console.print(f"stopping; {len(search.running)} running trials have 5 s to write what they have")
            manager.stop_manager(experiment)
            search.settle()


def view(search: Search, parts: Parts) -> int:
    """Show a search that has ended in NNI's web UI until Ctrl-C; returns the exit status."""
    from nni.experiment import Experiment

    finished, _ = trials_of(search.results.folder)
    experiment = Experiment(parts.configure(parts.tuner(parts.seed)), id=search.results.folder.name)
    experiment._action = "view"
    try:
        database.write_database(search.results, experiment.config.canonical_copy().json(), finished)
        parts.start(experiment)
        search.console.print(f"{len(finished)} trials at {address_of(experiment.port)} until Ctrl-C", soft_wrap=True)
        signal.pause()
    except (RuntimeError, OSError, sqlite3.Error) as error:
        search.console.print(f"nni_main.py: {_one_line(error)}", soft_wrap=True)
        return 1
    except (KeyboardInterrupt, SystemExit):
        return 0
    finally:
        with _signals_ignored():
            manager.stop_manager(experiment)


def make_experiment(search: Search, parts: Parts):
    """Return NNI's Experiment, to be created or, where there are trials, resumed, for the time that is left."""
    from nni.experiment import Experiment

    def configured(tuner: dict):
        config = parts.configure(tuner)
        config.max_experiment_duration = search.seconds_left()
        return config

    results = search.results
    finished, again = trials_of(results.folder)
    if not finished and not again:
        database.drop_database(results.folder)  # of a manager that died before its first trial
        return Experiment(configured(parts.tuner(parts.seed)), id=results.folder.name)
    settings = [parts.tuner(seed) for seed in (parts.seed, parts.seed + len(finished))]
    arguments = {"first": _plain(settings[0]), "later": _plain(settings[1]), "folder": str(results.folder)}
    resumed = {"class_name": "runner.resumed.Resumed", "code_directory": ROOT, "class_args": arguments}
    experiment = Experiment(configured(resumed), id=results.folder.name)
    experiment._action = "resume"
    database.write_database(results, experiment.config.canonical_copy().json(), finished)
    return experiment


def check_disk(folder: Path) -> None:
    """Raise OSError where a full or unwritable disk explains why NNI failed."""
    probe = folder / ".probe"
    probe.write_bytes(bytes(4096))
    probe.unlink()
    if shutil.disk_usage(folder).free < LEAST_FREE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _plain(settings: dict) -> dict:
    """As JSON can have it."""
    return settings | ({"code_directory": str(settings["code_directory"])} if "code_directory" in settings else {})


def _one_line(error: Exception) -> str:
    return one_line(error) or type(error).__name__


@contextlib.contextmanager
def _signals_ignored():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
