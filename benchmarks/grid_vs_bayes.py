"""Does Bayesian search find the optimum that a full grid knows? Case study one of Parsa et al., reduced to digits.

    python -m benchmarks.grid_vs_bayes [--repeats 20] [--budget 40] [--quick] [--json FILE] [--plots FOLDER]
    python -m benchmarks.grid_vs_bayes --make-table        # first train all 256 configurations with all seeds

The table `benchmarks/data/whetstone_digits_grid.json` has the accuracy of every configuration of the search space
`whetstone_digits_case1`. Tuners are run against it: an evaluation is a look-up. They see the mean validation accuracy
over the first half of the seeds; regret is judged by the other half: how far the configuration chosen stays behind the
best there is, in points (hundredths). `replay` takes anything with the methods of NNI's tuners.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import add_arguments, finish
from benchmarks.whetstone_grid import FILE, make_table, points, read_table, write_table
from runner.flags import OneLineParser, count

PAPERS_BUDGET = 15  # evaluations after which the paper's search had found the optimum of its 256
REPEATS, BUDGET, QUICK_REPEATS, QUICK_BUDGET = 20, 40, 3, 15
ROOT = Path(__file__).parent.parent


class Truth:
    """The table, as a function of a configuration."""

    def __init__(self, table: dict) -> None:
        half = len(table["seeds"]) // 2
        self.space, self.points = table["space"], points(table["space"])
        self.index = {_key(point): index for index, point in enumerate(self.points)}
        validation = np.array(table["validation"])  # (points, seeds)
        self.shown, self.held_out = validation[:, :half].mean(1), validation[:, half:].mean(1)
        self.validation, self.test = validation.mean(1), np.array(table["test"]).mean(1)

    def regret(self, index: int) -> float:
        """Return how far a configuration stays behind the best, on the seeds that no tuner saw, in points."""
        return 100 * float(self.held_out.max() - self.held_out[index])


def main() -> int:
    """Measure and print; return the exit status."""
    args = parse_arguments()
    if args.make_table:
        began = time.perf_counter()
        write_table(make_table())
        print(f"{FILE}: made in {time.perf_counter() - began:.0f} s")
    if not FILE.exists():
        print(f"benchmarks.grid_vs_bayes: {FILE} is not there; make it with --make-table", file=sys.stderr)
        return 2
    logging.disable(logging.INFO)  # NNI's tuners say every step
    if args.plots:
        try:
            args.plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"benchmarks.grid_vs_bayes: {error}", file=sys.stderr)
            return 2
    truth = Truth(read_table())
    runs = {name: run_all(make, truth, args.repeats, args.budget) for name, make in tuners_on_offer().items()}
    rows = grid_rows(truth) + [row for name, chosen in runs.items() for row in tuner_rows(name, chosen, truth)]
    finish(rows, args)
    print(effect_table(truth), trace_table(truth, runs), sep="\n\n")
    if args.plots:
        from benchmarks.grid_plots import draw

        draw(truth, runs, args.plots)
    return 0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--make-table", action="store_true", help="train the whole grid first (minutes)")
    parser.add_argument("--repeats", type=count(1), help=f"searches of each tuner (default {REPEATS})")
    parser.add_argument("--budget", type=count(1), help=f"evaluations of each search (default {BUDGET})")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="also draw the figures there")
    args = parser.parse_args(arguments)
    args.repeats = args.repeats or (QUICK_REPEATS if args.quick else REPEATS)
    args.budget = args.budget or (QUICK_BUDGET if args.quick else BUDGET)
    return args


def tuners_on_offer() -> dict[str, Callable]:
    """Return {name: function of a seed that makes a tuner}: all of tuners.TUNERS, and the paper's method."""
    from benchmarks.reference_gp import ReferenceGP
    from tuners import TUNERS

    def factory(configure: Callable) -> Callable:
        return lambda seed: make_tuner(configure(seed))

    return {name: factory(configure) for name, configure in TUNERS.items()} | {"reference-gp": ReferenceGP}


def make_tuner(configuration: dict):
    """Make the tuner of a configuration as `tuners.TUNERS` has it: a built-in of NNI's, or a class of ours."""
    from nni.tools.package_utils import tuner_factory

    if "name" in configuration:
        kind, arguments = configuration["name"], configuration.get("class_args", {})
        return tuner_factory.create_builtin_class_instance(kind, arguments, "tuners")
    return tuner_factory.create_customized_class_instance(
        {
            "codeDirectory": str(configuration.get("code_directory", ROOT)),
            "className": configuration["class_name"],
            "classArgs": configuration.get("class_args", {}),
        }
    )


def run_all(make: Callable, truth: Truth, repeats: int, budget: int) -> list[list[int]]:
    """Return the configurations (indices) that each of the searches, with seeds 0, 1, ..., evaluated in turn."""
    return [replay(make(seed), truth.space, budget, lambda point: _look_up(truth, point)) for seed in range(repeats)]


def replay(tuner, space: dict, budget: int, evaluate: Callable[[dict], tuple[int, float]]) -> list[int]:
    """Let a tuner propose `budget` configurations one after the other; return evaluate()'s first values.

    evaluate(configuration) returns (index, value); the value is what the tuner gets to see. A tuner that has nothing
    left to propose ends the search.
    """
    from nni import NoMoreTrialError

    tuner.update_search_space(space)
    chosen = []
    for number in range(budget):
        try:
            parameters = tuner.generate_parameters(number)
        except NoMoreTrialError:
            break
        index, value = evaluate(parameters)
        tuner.receive_trial_result(number, parameters, value)
        if hasattr(tuner, "trial_end"):
            tuner.trial_end(number, True)
        chosen.append(index)
    return chosen


def best_so_far(chosen: list[int], shown: np.ndarray, budget: int) -> int:
    """Return the configuration that a search of so many evaluations would hand over: the best of what it saw."""
    return max(chosen[:budget], key=lambda index: shown[index])


def regrets(runs: list[list[int]], truth: Truth, budget: int) -> np.ndarray:
    """Return the regret of each search after so many evaluations, in points."""
    return np.array([truth.regret(best_so_far(chosen, truth.shown, budget)) for chosen in runs])


def grid_rows(truth: Truth) -> list[dict]:
    """Return the rows about the grid itself."""
    best = int(truth.shown.argmax())
    good = float((truth.held_out.max() - truth.held_out <= 0.01).sum())
    return [
        {"name": "grid, 256 evaluations: regret", "value": truth.regret(best), "unit": "points"},
        {"name": "grid: validation accuracy of its choice", "value": float(truth.held_out[best]), "unit": ""},
        {"name": "grid: test accuracy of its choice", "value": float(truth.test[best]), "unit": ""},
        {"name": "configurations within 1 point of the best", "value": good, "unit": "of 256"},
    ]


def tuner_rows(name: str, runs: list[list[int]], truth: Truth) -> list[dict]:
    """Return the rows of a tuner, after the paper's 15 evaluations and after all."""
    rows = []
    for budget in sorted({min(PAPERS_BUDGET, len(runs[0])), len(runs[0])}):
        found = regrets(runs, truth, budget)
        rows.append({"name": f"{name}, {budget}: mean regret", "value": float(found.mean()), "unit": "points"})
        within = float((found <= 1).mean())
        rows.append({"name": f"{name}, {budget}: within 1 point", "value": within, "unit": "of 1"})
        behind = float(np.mean([truth.shown.max() - truth.shown[chosen[:budget]].max() for chosen in runs]))
        rows.append({"name": f"{name}, {budget}: behind the grid", "value": 100 * behind, "unit": "points"})
    return rows


def effects(truth: Truth) -> list[dict]:
    """Return each parameter's effect: the mean accuracy at each value, overall and where the net learns at all (lr)."""
    found = []
    live = np.array([point["lr"] == max(truth.space["lr"]["_value"]) for point in truth.points])
    for name, spec in truth.space.items():
        if len(spec["_value"]) == 1:
            continue
        of_value = [np.array([point[name] == value for point in truth.points]) for value in spec["_value"]]
        found.append(
            {
                "name": name,
                "values": spec["_value"],
                "all": [float(truth.validation[chosen].mean()) for chosen in of_value],
                "live": [float(truth.validation[chosen & live].mean()) for chosen in of_value]
                if name != "lr"
                else None,
            }
        )
    return found


def effect_table(truth: Truth) -> str:
    """Return the sensitivity to each parameter as a Markdown table."""
    largest = max(truth.space["lr"]["_value"])
    lines = [f"| parameter | values | mean accuracy | with lr {largest} | change |", "|---|---|---|---|---|"]
    for effect in effects(truth):
        shown = effect["live"] or effect["all"]
        live = " / ".join(f"{mean:.3f}" for mean in effect["live"]) if effect["live"] else ""
        overall = " / ".join(f"{mean:.3f}" for mean in effect["all"])
        change = 100 * (shown[-1] - shown[0])
        lines.append(
            f"| {effect['name']} | {' / '.join(map(str, effect['values']))} | {overall} | {live} | {change:+.1f} |"
        )
    return "\n".join(lines)


def trace_table(truth: Truth, runs: dict[str, list[list[int]]], name: str = "reference-gp") -> str:
    """Return the first 15 evaluations of a tuner's first search, as the paper's Table II, in Markdown."""
    name = name if name in runs else next(iter(runs))
    chosen = runs[name][0][:PAPERS_BUDGET]
    searched = [parameter for parameter, spec in truth.space.items() if len(spec["_value"]) > 1]
    lines = [f"| {name} | {' | '.join(str(number) for number in range(1, len(chosen) + 1))} |"]
    lines.append("|---" * (len(chosen) + 1) + "|")
    for parameter in searched:
        lines.append(f"| {parameter} | {' | '.join(f'{truth.points[index][parameter]:g}' for index in chosen)} |")
    lines.append(f"| accuracy (%) | {' | '.join(f'{100 * truth.shown[index]:.1f}' for index in chosen)} |")
    return "\n".join(lines)


def _look_up(truth: Truth, parameters: dict) -> tuple[int, float]:
    index = truth.index[_key(parameters)]
    return index, float(truth.shown[index])


def _key(point: dict) -> str:
    return json.dumps(point, sort_keys=True)


if __name__ == "__main__":
    sys.exit(main())
