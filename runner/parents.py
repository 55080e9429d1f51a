"""Processes that must not outlive what has started them.

python -m runner.parents NAME VALUE     # waits for the end of its input, then kills what has NAME=VALUE about it
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def guard(variable: str, value: str) -> subprocess.Popen:
    """Start a process that kills what carries a mark (see runner/processes.py) when this one is gone, however it ends.

    It does so as well, and ends, when its stdin is closed.
    """
    words = [sys.executable, "-m", "runner.parents", variable, value]
    plain = {name: text for name, text in os.environ.items() if name != variable}
    root = Path(__file__).resolve().parent.parent
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, stdin=subprocess.PIPE, cwd=root, env=plain, start_new_session=True, **quiet)


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent is gone, however that ends. Linux only.

    `parent` is the parent's pid, where it is known: it may be gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # what ends the parent is not meant for its guard
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    from runner.processes import kill_carrying

    kill_carrying(*sys.argv[1:])
