"""What the pictures of a search show, in sentences, and what to search next. Plain text, no markup."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from dataclasses import dataclass, field

from reports.best import amount, best_sentences, ordinal
from reports.importance import Importance
from reports.parameters import Parameter, beyond, refusal, short, told
from reports.read import HOPELESS, Search, is_scored

TOP = 5  # trials that are asked where they lie
SELDOM = 0.02  # a parameter that explains less than this part of the scores' variation matters little
NARROW = 20  # scored trials from which on ranges are narrowed to those of the best
UNSURE = 0.25  # a forest that foretells less than this part of the variation has found little more than chance
SEPARATES = 0.75  # rank statistic from which on a parameter tells hopeless nets from others


@dataclass
class Edge:
    """A parameter whose best value lies at an end of its range."""

    parameter: Parameter
    side: str  # lower | upper
    value: float
    top: int  # of the best TOP trials at that edge
    beyond: float | None = None  # a value to go on to; None where there is none
    refusal: str = ""  # why not

    def sentence(self, of: int) -> str:
        """Say so, and what to do."""
        where = f"{self.parameter.name} = {short(self.value)} is at the {self.side} edge of its range"
        where += f", as in {'all' if self.top == of else self.top} of the best {of} trials" if of > 1 else ""
        if self.beyond is None:
            return f"{where}; it cannot go further ({self.refusal})."
        way = "upwards" if self.side == "upper" else "downwards"
        return f"{where}: widen {self.parameter.name} {way}, for example to {short(self.beyond)}."


@dataclass
class Findings:
    """The sentences, by what they are about, and the next search space."""

    trials: list[str] = field(default_factory=list)
    best: list[str] = field(default_factory=list)
    wasted: list[str] = field(default_factory=list)
    following: list[str] = field(default_factory=list)  # what to search next
    space: dict = field(default_factory=dict)  # in NNI's format; empty where the search's own is not known


def find(search: Search, importances: list[Importance]) -> Findings:
    """Return what there is to say about a search."""
    found = Findings(trials=trials_sentences(search), wasted=wasted_sentences(search))
    if search.scored:
        edges = find_edges(search)
        found.best = best_sentences(search)
        found.following = following_sentences(search, edges, importances)
        found.space = next_space(search, edges)
    return found


def trials_sentences(search: Search) -> list[str]:
    """How many trials ended how, and whether all have."""
    counts = ", ".join(f"{number} {status}" for status, number in search.statuses.most_common())
    said = [f"{amount(len(search.entries), 'trial')}: {counts}."]
    if search.running:
        said.append(
            f"{amount(search.running, 'further trial')} started and did not end: the search is still running or was "
            "cut off. This is how far it has come."
        )
    if search.torn:
        said.append(f"{amount(search.torn, 'line')} of the journal cannot be read; what it held is not shown.")
    return said


def find_edges(search: Search) -> list[Edge]:
    """Return the parameters whose best value lies at an edge, those on which the best trials agree first."""
    best, edges = search.ranking[0], []
    for parameter in search.searched:
        value = best["parameters"].get(parameter.name)
        if value is None or not (side := parameter.edge(value)):
            continue
        top = [entry["parameters"].get(parameter.name) for entry in search.ranking[:TOP]]
        agreeing = sum(value is not None and parameter.edge(value) == side for value in top)
        edge = Edge(parameter, side, value, agreeing)
        for value in beyond(parameter, side):
            edge.refusal = refusal(search.task, best["parameters"], parameter.name, value)
            if not edge.refusal:
                edge.beyond = value
                break
        edges.append(edge)
    return sorted(edges, key=lambda edge: -edge.top)


def wasted_sentences(search: Search) -> list[str]:
    """Silent and saturated nets, failures, and what they cost."""
    said = []
    hopeless = [entry for entry in search.entries if entry["status"] in HOPELESS]
    if hopeless:
        names = " or ".join(status for status in HOPELESS if search.statuses[status])
        said.append(
            f"{len(hopeless)} of {amount(len(search.entries), 'trial')} ({len(hopeless) / len(search.entries):.0%}, "
            f"{duration(hopeless)}) went to {names} nets, which compute nothing{_where(search, hopeless)}."
        )
    failed = [entry for entry in search.entries if not is_scored(entry) and entry["status"] != "interrupted"]
    if failed:
        cause, number = causes(search)[0]
        said.append(
            f"{amount(len(failed), 'trial')} ({duration(failed)}) ended without a score; most often ({number}): {cause}"
        )
    return said


def duration(entries: list[dict]) -> str:
    """The wall time of trials, added up."""
    seconds = sum(entry.get("wall_seconds") or 0 for entry in entries)
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"


def _where(search: Search, hopeless: list[dict]) -> str:
    """Name the parameter that separates hopeless nets from the others best, where one does."""
    others = [entry for entry in search.scored if entry["status"] not in HOPELESS]
    ranked = []
    for parameter in search.searched:
        if parameter.ordered and len(hopeless) > 2 and len(others) > 2:
            first, second = (_values(entries, parameter.name) for entries in (hopeless, others))
            ranked.append((separation(first, second), parameter.name, first, second))
    strength = max(ranked, key=lambda item: abs(item[0] - 0.5), default=(0.5,))
    if abs(strength[0] - 0.5) < SEPARATES - 0.5:
        return ""
    value, name, first, second = strength
    side = "high" if value > 0.5 else "low"
    return (
        f"; mostly where {name} is {side} (median {short(statistics.median(first))}, "
        f"elsewhere {short(statistics.median(second))})"
    )


def _values(entries: list[dict], name: str) -> list:
    return [entry["parameters"][name] for entry in entries if isinstance(entry["parameters"].get(name), int | float)]


def separation(first: list[float], second: list[float]) -> float:
    """Return the probability that a value of `first` is above one of `second` (ties count half); 0.5 without values."""
    if not first or not second:
        return 0.5
    from scipy.stats import rankdata

    ranks = rankdata([*first, *second])[: len(first)]
    return (ranks.sum() - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))


def causes(search: Search) -> list[tuple[str, int]]:
    """Return the causes of trials without a score or stopped early, with their number, the most frequent first.

    Causes that differ in numbers alone are one; the numbers are shown as "...".
    """
    counted = Counter()
    for entry in search.entries:
        if not is_scored(entry) or entry["status"] == "early_stopped":
            cause = re.sub(r"\d[\d.e+-]*", "…", entry.get("cause") or "no cause told")
            counted[f"{entry['status']}: {cause}"] += 1
    return counted.most_common()


def following_sentences(search: Search, edges: list[Edge], importances: list[Importance]) -> list[str]:
    """What to search next, from edges, importances and how late the best came."""
    of = min(TOP, len(search.ranking))
    said, at_edge = [edge.sentence(of) for edge in edges], {edge.parameter.name for edge in edges}
    if not edges and search.searched and len(search.scored) >= 10:
        said.append("No value of the best trial is at an edge of its range: the space is wide enough.")
    if importances and not importances[0].among:
        said += _importance_sentences(importances[0], search, at_edge)
    said += _pace_sentences(search)
    return said


def _importance_sentences(importance: Importance, search: Search, at_edge: set[str]) -> list[str]:
    if importance.foretold is not None and importance.foretold < UNSURE:
        return [
            f"What matters cannot be told yet: a forest foretells {max(0, importance.foretold):.0%} of the variation "
            "of trials that it has not seen, so the importances may be chance."
        ]
    first = importance.order[0]
    said = [
        f"{first} matters most ({importance.median(first):.0%} of the variation of the {search.value_name})"
        f"{_by(search, first)}."
    ]
    seldom = [name for name in importance.order if importance.median(name) < SELDOM and name not in at_edge]
    best = search.ranking[0]["parameters"]
    if seldom:
        values = ", ".join(f"{name} = {short(best[name])}" for name in seldom if name in best)
        said.append(f"These explain less than {SELDOM:.0%} each and may be fixed to make the space smaller: {values}.")
    return said


def _by(search: Search, name: str) -> str:
    """How the first objective goes with a parameter: the median of each choice, or the range of the best tenth."""
    parameter = next(parameter for parameter in search.searched if parameter.name == name)
    if not parameter.choices:
        top = search.ranking[: max(TOP, len(search.scored) // 10)]
        values = [entry["parameters"][name] for entry in top if name in entry["parameters"]]
        return f": the best {len(top)} trials have it from {short(min(values))} to {short(max(values))}"
    groups = {
        choice: [search.value(e) for e in search.scored if told(e["parameters"].get(name)) == choice]
        for choice in parameter.choices
    }
    medians = sorted(
        ((statistics.median(group), choice) for choice, group in groups.items() if group),
        reverse=not search.least_is_best,
        key=lambda pair: pair[0],
    )
    return ": median " + ", ".join(f"{short(float(median))} with {short(choice)}" for median, choice in medians[:4])


def _pace_sentences(search: Search) -> list[str]:
    """Whether more trials in the same space promise something."""
    number, last = len(search.scored), search.scored.index(search.ranking[0]) + 1
    if number < 10:
        return [f"{amount(number, 'trial')} with a score say little: search on."]
    if last > 0.8 * number:
        return [f"The best came late ({ordinal(last)} of {number} with a score): more trials may well find better."]
    if last < 0.5 * number:
        return [
            f"The best came as {ordinal(last)} of {number} with a score and was not bettered since: rather change the "
            "space than add trials."
        ]
    return []


def next_space(search: Search, edges: list[Edge]) -> dict:
    """Return a search space to go on with: widened at edges, otherwise narrowed to where the best tenth lies.

    Only for a known space without nested choices; else empty. Choices and fixed values stay as they are.
    """
    if any(parameter.parent or not parameter.known for parameter in search.parameters):
        return {}
    moved = {edge.parameter.name: edge for edge in edges if edge.beyond is not None}
    top = search.ranking[: max(TOP, len(search.scored) // 10)]
    space = {}
    for parameter in search.parameters:
        edge = moved.get(parameter.name)
        if parameter.choices:
            choices = [*parameter.choices, *([edge.beyond] if edge else [])]
            space[parameter.name] = {"_type": "choice", "_value": choices}
            continue
        low, high = parameter.low, parameter.high
        if edge:
            low, high = (edge.beyond, high) if edge.side == "lower" else (low, edge.beyond)
        elif len(search.scored) >= NARROW:
            low, high = _narrowed(parameter, [entry["parameters"].get(parameter.name, low) for entry in top])
        kind = "randint" if parameter.integer else "loguniform" if parameter.log else "uniform"
        space[parameter.name] = {"_type": kind, "_value": [low, high + 1 if parameter.integer else high]}
    return space


def _narrowed(parameter: Parameter, values: list) -> tuple[float, float]:
    """The range of the values and a fifth of the whole range on either side, within the whole range."""
    places = [parameter.position(value) for value in values]
    ends = max(0.0, min(places) - 0.2), min(1.0, max(places) + 0.2)
    return tuple(_at(parameter, place) for place in ends)


def _at(parameter: Parameter, place: float):
    if place in (0.0, 1.0):
        return parameter.high if place else parameter.low
    if parameter.log:
        return float(f"{parameter.low * (parameter.high / parameter.low) ** place:.3g}")
    value = parameter.low + place * (parameter.high - parameter.low)
    return round(value) if parameter.integer else float(f"{value:.3g}")
