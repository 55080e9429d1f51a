"""The report: figures against counts by hand, journals that are not whole, and the page in a browser."""

import errno
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import report_hpo
from benchmarks.report import write_journal
from reports import compare, draw, importance, sections
from reports.final import Final, read_finals
from reports.findings import causes, find, find_edges, separation
from reports.importance import importances, make_study
from reports.interval import accuracy, estimate
from reports.page import Picture, Section, write_page
from reports.parallel import parallel
from reports.parameters import Parameter, beyond
from reports.read import labelled, read_search
from runner.records import write_record
from runner.results import Results
from setup_hpo import VALIDATION_FRACTION, stratified
from tests.conftest import WRONG_LINES, patient

ROOT = Path(__file__).parent.parent
SPACE = {
    "lr": {"_type": "loguniform", "_value": [0.001, 0.1]},
    "neurons": {"_type": "choice", "_value": [50, 100, 200]},
}


def entry(number, score=None, status="ok", cause=None, parameters=None, **metrics):
    result = metrics | ({} if score is None else {"default": score})
    return {
        "trial": f"t{number}",
        "parameter_id": number,
        "sequence": number,
        "parameters": parameters or {"lr": 0.01, "neurons": 100},
        "status": status,
        "cause": cause,
        "result": result,
        "seeds": {"seed": 0, "split_seed": 0, "test_seed": 0, "repeats": 1},
        "repeats": [],
        "wall_seconds": 10.0,
    }


def experiment(folder, entries, space=SPACE, tail="", **facts):
    folder.mkdir(exist_ok=True)
    (folder / "search.json").write_text(json.dumps({"task": "", "space": space} | facts))
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in entries) + tail)
    return folder


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["report_hpo.py", *map(str, words)])
    try:
        status = report_hpo.main()
    except SystemExit as left:
        status = left.code
    return status, capsys.readouterr()


# Figures by hand


def test_importance_of_a_planted_parameter(tmp_path):
    """The score is the logarithm of lr and nothing else."""
    drawn = [(0.001 * 100 ** ((7 * k % 60) / 59), (50, 100, 200)[k % 3]) for k in range(60)]
    entries = [
        entry(k, math.log10(lr) / 2 + 1.5, parameters={"lr": lr, "neurons": n}) for k, (lr, n) in enumerate(drawn)
    ]
    search = read_search(experiment(tmp_path, entries))
    (found,) = importances(search)
    assert found.order[0] == "lr" and found.median("lr") > 0.95 and len(found.shares["lr"]) == 3
    assert "all 60 trials" in found.method and found.foretold > 0.9
    assert "lr matters most" in " ".join(find(search, [found]).following)


def test_importances_of_noise_are_called_so(tmp_path):
    rng = random.Random(1)
    entries = [entry(k, rng.random(), parameters={"lr": 0.001 * 100 ** rng.random(), "neurons": 50}) for k in range(60)]
    search = read_search(experiment(tmp_path, entries))
    found = importances(search)
    assert found[0].foretold < 0.1 and "may be chance" in " ".join(find(search, found).following)


def test_beyond_so_many_trials_a_sample_and_ped_anova(tmp_path, monkeypatch):
    assert importance.DRAWN == 500
    monkeypatch.setattr(importance, "DRAWN", 100)
    write_journal(tmp_path, "streamnet_digits", 160)
    found = importances(read_search(tmp_path))
    assert [item.method.split()[0] for item in found] == ["fANOVA", "PED-ANOVA"]
    assert "fANOVA on 100 of 1" in found[0].method
    assert [item.order[0] for item in found] == ["tau_out"] * 2, "by which the scores were made up"


def test_nested_parameters_count_where_they_are_active(tmp_path):
    stdp = {"_name": "stdp", "a_plus": {"_type": "uniform", "_value": [0, 1]}}
    space = {"rule": {"_type": "choice", "_value": [stdp, {"_name": "mse"}]}}
    entries = [entry(k, k / 40, parameters={"rule": "stdp", "a_plus": k / 40}) for k in range(40)]
    entries += [entry(k, 0.5 + k % 3 / 100, parameters={"rule": "mse"}) for k in range(40, 60)]
    entries += [entry(60, status="failed", parameters={"rule": "mse"})]
    search = read_search(experiment(tmp_path, entries, space))
    study = make_study(search)
    assert [trial.state.name for trial in study.trials].count("FAIL") == 1
    assert study.trials[0].params == {"rule": "stdp", "a_plus": 0.0} and study.trials[59].params == {"rule": "mse"}
    found = {item.among: item for item in importances(search)}
    assert found["rule = stdp"].order == ["a_plus"] and found[""].order == ["rule"]
    assert find(search, list(found.values())).space == {}, "a nested space is not rewritten"


@pytest.mark.parametrize(
    "parameter, value, edge",
    [
        (Parameter("lr", 0.001, 0.1, log=True), 0.09, "upper"),  # log10(90) / 2 = 0.977 of the way
        (Parameter("lr", 0.001, 0.1, log=True), 0.01, ""),
        (Parameter("tau", 0.0, 100.0), 5.0, "lower"),
        (Parameter("tau", 0.0, 100.0), 5.1, ""),
        (Parameter("neurons", choices=(200, 50, 100)), 200, "upper"),  # the order is that of the numbers
        (Parameter("neurons", choices=(50, 200)), 200, ""),  # one of two
        (Parameter("reset", choices=("zero", "none", "subtract")), "subtract", ""),
        (Parameter("lr", 0.001, 0.1, known=False), 0.1, ""),  # a range that the trials themselves made
    ],
)
def test_edges_by_hand(parameter, value, edge):
    assert parameter.edge(value) == edge


def test_what_lies_beyond_an_edge_by_hand():
    assert beyond(Parameter("tau", 10.0, 20.0), "upper") == [25, 22.5, 21]
    assert beyond(Parameter("lr", 0.001, 0.1, log=True), "upper")[0] == 1  # half of two decades
    assert beyond(Parameter("n", choices=(50, 100, 200)), "upper") == [300]
    assert beyond(Parameter("lr", choices=(0.1, 0.01, 0.001)), "lower") == [0.0001]
    assert beyond(Parameter("f", choices=(3, 7, 9)), "lower") == [2]  # 3 - 4 is below 0: half of 3, rounded
    assert beyond(Parameter("a", 0.5, 1.0), "lower") == [0.25, 0.375, 0.45, 0.25]


def test_edge_sentence_and_next_space(tmp_path):
    entries = [entry(k, 0.5 + k / 100, parameters={"lr": 0.002 * 1.07**k, "neurons": 200}) for k in range(30)]
    entries += [entry(30, 0.9, parameters={"lr": 0.099, "neurons": 100})]
    search = read_search(experiment(tmp_path, entries))
    (edge,) = find_edges(search)
    assert (edge.parameter.name, edge.side, edge.top) == ("lr", "upper", 1)
    assert edge.sentence(5) == (
        "lr = 0.099 is at the upper edge of its range, as in 1 of the best 5 trials: widen lr upwards, "
        "for example to 1."
    )
    found = find(search, [])
    assert found.space["lr"] == {"_type": "loguniform", "_value": [0.001, 1.0]}
    assert found.space["neurons"] == SPACE["neurons"]


def test_an_edge_that_the_objective_refuses_to_pass(tmp_path):
    space = {
        "w_limit": {"_type": "uniform", "_value": [0.1, 2]},
        "trace_pre": {"_type": "uniform", "_value": [0.05, 1]},
    }
    entries = [entry(k, k / 10, parameters={"w_limit": 0.2 * k, "trace_pre": 0.1 * k}) for k in range(1, 11)]
    search = read_search(experiment(tmp_path, entries, space, task="streamnet_digits"))
    sentences = {edge.parameter.name: edge.sentence(5) for edge in find_edges(search)}
    assert "widen w_limit upwards, for example to 2.95" in sentences["w_limit"]
    assert "cannot go further (trace_pre" in sentences["trace_pre"]
    assert search.parameters[0].unit == "" and "weights stay within" in search.parameters[0].meaning


def test_counts_by_cause_and_what_was_wasted(tmp_path):
    entries = [entry(k, 0.9, parameters={"lr": 0.05, "neurons": 100}) for k in range(4)]
    entries += [entry(k, 0.1, "silent", parameters={"lr": 0.002, "neurons": 100}) for k in range(4, 7)]
    entries += [entry(7, status="failed", cause="ValueError: batch 17 is empty")]
    entries += [entry(8, status="failed", cause="ValueError: batch 4 is empty")]
    entries += [entry(9, status="timed_out", cause="ran longer than --trial-duration")]
    search = read_search(experiment(tmp_path, entries))
    assert causes(search) == [
        ("failed: ValueError: batch … is empty", 2),
        ("timed_out: ran longer than --trial-duration", 1),
    ]
    silent, failed = find(search, []).wasted
    assert silent.startswith("3 of 10 trials (30%, 30 s) went to silent nets") and "lr is low (median 0.002" in silent
    assert failed.startswith("3 trials (30 s) ended without a score; most often (2): failed: ValueError")
    assert separation([3, 4], [1, 3]) == (0.5 + 1 + 1 + 1) / 4


def test_pareto_front_by_hand(tmp_path):
    points = [(0.9, 10), (0.8, 5), (0.8, 4), (0.7, 8), (0.95, 30), (0.9, 10)]  # accuracy up, energy down
    entries = [entry(k, score, energy_nj=energy) for k, (score, energy) in enumerate(points)]
    entries.append(entry(9, 1.0))  # has no energy
    search = read_search(experiment(tmp_path / "e", entries, objectives="default:max,energy_nj:min"))
    assert [line["trial"] for line in search.front] == ["t4", "t0", "t5", "t2"]


AIMED = [(0.9, 300), (0.8, 50), (0.7, 40), (0.95, 500), (0.8, 90)]  # accuracy, energy


@pytest.mark.parametrize(
    ("facts", "ranking"),
    [
        ({}, ["t3", "t0", "t1", "t4", "t2"]),
        ({"objectives": [["energy_nj", "min"], ["default", "max"]]}, ["t2", "t1", "t4", "t0", "t3"]),
        ({"objectives": [["energy_nj", "min"]]}, ["t2", "t1", "t4", "t0", "t3"]),
        ({"objectives": "default:max,energy_nj:max"}, ["t3", "t0", "t4", "t1", "t2"]),  # of 0.8 twice: 90, then 50
        ({"limit": [["energy_nj", "<", 100.0]]}, ["t1", "t4", "t2", "t3", "t0"]),
        ({"limit": [["energy_nj", "<", 10.0]]}, ["t3", "t0", "t1", "t4", "t2"]),
        ({"objectives": "energy_nj:max", "limit": [["energy_nj", "<", 100.0]]}, ["t4", "t1", "t2", "t3", "t0"]),
    ],
)
def test_the_ranking_is_the_searchs_own(tmp_path, facts, ranking):
    """Within the limits first, then by the objectives in turn: as best.json has it (runner.results.Results)."""
    entries = [entry(k, score, energy_nj=energy) for k, (score, energy) in enumerate(AIMED)]
    search = read_search(experiment(tmp_path / "e", entries, **facts))
    assert [line["trial"] for line in search.ranking] == ranking
    results = Results(tmp_path / "e", lambda parameters: "", search.aim)
    assert [line["trial"] for line in results.ranking()] == ranking
    text = " ".join(find(search, []).best)
    assert f"The best is trial {ranking[0]}" in text
    assert ("ranked by energy_nj" in text) == (search.aim.objectives[0][0] == "energy_nj")
    assert ("energy_nj <" in text) == ("limit" in facts)
    assert draw.best_so_far(search)[0][-1] == 1 + int(ranking[0][1:])


def test_what_matters_is_asked_of_the_searchs_own_objective(tmp_path, monkeypatch):
    """The score comes from neurons, the energy from lr; a search for little energy asks for the second."""
    monkeypatch.setattr(importance, "DRAWN", 40)
    monkeypatch.setattr(importance, "RUNS", 1)
    drawn = [(0.001 * 100 ** ((7 * k % 60) / 59), (50, 100, 200)[k % 3]) for k in range(60)]
    entries = [
        entry(k, n / 200, parameters={"lr": lr, "neurons": n}, energy_nj=1e4 * lr) for k, (lr, n) in enumerate(drawn)
    ]
    facts = {"objectives": "energy_nj:min,default:max", "limit": [["default", ">", 0.1]]}
    search = read_search(experiment(tmp_path / "e", entries, **facts))
    found = importances(search)
    assert [item.order[0] for item in found] == ["lr", "lr"], "fANOVA and PED-ANOVA"
    assert "lr matters most" in (text := " ".join(find(search, found).following)) and "of the energy [nJ])" in text
    figures = draw.progress(search), draw.slice_and_histogram(search, search.parameters[0])
    assert [figure.axes[0].get_ylabel() for figure in figures] == ["energy [nJ]"] * 2
    best = figures[1].axes[0].lines[0].get_xydata()
    assert best.tolist() == [pytest.approx([0.001, 10.0])], "the star is at the least energy"
    said = sections.importance(search, found, "").sentences[0]
    assert "variation of the energy [nJ], of trials within the limits and beyond them" in said
    texts = [text.get_text() for text in parallel(search).axes[0].texts]
    assert texts[texts.index("energy [nJ]") + 1 :] == ["10", "1000"]


def test_the_least_energies_are_not_cut_off_where_they_are_the_best(tmp_path):
    entries = [entry(k, 0.9, energy_nj=energy) for k, energy in enumerate([17.0, 21.0, *range(900, 960)])]
    entries[-1]["result"]["energy_nj"] = None  # a metric that the trial could not find
    search = read_search(experiment(tmp_path / "e", entries, objectives="default:max,energy_nj:min"))
    texts = [text.get_text() for text in parallel(search).axes[0].texts]
    assert texts[texts.index("energy [nJ]") + 1 :] == ["17", "958"]


def test_metrics_have_their_units():
    labels = {"energy_nj": "energy [nJ]", "energy_nj_cmos_45nm": "energy cmos 45nm [nJ]", "rate_hz": "rate [Hz]"}
    labels |= {"footprint_bytes": "footprint [bytes]", "seconds": "seconds [s]", "default": "validation accuracy"}
    assert {name: labelled(name) for name in labels} == labels


def test_a_dollar_is_no_formula(tmp_path):
    space = {"text": {"_type": "choice", "_value": ["$x0", "$\\nothing$", "$"]}}
    entries = [entry(k, k / 9, parameters={"text": space["text"]["_value"][k % 3]}) for k in range(6)]
    search = read_search(experiment(tmp_path / "e", [*entries, entry(6, status="failed", cause="$^$")], space))
    for figure in (draw.slice_and_histogram(search, search.parameters[0]), draw.cause_bars(search)):
        figure.savefig(tmp_path / "it.png")


def test_a_front_keeps_the_limits(tmp_path):
    entries = [entry(k, score, energy_nj=energy) for k, (score, energy) in enumerate(AIMED)]
    facts = {"objectives": "default:max,energy_nj:min", "limit": [["default", ">", 0.75]]}
    search = read_search(experiment(tmp_path / "e", [*entries, entry(9, 1.0)], **facts))  # the last has no energy
    assert [line["trial"] for line in search.front] == ["t3", "t0", "t1"]
    assert search.ranking[0]["trial"] == "t3" and search.ranking[-1]["trial"] == "t9"


def record(split, seed, validation, test, confusion=None):
    result = {"default": validation, "test_accuracy": test}
    return {
        "status": "ok",
        "result": result,
        "parameters": {},
        "seeds": {"split_seed": split, "seed": seed, "test_seed": 0},
        "confusion": confusion,
        "class_names": ["a", "b"],
    }


def test_retrained_figures_by_hand(tmp_path):
    final = Final(
        entry(0, 0.95),
        [
            record(0, 0, 0.95, 0.90, [[2, 0], [1, 1]]),
            record(0, 1, 0.93, 0.92, [[1, 1], [0, 2]]),
            record(1, 0, 0.90, 0.86),
            record(1, 1, 0.92, 0.88),
        ],
    )
    assert final.bias == pytest.approx((0.04, 0.04 * 9 / 7)), "split 0 is the search's own; 2 in 9 samples are shared"
    assert final.by_split("test_accuracy") == pytest.approx({0: 0.91, 1: 0.87})
    assert final.confusion == ([[3, 1], [1, 3]], ["a", "b"]) and final.tested == 4
    summary = final.summary("test_accuracy")
    assert (summary["median"], summary["mean"]) == pytest.approx((0.89, 0.89))
    assert "low" not in summary, "these records do not tell which samples were right"


def test_how_much_of_a_searchs_luck_other_splits_keep():
    """160 equal classifiers, right on .93 of all samples: the best on the search's validation part was lucky there."""
    y, found = np.arange(926) % 7, []
    parts = [stratified(y, VALIDATION_FRACTION, split)[0] for split in range(10)]
    for seed in range(200):
        right = np.random.default_rng(seed).random((160, 926)) < 0.93
        best = right[right[:, parts[0]].mean(1).argmax()]
        records = [record(split, 0, best[part].mean(), 0.93) for split, part in enumerate(parts)]
        final = Final(entry(0, records[0]["result"]["default"]), records)
        found.append((final.bias[0], final.bias[1], final.entry["result"]["default"] - 0.93))
    seen, most, true = np.mean(found, axis=0)
    assert true > 0.04 and seen / true == pytest.approx(7 / 9, abs=0.02) and most == pytest.approx(true, abs=0.001)


# Searches that are not whole


def test_full_disk_gets_one_line(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("reports.page.write_atomic", full)
    monkeypatch.setattr("reports.page._figure", lambda *_: "")  # which would take long
    status, said = run(monkeypatch, capsys, experiment(tmp_path, [entry(0, 0.5)]))
    assert status == 1 and "No space left on device" in said.err and len(said.err.strip().splitlines()) == 1


def test_hostile_texts_and_lines_of_a_wrong_form(tmp_path):
    evil = "\ud800\x1b]0;owned\x07<script>"
    entries = [entry(0, 0.5), entry(1, status="failed", cause=evil), entry(2, True), entry(3, 10**400)]
    search = read_search(experiment(tmp_path, [*entries, entry(4, 0.4, **{evil: 1.0})], tail=WRONG_LINES))
    assert [item["trial"] for item in search.scored] == ["t0", "t4"] and search.torn == 4
    said = find(search, [])
    page = write_page(tmp_path, evil, evil, [Section("All", said.trials + said.wasted, table=[[evil], [evil]])])
    text = page.read_text()
    assert "<script>" not in text and "\x1b" not in text and r"\ud800\x1b]0;owned\x07&lt;script&gt;" in text


def test_a_folder_without_an_experiment_and_an_empty_journal(tmp_path, monkeypatch, capsys):
    for words, message in (
        ([tmp_path], "has no journal.jsonl"),
        ([tmp_path / "nothing"], "no experiment"),
        ([experiment(tmp_path / "empty", [])], "no trial has ended yet"),
        ([], "give one experiment, or --compare with two or more"),
        (["--compare", "a"], "two or more different experiments"),
        (["a", "--top", "5"], "give --retrain, too"),
        (["a", "--out", "b"], "give --compare, too"),
        ([experiment(tmp_path / "bad", [entry(0, status="failed")]), "--retrain"], "nothing to train again"),
        ([experiment(tmp_path / "lost", [entry(0, 0.8)], task="eprop_digits"), "--retrain"], "best.json is needed"),
    ):
        status, said = run(monkeypatch, capsys, *words)
        assert status == 2 and message in said.err and len(said.err.strip().splitlines()) == 1, said.err
    assert not (tmp_path / "empty" / "report").exists()


@pytest.mark.parametrize(
    "entries, tail, expected",
    [
        ([entry(0, 0.8)], "", ["1 trial: 1 ok", "1 trial with a score say little"]),
        ([entry(0, status="failed", cause="KeyError: 'x'")] * 2, "", ["No trial has a score", "By cause"]),
        ([entry(0, 0.8), entry(1, 0.9)], '{"trial": "t2", "param', ["2 trials: 2 ok", "1 line of the journal"]),
        ([entry(0, 0.8) | {"parameters": {"lr": "?"}}, entry(1, float("nan")), entry(2, 0.7)], "", ["3 trials"]),
    ],
    ids=["one trial", "only failed ones", "cut in a line", "odd values"],
)
def test_searches_that_are_not_whole(entries, tail, expected, tmp_path, monkeypatch, capsys):
    folder = experiment(tmp_path / "it", entries, tail=tail)
    status, said = run(monkeypatch, capsys, folder)
    page = (folder / "report" / "index.html").read_text()
    assert status == 0 and said.out.strip() == str(folder / "report" / "index.html")
    assert all(text in page.replace("&#x27;", "'") for text in expected) and "could not be drawn" not in page


def test_a_running_search_says_so(tmp_path):
    folder = experiment(tmp_path, [entry(0, 0.8)])
    event = {"event": "start", "parameters": {}, "time": 5.0}
    events = [event | {"trial": f"t{number}", "sequence": number, "parameter_id": number} for number in range(3)]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "sta')
    search = read_search(folder)
    assert search.running == 2 and "2 further trials started and did not end" in find(search, []).trials[1]


def test_a_picture_that_fails_costs_only_itself(tmp_path):
    section = Section("Part", pictures=[Picture("broken", "Broken", lambda: 1 / 0)], code="<b>")
    page = write_page(tmp_path, "A & B", "", [section, Section("")]).read_text()
    assert "could not be drawn (ZeroDivisionError" in page and "A &amp; B" in page and "&lt;b&gt;" in page


def test_bad_scores_do_not_flatten_the_axis():
    assert draw.lowest_shown([0.1, *[0.9 + k / 1000 for k in range(50)]]) > 0.89
    assert draw.lowest_shown([0.1, 0.2, 0.5, 0.7, 0.9]) == 0.1 and draw.lowest_shown([0.5]) == 0.5


# Training again, comparing


def retrained(folder, values):
    for split, (validation, test) in enumerate(values):
        number, right = round(100 * test), np.arange(100) < round(100 * test)
        kept = record(split, 0, validation, test, [[number, 100 - number], [0, 0]])
        kept["right"] = np.packbits(right).tobytes().hex()
        write_record(folder / "retrained" / "t0" / f"split-{split}-seed-0", kept, None)


def test_comparison(tmp_path, monkeypatch, capsys):
    tests = {"one": [0.9, 0.8, 0.85], "two": [0.88, 0.75, 0.86], "other": [0.5, 0.6, 0.7]}
    for name, values in tests.items():
        task = "eprop_braille" if name == "other" else "eprop_digits"
        experiment(tmp_path / name, [entry(0, 0.9), entry(1, 0.7)], task=task, tuner=f"{name}-tuner")
        retrained(tmp_path / name, [(value, value) for value in values])
    status, said = run(monkeypatch, capsys, "--experiments", tmp_path, "--compare", *tests)
    page = Path(said.out.strip()).read_text()
    rights = [np.stack([np.arange(100) < round(100 * value) for value in tests[name]]) * 1.0 for name in ("one", "two")]
    found = estimate(rights[0] - rights[1])
    assert status == 0 and found.mean == pytest.approx(statistics.fmean([0.02, 0.05, -0.01]))
    said = (
        f"one minus two, test accuracy on 3 splits: {found.mean:+.4f} (95 % from {found.low:+.4f} to {found.high:+.4f}"
    )
    assert said in page
    assert "one and other cannot be tested against each other: their data differ (digits, braille)" in page
    assert "two-tuner" in page and "could not be drawn" not in page
    searches = {name: read_search(tmp_path / name) for name in ("one", "two")}
    finals = {name: read_finals(search)[0] for name, search in searches.items()}
    low, high = accuracy(rights[0])
    summary = finals["one"].summary("test_accuracy")
    assert (summary["low"], summary["high"], finals["one"].summary("default").get("low")) == (low, high, None)
    finals["one"].records[0]["confusion"], finals["two"].records[0]["confusion"] = [[3, 0], [0, 3]], [[3, 0], [0, 4]]
    assert "test parts differ (6 and 7 samples)" in compare.incomparable(*searches.values(), *finals.values())
    finals = {name: read_finals(search)[0] for name, search in searches.items()}
    finals["two"].records = finals["two"].records[1:2]
    assert "fewer than two splits" in compare.incomparable(*searches.values(), *finals.values())
    finals = {name: read_finals(search)[0] for name, search in searches.items()}
    finals["two"].records[0]["right"] = None  # as an older version left it
    assert "+0.0200; their records do not tell" in compare._difference(searches, finals, "one", "two")


@pytest.mark.slow
def test_retrain_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    parameters = {"network": "shallow", "steps": 4, "samples": 300}
    folder = experiment(tmp_path / "it", [entry(0, 0.8, parameters=parameters)], task="streamnet_digits")
    command = (
        "python main_hpo.py --task streamnet_digits --seed 0 --split-seed 5 --test-seed 0 --repeats 2 --device cpu"
    )
    (folder / "best.json").write_text(json.dumps({"command": f"{command} --params {{}} --out repeated"}))
    words = [folder, "--retrain", "--splits", "2", "--seeds", "1"]
    status, said = run(monkeypatch, capsys, *words)
    assert (
        status == 0 and "Selection bias: the search gave this configuration a validation accuracy of 0.8000" in said.out
    )
    first = (folder / "report" / "final.json").read_text()
    (final,) = json.loads(first)
    assert final["test"]["trainings"] == 2 and sum(map(sum, final["confusion"])) == 2 * 359
    shutil.rmtree(folder / "retrained" / "t0" / "split-1-seed-1")  # as if it had been killed there
    kept = (folder / "retrained" / "t0" / "split-0-seed-0" / "record.json").stat().st_mtime_ns
    assert run(monkeypatch, capsys, *words)[0] == 0
    assert (folder / "report" / "final.json").read_text() == first
    assert (folder / "retrained" / "t0" / "split-0-seed-0" / "record.json").stat().st_mtime_ns == kept


# TensorBoard


def test_tensorboard_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    import importlib.util

    from runner.flags import UserMistake
    from runner.tensorboard import tensorboard_log

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserMistake, match="--tensorboard needs the package tensorboard: pip install tensorboard"):
        tensorboard_log(tmp_path)


@pytest.mark.slow
def test_tensorboard_gets_each_epoch(tmp_path):
    pytest.importorskip("tensorboard", reason="no tensorboard: its logs are not read")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    params = json.dumps({"epochs": 2, "neurons": 10, "steps_per_row": 2})
    words = [sys.executable, "main_hpo.py", "--task", "eprop_digits", "--params", params, "--tensorboard"]
    subprocess.run([*words, "--out", tmp_path], cwd=ROOT, check=True, capture_output=True, timeout=patient(120))
    logged = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curve = json.loads((tmp_path / "record.json").read_text())["curve"]
    assert [event.step for event in logged.Scalars("default")] == [1, 2]
    assert [event.value for event in logged.Scalars("loss")] == pytest.approx([epoch["loss"] for epoch in curve])


# The page


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromedriver: the page is not opened in a browser")
def test_page_in_a_browser(tmp_path, monkeypatch, capsys):
    from selenium.webdriver.common.by import By

    from tests.test_web_ui import browser

    write_journal(tmp_path / "made_up", "streamnet_digits", 60)
    facts = json.loads((tmp_path / "made_up" / "search.json").read_text())
    space = {name: facts["space"][name] for name in ("network", "steps", "tau_out", "lr")}
    facts |= {"space": space, "objectives": "default:max,energy_nj:min"}
    (tmp_path / "made_up" / "search.json").write_text(json.dumps(facts))
    retrained(tmp_path / "made_up", [(0.9, 0.8), (0.8, 0.85)])
    assert run(monkeypatch, capsys, tmp_path / "made_up")[0] == 0
    page = browser()
    try:
        for width in (390, 1366):
            screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            page.get(f"file://{tmp_path}/made_up/report/index.html")
            widths = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
            assert widths[0] <= widths[1], "it overflows to the right"
            assert page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
            loaded = page.execute_script("return [...document.images].map(i => i.naturalWidth)")
            assert len(loaded) > 6 and min(loaded) > 0
        headings = [heading.text for heading in page.find_elements(By.TAG_NAME, "h2")]
        assert {"Pareto front", "Which hyperparameters matter", "What to search next"} <= set(headings)
    finally:
        page.quit()
    names = {path.name for path in (tmp_path / "made_up" / "report").iterdir()}
    assert {"progress.png", "progress.pdf", "parallel.pdf", "pareto.png", "parameter_lr.pdf"} <= names
