"""Parallel coordinates of a search, one line of values below the other, so that any number of them can be read."""

from __future__ import annotations

import random

from reports.draw import ORANGE, lowest_shown, lowest_value, new_figure, values_of
from reports.parameters import Parameter, short
from reports.read import Search, is_finite, labelled

MOST_LINES = 200  # trials shown: the best, and a random part of the others


def parallel(search: Search):
    """Return the figure: parameters, then accuracies and other objectives; the best trial is marked."""
    from matplotlib.collections import LineCollection

    rows = [(parameter.label, _parameter_places(parameter)) for parameter in search.searched]
    metrics = {"train_accuracy": "training accuracy", "default": search.score_name, "test_accuracy": "test accuracy"}
    metrics |= {name: labelled(name) for name, _ in search.aim.objectives if name not in metrics}
    rows += [
        (label, _metric_places(search, metric))
        for metric, label in metrics.items()
        if any(is_finite(entry["result"].get(metric)) for entry in search.scored)
    ]
    figure, axes = new_figure(0.66 * len(rows) + 0.5)
    chosen = lines_shown(search)
    values, low = values_of(search, chosen), lowest_value(search)
    colors = "viridis" if search.least_is_best else "viridis_r"
    lines = LineCollection(
        [_line(entry, rows) for entry in chosen], cmap=colors, linewidths=0.7, alpha=0.5, rasterized=True
    )
    lines.set_array(values)
    lines.set_clim(low, max(max(values), low + 1e-9))
    axes.add_collection(lines)
    best = _line(search.ranking[0], rows)
    axes.plot(*zip(*best, strict=True), color=ORANGE, linewidth=2, label="best")
    _draw_rows(axes, rows)
    figure.colorbar(lines, ax=axes, location="bottom", aspect=50, pad=0.01, label=search.value_name)
    return figure


def lines_shown(search: Search) -> list[dict]:
    """Return the trials that parallel coordinates show, the worst first: all, or the best and a random part."""
    ranked = search.ranking
    if len(ranked) > MOST_LINES:
        others = random.Random(0).sample(ranked[MOST_LINES // 2 :], MOST_LINES // 2)
        ranked = ranked[: MOST_LINES // 2] + sorted(others, key=search.place)
    return ranked[::-1]


def _parameter_places(parameter: Parameter):
    """Return (place of an entry's value or None, [(place, text) of the marks])."""

    def place(entry: dict):
        value = entry["parameters"].get(parameter.name)
        if value is None:
            return None
        spread = 0.02 * (entry["sequence"] * 0.618 % 1 - 0.5) if parameter.choices else 0  # so that lines can be told
        return parameter.position(value) + spread

    if parameter.choices:
        marks = [(parameter.position(choice), short(choice)) for choice in parameter.choices]
    else:
        marks = [(0.0, short(parameter.low)), (1.0, short(parameter.high))]
        middle = (parameter.low * parameter.high) ** 0.5 if parameter.log else (parameter.low + parameter.high) / 2
        marks.insert(1, (0.5, short(float(f"{middle:.3g}"))))
    return place, marks


def _metric_places(search: Search, metric: str):
    """The same for a metric, over the range that the scored trials span.

    The lowest tenth may be cut off, but where the least is the best.
    """
    values = [value for entry in search.scored if is_finite(value := entry["result"].get(metric))]
    least_is_best = dict(search.aim.objectives).get(metric) == "min"
    low, high = min(values) if least_is_best else lowest_shown(values), max(values)

    def place(entry: dict):
        value = entry["result"].get(metric)
        return min(1.0, max(0.0, (value - low) / ((high - low) or 1))) if is_finite(value) else None

    return place, [(0.0, f"{'≤ ' if low > min(values) else ''}{_number(low)}"), (1.0, _number(high))]


def _number(value: float) -> str:
    """A part of one with three digits, another as `short` tells it."""
    return f"{value:.3f}" if 0 <= value <= 1 else short(float(value))


def _line(entry: dict, rows: list) -> list[tuple[float, int]]:
    """The points of a trial; where a parameter was not active, the line goes past it."""
    points = [(place(entry), row) for row, (_, (place, _)) in enumerate(rows)]
    return [point for point in points if point[0] is not None]


def _draw_rows(axes, rows: list) -> None:
    for row, (label, (_, marks)) in enumerate(rows):
        axes.plot([0, 1], [row, row], color="#444", linewidth=0.8, zorder=3)
        axes.text(0, row - 0.17, label, fontsize=8.5, weight="bold", zorder=5, bbox=_behind())
        for place, text in marks:
            axes.plot([place, place], [row, row + 0.1], color="#444", linewidth=0.8, zorder=3)
            align = "left" if place < 0.02 else "right" if place > 0.98 else "center"
            axes.text(place, row + 0.14, text, fontsize=7.5, ha=align, va="top", zorder=5, bbox=_behind())
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.6))
    axes.set_axis_off()


def _behind() -> dict:
    """A veil that keeps a text readable above lines."""
    return {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
