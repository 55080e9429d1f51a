"""Does a bad input end in anything but one clear line? Seeded bad inputs, another seed each run.

    python -m benchmarks.fuzz [--inputs 1000] [--seed N] [--kind KIND] [--only NUMBER] [--quick] [--json FILE]

Command lines of the three programs, parameter sets, search spaces, data files and damaged experiment folders
(benchmarks/fuzz_inputs.py). Each runs a program's main() in a process of its own, forked from one that has imported
everything, in a temporary copy of the repository. Nothing is searched, but for a trial or two where an experiment is
resumed; what a program would start as a process of Python's is forked, too; a training sees 60 samples of each part.

A failure is a traceback, no end within --seconds, an exit status that is not right, or a mistake that is not told in
one to three printable lines. Each is shown with the command that repeats it; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import re
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from benchmarks import add_arguments, finish
from benchmarks.fuzz_inputs import KINDS, draw, draw_kind

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 60  # of each part that a training sees
MEMORY = 6 << 30  # bytes that an input may take beside what is there
FAULTS = ("traceback", "hang", "wrong exit status", "unclear words")
MOST_LINES, MOST_LETTERS = 3, 12_000  # of a mistake, which may show a long value
CHECK_SECONDS = 3
MAINS = ("nni_main.py", "main_hpo.py", "report_hpo.py")


def main() -> int:
    """Try the inputs; returns 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--seed", type=int, help="of all inputs (default: drawn anew)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one input, with what it prints")
    parser.add_argument("--kind", choices=KINDS, help="leave the other kinds out")
    parser.add_argument("--seconds", type=float, default=60, help="for each input (default 60)")
    add_arguments(parser)
    args = parser.parse_args()
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = prepare(Path(folder) / "repository")
        numbers = [args.only] if args.only is not None else range(60 if args.quick else args.inputs)
        counts = Counter()
        for number in numbers:
            if args.kind and draw_kind(random.Random(f"{seed} {number}")) != args.kind:
                continue
            kind, fault = attempt(seed, number, place, args)
            counts[kind, "inputs"] += 1
            counts[kind, fault] += 1
    rows = [
        {"name": f"{kind}: {what}", "value": counts[kind, what], "unit": ""}
        for kind in KINDS
        for what in ("inputs", *FAULTS)
    ]
    finish(rows, args)
    return 1 if any(counts[kind, fault] for kind in KINDS for fault in FAULTS) else 0


def prepare(place: Path) -> Path:
    """Make the copy of the repository, import all of it, and run the searches whose folders are damaged later."""
    ignored = shutil.ignore_patterns(".*", "experiments", "docs", "tests", "__pycache__")
    shutil.copytree(ROOT, place, ignore=ignored)
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / "simulator" / "__pycache__"))
    os.environ["HOME"] = str(place.parent)
    os.environ.pop("HPO_DATA_DIR", None)
    sys.path.insert(0, str(place))
    os.chdir(place)
    warm_up()
    for identifier, task, flags in (("streamnet", "streamnet_digits", []), ("eprop", "eprop_digits", [])):
        words = ["nni_main.py", task, "--id", identifier, "--headless", "--tuner", "random", "--trials", "2"]
        space = json.loads((place / "search_spaces" / f"{task}.json").read_text())
        space |= {"epochs": {"_type": "choice", "_value": [1]}} if task.startswith("eprop") else {}
        (place / "search_spaces" / f"{task}.json").write_text(json.dumps(space))
        status, said = run([*words, "--no-report", *flags], "utf-8", 300)
        if status != 0:
            raise SystemExit(f"the search {identifier} ended with {status}: {said}")
    shutil.copytree(place / "experiments" / "eprop", place / "experiments" / "with-nni")
    asked = json.loads((place / "experiments" / "with-nni" / "search.json").read_text())
    (place / "experiments" / "with-nni" / "search.json").write_text(json.dumps(asked | {"headless": False}))
    return place


def warm_up() -> None:
    """Import what the programs import, so that each forked process has it."""
    import distributed  # noqa: F401
    import h5py  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import nni.experiment  # noqa: F401
    import optuna  # noqa: F401
    import pandas  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import tonic  # noqa: F401

    import main_hpo  # noqa: F401
    import nni_main  # noqa: F401
    import report_hpo  # noqa: F401
    from loaders import braille, cifar, digits, events, images, tonic_data  # noqa: F401
    from models import bits, saved, training, whetstone_training  # noqa: F401
    from reports import compare, final, sections  # noqa: F401
    from runner import dask_slots, database, headless, managed, retrain  # noqa: F401
    from simulator import objective  # noqa: F401


def attempt(seed: int, number: int, place: Path, args: argparse.Namespace) -> tuple[str, str]:
    """Make one input, run it and judge it; returns its kind and its fault, "" for none. A fault is printed."""
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        try:
            case = draw(random.Random(f"{seed} {number}"), place, Path(scratch))
            began = time.monotonic()
            status, said = run(case.words, case.encoding, args.seconds)
        finally:
            for path in (place / "search_spaces").glob("*fuzzed*"):
                path.unlink() if not path.is_dir() else path.rmdir()
    fault = judge(status, said, case.statuses)
    if fault or args.only is not None:
        words = " ".join(
            repr(word) if len(word) < 80 else f"{word[:60]!r}... ({len(word)} letters)" for word in case.words
        )
        print(f"{number} {case.kind}: {fault or 'in order'}, exit status {status}, {time.monotonic() - began:.1f} s")
        print(f"    {words}\n    {ascii(case.about)}")
        shown = said if args.only is not None else said[-600:]
        print("".join(f"    | {line}\n" for line in shown.encode("ascii", "backslashreplace").decode().splitlines()))
        print(f"    python -m benchmarks.fuzz --seed {seed} --only {number}", flush=True)
    return case.kind, fault


def judge(status: int | None, said: str, right: frozenset[int]) -> str:
    """Return what is wrong with how an input ended (see FAULTS), "" for nothing. `status` None: it did not end."""
    if status is None:
        return "hang"
    if "Traceback (most recent call last)" in said or "Exception ignored" in said:
        return "traceback"
    if status not in right:
        return "wrong exit status"
    mistake = said.partition("\0")[2]
    unclear = not mistake.strip() or len(mistake.splitlines()) > MOST_LINES or len(mistake) > MOST_LETTERS
    if (status == 2 and unclear) or re.search(r"[\x01-\x08\x0b-\x1f\x7f]", said):
        return "unclear words"
    return ""


def run(words: list[str], encoding: str, seconds: float) -> tuple[int | None, str]:
    """Run a program's main() in a forked process; return its exit status (None: killed after `seconds`) and output.

    The output is what went to stdout, a NUL, and what went to stderr.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            os._exit(inside(words, encoding, out.fileno(), err.fileno()))
        status = wait_for(pid, seconds)
        out.seek(0), err.seek(0)
        texts = [file.read(2**20).decode("utf-8", "backslashreplace").replace("\0", "\\0") for file in (out, err)]
    return status, "\0".join(texts)


def wait_for(pid: int, seconds: float) -> int | None:
    """Return a process's exit status, None where it had to be killed; its group ends with it."""
    deadline, ended = time.monotonic() + seconds, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        os.waitpid(pid, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def inside(words: list[str], encoding: str, out: int, err: int) -> int:
    """What the forked process does; returns the exit status as Python itself would have it."""
    from runner.parents import die_with_parent

    status = 1
    try:
        os.setsid()
        die_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1), os.dup2(err, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding=encoding)
        sys.stderr = io.TextIOWrapper(os.fdopen(os.dup(2), "wb"), encoding=encoding, errors="backslashreplace")
        limit = resource.getrlimit(resource.RLIMIT_AS)[1]
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, limit))
        confine()
        status = call_main(words)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush(), sys.stderr.flush()
    return status


def call_main(words: list[str]) -> int:
    """Call the main() of a program with a command line."""
    import main_hpo
    import nni_main
    import report_hpo

    sys.argv = words
    program = dict(zip(MAINS, (nni_main, main_hpo, report_hpo), strict=True))[words[0]]
    try:
        return program.main() or 0
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1


def confine() -> None:
    """Put forks in place of Python's processes, a few samples in place of the data, and an end in place of a start."""
    from nni.runtime.log import silence_stdout

    import main_hpo
    import nni_main
    import setup_hpo
    from loaders import braille
    from runner import dask_slots

    spawned, split, context = subprocess.run, setup_hpo.split, multiprocessing.get_context
    search = nni_main.search

    def run_python(words, **options):
        if words[0] != sys.executable or words[1] not in MAINS:
            return spawned(words, **options)
        status, said = run([str(word) for word in words[1:]], "utf-8", 1000)
        return subprocess.CompletedProcess(words, status, *said.split("\0"))

    def few(*arguments):
        return setup_hpo.Splits(*(part.take(range(min(SAMPLES, len(part.y)))) for part in split(*arguments)))

    def start_nothing(*arguments, **others):
        silence_stdout()  # as the start does
        sys.exit(0)

    subprocess.run, setup_hpo.split = run_python, few
    multiprocessing.get_context = lambda _=None: context("fork")
    nni_main.start_manager = start_nothing
    nni_main.search = lambda args, space: search(args, space) if args.resume or args.id in BASES else 0
    main_hpo.CHECK_SECONDS, dask_slots.CONNECT_SECONDS = CHECK_SECONDS, 1
    expect_files_as_they_are(braille)


BASES = ("streamnet", "eprop")  # ids of the searches that are really run


def expect_files_as_they_are(braille) -> None:
    """Take the published Braille files for right whatever they hold, so that what is inside is looked at."""

    class Any(str):
        def __ne__(self, other):
            return False

        __hash__ = str.__hash__

    for name in braille.BLOB_IDS:
        braille.BLOB_IDS[name] = Any()


if __name__ == "__main__":
    sys.exit(main())
