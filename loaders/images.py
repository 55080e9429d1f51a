"""MNIST and Fashion-MNIST in IDX files: uint8 (B, 28, 28), ten classes. Download them, and CIFAR, with checksums, by

    python -m loaders.images --download NAME DIR        # mnist, fashion, cifar10, cifar100

`load` takes what is in the data folder, compressed or not: with the 60,000 training images the published test set is
`Data.test`; with only the 10,000 test images these are all there is, and a line on stderr says so. Fashion-MNIST's
files have the names of MNIST's and lie in the subfolder `fashion`.
Sources: Y. LeCun, C. Cortes, C. J. C. Burges, the MNIST database; H. Xiao, K. Rasul, R. Vollgraf, arXiv 1708.07747.
Format: a magic number (0, 0, type, dimensions), the sizes as big-endian 32-bit integers, then the values; type 8 is
uint8. CIFAR's is in `loaders.cifar`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
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
ADVICE = "fetch it with: python -m loaders.images --download"


def load(data_dir: Path | None) -> Data:
    """Return MNIST from `data_dir`. Raises MissingData where a file is not there or is not what it should be."""
    return _load(data_folder(data_dir, "t10k-images-idx3-ubyte.gz (MNIST)"), "mnist", DIGITS)


def load_fashion(data_dir: Path | None) -> Data:
    """Return Fashion-MNIST from `data_dir`/fashion. Raises MissingData as `load`."""
    return _load(data_folder(data_dir, "fashion/t10k-images-idx3-ubyte.gz") / "fashion", "fashion", CLOTHES)


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of an IDX file, gzipped or not. Raises MissingData where it is broken."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise MissingData(f"{path} cannot be read ({error})") from None
    dimensions = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * dimensions:
        raise MissingData(f"{path} is not an IDX file of bytes")
    shape = np.frombuffer(content, ">u4", dimensions, 4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if len(values) != shape.prod():
        raise MissingData(f"{path} holds {len(values)} values, not the {shape.prod()} that it announces")
    return values.reshape(shape)


def download(name: str, folder: Path) -> None:
    """Fetch the files of a dataset that `folder` lacks and check their md5. Raises ValueError where it differs.

    Fashion-MNIST goes to the subfolder `fashion`; CIFAR's archives are unpacked (`cifar.unpack`).
    """
    folder = folder / name if name == "fashion" else folder
    folder.mkdir(parents=True, exist_ok=True)
    for file, expected in MD5[name].items():
        target = folder / file
        if not target.exists() or hashlib.md5(target.read_bytes()).hexdigest() != expected:
            _fetch(SERVERS[name] + file, expected, target)
        if name in cifar.FILES:
            cifar.unpack(name, target, folder)


def _fetch(address: str, expected: str, target: Path) -> None:
    import urllib.request  # slow to import, and a trial does not need it

    with urllib.request.urlopen(address, timeout=60) as answer:
        content = answer.read()
    found = hashlib.md5(content).hexdigest()
    if found != expected:
        raise ValueError(f"{address}: md5 is {found}, but must be {expected}; nothing was written")
    target.write_bytes(content)
    print(f"{target}: {len(content):,} bytes, md5 as it should be")


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
        return 1
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
    except MissingData as missing:
        raise MissingData(f"{missing}; {ADVICE} {name} DIR") from None
    return Data(train.x, train.y, class_names, test=published)


def _part(folder: Path, part: str, class_names: tuple[str, ...]) -> Data:
    arrays = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        path = _find(folder, f"{part}-{kind}")
        if path is None:
            raise MissingData(f"{part}-{kind}.gz is not in {folder}")
        arrays.append(read_idx(path))
    images, labels = arrays
    if images.ndim != 3 or len(images) != len(labels):
        raise MissingData(f"{folder}: {part} has images {images.shape} and {len(labels)} labels")
    return Data(images, labels.astype(np.int64), class_names)


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.exists()), None)


if __name__ == "__main__":
    sys.exit(main())
