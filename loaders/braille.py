"""Seven Braille characters (Space A E I O U Y) read by twelve taxels, as events in 256 steps of 5 ms.

    python -m loaders.braille --download data                  # the three published files, 140 test samples among them
    python main_hpo.py --task eprop_braille --data-dir data

What is looked for, in the data folder and the folders in it: the published `ds_train.pt`, `ds_val.pt` and `ds_test.pt`
(train and validation are the search's part, test is the outer test part), else the subset `braille_subset_events.npz`
(1,158 of the recordings, without the published test set). ON and OFF events are merged, the encoding threshold is 1.

Recordings: S. F. Mueller-Cleve et al., Braille letter reading, Zenodo 10.5281/zenodo.7050094 (CC BY 4.0).
The split: repository neuromorphs/NIR, folder paper/03_rnn/data. Its files are checked by their git blob ids, and then
unpickled as tensors alone: a pickle with code in it is refused before the code runs.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import os
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from loaders import Data, MissingData, data_folder

BASE_URL = "https://raw.githubusercontent.com/neuromorphs/NIR/main/paper/03_rnn/data"
BLOB_IDS = {  # sha1 of b"blob <size>\0" + content, by which git names a file
    "ds_train.pt": "2f34b57364fded1bb413cc7bf9b92cccff16d720",
    "ds_val.pt": "ceba47904055c198aca84e8a19e975b6e41b6846",
    "ds_test.pt": "3e5b6ba1fcbf983f0f3448304212a2d05a732fe2",
}
SUBSET = "braille_subset_events.npz"
CLASS_NAMES = ("Space", "A", "E", "I", "O", "U", "Y")
STEPS, TAXELS, STEP_MS = 256, 12, 5.0
CHUNK = 1 << 16  # bytes between two words of progress
LARGEST = 1 << 28  # bytes; no answer longer than this is one of the files


class DownloadError(Exception):
    """One line that says why a file could not be had, or could not be written."""


def load(data_dir: Path | None, blob_ids: dict[str, str] = BLOB_IDS) -> Data:
    """Return the recordings: x uint8 {0, 1} (B, 256, 12), y int64 (B,) 0..6, step_ms 5.

    Raises MissingData where neither the published files nor the subset are there, ValueError for a file that is not
    what it should be; both are one line. `blob_ids` are the git blob ids of the published files, in the order train,
    validation, test.
    """
    try:
        folder = data_folder(data_dir, "the Braille dataset")
    except MissingData as missing:
        raise MissingData(f"{missing}; {_advice(data_dir)}") from None
    if published := _find(folder, blob_ids):
        return load_published(published.parent, blob_ids)
    if subset := _find(folder, [SUBSET]):
        return load_subset(subset)
    raise MissingData(f"neither {', '.join(blob_ids)} nor {SUBSET} is in {folder}; {_advice(folder)}")


def load_published(folder: Path, blob_ids: dict[str, str] = BLOB_IDS) -> Data:
    """Return train and validation as one, the published test file as `test`. Raises what `load` raises."""
    absent = [name for name in blob_ids if not (folder / name).is_file()]
    if absent:
        raise MissingData(f"{', '.join(absent)} is missing in {folder}; {_advice(folder)}")
    train, validation, test = (read_published(folder / name, blob_id) for name, blob_id in blob_ids.items())
    x, y = np.concatenate([train.x, validation.x]), np.concatenate([train.y, validation.y])
    return Data(x, y, CLASS_NAMES, STEP_MS, test)


def read_published(path: Path, blob_id: str) -> Data:
    """Read a pickled TensorDataset whose git blob id is `blob_id`, tensors alone. Raises ValueError for any other."""
    content = path.read_bytes()
    if git_blob_id(content) != blob_id:
        found = f"git blob id {git_blob_id(content)}, expected {blob_id}"
        raise ValueError(
            f"{path} is cut off or not the published file ({found}): delete it, then {_advice(path.parent)}"
        )
    import torch
    from torch.utils.data import TensorDataset

    try:
        with torch.serialization.safe_globals([TensorDataset]):
            dataset = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        x, y = (tensor.numpy() for tensor in dataset.tensors)
    except Exception as error:  # torch has a dozen kinds of them, each with a page of text
        raise ValueError(f"{path} is refused: it is no TensorDataset of two tensors ({type(error).__name__})") from None
    return as_data(x, y, path)


def load_subset(path: Path) -> Data:
    """Read the packed subset: `spikes` (packed bits), `shape` and `labels`. Raises ValueError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            shape = tuple(int(size) for size in file["shape"])
            x = np.unpackbits(file["spikes"])[: np.prod(shape)].reshape(shape)
            y = file["labels"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is cut off or not the Braille subset ({type(error).__name__})") from None
    return as_data(x, y, path)


def as_data(x: np.ndarray, y: np.ndarray, path: Path) -> Data:
    """Return counts `x` (B, 256, 12) of any type as events {0, 1}. Raises ValueError for another shape or value."""
    if x.ndim != 3 or x.shape[1:] != (STEPS, TAXELS) or y.shape != x.shape[:1] or not len(y):
        raise ValueError(f"{path} must hold (B, {STEPS}, {TAXELS}) counts and (B,) labels, not {x.shape} and {y.shape}")
    if not ((x >= 0) & (x == np.floor(x))).all():
        raise ValueError(f"{path} must hold counts of events, but has values that are negative or no whole numbers")
    if not np.isin(y, np.arange(len(CLASS_NAMES))).all():
        raise ValueError(f"{path}: labels must be 0 to {len(CLASS_NAMES) - 1}, not {y.min()} to {y.max()}")
    return Data((x > 0).astype(np.uint8), y.astype(np.int64), CLASS_NAMES, STEP_MS)


def git_blob_id(content: bytes) -> str:
    """Return the name that git gives to a file of this content (40 hex digits)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def download(folder: Path, base_url: str = BASE_URL, blob_ids: dict[str, str] = BLOB_IDS, timeout: float = 30) -> None:
    """Fetch into `folder` the files that are not there yet. No file is written before all have arrived and are right.

    `timeout` [s] is how long the server may stay silent. Raises DownloadError.
    """
    folder = Path(folder)
    _make_writable(folder)
    contents = {}
    for name, blob_id in blob_ids.items():
        if (folder / name).is_file() and git_blob_id((folder / name).read_bytes()) == blob_id:
            print(f"{name} is there", file=sys.stderr)
        else:
            contents[name] = fetch(f"{base_url.rstrip('/')}/{name}", blob_id, timeout)
    _write(folder, contents)


def fetch(url: str, blob_id: str, timeout: float) -> bytes:
    """Return what lies at `url`. Raises DownloadError for no answer, a cut-off one, or one of another git blob id."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            content = _receive(answer, url)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url}: the server answered {error.code} {error.reason}; is --url right?") from None
    except urllib.error.URLError as error:
        raise DownloadError(f"{url}: no connection ({error.reason}); is there a network, is --url right?") from None
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url}: the transfer was cut off ({type(error).__name__}); try again") from None
    except ValueError as error:
        raise DownloadError(f"--url must be an address such as {BASE_URL} ({error})") from None
    if git_blob_id(content) != blob_id:
        raise DownloadError(f"{url} is a wrong file: git blob id {git_blob_id(content)}, expected {blob_id}")
    return content


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 with one line that says why there are no files."""
    parser = argparse.ArgumentParser(prog="python -m loaders.braille", description="Fetch the published Braille files.")
    parser.add_argument("--download", type=Path, required=True, metavar="DIR", help="folder to put them into")
    parser.add_argument("--url", default=BASE_URL, help="folder on the web that has them (default: %(default)s)")
    args = parser.parse_args(arguments)
    try:
        download(args.download, args.url)
    except DownloadError as error:
        print(f"loaders.braille: {error}; nothing was written", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nloaders.braille: interrupted", file=sys.stderr)
        return 130
    print(f"{', '.join(BLOB_IDS)} are in {args.download}; use them by --data-dir {args.download}")
    return 0


def _find(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first file of one of `names` in `folder`, else in the folders in it."""
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _advice(folder: Path | None) -> str:
    command = f"python -m loaders.braille --download {folder or 'data'}"
    return f"download the recordings by `{command}`; the task eprop_digits needs no download"


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DownloadError(f"cannot write into the folder {folder} ({error.strerror})") from None


def _receive(answer: http.client.HTTPResponse, url: str) -> bytes:
    announced = answer.headers.get("Content-Length", "")
    total = int(announced) if announced.isdecimal() else None
    content = bytearray()
    while len(content) < LARGEST and (chunk := answer.read(CHUNK)):
        content += chunk
        _show_progress(url, len(content), total)
    if total is not None and len(content) < min(total, LARGEST):
        raise DownloadError(f"{url}: the transfer was cut off after {len(content)} of {total} bytes; try again")
    return bytes(content)


def _show_progress(url: str, done: int, total: int | None) -> None:
    name, of = url.rsplit("/", 1)[-1], f" of {total / 1e6:.1f}" if total else ""
    if sys.stderr.isatty():
        print(
            f"\r\033[K{name}: {done / 1e6:.1f}{of} MB", end="\n" if done == total else "", file=sys.stderr, flush=True
        )
    elif done == total:
        print(f"{name}: {done / 1e6:.1f} MB", file=sys.stderr)


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files under temporary names, then rename them."""
    partial = {name: folder / f".{name}.{os.getpid()}.part" for name in contents}
    try:
        for name, content in contents.items():
            partial[name].write_bytes(content)
        for name in contents:
            os.replace(partial[name], folder / name)
    except OSError as error:
        raise DownloadError(f"cannot write into the folder {folder} ({error.strerror})") from None
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
