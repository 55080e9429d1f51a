"""A tuner that goes on with a search inside NNI: it knows what the journal holds, and proposes again what was cut off.

NNI's own resume feeds a tuner from its database, in which failed and interrupted trials say nothing; and it numbers
parameters from 0 again. Here the journal is the source, and a trial that runs again keeps its number.
"""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

from nni.runtime import msg_dispatcher
from nni.tuner import Tuner

from runner.asking import take_up
from runner.resume import trials_of

LATE_SECONDS = 60.0  # after a good end in which a result must have come


class Resumed(Tuner):
    """Stands between NNI's dispatcher, which calls from two threads, and the tuner of the search."""

    def __init__(self, first: dict, later: dict, folder: str):
        """`first` and `later` describe the tuner with two seeds, see runner.asking.take_up; `folder` has the trials."""
        self._tuners, self._folder = (first, later), Path(folder)
        self._lock = threading.RLock()
        self._asker = None
        self._again: dict[int, dict] = {}  # parameter_id -> parameters, to be proposed first
        self._open: dict[int, dict] = {}  # the same, of proposals of which nothing has come yet
        self._ended: dict[int, float] = {}  # parameter_id -> when its trial ended well [s, monotonic]

    def update_search_space(self, search_space: dict) -> None:
        """Take up the search; a later call changes its space."""
        with self._lock:
            if self._asker is not None:
                return self._asker.tuner.update_search_space(search_space)
            finished, again = trials_of(self._folder)
            self._asker = take_up(self._tuners, search_space, finished, again)
            self._again = {start["parameter_id"]: start["parameters"] for start in again}
            numbers = itertools.chain(list(self._again), itertools.count(self._asker.next_id))
            msg_dispatcher._create_parameter_id = lambda: next(numbers)

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs) -> list[dict]:
        """Return proposals for these numbers, fewer where the tuner has no more before it is told of a trial."""
        with self._lock:
            self._give_up_late()
            proposals = []
            for identifier in parameter_id_list:
                if identifier in self._again:
                    parameters = self._again.pop(identifier)
                elif (proposal := self._asker.ask(identifier)) is not None:
                    parameters = proposal[1]
                else:
                    break
                self._open[identifier] = parameters
                proposals.append(parameters)
            return proposals

    def receive_trial_result(self, parameter_id: int, parameters: dict, value: Any, **kwargs) -> None:
        """Tell the tuner of a result."""
        with self._lock:
            given = self._open.pop(parameter_id, parameters)
            self._asker.tell(parameter_id, given, value if isinstance(value, dict) else {"default": value})

    def trial_end(self, parameter_id: int, success: bool, **kwargs) -> None:
        """Tell the tuner of a trial without a result; after a good end it may still come."""
        with self._lock:
            if parameter_id in self._open and success:
                self._ended[parameter_id] = time.monotonic()
            elif parameter_id in self._open:
                self._asker.tell(parameter_id, self._open.pop(parameter_id), None)

    def import_data(self, data: list[dict]) -> None:
        """Ignore what NNI's database says: the journal has said it."""

    def _give_up_late(self) -> None:
        for identifier, ended in list(self._ended.items()):
            if identifier not in self._open:
                del self._ended[identifier]
            elif time.monotonic() - ended > LATE_SECONDS:
                self._asker.tell(identifier, self._open.pop(identifier), None)
