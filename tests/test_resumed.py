"""A resumed search inside NNI: what the tuner knows, which numbers trials get, NNI's database made anew."""

import json
import sqlite3
from types import SimpleNamespace

import pytest
from nni.experiment import ExperimentConfig
from nni.runtime import msg_dispatcher

import nni_main
from runner import database, managed, resumed
from runner.records import append_line
from runner.results import Results
from runner.resume import trials_of
from runner.search import Console, Search
from runner.watchdog import Stalled
from tuners import TUNERS

SPACE = {"a": {"_type": "uniform", "_value": [0, 1]}, "b": {"_type": "choice", "_value": [1, 2, 3]}}
STATUSES = ("ok", "failed", "ok", "interrupted", None)  # of the trials 0 to 4; None: no word of its end


def given(number):
    return {"a": number / 10, "b": 1 + number % 3}


@pytest.fixture
def folder(tmp_path):
    """An experiment that was cut off: five trials have started, three of them ended."""
    for number, status in enumerate(STATUSES):
        trial = {"trial": f"trial{number}", "sequence": number, "parameter_id": number, "parameters": given(number)}
        append_line(tmp_path / "events.jsonl", {"event": "start", "time": 100.0 + number} | trial)
        if status:
            result = {"default": number / 10, "test_accuracy": 0.5} if status == "ok" else {}
            entry = trial | {"status": status, "cause": None, "result": result, "seeds": {}, "wall_seconds": 2.0}
            append_line(tmp_path / "journal.jsonl", entry)
    return tmp_path


@pytest.fixture
def numbers(monkeypatch):
    """Return what NNI's dispatcher calls for the next number; the original comes back after the test."""
    monkeypatch.setattr(msg_dispatcher, "_create_parameter_id", None)
    return lambda count: [msg_dispatcher._create_parameter_id() for _ in range(count)]


@pytest.mark.parametrize("name", ["tpe", "gp", "forest", "random", "nni-tpe", "nni-evolution"])
def test_interrupted_trials_come_first_under_their_numbers_and_nothing_is_repeated(folder, numbers, name):
    settings = [TUNERS[name](seed) for seed in (0, 3)]
    tuner = resumed.Resumed(*settings, str(folder))
    tuner.update_search_space(SPACE)
    tuner.import_data([{"parameter": given(0), "value": {"default": 0.9}}])  # as NNI does
    ids = numbers(2)
    assert ids == [3, 4] and tuner.generate_multiple_parameters(ids) == [given(3), given(4)]
    tuner.receive_trial_result(3, given(3), {"default": 0.3})
    tuner.trial_end(3, True)
    tuner.trial_end(4, False)
    ids = numbers(3)
    assert ids == [5, 6, 7]
    proposals = tuner.generate_multiple_parameters(ids)
    assert len(proposals) == 3
    assert not [known for known in map(given, range(5)) if known in proposals]
    for identifier, parameters in zip(ids, proposals, strict=True):
        tuner.receive_trial_result(identifier, parameters, 0.5)
        tuner.trial_end(identifier, True)
    assert tuner._open == {}


def test_this_projects_tuners_know_what_is_pending(folder, numbers):
    tuner = resumed.Resumed(TUNERS["tpe"](0), TUNERS["tpe"](3), str(folder))
    tuner.update_search_space(SPACE)
    inner = tuner._asker.tuner
    assert len(inner.pending) == 2 and len(inner.done) == 3
    tuner.generate_multiple_parameters(numbers(2))
    tuner.receive_trial_result(4, given(4), {"default": 0.4})
    assert len(inner.pending) == 1 and inner.done[-1].scores == (0.4,)


def test_result_that_never_comes_is_a_failure(folder, numbers, monkeypatch):
    tuner = resumed.Resumed(TUNERS["tpe"](0), TUNERS["tpe"](3), str(folder))
    tuner.update_search_space(SPACE)
    tuner.generate_multiple_parameters(numbers(2))
    tuner.trial_end(3, True)
    tuner.generate_multiple_parameters(numbers(1))
    assert len(tuner._asker.tuner.pending) == 3
    monkeypatch.setattr(resumed, "LATE_SECONDS", -1)
    tuner.generate_multiple_parameters(numbers(1))
    assert len(tuner._asker.tuner.pending) == 3 and tuner._asker.tuner.done[-1].failed


def test_grid_ends_where_all_is_tried(folder, numbers):
    tuner = resumed.Resumed(TUNERS["grid"](0), TUNERS["grid"](0), str(folder))
    tuner.update_search_space({"b": {"_type": "choice", "_value": [1, 2]}})
    assert len(tuner.generate_multiple_parameters(numbers(2))) == 2  # those that run again
    assert tuner.generate_multiple_parameters(numbers(3)) == [{"b": 1}, {"b": 2}]


def test_database_says_what_the_journal_says(folder):
    trial = folder / "environments" / "local-env" / "trials" / "trial0"
    trial.mkdir(parents=True)
    (trial / "record.json").write_text(json.dumps({"curve": [{"default": 0.1}, {"loss": 2.0}]}))
    (folder / "db").mkdir()
    (folder / "db" / "nni.sqlite").write_text("damaged")
    finished, again = trials_of(folder)
    assert [start["parameter_id"] for start in again] == [3, 4]
    database.write_database(Results(folder, lambda parameters: ""), {"maxTrialNumber": 9}, finished)
    with sqlite3.connect(folder / "db" / "nni.sqlite") as connection:
        events = connection.execute(
            "select trialJobId, event, timestamp, data, sequenceId from TrialJobEvent"
        ).fetchall()
        metrics = connection.execute("select trialJobId, type, data from MetricData").fetchall()
        profile = connection.execute("select params, nextSequenceId from ExperimentProfile").fetchall()
    ends = ("SUCCEEDED", "FAILED", "SUCCEEDED")
    assert [row[1] for row in events] == [event for end in ends for event in ("WAITING", "RUNNING", end)]
    assert [events[2][2], events[5][4]] == [102000, 1]
    assert json.loads(events[3][3])["parameters"] == given(1)
    finals = {name: json.loads(json.loads(data)) for name, kind, data in metrics if kind == "FINAL"}
    assert finals == {"trial0": {"default": 0.0}, "trial2": {"default": 0.2}}  # without the test part
    assert [json.loads(json.loads(data)) for _, kind, data in metrics if kind == "PERIODICAL"] == [{"default": 0.1}]
    assert profile == [('{"maxTrialNumber": 9}', 3)]


def test_what_ended_while_nobody_followed_is_entered_once(folder):
    record = {"status": "ok", "result": {"default": 0.4}, "parameters": given(4), "seconds": 3.0}
    trial = folder / "environments" / "local-env" / "trials" / "trial4"
    trial.mkdir(parents=True)
    (trial / "record.json").write_text(json.dumps(record))
    search = Search(Results(folder, lambda parameters: ""), folder / "events.jsonl", 9, None, Console(quiet=True))
    for _ in range(2):
        search.settle()
        finished, again = trials_of(folder)
        assert [start["parameter_id"] for start, _ in finished] == [0, 1, 2, 4]
        assert [start["parameter_id"] for start in again] == [3]
        assert search.counts.total() == 4 and not search.running
        assert len((folder / "journal.jsonl").read_text().splitlines()) == 5
    assert finished[-1][1]["wall_seconds"] == 3.0 and search.results.best["trial"] == "trial4"


def test_a_repair_has_the_time_that_is_left(tmp_path, monkeypatch):
    search = Search(Results(tmp_path, None), tmp_path / "events.jsonl", 9, 100, Console(quiet=True))
    given = []

    def start(experiment):
        given.append(experiment.config.max_experiment_duration)
        if len(given) > 1:  # NNI goes on with what its database says
            with sqlite3.connect(tmp_path / "db" / "nni.sqlite") as connection:
                (profile,) = connection.execute("select params from ExperimentProfile").fetchone()
            assert json.loads(profile)["maxExperimentDuration"] == 40
        search.started -= 60
        search.results.enter(failed(len(given)))  # so that the second fault is not the first one's
        raise Stalled("hung")

    monkeypatch.setattr(managed.manager, "stop_manager", lambda _: None)
    managed.follow(search, SimpleNamespace(start=start, configure=configure, tuner=TUNERS["random"], seed=0))
    assert given == [100, 40] and search.finished


def configure(tuner):
    config = ExperimentConfig("local")
    config.search_space, config.trial_command, config.trial_concurrency = SPACE, "true", 1
    config.tuner = nni_main.algorithm(tuner)
    return config


def failed(number):
    head = {"trial": f"trial{number}", "parameter_id": number, "sequence": number, "parameters": {}}
    return head | {"status": "failed", "cause": None, "result": {}, "seeds": {}, "wall_seconds": 1.0}
