"""A few of the bad inputs of benchmarks.fuzz, always the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz import judge
from tests.conftest import patient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "status, said, right, fault",
    [
        (2, "\0nni_main.py: no such task\n", {2}, ""),
        (0, "all is well\0", {0, 2}, ""),
        (None, "\0", {2}, "hang"),
        (2, "\0Traceback (most recent call last):\n  File\nValueError\n", {2}, "traceback"),
        (1, "\0nni_main.py: a mistake\n", {0, 2}, "wrong exit status"),
        (-11, "\0", {0, 1, 2}, "wrong exit status"),
        (2, "nni_main.py: told on stdout\0", {2}, "unclear words"),
        (2, "\0one\ntwo\nthree\nfour\n", {2}, "unclear words"),
        (2, "\0nni_main.py: \x1b[31mred\n", {2}, "unclear words"),
    ],
)
def test_what_counts_as_a_failure(status, said, right, fault):
    assert judge(status, said, frozenset(right)) == fault


@pytest.mark.timeout(600)
def test_sixty_bad_inputs_end_in_one_clear_line():
    words = [sys.executable, "-m", "benchmarks.fuzz", "--seed", "20260731", "--inputs", "60"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=patient(580))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if ": inputs" in line]
    assert len(rows) == 5 and sum(int(row[-1]) for row in rows) == 60
