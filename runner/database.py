"""NNI's database of an experiment, made anew from its journal, so that NNI can go on from it or show it.

NNI's own may be damaged, lag behind the journal or be none (after a headless search). What is written here is what
NNI 3.0 would have written of the same trials: core/sqlDatabase.js, core/nniDataStore.js.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

from runner.records import read_record, told
from runner.results import Results

TABLES = """
create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
    sequenceId integer, message text, environmentId text);
create index TrialJobEvent_trialJobId on TrialJobEvent(trialJobId);
create index TrialJobEvent_event on TrialJobEvent(event);
create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer, data text);
create index MetricData_trialJobId on MetricData(trialJobId);
create index MetricData_type on MetricData(type);
create table ExperimentProfile (params text, id text, execDuration integer, startTime integer, endTime integer,
    logDir text, nextSequenceId integer, revision integer);
create index ExperimentProfile_id on ExperimentProfile(id);
"""
SUCCEEDED = ("ok", "silent", "saturated")
NNI_STATUS = {"early_stopped": "EARLY_STOPPED", "timed_out": "EARLY_STOPPED", "interrupted": "USER_CANCELED"}


def drop_database(folder: Path) -> None:
    """Remove NNI's database from an experiment's folder: NNI would append to it."""
    shutil.rmtree(folder / "db", ignore_errors=True)


def write_database(results: Results, config: dict, trials: list[tuple[dict, dict]]) -> None:
    """Write the database of an experiment; `trials` are (start event, journal entry), see runner.resume.trials_of.

    `config` is NNI's own form of the configuration. Raises OSError, sqlite3.Error.
    """
    folder = results.folder
    drop_database(folder)
    (folder / "db").mkdir()
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as database:
        database.executescript(TABLES)
        for start, entry in trials:
            begun = int(1000 * start.get("time", 0))
            where = results.trial_folder(entry["trial"])
            database.executemany(
                "insert into TrialJobEvent values (?,?,?,?,?,?,?,?)", _events(start, entry, begun, where)
            )
            database.executemany("insert into MetricData values (?,?,?,?,?,?)", _metrics(entry, begun, where))
        database.execute("insert into ExperimentProfile values (?,?,?,?,?,?,?,?)", _profile(folder, config, trials))
        database.commit()


def _profile(folder: Path, config: dict, trials: list[tuple[dict, dict]]) -> tuple:
    times = [int(1000 * start.get("time", 0)) for start, _ in trials]
    ends = [begun + int(1000 * entry["wall_seconds"]) for begun, (_, entry) in zip(times, trials, strict=True)]
    sequences = [entry["sequence"] for _, entry in trials]
    began, ended = min(times, default=0), max(ends, default=0)
    return (json.dumps(config), folder.name, 0, began, ended, str(folder), max(sequences, default=-1) + 1, 1)


def _events(start: dict, entry: dict, begun: int, where: Path) -> list[tuple]:
    packed = {"parameter_id": entry["parameter_id"], "parameter_source": "algorithm", "parameter_index": 0}
    packed = json.dumps(packed | {"parameters": start["parameters"]})
    final = "SUCCEEDED" if entry["status"] in SUCCEEDED else NNI_STATUS.get(entry["status"], "FAILED")
    stages = ((begun, "WAITING", packed), (begun, "RUNNING", None))
    stages += ((begun + int(1000 * entry["wall_seconds"]), final, None),)
    tail = (str(where), entry["sequence"], entry["cause"], where.parent.parent.name)
    return [(time, entry["trial"], event, data, *tail) for time, event, data in stages]


def _metrics(entry: dict, begun: int, where: Path) -> list[tuple]:
    curve = (read_record(where) or {}).get("curve") or []
    metrics = [("PERIODICAL", number, values) for number, values in enumerate(curve) if "default" in values]
    if entry["status"] in SUCCEEDED:
        metrics.append(("FINAL", 0, told(entry["result"])))
    # a metric's value is JSON in JSON
    head = (begun, entry["trial"], str(entry["parameter_id"]))
    return [(*head, kind, number, json.dumps(json.dumps(values))) for kind, number, values in metrics]
