"""What the search engines share: NNI's Tuner methods, and the book of what was proposed, runs, has ended, has failed.

An engine (`optuna_tuner`, `forest`) proposes codes of `tuners.space`; this class sees to the rest:

- no configuration is proposed twice; where a discrete space has none left it raises nni.NoMoreTrialError;
- NNI calls from two threads, and a trial's end may come before its result: one lock, and a result always wins;
- a failed trial is known as failed; a result that is no finite number is a failure;
- nothing that an engine raises ends NNI's dispatcher: it is logged, and a random configuration is proposed instead;
- journals of earlier searches, NNI's imported data, and a checkpoint of its own (NNI never calls save_checkpoint).
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import nni
import numpy as np
from nni.tuner import Tuner

from tuners.space import Space

CHECKPOINT = "tuner.jsonl"
RESULT_SECONDS = 30.0  # after a trial's successful end without a result, until it counts as failed
DRAWS = 1000  # random configurations, all seen before, after which a space counts as exhausted
SCORED = ("ok", "silent", "saturated", "early_stopped")  # statuses in a journal, as runner.records has them
FAILED = ("failed", "timed_out", "killed")

_logger = logging.getLogger("nni.tuners")


@dataclass
class Observation:
    """One trial that has ended. Neither values nor failed: it was stopped before all objectives were known."""

    codes: tuple[float, ...]
    values: tuple[float, ...] | None = None  # of each objective, larger is better
    excess: tuple[float, ...] = ()  # over each limit, relative; within it where <= 0, nan where unknown
    failed: bool = False
    parameter_id: int | None = None  # None: of an earlier search


class SearchTuner(Tuner):
    """The common part of this project's tuners. Engines define `propose` and, where they need it, `start`.

    objectives: [["default", "max"], ["energy_nj", "min"]]; limits: [["synaptic_operations", "<", 1e6]];
    journals: journal.jsonl files of earlier searches, whose trials are learnt from and not repeated.
    """

    def __init__(self, optimize_mode: str = "maximize", seed: int = 0, objectives=None, limits=None, journals=()):
        if optimize_mode not in ("maximize", "minimize"):
            raise ValueError(f"optimize_mode must be 'maximize' or 'minimize', not {optimize_mode!r}")
        self.objectives = [tuple(entry) for entry in objectives or [("default", optimize_mode[:3])]]
        self.limits = [tuple(entry) for entry in limits or []]
        self.journals = [Path(journal) for journal in journals]
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.space: Space | None = None
        self.observed: list[Observation] = []
        self.pending: dict[int | str, tuple] = {}  # parameter id -> codes
        self.seen: set[tuple] = set()
        self.revision = 0  # counts changes of what had been observed before
        self._asked: dict[int, tuple] = {}  # all that was proposed here
        self._ended: dict[int, float] = {}  # ended well, no result yet: since when
        self._place: dict[int, int] = {}  # parameter id -> its place in observed
        self._unread: list[list[dict]] = []  # records that came before the space
        self._lock = threading.RLock()

    # what engines define

    def start(self) -> None:
        """Prepare for self.space."""

    def propose(self, parameter_id: int) -> tuple | None:
        """Return the codes of the next configuration; None: any unseen one."""
        raise NotImplementedError

    # NNI's methods

    def update_search_space(self, search_space: dict) -> None:
        """Take the search space; a second one keeps those observations that lie in it."""
        with self._lock:
            before, self.space = self.space, Space(search_space)
            self._rows = {}
            if self.space.table is not None:
                self._rows = {tuple(row): number for number, row in enumerate(self.space.table.tolist())}
                self.unseen = np.ones(len(self._rows), dtype=bool)
            if before is not None:
                self._move(before)
            self.start()
            if before is None:
                for path in self.journals:
                    self._learn_records(_safely(read_journal, path) or [])
            while self._unread:
                self._learn_records(self._unread.pop(0))

    def generate_parameters(self, parameter_id: int, **_) -> dict:
        """Return the next configuration. Raises nni.NoMoreTrialError where none is left."""
        with self._lock:
            self._give_up_waiting()
            codes = _safely(self.propose, parameter_id)
            if codes is None or codes in self.seen:
                codes = self.random_unseen()
            if codes is None:
                _logger.info("space exhausted: all configurations were proposed")
                raise nni.NoMoreTrialError("space exhausted: all configurations were proposed")
            self._note_seen(codes)
            self.pending[parameter_id] = self._asked[parameter_id] = codes
            parameters = self.space.decode(codes)
            self._checkpoint({"asked": parameters})
            return parameters

    def receive_trial_result(self, parameter_id: int, parameters: dict, value, **_) -> None:
        """Take a trial's final metrics: a number, or a dict with "default"."""
        with self._lock:
            try:
                codes = self._asked.get(parameter_id) or self.space.encode(parameters)
            except (ValueError, TypeError, AttributeError) as error:
                _logger.warning("a result that is not of this search space is left out: %s", error)
                return
            self._observe(self._observation(codes, value, parameter_id))
            self._checkpoint({"parameters": self.space.decode(codes), "value": finite_metrics(value)})

    def trial_end(self, parameter_id: int, success: bool, **_) -> None:
        """Note a trial's end. The result of a successful one may still come; one without a result has failed."""
        with self._lock:
            if parameter_id not in self._asked or parameter_id in self._place:
                return
            if success:
                self._ended[parameter_id] = time.monotonic()
            else:
                self._fail(parameter_id)

    def import_data(self, data: list[dict]) -> None:
        """Learn from trials of an earlier search or run: [{"parameter": ..., "value": ...}]."""
        records = [
            {"parameters": entry.get("parameter"), "value": entry.get("value")}
            for entry in data
            if isinstance(entry, dict)
        ]
        with self._lock:
            self._learn_records(records) if self.space else self._unread.append(records)

    def load_checkpoint(self) -> None:
        """Learn from this tuner's own checkpoint, when NNI resumes an experiment."""
        path = checkpoint_path()
        records = _safely(read_lines, path) if path else None
        with self._lock:
            self._learn_records(records or []) if self.space else self._unread.append(records or [])

    # for engines

    def random_unseen(self) -> tuple | None:
        """Return a random configuration that was not seen yet, None where there is none."""
        if self.space.table is not None:
            left = np.flatnonzero(self.unseen)
            return tuple(self.space.table[self.rng.choice(left)].tolist()) if len(left) else None
        draws = map(tuple, self.space.random_rows(self.rng, DRAWS if len(self.seen) > 100 else 20).tolist())
        return next((codes for codes in draws if codes not in self.seen), None)

    def scored(self) -> list[Observation]:
        """The observations with values."""
        return [observation for observation in self.observed if observation.values is not None]

    # inside

    def _observation(self, codes: tuple, value, parameter_id: int | None = None) -> Observation:
        """Return the observation of a final metric. Without a finite first objective it is a failure."""
        metrics = finite_metrics(value)
        found = [metrics.get(name) for name, _ in self.objectives]
        if found[0] is None:
            return Observation(codes, None, (), True, parameter_id)
        if None in found:
            return Observation(codes, None, (), False, parameter_id)
        signed = (v if mode == "max" else -v for v, (_, mode) in zip(found, self.objectives, strict=True))
        excess = tuple(relative_excess(metrics.get(name), sign, bound) for name, sign, bound in self.limits)
        return Observation(codes, tuple(signed), excess, False, parameter_id)

    def _observe(self, observation: Observation) -> None:
        identifier = observation.parameter_id
        self.pending.pop(identifier, None)
        self._ended.pop(identifier, None)
        self._note_seen(observation.codes)
        if identifier is not None and identifier in self._place:  # a result after all
            self.observed[self._place[identifier]] = observation
            self.revision += 1
            return
        if identifier is not None:
            self._place[identifier] = len(self.observed)
        self.observed.append(observation)

    def _fail(self, parameter_id: int) -> None:
        codes = self._asked[parameter_id]
        self._observe(Observation(codes, None, (), True, parameter_id))
        self._checkpoint({"parameters": self.space.decode(codes), "failed": True})

    def _give_up_waiting(self) -> None:
        now = time.monotonic()
        for identifier in [i for i, since in self._ended.items() if now - since > RESULT_SECONDS]:
            self._fail(identifier)

    def _note_seen(self, codes: tuple) -> None:
        self.seen.add(codes)
        if codes in self._rows:
            self.unseen[self._rows[codes]] = False

    def _learn_records(self, records: list[dict]) -> None:
        """Take records of a checkpoint, of a journal or of NNI, leaving out what is known already."""
        known = {(observation.codes, observation.values) for observation in self.observed}
        for record in records:
            try:
                codes = self.space.encode(record.get("asked") or record["parameters"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                _logger.warning("an earlier trial is left out, it is not of this search space: %s", error)
                continue
            if "asked" in record:  # it may still run: NNI starts again what was running
                self.pending[f"earlier {len(self.seen)}"] = codes
                self._note_seen(codes)
                continue
            observation = self._observation(codes, None if record.get("failed") else record.get("value"))
            for identifier in [i for i, other in self.pending.items() if other == codes and i not in self._asked]:
                del self.pending[identifier]
                self.revision += 1
            if (codes, observation.values) not in known:
                known.add((codes, observation.values))
                self._observe(observation)

    def _move(self, before: Space) -> None:
        """Carry what is known over to a new search space."""
        observed, pending, asked = self.observed, self.pending, self._asked
        self.observed, self.pending, self._asked, self._place, self.seen = [], {}, {}, {}, set()
        self.revision += 1
        for old, new in ((pending, self.pending), (asked, self._asked)):
            for identifier, codes in old.items():
                moved = _moved(codes, before, self.space)
                if moved is not None:
                    new[identifier] = moved
                    self._note_seen(moved)
        for observation in observed:
            observation.codes = _moved(observation.codes, before, self.space)
            if observation.codes is not None:
                self._observe(observation)

    def _checkpoint(self, record: dict) -> None:
        path = checkpoint_path()
        if path:
            _safely(append_line, path, record)


def _moved(codes: tuple, before: Space, after: Space) -> tuple | None:
    try:
        return after.encode(before.decode(codes))
    except (ValueError, KeyError, TypeError):
        return None


def finite_metrics(value) -> dict[str, float]:
    """Return a final metric as {name: finite number}; what is none is left out."""
    entries = value.items() if isinstance(value, dict) else [("default", value)]
    numbers = {name: v for name, v in entries if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: float(v) for name, v in numbers.items() if math.isfinite(v)}


def relative_excess(value: float | None, sign: str, bound: float) -> float:
    """Return by how much a metric breaks a limit, relative to the limit; nan where the metric is unknown."""
    if value is None:
        return math.nan
    return (value - bound if sign.startswith("<") else bound - value) / (abs(bound) or 1.0)


def read_journal(path: Path) -> list[dict]:
    """Return the records of a search's journal.jsonl; what was interrupted or lost may be proposed again."""
    newest = {entry["parameter_id"]: entry for entry in read_lines(path) if "parameter_id" in entry}
    records = []
    for entry in newest.values():
        if entry.get("status") in SCORED:
            records.append({"parameters": entry["parameters"], "value": entry["result"]})
        elif entry.get("status") in FAILED:
            records.append({"parameters": entry["parameters"], "failed": True})
    return records


def read_lines(path: Path) -> list[dict]:
    """Return the JSON objects in a file, one a line; torn lines are skipped."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return [entry for entry in entries if isinstance(entry, dict)]


def append_line(path: Path, record: dict) -> None:
    """Append one line with a single write."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, json.dumps(record).encode() + b"\n")
    finally:
        os.close(handle)


def checkpoint_path() -> Path | None:
    """Return where the checkpoint is within an experiment; None outside of one."""
    folder = os.environ.get("NNI_CHECKPOINT_DIRECTORY")
    return Path(folder, CHECKPOINT) if folder and Path(folder).is_dir() else None


def _safely(call, *arguments):
    """Return what the call returns; where it raises, log it in one line and return None."""
    try:
        return call(*arguments)
    except Exception:
        _logger.error("%s failed: %s", call.__name__, " | ".join(traceback.format_exc().splitlines()))
        return None
