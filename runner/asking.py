"""NNI's tuners (its own and this project's) without NNI's manager: asked for configurations, told what came of them.

asker = Asker(build_tuner(TUNERS["nni-tpe"](seed), space))
proposal = asker.ask()                                     # (parameter_id, parameters), or None: nothing for now
asker.tell(proposal[0], proposal[1], {"default": 0.93})    # None in place of the metrics: the trial failed
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Iterator

from runner.records import told_of


def build_tuner(settings: dict, space: dict):
    """Return the tuner that an entry of tuners.TUNERS describes, with its search space set."""
    from nni.runtime.log import silence_stdout
    from nni.tools.package_utils import tuner_factory

    silence_stdout()  # what tuners log would tear the progress line
    logging.getLogger("nni").addHandler(logging.NullHandler())
    arguments = settings.get("class_args", {})
    if "class_name" in settings:
        own = {"className": settings["class_name"], "codeDirectory": str(settings["code_directory"])}
        tuner = tuner_factory.create_customized_class_instance(own | {"classArgs": arguments})
    else:
        tuner = tuner_factory.create_builtin_class_instance(settings["name"], arguments, "tuners")
    tuner.update_search_space(space)
    return tuner


def cannot_import(tuner) -> bool:
    """Tell whether a tuner's import_data does nothing: to learn what is known it must propose everything anew."""
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
    from nni.tuner import Tuner

    return type(tuner).import_data in (Tuner.import_data, EvolutionTuner.import_data)


def take_up(tuners: tuple[dict, dict], space: dict, finished: list, again: list[dict]) -> Asker:
    """Return an asker that knows the trials of an earlier run of the search, as runner.resume.trials_of returns them.

    `tuners` are descriptions of the same tuner with two seeds. One that can import results draws from the second:
    with the first it would begin with the same proposals. Raises what the tuner raises.
    """
    engine = build_tuner(tuners[0], space)
    if finished and not cannot_import(engine):
        engine = build_tuner(tuners[1], space)
    used = [start["parameter_id"] for start in [*(start for start, _ in finished), *again]]
    asker = Asker(engine, max((number for number in used if isinstance(number, int)), default=-1) + 1)
    scored = [(start["parameters"], told_of(entry)) for start, entry in finished]
    asker.resume(scored, [(start["parameter_id"], start["parameters"]) for start in again])
    return asker


class Asker:
    """Speaks with one tuner in the order in which NNI's dispatcher does. All methods raise what the tuner raises."""

    def __init__(self, tuner, next_id: int = 0):
        self.tuner = tuner
        self.next_id = next_id  # the next trial's parameter_id
        self._tuner_ids = itertools.count()  # those by which the tuner knows its proposals
        self._asked = {}  # parameter_id -> the tuner's id
        self._waiting = deque()  # proposals that the tuner made late, by its callback
        self._dry = False  # nothing to propose until it has been told of another trial
        self.seconds = 0.0  # spent in the tuner
        self._known = {}  # parameters -> metrics of trials that it has yet to propose; None: failed
        self._again = {}  # parameters -> parameter_id of trials that run again and that it has yet to propose

    def resume(self, finished: list[tuple[dict, dict | None]], again: list[tuple[int, dict]]) -> None:
        """Tell a new tuner of `finished` trials (parameters, metrics; None: failed) and of those that run `again`.

        This project's tuners take the latter for pending; NNI's cannot be told. A tuner that cannot import results is
        answered at once where it proposes one of them. So it comes to the state it was in, if it draws from a seed.
        """
        if hasattr(self.tuner, "take_up"):
            tuner_ids = [next(self._tuner_ids) for _ in again]
            self._asked = {identifier: known for (identifier, _), known in zip(again, tuner_ids, strict=True)}
            pending = {known: given for (_, given), known in zip(again, tuner_ids, strict=True)}
            return self.tuner.take_up(finished, pending)
        replay = cannot_import(self.tuner)
        scored = [] if replay else [(given, metrics) for given, metrics in finished if metrics is not None]
        if scored:
            self.tuner.import_data([{"parameter": given, "value": metrics} for given, metrics in scored])
        for given, metrics in finished:
            if replay or metrics is None:
                self._known.setdefault(_key(given), []).append(metrics)
        if replay:
            self._again = {_key(given): identifier for identifier, given in again}

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    def ask(self, identifier: int | None = None) -> tuple[int, dict] | None:
        """Return a proposal (parameter_id, parameters), or None where the tuner has none before it is told more.

        The parameter_id is `identifier`, or the next that is free.
        """
        while True:
            proposal = self._ask_tuner()
            if proposal is None:
                return None
            tuner_id, given = proposal
            key = _key(given)
            if key in self._again:
                self._asked[self._again.pop(key)] = tuner_id
            elif self._known.get(key):
                self._tell_tuner(tuner_id, given, self._known[key].pop(0))
            else:
                if identifier is None:
                    identifier, self.next_id = self.next_id, self.next_id + 1
                self._asked[identifier] = tuner_id
                return identifier, given

    def tell(self, parameter_id: int, given: dict, metrics: dict | None) -> None:
        """Tell the tuner what came of a trial: its metrics, None where it failed, was killed or ran out of time."""
        if parameter_id in self._asked:
            self._tell_tuner(self._asked.pop(parameter_id), given, metrics)
        elif cannot_import(self.tuner):  # one that runs again and has not been proposed
            self._again.pop(_key(given), None)
            self._known.setdefault(_key(given), []).append(metrics)
        elif metrics is not None:
            self.tuner.import_data([{"parameter": given, "value": metrics}])
        self._dry = False

    def _ask_tuner(self) -> tuple[int, dict] | None:
        from nni import NoMoreTrialError

        if not self._waiting and not self._dry:
            identifier = next(self._tuner_ids)
            try:
                with self._timed():
                    given = self.tuner.generate_multiple_parameters([identifier], st_callback=self._take_late)
            except NoMoreTrialError:
                given = []
            self._dry = not given
            self._waiting.extend((identifier, _plain(parameters)) for parameters in given)
        return self._waiting.popleft() if self._waiting else None

    def _take_late(self, identifier: int, parameters: dict) -> None:
        self._waiting.append((identifier, _plain(parameters)))

    def _tell_tuner(self, identifier: int, given: dict, metrics: dict | None) -> None:
        with self._timed():
            if metrics is not None:
                about = {"customized": False, "trial_job_id": str(identifier)}
                self.tuner.receive_trial_result(identifier, given, metrics, **about)
            self.tuner.trial_end(identifier, metrics is not None)


def _plain(parameters: dict) -> dict:
    """As a trial of NNI gets them, by way of JSON: no types of NumPy's."""
    return json.loads(json.dumps(parameters, default=lambda value: value.item()))


def _key(parameters: dict) -> str:
    return json.dumps(parameters, sort_keys=True)
