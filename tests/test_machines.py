"""Searches on two machines by SSH, against real OpenSSH servers; what is checked before; mistakes in machines.json."""

import contextlib
import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy
import psutil
import pytest

from benchmarks.intruder import intruder
from benchmarks.two_machines import make_key, two_machines, why_not
from runner.flags import UserMistake
from runner.machine_checks import check_code_folder, check_machines, packages_for
from runner.machines import host_keys, read_machines
from runner.manager import read_events
from runner.records import read_journal
from tests.conftest import patient, write_space

pytestmark = pytest.mark.slow

needs_sshd = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# An objective whose trials take as long as they are told, without torch.
SLEEPY = """

from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class SleepyParams:
    weight: float = 0.5
    seconds: float = 0.1
    fault: int = 0


def train_sleepy(params, splits, report, device, seed):
    import os, signal, time
    import numpy
    report({"default": 0.1})
    if params.fault:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(params.seconds)
    return Result({"default": params.weight}, "ok", {"weight": numpy.array([params.weight])})


OBJECTIVES["sleepy"] = Objective("train_hpo:SleepyParams", train_sleepy, ("images",))
"""


SPACE = {
    "weight": {"_type": "uniform", "_value": [0, 1]},
    "seconds": {"_type": "uniform", "_value": [0.1, 1.5]},
    "fault": {"_type": "choice", "_value": [0, 0, 0, 0, 1]},
}


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    with two_machines(tmp_path_factory.mktemp("machines")) as both:
        yield both


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    copy = copy_of_repository()
    with (copy / "train_hpo.py").open("a") as file:
        file.write(SLEEPY)
    write_space(copy, "sleepy_digits", SPACE)
    return copy


def start(repository, machines, identifier, *flags):
    (repository / "machines.json").write_text(json.dumps([machine.entry for machine in machines]))
    words = ["--id", identifier, "--tuner", "random", "--no-check", "--machines", "machines.json", "--concurrency", "4"]
    return run(repository, *words, *flags), repository / "experiments" / identifier


def run(repository, *flags):
    words = [sys.executable, "nni_main.py", "sleepy_digits", "--no-report", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=repository, **pipes)


def finish(search, seconds=900):
    try:
        return search.communicate(timeout=patient(seconds))[0]
    except subprocess.TimeoutExpired:
        search.send_signal(signal.SIGTERM)
        pytest.fail("the search did not end: " + search.communicate()[0])


def events(folder, kind):
    return [event for event in read_events(folder / "events.jsonl", 0)[0] if event["event"] == kind]


def wait_for(condition, search, seconds=600):
    deadline = time.monotonic() + patient(seconds)
    while not condition():
        assert time.monotonic() < deadline and search.poll() is None, "waited in vain"
        time.sleep(0.1)


def journal(folder):
    return read_journal(folder / "journal.jsonl")


def table(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def manager_listens_on(repository):
    hosts = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(repository) in word for word in process.cmdline()):
                found = process.net_connections("inet")
                hosts |= {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}
    return hosts


def nothing_runs_on(machines):
    deadline = time.monotonic() + patient(30)
    while any(machine.processes() for machine in machines) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [process.cmdline() for machine in machines for process in machine.processes()] == []


@pytest.fixture(scope="module")
def searched(repository, machines):
    """A search of twelve trials, some of which kill themselves."""
    write_space(repository, "sleepy_digits", SPACE)
    search, folder = start(repository, machines, "both", "--trials", "12")
    wait_for(lambda: len(events(folder, "start")) > 4, search)
    seen = SimpleNamespace(folder=folder)
    seen.there = set().union(*(machine.listening() for machine in machines))
    seen.here = manager_listens_on(repository)
    seen.intruder = visit(machines[0])
    seen.output, seen.status = finish(search), search.returncode
    return seen


def visit(machine):
    """What another user of a machine is answered by the keeper, and by the tunnel to the manager, while trials run."""
    if machine.namespace is None or os.geteuid() != 0:
        return None
    with intruder({port: 403 for port in machine.ports()}, machine.folder, inside=machine.inside()) as seen:
        time.sleep(2)
    return seen | {"ports": len(machine.ports())}


@needs_sshd
@pytest.mark.timeout(1200)
def test_another_user_of_a_machine_is_refused(searched):
    if searched.intruder is None:
        pytest.skip("only root has network namespaces and is another user")
    assert searched.intruder["answered"] == []
    assert searched.intruder["ports"] >= 2  # keeper and tunnel
    assert searched.intruder["statuses"].keys() == {"403", "None"}  # the tunnel closes the connection


@needs_sshd
@pytest.mark.timeout(1200)
def test_a_search_on_both_loses_and_swaps_nothing(searched, machines):
    assert searched.status == 0, searched.output
    rows = {row["trial"]: row for row in table(searched.folder)}
    starts = {event["trial"]: event for event in events(searched.folder, "start")}
    assert len(rows) == len(starts) == 12
    assert {event["machine"] for event in starts.values()} == {machine.name for machine in machines}
    killed = {trial for trial, event in starts.items() if event["parameters"]["fault"]}
    assert killed and {trial for trial, row in rows.items() if row["status"] != "ok"} == killed
    for trial, row in rows.items():
        given = starts[trial]["parameters"]
        assert [float(row[name]) for name in given] == list(given.values())
        assert row["status"] == "killed" or float(row["default"]) == given["weight"]
    asked = json.loads((searched.folder / "search.json").read_text())
    assert {row["code"] for row in rows.values() if row["status"] == "ok"} == {asked["code"]}  # sent there unchanged


@needs_sshd
@pytest.mark.timeout(1200)
def test_records_and_weights_are_fetched_and_ends_are_told_truly(searched, machines):
    starts = {event["trial"]: event["parameters"] for event in events(searched.folder, "start")}
    for event in events(searched.folder, "end"):
        expected = [None, "SIGKILL", None, False] if starts[event["trial"]]["fault"] else [0, None, None, True]
        assert [event[key] for key in ("exit_code", "signal", "cause", "final")] == expected
    records = {path.parent.name: path for path in searched.folder.glob("environments/*/trials/*/record.json")}
    assert set(records) == {trial for trial, parameters in starts.items() if not parameters["fault"]}
    for trial, path in records.items():
        record = json.loads(path.read_text())
        assert (record["trial"], record["parameters"]) == (trial, starts[trial])
    best = json.loads((searched.folder / "best.json").read_text())
    assert numpy.load(searched.folder / "best_model.npz")["weight"] == [best["parameters"]["weight"]]
    assert not any(path for machine in machines for path in machine.folder.glob("home/**/trials/*/model.*"))


@needs_sshd
@pytest.mark.timeout(1200)
def test_nothing_listens_beyond_the_loopback_and_nothing_stays(searched, machines):
    assert searched.here == {"127.0.0.1"}
    assert searched.there == {"127.0.0.1"}
    assert nothing_runs_on(machines)


@needs_sshd
@pytest.mark.timeout(1200)
def test_a_machine_that_drops_out_costs_its_running_trials_and_a_killed_driver_none(repository, machines):
    space = SPACE | {"seconds": {"_type": "choice", "_value": [1.5]}, "fault": {"_type": "choice", "_value": [0]}}
    write_space(repository, "sleepy_digits", space)
    search, folder = start(repository, machines, "drop", "--trials", "10")
    first = machines[0].name

    def runs_there():
        ended = {event["trial"] for event in events(folder, "end")}
        young = [event for event in events(folder, "start") if event["machine"] == first][-1:]
        known = young and young[0]["trial"] not in ended  # a trial that has hardly begun would run elsewhere
        return len(ended) >= 3 and known and 0.3 < time.time() - young[0]["time"] < 1.2  # it takes over 1.5

    wait_for(runs_there, search)
    machines[0].drop_out()
    try:
        wait_for(lambda: any(entry["status"] == "lost" for entry in journal(folder)), search)
    finally:
        machines[0].come_back()
    search.kill()
    said = finish(search)
    search = run(repository, "--resume", "drop")
    output = finish(search)
    rows = table(folder)
    assert sorted(int(row["parameter_id"]) for row in rows) == list(range(10)), output
    lost = [row for row in rows if row["status"] == "lost"]
    assert search.returncode == 0 and len(rows) == 10, output
    assert 1 <= len(lost) <= 2 and {row["status"] for row in rows} == {"ok", "lost"}, output
    assert all(row["cause"] == "its machine dropped out while it ran" for row in lost)
    assert f"machine {first} dropped out" in said
    starts = {event["trial"]: event["parameters"] for event in events(folder, "start")}
    assert all(float(row["weight"]) == starts[row["trial"]]["weight"] for row in rows)
    assert nothing_runs_on(machines)


@pytest.mark.parametrize("script, tests", [("remote_test.js", 18), ("keeper_test.js", 3)])
def test_repairs_on_the_real_classes(tmp_path, script, tests):
    nni_node = Path(importlib.util.find_spec("nni_node").origin).parent
    environ = {"HPO_EVENTS": str(tmp_path / "events"), "HPO_SECRET": 32 * "0"}
    environ |= {"HOME": str(tmp_path), "NODE_PATH": str(nni_node)}
    words = [nni_node / "node", Path(__file__).with_name(script)]
    environ = os.environ | environ | {"HPO_REMOTE": str(tmp_path / "remote.json")}
    done = subprocess.run(words, env=environ, text=True, capture_output=True, timeout=patient(120))
    failures = re.findall(r"^not ok .*?^  stack", done.stdout, re.MULTILINE | re.DOTALL)
    assert done.returncode == 0 and f"# pass {tests}\n" in done.stdout, "\n".join(failures) or done.stderr


def refusal(machines, packages=("nni",)):
    """The one line by which the machines are refused."""
    with pytest.raises(UserMistake) as refused:
        check_machines(machines, packages)
    return str(refused.value)


@pytest.fixture
def file_of(tmp_path):
    """Returns a function that writes machines.json and reads it."""

    def read(*entries):
        (tmp_path / "machines.json").write_text(json.dumps(entries))
        return read_machines(tmp_path / "machines.json")

    return read


@needs_sshd
def test_a_wrong_host_key_is_refused_in_one_line(repository, machines, tmp_path):
    right = (machines[0].folder / "known_hosts").read_text()
    make_key(tmp_path / "other")
    machines[0].known_as((tmp_path / "other.pub").read_text())
    try:
        search, folder = start(repository, machines, "denied")
        output = finish(search)
    finally:
        (machines[0].folder / "known_hosts").write_text(right)
    assert search.returncode == 2 and not folder.exists()
    assert output.strip().splitlines() == [
        f"nni_main.py: --machines: {machines[0].name}: its host key is not the known one: another machine may answer "
        "in its place; nothing was sent to it"
    ]


@needs_sshd
def test_an_unknown_host_is_refused(machines, file_of, tmp_path):
    (tmp_path / "empty").write_text("")
    wrong = file_of(machines[0].entry | {"known_hosts": "empty"})
    assert host_keys(wrong[0]) == [] and "its host key is not in" in refusal(wrong)


@needs_sshd
@pytest.mark.parametrize(
    "changes, said",
    [
        ({"python": "/usr/nowhere/bin"}, "there is no Python at /usr/nowhere/bin/python"),
        ({"data": "/no/such/data"}, "there is no data folder /no/such/data"),
        ({"gpus": 63}, "GPUs, not 63"),
        ({"user": "nobody_here"}, "Permission denied"),
    ],
)
def test_what_a_machine_lacks_is_said(machines, file_of, changes, said):
    assert said in refusal(file_of(machines[0].entry | changes))


@needs_sshd
@pytest.mark.parametrize(
    "line, said",
    [
        ("AllowTcpForwarding no", "refuses the tunnel"),
        ("GatewayPorts yes", "opens tunnels to the network"),
        ('ForceCommand echo welcome; sh -c "$SSH_ORIGINAL_COMMAND"', "says what NNI could not read: welcome"),
    ],
)
def test_servers_that_would_not_do_are_refused(machines, file_of, line, said):
    machines[1].configure(line)
    try:
        assert said in refusal(file_of(machines[1].entry))
    finally:
        machines[1].configure("")


@needs_sshd
def test_machines_in_order_are_described(machines, file_of):
    found, notes = check_machines(file_of(*(machine.entry for machine in machines)), ("nni", "numpy"))
    assert [each["python"][:2] for each in found] == [list(sys.version_info[:2])] * 2 and notes == []
    assert all(each["versions"]["nni"] == "3.0" and each["cores"] >= 1 for each in found)
    assert "no-such-package is not installed" in refusal(file_of(machines[0].entry), ("nni", "no-such-package"))


@pytest.fixture
def entry(tmp_path):
    make_key(tmp_path / "key")
    return {"host": "lab1", "user": "ada", "key": "key", "python": "/opt/venv/bin"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"hots": "x"}, "unknown field 'hots'; choose from: host, user, key, python, port, data, gpus, known_hosts"),
        ({"user": None}, "user must be a plain name"),
        ({"host": "-oProxyCommand=x"}, "host must be a plain name"),
        ({"port": 70000}, "port must be an integer from 1 to 65535, not 70000"),
        ({"port": "22"}, "port must be an integer from 1 to 65535, not '22'"),
        ({"gpus": True}, "gpus must be an integer from 0 to 64, not True"),
        ({"python": "venv/bin"}, "python must be an absolute folder"),
        ({"python": "/my venv/bin"}, "python must be an absolute folder"),
        ({"data": "data"}, "data must be an absolute folder"),
        ({"key": "absent"}, "absent is not a file that can be read"),
        ({"key": "machines.json"}, "machines.json can be read by others"),
        ({"key": "text"}, "text is no private key"),
        ({"key": "locked"}, "locked needs a passphrase, for which NNI cannot ask"),
        ({"known_hosts": "absent"}, "known_hosts: "),
    ],
)
def test_mistakes_in_an_entry_are_named(file_of, entry, tmp_path, changes, said):
    (tmp_path / "text").write_text("not a key\n")
    (tmp_path / "text").chmod(0o600)
    if changes.get("key") == "locked":
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "locked")]
        subprocess.run(words, check=True)
    with pytest.raises(UserMistake) as refused:
        file_of(entry, entry | {"host": "lab2"} | changes)
    assert "machine 2: " in str(refused.value) and said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("missing", ["host", "user", "key", "python"])
def test_missing_fields_are_named(file_of, entry, missing):
    del entry[missing]
    with pytest.raises(UserMistake, match=f"machine 1: '{missing}' is missing"):
        file_of(entry)


@pytest.mark.parametrize(
    "text, said",
    [
        ("[", "is not valid JSON"),
        ("{}", "must be a list of at least one machine"),
        ("[]", "must be a list of at least one machine"),
        ('["lab1"]', "must be a list of at least one machine"),
    ],
)
def test_files_that_are_no_list_of_machines_are_refused(tmp_path, text, said):
    (tmp_path / "machines.json").write_text(text)
    with pytest.raises(UserMistake, match=said):
        read_machines(tmp_path / "machines.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserMistake, match="nowhere.json: No such file or directory"):
        read_machines(tmp_path / "nowhere.json")


def test_twice_the_same_machine_and_some_with_gpus_are_refused(file_of, entry):
    with pytest.raises(UserMistake, match="lab1:22 is there more than once"):
        file_of(entry, entry)
    with pytest.raises(UserMistake, match="either all machines have gpus or none"):
        file_of(entry, entry | {"host": "lab2", "gpus": 1})


@pytest.mark.parametrize("number, size", [(2001, 1), (3, 120 * 1024**2)])
def test_a_code_folder_over_nnis_limits_is_refused_with_the_largest(tmp_path, number, size):
    for index in range(number):
        with (tmp_path / f"file{index}").open("wb") as file:
            file.truncate(size + (index == 1))
    with pytest.raises(UserMistake, match=r"largest: file1 \("):
        check_code_folder(tmp_path, [])
    (tmp_path / ".nniignore").write_text("file*\n!file2\n")
    check_code_folder(tmp_path, [])


def test_a_private_key_is_not_sent_around(file_of, entry, tmp_path):
    with pytest.raises(UserMistake, match="key would be sent to all machines"):
        check_code_folder(tmp_path, file_of(entry))
    (tmp_path / ".nniignore").write_text("key\n")
    check_code_folder(tmp_path, file_of(entry))


def test_packages_depend_on_the_objective():
    assert "torch" in packages_for("models.rsnn", None)
    assert "torch" not in packages_for("simulator.params", None)
    assert "tonic" in packages_for("models.rsnn", "SHD")
