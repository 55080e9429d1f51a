"""The pictures of a search, each a matplotlib figure. Narrow enough to be read on a phone, and in a paper's column."""

from __future__ import annotations

import random
import statistics

from reports.findings import causes
from reports.importance import Importance
from reports.parameters import Parameter, short, told
from reports.read import HOPELESS, Search, labelled, score

BLUE, ORANGE, GREEN, GREY, RED = "#2f6db3", "#d9661f", "#3d8b4f", "#8a8f98", "#b3332f"
WIDTH = 5.2  # inches of a figure
BARS = 10  # of a histogram
CAUSES = 12  # shown


def new_figure(height: float, width: float = WIDTH, **grid):
    """Return (figure, axes) in the report's style; figures are not shared with pyplot, so nothing has to be closed."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True})
    rcParams.update({"text.parse_math": False})  # names and causes may have a $
    rcParams.update({"axes.grid": True, "grid.color": "#e4e6ea", "legend.frameon": False, "pdf.fonttype": 42})
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid)


def values_of(search: Search, entries: list[dict]) -> list[float]:
    """The first objective of trials."""
    return [search.value(entry) for entry in entries]


def lowest_value(search: Search) -> float:
    """`lowest_shown` of all trials; where the least is the best, the least."""
    values = values_of(search, search.scored)
    return min(values) if search.least_is_best else lowest_shown(values)


def lowest_shown(scores: list[float]) -> float:
    """Return where an axis of scores begins: low enough for nine of ten, so that a few bad trials do not flatten it."""
    low, high = min(scores), max(scores)
    tenth = sorted(scores)[len(scores) // 10]
    return low if high - low < 3 * (high - tenth) or high == tenth else tenth - 0.1 * (high - tenth)


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = lowest_shown(values), max(values)
    return low, high + 0.04 * ((high - low) or 1)


def draw_scores(axes, x: list, scores: list[float], low: float, **style) -> None:
    """Scatter scores; those below `low` are triangles at the lower end of the axis."""
    above = [(place, value) for place, value in zip(x, scores, strict=True) if value >= low]
    below = [place for place, value in zip(x, scores, strict=True) if value < low]
    many = len(scores) > 1000
    style = {"s": 5 if many else 14, "linewidths": 0, "alpha": 0.4 if many else 0.65, "rasterized": many} | style
    axes.scatter([place for place, _ in above], [value for _, value in above], **style)
    if below:
        axes.scatter(below, [low] * len(below), **style | {"marker": "v", "label": None}, clip_on=False)


def progress(search: Search):
    """Values in the order of the trials' start, the best so far; trials without a score below the axis."""
    figure, axes = new_figure(3.5)
    low = lowest_value(search)
    number = {entry["trial"]: place for place, entry in enumerate(search.entries, 1)}
    for label, entries, color in (
        ("trial", [entry for entry in search.scored if entry["status"] not in HOPELESS], BLUE),
        ("silent or saturated", [entry for entry in search.scored if entry["status"] in HOPELESS], GREY),
    ):
        if entries:
            places = [number[entry["trial"]] for entry in entries]
            draw_scores(axes, places, values_of(search, entries), low, color=color, label=label)
    places, best = best_so_far(search)
    best = values_of(search, best)
    axes.step([*places, len(search.entries)], [*best, best[-1]], where="post", color=ORANGE, label="best so far")
    if failed := [number[entry["trial"]] for entry in search.entries if not search.is_valued(entry)]:
        axes.plot(failed, [0.015] * len(failed), "x", color=RED, ms=4, label="no score", transform=_at_bottom(axes))
    axes.set(xlabel="trial, in the order of their start", ylabel=search.value_name)
    _whole_numbers(axes.xaxis)
    _legend_below(figure)
    return figure


def _legend_below(figure, **more) -> None:
    """A legend that hides nothing."""
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, **more)


def best_so_far(search: Search) -> tuple[list[int], list[dict]]:
    """Return (numbers of the trials that bettered all before them, these trials); the first trial is number 1."""
    places, best, least = [], [], None
    for number, entry in enumerate(search.entries, 1):
        place = search.aim.place(entry["result"])
        if search.is_valued(entry) and (least is None or place < least):
            least = place
            places.append(number)
            best.append(entry)
    return places, best


def _at_bottom(axes):
    """Coordinates with x as data and y from 0 (bottom) to 1 (top)."""
    return axes.get_xaxis_transform()


def _whole_numbers(axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def importance_bars(importance: Importance):
    """Bars of the medians, the single runs as dots."""
    names = importance.order
    figure, axes = new_figure(0.26 * len(names) + 0.8)
    axes.barh(names, [importance.median(name) for name in names], color=BLUE, alpha=0.8)
    for name in names:
        runs = importance.shares[name]
        axes.plot(runs, [name] * len(runs), "o", color="black", ms=3, alpha=0.6)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="importance (part of the whole)", xlim=(0, None))
    return figure


def slice_and_histogram(search: Search, parameter: Parameter):
    """Values of the first objective over a parameter's, below how often each was tried; the best's framed in red."""
    figure, (upper, lower) = new_figure(
        3.3, 3.6, nrows=2, sharex=True, gridspec_kw={"height_ratios": (3, 1.3), "hspace": 0.04}
    )
    entries = [entry for entry in search.scored if parameter.name in entry["parameters"]]
    tried = [entry["parameters"][parameter.name] for entry in search.entries if parameter.name in entry["parameters"]]
    low = lowest_value(search)
    x = _axis_values(parameter, [entry["parameters"][parameter.name] for entry in entries])
    draw_scores(upper, x, values_of(search, entries), low, color=BLUE)
    best = next((entry["parameters"][parameter.name] for entry in search.ranking[:1] if entry in entries), None)
    if best is not None:
        place = _axis_values(parameter, [best], jitter=False)
        upper.plot(place, [search.value(search.ranking[0])], "*", color=ORANGE, ms=13, mec="white", zorder=4)
    _histogram(lower, parameter, tried, best)
    upper.set_ylabel(search.value_name)
    lower.set(xlabel=parameter.label, ylabel="trials")
    upper.tick_params(bottom=False, which="both")
    return figure


def _axis_values(parameter: Parameter, values: list, jitter: bool = True) -> list:
    """Where values lie on the axis: choices at whole numbers, spread a little so that trials do not hide each other."""
    if not parameter.choices:
        return values
    ordered, rng = _ordered_choices(parameter), random.Random(0)
    return [ordered.index(told(value)) + (rng.uniform(-0.18, 0.18) if jitter else 0) for value in values]


def _ordered_choices(parameter: Parameter) -> list:
    return sorted(parameter.choices) if parameter.ordered else list(parameter.choices)


def _histogram(axes, parameter: Parameter, tried: list, best) -> None:
    if parameter.choices:
        ordered = _ordered_choices(parameter)
        counts, places = [sum(told(value) == choice for value in tried) for choice in ordered], range(len(ordered))
        bars = axes.bar(places, counts, width=0.7, color=GREY)
        texts = [short(choice) for choice in ordered]
        slanted = sum(map(len, texts)) > 26
        axes.set_xticks(places, texts, rotation=30 if slanted else 0, ha="right" if slanted else "center")
        chosen = ordered.index(told(best)) if best is not None else None
    else:
        edges = _edges(parameter)
        counts, _, bars = axes.hist(tried, bins=edges, color=GREY, rwidth=0.92)
        chosen = None if best is None else max(0, min(len(bars) - 1, sum(edge <= best for edge in edges) - 1))
        if parameter.log:
            _log_axis(axes)
    if chosen is not None:
        bars[chosen].set(edgecolor=RED, linewidth=1.6)
    axes.grid(axis="x", visible=False)
    _whole_numbers(axes.yaxis)
    axes.yaxis.get_major_locator().set_params(nbins=3)


def _edges(parameter: Parameter) -> list[float]:
    """The borders of the histogram's bars; of integers between them."""
    low, high = parameter.low, parameter.high
    if parameter.integer:
        step = -(-(high - low + 1) // BARS)
        return [low - 0.5 + step * bar for bar in range(-(-(high - low + 1) // step) + 1)]
    if parameter.log:
        return [low * (high / low) ** (bar / BARS) for bar in range(BARS)] + [high]
    return [low + (high - low) * bar / BARS for bar in range(BARS)] + [high]


def _log_axis(axes) -> None:
    """A logarithmic x axis with a few plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 60 else (1,), numticks=9))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def train_validation_test(search: Search):
    """The three accuracies of each trial, the trials ordered by validation."""
    figure, axes = new_figure(3.5)
    ranked = sorted(search.scored, key=score, reverse=True)
    places = range(1, len(ranked) + 1)
    low = lowest_shown([score(entry) for entry in ranked])
    for metric, label, color in (
        ("train_accuracy", "training", GREY),
        ("default", "validation", BLUE),
        ("test_accuracy", "test", ORANGE),
    ):
        having = [
            (p, entry["result"][metric]) for p, entry in zip(places, ranked, strict=True) if metric in entry["result"]
        ]
        if having:
            draw_scores(axes, *map(list, zip(*having, strict=True)), low, color=color, label=label)
    axes.set(xlabel="trial, ordered by validation", ylabel=search.score_name.replace("validation ", ""))
    _whole_numbers(axes.xaxis)
    _legend_below(figure)
    return figure


def learning_curves(search: Search, curves: list[tuple[dict, list[dict]]]):
    """Accuracy on validation (full) and training (dashed) after each epoch of the best trials."""
    figure, axes = new_figure(3.5)
    values = []
    for number, (entry, curve) in enumerate(curves):
        color = (ORANGE, BLUE, GREEN, GREY, RED)[number]
        for key, style in (("validation_accuracy", "-"), ("train_accuracy", "--")):
            key = key if key in curve[0] else {"validation_accuracy": "default"}.get(key)
            points = [(place, epoch[key]) for place, epoch in enumerate(curve, 1) if key in epoch]
            if points:
                values += [value for _, value in points]
                label = f"{entry['trial']} ({score(entry):.4f})" if style == "-" else None
                axes.plot(*zip(*points, strict=True), style, color=color, linewidth=1.2, alpha=0.9, label=label)
    axes.set(xlabel="epoch", ylabel="accuracy", ylim=_limits(values))
    _whole_numbers(axes.xaxis)
    _legend_below(figure, title="trial (its score)", title_fontsize=8)
    return figure


def cause_bars(search: Search):
    """How many trials were stopped or failed, by cause."""
    found = [(f"{cause[:69]}…" if len(cause) > 70 else cause, number) for cause, number in causes(search)]
    found = found[:CAUSES]
    figure, axes = new_figure(0.5 * len(found) + 0.75)
    rows = range(len(found))
    axes.barh(rows, [number for _, number in found], color=RED, alpha=0.75, height=0.35)
    for row, (cause, number) in zip(rows, found, strict=True):
        axes.text(0, row - 0.27, f" {cause} ({number})", fontsize=8, va="bottom")
    axes.set(xlabel="trials", yticks=[], ylim=(len(found) - 0.6, -0.8))
    axes.grid(axis="y", visible=False)
    _whole_numbers(axes.xaxis)
    return figure


def pareto(search: Search):
    """The first two objectives of all trials, and the front."""
    figure, axes = new_figure(3.4)
    (first, _), (second, direction) = search.objectives[:2]
    front = search.front
    having = [entry for entry in search.scored if first in entry["result"] and second in entry["result"]]
    for entries, style in ((having, {"color": BLUE, "label": "trial"}), (front, {"color": ORANGE, "label": "front"})):
        x, y = ([entry["result"][name] for entry in entries] for name in (second, first))
        axes.scatter(x, y, s=14, linewidths=0, alpha=0.7, rasterized=len(x) > 1000, **style)
    if len(search.objectives) == 2:
        points = sorted((entry["result"][second], entry["result"][first]) for entry in front)
        axes.step(*zip(*points, strict=True), where="post" if direction == "min" else "pre", color=ORANGE, linewidth=1)
    values = [entry["result"][second] for entry in having]
    if min(values) > 0 and max(values) / min(values) > 50:
        _log_axis(axes)
    axes.set(xlabel=labelled(second), ylabel=labelled(first))
    _legend_below(figure)
    return figure


def confusion_matrix(counts: list[list[int]], names: list[str]):
    """Rows are the true classes, in per cent of their samples."""
    size = min(max(2.6, 0.34 * len(names) + 1.2), 7)
    figure, axes = new_figure(size, size + 0.6)
    shares = [[100 * value / max(1, sum(row)) for value in row] for row in counts]
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.grid(visible=False)
    if len(names) <= 20:
        for row, values in enumerate(shares):
            for column, value in enumerate(values):
                if value >= 0.5:
                    color = "white" if value > 55 else "black"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.set(xlabel="predicted class", ylabel="true class")
    places = range(0, len(names), 1 if len(names) <= 30 else len(names) // 15)
    slanted = max(map(len, names)) > 3
    axes.set_xticks(places, [names[place] for place in places], rotation=60 if slanted else 0, fontsize=7.5)
    axes.set_yticks(places, [names[place] for place in places], fontsize=7.5)
    figure.colorbar(picture, ax=axes, label="samples of the true class [%]", shrink=0.8)
    return figure


def spread_strip(groups: dict[str, list[float]], label: str):
    """One dot a training, a bar for the median, one row a group."""
    figure, axes = new_figure(0.5 * len(groups) + 0.9)
    for row, (name, values) in enumerate(groups.items()):
        color = BLUE if name.endswith("validation") else ORANGE
        axes.plot(values, [row] * len(values), "o", color=color, ms=4, alpha=0.5)
        axes.plot([statistics.median(values)] * 2, [row - 0.3, row + 0.3], color="black")
    axes.set(yticks=range(len(groups)), yticklabels=groups, xlabel=label, ylim=(len(groups) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    return figure


def races(searches: dict[str, Search]):
    """The score of several searches' best so far over their trials."""
    figure, axes = new_figure(3.4)
    values = []
    for number, (name, search) in enumerate(searches.items()):
        places, best = best_so_far(search)
        if best:
            best = [score(entry) for entry in best]
            color = (BLUE, ORANGE, GREEN, RED, "#6b4fa0", GREY)[number % 6]
            ends = [*places, len(search.entries)], [*best, best[-1]]
            axes.step(*ends, where="post", color=color, label=name, linestyle="-" if number < 6 else "--")
            values += best
    axes.set(xlabel="trial, in the order of their start", ylabel="validation score of the best so far")
    axes.set_ylim(_limits(values))
    _whole_numbers(axes.xaxis)
    _legend_below(figure)
    return figure
