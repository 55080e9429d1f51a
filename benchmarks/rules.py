"""Which learning rule learns digits and MNIST best at equal budget, and how fast are rules given as text?

    HPO_DATA_DIR=<folder with MNIST> python -m benchmarks.rules [--quick] [--json FILE] [--plot FILE] [--trials N]

For every rule of the search space streamnet_digits_rules a search of its own, with the same tuner (tpe), seed and
number of trials, in this process. The configuration that was best on the validation part is then learnt with five other
seeds and tested. On MNIST, weights and steps are those of streamnet_mnist. Without MNIST on disk only digits is learnt.
Before that: CPU seconds per step of run() and of step(), the shallow net learning, spike trains drawn beforehand for
step() and within the measured time for run(); the two take turns, and the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

from benchmarks import add_arguments, finish
from benchmarks.grid_vs_bayes import make_tuner
from loaders import MissingData
from search_spaces import flatten, load_space, make_params
from setup_hpo import load_splits
from simulator.encoders import encode_images
from simulator.networks import build
from simulator.objective import flat_images, train_streamnet
from simulator.params import StreamnetParams
from simulator.rule_presets import preset
from simulator.run import Images, run
from tuners import tpe

TRIALS, QUICK_TRIALS, SEEDS, TURNS = 60, 8, range(1, 6), 5
TIMED = {
    "mse": preset("mse"),
    "stdp, modulated": preset("modulated_stdp"),
    "weights as factors": preset("mse_soft"),
    "tags": preset("r_stdp"),
}
STEPS, STEPPED, RUN = 8, 40, 1000  # samples of step() and run() in a turn


def main() -> int:
    """Measure, print and plot; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--plot", type=Path, default=Path("rules.png"), help="picture to write")
    parser.add_argument("--trials", type=int, help=f"of each search (default {TRIALS}, with --quick {QUICK_TRIALS})")
    args = parser.parse_args()
    data = {"digits": load_splits("digits")}
    try:
        data["mnist"] = load_splits("mnist", Path(os.environ["HPO_DATA_DIR"]) if "HPO_DATA_DIR" in os.environ else None)
    except MissingData as missing:
        print(f"benchmarks.rules: only digits: {missing}", file=sys.stderr)
    trials = args.trials or (QUICK_TRIALS if args.quick else TRIALS)
    rows, tests = [], {}
    for dataset, splits in data.items():
        rows += [time_rule(dataset, splits, name, text) for name, text in TIMED.items()]
        for rule in rules_on_offer():
            validation, tests[dataset, rule] = best_of(dataset, splits, rule, trials)
            rows += rows_of(f"{dataset}, {rule}", validation, tests[dataset, rule])
    finish(rows, args)
    plot(tests, trials, args.plot)
    return 0


def rules_on_offer() -> dict[str, dict]:
    """Return the options of the nested choice, by name."""
    return {option["_name"]: option for option in load_space("streamnet_digits_rules")["rule"]["_value"]}


def space_of(dataset: str, rule: str) -> dict:
    """Return the search space with this rule alone."""
    space = load_space("streamnet_digits_rules") | {"rule": {"_type": "choice", "_value": [rules_on_offer()[rule]]}}
    mnist = load_space("streamnet_mnist")
    return space if dataset == "digits" else space | {name: mnist[name] for name in ("steps", "samples", "w_limit")}


def best_of(dataset: str, splits, rule: str, trials: int) -> tuple[float, list[float]]:
    """Search; return (best validation accuracy, test accuracies of its configuration with SEEDS)."""
    tuner, found = make_tuner(tpe(0)), []
    tuner.update_search_space(space_of(dataset, rule))
    for number in range(trials):
        parameters = tuner.generate_parameters(number)
        params = make_params(StreamnetParams, flatten(parameters))
        accuracy = learnt(params, splits, 0)["default"]
        tuner.receive_trial_result(number, parameters, accuracy)
        tuner.trial_end(number, True)
        found.append((accuracy, number, params))
    validation, _, params = max(found, key=lambda trial: trial[:2])
    print(f"{dataset}, {rule}: {validation:.3f} {params}", file=sys.stderr)
    return validation, [learnt(params, splits, seed)["test_accuracy"] for seed in SEEDS]


def learnt(params: StreamnetParams, splits, seed: int) -> dict:
    """Return the metrics of a trial."""
    return train_streamnet(params, splits, lambda _: None, "cpu", seed)[0]


def rows_of(name: str, validation: float, tests: list[float]) -> list[dict]:
    """Return the rows of one search."""
    values = {"best validation": validation, "test, mean": np.mean(tests), "test, standard deviation": np.std(tests)}
    return [{"name": f"{name}: {what}", "value": float(value), "unit": ""} for what, value in values.items()]


def time_rule(dataset: str, splits, name: str, text: str) -> dict:
    """Return the row of run()'s time per step for a rule, against step()."""
    params = StreamnetParams(rule="text", text=text)
    x, y = flat_images(splits.train), splits.train.y
    nets = [build(params, x.shape[1], 10) for _ in range(2)]
    trains, classes = encode_images(x[:STEPPED], STEPS, 0).astype(float), np.eye(10)
    shown = Images(x[:RUN], y[:RUN], STEPS)
    run(nets[0], shown)  # compiles
    seconds = []
    for _ in range(TURNS):
        began = time.process_time()
        run(nets[0], shown, backend="graph")
        middle = time.process_time()
        for train, label in zip(trains, y[:STEPPED], strict=True):
            nets[1].reset()
            for spikes in train:
                nets[1].step(spikes, classes[label])
        seconds.append(((middle - began) / len(shown.images), (time.process_time() - middle) / STEPPED))
    compiled = float(np.median([turn[0] for turn in seconds])) / STEPS
    ratio = float(np.median([turn[1] / turn[0] for turn in seconds]))
    row = {"name": f"{dataset}, rule as text, {name}: run()", "value": compiled * 1e6, "unit": "us"}
    return row | {"against": "step()", "ratio": ratio}


def plot(tests: dict[tuple[str, str], list[float]], trials: int, path: Path) -> None:
    """Draw the test accuracies as bars, beside each other for the data sets, with their standard deviation."""
    datasets, rules = list(dict.fromkeys(d for d, _ in tests)), list(rules_on_offer())
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    width = 0.8 / len(datasets)
    for number, dataset in enumerate(datasets):
        means, spreads = zip(*((np.mean(t), np.std(t)) for t in (tests[dataset, rule] for rule in rules)), strict=True)
        axes.bar(np.arange(len(rules)) + number * width, means, width, yerr=spreads, capsize=2, label=dataset)
    axes.axhline(0.1, color="grey", linestyle=":", label="chance")
    axes.set(ylabel="test accuracy", ylim=(0, 1), title=f"best of {trials} configurations, five seeds")
    axes.set_xticks(np.arange(len(rules)) + width * (len(datasets) - 1) / 2, rules, rotation=25, ha="right")
    axes.legend(fontsize="small", loc="center", bbox_to_anchor=(0.72, 0.6))
    figure.savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
