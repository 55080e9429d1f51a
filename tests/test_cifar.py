"""CIFAR's binary files and archives on small synthetic ones; Fashion-MNIST beside MNIST."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from loaders import MissingData, cifar, images
from setup_hpo import load_splits
from tests.test_images import folder_with

NAMES = {"cifar10": [f"class{number}" for number in range(10)], "cifar100": [f"fine{number}" for number in range(100)]}


def records(name, samples, first=0):
    """Sample s has label s % 10 (coarse label 19), red s, green 100 + s, blue 200 in its first row, else 0."""
    content = b""
    for sample in range(first, first + samples):
        planes = np.zeros((3, 32, 32), np.uint8)
        planes[:, 0] = np.array([sample, 100 + sample, 200])[:, None]
        label = bytes([sample % 10]) if name == "cifar10" else bytes([19, sample % 10])
        content += label + planes.tobytes()
    return content


def contents(name):
    """The files of a small dataset: 18 images to learn from (or 5 x 18), 6 to test."""
    training, test, names = cifar.FILES[name]
    files = {file: records(name, 18, 18 * number) for number, file in enumerate(training)}
    return files | {test: records(name, 6), names: "\n".join(NAMES[name]).encode() + b"\n\n"}


def pack(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def serve(monkeypatch, tmp_path, name, files):
    """Make `name` come from a folder with an archive of the files; return that it is fetched into."""
    server, (archive,) = tmp_path / "server", images.MD5[name]
    server.mkdir()
    pack(server / archive, files)
    monkeypatch.setitem(images.SERVERS, name, f"file://{server}/")
    monkeypatch.setitem(images.MD5, name, {archive: hashlib.md5((server / archive).read_bytes()).hexdigest()})
    return tmp_path / "data"


@pytest.mark.parametrize("name, learnt", [("cifar10", 90), ("cifar100", 18)])
def test_download_unpack_and_load(tmp_path, monkeypatch, name, learnt):
    folder = serve(monkeypatch, tmp_path, name, contents(name))
    assert images.main(["--download", name, str(folder)]) == 0
    splits = load_splits(name, folder)
    assert [len(part.y) for part in splits] == [learnt * 7 // 9, learnt * 2 // 9, 6]
    assert splits.test.x.shape == (6, 32, 32, 3) and splits.test.x.dtype == np.uint8
    assert splits.test.y.tolist() == [0, 1, 2, 3, 4, 5]
    assert splits.test.x[3, 0, 31].tolist() == [3, 103, 200] and not splits.test.x[3, 1:].any()
    assert splits.train.class_names == tuple(NAMES[name])


def test_only_the_expected_members_are_written(tmp_path, monkeypatch):
    extra = {"../escaped": b"x", "/tmp/escaped_too": b"x", "cifar-10-batches-bin/other": b"x"}
    folder = serve(monkeypatch, tmp_path, "cifar10", extra | contents("cifar10"))
    assert images.main(["--download", "cifar10", str(folder)]) == 0
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {"cifar-10-binary.tar.gz", *contents("cifar10")}
    assert not (tmp_path / "escaped").exists()


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path, capsys, monkeypatch):
    files = contents("cifar100")
    folder = serve(monkeypatch, tmp_path, "cifar100", files)
    (archive,) = images.MD5["cifar100"]
    with tarfile.open(tmp_path / "server" / archive, "w:gz") as packed:
        link = tarfile.TarInfo("cifar-100-binary/train.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    md5 = hashlib.md5((tmp_path / "server" / archive).read_bytes()).hexdigest()
    monkeypatch.setitem(images.MD5, "cifar100", {archive: md5})
    assert images.main(["--download", "cifar100", str(folder)]) == 2
    assert "cifar-100-binary/train.bin is not a file" in capsys.readouterr().err


def test_a_wrong_checksum_leaves_nothing(tmp_path, capsys, monkeypatch):
    folder = serve(monkeypatch, tmp_path, "cifar10", contents("cifar10"))
    monkeypatch.setitem(images.MD5, "cifar10", {"cifar-10-binary.tar.gz": "0" * 32})
    assert images.main(["--download", "cifar10", str(folder)]) == 2
    assert "md5 is" in capsys.readouterr().err and list(folder.iterdir()) == []


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(MissingData, match="cifar-10-batches-bin/batches.meta.txt is not in .*--download cifar10"):
        cifar.load_cifar10(tmp_path)
    for file, content in contents("cifar10").items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(b"abc")
    with pytest.raises(MissingData, match="test_batch.bin does not hold records of 3073 bytes"):
        cifar.load_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(MissingData, match="label 10, but 10 names"):
        cifar.load_cifar10(tmp_path)


def test_fashion_lies_in_its_own_folder(tmp_path):
    (tmp_path / "fashion").mkdir()
    folder_with(tmp_path, {"train": 45, "t10k": 20})
    folder_with(tmp_path / "fashion", {"train": 90, "t10k": 30})
    splits = load_splits("fashion", tmp_path)
    assert [len(part.y) for part in splits] == [70, 20, 30] and splits.train.class_names[9] == "Ankle boot"
    assert len(load_splits("mnist", tmp_path).test.y) == 20
    (tmp_path / "fashion" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingData, match="t10k-labels-idx1-ubyte.gz is not in .*fashion; .*--download fashion"):
        images.load_fashion(tmp_path)


def test_a_file_that_was_cut_off_is_written_anew(tmp_path, monkeypatch):
    folder = serve(monkeypatch, tmp_path, "cifar100", contents("cifar100"))
    assert images.main(["--download", "cifar100", str(folder)]) == 0
    cut = next(folder.rglob("train.bin"))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    assert images.main(["--download", "cifar100", str(folder)]) == 0
    assert cut.read_bytes() == whole


def test_names_that_are_no_text_are_one_line(tmp_path, monkeypatch):
    folder = serve(monkeypatch, tmp_path, "cifar100", contents("cifar100"))
    assert images.main(["--download", "cifar100", str(folder)]) == 0
    next(folder.rglob("fine_label_names.txt")).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(MissingData, match="--download cifar100"):
        cifar.load_cifar100(folder)
