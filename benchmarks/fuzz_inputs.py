"""Bad inputs for benchmarks.fuzz, drawn from a generator: each a Case, a command line with the files that it reads.

    case = draw(random.Random(1), place)        # place: the folder with the copy of the repository and the experiments

What a case must end with is known where a word is surely bad: 2. Where a file was changed at random, it may still be
right: 0 or 2, and 1 for a search that came to no result or a report that could not be made.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import random
import shutil
from pathlib import Path
from typing import NamedTuple

KINDS = {"command lines": 35, "parameter sets": 20, "search spaces": 15, "data files": 15, "damaged folders": 15}  # %
BAD = frozenset({2})
EITHER = frozenset({0, 2})
SEARCHED = frozenset({0, 1, 2})


class Case(NamedTuple):
    """One input."""

    kind: str
    words: list[str]  # the program, then its arguments
    statuses: frozenset[int]  # of which one is right
    about: str = ""  # what was changed
    encoding: str = "utf-8"  # of the terminal


TEXTS = ["", " ", "-", "--", "ünïcode", "日本", os.fsdecode(b"\x80\xff"), "x" * 5000, "\x1b[31mred", "two\nlines", "'"]
TEXTS += ['"', "%s%n", "$(id)", "*", "{}", "[]", "null", "None", "../../x", "/dev/null", "/proc/self/mem", "README.md"]
WHOLE = ["9" * 400, "9" * 5000, "-1", "-0.5", "1e309", "nan", "inf", "0x10", "3.0", "²", "1,5", *TEXTS]  # no integers
TASKS = ["eprop_digits", "streamnet_digits", "whetstone_digits"]  # whose data is at hand
NNI_MAIN = {  # flag -> (values that are right, values that are not); a flag without a value has none
    "--tuner": (["gp", "tpe", "forest", "random", "nsga2", "qmc"], [*TEXTS, "GP", "metis"]),
    "--objectives": (["default:max", "seconds:min,default:max"], [*TEXTS, "default", "default:up", "a:max,a:min", ":"]),
    "--limit": (["seconds<9", "default > 0.1"], [*TEXTS, "a<nan", "a<1e999", "a=1", "<1", f"a<{'9' * 400}"]),
    "--warm-start": ([], [*TEXTS, "nobody"]),
    "--assessor": (["none", "medianstop", "curvefitting"], TEXTS),
    "--trials": (["1", "7", "٣"], [*WHOLE, "0"]),
    "--duration": (["90", "2h", "1.5m"], [*TEXTS, "5x", "0", "-1s", "1e3s", "nan", "9" * 400, "9" * 5000]),
    "--trial-duration": (["90s"], [*TEXTS, "5x", "0", "9" * 400]),
    "--concurrency": (["1", "2"], [*WHOLE, "0"]),
    "--gpus": ([], [*WHOLE, "0", "1", "2"]),
    "--trials-per-gpu": (["1"], [*WHOLE, "0", "2", "65"]),
    "--port": (["48765"], [*WHOLE, "0", "80", "65536", "48765.0"]),
    "--id": (["mine", "a-b_9"], ["", " ", "a b", "a/b", "_latest", "x" * 33, ".", "ünï", "two\nlines", "../x", "٣"]),
    "--machines": ([], [text for text in TEXTS if text]),
    "--dask": ([], ["", "tcp://", "tcp://127.0.0.1:1", "ünï://x", "127.0.0.1:1:1", "inproc://none"]),
    "--resume": ([], [*TEXTS, "nobody"]),
    "--view": ([], [*TEXTS, "nobody"]),
    "--seed": (["0", "2147483647"], [*WHOLE, "2147483648"]),
    "--split-seed": (["3"], [*WHOLE, "2147483648"]),
    "--test-seed": (["3"], [*WHOLE, "2147483648"]),
    "--repeats": (["1", "2"], [*WHOLE, "0"]),
    "--threads": (["1", "2"], [*WHOLE, "0"]),
    "--device": (["cpu", "auto"], [*TEXTS, "gpu", "CPU"]),
    "--tonic": ([], [*TEXTS, "SHD", "SHD,step_ms=x"]),
    "--experiments": ([], ["/dev/null", "/proc/nowhere", "README.md", "README.md/x", "x" * 300]),
    "--headless": (None, None),
    "--keep": (None, None),
    "--tensorboard": (None, None),
    "--no-report": (None, None),
    "--accept-changes": (None, None),
}
SHARED = ("--seed", "--split-seed", "--test-seed", "--repeats", "--threads", "--device", "--tonic")
MAIN_HPO = {name: NNI_MAIN[name] for name in SHARED} | {
    "--task": (TASKS, [text for text in TEXTS if text != "--"]),
    "--params": (
        ["{}", '{"weight_decay": 0}'],
        ["", "{", "[1]", "3", "null", '"x"', "[" * 60000, '{"a":' * 20000, "9" * 5000],
    ),
    "--out": ([], ["/dev/null", "/proc/nowhere", "README.md/x", "x" * 300]),
    "--data-dir": (["/tmp", "nowhere"], []),
}
REPORT = {
    "--compare": ([], [*TEXTS, "made", "nobody"]),
    "--out": ([], TEXTS),
    "--top": ([], [*WHOLE, "0", "2"]),
    "--splits": ([], [*WHOLE, "0"]),
    "--seeds": ([], [*WHOLE, "0"]),
    "--bits": ([], [*WHOLE, "1", "17"]),
}


def draw_kind(rng: random.Random) -> str:
    """Return the kind of an input, the first that is drawn of it."""
    return rng.choices(list(KINDS), list(KINDS.values()))[0]


def draw(rng: random.Random, place: Path, scratch: Path) -> Case:
    """Return an input; its files are made in `scratch`, or in the repository `place` under the name "fuzzed"."""
    makers = dict(zip(KINDS, (command_line, parameter_set, search_space, data_file, damaged_folder), strict=True))
    case = makers[draw_kind(rng)](rng, place, scratch)
    return case._replace(encoding="ascii" if rng.random() < 0.1 else "utf-8")


# Command lines


def command_line(rng: random.Random, place: Path, scratch: Path) -> Case:
    """One to four flags of one of the three programs, of which one or more are wrong most times."""
    program = rng.choice(["nni_main.py"] * 3 + ["main_hpo.py"] * 2 + ["report_hpo.py"])
    flags = {"nni_main.py": NNI_MAIN, "main_hpo.py": MAIN_HPO, "report_hpo.py": REPORT}[program]
    words, surely, rightly = [], False, rng.choice([0.4, 0.8, 1])
    for name in rng.sample(list(flags), rng.randint(1, 4)):
        good, bad = flags[name]
        if good is None:
            words.append(name)
        elif good and (not bad or rng.random() < rightly):
            words += [name, rng.choice(good)]
        elif rightly == 1:
            continue
        else:
            words += [name, rng.choice(bad)] if rng.random() < 0.5 else [f"{name}={rng.choice(bad)}"]
            surely = True
    if rng.random() < 0.15:
        words.insert(
            rng.randint(0, len(words)), rng.choice(["--wrong", "-x", "--seed", "--", "--=", "-", "\U0001f9e0"])
        )
    return Case("command lines", [program, *_whole(program, words, rng, scratch)], BAD if surely else EITHER)


def _whole(program: str, words: list[str], rng: random.Random, scratch: Path) -> list[str]:
    """Add what a command line needs beside what is tried, so that nothing is trained and nothing is left behind."""
    if program == "nni_main.py":
        task = [rng.choice([*TASKS, *TASKS, *TEXTS])] if rng.random() < 0.7 else []
        own = [] if any(word.startswith("--experiments") for word in words) else ["--experiments", str(scratch / "e")]
        return [*task, *own, "--no-check", *words]
    if program == "main_hpo.py":
        own = [] if any(word.startswith("--task") for word in words) else ["--task", rng.choice(TASKS)]
        return [*own, "--fingerprint", *words]
    return [*([rng.choice([*TEXTS, "made"])] if rng.random() < 0.5 else []), *words]


# JSON and bytes


def odd_values() -> list:
    """Values that JSON can have and nobody expects."""
    numbers = [0, -1, 2**63, 10**400, 1e308, -1e-320, -0.0, math.nan, math.inf, -math.inf, 3.5]
    texts = ["", "x" * 3000, "\ud800", "ünï", "=1+1", "1", "\x1b[2J", "a\nb", "\0", "default"]
    return [None, True, False, *numbers, *texts, [], {}, [[]], [1, 2], {"_name": "a"}, {"_name": 3}, {"_value": [1]}]


def places_in(value, path: tuple = ()) -> list[tuple]:
    """Return the path of every value within a JSON value, that of the whole first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in inner for found in places_in(child, (*path, key)))]


def changed(value, rng: random.Random):
    """Return a JSON value with one to three places replaced, removed, renamed or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(places_in(value))
        if not path:
            value = rng.choice([value] * 9 + odd_values())
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        way = rng.random()
        if way < 0.6:
            parent[path[-1]] = rng.choice(odd_values())
        elif way < 0.75:
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[rng.choice(["", "ünï", "\ud800", "_type", "_value", "_name", "seed", "lr", "x" * 300])] = parent[
                path[-1]
            ]
        else:
            parent.append(parent[path[-1]])
    return value


def spoilt(content: bytes, rng: random.Random) -> bytes:
    """Return bytes cut off, flipped, doubled, filled in, or replaced."""
    at, end = sorted((rng.randint(0, len(content)), rng.randint(0, len(content))))
    early = rng.randint(0, min(len(content), 64))
    flipped = bytearray(content)
    for _ in range(rng.randint(1, 8) if content else 0):
        flipped[rng.choice([rng.randrange(len(content)), rng.randrange(min(len(content), 64))])] ^= 1 << rng.randrange(
            8
        )
    return rng.choice(
        [
            content[:at],
            content[:early],
            content[:at] + content[end:],
            content[:at] + content[at:end] * 2 + content[end:],
            content[:at] + bytes(end - at) + content[end:],
            content[:early] + b"\xff" * 4 + content[early + 4 :],
            bytes(flipped),
            bytes(flipped),
            content + rng.randbytes(50),
            rng.randbytes(len(content) % 5000),
            b"",
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"\xef\xbb\xbf" + content,
            content.decode("latin-1").encode("utf-16"),
            b"null",
            b"\0" * 1000,
        ]
    )


def spoil_file(path: Path, rng: random.Random) -> str:
    """Spoil a file in one of many ways; return what was done."""
    way = rng.random()
    if way < 0.05:
        path.unlink()
        return f"{path.name} deleted"
    if way < 0.1:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    if way < 0.13:
        path.unlink()
        path.symlink_to(path.name)
        return f"{path.name} is a link to itself"
    if path.suffix in (".json", ".jsonl") and way < 0.75:
        path.write_bytes(_changed_lines(path, rng))
        return f"{path.name}: JSON changed"
    packed = path.suffix == ".gz" and way < 0.6
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    content = spoilt(content, rng)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return f"{path.name}: bytes changed"


def cut_file(path: Path, rng: random.Random) -> str:
    """Keep the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])
    return f"{path.name} cut off"


def _changed_lines(path: Path, rng: random.Random) -> bytes:
    text = path.read_text()
    if path.suffix == ".json":
        return json.dumps(changed(json.loads(text), rng)).encode()
    lines = text.splitlines()
    number = rng.randrange(len(lines)) if lines else 0
    odd = [
        '{"parameter_id": 3}',
        "[1]",
        '{"event": "start"}',
        "[" * 100_000,
        "3",
        '"x"',
        '{"parameter_id": [1]}',
        "NaN",
    ]
    if not lines or rng.random() < 0.3:
        lines.insert(number, rng.choice(odd))
    else:
        lines[number] = json.dumps(changed(json.loads(lines[number]), rng))
    return ("\n".join(lines) + "\n").encode()


# Parameters and search spaces


def parameter_set(rng: random.Random, place: Path, scratch: Path) -> Case:
    """One to four parameters of an objective with odd values, or unknown ones; sometimes the text itself is broken.

    One in four is tried in earnest, by an epoch with sizes that are not large.
    """
    import dataclasses

    import train_hpo

    task = rng.choice(TASKS)
    fields = dataclasses.fields(train_hpo.params_class(task.split("_")[0]))
    given = {}
    if rng.random() < 0.25:
        given = {field.name: _near(field.default, rng, 1) for field in rng.sample(fields, rng.randint(1, 4))}
        given |= {"epochs": 1} if any(field.name == "epochs" for field in fields) else {}
        words = ["main_hpo.py", "--task", task, "--params", json.dumps(given)]
        return Case("parameter sets", words, EITHER, f"trained: {json.dumps(given)}")
    for field in rng.sample(fields, rng.randint(1, 4)):
        near = _near(field.default, rng)
        name = rng.choice([field.name] * 12 + ["", "ünï", "\ud800", field.name + "s", "__class__", "self"])
        given[name] = near if rng.random() < 0.4 else rng.choice(odd_values())
    text = json.dumps(given)
    if rng.random() < 0.1:
        text = spoilt(text.encode(), rng).decode("utf-8", "surrogateescape").replace("\0", "")[:100_000]
    return Case(
        "parameter sets", ["main_hpo.py", "--task", task, "--fingerprint", "--params", text], EITHER, text[:200]
    )


def _near(value, rng: random.Random, largest: int = 10**9):
    """Return a value of the same type, mostly plausible; an integer is at most `largest` times the value."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return rng.choice([value, True, False, "none", value])
    if isinstance(value, int):
        large = [value * min(largest, 1000), value * largest]
        return rng.choice([value + 1, value - 1, *large, -value, float(value), value + 0.5, 0, 1, value // 2])
    return (
        rng.choice([value * 10, -value, value * 1e30, value * 1e-30, 1.0, int(value)])
        if isinstance(value, float)
        else 0
    )


def search_space(rng: random.Random, place: Path, scratch: Path) -> Case:
    """A search space of the project with changes, looked at before a search as it always is."""
    sources = sorted(path for path in (place / "search_spaces").glob("*.json") if "fuzzed" not in path.stem)
    source = rng.choice(sources)
    task = f"{source.stem.split('_')[0]}_digits_fuzzed"
    target = place / "search_spaces" / f"{task}.json"
    target.write_bytes(source.read_bytes())
    about = spoil_file(target, rng) if rng.random() < 0.3 else _change_space(target, rng)
    words = ["nni_main.py", task, "--headless", "--experiments", str(scratch / "e")]
    return Case("search spaces", words, EITHER, f"{source.stem}: {about}")


def _change_space(path: Path, rng: random.Random) -> str:
    space = json.loads(path.read_text())
    name = rng.choice(list(space))
    kinds = ["choice", "randint", "uniform", "quniform", "loguniform", "qloguniform", "normal", "qnormal", "lognormal"]
    values = [0, 1, -1, 0.5, 5, 10**6, 1e308, math.nan, math.inf, "a", None, True, [], {}, 10**400]
    numbers = [rng.choice(values) for _ in range(rng.randint(0, 4))]
    kind, likely = rng.choice(kinds), [0.01, 0.5, 0.1]
    number = 3 if kind[0] == "q" else 2
    space[name] = rng.choice(
        [
            {"_type": kind, "_value": likely[:number]},
            {"_type": kind, "_value": [10 * value for value in likely[:number]]},
            {"_type": "choice", "_value": [rng.choice(values[:5]) for _ in range(2)]},
            {"_type": rng.choice([*kinds, "tape", "", None, 3, []]), "_value": numbers},
            {"_type": rng.choice(kinds), "_value": rng.choice([numbers, {}, None, "abc", [numbers], [{"_name": "a"}]])},
            {
                "_type": "choice",
                "_value": [{"_name": rng.choice(["a", "", 3]), "b": rng.choice([numbers, space[name]])}],
            },
        ]
    )
    path.write_text(json.dumps(space))
    return f"{name} = {json.dumps(space[name])}"[:200]


# Data files


def data_file(rng: random.Random, place: Path, scratch: Path) -> Case:
    """A small, right set of files for one loader, of which one is spoilt.

    Files of HDF5 are cut off only: with other damage its library, which tonic calls, may go round for ever.
    """
    makers = {"mnist": _idx, "fashion": _idx, "cifar10": _cifar, "cifar100": _cifar}
    makers |= {"braille": _braille, "tonic": _spikes}
    name = rng.choice(list(makers))
    folder = scratch / "data"
    folder.mkdir()
    makers[name](folder, name, rng)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    chosen = rng.choice(files)
    about = f"{name}: {cut_file(chosen, rng) if chosen.suffix == '.h5' else spoil_file(chosen, rng)}"
    words = ["main_hpo.py", "--fingerprint", "--data-dir", str(folder), "--task"]
    task = "whetstone_mnist" if name == "mnist" else f"eprop_{name}" if name in ("braille", "tonic") else None
    words += [task or next(path.stem for path in sorted((place / "search_spaces").glob(f"whetstone_{name}_*.json")))]
    return Case("data files", [*words, *(["--tonic", "SHD"] if name == "tonic" else [])], EITHER, about)


def _idx(folder: Path, name: str, rng: random.Random) -> None:
    folder = folder / "fashion" if name == "fashion" else folder
    folder.mkdir(exist_ok=True)
    for part in rng.choice([["t10k"], ["t10k", "train"]]):
        images = bytes([0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 28, 0, 0, 0, 28]) + rng.randbytes(40 * 784)
        labels = bytes([0, 0, 8, 1, 0, 0, 0, 40]) + bytes(number % 10 for number in range(40))
        for kind, content in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            packed = rng.random() < 0.7
            path = folder / f"{part}-{kind}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content, 1) if packed else content)


def _cifar(folder: Path, name: str, rng: random.Random) -> None:
    from loaders import cifar

    training, test, names = cifar.FILES[name]
    for file in (*training, test):
        (folder / file).parent.mkdir(exist_ok=True)
        labels = [bytes([number % 10]) if name == "cifar10" else bytes([1, number]) for number in range(20)]
        (folder / file).write_bytes(b"".join(label + bytes(cifar.PIXELS) for label in labels))
    (folder / names).write_text("\n".join(f"class{number}" for number in range(10 if name == "cifar10" else 100)))


def _braille(folder: Path, name: str, rng: random.Random) -> None:
    import numpy as np

    from loaders import braille

    x = np.random.default_rng(rng.randrange(99)).integers(0, 2, (21, braille.STEPS, braille.TAXELS), np.uint8)
    with io.BytesIO() as buffer:
        arrays = {"spikes": np.packbits(x), "shape": np.array(x.shape), "labels": np.arange(21) % 7}
        rng.choice([np.savez, np.savez_compressed])(buffer, **arrays)
        (folder / braille.SUBSET).write_bytes(buffer.getvalue())
    if rng.random() < 0.4:
        (folder / braille.SUBSET).unlink()
        for file in braille.BLOB_IDS:
            (folder / file).write_bytes(_tensors(x))


def _tensors(x) -> bytes:
    import torch
    from torch.utils.data import TensorDataset

    with io.BytesIO() as buffer:
        torch.save(TensorDataset(torch.as_tensor(x), torch.arange(len(x)) % 7), buffer)
        return buffer.getvalue()


def _spikes(folder: Path, name: str, rng: random.Random) -> None:
    """The Heidelberg digits as published: times [s] and units 0..699, a row for each recording."""
    import h5py
    import numpy as np

    (folder / "SHD").mkdir()
    for part in ("train", "test"):
        (folder / "SHD" / f"shd_{part}.h5.zip").touch()
        with h5py.File(folder / "SHD" / f"shd_{part}.h5", "w") as file:
            for key, kind in (("times", "f8"), ("units", "u2")):
                rows = file.create_dataset(f"spikes/{key}", (9,), dtype=h5py.vlen_dtype(kind))
                for number in range(9):
                    rows[number] = np.linspace(0, 0.9, 20) if key == "times" else np.arange(20)
            file["labels"] = np.arange(9) % 3
            file["extra/keys"] = np.array([b"zero", b"one", b"two"])
            file["extra/speaker"] = np.zeros(9)


# Damaged folders


def damaged_folder(rng: random.Random, place: Path, scratch: Path) -> Case:
    """A copy of an experiment of which one to three files are spoilt: listed, resumed, shown or reported."""
    source = rng.choice(["streamnet", "eprop", "with-nni"])
    shutil.copytree(place / "experiments" / source, scratch / "e" / "mine")
    (scratch / "e" / "other").symlink_to(place / "experiments" / "eprop")
    files = sorted(path for path in (scratch / "e" / "mine").rglob("*") if path.is_file())
    weights = [8 if path.name in ("search.json", "journal.jsonl", "events.jsonl") else 1 for path in files]
    chosen = set(rng.choices(files, weights, k=rng.randint(1, 3)))
    about = ", ".join(spoil_file(path, rng) for path in sorted(chosen))
    main = ["nni_main.py", "--experiments", str(scratch / "e")]
    report = ["report_hpo.py", "--experiments", str(scratch / "e")]
    resume = [*main, "--resume", "mine", "--no-report"]
    words, statuses = rng.choice(
        [
            ([*main, "--list"], frozenset({0})),
            ([*resume, "--trials", "3", "--concurrency", "1"], SEARCHED),
            ([*resume, "--trials", "3", "--concurrency", "1", "--accept-changes"], SEARCHED),
            ([*resume], SEARCHED),
            ([*main, "--view", "mine"], SEARCHED),
            ([*main, TASKS[0], "--headless", "--no-check", "--warm-start", "mine"], EITHER),
            ([*report, "mine"], SEARCHED),
            ([*report, "mine", "--bits", "4"], SEARCHED),
            ([*report, "--compare", "mine", "other"], SEARCHED),
        ]
    )
    return Case("damaged folders", words, statuses, f"{source}: {about}")
