"""Finds out that NNI stands still, which NNI itself often does not notice: what is dead, or that nothing goes on.

dog = Watchdog(experiment, folder, slots)
dog.look(search, status)        # raises Stalled, or RuntimeError with what the tuner said
"""

from __future__ import annotations

import contextlib
import time
from itertools import takewhile
from pathlib import Path

import psutil

LOOK_SECONDS = 1.0
SILENT_SECONDS = 60.0  # without an answer after which a manager counts as hung
STALL_SECONDS = 60.0  # without any event, though slots are free and the tuner is idle
IDLE_CPU = 5.0  # seconds that a tuner must have reckoned to count as busy; NNI's pings cost it 0.3 a minute
TUNER_SECONDS = 10.0  # without a running trial after which a traceback of the tuner counts as its end
DEADLY = "] ERROR (nni.runtime.msg_dispatcher_base/"  # by whom NNI logs what a tuner did not catch


class Stalled(RuntimeError):
    """NNI stands still; a stop and a resume may help."""


class Watchdog:
    """Looks after one run of NNI's manager."""

    def __init__(self, experiment, folder: Path, slots: int):
        self._experiment, self._log, self._slots = experiment, folder / "log" / "dispatcher.log", slots
        self._known = self._log.stat().st_size if self._log.exists() else 0  # what earlier tuners said
        self._tuner: psutil.Process | None = None
        self._answered = self._busy = self._moved = time.monotonic()
        self._next, self._seen = 0.0, None

    def ask(self, search) -> str:
        """Return the manager's status; "" where it does not answer. Raises Stalled where it is dead, hung or failed."""
        process = self._experiment._proc
        if process.poll() is not None:
            raise Stalled(f"NNI's manager ended with exit status {process.returncode}")
        try:
            status = self._experiment.get_status()
        except Exception as error:  # whatever the HTTP client raises
            if time.monotonic() - self._answered > SILENT_SECONDS:
                raise Stalled(f"NNI's manager does not answer ({type(error).__name__})") from error
            return ""
        self._answered = time.monotonic()
        if status == "ERROR":
            self._raise_what_the_tuner_said()
            raise Stalled(f"NNI's manager reports an error, see {search.results.folder / 'log'}")
        return status

    def look(self, search, status: str) -> None:
        """Look whether tuner and search go on. Raises Stalled, and RuntimeError where the tuner has raised."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        self._busy = now if search.running else self._busy
        if now - self._busy > TUNER_SECONDS:
            self._raise_what_the_tuner_said()
        if status in ("RUNNING", "NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL"):
            self._look_at_tuner()
        self._look_at_progress(search, status, now)

    def _look_at_tuner(self) -> None:
        """The tuner's process, once seen, must live."""
        if self._tuner is None:
            self._tuner = self._find_tuner()
        elif not _lives(self._tuner):
            self._raise_what_the_tuner_said()
            raise Stalled("the tuner's process has died")

    def _find_tuner(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._experiment._proc.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "--exp_params" in child.cmdline():
                        return child
        return None

    def _look_at_progress(self, search, status: str, now: float) -> None:
        seen = (search.position, int(self._tuner_seconds() / IDLE_CPU))
        waits = status == "RUNNING" and len(search.running) < self._slots and not search.machines_away()
        if seen != self._seen or not waits:
            self._seen, self._moved = seen, now
        elif now - self._moved > STALL_SECONDS:
            free = self._slots_now() - len(search.running)
            if free > 0:
                raise Stalled(f"nothing has happened for {STALL_SECONDS:.0f} s though {free} more trials could run")

    def _slots_now(self) -> int:
        """The web UI can change how many trials run at once."""
        try:
            return self._experiment.get_experiment_profile()["params"]["trialConcurrency"]
        except Exception:  # whatever the HTTP client raises
            return 0

    def _tuner_seconds(self) -> float:
        try:
            times = self._tuner.cpu_times() if self._tuner else None
        except psutil.Error:
            times = None
        return sum(times[:4]) if times else 0.0

    def _raise_what_the_tuner_said(self) -> None:
        """A tuner that raised would raise again. Raises RuntimeError with the last line of what NNI caught of it."""
        try:
            with self._log.open(errors="replace") as file:
                file.seek(self._known)
                lines = file.read().splitlines()
        except OSError:
            return
        for number, line in enumerate(lines, 1):
            traceback = list(takewhile(lambda following: not following.startswith("["), lines[number:]))
            if traceback and DEADLY in line:
                raise RuntimeError(f"the tuner failed: {traceback[-1]}; see {self._log}")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
