"""Where a test lacks what it needs (a browser, the data) it is skipped; with HPO_NO_SKIPS set it fails instead."""

import json
import os
import shutil
import signal
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch is imported: as in a trial, and two files are tested at a time

import pytest  # noqa: E402

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell has it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("HPO_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which HPO_NO_SKIPS forbids: {report.longrepr}"
    return report


def pytest_collection_modifyitems(items):
    """What runs searches in a copy of the repository is slow, as is what says so by its mark."""
    for item in items:
        if "copy_of_repository" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def copy_of_repository(tmp_path_factory):
    """Return a function that copies the repository, as a researcher does for a task: copy() -> its path."""

    def copy() -> Path:
        target = tmp_path_factory.mktemp("copy") / "a repository"  # a blank in the path must do no harm
        ignored = shutil.ignore_patterns(".*", "experiments", "docs", "tests", "__pycache__")
        shutil.copytree(ROOT, target, ignore=ignored)
        return target

    return copy


def patient(seconds: float) -> float:
    """A limit of time [s] for this machine as it is now: longer if more runs on it than it has cores."""
    return seconds * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


# Valid JSON of a wrong form, or too deep: what a resume skips.
WRONG_LINES = '{"parameter_id": 3}\n[1]\n{"event": "start"}\n' + "[" * 100_000 + "\n"


def journal_line(number: int, **others) -> dict:
    """A whole entry of a journal."""
    head = {"trial": f"t{number}", "parameter_id": number, "sequence": number, "parameters": {}, "status": "failed"}
    return head | {"cause": None, "result": {}, "seeds": {}, "repeats": [], "wall_seconds": 1.0} | others


def write_space(repository: Path, task: str, space: dict | str) -> None:
    """Write a search space into a copy of the repository."""
    text = space if isinstance(space, str) else json.dumps(space)
    (repository / "search_spaces" / f"{task}.json").write_text(text)
