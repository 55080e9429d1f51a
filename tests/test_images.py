"""IDX files and MNIST: sizes, splits, checksums, what is missing or broken."""

import gzip
import hashlib
import http.client
import os
from pathlib import Path

import numpy as np
import pytest

from loaders import MissingData, images
from setup_hpo import load_splits

MNIST = os.environ.get("HPO_DATA_DIR")


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def folder_with(tmp_path, parts, suffix=".gz"):
    for part, samples in parts.items():
        labels = np.arange(samples) % 10
        pictures = np.arange(samples * 12).reshape(samples, 4, 3) % 251
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", pictures)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return tmp_path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_published_split_is_used_where_all_files_are_there(tmp_path, suffix, capsys):
    splits = load_splits("mnist", folder_with(tmp_path, {"train": 90, "t10k": 30}, suffix))
    assert [len(part.y) for part in splits] == [70, 20, 30]
    assert splits.test.x.shape == (30, 4, 3) and splits.test.x[1, 2, 0] == 12 + 6
    assert capsys.readouterr().err == ""


def test_test_images_alone_are_split_and_a_line_says_so(tmp_path, capsys):
    splits = load_splits("mnist", folder_with(tmp_path, {"t10k": 100}))
    assert [len(part.y) for part in splits] == [70, 20, 10]
    assert "only the 100 test images" in capsys.readouterr().err


@pytest.mark.skipif(not MNIST or not (Path(MNIST) / "t10k-images-idx3-ubyte.gz").exists(), reason="MNIST is not here")
def test_mnist_itself():
    found = images.load_mnist(Path(MNIST))
    data = found.test or found
    assert data.x.shape == (10000, 28, 28) and list(data.y[:5]) == [7, 2, 1, 0, 4]  # the test set's known beginning
    assert np.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # published counts
    if found.test is None:
        assert [len(part.y) for part in load_splits("mnist", Path(MNIST))] == [7000, 2000, 1000]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\0\0\x08\x01\0\0\0\x05abc", "holds 3 values, not the 5"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "holds more values, not the 2"),
        (b"\0\0\x08\x03\0\0\0\x02", "holds .* values, not the 2"),
        (b"\0\0\x08\x04" + b"\0\1\0\0" * 4, "holds 0 values, not the 18446744073709551616"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "is not an IDX file"),
        (b"<html>", "is not an IDX file"),
        (b"", "is not an IDX file"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    folder_with(tmp_path, {"t10k": 20}, "")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(MissingData, match=f"t10k-labels-idx1-ubyte.*{message}"):
        images.load_mnist(tmp_path)


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.full(20, 10), "labels of t10k must be 0 to 9, not 10"),
        (np.zeros((20, 1)), r"images \(20, 4, 3\) and labels \(20, 1\)"),
        (np.zeros(19), r"images \(20, 4, 3\) and labels \(19,\)"),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path, labels, message):
    write_idx(folder_with(tmp_path, {"t10k": 20}, "") / "t10k-labels-idx1-ubyte", labels)
    with pytest.raises(MissingData, match=message):
        images.load_mnist(tmp_path)


def test_corrupt_gzip_and_a_bomb_are_one_line(tmp_path, monkeypatch):
    path = folder_with(tmp_path, {"t10k": 20}) / "t10k-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[12] ^= 0xFF  # within the deflate stream: zlib.error, which is no OSError
    path.write_bytes(content)
    with pytest.raises(MissingData, match="cannot be read"):
        images.read_idx(path)
    monkeypatch.setattr(images, "LARGEST", 1000)
    write_idx(path, np.zeros((2, 1000)))
    with pytest.raises(MissingData, match="holds 1001 values, not the 2000"):
        images.read_idx(path)


def test_parts_of_different_sizes_are_refused(tmp_path):
    folder_with(tmp_path, {"train": 90, "t10k": 30})
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((90, 4, 4)))
    with pytest.raises(MissingData, match=r"different sizes \(4, 4\) and \(4, 3\)"):
        images.load_mnist(tmp_path)


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(MissingData, match="t10k-images-idx3-ubyte.gz is not in .*--download mnist"):
        images.load_mnist(tmp_path)
    with pytest.raises(MissingData, match="MNIST.*no data folder"):
        images.load_mnist(None)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"not gzip")
    with pytest.raises(MissingData, match="cannot be read"):
        images.load_mnist(tmp_path)


def test_download_checks_md5(tmp_path, monkeypatch, capsys):
    server, target = tmp_path / "server", tmp_path / "target"
    server.mkdir()
    (server / "good.gz").write_bytes(b"good")
    (server / "bad.gz").write_bytes(b"bad")
    right = hashlib.md5(b"good").hexdigest()
    monkeypatch.setitem(images.SERVERS, "mnist", f"file://{server}/")
    monkeypatch.setitem(images.MD5, "mnist", {"good.gz": right, "bad.gz": right})
    assert images.main(["--download", "mnist", str(target)]) == 2
    assert "bad.gz: md5 is" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["good.gz"]
    with pytest.raises(SystemExit):
        images.main(["--download", "minst", str(target)])
    assert "unknown dataset 'minst'; choose from: mnist" in capsys.readouterr().err


def test_cut_off_download_is_one_line_and_keeps_what_was_there(tmp_path, monkeypatch, capsys):
    class CutOff:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, size):
            raise http.client.IncompleteRead(b"half")

    monkeypatch.setitem(images.MD5, "mnist", {"file.gz": "0" * 32})
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: CutOff())
    (tmp_path / "file.gz").write_bytes(b"older")
    assert images.main(["--download", "mnist", str(tmp_path)]) == 2
    assert "file.gz: the transfer was cut off (IncompleteRead); try again" in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


def test_interrupted_writing_leaves_no_half_file(tmp_path, monkeypatch):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "file.gz").write_bytes(b"whole")
    monkeypatch.setitem(images.SERVERS, "mnist", f"file://{tmp_path}/server/")
    monkeypatch.setitem(images.MD5, "mnist", {"file.gz": hashlib.md5(b"whole").hexdigest()})

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(images.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images.download("mnist", tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []
