"""Real searches with NNI whose tuner, manager or driver is killed, or whose disk is full: nothing is lost."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace
from urllib.request import urlopen

import psutil
import pytest

from runner import watchdog
from runner.records import read_journal
from tests.conftest import WRONG_LINES, patient, write_space
from tests.test_search import FAULTY, processes_of, table, wait_until

pytestmark = pytest.mark.slow

SPACE = {"weight": {"_type": "uniform", "_value": [0, 1]}}


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    """A researcher's copy of the repository with an objective of their own."""
    copy = copy_of_repository()
    with (copy / "train_hpo.py").open("a") as file:
        file.write(FAULTY)
    write_space(copy, "faulty_digits", SPACE)
    return copy


class Running:
    """A search that is started and then resumed, and looked at meanwhile."""

    def __init__(self, repository, folder, *flags):
        self.repository, self.folder, self.said = repository, folder, ""
        self.start("--id", folder.name, "--tuner", "random", "--concurrency", "2", "--no-check", *flags)

    def start(self, *flags):
        words = [sys.executable, "nni_main.py", "faulty_digits", "--no-report", *flags]
        words += ["--experiments", str(self.folder.parent)]
        self.process = subprocess.Popen(
            words, cwd=self.repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def resume(self, *flags):
        self.start("--resume", self.folder.name, *flags)

    def output(self):
        output, _ = self.process.communicate(timeout=patient(200))
        self.said += output
        return " ".join(output.split())

    def ended(self):
        """The trials that have ended, by their number."""
        path = self.folder / "journal.jsonl"
        entries = read_journal(path) if path.exists() else []
        return {entry["parameter_id"]: entry for entry in entries if entry["status"] != "interrupted"}

    def wait_for_trials(self, more=1):
        wanted = len(self.ended()) + more
        wait_until(lambda: len(self.ended()) >= wanted or self.process.poll() is not None)
        assert self.process.poll() is None, self.output()

    def starts(self):
        events = self.folder / "events.jsonl"
        return events.read_text().count('"start"') if events.exists() else 0

    def wait_for_start(self):
        wanted = self.starts() + 1
        wait_until(lambda: self.starts() >= wanted)

    def kill(self, word, number=signal.SIGKILL):
        """Signal the process that has a word in its command line; a shell above it has it amid a longer one."""
        found = [
            process for process in psutil.Process(self.process.pid).children(recursive=True) if is_one(process, word)
        ]
        found[0].send_signal(number)

    def check_rows(self, number):
        rows = table(self.folder)
        assert [int(row["parameter_id"]) for row in rows] == list(range(number))
        assert {row["status"] for row in rows} == {"ok"}
        assert all(row["default"] == row["weight"] for row in rows)
        assert len({row["weight"] for row in rows}) == number  # no configuration twice
        best = json.loads((self.folder / "best.json").read_text())
        assert best["default"] == max(float(row["default"]) for row in rows)


def is_one(process, word):
    try:
        return any(part.endswith(word) for part in process.cmdline())
    except psutil.Error:
        return False


MANAGER, TUNER = "nni_node/main.js", "--exp_params"


def check_list_and_view(search):
    words = [sys.executable, "nni_main.py", "--experiments", search.folder.parent]
    listed = subprocess.run([*words, "--list"], cwd=search.repository, capture_output=True, text=True).stdout
    (row,) = [line.split() for line in listed.splitlines() if line.startswith("killed")]
    best = max(float(row["default"]) for row in table(search.folder))
    assert row[:6] == ["killed", "faulty_digits", "random", "finished", "9/9", f"{best:.4f}"]
    process = subprocess.Popen(
        [*words, "--view", "killed"], cwd=search.repository, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert "cannot be read and are skipped" in process.stdout.readline()
    said = process.stdout.readline()
    try:
        url = re.fullmatch(r"9 trials at (http://127.0.0.1:[0-9]+/[0-9a-f]{32}) until Ctrl-C\n", said)[1]
        with urlopen(f"{url}/api/v1/nni/trial-jobs") as answer:
            jobs = json.load(answer)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=patient(60))
    assert process.returncode == 0 and processes_of(search.repository) == []
    shown = {job["trialJobId"]: json.loads(json.loads(job["finalMetricData"][0]["data"]))["default"] for job in jobs}
    assert shown == {row["trial"]: float(row["default"]) for row in table(search.folder)}
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}
    assert len({job["sequenceId"] for job in jobs}) == 9


def check_no_secret_is_left(search):
    """Each manager has had its own, and no log has kept one, though managers were killed amid requests."""
    secrets = re.findall(r"^web UI: http://127\.0\.0\.1:\d+/([0-9a-f]{32})$", search.said, re.MULTILINE)
    assert len(secrets) == len(set(secrets)) >= 3
    texts = [path.read_bytes() for path in search.folder.rglob("*") if path.is_file()]
    assert not [secret for secret in secrets for text in texts if secret.encode() in text]


@contextlib.contextmanager
def impatient(repository):
    """A driver that starts inside waits seconds for a silent manager, not minutes."""
    files = {name: repository / "runner" / name for name in ("watchdog.py", "manager.py")}
    before = {name: file.read_text() for name, file in files.items()}
    shorter = before["watchdog.py"].replace("SILENT_SECONDS = 60.0", "SILENT_SECONDS = 1.0")
    files["watchdog.py"].write_text(shorter + "\n\nfrom nni.experiment import rest\n\nrest.timeout = 5\n")
    files["manager.py"].write_text(before["manager.py"].replace("STOP_SECONDS = 20.0", "STOP_SECONDS = 2.0"))
    assert all(file.read_text() != before[name] for name, file in files.items())
    try:
        yield
    finally:
        for name, file in files.items():
            file.write_text(before[name])


def test_kills_of_tuner_manager_and_driver(repository):
    with impatient(repository):
        search = Running(repository, repository / "experiments" / "killed", "--trials", "8")
        search.wait_for_trials()
    search.kill(MANAGER, signal.SIGSTOP)
    search.wait_for_trials(3)  # two may have been about to end
    before = search.ended()
    slow = repository / "slow"
    slow.touch()  # trials that start now do not end by themselves
    search.kill(MANAGER)
    search.wait_for_start()
    search.kill(TUNER)
    output = search.output()
    assert search.process.returncode == 1
    for said in (
        "manager does not answer (TimeoutError); NNI is started anew",
        "manager ended with exit status -9; NNI is",
    ):
        assert said in output
    assert "the tuner's process has died, again: the search is ended; --resume goes on with it" in output
    assert before.items() <= search.ended().items() and len(before) < 8

    search.resume()
    search.wait_for_start()
    search.process.terminate()
    assert "interrupted" in search.output() and search.process.returncode == 143
    assert {row["status"] for row in table(search.folder)} == {"ok", "interrupted"}
    assert processes_of(repository) == []

    slow.unlink()
    before = search.ended()
    search.resume("--trials", "9")
    search.wait_for_trials()
    search.process.kill()
    search.process.communicate()
    wait_until(lambda: processes_of(repository) == [], 30)  # manager, tuner and trials end with it
    journal = search.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])  # as where the machine goes down: the last trial's end is lost
    for path in (journal, search.folder / "events.jsonl"):
        path.write_bytes(path.read_bytes() + b"\n" + WRONG_LINES.encode())
    search.resume()
    output = search.output()
    assert search.process.returncode == 0, output
    assert "note: 5 lines of journal.jsonl and 4 lines of events.jsonl cannot be read and are skipped" in output
    assert before.keys() <= search.ended().keys()
    search.check_rows(9)
    assert processes_of(repository) == []
    check_list_and_view(search)
    check_no_secret_is_left(search)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_full_or_unwritable_disk_ends_the_search_with_one_line_and_costs_what_ran(repository, small_disk):
    search = Running(repository, small_disk / "full", "--trials", "6")
    search.wait_for_trials(2)
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    output = search.output()
    assert "No space left on device" in output and "Traceback" not in output, output
    assert search.process.returncode == 1
    filler.unlink()
    before = search.ended()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    search.resume()
    assert f"nni_main.py: --experiments {small_disk}: no permission to write there" in search.output()
    assert search.process.returncode == 2
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    search.resume()
    assert search.process.wait(200) == 0, search.output()
    assert before.keys() <= search.ended().keys()
    search.check_rows(6)


def stub(**others):
    """An experiment and a search as the watchdog sees them."""
    process = SimpleNamespace(poll=lambda: None, pid=psutil.Process().pid)
    profile = {"params": {"trialConcurrency": others.pop("slots", 2)}}
    experiment = SimpleNamespace(_proc=process, get_status=lambda: "RUNNING", get_experiment_profile=lambda: profile)
    search = SimpleNamespace(running={}, position=0, machines_away=lambda: False)
    for name, value in others.items():
        setattr(search, name, value)
    return experiment, search


@pytest.mark.parametrize(
    "changes, stalled",
    [
        ({}, True),
        ({"running": {"a": 1, "b": 2}}, False),
        ({"running": {"a": 1}}, True),
        ({"running": {"a": 1}, "slots": 1}, False),  # lowered in the web UI
        ({"machines_away": bool}, True),
    ],
)
def test_standstill_with_free_slots_is_found(tmp_path, monkeypatch, changes, stalled):
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    experiment, search = stub(**changes)
    dog = watchdog.Watchdog(experiment, tmp_path, 2)
    dog.look(search, "RUNNING")
    now[0] = watchdog.STALL_SECONDS - 1
    dog.look(search, "RUNNING")
    now[0] = watchdog.STALL_SECONDS + 2
    dog.look(search, "TUNER_NO_MORE_TRIAL")  # waits for nothing
    now[0] = 2 * watchdog.STALL_SECONDS
    search.position = 9  # an event
    dog.look(search, "RUNNING")
    now[0] = 3 * watchdog.STALL_SECONDS + 1
    if stalled:
        with pytest.raises(watchdog.Stalled, match="nothing has happened for 60 s though [12] more trials could run"):
            dog.look(search, "RUNNING")
    else:
        dog.look(search, "RUNNING")


def test_what_the_tuner_raised_is_told_from_what_it_caught(tmp_path):
    log = tmp_path / "log" / "dispatcher.log"
    log.parent.mkdir()
    log.write_text("[2026] ERROR (nni.runtime.msg_dispatcher_base/x) old\nTraceback\nValueError: of an earlier run\n")
    dog = watchdog.Watchdog(stub()[0], tmp_path, 2)
    with log.open("a") as file:
        file.write("[2026] ERROR (tuners.asktell/x) the engine failed\nTraceback\nValueError: caught\n")
    dog._raise_what_the_tuner_said()
    with log.open("a") as file:
        file.write(
            "[2026] ERROR (nni.runtime.msg_dispatcher_base/x) no\nTraceback\n  File\nValueError: no such space\n"
        )
        file.write("[2026] INFO (nni.runtime.msg_dispatcher_base/MainThread) Dispatcher exiting...\n")
    with pytest.raises(RuntimeError, match="^the tuner failed: ValueError: no such space; see "):
        dog._raise_what_the_tuner_said()


def test_manager_that_does_not_answer_is_found(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    experiment, search = stub(results=SimpleNamespace(folder=tmp_path))

    def silent():
        raise ConnectionError

    experiment.get_status = silent
    dog = watchdog.Watchdog(experiment, tmp_path, 2)
    assert dog.ask(search) == ""
    now[0] = watchdog.SILENT_SECONDS + 1
    with pytest.raises(watchdog.Stalled, match="does not answer"):
        dog.ask(search)
    experiment.get_status = lambda: "ERROR"
    with pytest.raises(watchdog.Stalled, match="reports an error"):
        dog.ask(search)
