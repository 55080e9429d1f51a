"""CIFAR-10 and CIFAR-100 in their binary files: uint8 (B, 32, 32, 3), 50,000 to learn from, 10,000 published to test.

    python -m loaders.images --download cifar10 DIR        # 170 MB, checked and unpacked

Source: A. Krizhevsky, Learning multiple layers of features from tiny images (2009). Format: for each image its label,
one byte (CIFAR-100: the coarse label, then the fine one, which is taken), then 3 planes of 32 rows of 32 bytes.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np

from loaders import Data, MissingData, data_folder

PIXELS = 3 * 32 * 32
FILES = {  # training files, test file, names of the classes
    "cifar10": (
        [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)],
        "cifar-10-batches-bin/test_batch.bin",
        "cifar-10-batches-bin/batches.meta.txt",
    ),
    "cifar100": (
        ["cifar-100-binary/train.bin"],
        "cifar-100-binary/test.bin",
        "cifar-100-binary/fine_label_names.txt",
    ),
}
LABEL_BYTES = {"cifar10": 1, "cifar100": 2}
MOST_BYTES = 200_000_000  # of a file in an archive; CIFAR-100's largest has 153,700,000


def load_cifar10(data_dir: Path | None) -> Data:
    """Return CIFAR-10. Raises MissingData where a file is not there or is not what it should be."""
    return _load("cifar10", data_dir)


def load_cifar100(data_dir: Path | None) -> Data:
    """Return CIFAR-100 with its 100 fine classes. Raises MissingData as `load_cifar10`."""
    return _load("cifar100", data_dir)


def unpack(name: str, archive: Path, folder: Path) -> None:
    """Write the files of `name` that `folder` lacks or has in another size from the archive.

    Raises ValueError for a broken one.

    Only regular members with exactly the expected names are read; where an archive wants things put plays no part.
    """
    training, test, names = FILES[name]
    try:
        with tarfile.open(archive) as members:
            for file in (*training, test, names):
                target, member = folder / file, members.getmember(file)
                if target.is_file() and target.stat().st_size == member.size:
                    continue
                if not member.isfile() or member.size > MOST_BYTES:
                    raise ValueError(f"{archive}: {file} is not a file of at most {MOST_BYTES:,} bytes")
                target.parent.mkdir(exist_ok=True)
                partial = target.with_name(f".{target.name}.part")
                partial.write_bytes(members.extractfile(member).read())
                os.replace(partial, target)
                print(f"{target}: {member.size:,} bytes")
    except (KeyError, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive} is not CIFAR's archive: {error}") from None


def _load(name: str, data_dir: Path | None) -> Data:
    training, test, names = FILES[name]
    folder = data_folder(data_dir, training[0])
    try:
        class_names = tuple((folder / names).read_text().split())
        published = _read([folder / test], name, len(class_names))
        train = _read([folder / file for file in training], name, len(class_names))
    except FileNotFoundError as error:
        path = Path(error.filename).relative_to(folder)
        raise MissingData(f"{path} is not in {folder}; fetch it with: {_command(name)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{folder}: {error}; fetch it with: {_command(name)}") from None
    return Data(*train, class_names, test=Data(*published, class_names))


def _read(paths: list[Path], name: str, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x (B, 32, 32, 3) and y (B,) of all files."""
    record = LABEL_BYTES[name] + PIXELS
    parts = []
    for path in paths:
        content = np.fromfile(path, np.uint8)
        if len(content) == 0 or len(content) % record:
            raise MissingData(f"{path} does not hold records of {record} bytes; fetch it with: {_command(name)}")
        parts.append(content.reshape(-1, record))
    records = np.concatenate(parts)
    y = records[:, LABEL_BYTES[name] - 1].astype(np.int64)
    if y.max() >= n_classes:
        raise MissingData(f"{paths[0].parent}: label {y.max()}, but {n_classes} names; fetch it with: {_command(name)}")
    x = records[:, LABEL_BYTES[name] :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x), y


def _command(name: str) -> str:
    return f"python -m loaders.images --download {name} DIR"
