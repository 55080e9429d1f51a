"""Slots on a Dask cluster: one trial at a time on each of its workers, which may come and go.

A trial is bound to its worker and never tried twice, so that it counts once: where its worker dies, it was killed.
The workers need this repository and the data under the same paths, and this project's packages. Dask runs whatever
reaches its ports, without asking who sent it, but where the address is tls://: then only who has a certificate, as
Dask's own configuration names it (distributed.comm.tls), can reach them.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from runner.flags import UserMistake
from runner.slots import Ended

CONNECT_SECONDS = 10
WORKERS_SECONDS = 1.0  # how often the scheduler is asked which workers there are
RESTART_SECONDS = 30


@dataclass
class Task:
    """A trial on a worker."""

    trial: str
    future: object  # distributed.Future
    due: float  # when its time is over [monotonic s]


class DaskSlots:
    """The workers of the scheduler at `address`; each calls `function(words, start)`, see main_hpo.run_trial."""

    def __init__(self, address: str, root: Path, function: Callable, words: tuple[str, ...], seconds=None):
        name = f"{function.__module__}:{function.__name__}"
        self._client, self._run, self._words = connect(address), _caller(str(root), name), words
        self._stopping = False
        self._seconds = seconds or float("inf")
        self._tasks: dict[str, Task] = {}  # by the worker's address
        self._workers: set[str] = set()
        self._done = queue.SimpleQueue()  # addresses of workers whose trial has ended
        self._looked = -WORKERS_SECONDS
        self._look()

    def free(self) -> int:
        """Return how many trials can start now."""
        return len(self._workers - self._tasks.keys())

    def start(self, trial: dict) -> None:
        """Hand a trial (its start event) to a free worker."""
        worker = min(self._workers - self._tasks.keys())
        where = {"workers": [worker], "allow_other_workers": False}
        future = self._client.submit(self._run, self._words, trial, **where, pure=False, retries=0)
        self._tasks[worker] = Task(trial["trial"], future, time.monotonic() + self._seconds)
        future.add_done_callback(lambda _: self._done.put(worker))

    def wait(self, seconds: float) -> list[Ended]:
        """Wait until trials have ended, at most `seconds`; return those. Raises RuntimeError without a scheduler."""
        ended = []
        with contextlib.suppress(queue.Empty):
            while True:
                worker = self._done.get(timeout=0 if ended else seconds)
                if worker in self._tasks and self._tasks[worker].future.done():
                    ended.append(self._collect(worker))
        if time.monotonic() - self._looked > WORKERS_SECONDS:
            self._look()
        for worker, task in list(self._tasks.items()):
            if worker not in self._workers:
                ended.append(self._give_up(worker, "worker_gone"))
            elif self._stopping or time.monotonic() > task.due:
                ended.append(self._give_up(worker, "stopping" if self._stopping else "timed_out"))
                self._restart([worker])
        return ended

    def _look(self) -> None:
        """Ask which workers there are. Raises RuntimeError where the scheduler does not answer."""
        try:
            self._workers = set(self._client.nthreads())
        except Exception as error:  # whatever its connection raises
            raise RuntimeError(f"the Dask scheduler does not answer ({type(error).__name__})") from error
        self._looked = time.monotonic()

    def _collect(self, worker: str) -> Ended:
        task = self._tasks.pop(worker)
        end = {"time": time.time(), "exit_code": 0, "signal": None, "cause": None}
        try:
            return Ended(task.trial, end, *task.future.result(timeout=CONNECT_SECONDS))
        except Exception as error:  # such as the import of this repository
            end["exit_code"] = 1
            return Ended(task.trial, end, printed=f"{type(error).__name__}: {error}\n".encode())

    def _give_up(self, worker: str, cause: str) -> Ended:
        task = self._tasks.pop(worker)
        self._client.cancel([task.future])
        return Ended(task.trial, {"time": time.time(), "exit_code": None, "signal": None, "cause": cause})

    def _restart(self, workers: list[str]) -> None:
        """Have the nannies of workers end what these do; without nannies it goes on until it is done."""
        self._workers -= set(workers)
        with contextlib.suppress(Exception):
            self._client.restart_workers(workers, timeout=RESTART_SECONDS, raise_for_error=False)

    def interrupt(self) -> None:
        """Leave it at that: a Dask worker's trial cannot be asked to return what it has."""
        self._stopping = True

    def close(self) -> None:
        """End what still runs and leave the cluster."""
        if self._tasks:
            self._restart(list(self._tasks))
        self._client.close()


def is_open(address: str) -> bool:
    """Tell whether others on the network can reach a scheduler at `address` without a certificate."""
    scheme, _, rest = address.rpartition("://")
    host = rest.rpartition("@")[2].split("/")[0]
    host = host[1:].split("]")[0] if host.startswith("[") else host.split(":")[0]
    if scheme in ("tls", "wss", "inproc") or host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def connect(address: str):
    """Return a client of the Dask scheduler. Raises UserMistake where there is none, or no dask.distributed here."""
    try:
        from distributed import Client
    except ImportError:
        raise UserMistake("--dask needs dask.distributed: pip install distributed") from None
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserMistake(f"--dask {address}: no Dask scheduler answers there ({type(error).__name__})") from None
    except TypeError:  # as Dask answers to a missing certificate
        raise UserMistake(
            f"--dask {address}: Dask's configuration (distributed.comm.tls) names no certificate"
        ) from None


def check_cluster(address: str, root: Path, data_dir: Path | None) -> None:
    """Raise UserMistake where the cluster cannot be had or a worker lacks the repository or the data."""
    client = connect(address)
    with contextlib.closing(client):
        for folder in filter(None, (root, data_dir and Path(data_dir).resolve())):
            for worker, there in client.run(Path.is_dir, Path(folder)).items():
                if not there:
                    raise UserMistake(f"--dask {address}: worker {worker} has no folder {folder}")


def _caller(root: str, function: str) -> Callable:
    """Return what a worker does: run the trial; return its record, its weights and what it printed.

    A function within a function travels as its code: a worker cannot import it before it knows this repository's path.
    """

    def run_there(words: tuple[str, ...], trial: dict) -> tuple:
        import contextlib
        import importlib
        import io
        import sys

        if root not in sys.path:
            sys.path.insert(0, root)
        module, name = function.split(":")
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            found = getattr(importlib.import_module(module), name)(words, trial)
        return *found, printed.getvalue().encode()

    return run_there
