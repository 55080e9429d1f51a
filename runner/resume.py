"""What a search needs to go on after any end: its request (search.json), its trials, and the promise to be alone.

with hold(folder):                  # one process at a time runs an experiment
    save_request(folder, args, space)
    ...
finished, interrupted = trials_of(folder)
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runner import origin
from runner.asked import well_formed
from runner.flags import UserMistake
from runner.records import as_entry, as_event, key_of, read_journal, read_lines, write_atomic
from tuners import TUNERS

FIXED = ("task", "tuner", "objectives", "limit", "warm_start", "assessor", "headless")
FIXED += ("seed", "split_seed", "test_seed", "repeats", "tonic")
CHANGEABLE = ("trials", "duration", "trial_duration", "concurrency", "gpus", "trials_per_gpu", "threads", "device")
CHANGEABLE += ("dask", "data_dir")
CHANGEABLE += ("tensorboard", "machines")
FORMS = {"journal.jsonl": as_entry, "events.jsonl": as_event}


def save_request(folder: Path, args: argparse.Namespace, space: dict) -> None:
    """Write search.json: what was asked for last, the search space as it was, and when the experiment began."""
    asked = {name: getattr(args, name) for name in (*FIXED, *CHANGEABLE)}
    asked |= {"machines": args.machines_file, "concurrency": args.asked_concurrency}
    if asked["data_dir"] is not None:
        asked["data_dir"] = str(Path(asked["data_dir"]).resolve())
    began = read_request(folder).get("started", time.time()) if args.resume else time.time()
    asked |= {"space": space, "started": began, **args.origin}
    write_atomic(folder / "search.json", json.dumps(asked, indent=2).encode())


def read_request(folder: Path) -> dict:
    """Return what search.json says. Raises UserMistake."""
    try:
        asked = json.loads((folder / "search.json").read_text())
        missing = [name for name in (*FIXED, "trials", "space") if name not in asked]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserMistake(f"{folder} has no search.json that can be read ({error})") from None
    if missing:
        raise UserMistake(f"{folder} has no search.json that can be read (it lacks {missing[0]!r})")
    wrong = asked.keys() - well_formed(asked).keys()
    for name in wrong | ({"tuner"} if asked["tuner"] not in TUNERS else set()):
        raise UserMistake(f"{folder} has no search.json that can be read (its {name!r} is {str(asked[name])[:99]!r})")
    return asked


def apply_request(parser: argparse.ArgumentParser, arguments: list[str] | None, folder: Path) -> argparse.Namespace:
    """Return the command line with the experiment's own settings in place of the defaults.

    Raises UserMistake where there is no such experiment, or a flag contradicts what cannot change.
    """
    saved = read_request(folder)
    defaults = {name: saved[name] for name in (*FIXED, *CHANGEABLE) if name in saved}
    parser.set_defaults(**defaults | {"limit": None})  # which is appended to: a default would stay in the list
    args = parser.parse_args(arguments)
    args.limit = args.limit or saved["limit"]
    for name in FIXED:
        if json.loads(json.dumps(getattr(args, name))) != saved[name]:
            flag = "its task" if name == "task" else f"its --{name.replace('_', '-')}"
            mode = "--view" if args.view else "--resume"
            raise UserMistake(f"{mode} {folder.name}: {flag} is {saved[name]}, not {getattr(args, name)}")
    if args.id not in (None, folder.name):
        raise UserMistake(f"--id {args.id}: {folder.name} keeps its id; leave --id out")
    return args


def check_space_unchanged(folder: Path, space: dict) -> None:
    """Raise UserMistake where the search space is not the one that the experiment began with."""
    if read_request(folder)["space"] != space:
        raise UserMistake(f"--resume {folder.name}: its search space has changed since; search.json has the old one")


def compare_origin(args: argparse.Namespace, data_now: Callable[[], str | None]) -> None:
    """Say what of code and packages differs from the experiment's last run; the data must be the same.

    Sets args.origin["data"] to what `data_now()` returns. Raises UserMistake where that is not what it was, unless
    --accept-changes is given. Where trials run elsewhere, the data may lie there only: it is then not compared.
    """
    folder = args.experiments / args.id
    before = read_request(folder)
    for line in origin.changes(before, args.origin):
        print(f"note: {args.id}: {line}")
    known = before.get("data") or _data_of_trials(folder)  # which --no-check leaves to them
    try:
        now = data_now()
    except UserMistake as mistake:
        if not (args.machines or args.dask):
            raise
        print(f"note: {args.id}: whether its data has changed cannot be told here: {mistake}")
        now = known
    if known and now != known:
        differs = f"its data has changed since ({known}, now {now})"
        if not args.accept_changes:
            told = "old and new scores cannot be compared; --accept-changes goes on all the same"
            raise UserMistake(f"--resume {args.id}: {differs}: {told}")
        print(f"note: {args.id}: {differs}; --accept-changes goes on")
    args.origin["data"] = now


def _data_of_trials(folder: Path) -> str | None:
    """Return the fingerprint of the data of the last trial that noted it."""
    noted = [entry.get("data") for entry in read_journal(folder / "journal.jsonl")]
    return next((data for data in reversed(noted) if isinstance(data, str)), None)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes from running the same experiment. Raises UserMistake where one does; ends with us."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserMistake(f"experiment {folder.name} is still running") from None
        yield
    finally:
        os.close(handle)


def trials_of(folder: Path) -> tuple[list[tuple[dict, dict]], list[dict]]:
    """Return [(start event, journal entry)] of the trials that ended, and the start events of those cut off.

    A start event has the parameters as the tuner gave them, nested ones too; where it is lost, the journal's are taken.
    Trials that were added in the web UI and cut off are not run again.
    """
    entries = {entry["parameter_id"]: entry for entry in read_journal(folder / "journal.jsonl")}
    starts = {key_of(start): start for start in read_starts(folder / "events.jsonl")}
    names = ("trial", "sequence", "parameter_id", "parameters")
    for identifier, entry in entries.items():
        starts.setdefault(identifier, {"event": "start", **{name: entry[name] for name in names}})
    ended = {identifier for identifier, entry in entries.items() if entry["status"] != "interrupted"}
    finished = [(starts[identifier], entries[identifier]) for identifier in entries if identifier in ended]
    again = [start for identifier, start in starts.items() if identifier not in ended]
    return finished, [start for start in again if start["parameter_id"] is not None]


def read_starts(path: Path) -> list[dict]:
    """Return the start events of an events file, in their order; lines that are no events are skipped."""
    return [event for event in read_lines(path, as_event)[0] if event["event"] == "start"]


def skipped_lines(folder: Path) -> str:
    """Say how many lines of an experiment's files are of no use; "" where all are."""
    skipped = {name: read_lines(folder / name, form)[1] for name, form in FORMS.items()}
    said = [f"{number} line{'s' * (number > 1)} of {name}" for name, number in skipped.items() if number]
    return f"{' and '.join(said)} cannot be read and are skipped" if said else ""
