"""MNIST and Fashion-MNIST in IDX files: uint8 (B, 28, 28), ten classes. Download them, and CIFAR, with checksums, by

    python -m loaders.images --download NAME DIR        # mnist, fashion, cifar10, cifar100

`load_mnist` takes what is in the data folder, compressed or not: with the 60,000 training images the published test set
is `Data.test`; with only the 10,000 test images these are all there is, and a line on stderr says so. Fashion-MNIST's
files have the names of MNIST's and lie in the subfolder `fashion`.
Sources: Y. LeCun, C. Cortes, C. J. C. Burges, the MNIST database; H. Xiao, K. Rasul, R. Vollgraf, arXiv 1708.07747.
Format: a magic number (0, 0, type, dimensions), the sizes as big-endian 32-bit integers, then the values; type 8 is
uint8. CIFAR's is in `loaders.cifar`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from loaders import Data, MissingData, cifar, data_folder

SERVERS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion": "https://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
    "cifar100": "https://www.cs.toronto.edu/~kriz/",
}
MD5 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "cifar10": {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    "cifar100": {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
}  # of the compressed files
DIGITS = tuple(str(digit) for digit in range(10))
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip
LARGEST = 1 << 28  # bytes; no file of these is longer, unpacked or not
ADVICE = "fetch it with: python -m loaders.images --download"


def load_mnist(data_dir: Path | None) -> Data:
    """Return MNIST from `data_dir`. Raises MissingData where a file is not there or is not what it should be."""
    return _load(data_folder(data_dir, "t10k-images-idx3-ubyte.gz (MNIST)"), "mnist", DIGITS)


def load_fashion(data_dir: Path | None) -> Data:
    """Return Fashion-MNIST from `data_dir`/fashion. Raises MissingData as `load_mnist`."""
    return _load(data_folder(data_dir, "fashion/t10k-images-idx3-ubyte.gz") / "fashion", "fashion", CLOTHES)


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of an IDX file, gzipped or not. Raises MissingData where it is broken or over 256 MB."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4)
            if header[:3] != b"\0\0\x08" or len(header) < 4:
                raise MissingData(f"{path} is not an IDX file of bytes")
            sizes = file.read(4 * header[3])
            shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
            values = file.read(min(math.prod(shape), LARGEST) + 1)  # one more than announced would show
    except (OSError, EOFError, zlib.error) as error:
        raise MissingData(f"{path} cannot be read ({error})") from None
    if len(shape) != header[3] or len(values) != math.prod(shape):
        held = f"{len(values)} values" if len(values) <= math.prod(shape) else "more values"
        raise MissingData(f"{path} holds {held}, not the {math.prod(shape)} that it announces")
    return np.frombuffer(bytearray(values), np.uint8).reshape(shape)  # of a bytearray: writable


def download(name: str, folder: Path) -> None:
    """Fetch the files of a dataset that `folder` lacks; each is written whole, under its name, or not at all.

    Fashion-MNIST goes to the subfolder `fashion`; CIFAR's archives are unpacked (`cifar.unpack`).
    Raises OSError where there is no connection or no place, ValueError for a cut-off file or one of another md5.
    """
    folder = folder / name if name == "fashion" else folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, expected in MD5[name].items():
        target = folder / file
        if target.is_file() and hashlib.md5(target.read_bytes()).hexdigest() == expected:
            print(f"{target} is there")
        else:
            _write_whole(target, _fetch(SERVERS[name] + file, expected))
        if name in cifar.FILES:
            cifar.unpack(name, target, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Fetch a dataset of images.")
    parser.add_argument("--download", nargs=2, metavar=("NAME", "DIR"), required=True, help=f"one of {', '.join(MD5)}")
    name, folder = parser.parse_args(arguments).download
    if name not in MD5:
        parser.error(f"unknown dataset {name!r}; choose from: {', '.join(MD5)}")
    try:
        download(name, Path(folder))
    except (OSError, ValueError) as error:
        print(f"loaders.images: {error}", file=sys.stderr)
        return 2
    return 0


def _load(folder: Path, name: str, class_names: tuple[str, ...]) -> Data:
    try:
        published = _part(folder, "t10k", class_names)
        if _find(folder, "train-images-idx3-ubyte") is None:
            print(
                f"{name}: only the {len(published.y):,} test images are in {folder}: they are split into train, "
                f"validation and test. The other 60,000: {ADVICE} {name} DIR",
                file=sys.stderr,
            )
            return published
        train = _part(folder, "train", class_names)
        if train.x.shape[1:] != published.x.shape[1:]:
            sizes = f"{train.x.shape[1:]} and {published.x.shape[1:]}"
            raise MissingData(f"{folder}: train and t10k have images of different sizes {sizes}")
    except MissingData as missing:
        raise MissingData(f"{missing}; {ADVICE} {name} DIR") from None
    return Data(train.x, train.y, class_names, test=published)


def _fetch(url: str, expected: str) -> bytes:
    import http.client
    import urllib.request  # slow to import, and a trial does not need it

    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read(LARGEST)
    except http.client.HTTPException as error:
        raise ValueError(f"{url}: the transfer was cut off ({type(error).__name__}); try again") from None
    except OSError as error:
        raise OSError(f"{url}: {error}") from None
    found = hashlib.md5(content).hexdigest()
    if found != expected:
        raise ValueError(f"{url}: md5 is {found}, but must be {expected}; it was not written")
    return content


def _write_whole(target: Path, content: bytes) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{target}: {len(content):,} bytes, md5 as it should be")


def _part(folder: Path, part: str, class_names: tuple[str, ...]) -> Data:
    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        path = _find(folder, f"{part}-{kind}")
        if path is None:
            raise MissingData(f"{part}-{kind}.gz is not in {folder}")
        arrays.append(read_idx(path))
    images, labels = arrays
    if images.ndim != 3 or not images.size or labels.shape != images.shape[:1]:
        raise MissingData(f"{folder}: {part} has images {images.shape} and labels {labels.shape}")
    if labels.max() >= len(class_names):
        raise MissingData(f"{folder}: labels of {part} must be 0 to {len(class_names) - 1}, not {labels.max()}")
    return Data(images, labels.astype(np.int64), class_names)


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.exists()), None)


if __name__ == "__main__":
    sys.exit(main())
