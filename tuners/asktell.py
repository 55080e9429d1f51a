"""What this project's tuners have in common: pending and failed trials, no repeats, an end, a journal to start from.

NNI's dispatcher calls a tuner from two threads, and may tell of a trial's end before its result; an exception would end
the search without a word. So every method here holds a lock, and none lets one out but NoMoreTrialError.
"""

from __future__ import annotations

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

from runner.records import WITH_DEFAULT, parsed, read_journal
from tuners import space as spaces
from tuners.aim import Aim

log = logging.getLogger(__name__)

TRIES = 4  # proposals asked of an engine before one is taken that it did not ask for
ENUMERATED = 20_000  # configurations, up to which all unseen ones are looked through
LATE_SECONDS = 60.0  # after a good end in which a result must have come
FAILED = ("failed", "timed_out", "killed")
SETTLED = 8  # scores from which on outliers are known
REACH = 10  # scores that lie further below the median than so many times the best lies above it are told as that far


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
    `_discard(handle)` for one that is not tried, `_tell(trial, scores)` for each that ended, and `_forget()`: all that
    it was told is told anew whenever the results have doubled, for what is worst, and what is an outlier, changes.
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
            self.ended: dict[int, Trial] = {}  # of those the proposed ones, by parameter_id
            self.worst: np.ndarray | None = None  # score of each objective; None: there is none yet
            self.floor, self.reach = -np.inf, 0.0  # of the scores that the engine is told; from their median to it
            self.places: dict[str, np.ndarray] | None = None  # of what is unseen, see _unseen_like
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
            metrics = value if isinstance(value, dict) else {"default": value}
            if parameter_id in self.pending:
                self._end(parameter_id, metrics)
            elif parameter_id in self.ended:
                self._correct(self.ended[parameter_id], metrics)
            else:
                self._learn(parameters, metrics)

    def trial_end(self, parameter_id: int, success: bool, **kwargs) -> None:
        """Note a trial's end: without success and without a result it has failed."""
        with self.lock:
            trial = self.pending.get(parameter_id)
            if trial is None:
                return
            trial.ended = time.monotonic()
            if not success:
                self._end(parameter_id, {})

    def import_data(self, data: list[dict]) -> None:
        """Learn from earlier results: dicts with "parameter" and "value". What does not fit the space is left out."""
        with self.lock:
            for entry in data:
                value = entry.get("value")
                if isinstance(value, str):
                    value = parsed(value)
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
                    self._announce(trial)

    def _is_known(self, parameters: dict) -> bool:
        """Whether the configuration was learnt from already, as after a resume from the journal."""
        try:
            point = self._complete(spaces.unnest(self.space, parameters))
        except (ValueError, TypeError, KeyError):
            return False
        return spaces.identity(spaces.nest(self.space, point)) in self.seen

    def _read_journal(self) -> None:
        """Learn from each trial's newest line. What was interrupted or lost says nothing and may be proposed again."""
        for entry in read_journal(Path(self.journal)):
            if entry["status"] in WITH_DEFAULT + FAILED:
                self._learn(entry["parameters"], entry["result"] if entry["status"] in WITH_DEFAULT else {})
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

    def _end(self, parameter_id: int, metrics: dict) -> None:
        trial = self.ended[parameter_id] = self.pending.pop(parameter_id)
        self._finish(trial, metrics)

    def _finish(self, trial: Trial, metrics: dict) -> None:
        """Take what came of a trial: scores, or none, which is a failure, told to the engine as the worst so far."""
        trial.scores, trial.excess = self.aim.scores(metrics), self.aim.excess(metrics)
        trial.failed = trial.scores is None
        self.done.append(trial)
        if len(self.done).bit_count() == 1 or (self.worst is None and not trial.failed):
            self._tell_anew()
        elif self.worst is not None:
            self._hand_on(trial)

    def _correct(self, trial: Trial, metrics: dict) -> None:
        """Take a result that came after the trial's bad end; of two results the first counts."""
        scores = self.aim.scores(metrics)
        if trial.failed and scores is not None:
            trial.scores, trial.excess, trial.failed = scores, self.aim.excess(metrics), False
            self._tell_anew()

    def _tell_anew(self) -> None:
        """Let the engine forget, and tell it all that is known, by what is now the worst score and the floor."""
        known = np.array([trial.scores for trial in self.done if not trial.failed])
        if not len(known):
            return
        if len(known) >= SETTLED:  # the reach never shrinks: as a search converges, its scores do not make outliers
            self.reach = np.maximum(self.reach, REACH * (known.max(0) - np.median(known, 0)))
            self.floor = np.where(self.reach > 0, np.median(known, 0) - self.reach, -np.inf)
        self.worst = np.maximum(known.min(0), self.floor)
        self._forget()
        for trial in [*self.done, *self.pending.values()]:
            trial.handle = None
        for trial in self.done:
            self._hand_on(trial)
        for trial in self.pending.values():
            self._announce(trial)

    def _hand_on(self, trial: Trial) -> None:
        if not trial.failed:
            self.worst = np.maximum(np.minimum(self.worst, trial.scores), self.floor)
        scores = self.worst if trial.failed else np.maximum(trial.scores, self.floor)
        try:
            self._tell(trial, tuple(scores.tolist()))
        except Exception:
            log.exception("the engine did not take a result")

    def _announce(self, trial: Trial) -> None:
        try:
            trial.handle = self._adopt(trial.point)
        except Exception:
            log.exception("the engine did not take a pending configuration")

    def _give_up_late(self) -> None:
        """A trial that ended well and yet brought no result will bring none."""
        for identifier, trial in list(self.pending.items()):
            if trial.ended is not None and time.monotonic() - trial.ended > LATE_SECONDS:
                self._end(identifier, {})

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

        if self.places is None:
            unseen = self._all_unseen().items()
            self.places = {name: self._place(spaces.unnest(self.space, parameters)) for name, parameters in unseen}
        gaps = np.nan_to_num(np.abs(np.array(list(self.places.values())) - self._place(wanted)))
        gaps[:, [not leaf.ordered for leaf in self.leaves]] = gaps[:, [not leaf.ordered for leaf in self.leaves]] > 0
        nearest = np.lexsort((gaps.sum(1), (gaps > 0).sum(1)))[0]
        return self._complete(spaces.unnest(self.space, self._all_unseen()[list(self.places)[nearest]]))

    def _place(self, point: dict) -> np.ndarray:
        """The point's places in [0, 1], one for each leaf (L,); nan where it is not active."""
        return np.array([leaf.unit(point[leaf.key]) if leaf.key in point else np.nan for leaf in self.leaves])

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
        for left in (self.unseen, self.places):
            if left is not None:
                left.pop(name, None)
