"""Real searches with NNI: what trials do wrong is told truly, Ctrl-C and SIGTERM lose nothing, the web UI works."""

import contextlib
import csv
import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import patient, write_space

pytestmark = pytest.mark.slow

# An objective whose trials misbehave by number: 0 is well-behaved.
FAULTY = r"""

from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class FaultyParams:
    fault: int = 0
    weight: float = 0.5
    kind: str = "plain"


def train_faulty(params, splits, report, device, seed):
    import os, signal, time
    report({"default": 0.1})
    if params.fault == 1:
        raise RuntimeError("the third layer exploded")
    if params.fault == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if params.fault == 3:
        os._exit(0)
    if params.fault == 4:
        return Result({"default": float("nan")}, "ok", None)
    if params.fault == 5:
        return Result({"default": 0.1}, "silent", None)
    if params.fault in (7, 8):
        import nni
        nni.report_final_result({"default": 0.3} if params.fault == 7 else "text")
        os._exit(0)
    if params.fault in (9, 10, 11):
        return Result([{"default": float("inf")}, {"default": "text"}, {"accuracy": 0.1}][params.fault - 9], "ok", None)
    if params.fault == 12:
        raise RuntimeError("\ud800\x1b]0;owned\x07 " + "x" * 10**7)  # one word, which no terminal should see
    if params.fault == 13:
        return Result({"default": True}, "ok", None)
    if params.fault == 14:
        return Result({"default": 0.2, "\ud800": 3, "=cmd": "-cmd", "\x1b": 4}, "ok", None)
    if params.fault == 15:
        os.kill(os.getpid(), signal.SIGINT)
    try:
        time.sleep(3600 if params.fault == 6 else 90 if os.path.exists("slow") else 0.2)
    except KeyboardInterrupt:
        return Result({"default": 0.15}, "interrupted", None)
    return Result({"default": params.weight, "test_accuracy": 0.9, "note": "text"}, "ok", {"state_dict": {}})


OBJECTIVES["faulty"] = Objective("train_hpo:FaultyParams", train_faulty, ("images",))
"""


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    """A researcher's copy of the repository with an objective of their own."""
    copy = copy_of_repository()
    with (copy / "train_hpo.py").open("a") as file:
        file.write(FAULTY)
    return copy


def search_faults(repository, *faults):
    write_space(repository, "faulty_digits", {"fault": {"_type": "choice", "_value": faults}})


def start(repository, identifier, *flags):
    words = [sys.executable, "nni_main.py", "faulty_digits", "--id", identifier, "--no-report", *flags]
    return subprocess.Popen(words, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(condition, seconds=120):
    deadline = time.time() + patient(seconds)
    while not condition():
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.2)


def table(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def processes_of(repository):
    """Processes that work in the copy: by their folder (trials) or their command line (manager, tuner)."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            places = [process.cwd(), *process.cmdline()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(repository) in place for place in places):
                found.append(process)
    return found


def test_every_fault_of_a_trial_is_told_truly(repository):
    search_faults(repository, *range(16))
    flags = ["--tuner", "grid", "--trials", "16", "--concurrency", "4", "--trial-duration", f"{patient(25):.0f}"]
    output, _ = start(repository, "faults", *flags).communicate(timeout=patient(240))
    folder = repository / "experiments" / "faults"
    rows = {int(row["fault"]): row for row in table(folder)}
    assert [rows[fault]["status"] for fault in range(16)] == [
        "ok",
        "failed",
        "killed",
        "failed",
        "failed",
        "silent",
        "timed_out",
        "lost",
        *["failed"] * 6,
        "ok",
        "killed",
    ]
    assert rows[1]["cause"] == "RuntimeError: the third layer exploded"
    assert "SIGKILL" in rows[2]["cause"]
    assert rows[3]["cause"] == "ended without a result (exit status 0)"
    assert "finite number as 'default', not nan" in rows[4]["cause"]
    assert rows[8]["cause"] == "ended without a result (exit status 0)"
    assert [rows[fault]["cause"].rpartition(", ")[2] for fault in (9, 10, 11)] == ["not inf", "not 'text'", "not None"]
    assert rows[12]["cause"].startswith(r"RuntimeError: \ud800\x1b]0;owned\x07 xxx") and len(rows[12]["cause"]) == 1000
    assert rows[13]["cause"].endswith("not True") and rows[15]["cause"] == "ended by SIGINT"
    assert [rows[14][name] for name in (r"\ud800", "'=cmd", r"\x1b")] == ["3.0", "'-cmd", "4.0"]
    assert [fault for fault in range(16) if rows[fault]["default"]] == [0, 5, 14]
    assert "the third layer exploded" in output and "16/16 done" in output
    assert output.replace("\n", "").isprintable() and max(map(len, output.splitlines())) < 1200
    best = json.loads((folder / "best.json").read_text())
    assert best["parameters"] == {"fault": 0} and best["default"] == 0.5
    assert best["result"]["test_accuracy"] == 0.9
    assert processes_of(repository) == []


def test_this_projects_tuners_end_an_exhausted_space_and_go_on_from_a_journal(repository):
    kinds = [{"_name": "plain"}, {"_name": "weighted", "weight": {"_type": "choice", "_value": [0.2, 0.4, 0.6]}}]
    space = {"kind": {"_type": "choice", "_value": kinds}, "fault": {"_type": "choice", "_value": [0, 1, 5]}}
    write_space(repository, "faulty_digits", space)  # (1 + 3) x 3 = 12 configurations, of which 4 fail
    half = ["--tuner", "gp", "--trials", "6", "--concurrency", "4", "--no-check"]
    output, _ = start(repository, "half", *half).communicate(timeout=patient(240))
    assert "6/6 done" in output
    rest = ["--tuner", "forest", "--trials", "20", "--concurrency", "4", "--no-check", "--warm-start", "half"]
    output, _ = start(repository, "rest", *rest).communicate(timeout=patient(240))
    assert "the search space is exhausted" in output
    tried = [table(repository / "experiments" / identifier) for identifier in ("half", "rest")]
    assert [len(rows) for rows in tried] == [6, 6]
    rows = sum(tried, [])
    assert len({(row["kind"], row.get("weight"), row["fault"]) for row in rows}) == 12
    assert [row["status"] for row in rows].count("failed") == 4
    assert all(row["status"] == {"0": "ok", "1": "failed", "5": "silent"}[row["fault"]] for row in rows)
    assert processes_of(repository) == []


def test_ctrl_c_ends_everything_and_writes_the_results(repository):
    search_faults(repository, 0, 6, 5)
    search = start(repository, "interrupted", "--tuner", "grid", "--concurrency", "2", "--no-check")
    journal = repository / "experiments" / "interrupted" / "journal.jsonl"
    wait_until(lambda: journal.exists() and len(journal.read_text().splitlines()) == 2)
    search.send_signal(signal.SIGINT)
    output, _ = search.communicate(timeout=patient(60))
    assert search.returncode == 130, output
    rows = table(journal.parent)
    assert sorted(row["status"] for row in rows) == ["interrupted", "ok", "silent"]
    assert [row["default"] for row in rows if row["status"] == "interrupted"] == [""]
    assert json.loads((journal.parent / "best.json").read_text())["default"] == 0.5
    assert processes_of(repository) == []


def test_tuner_that_raises_ends_the_search(repository):
    search_faults(repository, 0)
    tuner = repository / "tuners" / "evolution.py"
    working = tuner.read_text()
    tuner.write_text(working.replace("super().update_search_space(search_space)", "raise ValueError('no such space')"))
    try:
        search = start(repository, "broken_tuner", "--tuner", "nni-evolution", "--no-check")
        output, _ = search.communicate(timeout=patient(120))
    finally:
        tuner.write_text(working)
    assert search.returncode == 1
    assert "the tuner failed: ValueError: no such space" in output.replace("\n", " ")
