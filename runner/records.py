"""What a search leaves behind: each trial's record.json and model.pt; journal, results.csv, best.json, best_model.pt.

A trial writes its own record (`write_record`). One process, the one that runs the search, reads the records, appends
them to the journal and makes the other files from it (`Results`); so no trial is lost or counted twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from pathlib import Path

from search_spaces import flatten
from tuners.aim import Aim

WITH_DEFAULT = ("ok", "silent", "saturated", "early_stopped")  # statuses of trials whose score counts
STATUSES = (*WITH_DEFAULT, "failed", "timed_out", "killed", "lost", "interrupted")
WEIGHTS_KEPT = 5  # the weights of so many trials stay on disk
FIRST_COLUMNS = ["trial", "parameter_id", "default", "status", "cause"]
CSV_SECONDS = 2.0  # results.csv is rewritten at most this often during a search


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new, also after a crash."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # mkstemp's files are their owner's only
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_record(folder: Path, record: dict, model: dict | None) -> None:
    """Write a trial's weights (where there are any) and then its `record.json` into `folder`.

    The weights go to `model.npz` where all are NumPy arrays, so that nobody needs torch for them, else to `model.pt`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        buffer, name = io.BytesIO(), "model.pt"
        if all(type(value).__module__ == "numpy" for value in model.values()):
            import numpy

            name = "model.npz"
            numpy.savez(buffer, **model)
        else:
            import torch

            torch.save(model, buffer)
        write_atomic(folder / name, buffer.getvalue())
    write_atomic(folder / "record.json", json.dumps(record, indent=2, default=str).encode())


def weights_in(folder: Path) -> list[Path]:
    """Return the file of weights in a trial's folder: one or none."""
    return [path for path in (folder / "model.pt", folder / "model.npz") if path.exists()]


def read_record(folder: Path) -> dict | None:
    """Return a trial's record, or None where it wrote none that can be read."""
    try:
        return json.loads((folder / "record.json").read_text())
    except (OSError, ValueError):
        return None


def append_line(path: Path, line: dict) -> None:
    """Append one JSON line with a single write and fsync; a torn line of an earlier crash is closed first."""
    data = json.dumps(line, default=str).encode() + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            data = b"\n" + data
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def read_journal(path: Path) -> list[dict]:
    """Return one entry a trial, the newest of each parameter_id, in the order in which they first came.

    Torn lines are skipped.
    """
    entries = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            entries[entry["parameter_id"]] = entry
    return list(entries.values())


def outcome(end: dict | None, record: dict | None) -> tuple[str, str | None]:
    """Return (status, cause) of a trial from how its process ended and the record that it left.

    `end` is the manager's event (see `runner.manager.read_events`), None for a trial that was running when the search
    ended.
    """
    own_status = record["status"] if record else None
    if own_status in WITH_DEFAULT or own_status == "failed":
        return own_status, record.get("cause")
    if end is None or end.get("cause") == "stopping":
        return "interrupted", "the search ended first"
    if end.get("cause") == "machine_lost":
        return "lost", "its machine dropped out while it ran"
    if end.get("cause") == "early_stopped":
        if record and "default" in record.get("result", {}):
            return "early_stopped", "stopped by the assessor"
        return "failed", "stopped by the assessor, and left no result in the 5 s that NNI gives it"
    if end.get("cause") == "timed_out":
        return "timed_out", "ran longer than --trial-duration"
    if end.get("cause") == "user":
        return "killed", "cancelled in the web UI"
    if end.get("signal") or end.get("exit_code") is None:
        return "killed", f"ended by {end.get('signal') or 'a signal'}"
    if end["exit_code"] == 0 and end.get("final"):
        return "lost", "finished, but its record could not be read"
    if end["exit_code"] == 0:
        return "failed", "ended without a result (exit status 0)"
    return "failed", f"ended with exit status {end['exit_code']}"


def journal_entry(start: dict, end: dict | None, record: dict | None) -> dict:
    """Return the journal's line for one trial. The record's parameters win: they are what the trial ran with.

    A trial that ended before it had any (or left no record) gets those that the manager held for it.
    """
    status, cause = outcome(end, record)
    result = dict((record or {}).get("result") or {})
    if status not in WITH_DEFAULT:
        result.pop("default", None)
    wall = (end or {}).get("time", time.time()) - start["time"]
    identifier = start["parameter_id"]
    return {
        "trial": start["trial"],
        "parameter_id": start["trial"] if identifier is None else identifier,  # none for a trial added in the web UI
        "sequence": start["sequence"],
        "parameters": (record or {}).get("parameters") or flatten(start["parameters"]),
        "status": status,
        "cause": cause,
        "result": result,
        "seeds": (record or {}).get("seeds", {}),
        "repeats": (record or {}).get("repeats", []),
        "wall_seconds": round(wall, 3),
    }


class Results:
    """The results of one experiment: takes each finished trial, keeps journal, table, best and weights up to date.

    `folder` is experiments/<id>; `command(parameters)` returns the shell command that repeats a trial alone; `aim` has
    the objectives and limits.
    """

    def __init__(self, folder: Path, command, aim: Aim | None = None):
        self.folder = folder
        self.command = command
        self.aim = aim or Aim()
        self.entries = read_journal(folder / "journal.jsonl")
        self._csv_written = 0.0
        self._best = None  # the entry that best.json names
        self._with_weights = {entry["trial"] for entry in self.entries}  # at most

    def trial_folder(self, trial: str) -> Path:
        """The folder in which NNI ran `trial`."""
        return next(self.folder.glob(f"environments/*/trials/{trial}"), self.folder / "environments" / "none" / trial)

    def add(self, start: dict, end: dict | None) -> dict:
        """Take a trial that has ended (or, with `end` None, was cut off) and return its journal entry."""
        record = read_record(self.trial_folder(start["trial"]))
        entry = journal_entry(start, end, record)
        append_line(self.folder / "journal.jsonl", entry)
        others = [other for other in self.entries if other["parameter_id"] != entry["parameter_id"]]
        self.entries = [*others, entry]
        self._keep_best()
        if time.monotonic() - self._csv_written > CSV_SECONDS:
            self.write_table()
        return entry

    def ranking(self) -> list[dict]:
        """The trials whose scores count, best first: those within the limits, by the first objective, by age."""
        scored = [(entry, self.aim.scores(entry["result"])) for entry in self.entries if "default" in entry["result"]]
        scored = [(entry, scores) for entry, scores in scored if scores is not None]
        scored.sort(key=lambda pair: (not self.aim.is_kept(pair[0]["result"]), -pair[1][0], pair[0]["sequence"]))
        return [entry for entry, _ in scored]

    def front(self) -> list[dict]:
        """The trials on the Pareto front, best by the first objective first."""
        ranking = self.ranking()
        marks = self.aim.front([entry["result"] for entry in ranking])
        return [entry for entry, mark in zip(ranking, marks, strict=True) if mark]

    def write_table(self) -> None:
        """Write results.csv, one row a trial."""
        import pandas

        ordered = sorted(self.entries, key=lambda entry: entry["sequence"])
        table = pandas.DataFrame([_row(entry) for entry in ordered], columns=None if ordered else FIRST_COLUMNS)
        if ordered and len(self.aim.objectives) > 1:
            front = {entry["trial"] for entry in self.front()}
            table.insert(3, "pareto", [entry["trial"] in front for entry in ordered])
        if ordered and self.aim.limits:
            kept = [entry["status"] in WITH_DEFAULT and self.aim.is_kept(entry["result"]) for entry in ordered]
            table.insert(3, "within_limits", kept)
        write_atomic(self.folder / "results.csv", table.to_csv(index=False).encode())
        self._csv_written = time.monotonic()

    def _keep_best(self) -> None:
        """Delete the weights outside the best few; where the best has changed copy its weights, then name it."""
        best = self.ranking()[:WEIGHTS_KEPT]
        kept = {entry["trial"] for entry in best}
        for trial in {self.entries[-1]["trial"], *self._with_weights} - kept:
            for weights in weights_in(self.trial_folder(trial)):
                weights.unlink()
        self._with_weights = kept
        if best and best[0] != self._best:
            self._best = best[0]
            self._write_best(self._best)

    def _write_best(self, entry: dict) -> None:
        digest = None
        for weights in weights_in(self.trial_folder(entry["trial"])):
            data = weights.read_bytes()
            write_atomic(self.folder / f"best_{weights.name}", data)
            digest = hashlib.sha256(data).hexdigest()
        best = {
            "trial": entry["trial"],
            "default": entry["result"]["default"],
            "within_limits": self.aim.is_kept(entry["result"]),
            "parameters": entry["parameters"],
            "result": entry["result"],
            "seeds": entry["seeds"],
            "sha256": digest,
            "command": self.command(entry["parameters"]),
        }
        write_atomic(self.folder / "best.json", json.dumps(best, indent=2).encode())


def _row(entry: dict) -> dict:
    """A trial as one flat row; a metric whose name is taken gets the prefix metric_."""
    tail = entry["seeds"] | {"wall_seconds": entry["wall_seconds"]}
    head = {"trial": entry["trial"], "parameter_id": entry["parameter_id"], "default": entry["result"].get("default")}
    head |= {"status": entry["status"], "cause": entry["cause"]} | entry["parameters"]
    metrics = {name: value for name, value in entry["result"].items() if name != "default"}
    metrics = {f"metric_{name}" if name in head | tail else name: value for name, value in metrics.items()}
    return head | metrics | tail
