"""The sections of a search's page: which pictures and sentences there are for what the search has."""

from __future__ import annotations

import json
import time
from pathlib import Path

from reports import draw
from reports.cost import bits, cost
from reports.final import Final, final_sentences, read_finals
from reports.findings import Findings, amount, causes, find
from reports.importance import LEAST, RUNS, Importance, importances
from reports.page import Picture, Section, file_name, space_text, write_page
from reports.parallel import MOST_LINES
from reports.parallel import parallel as draw_parallel
from reports.parameters import short
from reports.read import Search, labelled
from runner.records import write_atomic

SHOWN = 5  # trials in the table of the best
FRONT = 20  # trials in the table of the Pareto front


def write_report(search: Search, step=lambda text: None) -> Path:
    """Write report/index.html, its pictures, final.json and next_space.json; return the page's path."""
    folder = search.folder / "report"
    folder.mkdir(exist_ok=True)
    found, trouble = reckoned(search, step)
    findings, finals = find(search, found), read_finals(search)
    for name, text in (("next_space.json", space_text(findings.space)), ("final.json", final_text(finals))):
        if text:
            write_atomic(folder / name, text.encode())
        else:
            (folder / name).unlink(missing_ok=True)
    sections = [
        overview(search, findings),
        retrained(search, finals),
        progress(search),
        accuracies(search),
        parallel(search),
        importance(search, found, trouble),
        curves(search),
        front(search),
        cost(search),
        bits(search),
        ends(search),
        parameters(search),
        following(findings),
    ]
    for path in [*folder.glob("*.png"), *folder.glob("*.pdf")]:
        path.unlink()  # of an earlier report, which may have had others
    return write_page(folder, f"{search.name}: {search.task or 'a search'}", subtitle(search), sections, step)


def subtitle(search: Search) -> str:
    """When it was reported, and how it was searched."""
    said = [f"reported {time.strftime('%Y-%m-%d %H:%M')}"]
    for name in ("tuner", "assessor", "seed", "split_seed", "test_seed", "repeats", "tonic"):
        if search.facts.get(name) not in (None, "none"):
            said.append(f"{name.replace('_', ' ')} {search.facts[name]}")
    return " · ".join(said)


def overview(search: Search, findings: Findings) -> Section:
    """How it stands: the trials, the best, what was wasted."""
    sentences = [*findings.trials, *findings.best, *findings.wasted]
    if not search.scored:
        missing = "" if search.aim.objectives[0][0] == "default" else f" and a value of {search.value_name}"
        sentences.append(f"No trial has a score{missing}: there is nothing to compare. The causes are below.")
    best = search.ranking[:SHOWN]
    rows = [["", *(entry["trial"] for entry in best)]] if best else []
    metrics = {
        "default": search.score_name,
        "test_accuracy": "test accuracy",
        "synaptic_operations": "operations per inference",
    }
    metrics = {name: labelled(name) for name in search.aim.metrics if name not in metrics} | metrics
    for key, label in metrics.items():
        if any(key in entry["result"] for entry in best):
            rows.append([label, *(entry["result"].get(key, "") for entry in best)])
    for parameter in search.parameters if best else ():
        rows.append([parameter.label, *(short(entry["parameters"].get(parameter.name, "")) for entry in best)])
    return Section("What came of it", sentences, table=rows, listed=True)


def progress(search: Search) -> Section:
    """Best so far over the trials."""
    if not search.scored:
        return Section("")
    values = draw.values_of(search, search.scored)
    caption = "Triangles lie below the axis. " if draw.lowest_value(search) > min(values) else ""
    if search.aim.limits:
        caption += "A trial within the limits counts as better than one beyond them."
    picture = Picture("progress", "Best so far", lambda: draw.progress(search), caption.strip())
    return Section("The search", pictures=[picture], wide=False)


def retrained(search: Search, finals: list[Final]) -> Section:
    """What --retrain found."""
    if not finals:
        return Section("")
    rows = [["trial", "search", "validation, mean", "test, median", "mean", "sd", "95 % from", "to", "trainings"]]
    for final in finals:
        validation, test = final.summary("default"), final.summary("test_accuracy") or {}
        numbers = [test.get(key, "") for key in ("median", "mean", "sd", "low", "high")]
        rows.append([final.entry["trial"], final.entry["result"]["default"], validation["mean"], *numbers])
        rows[-1].append(validation["trainings"])
    pictures = [Picture("retrained", "Every training", lambda: draw.spread_strip(strips(finals), "accuracy"))]
    if finals[0].confusion:
        caption = (
            f"Test part, {amount(len(finals[0].records), 'training')} of trial {finals[0].entry['trial']} together."
        )
        matrix = finals[0].confusion
        pictures.append(Picture("confusion", "Confusion matrix", lambda: draw.confusion_matrix(*matrix), caption))
    return Section("Trained again", final_sentences(search, finals), pictures, rows)


def strips(finals: list[Final]) -> dict[str, list[float]]:
    """The rows of the picture of all trainings: validation and test of each configuration."""
    groups = {}
    for final in finals:
        for metric, label in (("test_accuracy", "test"), ("default", "validation")):
            if final.values(metric):
                groups[f"{final.entry['trial']} {label}"] = final.values(metric)
    return groups


def final_text(finals: list[Final]) -> str:
    """The figures of --retrain as JSON; "" without any."""
    found = [
        {
            "trial": final.entry["trial"],
            "parameters": final.entry["parameters"],
            "search": final.entry["result"]["default"],
            "selection_bias": final.bias and final.bias[0],
            "selection_bias_if_all_luck_is_samples": final.bias and final.bias[1],
            "validation": final.summary("default"),
            "test": final.summary("test_accuracy"),
            "test_by_split": final.by_split("test_accuracy"),
            "confusion": final.confusion and final.confusion[0],
        }
        for final in finals
    ]
    return json.dumps(found, indent=1) + "\n" if found else ""


def front(search: Search) -> Section:
    """The Pareto front of a search with several objectives."""
    if not (found := search.front):
        return Section("")
    names = [name for name, _ in search.objectives]
    rows = [["trial", *map(labelled, names)]]
    rows += [[entry["trial"], *(entry["result"][name] for name in names)] for entry in found[:FRONT]]
    more = f", the first {FRONT} below" if len(found) > FRONT else ""
    said = f"{amount(len(found), 'trial')} that nothing betters in all of {', '.join(map(labelled, names))}{more}."
    return Section("Pareto front", [said], [Picture("pareto", "Front", lambda: draw.pareto(search))], rows, wide=False)


def parallel(search: Search) -> Section:
    """Parallel coordinates."""
    if len(search.scored) < 2 or not search.searched:
        return Section("")
    caption = "A line is a trial, the thick one the best; lines pass by parameters that were not active."
    if len(search.scored) > MOST_LINES:
        half = MOST_LINES // 2
        caption += f" Of {len(search.scored)} trials the best {half} and {half} others, drawn by chance."
    picture = Picture("parallel", "Parallel coordinates", lambda: draw_parallel(search), caption)
    return Section("All hyperparameters at once", pictures=[picture], wide=False, tall=True)


def reckoned(search: Search, step) -> tuple[list[Importance], str]:
    """Return the importances, or why there are none: whatever Optuna stumbles on shall not cost the report."""
    try:
        return importances(search, step), ""
    except Exception as error:
        return [], f"Optuna could not tell: {type(error).__name__}: {error}"


def importance(search: Search, found: list[Importance], trouble: str) -> Section:
    """What matters, and how that was reckoned."""
    title = "Which hyperparameters matter"
    if not search.searched or not search.scored:
        return Section("")
    if not found:
        reason = f"All have the same {search.value_name}."
        if len(search.scored) < LEAST:
            reason = f"Fewer than {LEAST} trials with a score cannot tell."
        return Section(title, [trouble or reason], wide=False)
    pictures = []
    for number, item in enumerate(found):
        heading = f"Importance among {item.among}" if item.among else "Importance"
        caption = f"{item.method}{'; ' + item.note if item.note else ''}."
        if item.foretold is not None:
            caption += f" A forest foretells {max(0, item.foretold):.0%} of the variation of trials it has not seen."
        drawn = Picture(f"importance{number or ''}", heading, lambda item=item: draw.importance_bars(item), caption)
        pictures.append(drawn)
    said = f"Parts of the variation of the {search.value_name}{beyond_limits(search)}. A bar is the median of {RUNS} "
    said += "runs, a dot a run."
    return Section(title, [said], pictures, wide=False)


def beyond_limits(search: Search) -> str:
    """A remark where there are limits, which importances and slices do not heed."""
    return ", of trials within the limits and beyond them" if search.aim.limits else ""


def parameters(search: Search) -> Section:
    """Slice and histogram of each parameter."""
    if not search.scored:
        return Section("")
    pictures = [
        Picture(
            f"parameter_{file_name(parameter.name)}",
            parameter.name,
            lambda parameter=parameter: draw.slice_and_histogram(search, parameter),
            parameter.meaning[:1].upper() + parameter.meaning[1:] + ("." if parameter.meaning else ""),
        )
        for parameter in search.searched
    ]
    said = f"The {search.value_name} against each value{beyond_limits(search)}, the best with a star; below, how often "
    said += "each value was tried, the best's bar in red."
    return Section("Each hyperparameter", [said] if pictures else [], pictures, small=True)


def accuracies(search: Search) -> Section:
    """Training, validation and test accuracy per trial."""
    if not any(name in entry["result"] for entry in search.scored for name in ("train_accuracy", "test_accuracy")):
        return Section("")
    said = "To look at, not to choose by: who picks a trial by its test accuracy has no test accuracy left."
    picture = Picture("accuracies", "Each trial's accuracies", lambda: draw.train_validation_test(search))
    return Section("Training, validation, test", [said], [picture], wide=False)


def curves(search: Search) -> Section:
    """Learning curves of the best trials."""
    if not (found := search.curves()):
        return Section("")
    trained = any("train_accuracy" in epoch for _, curve in found for epoch in curve)
    caption = "Full lines: validation. Dashed lines: training." if trained else "On validation."
    picture = Picture("curves", "Accuracy after each epoch", lambda: draw.learning_curves(search, found), caption)
    return Section("Learning curves of the best trials", pictures=[picture], wide=False)


def ends(search: Search) -> Section:
    """Failed and stopped trials by cause."""
    found = causes(search)
    if not found:
        return Section("")
    picture = Picture("causes", "By cause", lambda: draw.cause_bars(search), "Numbers in a cause are left out.")
    total = sum(number for _, number in found)
    return Section(
        "Failed and stopped trials", [f"{amount(total, 'trial')} did not run to the end."], [picture], wide=False
    )


def following(findings: Findings) -> Section:
    """What to search next."""
    said = list(findings.following)
    if findings.space:
        said.append("A search space that follows from this (report/next_space.json), to be read before it is used:")
    return Section("What to search next", said, code=space_text(findings.space), listed=True)
