"""Datasets that tonic knows and the user has on disk, as events in a fixed number of steps.

    python nni_main.py eprop_tonic --tonic SHD --data-dir data      # data/SHD/shd_train.h5.zip, shd_train.h5, ...
    python nni_main.py eprop_tonic --tonic DVSGesture,shrink=8,step_ms=20 --data-dir data

A dataset lies where tonic puts it: in the data folder, in a folder of its class's name. Nothing is downloaded here. The
published test set is the outer test part, where there is one. Those of tonic's datasets are known that are for
classification and have one sensor size for all recordings.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loaders import Data, MissingData, data_folder

OPTIONS = {"step_ms": float, "steps": int, "shrink": int}  # that --tonic takes beside the name
LARGEST = 4 << 30  # bytes of x, beyond which it is refused


class Parts(NamedTuple):
    """Which constructor arguments of a tonic class give the search's part and the published test set."""

    search: tuple[dict, ...]
    test: tuple[dict, ...] = ()
    camera: bool = False  # cut out of a camera's stream: time counts from the first event, not from 0


TRAIN, TEST = ({"train": True},), ({"train": False},)
DATASETS = {
    "SHD": Parts(TRAIN, TEST),
    "SSC": Parts(({"split": "train"}, {"split": "valid"}), ({"split": "test"},)),
    "NTIDIGITS18": Parts(({"train": True, "single_digits": True},), ({"train": False, "single_digits": True},)),
    "SMNIST": Parts(TRAIN, TEST),
    "NMNIST": Parts(TRAIN, TEST, camera=True),
    "DVSGesture": Parts(TRAIN, TEST, camera=True),
    "DVSLip": Parts(TRAIN, TEST, camera=True),
    "POKERDVS": Parts(TRAIN, TEST, camera=True),
    "CIFAR10DVS": Parts(({},), camera=True),
    "ASLDVS": Parts(({},), camera=True),
}


class Recordings(NamedTuple):
    """Samples before the number of steps is fixed."""

    places: list[np.ndarray]  # of each sample: step * N + channel of its events, each once, sorted
    labels: list[int]
    channels: int  # N
    class_names: tuple[str, ...]


def load(data_dir: Path | None, name: str, step_ms: float = 10.0, steps: int | None = None, shrink: int = 1) -> Data:
    """Return tonic's dataset `name`: x uint8 {0, 1} (B, T, N), N = polarities * height * width in this order.

    steps   T; later events are left out. Default: what the longest recording of the search's part needs
    shrink  so many pixels beside and below each other become one

    Raises MissingData where it is not on disk (nothing is downloaded), ValueError for an unknown name, a value out of
    its range, files that cannot be read, or an x of more than 4 GiB. Reading costs 2-3 CPU ms a
    recording of 8,000 events (measured), of which most is tonic opening the file for each.
    """
    check_name(name)
    if not (step_ms > 0 and math.isfinite(step_ms) and (steps is None or steps > 0) and shrink >= 1):
        raise ValueError(f"step_ms, steps and shrink must be positive, not {step_ms}, {steps} and {shrink}")
    folder = data_folder(data_dir, f"the tonic dataset {name}")
    search = _read(folder, name, DATASETS[name].search, step_ms, shrink)
    test = _read(folder, name, DATASETS[name].test, step_ms, shrink) if DATASETS[name].test else None
    steps = steps or _steps_needed(search)
    _check_size(name, len(search.labels) + (len(test.labels) if test else 0), steps, search.channels)
    class_names = max(search.class_names, test.class_names if test else (), key=len)
    test_data = _as_data(test, steps, step_ms, class_names) if test else None
    return _as_data(search, steps, step_ms, class_names, test_data)


def parse(request: str | None) -> dict:
    """Turn "DVSGesture,shrink=8,step_ms=20" into arguments of `load`. Raises ValueError that names what is wrong."""
    if request is None:
        raise ValueError(f"say which of tonic's datasets: --tonic NAME; choose from: {', '.join(DATASETS)}")
    name, *words = request.split(",")
    check_name(name)
    arguments = {"name": name}
    for word in words:
        option, _, value = word.partition("=")
        try:
            arguments[option] = OPTIONS[option](value)
        except (KeyError, ValueError):
            rule = "NAME[,step_ms=10][,steps=100][,shrink=8], the last two whole numbers"
            raise ValueError(f"--tonic {request}: {word!r} is not understood; give {rule}") from None
    return arguments


def check_name(name: str) -> None:
    """Raise ValueError for a dataset that is not among DATASETS, and name the similar. Does not import tonic."""
    if name not in DATASETS:
        spelled = {known.upper(): known for known in DATASETS}
        close = [spelled[match] for match in difflib.get_close_matches(name.upper(), spelled, n=3)]
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ValueError(f"unknown tonic dataset {name!r}{hint}; choose from: {', '.join(DATASETS)}")


def _read(folder: Path, name: str, parts: tuple[dict, ...], step_ms: float, shrink: int) -> Recordings:
    """Read every recording of `parts` of one dataset, once. Raises MissingData, or ValueError for unreadable files."""
    places, labels = [], []
    for arguments in parts:
        with _plain_errors(name, folder):
            dataset = _open(folder, name, arguments)
            width, height, polarities = dataset.sensor_size
            for number in range(len(dataset)):
                events, label = dataset[number]
                places.append(_places(events, dataset.sensor_size, step_ms, shrink, DATASETS[name].camera))
                labels.append(int(label))
    if not labels:
        raise MissingData(f"the tonic dataset {name} in {folder} has no recordings")
    channels = math.ceil(width / shrink) * math.ceil(height / shrink) * polarities
    return Recordings(places, labels, channels, _class_names(dataset, max(labels) + 1))


def _steps_needed(recordings: Recordings) -> int:
    return 1 + max((int(flat[-1]) // recordings.channels for flat in recordings.places if len(flat)), default=0)


def _check_size(name: str, samples: int, steps: int, channels: int) -> None:
    if samples * steps * channels > LARGEST:
        size = f"{samples} samples x {steps} steps x {channels} channels"
        gib = samples * steps * channels / 2**30
        raise ValueError(
            f"{name}: {size} are {gib:.1f} GiB, over {LARGEST >> 30}: raise step_ms or shrink, lower steps"
        )


def _open(folder: Path, name: str, arguments: dict):
    """Make the tonic dataset. Raises MissingData where tonic would download."""
    import tonic

    def refuse(dataset=None):
        raise MissingData(_advice(folder, name, dataset))

    instead = {"download": refuse, "_copy_and_extract_local_data": refuse}
    offline = type(name, (getattr(tonic.datasets, name),), instead)  # tonic looks into a folder of the class's name
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return offline(str(folder), **arguments)
    except SystemExit:  # how tonic ends the program where files must be fetched by hand
        refuse()


def _advice(folder: Path, name: str, dataset) -> str:
    place = getattr(dataset, "location_on_system", folder / name)
    sought = getattr(dataset, "filename", None) or getattr(dataset, "images_file", "its files")
    calls = []
    for arguments in DATASETS[name].search + DATASETS[name].test:
        words = [repr(str(folder)), *(f"{key}={value!r}" for key, value in arguments.items())]
        calls.append(f"tonic.datasets.{name}({', '.join(words)})")
    return (
        f"the tonic dataset {name} is not, or not all, in {place} (tonic looks for {sought} and its unpacked content); "
        f'download it by `python -c "import tonic; {"; ".join(calls)}"`; the task eprop_digits needs no download'
    )


@contextlib.contextmanager
def _plain_errors(name: str, folder: Path) -> Iterator[None]:
    """Say in one line that tonic could not read a dataset."""
    try:
        yield
    except MissingData:
        raise
    except Exception as error:  # whatever tonic's readers stumble over
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"tonic cannot read its dataset {name} in {folder} ({reason})") from None


def _places(events: np.ndarray, sensor_size: tuple, step_ms: float, shrink: int, camera: bool) -> np.ndarray:
    """Return step * N + channel of a recording's events (t in us), each once, sorted (int64)."""
    width, height, polarities = sensor_size
    x, y = events["x"].astype(np.int64), np.zeros(len(events), np.int64)
    if "y" in events.dtype.names:
        y = events["y"].astype(np.int64)
    if len(events) and (min(x.min(), y.min()) < 0 or x.max() >= width or y.max() >= height):
        raise ValueError(f"an event lies outside the sensor of {width} x {height}")
    p = (events["p"] > 0) * (polarities - 1)
    start = events["t"].min() if camera and len(events) else 0
    step = np.floor((events["t"] - start) / (step_ms * 1000)).astype(np.int64)
    rows, columns = math.ceil(height / shrink), math.ceil(width / shrink)
    channel = (p * rows + y // shrink) * columns + x // shrink
    places = np.sort((step * polarities * rows * columns + channel)[step >= 0])
    return places[np.diff(places, prepend=-1) > 0]


def _class_names(dataset, count: int) -> tuple[str, ...]:
    """Return the names that the dataset gives to labels 0 to `count` - 1 and beyond, else their numbers."""
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in getattr(dataset, "classes", ())]
    names = names or list(getattr(dataset, "class_map", ()))
    return tuple(names) if len(names) >= count else tuple(str(label) for label in range(count))


def _as_data(recordings: Recordings, steps: int, step_ms: float, class_names: tuple, test: Data | None = None) -> Data:
    """Spread recordings over `steps` steps; what lies beyond is left out."""
    places, labels, channels, _ = recordings
    x = np.zeros((len(places), steps * channels), np.uint8)
    for row, flat in zip(x, places, strict=True):
        row[flat[: np.searchsorted(flat, steps * channels)]] = 1
    x = x.reshape(len(places), steps, channels)
    return Data(x, np.array(labels, np.int64), class_names, step_ms, test)
