"""What this project's tuners have in common: pending and failed trials, no repeats, an end, a journal to start from.

NNI's dispatcher calls a tuner from two threads, and may tell of a trial's end before its result; an exception would end
the search without a word. So every method here holds a lock, and none lets one out but NoMoreTrialError.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nni
import numpy as np
from nni.runtime import msg_dispatcher
from nni.tuner import Tuner

from tuners import space as spaces
from tuners.aim import Aim

log = logging.getLogger(__name__)

TRIES = 4  # proposals asked of an engine before one is taken that it did not ask for
ENUMERATED = 20_000  # configurations, up to which all unseen ones are looked through
LATE_SECONDS = 60.0  # after a good end in which a result must have come
WITH_DEFAULT = ("ok", "silent", "saturated", "early_stopped")  # journal statuses that carry a result
FAILED = ("failed", "timed_out", "killed")


@dataclass
class Trial:
    """A configuration that was proposed or imported, and what came of it."""

    point: dict  # a value for every leaf of the space
    scores: tuple[float, ...] | None = None  # one for each objective, larger is better; None: none yet, or failed
    excess: tuple[float, ...] = ()  # over each limit; above 0 it is broken
    failed: bool = False
    handle: Any = None  # the engine's own
    ended: float | None = None  # when NNI said so [s, monotonic]


class AskTellTuner(Tuner):
    """A tuner around an engine that is asked for points and told what came of them.

    An engine has `_start()`, `_ask() -> (point, handle)`, `_adopt(point) -> handle` for a point that it did not choose,
    `_discard(handle)` for one that is not tried, and `_tell(trial)` for each that ended.
    """

    def __init__(self, optimize_mode: str = "maximize", seed: int = 0, aim: Aim | None = None, journal: str = ""):
        """`journal` is a journal.jsonl of an earlier search over the same space, whose results are learnt from.

        Raises ValueError for an unknown optimize_mode or a journal that is not there.
        """
        if optimize_mode not in ("maximize", "minimize"):
            raise ValueError(f"optimize_mode must be maximize or minimize, not {optimize_mode!r}")
        if journal and not Path(journal).is_file():
            raise ValueError(f"journal {journal} is not there")
        self.aim = aim or Aim([("default", "max" if optimize_mode == "maximize" else "min")])
        self.seed, self.journal = seed, journal
        self.rng = np.random.default_rng(seed)
        self.lock = threading.RLock()
        self.space: dict = {}
        msg_dispatcher.dispatcher_env_vars = msg_dispatcher.dispatcher_env_vars._replace(
            NNI_INCLUDE_INTERMEDIATE_RESULTS="true"  # let the tuner learn from what an assessor stopped
        )

    def update_search_space(self, search_space: dict) -> None:
        """Take the search space, in NNI's form, and start anew; then learn from the journal."""
        with self.lock:
            self.space, self.leaves = search_space, spaces.flat(search_space)
            self.size = spaces.size(search_space)
            self.unseen = None  # all untried configurations, once they are looked through: identity -> parameters
            self.seen: set[str] = set()
            self.pending: dict[int, Trial] = {}
            self.done: list[Trial] = []
            self.worst: tuple[float, ...] | None = None
            self.untold: list[Trial] = []  # failures before there is a worst score to give them
            self._start()
            if self.journal:
                self._read_journal()

    def generate_parameters(self, parameter_id: int, **kwargs) -> dict:
        """Return a configuration that was never proposed. Raises nni.NoMoreTrialError where there is none left."""
        with self.lock:
            self._give_up_late()
            if len(self.seen) >= self.size:
                raise nni.NoMoreTrialError(f"space exhausted: all {self.size} configurations were proposed")
            try:
                point, handle = self._fresh()
            except Exception:
                log.exception("the engine failed; a random configuration is proposed")
                point, handle = self._random(), None
            parameters = spaces.nest(self.space, point)
            self._see(parameters)
            self.pending[parameter_id] = Trial(point, handle=handle)
            return parameters

    def receive_trial_result(self, parameter_id: int, parameters: dict, value: Any, **kwargs) -> None:
        """Learn from a trial's metrics: a number, or a dict with the objectives' names."""
        with self.lock:
            trial = self.pending.pop(parameter_id, None) or self._imported(parameters)
            if trial is not None:
                self._finish(trial, value if isinstance(value, dict) else {"default": value})

    def trial_end(self, parameter_id: int, success: bool, **kwargs) -> None:
        """Note a trial's end: without success and without a result it has failed."""
        with self.lock:
            trial = self.pending.get(parameter_id)
            if trial is None:
                return
            trial.ended = time.monotonic()
            if not success:
                self._finish(self.pending.pop(parameter_id), {})

    def import_data(self, data: list[dict]) -> None:
        """Learn from earlier results: dicts with "parameter" and "value". What does not fit the space is left out."""
        with self.lock:
            for entry in data:
                value = entry.get("value")
                if isinstance(value, str):
                    value = _read(value)
                parameters = entry.get("parameter") or {}
                if value is not None and not self._is_known(parameters):
                    self._learn(parameters, value if isinstance(value, dict) else {"default": value})

    def take_up(self, finished: list[tuple[dict, dict | None]], pending: dict[int, dict]) -> None:
        """Go on with a search: learn from trials (parameters, metrics; None: failed), and know those that run again.

        `pending` has the parameters of the latter by the parameter_id under which they are told.
        """
        with self.lock:
            for parameters, metrics in finished:
                self._learn(parameters, metrics or {})
            for identifier, parameters in pending.items():
                trial = self._imported(parameters)
                if trial is not None:
                    self.pending[identifier] = trial
                    try:
                        trial.handle = self._adopt(trial.point)
                    except Exception:
                        log.exception("the engine did not take a pending configuration")

    def _is_known(self, parameters: dict) -> bool:
        """Whether the configuration was learnt from already, as after a resume from the journal."""
        try:
            point = self._complete(spaces.unnest(self.space, parameters))
        except (ValueError, TypeError, KeyError):
            return False
        return spaces.identity(spaces.nest(self.space, point)) in self.seen

    def _read_journal(self) -> None:
        """Learn from each trial's newest line. What was interrupted or lost says nothing and may be proposed again."""
        newest: dict = {}
        for number, line in enumerate(Path(self.journal).read_text(errors="replace").splitlines()):
            entry = _read(line)
            if isinstance(entry, dict):
                newest[entry.get("parameter_id", f"line {number}")] = entry
        for entry in newest.values():
            if entry.get("parameters") and entry.get("status") in WITH_DEFAULT + FAILED:
                self._learn(entry["parameters"], entry.get("result") or {} if entry["status"] in WITH_DEFAULT else {})
        log.info("%d results of %s are known", len(self.done), self.journal)

    def _learn(self, parameters: dict, metrics: dict) -> None:
        trial = self._imported(parameters)
        if trial is not None:
            self._finish(trial, metrics)

    def _imported(self, parameters: dict) -> Trial | None:
        """A trial that was not proposed here; None where it does not fit the space."""
        try:
            point = self._complete(spaces.unnest(self.space, parameters))
        except (ValueError, TypeError, KeyError, AttributeError) as mistake:
            log.warning("an earlier result does not fit the search space (%s): left out", mistake)
            return None
        self._see(spaces.nest(self.space, point))
        return Trial(point)

    def _finish(self, trial: Trial, metrics: dict) -> None:
        """Take what came of a trial: scores, or none, which is a failure, told to the engine as the worst so far."""
        trial.scores, trial.excess = self.aim.scores(metrics), self.aim.excess(metrics)
        trial.failed = trial.scores is None
        if trial.failed:
            self.untold.append(trial)
        else:
            self.worst = tuple(map(min, zip(trial.scores, self.worst or trial.scores, strict=True)))
            self._hand_on(trial)
        if self.worst is not None:
            waiting, self.untold = self.untold, []
            for failure in waiting:
                failure.scores = self.worst
                self._hand_on(failure)

    def _hand_on(self, trial: Trial) -> None:
        self.done.append(trial)
        try:
            self._tell(trial)
        except Exception:
            log.exception("the engine did not take a result")

    def _give_up_late(self) -> None:
        """A trial that ended well and yet brought no result will bring none."""
        for identifier, trial in list(self.pending.items()):
            if trial.ended is not None and time.monotonic() - trial.ended > LATE_SECONDS:
                self._finish(self.pending.pop(identifier), {})

    def _fresh(self) -> tuple[dict, Any]:
        """Ask the engine for a point that is new; after some tries take the unseen one most like its last."""
        refused = []
        try:
            for _ in range(TRIES):
                point, handle = self._ask()
                if spaces.identity(spaces.nest(self.space, point)) not in self.seen:
                    return point, handle
                refused.append(handle)
        finally:
            for handle in refused:
                self._discard(handle)
        point = self._unseen_like(point)
        return point, self._adopt(point)

    def _unseen_like(self, wanted: dict) -> dict:
        """The unseen configuration with the most equal parameters, the nearest of those; any in a large space."""
        if self.size > ENUMERATED:
            return self._random()

        def distance(point: dict) -> tuple[int, float]:
            gaps = [
                abs(leaf.unit(point[leaf.key]) - leaf.unit(wanted[leaf.key])) if leaf.ordered else 1.0
                for leaf in self.leaves
                if leaf.key in point and point[leaf.key] != wanted[leaf.key]
            ]
            return len(gaps), sum(gaps)

        points = [spaces.unnest(self.space, parameters) for parameters in self._all_unseen().values()]
        return self._complete(min(points, key=distance))

    def _all_unseen(self) -> dict[str, dict]:
        if self.unseen is None:
            everything = {spaces.identity(parameters): parameters for parameters in spaces.everything(self.space)}
            self.unseen = {name: parameters for name, parameters in everything.items() if name not in self.seen}
        return self.unseen

    def _random(self) -> dict:
        """A random configuration that was never proposed."""
        if self.size <= ENUMERATED:
            unseen = list(self._all_unseen().values())
            if not unseen:
                raise nni.NoMoreTrialError("space exhausted")
            return self._complete(spaces.unnest(self.space, unseen[self.rng.integers(len(unseen))]))
        while True:
            point = {leaf.key: leaf.draw(self.rng) for leaf in self.leaves}
            if spaces.identity(spaces.nest(self.space, point)) not in self.seen:
                return point

    def _complete(self, active: dict) -> dict:
        """A point with the middle of their ranges for the leaves that are not active."""
        return {leaf.key: leaf.value(0.5) for leaf in self.leaves} | active

    def _see(self, parameters: dict) -> None:
        name = spaces.identity(parameters)
        self.seen.add(name)
        if self.unseen is not None:
            self.unseen.pop(name, None)


def _read(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
