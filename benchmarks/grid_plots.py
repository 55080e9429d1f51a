"""The figures of `benchmarks.grid_vs_bayes --plots FOLDER`: the paper's Figure 1, and regret and sensitivity."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def draw(truth, runs: dict[str, list[list[int]]], folder: Path) -> None:
    """Write whetstone_grid.png and whetstone_search.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
    draw_grid(axis, truth, runs)
    figure.savefig(folder / "whetstone_grid.png", dpi=110)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    draw_regret(axes[0], truth, runs)
    draw_effects(axes[1], truth)
    figure.savefig(folder / "whetstone_search.png", dpi=110)


def draw_grid(axis, truth, runs) -> None:
    """Every configuration in the grid's order; those that one Bayesian search of 15 tried, and both optima."""
    name = "reference-gp" if "reference-gp" in runs else next(iter(runs))
    tried = runs[name][0][:15]
    axis.plot(100 * truth.shown, ".", color="0.65", label="grid, 256 evaluations")
    axis.plot(tried, 100 * truth.shown[tried], "o", mfc="none", color="tab:blue", label=f"{name}, 15 evaluations")
    best, found = int(truth.shown.argmax()), max(tried, key=lambda index: truth.shown[index])
    axis.plot(best, 100 * truth.shown[best], "s", ms=11, mfc="none", color="tab:green", label="best of the grid")
    axis.plot(found, 100 * truth.shown[found], "r*", ms=12, label=f"best of {name}")
    axis.set(xlabel="configuration, in the grid's order", ylabel="validation accuracy (%)")
    axis.legend(fontsize=8, loc="center right")


def draw_regret(axis, truth, runs) -> None:
    """Mean regret of the best so far over the evaluations, and the whole grid's; `grid`, in its order, is far off."""
    for name, searches in runs.items():
        evaluations = range(1, min(len(chosen) for chosen in searches) + 1)
        mean = [np.mean([_regret(truth, chosen, count) for chosen in searches]) for count in evaluations]
        axis.plot(evaluations, mean, label=name)
    whole = truth.regret(int(truth.shown.argmax()))
    axis.axhline(whole, color="black", ls="--", lw=1, label="all 256")
    axis.set(xlabel="evaluations", ylabel="mean regret (points)", ylim=(0, 10))
    axis.axvline(15, color="0.8", lw=1)
    axis.legend(fontsize=7, ncols=2)


def draw_effects(axis, truth) -> None:
    """What the larger value of each parameter brings, where the net learns at all."""
    from benchmarks.grid_vs_bayes import effects

    found = [effect for effect in effects(truth) if effect["live"]]
    changes = [100 * (effect["live"][-1] - effect["live"][0]) for effect in found]
    axis.barh([effect["name"] for effect in found], changes, color="tab:blue")
    axis.invert_yaxis()
    axis.axvline(0, color="0.4", lw=0.8)
    axis.set_xlabel("accuracy at its last value less at its first (points)")


def _regret(truth, chosen: list[int], count: int) -> float:
    return truth.regret(max(chosen[:count], key=lambda index: truth.shown[index]))
