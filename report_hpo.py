"""After a search, also a running one: a page with its pictures, the best trained again, several searches compared.

python report_hpo.py experiments/<id>                              # report/index.html, each picture as PNG and PDF
python report_hpo.py experiments/<id> --retrain --splits 10 --seeds 3   # the best again: figures that can be quoted
python report_hpo.py experiments/<id> --retrain --top 5
python report_hpo.py experiments/<id> --bits 2 3 4 6 8             # the best net with weights of fewer bits
python report_hpo.py --compare <id> <id> ...                       # side by side, with a paired test
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from runner.flags import OneLineParser, UserMistake, count, thread_environment
from runner.texts import one_line, take_any_terminal

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Do what the command line says. Returns the exit status: 2 for a mistake, 130 after Ctrl-C."""
    take_any_terminal()
    args = parse_arguments()
    try:
        return compare(args) if args.compare else report(args)
    except UserMistake as mistake:
        print(f"report_hpo.py: {one_line(mistake)}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:  # of OSError: a full disk
        print(
            f"report_hpo.py: {one_line(error)}; what is done is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("report_hpo.py: interrupted; what is done is kept, the same command goes on from there", file=sys.stderr)
        return 130


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Report a search.", epilog="An experiment is its folder, or its id.")
    parser.add_argument("experiment", nargs="?", help="experiments/<id>")
    parser.add_argument("--compare", nargs="+", metavar="ID", help="put these experiments side by side")
    parser.add_argument("--out", type=Path, help="folder of the comparison (default: beside the first experiment)")
    parser.add_argument("--retrain", action="store_true", help="train the best configuration again before reporting")
    parser.add_argument("--top", type=count(1), default=1, help="so many of the best configurations (default 1)")
    parser.add_argument("--splits", type=count(1), default=10, help="train/validation splits 0, 1, ... (default 10)")
    parser.add_argument("--seeds", type=count(1), default=3, help="seeds on each split (default 3)")
    parser.add_argument(
        "--bits", nargs="+", type=count(2, 16), metavar="B", help="round the best net's weights to these"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of the datasets (default: the search's)")
    parser.add_argument("--experiments", type=Path, default=ROOT / "experiments", help="folder of all experiments")
    args = parser.parse_args(arguments)
    if bool(args.experiment) == bool(args.compare):
        parser.error("give one experiment, or --compare with two or more")
    if args.compare and (args.retrain or args.bits or len(set(args.compare)) < 2):
        parser.error(
            "--compare takes two or more different experiments, no --retrain and no --bits: do that for each before"
        )
    retraining = ("top", "splits", "seeds")
    if not args.retrain and any(getattr(args, name) != parser.get_default(name) for name in retraining):
        parser.error(f"--{', --'.join(retraining)} say how to train again: give --retrain, too")
    if args.out and not args.compare:
        parser.error("--out is the folder of a comparison: give --compare, too; a report is in its experiment's folder")
    return args


def experiment_folder(given: str, experiments: Path) -> Path:
    """Return the folder of an experiment named by its path or id. Raises UserMistake where there is none."""
    for folder in (Path(given), experiments / given):
        if folder.is_dir():
            return folder
    there = sorted(path.parent.name for path in experiments.glob("*/journal.jsonl") if path.parent.name != "_latest")
    raise UserMistake(f"no experiment {given!r}; in {experiments} there are: {', '.join(there) or 'none'}")


def report(args: argparse.Namespace) -> int:
    """Retrain where that is asked for, and write the page."""
    from reports.read import read_search
    from reports.sections import write_report

    search = read_search(experiment_folder(args.experiment, args.experiments))
    if args.retrain:
        retrain(search, args)
    if args.bits:
        sweep_bits(search, args)
    with steps() as step:
        page = write_report(search, step)
    print_finals(search)
    print(page)
    return 0


def retrain(search, args: argparse.Namespace) -> None:
    """Train the best again, with a progress bar. Raises UserMistake, RuntimeError as `reports.final.retrain_best`."""
    from reports.final import retrain_best, trial_words

    if not search.ranking:
        raise UserMistake(f"{search.folder}: no trial has a score, so there is nothing to train again")
    trial_words(search)  # a mistake is told before the bar is drawn
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        names = [entry["trial"] for entry in search.ranking[: args.top]]
        lines = {name: bar.add_task(f"trial {name} again", total=args.splits * args.seeds) for name in names}
        retrain_best(search, args.top, args.splits, args.seeds, args.data_dir, lambda name: bar.advance(lines[name]))


def sweep_bits(search, args: argparse.Namespace) -> None:
    """Test the best net with weights of fewer bits, write bits.json and print it. Raises UserMistake."""
    os.environ.update(thread_environment(1))  # before anything imports a numerical library
    from loaders import MissingData
    from main_hpo import parse_arguments as trial_arguments
    from reports.cost import BITS, bits_text
    from reports.read import read_json
    from runner.records import write_atomic
    from search_spaces import split_task
    from setup_hpo import load_splits

    best = read_json(search.folder / "best.json")
    weights = [path for path in search.folder.glob("best_model.*") if path.suffix in (".pt", ".npz")]
    if "main_hpo.py" not in best.get("command", "") or not weights:
        raise UserMistake(f"{search.folder} has no best.json with its best_model, which --bits needs")
    given = trial_arguments(shlex.split(best["command"].partition("main_hpo.py")[2]))
    try:
        data_dir = args.data_dir or given.data_dir
        splits = load_splits(split_task(given.task)[1], data_dir, given.test_seed, given.split_seed, given.tonic)
        rows = bits_rows(weights[0], best.get("parameters", {}), splits, args.bits)
    except (ValueError, MissingData) as mistake:
        raise UserMistake(f"--bits: {mistake}") from None
    write_atomic(search.folder / BITS, bits_text(best["trial"], best["sha256"], rows).encode())
    for row in rows:
        name = f"{row['bits']} bits" if row["bits"] else "as trained"
        print(f"{name}: " + "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "bits"))


def bits_rows(path: Path, parameters: dict, splits, bits: list[int]) -> list[dict[str, float]]:
    """Return the rows of `sweep` for a file of weights of either kind. Raises ValueError for what is none."""
    if path.suffix == ".npz":
        from search_spaces import make_params
        from simulator import bits as streamnet_bits
        from simulator.params import StreamnetParams

        return streamnet_bits.sweep(make_params(StreamnetParams, parameters), streamnet_bits.load(path), splits, bits)
    from models.bits import sweep
    from models.saved import load

    return sweep(load(path), splits, bits)


def print_finals(search) -> None:
    """Print what the trainings again came to."""
    from reports.final import final_sentences, read_finals

    if finals := read_finals(search):
        for sentence in final_sentences(search, finals):
            print(sentence)


def compare(args: argparse.Namespace) -> int:
    """Write the page on several experiments."""
    from reports.compare import write_comparison
    from reports.read import read_search

    folders = [experiment_folder(given, args.experiments) for given in args.compare]
    searches = {folder.resolve().name: read_search(folder) for folder in folders}
    if len(searches) < len(folders):
        raise UserMistake(f"--compare {' '.join(args.compare)}: some are the same experiment, or have the same name")
    for name, search in searches.items():
        if not search.scored:
            raise UserMistake(f"{name}: no trial has a score, so there is nothing to compare")
    with steps() as step:
        page = write_comparison(
            searches, args.out or folders[0].resolve().parent / f"compare-{'-'.join(searches)}", step
        )
    print(page)
    return 0


@contextmanager
def steps():
    """Show on a terminal what is being done; give the function that is told."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("report") as status:
        yield lambda text: status.update(Text(f"report: {text}"))  # no markup


if __name__ == "__main__":
    sys.exit(main())
