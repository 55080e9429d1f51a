"""The commands that a search runs: its trials, here and elsewhere, the check before it and the report after it."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from runner import gpus
from runner.flags import UserMistake, trial_flags
from runner.texts import printable

ROOT = Path(__file__).resolve().parent.parent
REPORT_SECONDS = 600  # the report after a search is given up after so long


def trial_command(args: argparse.Namespace) -> list[str]:
    """Return the command of one trial: simple, with no shell syntax, so that NNI's signals reach Python itself."""
    return [sys.executable, "main_hpo.py", "--task", args.task, *trial_flags(args)]


def remote_command(args: argparse.Namespace, machine) -> list[str]:
    """Return the command of one trial on another machine."""
    device = "cuda" if machine.gpus else args.device
    flags = trial_flags(argparse.Namespace(**vars(args) | {"data_dir": None, "device": device}))
    data = ["--data-dir", machine.data] if machine.data else []
    return [f"{machine.python}/python", "main_hpo.py", "--task", args.task, *flags, *data]


def repeat_command(args: argparse.Namespace, parameters: dict) -> str:
    """Return the command that, in the repository's folder, trains a configuration alone as the search did."""
    return shlex.join([*trial_command(args), "--params", json.dumps(parameters), "--out", "repeated"])


def check_trial(args: argparse.Namespace) -> str | None:
    """Compare the search space with Params and train one epoch, in a process of its own. Raises UserMistake.

    Returns the fingerprint of the data, of which that process tells first.
    """
    command = [*trial_command(args), "--check", "--metrics", ",".join(args.aim.metrics)]
    environ = os.environ | (gpus.gpu_environment(args.gpu_names[0]) if args.gpu_names else {})
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, errors="replace")
    lines = [printable(line) for line in done.stderr.strip().splitlines()] or ["the check ended without a word"]
    if done.returncode == 2:
        raise UserMistake(lines[-1].removeprefix("main_hpo.py: "))
    if done.returncode:
        print("\n".join(lines), file=sys.stderr)
        raise UserMistake(f"one epoch of {args.task} with the defaults failed (above): {lines[-1]}")
    fingerprint, said = _take_fingerprint(done.stdout)
    print("\n".join(map(printable, (done.stderr + said).splitlines())))  # the first: what the loaders say
    return fingerprint


def _take_fingerprint(stdout: str) -> tuple[str | None, str]:
    """Part what main_hpo.py printed into the fingerprint and the rest."""
    found, rest = None, []
    for line in stdout.strip().splitlines():
        if match := re.fullmatch(r'\{"data": "([0-9a-f]+)"\}', line):
            found = match[1]
        else:
            rest.append(line)
    return found, "\n".join(rest)


def data_fingerprint(args: argparse.Namespace) -> str | None:
    """Return the fingerprint of the data as it is now, loaded in a process of its own. Raises UserMistake."""
    command = [*trial_command(args), "--device", "cpu", "--fingerprint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    fingerprint, _ = _take_fingerprint(done.stdout)
    if fingerprint is None:
        lines = done.stderr.strip().splitlines() or ["main_hpo.py ended without a word"]
        raise UserMistake(f"the data cannot be loaded: {lines[-1].removeprefix('main_hpo.py: ')}")
    return fingerprint


def make_report(folder: Path, console: Console) -> None:
    """Let report_hpo.py make the report, in a process of its own: whatever becomes of it, the results are there."""
    handle_signals()
    words = [sys.executable, "report_hpo.py", str(folder)]
    console.print("making the report; Ctrl-C leaves it out")
    try:  # in a session of its own, so that Ctrl-C comes here alone; what ends this call kills it
        status = subprocess.run(words, cwd=ROOT, timeout=REPORT_SECONDS, start_new_session=True).returncode
    except (KeyboardInterrupt, SystemExit, OSError, subprocess.TimeoutExpired) as error:
        status = type(error).__name__
    if status != 0:
        console.print(f"no report ({status}); it can be made later: python report_hpo.py {folder}", soft_wrap=True)


def handle_signals() -> None:
    """Let SIGTERM and a closed terminal end the search like Ctrl-C: everything is stopped, the results are written."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores for what it runs in the background
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup wants it
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(128 + signal.SIGHUP))
