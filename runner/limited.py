"""Work that ends in time for certain: in a forked process, which is killed from outside when its time is over.

    run_limited(lambda begin: work(begin), seconds=20)

An exception out of a signal handler would not do: a compiler may swallow it, and compiled code does not see it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable

from runner.parents import die_with_parent

POLL_SECONDS = 0.02


def run_limited(work: Callable[[Callable[[], None]], int], seconds: float) -> int | None:
    """Return the exit status of `work(begin)`; None where it was killed, `seconds` after it had called `begin`.

    To be called before anything starts threads. Ctrl-C reaches the work; a signal that ends it ends this process, too.
    """
    begun, to_begin = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os._exit(_work(work, to_begin, parent))
    os.close(to_begin)
    before = signal.signal(signal.SIGINT, lambda *_: os.kill(pid, signal.SIGINT))
    try:
        status = _wait(pid, begun, seconds)
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(begun)
    if status is not None and status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(parent, -status)
    return status


def _work(work: Callable[[Callable[[], None]], int], to_begin: int, parent: int) -> int:
    die_with_parent(parent)
    status = 1
    try:
        status = work(lambda: os.write(to_begin, b"!"))
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def _wait(pid: int, begun: int, seconds: float) -> int | None:
    """Return how process `pid` ended: its exit status, a signal's negative number, None where it was out of time."""
    due = float("inf")
    while time.monotonic() < due:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if due == float("inf") and select.select([begun], [], [], POLL_SECONDS)[0]:
            due = time.monotonic() + seconds
        else:
            time.sleep(POLL_SECONDS)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None
