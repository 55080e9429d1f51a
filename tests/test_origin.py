"""What a score comes from: which changes of code, data and packages are noticed, and what a resume says of them."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from loaders import Data
from runner.origin import changes, code_hash, fingerprint
from tests.conftest import patient, write_space
from tests.test_search import table

# A dataset that depends on one file, and an objective whose score does, too.
DRIFTING = """

def load_level(data_dir):
    x = np.full((60, 4, 4), int((Path(data_dir) / "level").read_text()), np.uint8)
    return Data(x, np.arange(60) % 3, ("a", "b", "c"))


DATASETS["level"] = load_level
"""
LEVEL = """

from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class LevelParams:
    weight: float = 0.5


def train_level(params, splits, report, device, seed):
    return Result({"default": float(splits.train.x[0, 0, 0])}, "ok", None)


OBJECTIVES["level"] = Objective("train_hpo:LevelParams", train_level, ("images",))
"""


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    copy = copy_of_repository()
    for name, text in (("setup_hpo.py", DRIFTING), ("train_hpo.py", LEVEL)):
        with (copy / name).open("a") as file:
            file.write(text)
    write_space(copy, "level_level", {"weight": {"_type": "uniform", "_value": [0, 1]}})
    return copy


@pytest.fixture
def tree(tmp_path):
    for name in ("main.py", "search_spaces/__init__.py", "search_spaces/a.json", "models/deep/net.py", "models/net.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "models" / "deep" / "__init__.py").write_text("")
    return tmp_path


def hash_of(tree):
    code_hash.cache_clear()
    return code_hash(tree)


@pytest.mark.parametrize(
    "name", ["main.py", "own.py", "search_spaces/a.json", "search_spaces/b.json", "models/deep/net.py", "models/x.py"]
)
def test_code_that_a_trial_can_read_counts(tree, name):
    before = hash_of(tree)
    (tree / name).write_text("2")
    assert hash_of(tree) != before


@pytest.mark.parametrize(
    "name",
    [
        "experiments/a/search.json",
        "runs/a/search.json",  # --experiments runs
        "repeated/record.json",
        ".venv/lib/x.py",
        "env/lib/x.py",
        "data/x.json",
        "data/x.py",
        "tests/test_x.py",
        "docs/conf.py",
        "benchmarks/x.py",
        "main.pyc",
        "models/__pycache__/x.pyc",
        "machines.json",
        ".#main.py",  # an editor's
    ],
)
def test_what_no_trial_reads_does_not_count(tree, name):
    before = hash_of(tree)
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text("2")
    assert hash_of(tree) == before


def test_links_that_lead_nowhere_and_folders_named_like_files_do_no_harm(tree):
    before = hash_of(tree)
    (tree / "models" / "round.json").symlink_to("round.json")
    (tree / "models" / "gone.py").symlink_to("nowhere")
    (tree / "models" / "odd.py").mkdir()
    assert hash_of(tree) != before


def test_a_moved_line_between_two_files_counts(tree):
    (tree / "main.py").write_text("ab")
    before = hash_of(tree)
    (tree / "main.py").write_text("a")
    (tree / "models" / "net.py").write_text("b1")
    assert hash_of(tree) != before


DATA = Data(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([0, 1]), ("a", "b"))


def test_equal_data_has_one_fingerprint_however_it_lies_in_memory():
    turned = np.asfortranarray(DATA.x)
    assert not turned.flags.c_contiguous
    assert fingerprint(DATA) == fingerprint(replace(DATA, x=turned)) == fingerprint(replace(DATA, x=DATA.x.copy()))


@pytest.mark.parametrize(
    "changed",
    [
        {"x": DATA.x.reshape(2, 4, 3)},
        {"x": DATA.x.view(np.int8)},
        {"x": DATA.x[::-1]},
        {"y": np.array([1, 0])},
        {"y": np.array([0, 1], np.int32)},
        {"class_names": ("a", "c")},
        {"step_ms": 1.0},
        {"test": DATA},
        {"x": np.array([{"a": 1}, None])},
    ],
)
def test_other_data_has_another_fingerprint(changed):
    assert fingerprint(replace(DATA, **changed)) != fingerprint(DATA)


def test_lines_on_what_differs():
    before = {"code": "aa", "versions": {"torch": "2.12.0", "nni": "3.0", "optuna": "4.0"}}
    assert changes(before, before) == []
    now = {"code": "bb", "versions": {"torch": "2.13.0", "nni": "3.0", "numba": "0.6"}}
    code, versions = changes(before, now)
    assert code.startswith("the code has changed since: aa, now bb;")
    assert versions.endswith("since: numba none, now 0.6; optuna 4.0, now none; torch 2.12.0, now 2.13.0")
    for older in ({}, {"code": "aa"}):
        (line,) = changes(older, now)
        assert "cannot be told" in line


def run(repository, data, *flags):
    words = [sys.executable, "nni_main.py", *flags, "--no-report", "--data-dir", str(data), "--concurrency", "1"]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=patient(250))
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def forget(path, lines):
    """Bring a file to the form that it had before code, data and versions were noted."""
    older = [{key: line[key] for key in line.keys() - {"code", "data", "versions"}} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in older))


@pytest.mark.parametrize("mode", ["headless", "nni", "unchecked"])
def test_a_resume_says_what_has_changed_and_refuses_other_data(repository, tmp_path, mode):
    (tmp_path / "level").write_text("1")
    flags = ["level_level", "--id", mode, "--trials", "1", "--tuner", "random"]
    flags += {"headless": ["--headless"], "nni": [], "unchecked": ["--headless", "--no-check"]}[mode]
    assert run(repository, tmp_path, *flags)[0] == 0
    folder = repository / "experiments" / mode
    asked = json.loads((folder / "search.json").read_text())
    (entry,) = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    assert asked["code"] == entry["code"] and asked["data"] == (None if mode == "unchecked" else entry["data"])
    assert len(entry["data"]) == 10

    asked["versions"]["numpy"] = "1.0"
    (folder / "search.json").write_text(json.dumps(asked))
    with (repository / "train_hpo.py").open("a") as file:
        file.write("# changed\n")
    (tmp_path / "level").write_text("2")
    resume = ["--resume", mode, "--trials", "2"]
    status, said = run(repository, tmp_path, *resume)
    assert status == 2 and f"--resume {mode}: its data has changed since ({entry['data']}, now " in said
    status, said = run(repository, tmp_path, *resume, "--accept-changes")
    assert status == 0, said
    for line in ("the code has changed since", "package versions have changed since: numpy 1.0, now", "its data has"):
        assert said.count(f"note: {mode}: {line}") == 1
    first, second = table(folder)
    assert (first["default"], second["default"]) == ("1.0", "2.0")
    assert first["code"] == asked["code"] != second["code"]
    status, said = run(repository, tmp_path, *resume)  # the data is now that of the last run
    assert status == 0 and "has changed" not in said and "have changed" not in said

    forget(folder / "search.json", [json.loads((folder / "search.json").read_text())])
    forget(folder / "journal.jsonl", map(json.loads, (folder / "journal.jsonl").read_text().splitlines()))
    status, said = run(repository, tmp_path, *resume)
    assert status == 0 and said.count("cannot be told") == 1


def test_accept_changes_needs_a_resume(repository, tmp_path):
    status, said = run(repository, tmp_path, "level_level", "--accept-changes")
    assert (status, said) == (2, "nni_main.py: --accept-changes needs --resume")
