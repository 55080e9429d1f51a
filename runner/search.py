"""A running search as the terminal shows it: events of the manager in, journal entries and a live progress line out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runner.manager import read_events
from runner.records import STATUSES, WITH_DEFAULT, journal_entry, key_of
from runner.results import Results
from runner.texts import printable
from runner.watchdog import Watchdog

POLL_SECONDS = 0.3
LINE_SECONDS = 0.5  # where there is no terminal, at most so often a line of progress
EXHAUSTED_SECONDS = 5.0  # without a trial after which a tuner that has no more counts as done; NNI polls each 0.5 s
MACHINES_SECONDS = 120.0  # without any of several machines after which the search ends
LAST_LINES = 6  # of a failed trial's error output,
LINE_LETTERS = 300  # cut to so many letters each,
LAST_BYTES = 2**16  # among the last bytes of it


@dataclass
class Search:
    """Follows one experiment by the manager's events file and hands every trial that ends to `results`."""

    results: Results
    events: Path
    trials: int  # budget
    duration: float | None  # budget [s]; None: no limit
    console: Console
    url: str = ""
    started: float = field(default_factory=time.time)
    running: dict[str, dict] = field(default_factory=dict)  # start event of each trial that has not ended
    counts: Counter = field(default_factory=Counter)  # trials by status
    machines: dict[str, dict] = field(default_factory=dict)  # newest event of each machine, where there are several
    finished: bool = False  # all trials of the budget have ended
    position: int = 0  # up to which the events are read
    _last_line: float = -LINE_SECONDS  # when a line was printed where there is no terminal
    _ended_before: int = 0  # trials that a resumed search began with
    _idle_since: float = field(default_factory=time.monotonic)

    def follow(self, experiment, slots: int) -> None:
        """Show and record the search until its last trial has ended; `slots` trials run at once.

        Raises Stalled where NNI stands still, and RuntimeError where going on is no use.
        """
        dog = Watchdog(experiment, self.results.folder, slots)
        with self.live():
            while not self.finished:
                time.sleep(POLL_SECONDS)
                status = dog.ask(self)
                self.poll()
                dog.look(self, status)
                self._check_machines()
                self.finished = status in ("DONE", "STOPPED") or self._exhausted(status)
        if status == "TUNER_NO_MORE_TRIAL":
            self.console.print("the search space is exhausted: the tuner has no more configurations")

    def machines_away(self) -> bool:
        """Tell whether some of several machines are not there, so that free slots are nothing strange."""
        return any(event["state"] != "up" for event in self.machines.values())

    def _check_machines(self) -> None:
        """Raises RuntimeError where all machines have been away for too long, or keep dropping out."""
        newest = list(self.machines.values())
        if not newest or any(event["state"] == "up" for event in newest):
            return
        given_up = all(event["state"] == "given_up" for event in newest)
        if given_up or time.time() - max(event["time"] for event in newest) > MACHINES_SECONDS:
            reasons = "; ".join(f"{event['machine']}: {event['reason']}" for event in newest)
            raise RuntimeError(f"no machine is left: {reasons}; see {self.results.folder / 'log'}")

    def _show_machine(self, event: dict) -> None:
        known = event["machine"] in self.machines
        self.machines[event["machine"]] = event
        words = {"up": "is back" if known else "is up", "failed": "does not come up", "lost": "dropped out"}
        said = f"machine {event['machine']} {words.get(event['state'], 'is given up')}"
        if event["reason"]:
            said += f": {event['reason']}" + ("; it is called again and again" if event["state"] != "given_up" else "")
        self.console.print(printable(said), soft_wrap=True)

    def _exhausted(self, status: str) -> bool:
        """A space of which every point has been tried: NNI never calls that DONE."""
        if status != "TUNER_NO_MORE_TRIAL" or self.running:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > EXHAUSTED_SECONDS

    def count_earlier(self) -> None:
        """Count the trials that have ended, where none runs."""
        ended = (entry["status"] for entry in self.results.entries if entry["status"] != "interrupted")
        self.running, self.counts = {}, Counter(ended)
        self._ended_before = self.counts.total()

    def settle(self) -> None:
        """Enter what ended while nobody followed, and what was cut off; count what is known. Nothing may run now."""
        events, self.position = read_events(self.events, 0)
        starts = {key_of(event): event for event in events if event["event"] == "start"}  # the newest of each
        ends = {event["trial"]: event for event in events if event["event"] == "end"}
        known = {entry["parameter_id"]: entry for entry in self.results.entries}
        self.machines = {}
        self.count_earlier()
        for identifier, start in starts.items():
            entry = known.get(identifier)
            if entry is None or (entry["status"] == "interrupted" and entry["trial"] != start["trial"]):
                self.take(start, ends.get(start["trial"]))
        self.count_earlier()
        self.results.name_best()  # whoever ran it before may have been killed before that

    def poll(self) -> None:
        """Take the events that have come since the last call."""
        events, self.position = read_events(self.events, self.position)
        for event in events:
            if event["event"] == "machine":
                self._show_machine(event)
            elif event["event"] == "start":
                self.running[event["trial"]] = event
            elif event["event"] == "end" and event["trial"] in self.running:
                self.take(self.running.pop(event["trial"]), event)

    def cut_off(self) -> None:
        """Enter the trials that are still running as interrupted: nothing more will be heard of them."""
        for start in self.running.values():
            self.take(start, None)
        self.running = {}

    def take(self, start: dict, end: dict | None, record: dict | None = None) -> dict:
        """Enter a trial that has ended, show it, and return its journal entry; `record` where it is at hand."""
        entry = self.results.enter(journal_entry(start, end, record)) if record else self.results.add(start, end)
        self.counts[entry["status"]] += 1
        if entry["status"] not in (*WITH_DEFAULT, "interrupted"):
            self._show_failure(entry)
        due = time.monotonic() - self._last_line > LINE_SECONDS or self.counts.total() >= self.trials
        if due and not self.console.is_terminal:
            self._last_line = time.monotonic()
            self.console.print(self.line(), soft_wrap=True)
        return entry

    def out_of_time(self) -> bool:
        """Tell whether the duration is over, after which no trial starts."""
        return self.duration is not None and time.time() - self.started > self.duration

    def seconds_left(self) -> int | None:
        """Return what is left of the duration, at least 1 s as NNI wants it; None without a limit."""
        return None if self.duration is None else max(1, round(self.started + self.duration - time.time()))

    def say_what_is_spent(self) -> None:
        """Tell of a search that ends before a trial starts, or is not started anew, why that is so."""
        if self.counts.total() >= self.trials:
            self.console.print(f"all {self.trials} trials have ended; a larger --trials goes on")
        else:
            self.console.print("the duration is over; --resume goes on")

    def _show_failure(self, entry: dict) -> None:
        self.console.print(f"trial {entry['trial']} {entry['status']}: {entry['cause']}", soft_wrap=True)
        for line in last_lines(self.results.trial_folder(entry["trial"]) / "trial.stderr"):
            self.console.print(f"    {line}", soft_wrap=True)

    def line(self) -> str:
        """done / failed / running, best so far, time left."""
        ended, best = self.counts.total() - self.counts["interrupted"], self.results.best
        failed = ended - sum(self.counts[status] for status in WITH_DEFAULT)
        shown = f"best {best['result']['default']:.4f}" if best else "no result yet"
        counts = [f"{ended}/{self.trials} done", f"{failed} failed", f"{len(self.running)} running", shown]
        return (" | " if self.console.options.ascii_only else " · ").join([*counts, *self._left()])

    def _left(self) -> list[str]:
        """Time left, judged by the trials so far and bounded by the duration; nothing if it cannot be told."""
        elapsed, ended = time.time() - self.started, self.counts.total()
        now = ended - self._ended_before
        estimates = [elapsed / now * (self.trials - ended)] if now else []
        if self.duration is not None:
            estimates.append(max(0.0, self.duration - elapsed))
        if not estimates:
            return []
        left = max(0, int(min(estimates)))
        return [f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"]

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep progress and URL at the bottom of a terminal; elsewhere a line is printed for each trial."""
        if not self.console.is_terminal:
            yield None
            return
        with Live(get_renderable=self._shown, console=self.console, refresh_per_second=2):
            yield None

    def _shown(self) -> Text:
        return Text("\n".join(filter(None, (self.line(), self.url))), no_wrap=True)


def last_lines(path: Path) -> list[str]:
    """Return the last lines of a text file, printable and cut; none where there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return []
    return [printable(line.rstrip(), LINE_LETTERS) for line in lines[-LAST_LINES:]]


def plain_console() -> Console:
    """Return what prints texts as they stand: no markup in them, and no highlighter, which long words hold for long."""
    return Console(markup=False, highlight=False, emoji=False)


def print_closing(results: Results, console: Console) -> None:
    """Print the best five trials, how many trials ended how, and where the files are."""
    best = results.ranking()[:5]
    if best:
        table = Table("best trials", *(entry["trial"] for entry in best))
        table.add_row(
            "default", *(f"{entry['result']['default']:.4f}" for entry in best), style="bold", end_section=True
        )
        for name in dict.fromkeys(name for entry in best for name in entry["parameters"]):
            table.add_row(name, *(_short(entry["parameters"].get(name, "")) for entry in best))
        console.print(table)
    if best and not results.aim.is_kept(best[0]["result"]):
        console.print("no trial is within the limits; the best are those that come nearest by the first objective")
    if len(results.aim.objectives) > 1:
        print_front(results, console)
    counts = Counter(entry["status"] for entry in results.entries)
    console.print("trials: " + (", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s]) or "none"))
    for name in ("results.csv", "best.json", "best_model.pt", "best_model.npz", "journal.jsonl"):
        if (results.folder / name).exists():
            console.print(f"{name:14} {results.folder / name}", soft_wrap=True)


def print_front(results: Results, console: Console) -> None:
    """Print the trials of the Pareto front with their objectives; results.csv marks them."""
    names = [name for name, _ in results.aim.objectives]
    table = Table("Pareto front", *names)
    for entry in results.front():
        table.add_row(entry["trial"], *(f"{entry['result'][name]:.4g}" for name in names))
    console.print(table)


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
