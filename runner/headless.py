"""A search without NNI's manager: no web UI, no port, no Node. One loop over slots, each of which runs one trial.

    python nni_main.py streamnet_mnist --headless --trials 1000

The tuner lives in this process, which alone writes the journal. A slot that becomes free gets a new configuration at
once. Slots are processes on this machine (runner/slots.py) or workers of a Dask cluster (runner/dask_slots.py).
"""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runner import asking
from runner.asking import Asker
from runner.records import append_line, parse_record, told_of, write_atomic, write_packed
from runner.resume import trials_of
from runner.search import Search, print_closing
from runner.slots import LocalSlots  # noqa: F401
from runner.texts import one_line

POLL_SECONDS = 0.3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """The first signal to end the search: it is looked at between two trials, so that none is entered by half."""

    number: int | None = None
    at_once = False  # a second one has come, or nothing runs any more: what follows is ignored

    @property
    def exit_status(self) -> int:
        """As a shell has it; 0 without a signal."""
        return 128 + self.number if self.number else 0

    def take(self, number: int, frame) -> None:
        """A signal handler; the second signal raises KeyboardInterrupt."""
        if self.number is None:
            self.number = number
        elif not self.at_once:
            self.at_once = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def signals_noted() -> Iterator[Stop]:
    """Note SIGINT, SIGTERM and SIGHUP in place of their handlers; what was ignored stays so."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop.take)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conduct(search: Search, tuner: Callable[[int], dict], seed: int, space: dict, slots) -> int:
    """Begin the search, or go on with it where its folder holds trials; returns the exit status.

    `tuner(seed)` describes the tuner (tuners.TUNERS). The results are written and the slots are closed in any case.
    """
    exit_status = 0
    with signals_noted() as stop:
        try:
            asker, again = take_up(search, tuner, seed, space)
            try:
                run(search, asker, slots, again, stop)
            finally:
                slots.close()
                note_times(search, asker)
        except (RuntimeError, OSError) as error:  # the tuner; a full disk
            search.console.print(f"nni_main.py: {one_line(error)}", soft_wrap=True)
            exit_status = 1
        except KeyboardInterrupt:  # the second Ctrl-C
            search.console.print("stopped at once")
        finally:
            stop.at_once = True
            slots.close()
        with contextlib.suppress(OSError):  # what could be written is
            search.cut_off()
            search.results.write_table()
        print_closing(search.results, search.console)
    return stop.exit_status or exit_status or (0 if search.results.best else 1)


def run(search: Search, asker: Asker, slots, again: list[dict], stop: Stop) -> None:
    """Run the search until its budget is spent, its time is over, the tuner has no more or `stop` has a signal.

    `again` are the start events of trials that an earlier run of the search left unfinished. Raises RuntimeError with
    one line where the tuner raises.
    """
    again = list(again)
    stopping = False
    with search.live():
        while True:
            more = not (stop.number or search.out_of_time()) and _fill(search, asker, slots, again)
            if not (search.running or more):
                break
            if stop.number and not stopping:
                stopping = True
                search.console.print(
                    f"stopping; {len(search.running)} running trials have 5 s to return what they have"
                )
                slots.interrupt()
            for ended in slots.wait(POLL_SECONDS):
                _take(search, asker, ended)
    search.finished = not stop.number


def _fill(search: Search, asker: Asker, slots, again: list[dict]) -> bool:
    """Start trials, first those of an earlier run, then new ones. Returns False where there is nothing left to start.

    True: only a free slot is lacking; on a cluster there may be none for a while.
    """
    while search.counts.total() + len(search.running) < search.trials:
        if slots.free() < 1:
            return True
        if again:
            start = again.pop(0)
        else:
            with _tuner_errors():
                proposal = asker.ask()
            if proposal is None:
                return False
            identifier, parameters = proposal
            start = {"event": "start", "trial": f"t{identifier:05}", "sequence": identifier}
            start |= {"parameter_id": identifier, "parameters": parameters}
        start = start | {"time": time.time()}
        append_line(search.events, start, sync=False)
        slots.start(start)
        search.running[start["trial"]] = start
    return False


def _take(search: Search, asker: Asker, ended) -> None:
    """Enter a trial that has ended: its folder, the journal, the progress line, the tuner."""
    start = search.running.pop(ended.trial)
    folder = trial_folder(search.results.folder, ended.trial)
    record = parse_record(ended.record) if ended.record else None
    if record:
        write_packed(folder, ended.record, ended.model, sync=False)
    if ended.printed:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "trial.stderr", ended.printed, sync=False)
    entry = search.take(start, ended.end, record)
    if entry["status"] != "interrupted":
        with _tuner_errors():
            asker.tell(start["parameter_id"], start["parameters"], told_of(entry))


def trial_folder(experiment: Path, trial: str) -> Path:
    """The folder of a trial: where Results looks for it."""
    return experiment / "environments" / "headless" / "trials" / trial


@contextlib.contextmanager
def _tuner_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"the tuner failed: {type(error).__name__}: {error}") from error


def take_up(search: Search, tuner: Callable[[int], dict], seed: int, space: dict) -> tuple[Asker, list[dict]]:
    """Return a tuner that knows what an earlier run of the search found, and the start events of trials to run again.

    Raises RuntimeError with one line where the tuner raises.
    """
    finished, again = trials_of(search.results.folder)
    search.count_earlier()
    if search.counts.total() >= search.trials:
        search.say_what_is_spent()
    search.results.name_best()  # the earlier run may have been killed before it did
    with _tuner_errors():
        asker = asking.take_up((tuner(seed), tuner(seed + len(finished))), space, finished, again)
    return asker, again


def note_times(search: Search, asker: Asker) -> None:
    """Append to the events where the time of this run went [s]; CPU time with that of the slots' processes apart."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    times = {"event": "times", "wall": time.time() - search.started, "tuner": asker.seconds}
    times |= {"cpu": own.ru_utime + own.ru_stime, "cpu_slots": others.ru_utime + others.ru_stime}
    append_line(search.events, times, sync=False)
