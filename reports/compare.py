"""Several searches side by side: their courses, their best, and where both were trained again a paired test."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import numpy as np

from reports import draw, interval
from reports.final import Final, read_finals
from reports.findings import duration
from reports.page import Picture, Section, write_page
from reports.parameters import short
from reports.read import Search, score
from search_spaces import split_task

METRIC = "test_accuracy"


def write_comparison(searches: dict[str, Search], folder: Path, step=lambda text: None) -> Path:
    """Write a page on several searches into `folder`; return its path."""
    finals = {name: found[0] for name, search in searches.items() if (found := read_finals(search))}
    picture = Picture("races", "Best so far", lambda: draw.races(searches))
    sections = [
        Section("Side by side", pictures=[picture], table=table(searches, finals)),
        Section("Differences", *differences(searches, finals)),
        Section("The best configurations", table=configurations(searches)),
    ]
    return write_page(folder, f"Comparison: {', '.join(searches)}", "", sections, step)


def table(searches: dict[str, Search], finals: dict[str, Final]) -> list[list]:
    """One row a search."""
    rows = [["search", "task", "tuner", "trials", "with a score", "best validation", "came as", "trials' time"]]
    rows[0] += ["again: test median", "mean", "sd"] if finals else []
    for name, search in searches.items():
        places, best = draw.best_so_far(search)
        row = [name, search.task, search.facts.get("tuner", ""), len(search.entries), len(search.scored)]
        row += [score(best[-1]) if best else "", places[-1] if best else "", duration(search.entries)]
        test = (finals[name].summary(METRIC) or {}) if name in finals else {}
        rows.append(row + ([test.get(key, "") for key in ("median", "mean", "sd")] if finals else []))
    return rows


def differences(searches: dict[str, Search], finals: dict[str, Final]) -> tuple[list[str], list[Picture]]:
    """A sentence for each pair of searches that were trained again on the same splits, and a picture."""
    if len(finals) < 2:
        return ["To test a difference, train the best of each again: report_hpo.py experiments/<id> --retrain"], []
    said = [_difference(searches, finals, *pair) for pair in itertools.combinations(finals, 2)]
    if len(said) > 1:
        said.append(f"{len(said)} pairs are tested: of twenty that do not differ one has p < 0.05 by chance.")
    groups = {name: final.values(METRIC) for name, final in finals.items() if final.values(METRIC)}
    return said, [Picture("retrained", "Every training", lambda: draw.spread_strip(groups, "test accuracy"))]


def _difference(searches: dict[str, Search], finals: dict[str, Final], first: str, second: str) -> str:
    """The paired difference of two searches' best over the splits that both were trained on."""
    a, b = finals[first], finals[second]
    if reason := incomparable(searches[first], searches[second], a, b):
        return f"{first} and {second} cannot be tested against each other: {reason}."
    x, y = a.by_split(METRIC), b.by_split(METRIC)
    common = x.keys() & y.keys()
    said = f"{first} minus {second}, test accuracy on {len(common)} splits: "
    if not common <= a.right.keys() & b.right.keys():
        mean = statistics.fmean(x[split] - y[split] for split in common)
        return f"{said}{mean:+.4f}; their records do not tell which samples were right, so there is no interval."
    found = interval.estimate(np.stack([a.right[split] - b.right[split] for split in sorted(common)]))
    verdict = "they differ" if found.p < 0.05 else "no difference is shown"
    return (
        f"{said}{found.mean:+.4f} (95 % from {found.low:+.4f} to {found.high:+.4f} over new trainings and new test "
        f"samples, p = {found.p:.2g}): {verdict}."
    )


def incomparable(first: Search, second: Search, a: Final, b: Final) -> str:
    """Return why two searches have no splits in common; "" where they have."""
    datasets = [split_task(search.task)[1] if search.task else "" for search in (first, second)]
    if datasets[0] != datasets[1]:
        return f"their data differ ({datasets[0]}, {datasets[1]})"
    tests = {record["seeds"]["test_seed"] for final in (a, b) for record in final.records}
    if len(tests) > 1 or len({record.get("tonic") for final in (a, b) for record in final.records}) > 1:
        return "their test parts differ"
    if len({record.get("data") for final in (a, b) for record in final.records} - {None}) > 1:
        return "they were trained on different data"
    if a.tested != b.tested and a.tested and b.tested:
        return f"their test parts differ ({a.tested} and {b.tested} samples)"
    if len(a.by_split(METRIC).keys() & b.by_split(METRIC).keys()) < 2:
        return "fewer than two splits were trained in both"
    return ""


def configurations(searches: dict[str, Search]) -> list[list]:
    """The best parameters of each search, one column a search."""
    having = {name: search for name, search in searches.items() if search.ranking}
    labels = {parameter.name: parameter.label for search in having.values() for parameter in search.parameters}
    rows = [["", *having]] if having else []
    for name, label in labels.items():
        rows.append([label, *(short(search.ranking[0]["parameters"].get(name, "")) for search in having.values())])
    return rows
