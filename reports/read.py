"""An experiment's folder in, a Search out. The journal is the source; all else (search.json, records) adds to it."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from reports.parameters import Parameter, parameters_of
from runner.asked import well_formed
from runner.flags import UserMistake
from runner.records import WITH_DEFAULT, as_entry, is_finite, key_of, parsed, read_journal, read_lines, read_record
from runner.resume import read_starts
from search_spaces import load_space
from tuners.aim import Aim, parse_objectives

HOPELESS = ("silent", "saturated")  # scored, but such a net computes nothing
UNITS = {"nj": "nJ", "hz": "Hz", "bytes": "bytes", "seconds": "s", "ms": "ms"}  # by the last word of a metric's name
CURVES = 5  # trials whose learning curves are read


@dataclass
class Search:
    """One search, as far as it has come."""

    folder: Path
    task: str  # "" where unknown
    facts: dict  # search.json: how it was started; empty where there is none
    entries: list[dict]  # of the journal, in the order in which the trials were started
    parameters: list[Parameter]
    running: int = 0  # trials that have started and not ended
    torn: int = 0  # lines of the journal that cannot be read
    aim: Aim = field(default_factory=Aim)  # what it searched for, and within which limits

    @property
    def name(self) -> str:
        """The experiment's id."""
        return self.folder.resolve().name

    @cached_property
    def scored(self) -> list[dict]:
        """The trials with a score and a value of the first objective, in the order of their start."""
        return [entry for entry in self.entries if self.is_valued(entry)]

    def is_valued(self, entry: dict) -> bool:
        """Tell whether a trial counts: it finished with a finite score and a finite value of the first objective."""
        return is_scored(entry) and is_finite(entry["result"].get(self.aim.objectives[0][0]))

    def value(self, entry: dict) -> float:
        """The first objective of a trial that has one: what trials are ranked by and pictures show."""
        return entry["result"][self.aim.objectives[0][0]]

    @property
    def value_name(self) -> str:
        """What `value` is, as an axis says it."""
        name = self.aim.objectives[0][0]
        return self.score_name if name == "default" else labelled(name)

    @property
    def least_is_best(self) -> bool:
        """Whether the first objective is to be small."""
        return self.aim.objectives[0][1] == "min"

    @cached_property
    def ranking(self) -> list[dict]:
        """The trials with a score, best first; of equals the one that was started first."""
        return sorted(self.scored, key=lambda entry: (self.aim.place(entry["result"]), entry["sequence"]))

    @cached_property
    def within(self) -> list[dict]:
        """The trials with a score that keep the limits."""
        return [entry for entry in self.scored if self.aim.is_kept(entry["result"])]

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """The objectives (metric, max | min) where there are several, else none."""
        return self.aim.objectives if len(self.aim.objectives) > 1 else []

    @cached_property
    def front(self) -> list[dict]:
        """The trials on the Pareto front of several objectives, the best in the first one first."""
        if not self.objectives:
            return []
        marks = self.aim.front([entry["result"] for entry in self.within])
        found = [entry for entry, mark in zip(self.within, marks, strict=True) if mark]
        return sorted(found, key=lambda entry: self.aim.scores(entry["result"]), reverse=True)

    @cached_property
    def statuses(self) -> Counter:
        """How many trials ended how."""
        return Counter(entry["status"] for entry in self.entries)

    @property
    def searched(self) -> list[Parameter]:
        """The parameters that can vary."""
        return [parameter for parameter in self.parameters if not parameter.fixed]

    @property
    def score_name(self) -> str:
        """What `default` is, as an axis says it."""
        inside = all(0 <= score(entry) <= 1 for entry in self.scored)
        return "validation accuracy" if inside else "validation score"

    def curves(self) -> list[tuple[dict, list[dict]]]:
        """Return (entry, metrics after each epoch) of the best trials whose record has a curve: two epochs or more."""
        best = [(entry, self.record(entry).get("curve") or []) for entry in self.ranking[:CURVES]]
        return [(entry, curve) for entry, curve in best if len(curve) > 1]

    def record(self, entry: dict) -> dict:
        """Return the record of a trial, empty where it is not there."""
        folder = next(self.folder.glob(f"environments/*/trials/{entry['trial']}"), None)
        return (folder and read_record(folder)) or {}


def score(entry: dict) -> float:
    """The score of a trial that has one."""
    return entry["result"]["default"]


def is_scored(entry: dict) -> bool:
    """Tell whether the trial's score counts: a finite one, of a trial that finished."""
    return entry["status"] in WITH_DEFAULT and is_finite(entry["result"].get("default"))


def labelled(metric: str) -> str:
    """A metric's name with its unit, as an axis says it: energy_nj_cmos_45nm is energy cmos 45nm [nJ]."""
    if metric == "default":
        return "validation accuracy"
    words = metric.split("_")
    unit = next((word for word in words if word in UNITS), None)
    named = [word for word in words if word != unit] or words
    return " ".join(named) + (f" [{UNITS[unit]}]" if unit else "")


def read_search(folder: Path) -> Search:
    """Read the experiment in `folder`. Raises UserMistake where that is none, or no trial of it has ended."""
    journal = folder / "journal.jsonl"
    facts = well_formed(read_json(folder / "search.json"))
    if not journal.exists() and not facts and not (folder / "events.jsonl").exists():
        raise UserMistake(f"{folder} has no journal.jsonl: give the folder of an experiment, experiments/<id>")
    entries, torn = _journal(journal)
    running = count_running(folder, entries)
    if not entries:
        state = f"{running} running" if running else "none has been started, or the journal was lost"
        raise UserMistake(f"{folder}: no trial has ended yet ({state})")
    task = facts.get("task") or _task_of(folder, entries)
    parameters = parameters_of(facts.get("space") or _space_of(task), entries, task)
    entries = [_fitting(entry, parameters) for entry in entries]
    return Search(folder, task, facts, entries, parameters, running, torn, read_aim(facts))


def _journal(path: Path) -> tuple[list[dict], int]:
    """Return the entries in the order of their start, and the number of lines that are no entry."""
    return sorted(read_journal(path), key=lambda entry: entry["sequence"]), read_lines(path, as_entry)[1]


def _fitting(entry: dict, parameters: list[Parameter]) -> dict:
    """Return the entry without parameters that their ranges cannot have; as they were they stay under "given"."""
    known = {parameter.name: parameter for parameter in parameters}
    fitting = {name: value for name, value in entry["parameters"].items() if known[name].holds(value)}
    return entry | {"parameters": fitting, "given": entry["parameters"]}


def read_json(path: Path) -> dict:
    """Return the object in a JSON file, empty where there is none that can be read."""
    try:
        found = parsed(path.read_bytes())
    except OSError:
        return {}
    return found if isinstance(found, dict) else {}


def count_running(folder: Path, entries: list[dict]) -> int:
    """Return how many trials have started, by the manager's events, and are not in the journal."""
    started = {key_of(start) for start in read_starts(folder / "events.jsonl")}
    return len(started - {entry["parameter_id"] for entry in entries})


def _task_of(folder: Path, entries: list[dict]) -> str:
    """Return the task that best.json's command or a record names; "" where none does."""
    words = shlex.split(read_json(folder / "best.json").get("command", ""))
    if "--task" in words[:-1]:
        return words[words.index("--task") + 1]
    for entry in entries[-20:]:
        for trial in folder.glob(f"environments/*/trials/{entry['trial']}"):
            if task := (read_record(trial) or {}).get("task"):
                return task
    return ""


def _space_of(task: str) -> dict:
    """Return the search space that the task has today; empty where it has none."""
    try:
        return load_space(task)
    except ValueError:
        return {}


def read_aim(facts: dict) -> Aim:
    """Return what search.json says that was searched for; the default where it says nothing."""
    aim = Aim(limits=[tuple(limit) for limit in facts.get("limit") or ()])
    if given := facts.get("objectives"):
        aim.objectives = parse_objectives(given) if isinstance(given, str) else [tuple(pair) for pair in given]
    return aim
