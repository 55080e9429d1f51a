"""Searches without NNI's manager: the same truth about every trial, nothing lost or doubled after kill -9, resume."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import nni_main
from runner import commands, request
from runner.asking import Asker, build_tuner
from runner.dask_slots import is_open
from runner.flags import UserMistake
from runner.headless import Stop
from runner.records import read_journal
from runner.resume import check_space_unchanged, hold, save_request
from tests.conftest import WRONG_LINES, patient, write_space
from tests.test_search import processes_of, table, wait_until
from tuners import TUNERS

SPACE = {"a": {"_type": "uniform", "_value": [0, 1]}, "b": {"_type": "choice", "_value": [1, 2, 3]}}

# An objective whose trials misbehave by number: 0 is well-behaved, and fast.
MOODY = r"""

from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class MoodyParams:
    mood: int = 0
    weight: float = 0.5


def train_moody(params, splits, report, device, seed):
    import os, signal, subprocess, sys, time
    report({"default": 0.1})
    if params.mood == 1:
        raise RuntimeError("the third layer exploded")
    if params.mood == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if params.mood == 3:
        sys.exit(3)
    if params.mood == 4:
        return Result({"default": float("nan")}, "ok", None)
    if params.mood == 5:
        os._exit(0)
    if params.mood in (6, 13):  # neither the child nor, in a session of its own, its child may outlive the trial
        inner = "import time; time.sleep(300)"
        code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True)"
        child = subprocess.Popen([sys.executable, "-c", f"{code}; {inner}"])
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child.wait()
    if params.mood == 7:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            return Result({"default": 0.15}, "interrupted", None)
    if params.mood == 8:
        splits.train.x[:] = 0
    if params.mood == 9:
        time.sleep(0.05)
    if params.mood == 10:
        raise RuntimeError("\ud800\x1b]0;owned\x07 " + "x" * 10**7)  # one word, which no terminal should see
    if params.mood == 11:
        return Result({"default": True}, "ok", None)
    if params.mood == 12:
        return Result({"default": 0.2, "\ud800": 3, "=cmd": "-cmd", "\x1b": 4}, "ok", None)
    if params.mood == 14:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
    if params.mood in (15, 16, 17):
        import brittle
    return Result({"default": params.weight, "test_accuracy": 0.9, "pid": os.getpid()}, "ok", None)


OBJECTIVES["moody"] = Objective("train_hpo:MoodyParams", train_moody, ("images",))
"""

# A module that a process can import once only, as some of compiled code; the first import of all takes for ever.
BRITTLE = """import os, sys, time

if hasattr(sys, "brittle"):
    raise ImportError("cannot load module more than once per process")
sys.brittle, first = True, not os.path.exists("imported")
open("imported", "w").close()
time.sleep(600 if first else 0)
"""


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    """A researcher's copy of the repository with an objective of their own."""
    copy = copy_of_repository()
    with (copy / "train_hpo.py").open("a") as file:
        file.write(MOODY)
    (copy / "brittle.py").write_text(BRITTLE)
    return copy


def moods(repository, *numbers, **others):
    write_space(repository, "moody_digits", {"mood": {"_type": "choice", "_value": numbers}} | others)


def start(repository, identifier, *flags, task="moody_digits", environment=None):
    how = ["--id", identifier] if "--resume" not in flags else []
    words = [sys.executable, "nni_main.py", task, "--headless", "--no-check", "--no-report", *how, *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=repository, env=environment, **pipes)


def journal(repository, identifier):
    path = repository / "experiments" / identifier / "journal.jsonl"
    return read_journal(path) if path.exists() else []


def test_every_fault_of_a_trial_is_told_truly_and_costs_that_trial_only(repository):
    seen = [*range(9), 10, 11, 12, 14]
    moods(repository, *seen)
    flags = ["--tuner", "grid", "--trials", "13", "--concurrency", "2", "--trial-duration", f"{patient(12):.0f}"]
    output, _ = start(repository, "faults", *flags).communicate(timeout=patient(250))
    folder = repository / "experiments" / "faults"
    rows = {int(row["mood"]): row for row in table(folder)}
    assert [(rows[mood]["status"], rows[mood]["cause"][:99]) for mood in seen] == [
        ("ok", ""),
        ("failed", "RuntimeError: the third layer exploded"),
        ("killed", "ended by SIGKILL"),
        ("failed", "ended with exit status 3"),
        ("failed", "ValueError: the objective must return a finite number as 'default', not nan"),
        ("failed", "ended without a result (exit status 0)"),
        ("timed_out", "ran longer than --trial-duration"),
        ("timed_out", "ran longer than --trial-duration"),
        ("failed", "ValueError: assignment destination is read-only"),
        ("failed", r"RuntimeError: \ud800\x1b]0;owned\x07 ".ljust(99, "x")),
        ("failed", "ValueError: the objective must return a finite number as 'default', not True"),
        ("ok", ""),
        ("killed", "ended by SIGINT"),
    ]
    assert [mood for mood in seen if rows[mood]["default"]] == [0, 12]
    assert [rows[12][name] for name in (r"\ud800", "'=cmd", r"\x1b")] == ["3.0", "'-cmd", "4.0"]
    assert len(rows[10]["cause"]) == 1000
    assert sorted(int(row["parameter_id"]) for row in rows.values()) == list(range(13))
    assert "train_moody" in output and "13/13 done · 11 failed" in output  # the end of the traceback is shown
    assert output.replace("\n", "").isprintable() and max(map(len, output.splitlines())) < 1200
    best = json.loads((folder / "best.json").read_text())
    assert best["parameters"] == {"mood": 0} and best["default"] == 0.5
    assert json.loads((folder / "environments/headless/trials/t00000/record.json").read_text())["status"] == "ok"
    assert not (folder / "db").exists()
    assert processes_of(repository) == []


def test_slot_that_was_interrupted_in_an_import_gets_a_new_process(repository):
    moods(repository, 15, 16, 17)
    (repository / "imported").unlink(missing_ok=True)
    flags = ["--tuner", "grid", "--trials", "3", "--concurrency", "1", "--trial-duration", f"{patient(5):.0f}"]
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    output, _ = start(repository, "imports", *flags, environment=os.environ | ascii_only).communicate(
        timeout=patient(250)
    )
    assert "3/3 done | 1 failed | 0 running | best 0.5000" in output and output.isascii()  # on any terminal
    rows = {int(row["mood"]): row for row in table(repository / "experiments" / "imports")}
    assert rows[15]["status"] == "timed_out", output
    assert [rows[mood]["status"] for mood in (16, 17)] == ["ok", "ok"], output
    assert rows[16]["pid"] == rows[17]["pid"]  # which is kept, where nothing went wrong


def test_children_of_a_trial_end_with_a_driver_that_is_killed(repository):
    moods(repository, 13)
    search = start(repository, "orphans", "--concurrency", "1")
    sleepers = lambda: [p for p in processes_of(repository) if "time.sleep(300)" in " ".join(p.cmdline())]  # noqa: E731
    wait_until(lambda: len(sleepers()) == 2, 240)
    search.kill()
    search.communicate()
    wait_until(lambda: processes_of(repository) == [], 20)


@pytest.mark.parametrize("number, exit_status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_everything_and_write_the_results(repository, number, exit_status):
    moods(repository, 0, 7)
    search = start(repository, number.name, "--tuner", "grid", "--concurrency", "2")
    wait_until(lambda: len(journal(repository, number.name)) == 1, 240)
    search.send_signal(number)
    output, _ = search.communicate(timeout=patient(60))
    assert search.returncode == exit_status, output
    rows = table(repository / "experiments" / number.name)
    assert sorted((row["status"], row["default"]) for row in rows) == [("interrupted", ""), ("ok", "0.5")]
    assert processes_of(repository) == []


def test_the_second_signal_stops_at_once_and_a_third_changes_nothing():
    stop = Stop()
    stop.take(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop.take(signal.SIGINT, None)
    stop.take(signal.SIGINT, None)
    assert stop.exit_status == 130


def test_nothing_is_lost_or_doubled_after_kill_9(repository):
    moods(repository, 9, weight={"_type": "uniform", "_value": [0, 1]})
    budget, before, generator = 60, {}, random.Random(0)
    search = start(repository, "killed", "--tuner", "random", "--trials", str(budget), "--concurrency", "2")
    for number in range(2):
        wait_until(lambda: len(journal(repository, "killed")) > len(before) + 2, 240)  # noqa: B023
        time.sleep(generator.random() / 3)
        search.kill()
        search.communicate()
        wait_until(lambda: processes_of(repository) == [], 10)
        entries = {entry["parameter_id"]: entry for entry in journal(repository, "killed")}
        assert before.items() <= entries.items() and len(entries) < budget
        before = entries
        if number == 0:
            with (repository / "experiments/killed/journal.jsonl").open("a") as file:
                file.write(WRONG_LINES + '{"parameter_id": 3, "tor')
            with (repository / "experiments/killed/events.jsonl").open("a") as file:
                file.write(WRONG_LINES)
            (repository / "experiments/killed/.best.json.abcdefgh").touch()  # as where it was killed amid that write
        search = start(repository, "killed", "--resume", "killed")
    output, _ = search.communicate(timeout=patient(250))
    assert search.returncode == 0, output
    said = "lines of journal.jsonl and 4 lines of events.jsonl cannot be read and are skipped"
    assert re.search(rf"^note: [56] {said}$", output, re.M), output  # 6: killed amid a line of its own
    assert not list(repository.glob("experiments/killed/.*"))
    after = {entry["parameter_id"]: entry for entry in journal(repository, "killed")}
    assert before.items() <= after.items() and sorted(after) == list(range(budget))
    rows = table(repository / "experiments" / "killed")
    assert [int(row["parameter_id"]) for row in rows] == list(range(budget))
    assert {row["status"] for row in rows} == {"ok"}
    assert len({row["weight"] for row in rows}) == budget  # Random begins anew, but no configuration runs twice
    assert processes_of(repository) == []
    (repository / "experiments/killed/best.json").unlink()  # as where it was killed just before
    more, _ = start(repository, "killed", "--resume", "killed", "--trials", "63").communicate(timeout=patient(250))
    assert len(table(repository / "experiments" / "killed")) == 63, more
    best = json.loads((repository / "experiments/killed/best.json").read_text())
    assert best["default"] == max(entry["result"]["default"] for entry in journal(repository, "killed"))


def test_resume_says_what_cannot_be(tmp_path):
    args = request.parse_arguments(["--headless", "--id", "done"])
    (tmp_path / "done").mkdir()
    save_request(tmp_path / "done", args, SPACE)
    folder = ["--experiments", str(tmp_path)]
    for flags, message in (
        (["--resume", "done", "--seed", "3"], "--resume done: its --seed is 0, not 3"),
        (["streamnet_digits", "--resume", "done"], "--resume done: its task is eprop_digits, not streamnet_digits"),
        (["--resume", "nobody"], "no search.json that can be read"),
        (["--resume", "done", "--id", "other"], "--id other: done keeps its id"),
        (["--view", "done", "--seed", "3"], "--view done: its --seed is 0, not 3"),
    ):
        with pytest.raises(UserMistake, match=message):
            request.parse_arguments([*flags, *folder])
    args = request.parse_arguments(["--headless", "--id", "limited", "--limit", "default<1"])
    (tmp_path / "limited").mkdir()
    save_request(tmp_path / "limited", args, SPACE)
    for flags in ([], ["--limit", "default<1"]):  # as it was, and said once more
        again = request.parse_arguments(["--resume", "limited", *flags, *folder])
        assert again.aim.excess({"default": 3.0}) == (2.0,) and again.asked_concurrency is None
    resumed = request.parse_arguments(["--resume", "done", "--trials", "99", *folder])
    assert resumed.headless and resumed.trials == 99 and resumed.id == "done"
    check_space_unchanged(tmp_path / "done", SPACE)
    with pytest.raises(UserMistake, match="its search space has changed since"):
        check_space_unchanged(tmp_path / "done", {})
    with hold(tmp_path / "done"), pytest.raises(UserMistake, match="still running"), hold(tmp_path / "done"):
        pass


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--headless", "--assessor", "medianstop"], "--assessor needs NNI's manager"),
        (["--headless", "--keep"], "--keep needs NNI's manager"),
        (["--dask", "tcp://127.0.0.1:1"], "--dask needs --headless"),
        (["--headless", "--dask", "tcp://127.0.0.1:1", "--tensorboard"], "--tensorboard with --dask"),
        (["--headless", "--dask", "tcp://127.0.0.1:1"], "--dask"),  # no scheduler, or no distributed
    ],
)
def test_mistakes_get_one_line(flags, message, monkeypatch, capsys, tmp_path):
    if "--dask" in flags and "--headless" in flags:
        monkeypatch.setattr("runner.dask_slots.CONNECT_SECONDS", 1)
    monkeypatch.setattr(sys, "argv", ["nni_main.py", "--experiments", str(tmp_path), *flags])
    monkeypatch.setattr(commands, "handle_signals", lambda: None)
    assert nni_main.main() == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_trials_are_those_of_nni(repository):
    """The same seed gives the same proposals one after the other, and trials that share a process the same metrics."""
    write_space(
        repository,
        "eprop_digits_tiny",
        {
            "epochs": {"_type": "choice", "_value": [1]},
            "neurons": {"_type": "choice", "_value": [10, 20]},
            "lr": {"_type": "loguniform", "_value": [0.001, 0.1]},
        },
    )
    flags = ["--trials", "2", "--concurrency", "1"]
    without = start(repository, "without", *flags, "--tensorboard", task="eprop_digits_tiny")
    assert without.wait(timeout=patient(250)) == 0
    trials = repository / "experiments" / "without" / "environments" / "headless" / "trials"
    assert sorted(log.parent.parent.name for log in trials.glob("*/tensorboard/events*")) == ["t00000", "t00001"]
    words = [sys.executable, "nni_main.py", "eprop_digits_tiny", "--no-check", "--no-report", "--id", "with", *flags]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=patient(250))
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = (
        sorted(journal(repository, name), key=lambda entry: entry["sequence"]) for name in ("without", "with")
    )
    assert len(ours) == 2
    for own, other in zip(ours, theirs, strict=True):
        assert own["parameters"] == other["parameters"] and own["seeds"] == other["seeds"]
        own["result"].pop("seconds"), other["result"].pop("seconds")
        assert own["result"] == other["result"]


def answers(asker, number):
    """Let a tuner search for the largest a; return what it proposed."""
    seen = []
    for _ in range(number):
        identifier, parameters = asker.ask()
        asker.tell(identifier, parameters, {"default": parameters["a"]})
        seen.append(parameters)
    return seen


@pytest.mark.parametrize("name", ["random", "nni-evolution"])
def test_tuners_that_cannot_import_are_brought_back_to_where_they_were(name):
    uninterrupted = answers(Asker(build_tuner(TUNERS[name](0), SPACE)), 50)
    seen = answers(Asker(build_tuner(TUNERS[name](0), SPACE)), 40)
    asker = Asker(build_tuner(TUNERS[name](0), SPACE), next_id=40)
    asker.resume([(parameters, {"default": parameters["a"]}) for parameters in seen], [])
    assert answers(asker, 10) == uninterrupted[40:]


def test_trial_that_runs_again_is_not_proposed_again():
    first = answers(Asker(build_tuner(TUNERS["random"](0), SPACE)), 6)
    asker = Asker(build_tuner(TUNERS["random"](0), SPACE), next_id=5)
    asker.resume([(parameters, {"default": 0.1}) for parameters in first[:4]], [(4, first[4])])
    assert asker.ask()[1] == first[5]
    asker.tell(4, first[4], {"default": 0.2})
    assert asker.ask()[1] not in first


class LateTuner:
    """Proposes two at once and, by NNI's callback, one more for each trial that it is told of."""

    def generate_multiple_parameters(self, identifiers, st_callback):
        self.callback = st_callback
        return [{"a": identifiers[0]}] if identifiers[0] < 2 else []

    def receive_trial_result(self, identifier, parameters, value, **kwargs):
        self.callback(10 + identifier, {"a": 10 + identifier})

    def trial_end(self, identifier, success):
        pass

    def import_data(self, data):
        pass


def test_proposals_that_come_late_are_taken():
    asker = Asker(LateTuner())
    assert [asker.ask() for _ in range(3)] == [(0, {"a": 0}), (1, {"a": 1}), None]
    asker.tell(1, {"a": 1}, {"default": 0.5})
    assert asker.ask() == (2, {"a": 11}) and asker.ask() is None
    asker.tell(2, {"a": 11}, {"default": 0.5})  # by the id that the tuner knows
    assert asker.ask() == (3, {"a": 21})


def test_grid_ends_when_all_is_tried_also_after_a_resume():
    space = {"b": SPACE["b"]}
    asker = Asker(build_tuner(TUNERS["grid"](0), space))
    assert [asker.ask()[1]["b"] for _ in range(3)] == [1, 2, 3] and asker.ask() is None
    asker = Asker(build_tuner(TUNERS["grid"](0), space), 2)
    asker.resume([({"b": 1}, {"default": 0.1}), ({"b": 2}, None)], [])
    assert asker.ask() == (2, {"b": 3}) and asker.ask() is None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tls_settings(folder):
    """Dask's configuration by environment variables: one certificate, made here, for scheduler, workers and client."""
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    names = {"CA_FILE": cert} | {f"{who}__CERT": cert for who in ("SCHEDULER", "WORKER", "CLIENT")}
    names |= {f"{who}__KEY": key for who in ("SCHEDULER", "WORKER", "CLIENT")}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": value for name, value in names.items()}


@pytest.mark.parametrize(
    "address, expected",
    [
        ("tcp://10.0.0.5:8786", True),
        ("10.0.0.5:8786", True),
        ("tcp://scheduler.cluster:8786", True),
        ("ws://scheduler:8786", True),
        ("tcp://[2001:db8::1]:8786", True),
        ("tcp://localhost.evil.org:8786", True),
        ("tcp://127.0.0.1.evil.org:8786", True),
        ("tcp://127.0.0.1:8786", False),
        ("localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("127.1.2.3", False),
        ("tls://10.0.0.5:8786", False),
    ],
)
def test_dask_without_certificates_beyond_this_machine_is_open(address, expected):
    assert is_open(address) == expected


def test_two_dask_workers_one_of_which_is_killed(repository, tmp_path):
    pytest.importorskip("distributed", reason="pip install distributed")
    moods(repository, 9, weight={"_type": "uniform", "_value": [0, 1]})
    address = f"tls://127.0.0.1:{free_port()}"
    environment = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s"} | tls_settings(tmp_path)

    def run(module, *words):
        where = ["--no-dashboard", "--protocol", "tls", "--host", "127.0.0.1"]
        command = [sys.executable, "-m", f"distributed.cli.{module}", *words, *where]
        log = (tmp_path / "dask.log").open("a")
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)

    flags = ("--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path))
    started = [run("dask_scheduler", "--port", address.split(":")[-1])]
    started += [run("dask_worker", address, *flags) for _ in range(2)]
    try:
        flags = ["--dask", address, "--tuner", "random", "--trials", "60"]
        refused = start(repository, "outsider", *flags)  # has no certificate
        search = start(repository, "dask", *flags, environment=environment)
        wait_until(lambda: len({entry["result"].get("pid") for entry in journal(repository, "dask")}) == 2, 240)
        started[1].kill()
        output, _ = search.communicate(timeout=patient(250))
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert search.returncode == 0, output + (tmp_path / "dask.log").read_text()
    assert (
        "Dask's configuration (distributed.comm.tls) names no certificate"
        in refused.communicate(timeout=patient(60))[0]
        and refused.returncode == 2
    )
    assert "not encrypted" not in output
    rows = table(repository / "experiments" / "dask")
    assert [int(row["parameter_id"]) for row in rows] == list(range(60))
    costs = [row["cause"] for row in rows if row["status"] != "ok"]
    assert costs in ([], ["its worker died or left the cluster"])
    asked = json.loads((repository / "experiments" / "dask" / "search.json").read_text())
    assert {row["code"] for row in rows if row["status"] == "ok"} == {asked["code"]}
    assert not any(psutil.pid_exists(process.pid) for process in started)
    assert Path(repository, "experiments", "dask", "best.json").exists()
