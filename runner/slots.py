"""Slots on this machine: processes that import once and then run one trial after the other.

Each slot is a process of its own, so that a trial that dies or runs out of time takes no other with it. It is a
multiprocessing.Process and a pipe and not a ProcessPoolExecutor, which hides how its process ended and cannot end it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from runner.gpus import gpu_environment
from runner.parents import die_with_parent, guard
from runner.processes import MARK, SLOT, environment, kill_carrying, mark_for
from runner.records import parse_record
from runner.texts import take_any_terminal

MOST_PRINTED = 2**16  # bytes kept of what a trial printed
GRACE_SECONDS = 5.0  # between SIGINT and SIGKILL, as NNI has it


class Ended(NamedTuple):
    """A trial that has ended, how (see runner.manager.read_events) and, where it got so far, what it found."""

    trial: str
    end: dict
    record: bytes | None = None  # content of record.json
    model: tuple[str, bytes] | None = None  # name and content of the file of weights
    printed: bytes = b""  # the end of what it printed, tracebacks included


@dataclass
class Slot:
    """A process and what it is doing."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    log: Path  # what its trial prints
    mark: str  # of the process and what its trials start
    trial: str | None = None
    up: bool = False  # its process has started and said so
    due: float = float("inf")  # when the trial's time is over [monotonic s]
    killed_at: float = float("inf")  # when it gets SIGKILL
    cause: str | None = None  # timed_out | stopping: why it got SIGINT


class LocalSlots:
    """At most `number` processes that call `function(words, start)`; see main_hpo.run_trial.

    seconds  time for one trial, or None
    log      folder for what trials print, until they end
    gpus     names for CUDA_VISIBLE_DEVICES; the slots see one each, in turn; none leaves it open
    """

    def __init__(self, number: int, function: Callable, words: tuple[str, ...], log: Path, seconds=None, gpus=()):
        self.number, self._call, self._seconds = number, (function, words), seconds or float("inf")
        self._log, self._gpus = log, gpus
        self._slots: dict[int, Slot] = {}
        self._started = 0  # processes
        log.mkdir(exist_ok=True)
        resource_tracker.ensure_running()  # multiprocessing's own helper, which is to carry no mark
        self._mark = mark_for(log.parent)
        self._guard = guard(MARK, self._mark)

    def free(self) -> int:
        """Return how many trials can start now."""
        return self.number - sum(slot.trial is not None for slot in self._slots.values())

    def start(self, trial: dict) -> None:
        """Hand a trial (its start event) to a free slot."""
        number = next(n for n in range(self.number) if n not in self._slots or self._slots[n].trial is None)
        with contextlib.suppress(OSError):  # an idle process that was killed is renewed
            if number in self._slots:
                return self._send(self._slots[number], trial)
        self._drop(number)
        self._slots[number] = self._new_slot(number)
        with contextlib.suppress(OSError):  # it has died at once; `wait` finds out
            self._send(self._slots[number], trial)

    def _send(self, slot: Slot, trial: dict) -> None:
        slot.trial, slot.cause = trial["trial"], None
        slot.pipe.send(trial)
        slot.due = time.monotonic() + self._seconds if slot.up else float("inf")
        slot.killed_at = float("inf")

    def _new_slot(self, number: int) -> Slot:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        gpu = self._gpus[number % len(self._gpus)] if self._gpus else None
        log = self._log / f"slot-{number}.log"
        arguments = (theirs, *self._call, log, gpu, os.getpid())
        process = context.Process(target=serve, args=arguments, name=f"slot-{number}", daemon=True)
        self._started += 1
        mark = f"{os.getpid()} {id(self)} {self._started}"
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for us; inherited
        try:
            with environment({MARK: self._mark, SLOT: mark}):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return Slot(process, ours, log, mark)

    def wait(self, seconds: float) -> list[Ended]:
        """Wait until trials have ended, at most `seconds`; return those. Trials whose time is over are ended."""
        busy = {n: slot for n, slot in self._slots.items() if slot.trial is not None}
        handles = [handle for slot in busy.values() for handle in (slot.pipe, slot.process.sentinel)]
        ready = wait(handles, seconds)
        ended = []
        for number, slot in busy.items():
            if slot.pipe in ready and not slot.up and self._is_up(slot):
                continue
            if slot.pipe in ready or slot.process.sentinel in ready:
                ended.append(self._collect(number, slot))
            else:
                self._watch(slot)
        return ended

    def _is_up(self, slot: Slot) -> bool:
        """Take the first word of a slot's process; its trial's time begins now. False where it has died instead."""
        with contextlib.suppress(EOFError, OSError):
            slot.pipe.recv_bytes()
            slot.up, slot.due = True, time.monotonic() + self._seconds
        return slot.up

    def _watch(self, slot: Slot) -> None:
        now = time.monotonic()
        if now > slot.due and slot.cause is None:
            self._interrupt(slot, "timed_out")
        if now > slot.killed_at:
            _kill(slot.process)

    def _interrupt(self, slot: Slot, cause: str) -> None:
        slot.cause, slot.killed_at = slot.cause or cause, min(slot.killed_at, time.monotonic() + GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.kill(slot.process.pid, signal.SIGINT)

    def _collect(self, number: int, slot: Slot) -> Ended:
        """Take the result of a slot's trial, or learn how its process ended."""
        trial, slot.trial = slot.trial, None
        end = {"time": time.time(), "exit_code": 0, "signal": None, "cause": slot.cause}
        try:
            if slot.pipe.poll():
                found = pickle.loads(slot.pipe.recv_bytes())
                self._renew_interrupted(number, slot, found[0], end)
                return Ended(trial, end, *found, _printed(slot.log))
        except (EOFError, OSError):
            pass
        slot.process.join(GRACE_SECONDS)  # the pipe may close a little earlier
        code = slot.process.exitcode
        if code is None or code < 0:
            end |= {"exit_code": None, "signal": signal.Signals(-code).name if code else None}
        else:
            end["exit_code"] = code
        self._drop(number)
        return Ended(trial, end, printed=_printed(slot.log))

    def _renew_interrupted(self, number: int, slot: Slot, record: bytes, end: dict) -> None:
        """End a process that got SIGINT, also one from outside, which is told as the trial's end.

        Whatever it was importing or compiling then is broken for the trials to come.
        """
        if slot.cause is None:
            if (parse_record(record) or {}).get("status") != "interrupted":
                return
            end |= {"exit_code": None, "signal": signal.SIGINT.name}
        self._drop(number)

    def interrupt(self) -> None:
        """Give every running trial the time to return what it has; `wait` then returns them all."""
        for slot in self._slots.values():
            if slot.trial is not None:
                self._interrupt(slot, "stopping")

    def close(self) -> None:
        """End all processes, and what trials have left behind."""
        for number in list(self._slots):
            self._drop(number)
        self._guard.stdin.close()
        self._guard.wait()

    def _drop(self, number: int) -> None:
        if number in self._slots:
            slot = self._slots.pop(number)
            _kill(slot.process)
            slot.process.join(GRACE_SECONDS)
            kill_carrying(SLOT, slot.mark)  # what its trials have started in sessions of their own
            slot.pipe.close()
            with contextlib.suppress(ValueError):  # it still runs: not even SIGKILL has ended it
                slot.process.close()


def serve(
    pipe: Connection, function: Callable, words: tuple[str, ...], log: Path, gpu: str | None, parent: int
) -> None:
    """What the process of a slot does: run trials until the pipe is closed. It dies with its parent."""
    os.setsid()  # a terminal's Ctrl-C goes to the parent only, and what trials start can be killed with them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    die_with_parent(parent)
    if gpu is not None:
        os.environ.update(gpu_environment(gpu))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for output in (1, 2):
        os.dup2(handle, output)
    os.close(handle)
    take_any_terminal()
    with contextlib.suppress(EOFError, OSError):
        pipe.send_bytes(b"up")
        while True:
            found = function(words, pipe.recv())
            sys.stdout.flush()
            pipe.send_bytes(pickle.dumps(found))


def _printed(log: Path) -> bytes:
    """Return the end of what a trial printed, and empty the log for the next one."""
    with contextlib.suppress(FileNotFoundError), open(log, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(max(0, size - MOST_PRINTED))
            printed = file.read()
            file.truncate(0)
            return printed
    return b""


def _kill(process: multiprocessing.process.BaseProcess) -> None:
    """Kill a slot's process and what its trial has started."""
    if process.exitcode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
