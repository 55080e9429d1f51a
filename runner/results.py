"""What a search leaves behind: its journal, and what is made from it: results.csv, best.json, best_model.pt."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path

from runner.records import (
    WEIGHTS,
    WITH_DEFAULT,
    append_line,
    is_finite,
    journal_entry,
    read_journal,
    read_record,
    weights_in,
    write_atomic,
)
from runner.texts import harmless
from tuners.aim import Aim

WEIGHTS_KEPT = 5  # the weights of so many trials stay on disk
FIRST_COLUMNS = ["trial", "parameter_id", "default", "status", "cause"]
CSV_SECONDS = 2.0  # results.csv is rewritten at most this often during a search,
CSV_SHARE = 0.02  # and takes at most this share of its time


class Results:
    """The results of one experiment: takes each finished trial, keeps journal, table, best and weights up to date.

    `folder` is experiments/<id>; `command(parameters)` returns the shell command that repeats a trial alone; `aim` has
    the objectives and limits.
    """

    def __init__(self, folder: Path, command, aim: Aim | None = None):
        self.folder = folder
        self.command = command
        self.aim = aim or Aim()
        self._entries = {entry["parameter_id"]: entry for entry in read_journal(folder / "journal.jsonl")}
        self._next_table = 0.0  # when results.csv is due
        self._best = None  # the entry that best.json names
        self._top = self.ranking()[:WEIGHTS_KEPT]
        self._with_weights = {entry["trial"] for entry in self.entries}  # at most

    @property
    def entries(self) -> list[dict]:
        """One journal entry a trial, in the order in which they came."""
        return list(self._entries.values())

    @property
    def best(self) -> dict | None:
        """The best entry so far."""
        return self._top[0] if self._top else None

    def trial_folder(self, trial: str) -> Path:
        """The folder in which NNI ran `trial`."""
        return next(self.folder.glob(f"environments/*/trials/{trial}"), self.folder / "environments" / "none" / trial)

    def add(self, start: dict, end: dict | None) -> dict:
        """Take a trial that has ended (or, with `end` None, was cut off) and return its journal entry."""
        return self.enter(journal_entry(start, end, read_record(self.trial_folder(start["trial"]))))

    def enter(self, entry: dict) -> dict:
        """Append a journal entry, which takes the place of an earlier one of its parameter_id, and return it."""
        append_line(self.folder / "journal.jsonl", entry)
        earlier = self._entries.pop(entry["parameter_id"], None)
        self._entries[entry["parameter_id"]] = entry
        self._top = self._ranked(self._entries.values() if earlier in self._top else [*self._top, entry])[:WEIGHTS_KEPT]
        self._keep_best(entry)
        if time.monotonic() >= self._next_table:
            self.write_table()
        return entry

    def ranking(self) -> list[dict]:
        """The trials whose scores count, best first: those within the limits, by the objectives, by age."""
        return self._ranked(self._entries.values())

    def _ranked(self, entries) -> list[dict]:
        scored = [entry for entry in entries if is_finite(entry["result"].get("default"))]
        scored = [entry for entry in scored if self.aim.scores(entry["result"])]
        return sorted(scored, key=lambda entry: (self.aim.place(entry["result"]), entry["sequence"]))

    def front(self) -> list[dict]:
        """The trials on the Pareto front, best by the first objective first."""
        ranking = self.ranking()
        marks = self.aim.front([entry["result"] for entry in ranking])
        return [entry for entry, mark in zip(ranking, marks, strict=True) if mark]

    def write_table(self) -> None:
        """Write results.csv, one row a trial."""
        import pandas

        began = time.monotonic()
        ordered = sorted(self.entries, key=lambda entry: entry["sequence"])
        table = pandas.DataFrame([_cells(entry) for entry in ordered], columns=None if ordered else FIRST_COLUMNS)
        if ordered and len(self.aim.objectives) > 1:
            front = {entry["trial"] for entry in self.front()}
            table.insert(3, "pareto", [entry["trial"] in front for entry in ordered])
        if ordered and self.aim.limits:
            kept = [entry["status"] in WITH_DEFAULT and self.aim.is_kept(entry["result"]) for entry in ordered]
            table.insert(3, "within_limits", kept)
        write_atomic(self.folder / "results.csv", table.to_csv(index=False).encode())
        ended = time.monotonic()
        self._next_table = ended + max(CSV_SECONDS, (ended - began) / CSV_SHARE)

    def _keep_best(self, entry: dict) -> None:
        """Delete the weights outside the best few; where the best has changed copy its weights, then name it."""
        kept = {other["trial"] for other in self._top}
        for trial in {entry["trial"], *self._with_weights} - kept:
            for weights in weights_in(self.trial_folder(trial)):
                weights.unlink()
        self._with_weights = kept
        self.name_best()

    def name_best(self) -> None:
        """Write best.json and the best weights where they are not those of the best trial that the journal has."""
        if self.best and self.best != self._best:
            self._best = self.best
            self._write_best(self._best)

    def _write_best(self, entry: dict) -> None:
        digest = self._copy_weights(entry["trial"])
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

    def _copy_weights(self, trial: str) -> str | None:
        """Copy a trial's weights beside best.json and return their sha256; one without any leaves no other's there."""
        for weights in weights_in(self.trial_folder(trial)):
            data = weights.read_bytes()
            write_atomic(self.folder / f"best_{weights.name}", data)
            return hashlib.sha256(data).hexdigest()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            named = json.loads((self.folder / "best.json").read_text())
            if named["trial"] == trial:  # whose folder somebody has cleared since
                return named["sha256"]
        for name in WEIGHTS:
            (self.folder / f"best_{name}").unlink(missing_ok=True)
        return None


def _cells(entry: dict) -> dict:
    """A row, with no formula for a spreadsheet in it."""
    return {harmless(name): harmless(value) for name, value in _row(entry).items()}


def _row(entry: dict) -> dict:
    """A trial as one flat row; a metric whose name is taken gets the prefix metric_."""
    tail = entry["seeds"] | {"wall_seconds": entry["wall_seconds"], "code": entry.get("code")}
    head = {"trial": entry["trial"], "parameter_id": entry["parameter_id"], "default": entry["result"].get("default")}
    head |= {"status": entry["status"], "cause": entry["cause"]} | entry["parameters"]
    metrics = {name: value for name, value in entry["result"].items() if name != "default"}
    metrics = {f"metric_{name}" if name in head | tail else name: value for name, value in metrics.items()}
    return head | metrics | tail
