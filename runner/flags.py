"""The command line that a search and a trial share, and how their mistakes are answered: one line, exit status 2."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from runner.texts import printable

HIGHEST_SEED = 2**31 - 1  # NumPy's and scikit-learn's generators take no more than 32 bits
HIGHEST_COUNT = 2**31 - 1  # what is more is a slip, and beyond some floats and NNI's database
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class UserMistake(Exception):
    """One line that names what is wrong with the command line, a search space or the data, and the choices."""


class OneLineParser(argparse.ArgumentParser):
    """Answers a wrong flag with one line and exit status 2, without a dump of the usage."""

    def parse_args(self, args=None, namespace=None):
        """As argparse has it; but `--seed=--`, of which some versions make an empty list, is a mistake."""
        args = sys.argv[1:] if args is None else list(args)
        for word in args:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value, not '--'")
        return super().parse_args(args, namespace)

    def error(self, message: str):
        """Print `message`, of which every letter is shown, and leave with status 2."""
        shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message)
        self.exit(2, f"{self.prog}: {shown}\n")


def count(lowest: int, highest: int | None = None):
    """Return an argparse type for integers of at least `lowest` and, where given, at most `highest`."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if lowest <= int(text) <= (HIGHEST_COUNT if highest is None else highest):
                return int(text)
        bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        bounds += f" and at most {HIGHEST_COUNT}" if highest is None and len(text) > 9 else ""
        raise argparse.ArgumentTypeError(f"must be an integer {bounds}, not {printable(text, 40)!r}")

    return parse


def add_trial_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that a search hands on to its trials: seeds, threads, device and data."""
    parser.add_argument(
        "--seed", type=count(0, HIGHEST_SEED), default=0, help="tuner, initial weights and batches (default 0)"
    )
    parser.add_argument(
        "--split-seed", type=count(0, HIGHEST_SEED), default=0, help="split into train and validation (default 0)"
    )
    parser.add_argument("--test-seed", type=count(0, HIGHEST_SEED), default=0, help="outer test part (default 0)")
    parser.add_argument(
        "--repeats", type=count(1), default=1, help="train this many seeds, score their mean (default 1)"
    )
    parser.add_argument("--threads", type=count(1), help="threads of a trial (default: OMP_NUM_THREADS, else 1)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where to train (default cpu)")
    parser.add_argument("--tonic", metavar="NAME", help="which of tonic's datasets a task on them takes, such as SHD")
    parser.add_argument("--tensorboard", action="store_true", help="write each trial's epochs for TensorBoard")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HPO_DATA_DIR"), help="folder of the datasets")


def trial_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags of `add_trial_flags` as command-line words, the data folder made absolute."""
    words = []
    for name in ("seed", "split_seed", "test_seed", "repeats", "threads", "device", "tonic"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    if args.tensorboard:
        words.append("--tensorboard")
    if args.data_dir is not None:
        words += ["--data-dir", str(Path(args.data_dir).resolve())]
    return words


def thread_environment(threads: int | None) -> dict[str, str]:
    """Return the variables that hold numerical libraries to `threads`; unset ones become 1 where `threads` is None."""
    return {name: str(threads or os.environ.get(name) or 1) for name in THREAD_VARIABLES}
