"""Journal, table and best: what counts, what is kept, and that a torn line or a second copy changes nothing."""

import hashlib
import json
import math
import shutil

import pytest

from runner import manager, resume
from runner.records import append_line, outcome, read_journal, remove_temporaries, write_atomic
from runner.results import Results
from runner.texts import clean, harmless, printable
from tests.conftest import journal_line as line
from tuners.aim import Aim


def finish(results, number, default=None, status="ok", weights=b"w", spikes=3, **end):
    """Let trial t<number> leave a record (unless status is None) and end."""
    folder = results.folder / "environments" / "local-env" / "trials" / f"t{number}"
    folder.mkdir(parents=True)
    if status is not None:
        result = {} if default is None else {"default": default, "spikes": spikes}
        record = {"parameters": {"lr": number}, "status": status, "cause": None, "result": result, "seeds": {"seed": 0}}
        (folder / "record.json").write_text(json.dumps(record))
        if weights is not None:
            (folder / "model.pt").write_bytes(weights)
    start = {"trial": f"t{number}", "parameter_id": number, "sequence": number, "parameters": {"lr": -1}, "time": 10.0}
    return results.add(start, {"time": 12.5, "exit_code": 0, "cause": None, **end})


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path, lambda parameters: f"repeat {parameters}")


@pytest.mark.parametrize(
    "end, record, expected",
    [
        ({"exit_code": 0}, {"status": "ok", "result": {"default": 0.5}}, "ok"),
        ({"exit_code": 0}, {"status": "silent", "result": {"default": 0}}, "silent"),
        ({"exit_code": 0}, {"status": "ok"}, "failed"),
        *(
            ({"exit_code": 0}, {"status": "ok", "result": {"default": wrong}}, "failed")
            for wrong in (True, "0.5", None, [1], math.nan, -math.inf, 10**400)
        ),
        ({"exit_code": 0}, None, "failed"),
        ({"exit_code": 0, "final": True}, None, "lost"),
        ({"exit_code": 1}, {"status": "failed", "cause": "ValueError: x"}, "failed"),
        ({"exit_code": 3}, None, "failed"),
        ({"exit_code": 1, "cause": "stopping"}, {"status": "failed", "cause": "ConnectionError: x"}, "interrupted"),
        (None, {"status": "ok", "cause": None, "result": {"default": 1}}, "ok"),
        ({"exit_code": None, "signal": "SIGKILL"}, None, "killed"),
        ({"exit_code": None, "cause": "user"}, {"status": "interrupted", "result": {"default": 0.5}}, "killed"),
        (
            {"exit_code": None, "cause": "early_stopped"},
            {"status": "interrupted", "result": {"default": 0.5}},
            "early_stopped",
        ),
        ({"exit_code": None, "cause": "early_stopped"}, {"status": "interrupted", "result": {}}, "failed"),
        ({"exit_code": None, "cause": "timed_out"}, {"status": "interrupted", "result": {"default": 0.5}}, "timed_out"),
        ({"exit_code": None, "cause": "timed_out"}, {"status": "ok", "result": {"default": 0.5}}, "ok"),
        ({"exit_code": None, "cause": "stopping"}, {"status": "interrupted"}, "interrupted"),
        (None, None, "interrupted"),
        # it was running when its time was over: what it raised then, in the middle of an import, is no other fault
        ({"exit_code": 1, "cause": "timed_out"}, {"status": "failed", "cause": "ImportError: x"}, "timed_out"),
        ({"exit_code": 1, "cause": "user"}, {"status": "failed", "cause": "ImportError: x"}, "killed"),
    ],
)
def test_status_of_a_trial(end, record, expected):
    status, cause = outcome(end, record)
    assert status == expected
    assert (cause is None) == (expected in ("ok", "silent"))


def test_only_trials_that_count_carry_default(results):
    entry = finish(results, 0, 0.9, status="interrupted", cause="timed_out")
    assert entry["status"] == "timed_out" and "default" not in entry["result"]
    assert finish(results, 1, 0.4, status="interrupted", cause="early_stopped")["result"]["default"] == 0.4
    assert [entry["trial"] for entry in results.ranking()] == ["t1"]


def test_parameters_are_those_that_the_trial_ran_with(results):
    finish(results, 3, 0.5)
    assert results.entries[0]["parameters"] == {"lr": 3}  # NNI's table said -1


def test_trial_without_a_record_gets_what_the_manager_held_for_it(results):
    assert finish(results, 4, status=None)["parameters"] == {"lr": -1}


def test_best_and_its_weights(results):
    for number, default in enumerate([0.5, 0.9, 0.7, 0.9]):
        finish(results, number, default, weights=b"weights %d" % number)
    best = json.loads((results.folder / "best.json").read_text())
    assert (best["trial"], best["default"], best["parameters"]) == ("t1", 0.9, {"lr": 1})
    assert (results.folder / "best_model.pt").read_bytes() == b"weights 1"
    assert best["sha256"] == hashlib.sha256(b"weights 1").hexdigest()
    assert best["command"] == "repeat {'lr': 1}"


def test_the_best_of_several_objectives_is_dominated_by_no_other(tmp_path):
    aim = Aim([("default", "max"), ("spikes", "min")])
    results = Results(tmp_path, lambda parameters: "", aim)
    for number, spikes in enumerate([0.222, 0.152, 0.180, 0.152]):  # worse than the second: by spikes, by age
        finish(results, number, 0.95, spikes=spikes)
    finish(results, 4, 0.9, spikes=0.01)
    assert json.loads((tmp_path / "best.json").read_text())["trial"] == "t1" == results.front()[0]["trial"]


def test_weights_of_the_best_five_stay(results):
    for number, default in enumerate([0.1, 0.7, 0.2, 0.6, 0.5, 0.3, 0.4, 0.05]):
        finish(results, number, default)
    finish(results, 8, status="failed")
    left = {path.parent.name for path in results.folder.glob("environments/*/trials/*/model.pt")}
    assert left == {"t1", "t3", "t4", "t5", "t6"}


def test_table_has_a_row_for_each_trial(results):
    import pandas

    finish(results, 1, 0.5)
    finish(results, 0, status=None, exit_code=None, signal="SIGKILL")
    results.write_table()
    table = pandas.read_csv(results.folder / "results.csv")
    assert list(table["trial"]) == ["t0", "t1"]
    assert list(table["status"]) == ["killed", "ok"]
    assert table["cause"][0] == "ended by SIGKILL"
    assert list(table["wall_seconds"]) == [2.5, 2.5]
    assert {"default", "status", "cause", "lr", "spikes", "seed"} <= set(table.columns)


def test_best_trial_without_weights_leaves_no_others_beside_its_name(results):
    finish(results, 0, 0.5, weights=b"weights 0")
    finish(results, 1, 0.9, weights=None)
    assert not (results.folder / "best_model.pt").exists()
    assert json.loads((results.folder / "best.json").read_text())["sha256"] is None
    finish(results, 2, 0.95, weights=b"weights 2")
    shutil.rmtree(results.folder / "environments")  # to save space
    again = Results(results.folder, results.command)
    again.name_best()
    assert (results.folder / "best_model.pt").read_bytes() == b"weights 2"
    assert json.loads((results.folder / "best.json").read_text())["sha256"] is not None


def test_metric_with_a_parameters_name_keeps_both(results):
    entry = finish(results, 0, 0.5)
    entry["parameters"]["spikes"] = 7
    results.write_table()
    assert "spikes,metric_spikes" in (results.folder / "results.csv").read_text().splitlines()[0]


def test_empty_journal_gives_an_empty_table(results):
    results.write_table()
    assert (results.folder / "results.csv").read_text() == "trial,parameter_id,default,status,cause\n"


def test_torn_line_costs_only_itself(tmp_path):
    path = tmp_path / "journal.jsonl"
    append_line(path, line(0, cause="first"))
    with path.open("ab") as file:
        file.write(b'{"parameter_id": 1, "x"')  # the crash
    append_line(path, line(2))
    append_line(path, line(0, cause="second"))
    assert read_journal(path) == [line(0, cause="second"), line(2)]


WRONG = [
    b'{"parameter_id": 3}',
    b"[1]",
    b"null",
    b'"text"',
    b"[" * 100_000,
    b'{"event": "start"}',
    b'{"event": ["start"]}',
    b'\xff\xfe{"event": "start"}',
    b"9" * 5000,
    *(
        json.dumps(line(9) | wrong).encode()
        for wrong in (
            {"trial": "../../etc"},
            {"trial": 9},
            {"parameter_id": [9]},
            {"parameter_id": True},
            {"parameter_id": None},
            {"sequence": "9"},
            {"sequence": 10**400},
            {"parameters": [1]},
            {"status": "great"},
            {"status": ["ok"]},
            {"cause": 9},
            {"result": None},
            {"seeds": 0},
            {"wall_seconds": math.inf},
            {"wall_seconds": True},
        )
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong[:40])
def test_line_of_a_wrong_form_is_skipped_and_counted(tmp_path, wrong):
    start = {"event": "start", "trial": "t0", "sequence": 0, "parameter_id": 0, "parameters": {"lr": 1}, "time": 5.0}
    (tmp_path / "journal.jsonl").write_bytes(b"\n".join([json.dumps(line(0)).encode(), wrong, b"", b""]))
    (tmp_path / "events.jsonl").write_bytes(b"\n".join([wrong, json.dumps(start).encode(), wrong, b"{}", b""]))
    assert read_journal(tmp_path / "journal.jsonl") == [line(0)]
    assert resume.read_starts(tmp_path / "events.jsonl") == [start]
    assert manager.read_events(tmp_path / "events.jsonl", 0)[0] == [start]
    said = resume.skipped_lines(tmp_path)
    assert said == "1 line of journal.jsonl and 3 lines of events.jsonl cannot be read and are skipped"
    assert len(Results(tmp_path, None).entries) == 1 and resume.trials_of(tmp_path)[0] == [(start, line(0))]


@pytest.mark.parametrize("event", ["start", "end", "machine"])
def test_event_that_lacks_anything_is_skipped(tmp_path, event):
    whole = {
        "start": {"trial": "t0", "sequence": 0, "parameter_id": None, "parameters": {}, "time": 5.0},
        "end": {"trial": "t0", "time": 5.0, "exit_code": None, "signal": None, "cause": None},
        "machine": {"machine": "a", "state": "up", "reason": None, "time": 5.0},
    }[event] | {"event": event}
    for name in (None, *whole):
        path = tmp_path / "events.jsonl"
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}) + "\n")
        assert manager.read_events(path, 0)[0] == ([] if name else [json.loads(path.read_text())])


def test_texts_are_printable_and_short():
    assert printable("plain, ünïcödé — 漢字 🧠") == "plain, ünïcödé — 漢字 🧠"
    assert printable("a\ud800\x1b[31mb\x00\u202ec\u2028d\te\r\n") == "a\\ud800\\x1b[31mb\\x00\\u202ec d e  "
    assert printable("x" * 1000) == "x" * 1000 and printable("x" * 10**7) == "x" * 999 + "…"
    assert len(printable("\x1b" * 10**7)) == 1000
    deep = inner = []
    for _ in range(900):
        inner.append([])
        inner = inner[0]
    assert "…" in json.dumps(clean(deep), ensure_ascii=False)
    assert clean({"\ud800": ["\x1b", 1, None, True]}) == {"\\ud800": ["\\x1b", 1, None, True]}


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-cmd", "@SUM(A1)", "\t=1", " =1", "\r=1", "-inf", "-1_0"])
def test_cell_is_no_formula(text):
    assert harmless(text) == "'" + text


@pytest.mark.parametrize("value", ["-1", "+1.5e-3", "-.5", -1, "a=b", "", None, True, "2-1"])
def test_cell_that_is_none_stays(value):
    assert harmless(value) is value


def test_hostile_texts_of_a_trial_reach_no_file(results):
    """A lone surrogate has no encoding; what is left is read again after a resume."""
    evil, formula = "\ud800\x1b]0;owned\x07", "=HYPERLINK(1)"
    folder = results.folder / "environments" / "local-env" / "trials" / "t0"
    folder.mkdir(parents=True)
    result = {"default": 0.5, evil: 1, formula: formula, "deep": [[[evil]]]}
    record = {"parameters": {"kind": evil}, "status": "ok", "cause": evil * 10**5, "result": result, "seeds": {}}
    (folder / "record.json").write_text(json.dumps(record))
    start = {"trial": "t0", "parameter_id": 0, "sequence": 0, "parameters": {}, "time": 10.0}
    entry = results.add(start, {"time": 12.5, "exit_code": 0, "cause": None})
    results.write_table()
    assert len(entry["cause"]) == 1000 and entry["result"]["\\ud800\\x1b]0;owned\\x07"] == 1
    head, row = (results.folder / "results.csv").read_text().splitlines()
    assert "'=HYPERLINK(1)" in head and "'=HYPERLINK(1)" in row and ",=" not in head + row
    for path in (results.folder / name for name in ("journal.jsonl", "results.csv", "best.json")):
        assert path.read_text().replace("\n", "").isprintable() and "\\ud800" not in json.dumps(path.name)
    assert Results(results.folder, None).entries == [entry]


def test_whatever_a_record_says_its_entry_is_read_again(results):
    folder = results.folder / "environments" / "local-env" / "trials" / "t0"
    folder.mkdir(parents=True)
    record = {"status": "failed", "cause": {"x": 1}, "result": {"a": [1]}, "seconds": "long", "repeats": [3]}
    (folder / "record.json").write_text(json.dumps(record))
    start = {"trial": "t0", "parameter_id": 0, "sequence": 0, "parameters": {}, "time": 10.0}
    results.add(start, {"time": 12.5, "exit_code": 1, "cause": None})
    assert [entry["cause"] for entry in read_journal(results.folder / "journal.jsonl")] == ["{'x': 1}"]


def test_journal_of_an_earlier_version_is_cleaned_when_it_is_read(tmp_path):
    append_line(tmp_path / "journal.jsonl", line(0, cause="\ud800", result={"\x1b": "\ud800"}))
    results = Results(tmp_path, None)
    results.write_table()
    assert results.entries == [line(0, cause="\\ud800", result={"\\x1b": "\\ud800"})]


@pytest.mark.parametrize(
    "record", [b"[1]", b"{}", b"[" * 100_000, b'{"status": ["ok"]}', b'{"status": "ok", "result": 3}', b"\xff"]
)
def test_record_of_a_wrong_form_is_none(results, record):
    folder = results.folder / "environments" / "local-env" / "trials" / "t0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(record)
    start = {"trial": "t0", "parameter_id": 0, "sequence": 0, "parameters": {}, "time": 10.0}
    assert results.add(start, {"time": 12.5, "exit_code": 0, "cause": None, "final": True})["status"] == "lost"


def test_what_kill_9_left_of_a_write_is_removed(tmp_path):
    trial = tmp_path / "environments" / "headless" / "trials" / "t0"
    trial.mkdir(parents=True)
    for left in (".best.json.ab_12xyz", ".results.csv.ab_12xyz", ".search.json.ab_12xyz", ".best_model.pt.ab_12xyz"):
        (tmp_path / left).touch()
    (trial / ".record.json.ab_12xyz").touch()
    (trial / ".model.npz.ab_12xyz").touch()
    others = [tmp_path / ".notes.json.mine", tmp_path / "best.json", trial / "record.json", tmp_path / ".best.json.m"]
    for path in others:
        path.touch()
    remove_temporaries(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
