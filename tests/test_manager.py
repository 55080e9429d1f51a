"""NNI's manager with its repairs: two real experiments, the preload's own tests, and what is checked before a start."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nni_node
import psutil
import pytest

from runner import manager, ports, processes, web_address
from tests.conftest import patient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

NNI_NODE = Path(nni_node.__path__[0])

# A trial that speaks NNI's protocol itself: it starts in a tenth of a second and reports within milliseconds.
LIGHT_TRIAL = """
import json, os, signal, sys, time, urllib.error, urllib.request

url, number = os.environ["NNI_TRIAL_COMMAND_CHANNEL"], int(os.environ["NNI_TRIAL_SEQ_ID"])

def put(message):
    data = json.dumps(message).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="PUT")
    urllib.request.urlopen(request).read()

def receive():
    put({"type": "request_parameter"})
    while True:
        try:
            return json.loads(json.load(urllib.request.urlopen(url))["parameter"])
        except urllib.error.HTTPError as error:
            if error.code != 408:
                raise

def report(kind, value, sequence=0):
    metric = {"parameter_id": packed["parameter_id"], "trial_job_id": os.environ["NNI_TRIAL_JOB_ID"], "type": kind,
              "sequence": sequence, "value": json.dumps({"default": value})}
    put({"type": "metric", "metric": json.dumps(metric)})

def write_own(**content):
    with open(os.path.join(os.environ["NNI_OUTPUT_DIR"], "own.json"), "w") as file:
        json.dump(content, file)
"""

# Asks for its parameters at a random time, so that trials ask in another order than they started.
ORDERLY_TRIAL = (
    LIGHT_TRIAL
    + """
import random
time.sleep(random.choice([0, 0.05, 0.3, 0.9]))
if number == 0:  # NNI's own client, once: importing it is slow
    import nni
    parameters = nni.get_next_parameter()
    nni.report_final_result({"default": parameters["x"]})
else:
    packed = receive()
    parameters = packed["parameters"]
    report("FINAL", parameters["x"])
environ = {name: os.environ.get(name) for name in ("NODE_OPTIONS", "HPO_EVENTS", "HPO_SECRET", "HPO_TEST")}
environ["address"] = os.environ["NNI_TRIAL_COMMAND_CHANNEL"]
write_own(parameters=parameters, environ=environ)
"""
)

# What each trial does by its number, from 0.
BEHAVIOURS = ("good", "endless", "unwanted", "suicidal", "failing", "bad", *["good"] * 4, "interrupted")
UNRULY_TRIAL = (
    LIGHT_TRIAL
    + f"behaviour = {BEHAVIOURS}[number]"
    + """
signals = []
if behaviour == "interrupted":
    signal.signal(signal.SIGINT, lambda *_: signals.append(time.time()))
packed = receive()
if behaviour == "good":
    for step in range(3):
        report("PERIODICAL", 0.9, step)
    report("FINAL", 0.9)
elif behaviour == "bad":
    for step in range(60):
        report("PERIODICAL", 0.1, step)
        time.sleep(0.2)
elif behaviour in ("endless", "unwanted"):
    write_own()
    time.sleep(60)
elif behaviour == "suicidal":
    os.kill(os.getpid(), signal.SIGKILL)
elif behaviour == "failing":
    sys.exit(3)
elif behaviour == "interrupted":
    write_own(signals=signals)
    while not signals:
        time.sleep(0.05)
    time.sleep(1)
    write_own(signals=signals)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
"""
)

SLOW_STORE = """
const Module = require('module');
const load = Module._load;
Module._load = function (request, ...rest) {
    const loaded = load.call(this, request, ...rest);
    if (request.endsWith('nnimanager') && !loaded.NNIManager.slow) {
        loaded.NNIManager.slow = true;
        const { storeExperimentProfile } = loaded.NNIManager.prototype;
        loaded.NNIManager.prototype.storeExperimentProfile = async function () {
            await new Promise(resolve => setTimeout(resolve, 700));
            return storeExperimentProfile.call(this);
        };
    }
    return loaded;
};
"""


def make_experiment(folder, code, **settings):
    from nni.experiment import Experiment, ExperimentConfig
    from nni.experiment.config import AlgorithmConfig

    (folder / "code").mkdir()
    (folder / "code" / "trial.py").write_text(code)
    config = ExperimentConfig("local")
    config.experiment_working_directory = folder / "experiments"
    config.trial_code_directory = folder / "code"
    config.trial_command = f"{sys.executable} trial.py"
    config.search_space = {"x": {"_type": "uniform", "_value": [0, 1]}, "n": {"_type": "randint", "_value": [0, 99]}}
    config.trial_concurrency = 4
    config.tuner = AlgorithmConfig(name="TPE", class_args={"optimize_mode": "maximize", "seed": 1})
    for name, value in settings.items():
        setattr(config, name, value)
    return Experiment(config, id=folder.name)


@pytest.fixture(scope="module")
def index_apart(tmp_path_factory):
    """NNI's list of experiments goes to a temporary home; yields what start_manager must know of it."""
    from nni.tools.nnictl.config_utils import Experiments

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiments.__init__, "__defaults__", (str(home / "nni-experiments"),))
        yield {"HOME": str(home), "HPO_TEST": "seen"}


def start(experiment, environ):
    folder = Path(experiment.config.experiment_working_directory, experiment.id)
    port = ports.next_free_port(random.randint(20000, 30000))
    manager.start_manager(experiment, port, folder / "events.jsonl", environ)
    return folder


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + patient(seconds)
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def events_of(folder, kind):
    events, _ = manager.read_events(folder / "events.jsonl", 0)
    return {event["trial"]: event for event in events if event["event"] == kind}


def query(folder, sql):
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as database:
        return database.execute(sql).fetchall()


def listening_hosts(processes):
    hosts = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            listening = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            hosts |= {connection.laddr.ip for connection in listening}
    return hosts


@pytest.fixture(scope="module")
def orderly(tmp_path_factory, index_apart):
    """Twelve trials at concurrency 4, each of which notes what it really got."""
    experiment = make_experiment(tmp_path_factory.mktemp("orderly"), ORDERLY_TRIAL, max_trial_number=12)
    try:
        folder = start(experiment, index_apart)
        hosts = listening_hosts(processes.family_of(experiment))
        wait_for(lambda: experiment.get_status() == "DONE")
        seen = SimpleNamespace(folder=folder, hosts=hosts, family=processes.family_of(experiment))
        environs = [process.environ() for process in seen.family]
        seen.tuner_calls = {environ.get("NNI_TUNER_COMMAND_CHANNEL") for environ in environs} - {None}
        seen.address = web_address.address_of(experiment.port)
        seen.jobs, seen.export = experiment.list_trial_jobs(), experiment.export_data()
    finally:
        manager.stop_manager(experiment)
    paths = folder.glob("environments/*/trials/*/own.json")
    seen.own = {path.parent.name: json.loads(path.read_text()) for path in paths}
    seen.ran_with = {trial: own["parameters"] for trial, own in seen.own.items()}
    return seen


def test_every_source_says_what_each_trial_ran_with(orderly):
    rows = query(orderly.folder, "SELECT trialJobId, data FROM TrialJobEvent WHERE data IS NOT NULL")
    assert len(orderly.ran_with) == len(rows) == 12
    assert {trial: json.loads(data)["parameters"] for trial, data in rows} == orderly.ran_with
    assert {job.trialJobId: job.hyperParameters[0].parameters for job in orderly.jobs} == orderly.ran_with
    assert {result.trialJobId: result.parameter for result in orderly.export} == orderly.ran_with
    starts = events_of(orderly.folder, "start")
    assert {trial: event["parameters"] for trial, event in starts.items()} == orderly.ran_with


def test_every_final_is_there_once(orderly):
    rows = query(orderly.folder, "SELECT trialJobId, parameterId, data FROM MetricData WHERE type = 'FINAL'")
    assert len(rows) == 12
    starts = events_of(orderly.folder, "start")
    for trial, parameter_id, data in rows:
        assert starts[trial]["parameter_id"] == int(parameter_id)
        assert json.loads(json.loads(data))["default"] == orderly.ran_with[trial]["x"]
    assert {result.trialJobId for result in orderly.export} == set(orderly.ran_with)


def test_events_are_complete(orderly):
    events, offset = manager.read_events(orderly.folder / "events.jsonl", 0)
    assert events[0]["event"] == "loaded" and len(events) == 25
    assert offset == (orderly.folder / "events.jsonl").stat().st_size
    starts, ends = events_of(orderly.folder, "start"), events_of(orderly.folder, "end")
    assert sorted(event["sequence"] for event in starts.values()) == list(range(12))
    for trial, end in ends.items():
        assert 0 <= end["time"] - starts[trial]["time"] < 60
        assert [end[key] for key in ("exit_code", "signal", "status", "cause")] == [0, None, "SUCCEEDED", None]


def test_nothing_listens_beyond_the_loopback_and_nothing_stays(orderly):
    assert orderly.hosts == {"127.0.0.1"}
    assert len(orderly.family) >= 2  # manager and tuner
    assert not any(process.is_running() for process in orderly.family)


def test_trials_get_the_environment_that_was_asked_for(orderly):
    expected = {"NODE_OPTIONS": None, "HPO_EVENTS": None, "HPO_SECRET": None, "HPO_TEST": "seen"}
    assert all(own["environ"] | expected == own["environ"] for own in orderly.own.values())
    assert not {"HPO_EVENTS", "HPO_SECRET", "HPO_TEST", manager.MARK} & set(os.environ)


def test_tuner_and_trials_call_the_manager_by_its_address(orderly):
    """At another address of "localhost", ::1, another user could listen at the same port."""
    addresses = {own["environ"]["address"].rpartition("/")[0] for own in orderly.own.values()}
    assert addresses == {f"{orderly.address}/env/local-env"}
    assert orderly.tuner_calls == {f"{orderly.address.replace('http', 'ws')}/tuner"}


@pytest.fixture(scope="module")
def unruly(tmp_path_factory, index_apart):
    """Trials that misbehave, in a manager that is slow to enter new trials; stopped while the last one runs."""
    experiment = make_experiment(tmp_path_factory.mktemp("unruly"), UNRULY_TRIAL, max_trial_number=len(BEHAVIOURS))
    from nni.experiment.config import AlgorithmConfig

    experiment.config.assessor = AlgorithmConfig(name="Medianstop", class_args={"optimize_mode": "maximize"})
    experiment.config.max_trial_duration = "12s"
    (tmp_path_factory.getbasetemp() / "slow store.js").write_text(SLOW_STORE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_OPTIONS", f'--require "{tmp_path_factory.getbasetemp() / "slow store.js"}"')
        try:
            folder = start(experiment, index_apart)
            wait_for(lambda: is_ready(folder, "unwanted"))
            experiment.kill_trial_job(behaviours(folder, "start")["unwanted"]["trial"])
            wait_for(lambda: len(events_of(folder, "end")) == len(BEHAVIOURS) - 1)
            wait_for(lambda: is_ready(folder, "interrupted"))
            wait_for(lambda: [job.status for job in experiment.list_trial_jobs()].count("RUNNING") == 1)
            jobs = {job.trialJobId: job for job in experiment.list_trial_jobs()}
            started = time.monotonic()
        finally:
            manager.stop_manager(experiment)
    return SimpleNamespace(folder=folder, jobs=jobs, seconds=time.monotonic() - started)


def behaviours(folder, kind):
    """The events of a kind by what their trial does; of the good ones the last."""
    numbers = {trial: event["sequence"] for trial, event in events_of(folder, "start").items()}
    return {BEHAVIOURS[numbers[trial]]: event for trial, event in events_of(folder, kind).items()}


def is_ready(folder, behaviour):
    """Tell whether the trial has come so far that it has noted something."""
    trial = behaviours(folder, "start").get(behaviour, {}).get("trial")
    return trial is not None and any(folder.glob(f"environments/*/trials/{trial}/own.json"))


@pytest.mark.parametrize(
    "behaviour, status, cause, exit_code, killer",
    [
        ("good", "SUCCEEDED", None, 0, None),
        ("bad", "EARLY_STOPPED", "early_stopped", None, "SIGINT"),
        ("endless", "EARLY_STOPPED", "timed_out", None, "SIGINT"),
        ("unwanted", "USER_CANCELED", "user", None, "SIGINT"),
        ("suicidal", "FAILED", None, None, "SIGKILL"),
        ("failing", "FAILED", None, 3, None),
        ("interrupted", "USER_CANCELED", "stopping", None, "SIGINT"),
    ],
)
def test_every_trial_ends_with_its_true_status_and_cause(unruly, behaviour, status, cause, exit_code, killer):
    end = behaviours(unruly.folder, "end")[behaviour]
    assert [end[key] for key in ("status", "cause", "exit_code", "signal")] == [status, cause, exit_code, killer]
    if behaviour != "interrupted":
        assert unruly.jobs[end["trial"]].status == status


def test_no_final_is_lost_where_the_manager_is_slow(unruly):
    finals = query(unruly.folder, "SELECT trialJobId FROM MetricData WHERE type = 'FINAL'")
    succeeded = [trial for trial, end in events_of(unruly.folder, "end").items() if end["status"] == "SUCCEEDED"]
    assert sorted(trial for (trial,) in finals) == sorted(succeeded)
    assert len(succeeded) == BEHAVIOURS.count("good")


def test_a_stop_signals_a_trial_once_and_gives_it_time_to_write(unruly):
    trial = behaviours(unruly.folder, "end")["interrupted"]["trial"]
    (own,) = unruly.folder.glob(f"environments/*/trials/{trial}/own.json")
    assert len(json.loads(own.read_text())["signals"]) == 1
    assert unruly.seconds < 15
    rows = query(unruly.folder, f"SELECT event FROM TrialJobEvent WHERE trialJobId = '{trial}'")
    assert rows == [("RUNNING",)], "so that a resume repeats it"


def test_preload_on_the_real_classes(tmp_path):
    environ = {"HPO_EVENTS": str(tmp_path / "events"), "HPO_SECRET": 32 * "0"}
    environ |= {"HOME": str(tmp_path), "NODE_PATH": str(NNI_NODE)}
    words = [NNI_NODE / "node", Path(__file__).with_name("preload_test.js")]
    done = subprocess.run(words, env=os.environ | environ, text=True, capture_output=True, timeout=patient(60))
    failures = re.findall(r"^not ok .*?^  stack", done.stdout, re.MULTILINE | re.DOTALL)
    assert done.returncode == 0 and "# pass 0" not in done.stdout, "\n".join(failures) or done.stderr


@pytest.mark.parametrize(
    "version, source, message",
    [
        ("2.10.0", "", "NNI's manager is version 2.10.0, but the repairs are for 3.0.0"),
        ("3.0.0", "", "training_service/v3/compat.js of NNI has no class V3asV1"),
        ("3.0.0", "exports.V3asV1 = class V3asV1 { start() {} }", "class V3asV1 of NNI has no method submitTrialJob"),
    ],
)
def test_another_nni_is_refused_before_anything_starts(tmp_path, version, source, message):
    for name, text in {
        "package.json": json.dumps({"version": version}),
        "core/nnimanager.js": "exports.NNIManager = class NNIManager {};",
        "training_service/v3/compat.js": source,
        "main.js": "require('./core/nnimanager'); console.log('started');",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words = [NNI_NODE / "node", "--require", manager.PRELOAD, tmp_path / "main.js"]
    environ = {"HPO_EVENTS": str(tmp_path / "events"), "HPO_SECRET": 32 * "0"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith(f"runner/preload.js: {message}") and done.stderr.count("\n") == 1


def test_check_nni(tmp_path, monkeypatch):
    import nni

    manager.check_nni()
    with monkeypatch.context() as patch:
        patch.setattr(nni, "__version__", "2.10")
        with pytest.raises(RuntimeError, match=r"^NNI must be 3\.0, not 2\.10: its repairs are for that version only$"):
            manager.check_nni()
    monkeypatch.setattr(nni_node, "__path__", [str(tmp_path)])
    with pytest.raises(RuntimeError, match="compat.js lacks 'class V3asV1'"):
        manager.check_nni()


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path, index_apart, capfd):
    experiment = make_experiment(tmp_path, LIGHT_TRIAL, max_trial_number=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=f"port {port} is in use"):
            manager.start_manager(experiment, port, tmp_path / "events.jsonl", index_apart)
    assert processes.family_of(experiment) == []
    manager.stop_manager(experiment)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_sent_to_another_program_that_takes_the_port_meanwhile(tmp_path, index_apart, monkeypatch):
    from nni.experiment import launcher

    experiment = make_experiment(tmp_path, LIGHT_TRIAL, max_trial_number=1)
    monkeypatch.setattr(manager, "port_is_free", lambda port: True)
    monkeypatch.setattr(launcher, "_ensure_port_idle", lambda *arguments: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(RuntimeError, match="did not start: it does not listen at port"):
            manager.start_manager(experiment, taken.getsockname()[1], tmp_path / "events.jsonl", index_apart)
        taken.setblocking(False)
        with pytest.raises(BlockingIOError):
            taken.accept()
    assert processes.family_of(experiment) == []


def test_a_manager_without_its_repairs_is_ended_again(tmp_path, index_apart, monkeypatch):
    experiment = make_experiment(tmp_path, LIGHT_TRIAL, max_trial_number=1)
    preload = tmp_path / "preload.js"
    monkeypatch.setattr(manager, "PRELOAD", preload)
    preload.write_text("delete process.env.NODE_OPTIONS;")
    with pytest.raises(RuntimeError, match="^NNI's manager did not start: it runs without the repairs of preload.js$"):
        start(experiment, index_apart)
    assert processes.family_of(experiment) == []
    preload.write_text("require('fs').appendFileSync(process.env.HPO_EVENTS, '{\"event\": \"loaded\"}\\n');")
    with pytest.raises(RuntimeError, match=r"did not start: it listens on \['::'\], not on 127.0.0.1 only$"):
        start(experiment, index_apart)
    assert processes.family_of(experiment) == []
    preload.write_text("require('fs').writeSync(2, 'runner/preload.js: a reason\\n'); process.exit(70);")
    with pytest.raises(RuntimeError, match="^NNI's manager did not start: runner/preload.js: a reason"):
        start(experiment, index_apart)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_taken_port_is_not_free(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        taken = socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")
    except OSError:
        assert ":" in host
        return  # a machine without IPv6
    with taken:
        port = taken.getsockname()[1]
        assert not ports.port_is_free(port)
        assert ports.next_free_port(port) > port


def test_a_port_at_which_another_search_is_starting_is_taken(tmp_path, index_apart):
    port = ports.next_free_port(random.randint(20000, 30000))
    hold = f"from runner import ports; print(ports.claim_port({port}), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"True\n"
    assert ports.port_is_free(port)  # nothing listens yet
    experiment = make_experiment(tmp_path, LIGHT_TRIAL, max_trial_number=1)
    with pytest.raises(ports.PortTaken, match="another search is starting there"):
        manager.start_manager(experiment, port, tmp_path / "events.jsonl", index_apart)
    other.communicate()
    assert ports.claim_port(port) and ports.claim_port(port)


def test_next_free_port_has_an_end():
    with socket.create_server(("127.0.0.1", 65535)), pytest.raises(RuntimeError, match="no port from 65535 to 65535"):
        ports.next_free_port(65535)


@pytest.mark.parametrize("driver_lives, expected", [(True, []), (False, ["orphan"])])
def test_what_a_killed_search_has_left_is_ended(tmp_path, driver_lives, expected):
    driver = psutil.Process()
    began = driver.create_time() if driver_lives else 1
    mark = f"{driver.pid} {began:.0f} {tmp_path / 'experiments' / 'orphan'}"
    process = subprocess.Popen(["sleep", "60"], env={manager.MARK: mark})
    try:
        assert processes.end_leftovers(tmp_path / "others") == []
        assert processes.end_leftovers(tmp_path / "experiments") == expected
        assert psutil.pid_exists(process.pid) == driver_lives
    finally:
        process.kill()
        process.wait()


def test_read_events_leaves_a_torn_line(tmp_path):
    path = tmp_path / "events"
    assert manager.read_events(path, 0) == ([], 0)
    path.write_bytes(b'{"event": "loaded"}\n{"event": "st')
    assert manager.read_events(path, 0) == ([{"event": "loaded"}], 20)
    path.write_bytes(b'{"event": "loaded"}\n{"event": "times"}\n')
    assert manager.read_events(path, 20) == ([{"event": "times"}], 39)
    path.write_bytes(b'{"event": "lo')
    assert manager.close_line(path) == 14 == manager.close_line(path)
    path.write_bytes(path.read_bytes() + b'{"event": "times"}\n')
    assert manager.read_events(path, 0) == ([{"event": "times"}], 33)


def test_stop_is_bounded_and_ctrl_c_during_it_leaves_nothing(tmp_path):
    """A manager that does not heed SIGTERM, with a trial below it that has lost its parent."""
    config = SimpleNamespace(experiment_working_directory=tmp_path)
    experiment = SimpleNamespace(id="deaf", config=config, _proc=None, port=None, stop=lambda: None)
    main = tmp_path / "nni_node" / "main.js"
    main.parent.mkdir()
    main.write_text(
        "process.on('SIGTERM', () => {}); process.on('SIGINT', () => {}); setTimeout(() => {}, 60000);"
        "require('child_process').spawn('bash', ['-c', 'sleep 60 & disown; echo']).stdout.on('data', () => {"
        " console.log('up') });"
    )
    for interrupt in (False, True):
        process = subprocess.Popen([NNI_NODE / "node", main], stdout=subprocess.PIPE, start_new_session=True,
                                   env=os.environ | {processes.MARK: processes.mark_of(experiment)})  # fmt: skip
        assert process.stdout.readline() == b"up\n"
        assert len(processes.family_of(experiment)) >= 2
        if interrupt:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
            signal.setitimer(signal.ITIMER_REAL, 0.3)
        started = time.monotonic()
        manager.stop_manager(experiment, seconds=30 if interrupt else 0.5)
        assert time.monotonic() - started < 5
        assert processes.family_of(experiment) == []
        process.wait()
        process.stdout.close()
