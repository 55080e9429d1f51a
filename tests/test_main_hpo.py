"""The trial as a command: what it prints, what it refuses, what it writes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reports.interval import right_of
from tests.conftest import patient, write_space
from tests.test_search import processes_of, wait_until

ROOT = Path(__file__).parent.parent
QUICK = {"epochs": 2, "neurons": 16}


def main_hpo(*flags, params=QUICK):
    words = [sys.executable, "main_hpo.py", "--task", "eprop_digits", "--params", json.dumps(params), *flags]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_prints_its_result_and_writes_only_with_out(tmp_path):
    done = main_hpo("--out", str(tmp_path / "a"))
    result = json.loads(done.stdout)
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    assert done.returncode == 0 and result["status"] == "ok" and 0 < result["default"] <= 1
    assert record["result"] == {name: value for name, value in result.items() if name != "status"}
    assert record["parameters"].items() >= QUICK.items()
    assert record["torch_threads"] == 1
    assert record["seeds"] == {"seed": 0, "split_seed": 0, "test_seed": 0, "repeats": 1}
    assert [epoch["epoch"] for epoch in record["curve"]] == [1, 2] and record["curve"][-1]["default"] == result[
        "default"
    ]
    assert_confusion_agrees(record)
    model = torch.load(tmp_path / "a" / "model.pt", weights_only=True)
    assert sum(weights.numel() for weights in model["state_dict"].values()) > 16 * 16

    again = json.loads(main_hpo().stdout)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    assert json.loads(main_hpo("--seed", "1").stdout)["spikes_per_inference"] != result["spikes_per_inference"]


def assert_confusion_agrees(record):
    """Its rows are the test part's classes, 20 % of 1,797 digits, and its diagonal is the test accuracy."""
    rows = record["confusion"]
    right = sum(row[place] for place, row in enumerate(rows))
    assert len(rows) == 10 and sum(map(sum, rows)) == 359 and {sum(row) for row in rows} <= {34, 35, 36, 37}
    assert right / 359 == pytest.approx(record["result"]["test_accuracy"], abs=1e-12)
    assert right_of(record).sum() == right and len(right_of(record)) == 359


def test_streamnet_trial_imports_no_torch_and_keeps_arrays(tmp_path):
    code = "import sys, main_hpo; status = main_hpo.main(); print(sorted({'torch', 'tonic', 'nni'} & set(sys.modules)))"
    words = [sys.executable, "-c", code, "--task", "streamnet_digits", "--out", tmp_path]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=patient(120))
    result, imported = done.stdout.splitlines()
    assert json.loads(result)["status"] == "ok" and imported == "[]", done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.npz", "record.json"]
    assert np.load(tmp_path / "model.npz")["n_classes"] == 10
    assert_confusion_agrees(json.loads((tmp_path / "record.json").read_text()))


@pytest.mark.slow
def test_repeats_give_the_mean(tmp_path):
    main_hpo("--repeats", "2", "--out", str(tmp_path))
    record = json.loads((tmp_path / "record.json").read_text())
    singles = [repeat["default"] for repeat in record["repeats"]]
    assert len(singles) == 2
    assert record["result"]["default"] == pytest.approx(sum(singles) / 2, abs=1e-12)


@pytest.mark.slow
def test_sigint_keeps_the_best_so_far(tmp_path):
    words = [sys.executable, "main_hpo.py", "--task", "eprop_digits", "--params", '{"epochs": 1000}', "--out", tmp_path]
    code = "import sys, main_hpo as m; m.report_epoch = lambda metrics: print('epoch', flush=True); sys.exit(m.main())"
    process = subprocess.Popen([sys.executable, "-c", code, *words[2:]], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "epoch\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=patient(60))
    assert process.returncode == -signal.SIGINT
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["status"] == "interrupted" and 0 < record["result"]["default"] <= 1
    assert (tmp_path / "model.pt").exists()


def test_check_passes_and_trains_no_more_than_an_epoch():
    done = main_hpo("--check", params={})
    assert done.returncode == 0
    assert "search space and data are in order; one epoch" in done.stdout


# Objectives that no exception reaches: the first catches it, as numba's compiler did, the second never leaves C.
DEAF = """

import collections, dataclasses, itertools, time


def train_catching(params, splits, report, device, seed):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass


def train_counting(params, splits, report, device, seed):
    collections.deque(itertools.repeat(None), maxlen=0)


@dataclasses.dataclass(frozen=True)
class DeafParams:
    weight: float = 0.5


OBJECTIVES["catching"] = Objective("train_hpo:DeafParams", train_catching, ("images",))
OBJECTIVES["counting"] = Objective("train_hpo:DeafParams", train_counting, ("images",))
"""


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    copy = copy_of_repository()
    with (copy / "train_hpo.py").open("a") as file:
        file.write(DEAF)
    for name in ("catching", "counting"):
        write_space(copy, f"{name}_digits", {"weight": {"_type": "uniform", "_value": [0, 1]}})
    return copy


@pytest.mark.parametrize("name", ["catching", "counting"])
def test_the_check_ends_in_time_whatever_the_training_does(name, repository):
    code = "import sys, main_hpo; main_hpo.CHECK_SECONDS = 1; sys.exit(main_hpo.main())"
    words = [sys.executable, "-c", code, "--task", f"{name}_digits", "--check"]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=patient(120))
    assert done.returncode == 0 and not done.stderr
    said = f"{name}_digits: search space and data are in order; one epoch with the defaults takes longer than 1 s\n"
    assert done.stdout.endswith(said)
    assert processes_of(repository) == []


def test_a_signal_ends_the_check_with_its_training(repository):
    words = [sys.executable, "main_hpo.py", "--task", "counting_digits", "--check"]
    process = subprocess.Popen(words, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b'{"data": ')
    process.terminate()
    process.communicate(timeout=patient(60))
    assert process.returncode == -signal.SIGTERM
    wait_until(lambda: processes_of(repository) == [])


@pytest.mark.parametrize(
    "flags, params, message",
    [
        (["--task", "eprop_digit"], {}, "unknown task 'eprop_digit'"),
        ([], {"lr": -1}, "lr"),
        ([], {"lrr": 1}, "unknown parameter 'lrr' (did you mean 'lr'?)"),
        ([], {"neurons": 3.5}, "neurons"),
        ([], {"reset": "hard"}, "subtract"),
        ([], [1], "--params must be a JSON object"),
        ([], {"alif_fraction": 10**400}, "alif_fraction must be a number at least 0"),
        ([], {"epochs": 10**400}, "epochs must be an integer at least 1"),
        (["--params", "[" * 100_000], {}, "--params is not valid JSON"),
        (["--params", '{"lr": ' + "1" * 5000 + "}"], {}, "--params is not valid JSON"),
        (["--params", "{lr: 1}"], {}, "--params is not valid JSON"),
        (["--params", "[" * 20_000], {}, "--params is not valid JSON"),
        (["--seed", "-1"], {}, "must be an integer from 0 to 2147483647, not '-1'"),
        (["--threads", "0"], {}, "must be an integer of at least 1"),
        (["--device", "tpu"], {}, "tpu"),
        (["--sed", "1"], {}, "unrecognized arguments: --sed"),
        (["--seed", "99999999999999999999"], {}, "must be an integer from 0 to 2147483647"),
        (["--out", "README.md/x"], {}, "--out README.md/x: Not a directory"),
        ([], {"time_jitter": 5}, "only events can be augmented"),
    ],
)
def test_mistakes_get_one_line(flags, params, message):
    done = main_hpo(*flags, params=params)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not done.stdout
