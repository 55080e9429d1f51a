"""GPUs of trials: CUDA_VISIBLE_DEVICES is honoured, by index, UUID and MIG name, in both modes."""

import os
import subprocess
import sys

import pytest

from runner import gpus
from runner.flags import UserMistake
from tests.conftest import patient, write_space
from tests.test_search import table

# What a made-up nvidia-smi -L prints: six GPUs, of which the fifth is in MIG mode.
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0aa00000-1111-2222-3333-444444444444)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1bb00000-1111-2222-3333-444444444444)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-2cc00000-1111-2222-3333-444444444444)
GPU 3: NVIDIA A100-SXM4-40GB (UUID: GPU-2cd00000-1111-2222-3333-444444444444)
GPU 4: NVIDIA A100-SXM4-40GB (UUID: GPU-4ee00000-1111-2222-3333-444444444444)
  MIG 3g.20gb     Device  0: (UUID: MIG-aaaa0000-1111-2222-3333-444444444444)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbbb0000-1111-2222-3333-444444444444)
GPU 5: NVIDIA A100-SXM4-40GB (UUID: GPU-5ff00000-1111-2222-3333-444444444444)
"""
REST = "-1111-2222-3333-444444444444"

# What NNI asks for the GPUs. It would hold up the first trial for longer than the watchdog waits.
SLOW_NVML = "import time, pathlib\npathlib.Path(__file__ + '.asked').touch()\ntime.sleep(90)\n"

# An objective that tells which GPU it sees, and when.
SEEING = """

import os, time  # noqa: E402
from dataclasses import dataclass  # noqa: E402


@dataclass(frozen=True)
class SeeingParams:
    weight: float = 0.5


def train_seeing(params, splits, report, device, seed):
    began = time.time()
    time.sleep(1.5)
    seen = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "order": os.environ.get("CUDA_DEVICE_ORDER")}
    told = {"began": began, "ended": time.time(), "own": "HPO_GPUS" in os.environ}
    return Result({"default": params.weight} | seen | told, "ok", None)


OBJECTIVES["seeing"] = Objective("train_hpo:SeeingParams", train_seeing, ("images",))
"""


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    copy = copy_of_repository()
    with (copy / "train_hpo.py").open("a") as file:
        file.write(SEEING)
    with (copy / "setup_hpo.py").open("a") as file:
        file.write("\n\ndef pick_device(name):\n    return 'cpu'\n")  # no GPU is really there
    write_space(copy, "seeing_digits", {"weight": {"_type": "uniform", "_value": [0, 1]}})
    return copy


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with the GPUs of LISTED: set the environment of this process so that nvidia-smi says so."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ \"$*\" = -L ] && cat <<'end'\n{LISTED}end\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "mask, expected",
    [
        (None, ["0", "1", "2", "3", f"MIG-aaaa0000{REST}", f"MIG-bbbb0000{REST}", "5"]),
        ("3,5", ["3", "5"]),
        (" 5 , 0", ["5", "0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,-1,3", ["2"]),
        ("GPU-1,GPU-2cd", [f"GPU-1bb00000{REST}", f"GPU-2cd00000{REST}"]),
        (f"GPU-5ff00000{REST}", [f"GPU-5ff00000{REST}"]),
        ("MIG-b", [f"MIG-bbbb0000{REST}"]),
        ("5,MIG-aaaa", ["5", f"MIG-aaaa0000{REST}"]),
    ],
)
def test_what_a_mask_shows(machine, mask, expected):
    assert gpus.visible_gpus(mask) == expected


@pytest.mark.parametrize(
    "mask, message",
    [
        ("3,6", "CUDA_VISIBLE_DEVICES=3,6: there is no GPU 6: nvidia-smi lists 6, numbered from 0"),
        ("9" * 400, "must be an index, GPU-<UUID> or MIG-<UUID>"),
        ("-2", "'-2' must be an index, GPU-<UUID> or MIG-<UUID>"),
        ("0,,1", "'' must be an index"),
        ("GPU-2c", "GPU-2c names 2 of the GPUs that nvidia-smi -L lists"),
        ("GPU-9", "GPU-9 names none of the GPUs"),
        ("MIG-", "MIG- names 2 of"),
        ("1,1", "1 is named twice"),
        ("1,GPU-1bb", "GPU-1bb is named twice"),
    ],
)
def test_masks_that_name_no_gpu_are_refused(machine, mask, message):
    with pytest.raises(UserMistake) as refusal:
        gpus.visible_gpus(mask)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible_gpus(None) == [] and gpus.visible_gpus("") == []


def search(repository, *flags, **environment):
    words = [sys.executable, "nni_main.py", "seeing_digits", "--tuner", "random", "--no-report", "--no-check", *flags]
    environment = os.environ | environment
    return subprocess.run(words, cwd=repository, env=environment, capture_output=True, text=True, timeout=patient(280))


@pytest.mark.parametrize(
    "flags, mask, message",
    [
        (["--gpus", "7"], "3,5", "--gpus 7: CUDA_VISIBLE_DEVICES=3,5 shows 2 here"),
        (["--gpus", "1"], "", "--gpus 1: CUDA_VISIBLE_DEVICES= shows 0 here"),
        (["--gpus", "1"], "8", "CUDA_VISIBLE_DEVICES=8: there is no GPU 8"),
        (["--gpus", "2", "--concurrency", "3"], "3,5", "they take 2 trials at a time"),
        (["--gpus", "2", "--trials-per-gpu", "2", "--concurrency", "5"], "3,5", "they take 4 trials at a time"),
        (["--trials-per-gpu", "2"], "3,5", "--trials-per-gpu 2 needs --gpus"),
        (["--gpus", "1", "--headless", "--dask", "tcp://127.0.0.1:1"], "3", "--gpus 1 with --dask"),
        (["--gpus", "1", "--machines", "x.json"], "3", "--gpus 1 with --machines"),
    ],
)
def test_mistakes_get_one_line(machine, repository, flags, mask, message, tmp_path):
    done = search(repository, "--experiments", tmp_path / "e", *flags, CUDA_VISIBLE_DEVICES=mask)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def most_at_once(rows):
    times = [(float(row["began"]), float(row["ended"])) for row in rows]
    return max(sum(began <= now < ended for began, ended in times) for now, _ in times)


def check_rows(rows, number, names, most):
    assert len(rows) == number and {row["status"] for row in rows} == {"ok"}
    assert {row["gpu"] for row in rows} == set(names)
    assert {(row["order"], row["own"]) for row in rows} == {("PCI_BUS_ID", "False")}
    for name in names:
        assert most_at_once([row for row in rows if row["gpu"] == name]) <= most


def test_trials_of_nni_get_the_gpus_of_the_mask_and_nni_looks_at_none(machine, repository, tmp_path):
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "pynvml.py").write_text(SLOW_NVML)
    flags = ["--id", "nni", "--gpus", "2", "--trials-per-gpu", "2", "--trials", "8"]
    done = search(repository, *flags, CUDA_VISIBLE_DEVICES="3,5", PYTHONPATH=str(tmp_path / "slow"))
    assert done.returncode == 0, done.stdout + done.stderr
    check_rows(table(repository / "experiments" / "nni"), 8, ("3", "5"), 2)
    assert not list((tmp_path / "slow").glob("*.asked"))


def test_slots_get_the_gpus_of_the_mask(machine, repository):
    flags = ["--id", "headless", "--headless", "--gpus", "2", "--trials-per-gpu", "2", "--trials", "8"]
    done = search(repository, *flags, CUDA_VISIBLE_DEVICES="GPU-5,MIG-a,0")
    assert done.returncode == 0, done.stdout + done.stderr
    names = (f"GPU-5ff00000{REST}", f"MIG-aaaa0000{REST}")
    check_rows(table(repository / "experiments" / "headless"), 8, names, 2)
