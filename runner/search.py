"""A running search as the terminal shows it: events of the manager in, journal entries and a live progress line out."""

from __future__ import annotations

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
from runner.records import STATUSES, WITH_DEFAULT, Results

POLL_SECONDS = 0.3
UNANSWERED = 10  # requests in a row after which the manager counts as gone
EXHAUSTED_SECONDS = 5.0  # without a trial after which a tuner that has no more counts as done; NNI polls each 0.5 s
MACHINES_SECONDS = 120.0  # without any of several machines after which the search ends
TUNER_SECONDS = 10.0  # without a running trial after which a traceback of the tuner counts as its end
LAST_LINES = 6  # of a failed trial's error output


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
    _offset: int = 0
    _idle_since: float = field(default_factory=time.monotonic)
    _last_running: float = field(default_factory=time.monotonic)

    def follow(self, experiment) -> None:
        """Show and record the search until its last trial has ended. Raises RuntimeError where the manager fails."""
        misses = 0
        with self._live():
            while not self.finished:
                time.sleep(POLL_SECONDS)
                try:
                    status = experiment.get_status()
                    misses = 0
                except Exception as error:  # whatever the HTTP client raises
                    misses += 1
                    status = "no answer" if misses < UNANSWERED else "ERROR"
                    reason = f"it does not answer ({type(error).__name__})"
                else:
                    reason = "it reports an error"
                self.poll()
                if status == "ERROR":
                    raise RuntimeError(f"NNI's manager failed: {reason}; see {self.results.folder / 'log'}")
                self._check_tuner()
                self._check_machines()
                self.finished = status in ("DONE", "STOPPED") or self._exhausted(status)
        if status == "TUNER_NO_MORE_TRIAL":
            self.console.print("the search space is exhausted: the tuner has no more configurations")

    def _check_tuner(self) -> None:
        """NNI goes on for ever without trials when its tuner raises. Raises RuntimeError with what the tuner said."""
        if self.running:
            self._last_running = time.monotonic()
        if time.monotonic() - self._last_running > TUNER_SECONDS:
            log = self.results.folder / "log" / "dispatcher.log"
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            if "Traceback (most recent call last):" in lines:
                raise RuntimeError(f"the tuner failed: {lines[-1]}; see {log}")

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
        self.console.print(said, markup=False, highlight=False, soft_wrap=True)

    def _exhausted(self, status: str) -> bool:
        """A space of which every point has been tried: NNI never calls that DONE."""
        if status != "TUNER_NO_MORE_TRIAL" or self.running:
            self._idle_since = time.monotonic()
        return time.monotonic() - self._idle_since > EXHAUSTED_SECONDS

    def poll(self) -> None:
        """Take the events that have come since the last call."""
        events, self._offset = read_events(self.events, self._offset)
        for event in events:
            if event["event"] == "machine":
                self._show_machine(event)
            elif event["event"] == "start":
                self.running[event["trial"]] = event
            elif event["event"] == "end" and event["trial"] in self.running:
                self._take(self.running.pop(event["trial"]), event)

    def cut_off(self) -> None:
        """Enter the trials that are still running as interrupted: nothing more will be heard of them."""
        for start in self.running.values():
            self._take(start, None)
        self.running = {}

    def _take(self, start: dict, end: dict | None) -> None:
        entry = self.results.add(start, end)
        self.counts[entry["status"]] += 1
        if entry["status"] not in (*WITH_DEFAULT, "interrupted"):
            self._show_failure(entry)
        if not self.console.is_terminal:
            self.console.print(self.line(), soft_wrap=True, highlight=False)

    def _show_failure(self, entry: dict) -> None:
        self.console.print(f"trial {entry['trial']} {entry['status']}: {entry['cause']}", markup=False, soft_wrap=True)
        for line in last_lines(self.results.trial_folder(entry["trial"]) / "trial.stderr"):
            self.console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """done / failed / running, best so far, time left, URL."""
        ended, best = self.counts.total(), self.results.ranking()[:1]
        failed = ended - sum(self.counts[status] for status in (*WITH_DEFAULT, "interrupted"))
        shown = f"best {best[0]['result']['default']:.4f}" if best else "no result yet"
        counts = f"{ended}/{self.trials} done · {failed} failed · {len(self.running)} running"
        return f"{counts} · {shown} · {self._left()}{self.url}"

    def _left(self) -> str:
        """Time left, judged by the trials so far and bounded by the duration."""
        elapsed, ended = time.time() - self.started, self.counts.total()
        estimates = [elapsed / ended * (self.trials - ended)] if ended else []
        if self.duration is not None:
            estimates.append(max(0.0, self.duration - elapsed))
        if not estimates:
            return ""
        left = max(0, int(min(estimates)))
        return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left · "

    @contextmanager
    def _live(self) -> Iterator[None]:
        """Keep the progress line at the bottom of a terminal; elsewhere a line is printed for each trial."""
        if not self.console.is_terminal:
            yield None
            return
        with Live(get_renderable=lambda: Text(self.line(), no_wrap=True), console=self.console, refresh_per_second=2):
            yield None


def last_lines(path: Path) -> list[str]:
    """Return the last lines of a text file; none where there is no such file."""
    try:
        return path.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
    except OSError:
        return []


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
    console.print(
        "trials: " + (", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s]) or "none"), highlight=False
    )
    for name in ("results.csv", "best.json", "best_model.pt", "best_model.npz", "journal.jsonl"):
        if (results.folder / name).exists():
            console.print(f"{name:14} {results.folder / name}", soft_wrap=True, highlight=False)


def print_front(results: Results, console: Console) -> None:
    """Print the trials of the Pareto front with their objectives; results.csv marks them."""
    names = [name for name, _ in results.aim.objectives]
    table = Table("Pareto front", *names)
    for entry in results.front():
        table.add_row(entry["trial"], *(f"{entry['result'][name]:.4g}" for name in names))
    console.print(table)


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
