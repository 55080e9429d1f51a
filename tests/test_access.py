"""Nobody but its owner reads, steers or ends a search: another user of the machine tries it throughout."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import psutil
import pytest

from benchmarks.intruder import intruder
from runner.ports import next_free_port
from runner.web_address import FILE
from tests.conftest import patient, write_space
from tests.test_search import FAULTY, processes_of, table

pytestmark = pytest.mark.slow

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root is another user")
TRIALS = 6


@pytest.fixture(scope="module")
def place(copy_of_repository):
    """A copy of the repository, and the two folders that NNI and the user share with others, of mode 755."""
    repository = copy_of_repository()
    with (repository / "train_hpo.py").open("a") as file:
        file.write(FAULTY)
    write_space(repository, "faulty_digits", {"weight": {"_type": "uniform", "_value": [0, 1]}})
    shared = Path(tempfile.mkdtemp())
    home, experiments = shared / "home", shared / "experiments"
    for folder in (shared, home, experiments, home / "nni-experiments"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    yield SimpleNamespace(repository=repository, home=home, experiments=experiments, folder=experiments / "watched")
    shutil.rmtree(shared)


def start(place, *flags):
    words = [sys.executable, "nni_main.py", "faulty_digits", "--no-report", "--experiments", place.experiments, *flags]
    environ = os.environ | {"HOME": str(place.home)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=place.repository, env=environ, **pipes)


def read_until(process, pattern):
    """Return what the pattern's group finds in the output; it must come."""
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match[1]
    raise AssertionError("the process ended before")


def holders(place, *secrets):
    """What holds a secret that somebody else may see: files and command lines."""
    files = [path for root in (place.experiments, place.home) for path in root.rglob("*") if path.is_file()]
    files += Path(tempfile.gettempdir()).glob(".tensorboard-info/*")
    found = [path.name for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return found + [line for line in lines if any(secret in line for secret in secrets)]


def own_mode(path):
    return f"{path.stat().st_mode & 0o777:o}"


@pytest.fixture(scope="module")
def searched(place):
    """A search under attack from before its start to after its end."""
    port = next_free_port(21000)
    with intruder({port: 403}, place.experiments, place.home) as seen:
        process = start(place, "--id", "watched", "--port", str(port), "--trials", str(TRIALS), "--keep", "--no-check",
                        "--tuner", "random")  # fmt: skip
        url = read_until(process, r"^web UI: (\S+)")
        read_until(process, "^(1/6 done)")  # another trial runs
        during = SimpleNamespace(holders=holders(place, url.rpartition("/")[2]))
        listed = subprocess.run(
            [sys.executable, "nni_main.py", "--experiments", place.experiments, "--list"],
            cwd=place.repository, capture_output=True, text=True,
        )  # fmt: skip
        read_until(process, "^(finished)")
        during.modes = own_mode(place.folder), own_mode(place.folder / FILE)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=patient(60))
    after = holders(place, url.rpartition("/")[2])
    return SimpleNamespace(url=url, seen=seen, during=during, listed=listed.stdout, after=after, output=output,
                           status=process.returncode)  # fmt: skip


@needs_root
def test_another_user_is_refused_everything_during_a_search(searched):
    assert searched.seen["answered"] == []
    assert set(searched.seen["statuses"]) <= {"403", "None"} and searched.seen["statuses"]["403"] > 100


@needs_root
def test_the_search_ends_as_if_nobody_had_tried(searched, place):
    assert searched.status == 0, searched.output
    rows = table(place.folder)
    assert [int(row["parameter_id"]) for row in rows] == list(range(TRIALS))
    assert all(row["status"] == "ok" and row["default"] == row["weight"] for row in rows)
    assert processes_of(place.repository) == []


@needs_root
def test_the_secret_lies_in_one_file_while_the_search_runs_and_nowhere_afterwards(searched):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[0-9a-f]{32}", searched.url)
    assert searched.during.holders == [FILE]
    assert searched.during.modes == ("700", "600")
    assert searched.after == []


@needs_root
def test_list_prints_the_address_of_a_running_search_only(searched, place):
    assert f"web UI of watched: {searched.url}" in searched.listed
    words = [sys.executable, "nni_main.py", "--experiments", place.experiments, "--list"]
    later = subprocess.run(words, cwd=place.repository, capture_output=True, text=True).stdout
    assert "watched" in later and "http" not in later


def told(url, method="GET", data=None, **headers):
    """Status of the owner's request."""
    body = json.dumps(data).encode() if data is not None else None
    request = Request(url, body, {"Content-Type": "application/json"} | headers, method=method)
    with urlopen(request, timeout=patient(60)) as answer:
        return json.load(answer)


@needs_root
def test_view_and_tensorboard_are_as_well_kept(searched, place):
    port = next_free_port(22000)
    process = start(place, "--view", "watched", "--port", str(port))
    try:
        url = read_until(process, r"trials at (\S+) until Ctrl-C")
        trial = told(f"{url}/api/v1/nni/trial-jobs")[0]["trialJobId"]
        board = told(f"{url}/api/v1/nni/tensorboard", "POST", {"trials": trial})["port"]
        board_port, board_secret, _ = re.fullmatch(r"(\d+)/([0-9a-f]{32})(/)", board).groups()
        wait_for_board(f"http://127.0.0.1:{board}")
        other = told(f"{url}/api/v1/nni/tensorboard", "POST", {"trials": trial})["port"]
        assert other.split("/")[1] != board_secret
        with intruder({port: 403, int(board_port): 404}, place.experiments, place.home) as seen:
            time.sleep(3)
        secrets = [url.rpartition("/")[2], board_secret, other.split("/")[1]]
        assert holders(place, *secrets) == [FILE]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=patient(60))
    assert process.returncode == 0
    assert seen["answered"] == []
    assert set(seen["statuses"]) == {"403", "404"} and min(seen["statuses"].values()) > 20
    assert url != searched.url and secrets[0] != searched.url.rpartition("/")[2]
    assert holders(place, *secrets) == [] and processes_of(place.repository) == []


@needs_root
def test_who_takes_the_port_of_a_dead_manager_is_told_nothing(place):
    """Tuner and trials would connect again, hand over the secret and run what they are sent."""
    port = next_free_port(23000)
    process = start(place, "--id", "squatted", "--port", str(port), "--trials", "4", "--tuner", "random", "--no-check")
    read_until(process, r"^web UI: (\S+)")
    read_until(process, "^(1/4 done)")
    with intruder({port: None}) as seen:
        time.sleep(1)
        children = psutil.Process(process.pid).children(recursive=True)
        (manager,) = [child for child in children if any("nni_node/main.js" in word for word in child.cmdline())]
        manager.kill()
        output, _ = process.communicate(timeout=patient(200))
    assert process.returncode == 0, output
    assert seen["received"] == [] and seen["visitors"] > 0
    rows = table(place.experiments / "squatted")
    assert sorted(int(row["parameter_id"]) for row in rows) == list(range(4)), output
    assert {row["status"] for row in rows} <= {"ok", "killed"}


def wait_for_board(url):
    deadline = time.monotonic() + patient(90)
    while time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("TensorBoard does not answer")
