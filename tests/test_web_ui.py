"""The default task, searched for real and watched in NNI's web UI with a real browser; every number compared."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.swaps import ask, count_differences, read_table
from runner.records import read_record
from tests.conftest import patient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TRIALS = 6


def browser():
    """A headless Chromium that talks to nobody but the page."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--window-size=1400,1000",
    ):
        options.add_argument(flag)
    options.binary_location = (
        shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    )
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """Run a short search with --keep; yield (folder, REST answers, texts of the web UI's pages)."""
    folder = tmp_path_factory.mktemp("experiments")
    words = [sys.executable, "nni_main.py", "--trials", str(TRIALS), "--concurrency", "2", "--keep", "--no-check"]
    words += ["--experiments", str(folder), "--id", "watched", "--tuner", "random"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("finished"):
            break
    url = next(line.split()[-1] for line in lines if line.startswith("web UI: "))
    try:
        answers = {name: ask(url, name) for name in ("trial-jobs", "export-data", "metric-data")}
        yield folder / "watched", answers, url
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=patient(60))
    assert process.returncode == 0
    assert (folder / "watched" / "report" / "index.html").exists()  # made after the web UI has gone


def test_numbers_agree_everywhere(search):
    folder, answers, _ = search
    counts = count_differences(folder, answers)
    assert counts.pop("trials") == TRIALS
    assert set(counts.values()) == {0}, counts


def test_what_nni_is_told(search):
    _, answers, _ = search
    for metric in answers["metric-data"]:
        told = json.loads(json.loads(metric["data"]))
        assert 0 <= told["default"] <= 1
        assert not [name for name in told if name.startswith("test")], "nobody shall choose by test accuracy"
        assert all(isinstance(value, int | float) for value in told.values())


def test_trials_run_on_one_thread_and_repeat_alone(search):
    folder, _, _ = search
    records = [read_record(path.parent) for path in folder.glob("environments/*/trials/*/record.json")]
    assert [record["torch_threads"] for record in records] == [1] * TRIALS
    best = json.loads((folder / "best.json").read_text())
    assert best["default"] == max(float(row["default"]) for row in read_table(folder))
    words = shlex.split(best["command"])[: -len(["--out", "repeated"])]
    alone = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=patient(120))
    repeated = json.loads(alone.stdout)
    assert {name: repeated[name] for name in best["result"] if name != "seconds"} == {
        name: value for name, value in best["result"].items() if name != "seconds"
    }


@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromedriver: the web UI is not opened in a browser")
def test_web_ui_shows_the_search(search, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    folder, _, url = search
    best = json.loads((folder / "best.json").read_text())
    page = browser()
    try:
        page.get(f"{url}/oview")
        text = WebDriverWait(page, 30).until(
            lambda page: "DONE" in page.find_element(By.TAG_NAME, "body").text and page
        )
        text = page.find_element(By.TAG_NAME, "body").text
        assert "eprop_digits" in text and "watched" in text
        assert f"{best['default']:.6f}"[:6] in text, "the best metric is not on the overview"
        page.get(f"{url}/detail")
        WebDriverWait(page, 30).until(lambda page: page.find_elements(By.TAG_NAME, "canvas"))
    finally:
        page.quit()
