"""NNI's manager, a Node process: started with its repairs (preload.js), checked, followed by its events, and ended.

    start_manager(experiment, port, folder / "events.jsonl", {"OMP_NUM_THREADS": "1"})
    events, offset = read_events(folder / "events.jsonl", 0)
    stop_manager(experiment)

NNI is pinned to 3.0, its last release, so the repairs have one fixed target; anything else is refused.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from runner import web_address
from runner.ports import PortTaken, claim_port, port_is_free
from runner.processes import MARK, environment, family_of, folder_of, is_manager, kill_family, mark_of
from runner.records import as_event, parsed

PRELOAD = Path(__file__).with_name("preload.js")
NNI_VERSION = "3.0"
START_SECONDS = 60.0  # for the manager to answer; NNI's launcher gives it 3, too few on a busy machine
STOP_SECONDS = 20.0  # NNI's manager itself needs about 2 to 6 s, 5 of them where a trial ignores SIGINT
PATCHED = {  # what the preload builds on
    "training_service/v3/compat.js": ("class V3asV1", "submitTrialJob(", "cancelTrialJob(", "allocatedParameters"),
    "core/nnimanager.js": ("class NNIManager", "onTrialJobMetrics(", "stopTrialIfOverMaxDurationLimit("),
    "common/trial_keeper/process.js": ("class TrialProcess", "resolveStop("),
}


def check_nni() -> None:
    """Check that NNI is the version that the repairs are for. Raises RuntimeError with one line."""
    try:
        import nni
        import nni_node
    except ImportError as error:
        raise RuntimeError(f"NNI {NNI_VERSION} is needed: {error} (pip install -r requirements.txt)") from error
    if nni.__version__ != NNI_VERSION:
        raise RuntimeError(f"NNI must be {NNI_VERSION}, not {nni.__version__}: its repairs are for that version only")
    for name, needed in PATCHED.items():
        path = Path(nni_node.__path__[0], name)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        missing = [word for word in needed if word not in text]
        if missing:
            raise RuntimeError(f"NNI {NNI_VERSION} is damaged or changed: {path} lacks {missing[0]!r}")


def start_manager(experiment, port: int, events: Path, environ: dict[str, str]) -> None:
    """Start the manager of `experiment` (an nni Experiment with its config set), repaired, for its owner only.

    It listens on 127.0.0.1 and answers those who know its address, which is drawn anew (runner/web_address.py).
    `events` is the file for `read_events`; `environ` is added to the environment of manager, tuner and trials. NNI's
    messages go to the experiment's log folder. Raises PortTaken, and RuntimeError with the reason where the manager
    does not come up or is not repaired; then, and on Ctrl-C, nothing is left running.
    """
    if not claim_port(port) or not port_is_free(port):
        raise PortTaken(f"port {port} is in use, or another search is starting there")
    check_nni()
    from nni.experiment import RunMode, rest
    from nni.runtime.log import silence_stdout

    silence_stdout()  # NNI's lines name URLs on which nothing listens; its log file keeps them
    logging.getLogger("nni").addHandler(logging.NullHandler())
    events = Path(events).resolve()
    events.parent.mkdir(parents=True, exist_ok=True)
    offset = close_line(events)
    web_address.forget_address(folder_of(experiment))  # of a manager that was killed
    rest.request = web_address.ask
    own = _preload_environment(experiment, events, web_address.new_secret(port))
    atexit.register(stop_manager, experiment)
    try:
        with environment(own | environ), _patience(events, offset):
            experiment.start(port, run_mode=RunMode.Detach)  # other modes print the manager's messages
        web_address.keep_address(folder_of(experiment), web_address.address_of(port))
    except BaseException as error:
        reason = _reason(experiment, error)
        stop_manager(experiment, seconds=5)
        if isinstance(error, Exception):
            raise RuntimeError(f"NNI's manager did not start: {reason}") from error
        raise


def close_line(path: Path) -> int:
    """End a torn last line, to which the next one would be added; return the file's size."""
    with open(path, "ab+") as file:
        if size := file.tell():
            file.seek(size - 1)
            if file.read() != b"\n":
                file.write(b"\n")
        return file.tell()


def _preload_environment(experiment, events: Path, secret: str) -> dict[str, str]:
    users = os.environ.get("NODE_OPTIONS", "")
    path = str(PRELOAD).replace("\\", "\\\\").replace('"', '\\"')
    own = {"NODE_OPTIONS": f'--require "{path}" {users}'.strip(), "HPO_EVENTS": str(events), "HPO_SECRET": secret}
    return own | {MARK: mark_of(experiment)} | ({"HPO_NODE_OPTIONS": users} if users else {})


@contextlib.contextmanager
def _patience(events: Path, offset: int) -> Iterator[None]:
    """Let NNI's launcher wait for the manager as long as its process lives, at most START_SECONDS.

    Nothing is sent before the manager itself listens, repaired: another user's program at its port would learn the
    secret.
    """
    from nni.experiment import launcher

    original = launcher._check_rest_server

    def check(port: int, retry: int = 3, url_prefix: str | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not (managers := _managers_at(port)) and _managers() and time.monotonic() < deadline:
            time.sleep(0.1)
        if not managers:
            raise ConnectionError(f"it does not listen at port {port}")
        _check_repairs(events, offset)
        _check_addresses(managers[0])
        original(port, retry, url_prefix)

    launcher._check_rest_server = check
    try:
        yield
    finally:
        launcher._check_rest_server = original


def _managers() -> list[psutil.Process]:
    """Return the managers that this process has started and that live."""
    living = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and is_manager(child):
                living.append(child)
    return living


def _managers_at(port: int) -> list[psutil.Process]:
    """Return those of them that listen at `port`."""
    found = []
    for manager in _managers():
        with contextlib.suppress(psutil.Error):
            if any(where.port == port for where in _listening(manager)):
                found.append(manager)
    return found


def _listening(process: psutil.Process) -> list:
    """Return the addresses at which a process listens."""
    connections = process.net_connections("inet")
    return [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]


def _check_repairs(events: Path, offset: int) -> None:
    """Check for the preload's word, written before the manager listened, that all is repaired. Raises RuntimeError."""
    if not any(event["event"] == "loaded" for event in read_events(events, offset)[0]):
        raise RuntimeError(f"it runs without the repairs of {PRELOAD.name}")


def _check_addresses(manager: psutil.Process) -> None:
    """Check that the manager listens on the loopback only. Raises RuntimeError."""
    hosts = {address.ip for address in _listening(manager)}
    if hosts != {"127.0.0.1"}:
        raise RuntimeError(f"it listens on {sorted(hosts)}, not on 127.0.0.1 only")


def _reason(experiment, error: BaseException) -> str:
    """Return why the manager did not come up: what it said last, unless `error` tells it."""
    if isinstance(error, RuntimeError):
        return str(error)
    logs = Path(experiment.config.canonical_copy().experiment_working_directory, experiment.id, "log")
    said = _last_run(logs / "nnictl_stderr.log", " start: ") + _last_run(logs / "nnimanager.log", "Start NNI manager")
    faults = [line for line in said if line.startswith("runner/preload.js: ")]
    faults = faults or [line for line in said if "] ERROR (" in line or "] CRITICAL (" in line]
    return f"{faults[-1] if faults else error} (see {logs})"


def _last_run(log: Path, first_line: str) -> list[str]:
    """Return the lines of a log since the last one that contains `first_line`."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return text.rpartition(first_line)[2].splitlines()


def read_events(path: Path, offset: int) -> tuple[list[dict], int]:
    """Return the events that follow byte `offset` and the offset for the next call; a torn last line is left to it.

    {"event": "loaded", "patched"}    the manager is repaired
    {"event": "start", "trial", "sequence", "parameter_id", "parameters", "time"}    a trial's process has started;
                                                                    "machine" too, where that is another one
    {"event": "end", "trial", "time", "exit_code", "signal", "final", "status", "cause"}    it has ended
    An end comes after the trial's metrics. `time` is in seconds since 1970; `exit_code` is None after a signal;
    `final`: NNI has its final result; `status` is NNI's; `cause` is why NNI cancelled the trial, early_stopped |
    timed_out | user | stopping | machine_lost, or None: it ended by itself or was killed from outside.
    {"event": "machine", "machine", "state", "reason", "time"}    another machine is up | failed | lost | given_up
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    complete = data[: data.rfind(b"\n") + 1]
    events = map(as_event, map(parsed, complete.splitlines()))  # none of what a full disk or a kill has torn
    return [event for event in events if event is not None], offset + len(complete)


def stop_manager(experiment, seconds: float = STOP_SECONDS) -> None:
    """End the manager, its tuner and its trials; what still runs after `seconds` is killed. May be called again.

    Trials get SIGINT and have 5 s to end. Never raises; Ctrl-C during it kills the rest at once.
    """
    with contextlib.suppress(BaseException):
        _ask_to_stop(experiment, seconds)
    with _signals_ignored(), contextlib.suppress(Exception):
        kill_family(experiment)
        web_address.forget_address(folder_of(experiment))
        experiment._proc = experiment.port = None
        experiment.stop()  # without a process: closes its log file


def _ask_to_stop(experiment, seconds: float) -> None:
    """Ask the manager to shut down, and wait for it."""
    managers = [process for process in family_of(experiment) if is_manager(process)]
    for manager in managers:
        manager.terminate()
    psutil.wait_procs(managers, timeout=seconds)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
