"""The searches of arXiv 2302.13210, whole: 10,204 configurations of the shallow net, 1,059 of the mushroom body.

    HPO_DATA_DIR=<folder with MNIST> python -m benchmarks.automl_search [--network NAME] [--tuner NAME] [--quick]

The shallow net's output neurons have the refractory step that the paper's 4 spikes in 8 steps need; the choice is in
search_spaces/streamnet_mnist.json. Each configuration learns 7,000 of MNIST's 10,000 test images in one pass of 8 steps
each and is scored on 2,000; 1,000 are kept for a test. Beside the tuner, random search has the same budget. All run
headless; what is interrupted goes on where it was when the same command is given again. Prints the distributions, the
best and where the time went, and draws Figures 3 to 5: for both networks the accuracies in the order in which they
came, and their histograms.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import add_arguments, finish
from runner.flags import OneLineParser, count
from runner.records import read_journal
from tuners import DEFAULT_TUNER, TUNERS

ROOT = Path(__file__).parent.parent
TASKS = {"shallow": ("streamnet_mnist", 10204), "mushroom_body": ("streamnet_mnist_mushroom", 1059)}
HIGH = {"shallow": 0.8, "mushroom_body": 0.6}  # an accuracy that few random configurations reach


def main() -> int:
    """Run what is missing, then print and draw. Returns the exit status."""
    args = parse_arguments()
    runs = {}
    for network in TASKS if args.network == "both" else [args.network]:
        for tuner in dict.fromkeys((args.tuner, "random")):
            runs[network, tuner] = folder = args.experiments / f"automl-{network}-{tuner}{'-quick' * args.quick}"
            if status := run_search(network, tuner, folder, args):
                return status
    finish([row for (network, tuner), folder in runs.items() for row in measure(network, tuner, folder)], args)
    args.out.mkdir(parents=True, exist_ok=True)
    draw({key: accuracies(folder) for key, folder in runs.items()}, args.out / "automl_search.png")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    default = "forest" if "forest" in TUNERS else DEFAULT_TUNER
    parser = OneLineParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--network", choices=(*TASKS, "both"), default="both", help="which of the two (default both)")
    parser.add_argument("--tuner", choices=TUNERS, default=default, help=f"beside random (default {default})")
    parser.add_argument("--trials", type=count(1), help="in place of the paper's numbers (--quick: a fiftieth of them)")
    parser.add_argument("--concurrency", type=count(1), default=3, help="trials at once (default 3: the tuner pauses)")
    parser.add_argument("--experiments", type=Path, default=ROOT / "experiments", help="folder of the searches")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments", help="folder of the figure")
    return parser.parse_args()


def run_search(network: str, tuner: str, folder: Path, args: argparse.Namespace) -> int:
    """Run a search, or go on with it, in sight of the terminal. Returns its exit status."""
    task, trials = TASKS[network]
    trials = args.trials or (math.ceil(trials / 50) if args.quick else trials)
    how = ["--resume", folder.name] if (folder / "search.json").exists() else ["--id", folder.name, "--tuner", tuner]
    words = [
        sys.executable,
        "nni_main.py",
        task,
        "--headless",
        "--no-check",
        "--no-report",
        *how,
        "--trials",
        str(trials),
    ]
    words += ["--concurrency", str(args.concurrency), "--experiments", str(args.experiments.resolve())]
    process = subprocess.Popen(words, cwd=ROOT)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # which it has got as well
            continue


def accuracies(folder: Path) -> np.ndarray:
    """Return the validation accuracies in the order in which they came; failed trials have none."""
    entries = read_journal(folder / "journal.jsonl")
    return np.array([entry["result"]["default"] for entry in entries if "default" in entry["result"]])


def measure(network: str, tuner: str, folder: Path) -> list[dict]:
    """Return the rows of one search: the accuracies' distribution, the best, and where the time went."""
    found, name = accuracies(folder), f"{network}, {tuner}"
    best = json.loads((folder / "best.json").read_text())["result"]
    shares = {f"share above {HIGH[network]}": (found > HIGH[network]).mean(), "skewness": skewness(found)}
    values = {f"quantile {q}": np.quantile(found, q / 100) for q in (10, 50, 90)} | shares
    values |= {"best, validation": best["default"], "best, test": best["test_accuracy"]}
    rows = [{"name": f"{name}: evaluations", "value": len(found), "unit": ""}]
    rows += [{"name": f"{name}: {what}", "value": float(value), "unit": ""} for what, value in values.items()]
    return rows + [{"name": f"{name}: {what}", "value": s, "unit": "s"} for what, s in times(folder).items()]


def skewness(values: np.ndarray) -> float:
    """Third standardised moment: below 0 where the bulk lies at high values."""
    return float((((values - values.mean()) / (values.std() or 1)) ** 3).mean())


def times(folder: Path) -> dict[str, float]:
    """Return where the time went [s], summed over the runs of a search that ended by themselves."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    runs = [event for event in events if event["event"] == "times"]
    total = {name: sum(run[name] for run in runs) for name in ("wall", "tuner", "cpu", "cpu_slots")}
    entries = read_journal(folder / "journal.jsonl")
    simulation = sum(entry["result"].get("seconds", 0) for entry in entries)
    cpu = total["cpu"] + total["cpu_slots"]
    return {
        "wall": total["wall"],
        "wall in the tuner": total["tuner"],
        "wall of all simulations": simulation,
        "CPU": cpu,
        "CPU, processes of the slots": total["cpu_slots"],
        "CPU per evaluation": cpu / len(entries),
    }


def draw(found: dict[tuple[str, str], np.ndarray], path: Path) -> None:
    """Draw a row a network: its accuracies over the evaluations, and their histogram."""
    from matplotlib.figure import Figure

    networks, tuners = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    figure = Figure(figsize=(10, 3.6 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), 2, squeeze=False)
    for (network, tuner), values in found.items():
        (course, histogram), color = panels[networks.index(network)], f"C{tuners.index(tuner)}"
        course.plot(values, ".", markersize=2, alpha=0.3, color=color)
        course.plot(np.maximum.accumulate(values), color=color, label=f"{tuner}, best so far")
        course.set(title=network.replace("_", " "), xlabel="evaluation", ylabel="validation accuracy")
        course.legend(fontsize="small", loc="lower right")
        shares = np.full(len(values), 1 / len(values))
        histogram.hist(
            values, np.linspace(0, 1, 51), weights=shares, histtype="stepfilled", alpha=0.5, color=color, label=tuner
        )
        histogram.set(title=network.replace("_", " "), xlabel="validation accuracy", ylabel="share of evaluations")
        histogram.legend(fontsize="small", loc="upper center")
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
