"""One configuration on several splits: what is there is kept, and the statistics are those worked by hand."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runner.retrain import retrain, spread
from tests.conftest import patient

ROOT = Path(__file__).parent.parent
SMALL = {"epochs": 1, "neurons": 20, "steps_per_row": 2}


@pytest.mark.slow
def test_splits_and_seeds_are_trained_once(tmp_path):
    done = []
    records = retrain("eprop_digits", SMALL, tmp_path, (0, 3), 2, advance=lambda: done.append(1))
    seeds = [(record["seeds"]["split_seed"], record["seeds"]["seed"]) for record in records]
    assert seeds == [(0, 0), (0, 1000), (3, 3), (3, 1003)] and len(done) == 4, "no seed twice"
    assert (tmp_path / "split-3-seed-1003" / "model.pt").exists()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/record.json")}
    assert retrain("eprop_digits", SMALL, tmp_path, (0, 3), 2) == records
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/record.json")} == written
    other = retrain("eprop_digits", SMALL | {"neurons": 21}, tmp_path, (0,))  # another configuration is not that one
    assert other[0]["params"]["neurons"] == 21


def test_a_failing_training_says_which_and_why(tmp_path):
    with pytest.raises(RuntimeError, match="split-(0-seed-0|1-seed-1) ended with status 2: .*neurons.*0"):
        retrain("eprop_digits", {"neurons": 0}, tmp_path, (0, 1))


@pytest.mark.slow
def test_an_interrupt_ends_the_trainings_and_is_no_result(tmp_path):
    parameters = json.dumps(SMALL | {"epochs": 100_000})
    call = f"retrain('eprop_digits', {parameters}, pathlib.Path({str(tmp_path)!r}), [0])"
    heeded = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # which is ignored below `nohup pytest &`
    code = f"import pathlib, signal; {heeded}; from runner.retrain import retrain; {call}"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + patient(60)
    while not (children := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    while children[0].cpu_times().user < 8:  # past the imports, however slow
        assert time.monotonic() < deadline + patient(120)
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(100) != 0 and not any(child.is_running() for child in children)
    record = tmp_path / "split-0-seed-0" / "record.json"
    assert not record.exists() or json.loads(record.read_text())["status"] == "interrupted"


def test_spread_by_hand():
    assert spread([0.9, 0.8, 0.7, 1.0]) == pytest.approx(
        {"median": 0.85, "mean": 0.85, "sd": (0.05 / 3) ** 0.5, "min": 0.7, "max": 1.0}
    )
    assert spread([0.9])["sd"] == 0
