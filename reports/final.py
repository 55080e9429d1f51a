"""Configurations trained again on several splits and seeds: what is in experiments/<id>/retrained, and what it says."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports import interval
from reports.findings import amount
from reports.read import Search, read_json, score
from runner.flags import UserMistake
from runner.records import WITH_DEFAULT, read_record
from runner.retrain import retrain, spread

OWN_FLAGS = ("--task", "--params", "--out", "--split-seed", "--seed", "--repeats")  # which each training sets itself


@dataclass
class Final:
    """One configuration, trained again."""

    entry: dict  # of the journal
    records: list[dict]  # one a training, split by split

    def values(self, metric: str) -> list[float]:
        """The metric of each training that has it."""
        return [record["result"][metric] for record in self.records if metric in record["result"]]

    def by_split(self, metric: str) -> dict[int, float]:
        """The metric of each split, the mean over its seeds."""
        found: dict[int, list[float]] = {}
        for record in self.records:
            if metric in record["result"]:
                found.setdefault(record["seeds"]["split_seed"], []).append(record["result"][metric])
        return {split: statistics.fmean(values) for split, values in sorted(found.items())}

    def summary(self, metric: str) -> dict | None:
        """Median, mean, sd, least, greatest; of the test accuracy with the 95 % interval of its mean. None without."""
        values, ends = self.values(metric), {}
        if not values:
            return None
        if metric == "test_accuracy" and len(right := self.right) > 1:
            ends = dict(zip(("low", "high"), interval.accuracy(np.stack(list(right.values()))), strict=True))
        return spread(values) | {"trainings": len(values), "splits": len(self.by_split(metric))} | ends

    @property
    def right(self) -> dict[int, np.ndarray]:
        """For each split the part of its trainings that was right on each test sample (B,); {} where one is unknown."""
        found: dict[int, list[np.ndarray]] = {}
        for record in self.records:
            if (right := interval.right_of(record)) is None:
                return {}
            found.setdefault(record["seeds"]["split_seed"], []).append(right)
        if len({len(right) for rights in found.values() for right in rights}) > 1:
            return {}  # of different test parts
        return {split: np.mean(rights, axis=0) for split, rights in sorted(found.items())}

    @property
    def unseen(self) -> float | None:
        """The mean validation score on the splits on which the search chose nothing. None where there are none."""
        own = self.entry["seeds"].get("split_seed")
        others = [value for split, value in self.by_split("default").items() if split != own]
        return statistics.fmean(others) if others else None

    @property
    def bias(self) -> tuple[float, float] | None:
        """The search's own score minus `unseen`, and what is expected of the bias if all luck is with the samples.

        The validation part of another split shares the fraction VALIDATION_FRACTION of its samples with that by which
        the search chose. As far as its luck was with these samples, not with the nets, so much of it is in `unseen`.
        """
        if self.unseen is None:
            return None
        from setup_hpo import VALIDATION_FRACTION

        seen = score(self.entry) - self.unseen
        return seen, seen / (1 - VALIDATION_FRACTION)

    @property
    def confusion(self) -> tuple[list[list[int]], list[str]] | None:
        """The confusion matrices of the test part, added up over the trainings, and the classes' names."""
        having = [record for record in self.records if record.get("confusion")]
        if not having:
            return None
        names = having[0]["class_names"]
        total = [[sum(r["confusion"][i][j] for r in having) for j in range(len(names))] for i in range(len(names))]
        return total, names

    @property
    def tested(self) -> int:
        """Number of samples of the test part; 0 where it is not known."""
        return next((sum(map(sum, record["confusion"])) for record in self.records if record.get("confusion")), 0)


def read_finals(search: Search) -> list[Final]:
    """Return what has been trained again, best first by the validation scores on splits that the search did not use.

    Nobody shall choose among them by the test part. Trainings of another configuration, cut short, or by other code
    or on other data than the newest are left out.
    """
    finals, by_trial = [], {entry["trial"]: entry for entry in search.ranking}
    for folder in sorted((search.folder / "retrained").glob("*/")):
        if (entry := by_trial.get(folder.name)) is not None:
            records = [read_record(path) for path in folder.glob("split-*-seed-*/")]
            records = _of_one_origin([record for record in records if record and record["status"] in WITH_DEFAULT])
            records.sort(key=lambda record: (record["seeds"]["split_seed"], record["seeds"]["seed"]))
            if records:
                finals.append(Final(entry, records))
    return sorted(finals, key=lambda final: -(score(final.entry) if final.unseen is None else final.unseen))


def _of_one_origin(records: list[dict]) -> list[dict]:
    """Leave out what was trained by other code, or on other data, than the newest record."""
    origins = [(record.get("code"), record.get("data")) for record in records]
    newest = max(range(len(records)), key=lambda number: records[number].get("started") or 0, default=None)
    return [record for record, origin in zip(records, origins, strict=True) if origin == origins[newest]]


def trial_words(search: Search) -> list[str]:
    """Return the flags (data folder, test seed, device ...) with which the search trained, from best.json.

    Raises UserMistake where that file is not there or names no task.
    """
    words = shlex.split(read_json(search.folder / "best.json").get("command", ""))
    if "main_hpo.py" not in words or not search.task:
        raise UserMistake(f"{search.folder}/best.json is needed for --retrain: it says how the search trained")
    words, kept = words[words.index("main_hpo.py") + 1 :], []
    while words:
        flag = words.pop(0)
        value = [words.pop(0)] if words and not words[0].startswith("--") else []
        if flag not in (*OWN_FLAGS, "--tensorboard"):
            kept += [flag, *value]
    return kept


def retrain_best(
    search: Search, top: int, splits: int, seeds: int, data_dir: Path | None, advance: Callable[[str], None]
) -> None:
    """Train the best `top` configurations on splits 0 .. `splits` - 1, each `seeds` times, from the search's seed on.

    `advance` is called with the trial's name for each training that is done. Raises UserMistake where it cannot be
    known how the search trained, RuntimeError where a training fails.
    """
    words = trial_words(search)
    if data_dir is not None:
        words += ["--data-dir", str(data_dir.resolve())]
    for entry in search.ranking[:top]:
        first = entry["seeds"].get("seed", 0)
        retrain(
            search.task,
            entry["given"],
            search.folder / "retrained" / entry["trial"],
            range(splits),
            seeds,
            first,
            words,
            advance=lambda trial=entry["trial"]: advance(trial),
        )


def final_sentences(search: Search, finals: list[Final]) -> list[str]:
    """What the retrained configurations say, and how far the search's own figure was off."""
    first = finals[0]
    said = []
    if len(finals) > 1:
        said.append(
            f"{len(finals)} configurations were trained again. Best on validation, on the splits that the search did "
            f"not use, is trial {first.entry['trial']}; the figures below are its own."
        )
    test, validation = first.summary("test_accuracy"), first.summary("default")
    said.append(
        f"Trial {first.entry['trial']}'s configuration, trained {amount(validation['trainings'], 'time')} on "
        f"{amount(validation['splits'], 'split')} of training and validation part; in each the weights were chosen on "
        "validation and tested once."
    )
    if test:
        said.append(_test_sentence(test))
    if first.bias is not None:
        said.append(_bias_sentence(search, first))
    return said


def _test_sentence(test: dict) -> str:
    sentence = (
        f"Test accuracy: median {test['median']:.4f}, mean {test['mean']:.4f}, standard deviation {test['sd']:.4f}"
    )
    sentence += f", from {test['min']:.4f} to {test['max']:.4f}"
    if "low" in test:
        sentence += (
            f"; 95 % confidence interval of the mean {test['low']:.4f} to {test['high']:.4f} (over new trainings and "
            "new test samples)"
        )
    elif test["splits"] > 1:
        sentence += "; no interval, since not every record tells which samples were right"
    return sentence + "."


def _bias_sentence(search: Search, final: Final) -> str:
    own, again, (bias, most) = score(final.entry), final.unseen, final.bias
    if bias > 0:
        verdict = (
            f"so the search's figure flattered it by {bias:.4f} or, if all its luck was with its validation samples, "
            f"some of which other splits use again, by about {most:.4f}: by the choice among trials and by its split"
        )
    else:
        verdict = f"so the search's figure did not flatter it ({-bias:.4f} better now)"
    return (
        f"Selection bias: the search gave this configuration a {search.score_name} of {own:.4f}, chosen among "
        f"{amount(len(search.scored), 'trial')}; on the splits that the search did not use its mean is {again:.4f}, "
        f"{verdict}. Quote the test accuracies, which no choice has seen."
    )
