"""Braille reading, as a paper would report it: a search, then its best configuration on ten train/validation splits.

    python -m benchmarks.braille_accuracy --data-dir DIR [--tuner NAME] [--trials 150] [--bptt-trials 20] [--splits 10]

For e-prop and for BPTT: `nni_main.py` searches on split 0; the configuration with the best validation accuracy is
trained anew on every split, each time with another seed, its weights chosen on that split's validation part and tested
once on the outer test part, which is the same for all. Beside them, on the same splits: the task's defaults, on request
the e-prop configuration trained by BPTT (`--same-configuration`, slow), and a support vector machine and a random
forest (benchmarks.braille_baselines), also with the augmentation that the search found. Intervals: reports/interval.py.
All lies in --work; what is there is not done again, so an interrupted run goes on.

    --variant '{"epochs": 150}' --variant '{"feedback": "adaptive"}'

are changes of the best e-prop configuration. The one with the best mean validation accuracy over --variant-splits
splits, or the configuration itself, is then the one that is tested.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import add_arguments, finish
from benchmarks.braille_baselines import baselines
from main_hpo import bits_of
from reports.interval import accuracy, estimate, right_of
from runner.records import append_line, read_journal, read_lines
from runner.retrain import ROOT, retrain, spread

TASKS = {"eprop": "eprop_braille", "bptt": "eprop_braille_bptt"}
AUGMENTATION = ("time_jitter", "drop_events", "noise_events", "time_skew", "time_shift")


def main() -> int:
    """Search, retrain, compare, print, plot; return the exit status."""
    args = parse_arguments()
    best = {rule: search(rule, args) for rule in args.rules}
    if args.variant:
        best["eprop"] = choose(best["eprop"], args)
    rights = retrain_all(configurations(best, args.same_configuration), args)
    strengths = {name: best["eprop"][name] for name in AUGMENTATION if best.get("eprop", {}).get(name)}
    for augmentation in [None, strengths] if strengths else [None]:
        rights |= baselines_right(augmentation, args)
    accuracies = {name: right.mean(1).tolist() for name, right in rights.items()}
    rows = table(accuracies)
    print_differences(rights)
    finish(rows, args)
    plot(accuracies, args.plot)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HPO_DATA_DIR"), help="folder of the data")
    parser.add_argument("--rules", nargs="+", choices=TASKS, default=list(TASKS), help="default: both")
    parser.add_argument("--tuner", default="nni-tpe", help="of nni_main.py (default nni-tpe)")
    parser.add_argument("--trials", type=int, default=150, help="of the e-prop search (default 150)")
    parser.add_argument("--bptt-trials", type=int, default=20, help="of the BPTT search (default 20; 10 times slower)")
    parser.add_argument("--variant", type=json.loads, action="append", metavar="JSON", help="parameters to change")
    parser.add_argument("--variant-splits", type=int, default=5, help="on which variants are compared (default 5)")
    parser.add_argument("--splits", type=int, default=10, help="train/validation splits, seeds 0, 1, ... (default 10)")
    parser.add_argument("--same-configuration", action="store_true", help="train e-prop's best by BPTT as well")
    parser.add_argument("--work", type=Path, default=ROOT / "experiments" / "braille_accuracy", help="where all lies")
    parser.add_argument("--plot", type=Path, help="picture to write (default: <work>/braille_accuracy.png)")
    args = parser.parse_args()
    if args.quick:
        args.rules, args.trials, args.splits = ["eprop"], 2, 2
    if args.data_dir is None:
        parser.error("the recordings' folder is not known: give --data-dir or set HPO_DATA_DIR")
    args.data_dir, args.work = Path(args.data_dir).resolve(), args.work.resolve()
    args.plot = args.plot or args.work / "braille_accuracy.png"
    return args


def search(rule: str, args: argparse.Namespace) -> dict:
    """Return the best parameters of the search for `rule`; run it unless it is there. Exits where it is not whole."""
    trials = args.trials if rule == "eprop" else args.bptt_trials
    folder = args.work / TASKS[rule]
    if not folder.exists():
        words = ["--tuner", args.tuner, "--trials", str(trials), "--experiments", str(args.work), "--id", TASKS[rule]]
        command = [sys.executable, "nni_main.py", TASKS[rule], *words, "--data-dir", str(args.data_dir)]
        if status := subprocess.run(command, cwd=ROOT).returncode:
            sys.exit(status)
    ended = sum(entry["status"] != "interrupted" for entry in read_journal(folder / "journal.jsonl"))
    if ended < trials:
        sys.exit(f"the search in {folder} ended after {ended} of {trials} trials: remove it to search anew")
    best = json.loads((folder / "best.json").read_text())
    print(f"{TASKS[rule]}: best of {ended} trials, validation {best['default']:.3f}: {json.dumps(best['parameters'])}")
    return best["parameters"]


def choose(best: dict, args: argparse.Namespace) -> dict:
    """Return the variant of `best`, itself among them, with the best mean validation accuracy; print all of them."""
    means = []
    with progress() as bar:
        for change in [{}, *args.variant]:
            name = json.dumps(change)
            records = retrain_one(name, "eprop_braille", best | change, args.variant_splits, args, bar)
            means.append(spread([record["result"]["default"] for record in records])["mean"])
    print(f"mean validation accuracy over {args.variant_splits} splits")
    for change, mean in zip([{}, *args.variant], means, strict=True):
        print(f"  {mean:.4f}  {json.dumps(change) if change else 'the best of the search'}")
    return best | [{}, *args.variant][means.index(max(means))]


def configurations(best: dict[str, dict], same: bool) -> dict[str, tuple[str, dict]]:
    """Return what is trained on every split: name -> (task, parameters on top of the task's defaults)."""
    chosen = {"e-prop, defaults": ("eprop_braille", {})}
    if "eprop" in best:
        chosen = {"e-prop": ("eprop_braille", best["eprop"])} | chosen
    if "bptt" in best:
        chosen["BPTT"] = ("eprop_braille_bptt", best["bptt"])
        if same and "eprop" in best:
            chosen["BPTT, e-prop's configuration"] = ("eprop_braille", best["eprop"] | {"rule": "bptt"})
    return chosen


def retrain_all(chosen: dict[str, tuple[str, dict]], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Train every configuration on every split; return what each training gets right on the test part (S, B)."""
    rights = {}
    with progress() as bar:
        for name, (task, parameters) in chosen.items():
            records = retrain_one(name, task, parameters, args.splits, args, bar)
            found = [right_of(record) for record in records]
            if any(right is None for right in found):
                sys.exit(f"{args.work}/retrained has trainings that do not tell what was right: remove them")
            rights[name] = np.stack(found)
    return rights


def retrain_one(
    name: str, task: str, parameters: dict, splits: int, args: argparse.Namespace, bar: Progress
) -> list[dict]:
    """Train one configuration on `splits` splits; return its records. Equal configurations share a folder."""
    line = bar.add_task(name, total=splits)
    digest = hashlib.sha256(json.dumps([task, parameters], sort_keys=True).encode()).hexdigest()[:12]
    return retrain(
        task,
        parameters,
        args.work / "retrained" / digest,
        range(splits),
        flags=["--data-dir", str(args.data_dir)],
        advance=lambda: bar.advance(line),
    )


def baselines_right(augmentation: dict | None, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return what the classical methods get right on each split (S, B), from --work where it is there."""
    path = args.work / "baselines.jsonl"
    key = json.dumps(augmentation, sort_keys=True)
    known = {entry["parameter_id"]: entry["right"] for entry in read_lines(path, _as_baseline)[0]}
    missing = [split for split in range(args.splits) if f"{split} {key}" not in known]
    with progress() as bar, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        line = bar.add_task("classical" + (", augmented" if augmentation else ""), total=len(missing))
        futures = {pool.submit(baseline, split, args.data_dir, augmentation): split for split in missing}
        for future in as_completed(futures):
            known[f"{futures[future]} {key}"] = future.result()
            append_line(path, {"parameter_id": f"{futures[future]} {key}", "right": future.result()})
            bar.advance(line)
    found = [known[f"{split} {key}"] for split in range(args.splits)]
    suffix, tested = ", augmented" if augmentation else "", len(_splits(0, args.data_dir).test.y)
    return {method + suffix: np.stack([_unpacked(each[method], tested) for each in found]) for method in found[0]}


def _as_baseline(found) -> dict | None:
    return found if isinstance(found, dict) and {"parameter_id", "right"} <= found.keys() else None


def baseline(split_seed: int, data_dir: Path, augmentation: dict | None) -> dict[str, str]:
    """Return what the classical methods get right on the test part after learning from one split, as in records."""
    found = baselines(_splits(split_seed, data_dir), split_seed, augmentation)
    return {method: bits_of(right) for method, right in found.items()}


def _unpacked(bits: str, tested: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[:tested].astype(float)


@cache
def _splits(split_seed: int, data_dir: Path):
    from setup_hpo import load_splits

    return load_splits("braille", data_dir, split_seed=split_seed)


def progress() -> Progress:
    """A progress bar with the number of trainings done and the time left."""
    return Progress(TextColumn("{task.description:30}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def table(accuracies: dict[str, list[float]]) -> list[dict]:
    """Return the rows: the median of each method, against the first one's."""
    medians = {name: spread(values)["median"] for name, values in accuracies.items()}
    first = next(iter(medians))
    return [
        {"name": name, "value": value, "unit": "median", "against": first, "ratio": value / medians[first]}
        | {"splits": accuracies[name], **spread(accuracies[name])}
        for name, value in medians.items()
    ]


def print_differences(rights: dict[str, np.ndarray]) -> None:
    """Print each method's spread and interval, and the paired difference of the first method to it with its own."""
    first = next(iter(rights.values()))
    print(f"test accuracy on the same {first.shape[1]} recordings after learning from {first.shape[0]} splits;")
    print("95 % intervals over new trainings and new test recordings")
    print("| method | median | mean ± sd | from | to | 95 % | first method minus this, 95 % |")
    print("|---|---|---|---|---|---|---|")
    for name, right in rights.items():
        s, (low, high) = spread(right.mean(1).tolist()), accuracy(right)
        line = f"| {name} | {s['median']:.3f} | {s['mean']:.3f} ± {s['sd']:.3f} | {s['min']:.3f} | {s['max']:.3f} "
        line += f"| {low:.3f} to {high:.3f} |"
        if right is not first:
            found = estimate(first - right)
            line += f" {found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}) |"
        print(line if right is not first else f"{line} |")


def plot(accuracies: dict[str, list[float]], path: Path) -> None:
    """Draw the test accuracy of each method on every split; a bar marks the median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.45 * len(accuracies) + 1), layout="constrained")
    axes = figure.subplots()
    for row, (_, values) in enumerate(accuracies.items()):
        color = "tab:orange" if row == 0 else "tab:blue"
        axes.plot(values, [row] * len(values), "o", color=color, alpha=0.5)
        axes.plot([spread(values)["median"]] * 2, [row - 0.3, row + 0.3], color="black")
    axes.set(yticks=range(len(accuracies)), yticklabels=accuracies, xlabel="test accuracy, one point a split")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
