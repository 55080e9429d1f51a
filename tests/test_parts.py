"""Datasets and objectives found by their names: one's own in a copy without the others, and faulty ones."""

import json
import subprocess
import sys

import numpy as np
import pytest

import train_hpo
from loaders import Data
from search_spaces import parts
from tests.conftest import patient, write_space

# Class k has its events on channel k. The objective counts events per channel and takes the channel with the most.
GESTURES = """
import numpy as np
from loaders import Data

def load(data_dir):
    y = np.arange(60) % 3
    x = np.zeros((60, 5, 3), np.uint8)
    x[np.arange(60), 2, y] = 1
    return Data(x, y, ("left", "right", "up"), step_ms=5.0)
"""
LIQUID = """
from dataclasses import dataclass

import numpy as np

from models import Result
from models.liquid.net import Liquid as Net

KINDS = ("events",)

@dataclass(frozen=True)
class Params:
    sign: float = 1.0  # what counts are multiplied by [1]
    fits: bool = True

def train(params, splits, report, device, seed):
    model = {"sign": np.array(params.sign)}
    right = {part: (rebuild(model).predict(data.x) == data.y).mean() for part, data in splits._asdict().items()}
    report({"default": right["validation"]})
    metrics = {"default": float(right["validation"]), "test_accuracy": float(right["test"])}
    return Result(metrics, "ok", model, rebuild(model).predict(splits.test.x))

def check(params, data):
    if not params.fits:
        raise ValueError("it does not fit")

def rebuild(saved):
    return Net(saved["sign"])
"""
NET = """
class Liquid:
    def __init__(self, sign):
        self.sign = sign

    def predict(self, x):
        return (self.sign * x.sum(1, dtype=float)).argmax(1)
"""
SPACE = {"sign": {"_type": "uniform", "_value": [0.5, 2]}}


def write(repository, **files):
    for name, text in files.items():
        path = repository / name.replace("__", "/").replace("/init", "/__init__")
        path = path.with_name(f"{path.name}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    """A copy with a dataset and a model of one's own, in which nothing else is left that eprop_digits does without."""
    copy = copy_of_repository()
    for name in ("braille", "cifar", "images", "tonic_data"):
        (copy / "loaders" / f"{name}.py").unlink()
    for path in (copy / "simulator").glob("*"):
        path.unlink()
    (copy / "simulator").rmdir()
    write(copy, loaders__gestures=GESTURES, models__liquid__init=LIQUID, models__liquid__net=NET)
    write_space(copy, "liquid_gestures", SPACE)
    return copy


def run(repository, *words):
    words = [sys.executable, *words]
    return subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=patient(120))


def trial(repository, task, *flags):
    return run(repository, "main_hpo.py", "--task", task, *flags)


def test_a_copy_without_the_others_runs_its_own_tasks(repository):
    result = json.loads(trial(repository, "liquid_gestures").stdout)
    assert (result["status"], result["default"], result["test_accuracy"]) == ("ok", 1.0, 1.0)
    turned = json.loads(trial(repository, "liquid_gestures", "--params", '{"sign": -1}').stdout)
    assert turned["default"] == 0.0  # it takes a channel without events
    done = trial(repository, "eprop_digits", "--params", '{"epochs": 1, "neurons": 8}')
    assert json.loads(done.stdout)["status"] == "ok", done.stderr


def test_a_search_of_two_trials_runs_there(repository):
    done = run(repository, "nni_main.py", "liquid_gestures", "--headless", "--trials", "2", "--id", "two")
    assert done.returncode == 0, done.stderr
    journal = (repository / "experiments" / "two" / "journal.jsonl").read_text().splitlines()
    ended = [entry for entry in map(json.loads, journal) if "result" in entry]
    assert [(entry["status"], entry["result"]["default"]) for entry in ended] == [("ok", 1.0)] * 2
    code = "from reports.parameters import field_comments; print(field_comments('liquid_gestures'))"
    assert run(repository, "-c", code).stdout == "{'sign': ('what counts are multiplied by', '1')}\n"


# task -> what the one line on stderr says
MISTAKES = {
    "eprop_gesture": "unknown dataset 'gesture'; choose from: digits, gestures, pair",
    "liquids_gestures": "unknown objective 'liquids'; choose from: deep, eprop, liquid, pictures, plain, whetstone",
    "liquid_digits": "liquid takes events, but digits has images",
    "eprop_events": "loaders/events.py has no load, so events is no dataset; choose from: digits, gestures, pair",
    "eprop_left_right": "(loaders/left_right.py is not found: its name must have letters and digits only); choose from",
    "eprop_mnist": "loaders.images cannot be imported: ModuleNotFoundError: No module named 'loaders.images'",
    "eprop_broken": "loaders.broken cannot be imported: RuntimeError: too early (loaders/broken.py, line 2)",
    "eprop_unclosed": "loaders.unclosed cannot be imported: SyntaxError: '(' was never closed (unclosed.py, line 1)",
    "eprop_exiting": "loaders.exiting cannot be imported: SystemExit: 3 (loaders/exiting.py, line 1)",
    "eprop_pair": "the loader of pair must return loaders.Data, not tuple",
    "streamnet_digits": "simulator.params cannot be imported: ModuleNotFoundError: No module named 'simulator'",
    "metrics_digits": "models/metrics.py has no Params and no train, so metrics is no objective; choose from: deep",
    "kernels_digits": "models/kernels.py has no Params and no train, so kernels is no objective; choose from: deep",
    "half_digits": "models/half.py has no train, so half is no objective; choose from",
    "plain_digits": "models.plain: Params must be a dataclass, not <class 'models.plain.Params'>",
    "pictures_digits": "models/pictures.py: KINDS must be a tuple of events, signals, images, features, not 'images'",
    "deep_digits": "models.deep cannot be imported: RuntimeError: too late (models/deep/net.py, line 1)",
    "___init___digits": "unknown objective ''; choose from",
    "eprop_a.b": "unknown dataset 'a.b'; choose from",
}


@pytest.fixture(scope="module")
def faulty(repository):
    plain = "class Params: pass\ndef train(): pass\n"
    write(
        repository,
        loaders__broken="import os\nraise RuntimeError('too early')\n",
        loaders__unclosed="(",
        loaders__exiting="raise SystemExit(3)",
    )
    write(repository, loaders__left_right="def load(data_dir): pass", loaders__pair="def load(data_dir): return 1, 2")
    write(
        repository,
        models__half="class Params: pass",
        models__plain=plain,
        models__deep__net="raise RuntimeError('too late')",
    )
    write(repository, models__deep__init="from models.deep.net import Params, train", models__pictures=plain)
    with (repository / "models" / "pictures.py").open("a") as file:
        file.write('KINDS = "images"\n')
    for task in MISTAKES:
        write_space(repository, task, SPACE if task[:5] != "eprop" else {"lr": SPACE["sign"]})
    return repository


TRY_ALL = """
import sys, main_hpo
for task in sys.argv[1:]:
    print(main_hpo.trial(main_hpo.parse_arguments(["--task", task])))
"""


def test_what_is_wrong_with_a_part_is_one_line(faulty):
    done = run(faulty, "-c", TRY_ALL, *MISTAKES)
    lines = done.stderr.splitlines()
    assert done.stdout.split() == ["2"] * len(MISTAKES) and len(lines) == len(MISTAKES), done.stderr
    for line, (task, said) in zip(lines, MISTAKES.items(), strict=True):
        assert line.startswith(f"main_hpo.py: {task}: ") and said in line


def test_choices_are_read_not_imported(faulty):
    """A file that cannot be imported is a choice if its text defines what is needed."""
    code = "import sys; from search_spaces import parts; print(parts.names('models', ('Params', 'train')))"
    done = run(faulty, "-c", f"{code}; print(sorted(name for name in sys.modules if name[:6] == 'models'))")
    assert done.stdout.splitlines() == ["['deep', 'liquid', 'pictures', 'plain']", "[]"]


def test_loaders_and_models_are_imported_only_when_used(repository):
    code = "import sys, setup_hpo, train_hpo; print(*({}))".format(
        "name for name in sys.modules if name.partition('.')[0] in ('loaders', 'models', 'torch', 'tonic')"
    )
    assert set(run(repository, "-c", code).stdout.split()) == {"loaders", "models"}
    code = code.replace("; ", "; setup_hpo.load('digits'); ", 1)
    assert set(run(repository, "-c", code).stdout.split()) == {"loaders", "loaders.digits", "models"}


def test_helpers_are_no_choice():
    assert parts.names("loaders", ("load",)) == ["braille", "digits"]
    assert parts.names("models", train_hpo.NEEDED) == []


@pytest.mark.parametrize(
    "name", ["", "../x", "__init__", "a.b", "tonic_data", "/etc/x", "\0", "\ud800", "x" * 5000, "x y"]
)
def test_no_name_leads_elsewhere(name):
    with pytest.raises(ValueError, match=r"unknown dataset .*; choose from: braille, digits, other"):
        parts.find("loaders", name, ("load",), "dataset", {"other": print, "gone": "loaders.gone:load"})
    with pytest.raises(ValueError, match="unknown objective"):
        train_hpo.params_module(name)


@pytest.mark.parametrize(
    "dtype, step_ms, dims, kind",
    [
        ("uint8", 5.0, 3, "events"),
        ("float32", 5.0, 3, "signals"),
        ("uint8", None, 3, "images"),
        ("float32", None, 2, "features"),
    ],
)
def test_kinds_of_data(dtype, step_ms, dims, kind):
    data = Data(np.zeros((2,) * dims, dtype), np.zeros(2, np.int64), ("a", "b"), step_ms)
    assert train_hpo.kind_of(data) == kind


def test_the_check_tries_what_a_saved_net_is_rebuilt_by(repository):
    done = trial(repository, "liquid_gestures", "--check")
    assert done.returncode == 0 and "search space and data are in order; one epoch" in done.stdout
    forgetful = (
        LIQUID.replace("return Net(saved[", "return Flat(saved[")
        + """

class Flat(Net):
    def predict(self, x):
        return x.sum()
"""
    )
    write(repository, models__forgetful=forgetful)
    write_space(repository, "forgetful_gestures", SPACE)
    done = trial(repository, "forgetful_gestures", "--check")
    assert done.returncode == 2
    assert "rebuild(model).predict(x) must return an array of 8 classes" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = trial(repository, "liquid_gestures", "--params", '{"fits": false}')
    assert done.returncode == 2 and done.stderr == "main_hpo.py: liquid_gestures: it does not fit\n"
