"""Tonic's datasets from files as tonic expects them, against tonic's own frames; nothing is ever downloaded."""

import json
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from loaders import MissingData, tonic_data

ROOT = Path(__file__).parent.parent
SIZES = {"train": 6, "test": 4, "valid": 2}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something was downloaded")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def heidelberg(folder: Path, name: str, parts: tuple[str, ...]) -> dict:
    """Write SHD or SSC as published: times in s and units 0..699, one row a recording. Return what was written."""
    import h5py

    rng, written = np.random.default_rng(0), {}
    (folder / name).mkdir()
    for part in parts:
        times = [np.sort(rng.uniform(0, 0.9, 50)) for _ in range(SIZES[part])]
        units = [rng.integers(0, 700, 50) for _ in range(SIZES[part])]
        (folder / name / f"{name.lower()}_{part}.h5.zip").touch()
        with h5py.File(folder / name / f"{name.lower()}_{part}.h5", "w") as file:
            for key, rows, kind in (("times", times, "f8"), ("units", units, "u2")):
                rows_of = file.create_dataset(f"spikes/{key}", (len(rows),), dtype=h5py.vlen_dtype(kind))
                for number, row in enumerate(rows):
                    rows_of[number] = row
            file["labels"] = np.arange(SIZES[part]) % 3
            file["extra/keys"] = np.array([b"zero", b"one", b"two"])
            file["extra/speaker"] = np.zeros(SIZES[part])
        written[part] = times, units
    return written


def frames(times: np.ndarray, units: np.ndarray, step: float, steps: int) -> np.ndarray:
    """Spikes (times [s], units) as {0, 1} (T, 700)."""
    x = np.zeros((steps, 700), np.uint8)
    for time, unit in zip(times, units, strict=True):
        if time < steps * step:
            x[int(time // step), unit] = 1
    return x


def test_heidelberg_digits(tmp_path):
    written = heidelberg(tmp_path, "SHD", ("train", "test"))
    data = tonic_data.load(tmp_path, "SHD", step_ms=7.0)
    longest = max(times.max() for times in written["train"][0])
    assert data.x.shape == (6, int(longest // 0.007) + 1, 700) and data.x.dtype == np.uint8 and data.step_ms == 7.0
    assert data.test.x.shape == (4, *data.x.shape[1:])
    for part, held in (("train", data), ("test", data.test)):
        expected = [frames(*spikes, 0.007, data.x.shape[1]) for spikes in zip(*written[part], strict=True)]
        np.testing.assert_array_equal(held.x, expected)
    assert data.y.tolist() == [0, 1, 2, 0, 1, 2] and data.y.dtype == np.int64
    assert data.class_names == data.test.class_names == ("zero", "one", "two")


def test_fixed_steps_cut_and_pad(tmp_path):
    heidelberg(tmp_path, "SHD", ("train", "test"))
    whole = tonic_data.load(tmp_path, "SHD", step_ms=10.0)
    for steps in (30, 120):
        x = tonic_data.load(tmp_path, "SHD", step_ms=10.0, steps=steps).x
        shared = min(steps, whole.x.shape[1])
        np.testing.assert_array_equal(x[:, :shared], whole.x[:, :shared])
        assert x.shape[1] == steps and not x[:, shared:].any()


def test_a_published_validation_set_belongs_to_the_search(tmp_path):
    written = heidelberg(tmp_path, "SSC", ("train", "valid", "test"))
    data = tonic_data.load(tmp_path, "SSC", steps=90)
    assert len(data.y) == 8 and len(data.test.y) == 4
    np.testing.assert_array_equal(data.x[6], frames(written["valid"][0][0], written["valid"][1][0], 0.01, 90))


def test_tidigits(tmp_path):
    import h5py

    (tmp_path / "NTIDIGITS18").mkdir()
    with h5py.File(tmp_path / "NTIDIGITS18" / "n-tidigits.hdf5", "w") as file:
        for part, samples in (("train", ("a-o", "b-12", "c-z", "d-9")), ("test", ("e-1",))):
            file[f"{part}_labels"] = np.array([sample.encode() for sample in samples])
            for sample in samples:
                file[f"{part}_addresses/{sample}"] = np.array([3, 63])
                file[f"{part}_timestamps/{sample}"] = np.array([0.001, 0.025])
    data = tonic_data.load(tmp_path, "NTIDIGITS18")
    assert data.y.tolist() == [0, 10, 9] and data.test.y.tolist() == [1]  # the sequence 12 is no single digit
    assert data.class_names[data.y[1]] == "z" and data.class_names[data.y[2]] == "9"
    assert np.argwhere(data.x[0]).tolist() == [[0, 3], [2, 63]] and data.x.shape == (3, 3, 64)


def test_sequential_mnist_against_tonics_frames(tmp_path):
    from tonic.datasets import SMNIST
    from tonic.transforms import ToFrame

    (tmp_path / "smnist").mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("t10k", 2)):
        images, labels = rng.integers(0, 256, (count, 784), np.uint8), np.arange(count, dtype=np.uint8)
        head = struct.pack(">IIII", 2051, count, 28, 28)
        (tmp_path / "smnist" / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (tmp_path / "smnist" / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, count) + labels.tobytes()
        )
    data = tonic_data.load(tmp_path, "SMNIST", step_ms=1.0, steps=1568)
    reference = SMNIST(str(tmp_path), train=True, transform=lambda events: np.sort(events, order="t"))  # tonic's is not
    frame = ToFrame((99, 1, 1), 1000, start_time=0, end_time=1568000)
    for number, x in enumerate(data.x):
        np.testing.assert_array_equal(x, frame(reference[number][0])[:, 0].clip(max=1))
    assert data.class_names[0] == "0 - zero" and len(data.class_names) == 10


CAMERA = np.array(
    [(0, 0, False, 500_000), (5, 3, True, 500_900), (5, 3, True, 500_950), (4, 2, True, 502_000)],
    dtype=[("x", "i2"), ("y", "i2"), ("p", "?"), ("t", "i8")],
)


@pytest.mark.parametrize(
    "shrink, expected",
    [
        # channel = (p * height + y) * width + x, sensor of 6 x 4; time counts from the first event, steps of 1 ms
        (1, [[0, 0], [0, (4 + 3) * 6 + 5], [2, (4 + 2) * 6 + 4]]),
        (2, [[0, 0], [0, (2 + 1) * 3 + 2], [2, (2 + 1) * 3 + 2]]),  # 3 x 2 pixels
        (4, [[0, 0], [0, (1 + 0) * 2 + 1], [2, (1 + 0) * 2 + 1]]),  # 2 x 1 pixels
    ],
)
def test_pixels_and_polarities_become_channels(shrink, expected):
    places = tonic_data._places(CAMERA, (6, 4, 2), 1.0, shrink, camera=True)
    channels = 2 * -(-6 // shrink) * -(-4 // shrink)
    assert [list(divmod(place, channels)) for place in places] == expected


def test_camera_events_against_tonics_frames():
    from tonic.transforms import ToFrame

    rng = np.random.default_rng(0)
    events = np.zeros(300, CAMERA.dtype)
    events["x"], events["y"], events["p"] = rng.integers(0, 6, 300), rng.integers(0, 4, 300), rng.integers(0, 2, 300)
    events["t"] = np.sort(rng.integers(70_000, 90_000, 300))
    start = events["t"][0]
    counts = ToFrame((6, 4, 2), 1000, start_time=start, end_time=start + 20_000)(events)  # (20, 2, 4, 6)
    places = tonic_data._places(events, (6, 4, 2), 1.0, 1, camera=True)
    np.testing.assert_array_equal(places, np.flatnonzero(counts))


@pytest.mark.parametrize("name", tonic_data.DATASETS)
def test_what_is_not_on_disk_is_not_downloaded(name, tmp_path, capfd):
    with pytest.raises(MissingData) as missing:
        tonic_data.load(tmp_path, name)
    said = str(missing.value)
    assert f"the tonic dataset {name} is not" in said and f"tonic.datasets.{name}(" in said and "eprop_digits" in said
    assert "\n" not in said and capfd.readouterr().out == "" and list(tmp_path.rglob("*")) == []


def test_half_a_dataset_is_missing_data(tmp_path):
    heidelberg(tmp_path, "SHD", ("train",))
    with pytest.raises(MissingData, match="not all, in .*SHD.*tonic looks for shd_test.h5.zip"):
        tonic_data.load(tmp_path, "SHD")


def test_the_advised_command_is_python(tmp_path):
    with pytest.raises(MissingData) as missing:
        tonic_data.load(tmp_path, "SSC")
    command = str(missing.value).split('python -c "')[1].split('"')[0]
    compile(command, "command", "exec")
    assert command.count("tonic.datasets.SSC(") == 3 and "split='valid'" in command


def test_no_folder_is_missing_data(tmp_path):
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(MissingData, match="tonic dataset SHD"):
            tonic_data.load(folder, "SHD")


@pytest.mark.parametrize("name, close", [("shd", "SHD"), ("SDH", "SHD"), ("dvs_gesture", "DVSGesture"), ("zebra", "")])
def test_unknown_names_list_the_close_ones_without_tonic(name, close, monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(ValueError, match=f"unknown tonic dataset '{name}'.*{close}.*choose from: SHD, SSC") as mistake:
        tonic_data.load(None, name)
    assert ("did you mean" in str(mistake.value)) == bool(close)


def test_every_name_is_one_of_tonics():
    import tonic

    assert set(tonic_data.DATASETS) <= set(tonic.datasets.__all__)


def test_broken_files_are_one_line(tmp_path):
    heidelberg(tmp_path, "SHD", ("train", "test"))
    path = tmp_path / "SHD" / "shd_train.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="tonic cannot read its dataset SHD") as mistake:
        tonic_data.load(tmp_path, "SHD")
    assert "\n" not in str(mistake.value)


def test_too_large_is_refused_before_memory_is_taken(tmp_path):
    heidelberg(tmp_path, "SHD", ("train", "test"))
    with pytest.raises(ValueError, match="10 samples x 900000 steps x 700 channels are 5.9 GiB"):
        tonic_data.load(tmp_path, "SHD", step_ms=0.001, steps=900_000)


@pytest.mark.parametrize("wrong", [{"step_ms": 0}, {"step_ms": np.nan}, {"steps": 0}, {"shrink": 0}])
def test_values_out_of_range(wrong, tmp_path):
    with pytest.raises(ValueError, match="must be positive"):
        tonic_data.load(tmp_path, "SHD", **wrong)


def test_a_request_names_the_dataset_and_its_grid():
    assert tonic_data.parse("SHD") == {"name": "SHD"}
    whole = tonic_data.parse("DVSGesture,shrink=8,step_ms=2.5,steps=40")
    assert whole == {"name": "DVSGesture", "shrink": 8, "step_ms": 2.5, "steps": 40}


@pytest.mark.parametrize("word", ["shrik=2", "shrink=2.5", "steps", "name=SSC", ""])
def test_an_unknown_word_of_a_request(word):
    with pytest.raises(ValueError, match=f"--tonic SHD,{word}: '{word}' is not understood; give NAME") as mistake:
        tonic_data.parse(f"SHD,{word}")
    assert "\n" not in str(mistake.value)


def test_a_trial_on_tonics_dataset(tmp_path):
    heidelberg(tmp_path, "SHD", ("train", "test"))
    flags = ["--tonic", "SHD,steps=30", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]
    params = json.dumps({"epochs": 1, "neurons": 20, "drop_events": 0.1})
    words = [sys.executable, "main_hpo.py", "--task", "eprop_tonic", "--params", params, *flags]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    weights = 20 * 700 + 20 * 19 + 20 * 3 + 3  # input, recurrent, readout for the 3 classes and its bias
    assert record["tonic"] == "SHD,steps=30" and record["result"]["parameters"] == weights
    assert record["result"]["test_accuracy"] in (0, 0.25, 0.5, 0.75, 1)  # of the 4 published test recordings


def test_the_module_imports_no_tonic():
    code = "import sys, loaders.tonic_data, loaders.events; sys.exit('tonic' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
