"""What a trial leaves behind, its record.json and model.pt, and the journal's line that is made of it.

A trial writes its own record (`write_record`). One process, the one that runs the search, reads the records, appends
them to the journal and makes the other files from it (runner/results.py); so no trial is lost or counted twice.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.texts import clean, printable
from search_spaces import flatten

WITH_DEFAULT = ("ok", "silent", "saturated", "early_stopped")  # statuses of trials whose score counts
STATUSES = (*WITH_DEFAULT, "failed", "timed_out", "killed", "lost", "interrupted")
WEIGHTS = ("model.pt", "model.npz")  # files of weights, of which a trial has one or none
LARGEST = 2**53  # up to which an integer is the same number in Python, in NNI's JavaScript and in its database


def write_atomic(path: Path, data: bytes, sync: bool = True) -> None:
    """Write `data` so that `path` holds either its old content or all of the new, also after a crash.

    Without `sync` that holds where processes are killed, not where the machine itself goes down.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp's files are their owner's only
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_record(folder: Path, record: dict, model: dict | None) -> None:
    """Write a trial's weights (where there are any) and then its `record.json` into `folder`."""
    write_packed(folder, pack_record(record), pack_model(model), sync=True)


def write_packed(folder: Path, record: bytes, model: tuple[str, bytes] | None, sync: bool) -> None:
    """Write what `pack_record` and `pack_model` returned, the weights first."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        write_atomic(folder / model[0], model[1], sync)
    write_atomic(folder / "record.json", record, sync)


def pack_record(record: dict) -> bytes:
    """Return the content of a trial's record.json."""
    return json.dumps(record, indent=2, default=str).encode()


def pack_model(model: dict | None) -> tuple[str, bytes] | None:
    """Return the name and the content of a trial's file of weights, None where there are none.

    It is `model.npz` where all are NumPy arrays, so that nobody needs torch for them, else `model.pt`.
    """
    if model is None:
        return None
    buffer = io.BytesIO()
    if all(type(value).__module__ == "numpy" for value in model.values()):
        import numpy

        numpy.savez(buffer, **model)
        return "model.npz", buffer.getvalue()
    import torch

    torch.save(model, buffer)
    return "model.pt", buffer.getvalue()


def is_number(value) -> bool:
    """Tell whether a metric is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value) -> bool:
    """Tell whether a metric is a finite number; an integer beyond all floats is none."""
    try:
        return is_number(value) and math.isfinite(value)
    except OverflowError:
        return False


def finite(metrics: dict) -> dict:
    """Return the finite numbers among the metrics: all that NNI can take, each an axis of its web UI."""
    return {printable(str(name)): value for name, value in metrics.items() if is_finite(value)}


def told(result: dict) -> dict:
    """Return what a tuner is told of a trial's result: the finite numbers but those of the test part."""
    return finite({name: value for name, value in result.items() if not name.startswith("test_")})


def told_of(entry: dict) -> dict | None:
    """Return what a tuner is told of a journal entry; None: it has no score."""
    return told(entry["result"]) if entry["status"] in WITH_DEFAULT else None


def weights_in(folder: Path) -> list[Path]:
    """Return the file of weights in a trial's folder: one or none."""
    return [folder / name for name in WEIGHTS if (folder / name).exists()]


def read_record(folder: Path) -> dict | None:
    """Return a trial's record, or None where it wrote none that can be read."""
    try:
        return parse_record((folder / "record.json").read_bytes())
    except OSError:
        return None


def parse_record(data: bytes) -> dict | None:
    """Return the record that is the content of a record.json, None for what is none."""
    kinds = {"status": str, "parameters": dict, "result": dict, "seeds": dict, "repeats": list, "curve": list}
    found = parsed(data)
    whole = isinstance(found, dict) and all(isinstance(found.get(name, kind()), kind) for name, kind in kinds.items())
    return found if whole else None


def parsed(text: bytes | str) -> Any:
    """Return what JSON says, None for what is no JSON or too deep for Python."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def append_line(path: Path, line: dict, sync: bool = True) -> None:
    """Append one JSON line with a single write and fsync; a torn line of an earlier crash is closed first."""
    data = json.dumps(line, default=str).encode() + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            data = b"\n" + data
        if os.write(handle, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def read_lines(path: Path, form: Callable[[Any], dict | None]) -> tuple[list[dict], int]:
    """Return what `form` makes of a file's lines of JSON, and the number of lines of which it makes nothing.

    Those are torn, or damaged; whoever reads the file goes on without them. No file has no lines.
    """
    lines = [line for line in path.read_bytes().splitlines() if line.strip()] if path.exists() else []
    found = [entry for entry in map(form, map(parsed, lines)) if entry is not None]
    return found, len(lines) - len(found)


def read_journal(path: Path) -> list[dict]:
    """Return one entry a trial, the newest of each parameter_id, in the order in which they first came.

    Lines that are no entries are skipped.
    """
    return list({entry["parameter_id"]: entry for entry in read_lines(path, as_entry)[0]}.values())


def as_entry(found: Any) -> dict | None:
    """Return the journal's entry that a line of JSON is, its texts made printable; None where it is none."""
    return clean(found) if _has(found, ENTRY) and found["parameter_id"] is not None else None


def as_event(found: Any) -> dict | None:
    """Return the event (see `runner.manager.read_events`) that a line of JSON is; None where it is none."""
    if not isinstance(found, dict) or not isinstance(found.get("event"), str):
        return None
    return found if _has(found, EVENTS.get(found["event"], {})) else None


def _has(found: Any, fields: dict[str, Callable[[Any], bool]]) -> bool:
    return isinstance(found, dict) and all(name in found and holds(found[name]) for name, holds in fields.items())


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_name(value) -> bool:
    """Of a trial: NNI's, or this project's. It is the name of a folder as well."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value) is not None


def _is_key(value) -> bool:
    return value is None or _is_count(value) or _is_name(value)


_TRIAL = {"trial": _is_name, "sequence": _is_count, "parameter_id": _is_key, "parameters": _is(dict)}
ENTRY = _TRIAL | {  # what each line of the journal has
    "status": lambda value: isinstance(value, str) and value in STATUSES,
    "cause": _is(str | None),
    "result": _is(dict),
    "seeds": _is(dict),
    "wall_seconds": is_finite,
}
EVENTS = {  # and each event
    "start": _TRIAL | {"time": is_finite},
    "end": {"trial": _is_name, "time": is_finite, "exit_code": _is(int | None), "signal": _is(str | None)}
    | {"cause": _is(str | None)},
    "machine": {"machine": _is(str), "state": _is(str), "reason": _is(str | None), "time": is_finite},
}
TEMPORARY = (".best.json", ".results.csv", ".search.json", ".record.json", ".trial.stderr")
TEMPORARY += tuple(f".{prefix}{name}" for prefix in ("", "best_") for name in WEIGHTS)


def remove_temporaries(folder: Path) -> None:
    """Remove what a kill in the middle of `write_atomic` has left of an experiment. Nobody may write in it now."""
    for place in (folder, *folder.glob("environments/*/trials/*")):
        for path in place.glob(".*.????????"):
            if path.name[:-9] in TEMPORARY and re.fullmatch(r"[a-z0-9_]{8}", path.name[-8:]):
                path.unlink(missing_ok=True)


def outcome(end: dict | None, record: dict | None) -> tuple[str, str | None]:
    """Return (status, cause) of a trial from how its process ended and the record that it left.

    `end` is the manager's event (see `runner.manager.read_events`), None for a trial that was running when the search
    ended.
    """
    own_status = record.get("status") if record else None
    if own_status in WITH_DEFAULT and is_finite(default := record.get("result", {}).get("default")):
        return own_status, record.get("cause")
    if own_status in WITH_DEFAULT:
        return "failed", f"its record has no finite number as 'default', but {str(default)[:99]!r}"
    if end is None or end.get("cause") == "stopping":  # it may have failed because the manager was gone
        return "interrupted", "the search ended first"
    if end.get("cause") == "timed_out":  # until then it ran, so what it raised is how it took its interruption
        return "timed_out", "ran longer than --trial-duration"
    if end.get("cause") == "user":
        return "killed", "cancelled in the web UI"
    if own_status == "failed":
        return own_status, record.get("cause")
    if end.get("cause") == "machine_lost":
        return "lost", "its machine dropped out while it ran"
    if end.get("cause") == "early_stopped":
        if record and "default" in record.get("result", {}):
            return "early_stopped", "stopped by the assessor"
        return "failed", "stopped by the assessor, and left no result in the 5 s that NNI gives it"
    if end.get("cause") == "worker_gone":
        return "killed", "its worker died or left the cluster"
    if end.get("signal") or end.get("exit_code") is None:
        return "killed", f"ended by {end.get('signal') or 'a signal'}"
    if end["exit_code"] == 0 and end.get("final"):
        return "lost", "finished, but its record could not be read"
    if end["exit_code"] == 0:
        return "failed", "ended without a result (exit status 0)"
    return "failed", f"ended with exit status {end['exit_code']}"


def key_of(start: dict) -> int | str:
    """Return the journal's key for a trial: its parameter_id; one that was added in the web UI has none."""
    return start["trial"] if start["parameter_id"] is None else start["parameter_id"]


def journal_entry(start: dict, end: dict | None, record: dict | None) -> dict:
    """Return the journal's line for one trial. The record's parameters win: they are what the trial ran with.

    A trial that ended before it had any (or left no record) gets those that the manager held for it. Texts are made
    printable here, before they reach any file, page or terminal.
    """
    status, cause = outcome(end, record)
    result = dict((record or {}).get("result") or {})
    if status not in WITH_DEFAULT:
        result.pop("default", None)
    seconds = (record or {}).get("seconds")
    ended = (end or {}).get("time") or start["time"] + (seconds if is_finite(seconds) else time.time() - start["time"])
    entry = {
        "trial": start["trial"],
        "parameter_id": key_of(start),
        "sequence": start["sequence"],
        "parameters": (record or {}).get("parameters") or flatten(start["parameters"]),
        "status": status,
        "cause": cause if cause is None else str(cause),
        "result": result,
        "seeds": (record or {}).get("seeds", {}),
        "repeats": (record or {}).get("repeats", []),
        "code": (record or {}).get("code"),
        "data": (record or {}).get("data"),
        "wall_seconds": round(ended - start["time"], 3),
    }
    return clean(entry)
