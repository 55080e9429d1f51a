"""NNI's manager, a Node process: started with its repairs (preload.js), checked, followed by its events, and ended.

    start_manager(experiment, port, folder / "events.jsonl", {"OMP_NUM_THREADS": "1"})
    events, offset = read_events(folder / "events.jsonl", 0)
    stop_manager(experiment)

NNI is pinned to 3.0, its last release, so the repairs have one fixed target; anything else is refused.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PRELOAD = Path(__file__).with_name("preload.js")
NNI_VERSION = "3.0"
MARK = "HPO_MANAGED_BY"  # environment variable of manager, tuner and trials: "<our pid> <our start> <folder>"
START_SECONDS = 60.0  # for the manager to answer; NNI's launcher gives it 3, too few on a busy machine
STOP_SECONDS = 20.0  # NNI's manager itself needs about 2 to 6 s, 5 of them where a trial ignores SIGINT
OWN_START = psutil.Process().create_time()  # once: it moves when the clock is set
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


def port_is_free(port: int) -> bool:
    """Tell whether nothing listens on `port`, be it on the loopback or on any other address."""
    addresses = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")]
    return all(_can_bind(family, host, port) for family, host in addresses)


def _can_bind(family: int, host: str, port: int) -> bool:
    """Tell whether `port` can be bound; an address that this machine does not have is no obstacle."""
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Node does; passes over closed connections
            probe.bind((host, port))
            return True
    except OSError as error:
        return error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def next_free_port(first: int = 8080) -> int:
    """Return the first free port from `first` on. Raises RuntimeError where there is none."""
    for port in range(first, 65536):
        if port_is_free(port):
            return port
    raise RuntimeError(f"no port from {first} to 65535 is free")


def claim_port(port: int) -> bool:
    """Claim `port` among the searches of this machine until this process ends; False where another one has it.

    A manager takes seconds to listen on a port that was free. A second search that chose the same port meanwhile would
    find the first one's manager there, take it for its own and send it its configuration.
    """
    if port in _claims:
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0nni-manager-port-{port}")  # an abstract address: it goes with the process, and leaves no file
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


_claims: dict[int, socket.socket] = {}


class PortTaken(RuntimeError):
    """Another program, or another search that is about to start, has the port."""


def end_leftovers(experiments: Path) -> list[str]:
    """Kill what runs of experiments in folder `experiments` whose starting process is gone; return their ids."""
    left = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            mark = process.environ().get(MARK)
            folder = Path(mark.split(maxsplit=2)[2]) if mark else None
            if folder and folder.parent == experiments.resolve() and not _is_alive(mark):
                left[process] = folder.name
    _kill(list(left))
    return sorted(set(left.values()))


def _kill(processes: list[psutil.Process]) -> None:
    """Kill managers first, which would note of the others that something has killed them."""
    managers = [process for process in processes if _is_manager(process)]
    for group in (managers, processes):
        for process in group:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(group, timeout=1)


def _is_manager(process: psutil.Process) -> bool:
    try:
        return bool(_manager_flags(process.cmdline()))
    except psutil.Error:
        return False


def _manager_flags(words: list[str]) -> dict[str, str]:
    """Return the flags of a manager's command line, nothing for other processes."""
    start = next((number for number, word in enumerate(words) if word.endswith("nni_node/main.js")), None)
    return {} if start is None else dict(zip(words[start + 1 :: 2], words[start + 2 :: 2], strict=False))


def _mark(experiment) -> str:
    folder = Path(experiment.config.experiment_working_directory, experiment.id).resolve()
    return f"{os.getpid()} {OWN_START:.0f} {folder}"


def _is_alive(mark: str) -> bool:
    """Tell whether the process that left `mark` still runs. Its parent would not tell: orphans are re-parented."""
    pid, started, _ = mark.split(maxsplit=2)
    try:
        process = psutil.Process(int(pid))
        # the clock may have been set meanwhile, which moves start times a little
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(started)) < 5
    except psutil.NoSuchProcess:
        return False


def start_manager(experiment, port: int, events: Path, environ: dict[str, str]) -> None:
    """Start the manager of `experiment` (an nni Experiment with its config set), repaired and on 127.0.0.1 only.

    `events` is the file for `read_events`; `environ` is added to the environment of manager, tuner and trials. NNI's
    messages go to the experiment's log folder. Raises PortTaken, and RuntimeError with the reason where the manager
    does not come up or is not repaired; then, and on Ctrl-C, nothing is left running.
    """
    if not claim_port(port) or not port_is_free(port):
        raise PortTaken(f"port {port} is in use, or another search is starting there")
    check_nni()
    from nni.experiment import RunMode
    from nni.runtime.log import silence_stdout

    silence_stdout()  # NNI's lines name URLs on which nothing listens; its log file keeps them
    logging.getLogger("nni").addHandler(logging.NullHandler())
    events = Path(events).resolve()
    events.parent.mkdir(parents=True, exist_ok=True)
    offset = close_line(events)
    atexit.register(stop_manager, experiment)
    try:
        with _environment(_preload_environment(experiment, events) | environ), _patience():
            experiment.start(port, run_mode=RunMode.Detach)  # other modes print the manager's messages
        _check_repairs(events, offset)
        _check_addresses(experiment)
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


def _preload_environment(experiment, events: Path) -> dict[str, str]:
    users = os.environ.get("NODE_OPTIONS", "")
    path = str(PRELOAD).replace("\\", "\\\\").replace('"', '\\"')
    own = {"NODE_OPTIONS": f'--require "{path}" {users}'.strip(), "HPO_EVENTS": str(events), MARK: _mark(experiment)}
    return own | ({"HPO_NODE_OPTIONS": users} if users else {})


@contextlib.contextmanager
def _environment(extra: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started inside."""
    before = dict(os.environ)
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Let NNI's launcher wait for the manager as long as its process lives, at most START_SECONDS."""
    from nni.experiment import launcher

    original = launcher._check_rest_server

    def check(port: int, retry: int = 3, url_prefix: str | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while port_is_free(port) and _manager_runs() and time.monotonic() < deadline:
            time.sleep(0.1)
        original(port, retry, url_prefix)

    launcher._check_rest_server = check
    try:
        yield
    finally:
        launcher._check_rest_server = original


def _manager_runs() -> bool:
    """Tell whether a manager that this process has started lives."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and _is_manager(child):
                return True
    return False


def _check_repairs(events: Path, offset: int) -> None:
    """Check for the preload's word, written before the manager listened, that all is repaired. Raises RuntimeError."""
    if not any(event["event"] == "loaded" for event in read_events(events, offset)[0]):
        raise RuntimeError(f"it runs without the repairs of {PRELOAD.name}")


def _check_addresses(experiment) -> None:
    """Check that the manager listens on the loopback only. Raises RuntimeError."""
    connections = psutil.Process(experiment._proc.pid).net_connections("inet")
    hosts = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
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
    return list(_parsed(complete)), offset + len(complete)


def _parsed(lines: bytes) -> Iterator[dict]:
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):  # what a full disk or a kill has torn
            yield json.loads(line)


def stop_manager(experiment, seconds: float = STOP_SECONDS) -> None:
    """End the manager, its tuner and its trials; what still runs after `seconds` is killed. May be called again.

    Trials get SIGINT and have 5 s to end. Never raises; Ctrl-C during it kills the rest at once.
    """
    with contextlib.suppress(BaseException):
        _ask_to_stop(experiment, seconds)
    with _signals_ignored(), contextlib.suppress(Exception):
        _kill_family(experiment)
        experiment._proc = experiment.port = None
        experiment.stop()  # without a process: closes its log file


def _ask_to_stop(experiment, seconds: float) -> None:
    """Ask the manager to shut down, and wait for it."""
    managers = [process for process in _family(experiment) if _is_manager(process)]
    for manager in managers:
        manager.terminate()
    psutil.wait_procs(managers, timeout=seconds)


def _kill_family(experiment) -> None:
    """Kill all that the manager has started; again, as long as something new comes up."""
    deadline = time.monotonic() + 5
    while (family := _family(experiment)) and time.monotonic() < deadline:
        _kill(family)


def _family(experiment) -> list[psutil.Process]:
    """Return manager, tuner, trials and all below them: whatever carries the experiment's mark, orphans included."""
    mark, family = _mark(experiment), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                family.append(process)
    return family


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
