"""One configuration trained again on several splits and seeds, each in a process of its own, and what the figures say.

    records = retrain("eprop_digits", {"lr": 0.01}, Path("retrained"), split_seeds=range(10))
    spread([record["result"]["test_accuracy"] for record in records])

What is in the folder already is not trained again, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from runner.flags import thread_environment
from runner.origin import code_hash
from runner.records import WITH_DEFAULT, read_record

ROOT = Path(__file__).resolve().parent.parent
STRIDE = 1000  # between the seeds of one split


def retrain(
    task: str,
    parameters: dict,
    folder: Path,
    split_seeds: Iterable[int],
    seeds: int = 1,
    first_seed: int = 0,
    flags: Iterable[str] = (),
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[dict]:
    """Train `parameters` (flat, on top of the task's defaults) on each split; return the records.

    seeds    trainings of a split: their seeds are first_seed + split, + STRIDE, + 2 STRIDE ... Each training has a seed
             of its own (of up to 1,000 splits), so that no seed's luck is in all splits; more later add to them.
    folder   gets split-0-seed-0/record.json and model.pt, and so on
    flags    more words for main_hpo.py, such as --data-dir and --test-seed
    workers  processes at once (default: the cores)
    advance  called for each training that is done, also for those that were there

    What is there already counts if the same code has made it: figures of two codes are not mixed. The records come
    split by split. Raises RuntimeError with main_hpo.py's last line where a training fails; then, and at Ctrl-C, the
    others are ended.
    """
    jobs = [(split, first_seed + split + STRIDE * number) for split in split_seeds for number in range(seeds)]
    running: set[subprocess.Popen] = set()
    code = code_hash(ROOT)

    def train(split: int, seed: int) -> dict:
        out = folder / f"split-{split}-seed-{seed}"
        if not _is_done(record := read_record(out), parameters, code):
            words = ["--task", task, "--params", json.dumps(parameters), "--out", str(out.resolve()), *flags]
            record = _run([*words, "--split-seed", str(split), "--seed", str(seed)], out, running)
        advance()
        return record

    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        futures = [pool.submit(train, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.send_signal(signal.SIGINT)
            raise
    return [future.result() for future in futures]


def _is_done(record: dict | None, parameters: dict, code: str) -> bool:
    """Tell whether a record is that of a complete training with these parameters by this code."""
    done = bool(record) and record["status"] in WITH_DEFAULT and record.get("code") == code
    return done and parameters.items() <= record["parameters"].items()


def _run(words: list[str], out: Path, running: set[subprocess.Popen]) -> dict:
    environment = os.environ | thread_environment(1)
    command = [sys.executable, "main_hpo.py", *words]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    running.add(process)
    try:
        lines = process.communicate()[1].decode().strip().splitlines()
    finally:
        running.discard(process)
    if process.returncode:
        raise RuntimeError(f"{out.name} ended with status {process.returncode}: {lines[-1] if lines else 'no word'}")
    return read_record(out)


def spread(values: list[float]) -> dict[str, float]:
    """Return median, mean, standard deviation (of a sample; 0 for one value), least and greatest of `values`."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "sd": deviation,
        "min": min(values),
        "max": max(values),
    }
