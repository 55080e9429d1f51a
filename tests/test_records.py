"""Journal, table and best: what counts, what is kept, and that a torn line or a second copy changes nothing."""

import hashlib
import json
import shutil

import pytest

from runner.records import append_line, outcome, read_journal, write_atomic
from runner.results import Results
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
        ({"exit_code": 0}, {"status": "ok"}, "ok"),
        ({"exit_code": 0}, {"status": "silent"}, "silent"),
        ({"exit_code": 0}, None, "failed"),
        ({"exit_code": 0, "final": True}, None, "lost"),
        ({"exit_code": 1}, {"status": "failed", "cause": "ValueError: x"}, "failed"),
        ({"exit_code": 3}, None, "failed"),
        ({"exit_code": 1, "cause": "stopping"}, {"status": "failed", "cause": "ConnectionError: x"}, "interrupted"),
        (None, {"status": "ok", "cause": None}, "ok"),
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
    append_line(path, {"parameter_id": 0, "x": 1})
    with path.open("ab") as file:
        file.write(b'{"parameter_id": 1, "x"')  # the crash
    append_line(path, {"parameter_id": 2})
    append_line(path, {"parameter_id": 0, "x": 2})
    assert read_journal(path) == [{"parameter_id": 0, "x": 2}, {"parameter_id": 2}]


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
