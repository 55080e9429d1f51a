"""What there is to say about a search's best trial, in sentences."""

from __future__ import annotations

import statistics

from reports.parameters import short
from reports.read import Search, score

NEAR = 0.005  # scores so close to the best are told apart by luck as much as by their parameters
GAP = 0.05  # training minus validation accuracy of the best trials that counts as learning by heart


def amount(number: int, thing: str) -> str:
    """1 trial, 2 trials."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def best_sentences(search: Search) -> list[str]:
    """The best trial, how it compares with its neighbours, and what its figures mean."""
    best = search.ranking[0]
    result = best["result"]
    named = {"train_accuracy": "training", "test_accuracy": "test"}
    others = [f"{name} {result[key]:.4f}" for key, name in named.items() if key in result]
    said = [
        f"The best is trial {best['trial']} (the {ordinal(best['sequence'] + 1)} that started): {search.score_name} "
        f"{score(best):.4f}" + (f", {', '.join(others)}." if others else ".")
    ]
    said += aim_sentences(search)
    if search.aim.objectives[0] == ("default", "max"):
        said += luck_sentences(search)
    gaps = [e["result"]["train_accuracy"] - score(e) for e in search.ranking[:10] if "train_accuracy" in e["result"]]
    if gaps and (gap := statistics.median(gaps)) > GAP:
        said.append(
            f"The best trials are better on what they learnt by {gap:.3f} (median of {len(gaps)}): they overfit, so "
            "regularisation, augmentation or a smaller net is worth a place in the search space."
        )
    if search.front:
        named = " and ".join(f"{name} ({'greatest' if way == 'max' else 'least'})" for name, way in search.objectives)
        said.append(
            f"For {named} {amount(len(search.front), 'trial')} form the Pareto front: nothing is better in all."
        )
    return said


def aim_sentences(search: Search) -> list[str]:
    """How the trials are ranked, where that is not by the score alone."""
    said, (name, way) = [], search.aim.objectives[0]
    if (name, way) != ("default", "max"):
        value = search.ranking[0]["result"].get(name)
        said.append(
            f"Trials are ranked by {name}, the {'greatest' if way == 'max' else 'least'} first"
            + (f"; the best has {short(value)}." if value is not None else ".")
        )
    if search.aim.limits:
        bounds = " and ".join(f"{metric} {sign} {short(bound)}" for metric, sign, bound in search.aim.limits)
        said.append(
            f"{len(search.within)} of {amount(len(search.scored), 'trial')} with a score keep {bounds} and come first."
            if search.within
            else f"No trial keeps {bounds}: the best is one that does not."
        )
    return said


def luck_sentences(search: Search) -> list[str]:
    """How many trials are as good as the best, and that its score is the greatest of many."""
    best, peers = search.ranking[0], search.within or search.scored
    said, near = [], sum(score(best) - score(entry) <= NEAR for entry in peers) - 1
    if near:
        said.append(
            f"{amount(near, 'other trial')} came within {NEAR} of it; which of them is first is luck as much as merit."
        )
    if len(peers) > 1:
        said.append(
            f"Its {search.score_name} is the greatest of {len(peers)} and so too good by nature; --retrain "
            "tells what the configuration reaches on other splits."
        )
    return said


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
