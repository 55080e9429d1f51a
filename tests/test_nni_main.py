"""The search's command line: every mistake gets one line and exit status 2, and nothing is started."""

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runner import commands, request, resume
from runner.records import append_line
from tests.conftest import journal_line, patient, write_space
from tuners import REFUSED_TUNERS, TUNERS

ROOT = Path(__file__).parent.parent


def run(tmp_path, *flags, repository=ROOT):
    words = [sys.executable, "nni_main.py", "--experiments", str(tmp_path / "experiments"), *flags]
    return subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=patient(120))


@pytest.fixture(scope="module")
def repository(copy_of_repository):
    return copy_of_repository()


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/proc/nowhere", "a file"])
def test_home_that_nni_cannot_write_is_found_before_anything_is_made(home, tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HOME", home if home.startswith("/") else str(tmp_path / home))
    done = run(tmp_path, "--no-check", "--id", "mine")
    assert_refused(done, "HOME: NNI cannot write its list of experiments in ", tmp_path)
    assert list((tmp_path / "experiments").iterdir()) == []


def assert_refused(done, message, tmp_path):
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("experiments/*/db")), "something was started"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["eprop_digit"], "unknown task 'eprop_digit' (did you mean 'eprop_digits'?); choose from: "),
        (["--trials", "0"], "argument --trials: must be an integer of at least 1, not '0'"),
        (["--concurrency", "-1"], "argument --concurrency: must be an integer of at least 1, not '-1'"),
        (["digits", "two\nlines\x1b[31m"], "unrecognized arguments: two\\nlines\\x1b[31m"),
        (["--seed=--"], "argument --seed: expected a value, not '--'"),
        (["--port", "99999999"], "argument --port: must be an integer from 1024 to 65535, not '99999999'"),
        (["--duration", "5x"], "must be a time such as 90s, 30m, 2h or 1d, not '5x'"),
        (["--trial-duration", "0"], "must be a time"),
        (["--dask="], "argument --dask: must not be empty"),
        (["--warm-start", " "], "argument --warm-start: must not be empty"),
        *(
            (
                [flag, "9" * 400 + unit],
                f"argument {flag}: must be a time such as 90s, 30m, 2h or 1d of at most 24855d, not",
            )
            for flag in ("--duration", "--trial-duration")
            for unit in ("", "d")
        ),
        *(
            ([flag, "9" * digits], f"argument {flag}: must be an integer of at least 1 and at most 2147483647, not")
            for flag in ("--trials", "--concurrency", "--gpus", "--repeats", "--threads")
            for digits in (10, 400)
        ),
        (["--id", "a b"], "must be 1 to 32 letters, digits, - or _, not 'a b'"),
        (["--tuner", "Metis"], "raises at its first model-based proposal (scipy 1.11 and later); use gp"),
        (["--tuner", "magic"], "'magic': unknown. Choose from: gp, tpe, forest, nsga2, qmc, nni-tpe, "),
        (["--objectives", "default"], "must be like default:max,energy_nj:min, not 'default'"),
        (["--tuner", "random", "--limit", "rate_hz<9"], "need --tuner gp or tpe or nsga2, not random"),
        (["--tuner", "gp", "--limit", "test_accuracy>1"], "nothing is chosen by the test part"),
        (
            ["--tuner", "gp", "--objectives", "speed:max"],
            "there is no metric 'speed' to search by; choose from: default,",
        ),
        (["--tuner", "grid", "--warm-start", "x"], "--warm-start needs --tuner gp or tpe or nsga2 or qmc or forest"),
        (["--tuner", "gp", "--warm-start", "x"], "experiments/x has no journal.jsonl"),
        (["--assessor", "hope"], "'hope'"),
        (["--assessor", "medianstop", "--repeats", "2"], "an assessor sees one seed's curve only"),
        (["eprop_tonic", "--no-check"], "say which of tonic's datasets: --tonic NAME; choose from: SHD, "),
        (["eprop_tonic", "--tonic", "shd", "--no-check"], "unknown tonic dataset 'shd' (did you mean SHD?)"),
        (["--tonic", "SHD", "--no-check"], "only tasks <objective>_tonic take it, not a task on digits"),
        (["--view", "nobody"], "experiments/nobody has no search.json that can be read"),
        (["--resume", "a", "--list"], "argument --list: not allowed with argument --resume"),
        (["--wrong"], "unrecognized arguments: --wrong"),
        (["--experiments", "/proc/nowhere"], "--experiments /proc/nowhere: No such file or directory"),
    ],
)
def test_mistakes_get_one_line(flags, message, tmp_path):
    assert_refused(run(tmp_path, *flags), message, tmp_path)


def test_list_of_nothing_and_of_what_was_cut_off_at_once(tmp_path):
    assert run(tmp_path, "--list").stdout == f"no experiments in {tmp_path / 'experiments'}\n"
    args = request.parse_arguments(["--experiments", str(tmp_path / "experiments"), "--id", "mine", "--headless"])
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    (tmp_path / "experiments" / "_latest").symlink_to("mine")
    resume.save_request(tmp_path / "experiments" / "mine", args, {})
    with resume.hold(tmp_path / "experiments" / "mine"):
        running = run(tmp_path, "--list").stdout.splitlines()
    stopped = run(tmp_path, "--list").stdout.splitlines()
    assert running[1].split()[:7] == ["mine", "eprop_digits", "gp", "(headless)", "running", "0/20", "-"]
    assert stopped[1].split()[4] == "stopped" and len(running) == len(stopped) == 2


@pytest.mark.parametrize(
    "name, text",
    [("search.json", "{}"), ("search.json", "[]"), ("search.json", "{"), ("search.json", "[" * 100_000)],
)
def test_damaged_experiment_is_listed_and_refused_in_one_line(tmp_path, name, text):
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    resume.save_request(folder, request.parse_arguments(["--id", "mine"]), {})
    (folder / name).write_text(text)
    (row,) = run(tmp_path, "--list").stdout.splitlines()[1:]
    assert row.split()[0] == "mine" and "damaged" in row
    for flag in ("--resume", "--view"):
        assert_refused(run(tmp_path, flag, "mine"), "has no search.json that can be read (", tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"trials": "many"},
        {"trials": True},
        {"seed": -1},
        {"tuner": "magic"},
        {"objectives": "default"},
        {"objectives": [["default", "up"]]},
        {"limit": [["rate_hz", "<"]]},
        {"limit": {"rate_hz": 3}},
        {"space": {"lr": None}},
        {"space": [1]},
        {"space": {"lr": {"_type": "uniform", "_value": [1]}}},
        {"space": {"lr": {"_type": ["uniform"], "_value": [1, 2]}}},
        {"space": {"lr": {"_type": "quniform", "_value": [1, 2, None]}}},
        {"headless": "yes"},
        {"duration": 1e300},
        {"warm_start": ["x"]},
        {"code": 3},
        {"data": "\x1b[31m"},
        {"versions": {"torch": None}},
        {"task": "\x1b[31m"},
    ],
)
def test_search_json_of_another_form_is_refused(tmp_path, changed):
    args = request.parse_arguments(["--id", "mine", "--limit", "rate_hz<9", "--objectives", "default:max"])
    resume.save_request(tmp_path, args, {"lr": {"_type": "choice", "_value": [1]}})
    asked = resume.read_request(tmp_path)
    assert asked["limit"] == [["rate_hz", "<", 9.0]]
    (tmp_path / "search.json").write_text(json.dumps(asked | changed))
    with pytest.raises(request.UserMistake, match=f"search.json that can be read .its '{next(iter(changed))}' is"):
        resume.read_request(tmp_path)


def test_warm_start_of_which_nothing_fits_is_refused(tmp_path):
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    append_line(folder / "journal.jsonl", journal_line(0, parameters={"mood": 3}, status="ok"))
    done = run(tmp_path, "--warm-start", "mine", "--no-check")
    said = "--warm-start mine: none of its 1 trials fits the search space of eprop_digits"
    assert_refused(done, said, tmp_path)


@pytest.mark.slow
def test_taken_port_and_used_id(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_refused(run(tmp_path, "--port", port), f"--port {port} is in use", tmp_path)
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    assert_refused(run(tmp_path, "--id", "mine"), "exists already; choose another id", tmp_path)


@pytest.mark.parametrize(
    "space, message",
    [
        ("[" * 100_000, "search_spaces/eprop_digits_temporary.json is not valid JSON"),
        ('{"lr": {"_type": "choice", "_value": ["\\u001b"]}}', "values must be printable, which '\\x1b' is not"),
        ('{"lr": {"_type": "uniform", "_value": [0, 1%s]}}' % ("0" * 400), "eprop_digits_temporary"),
        ('{"lr": ', "search_spaces/eprop_digits_temporary.json is not valid JSON"),
        ("[" * 100_000, "search_spaces/eprop_digits_temporary.json is not valid JSON"),
        ('{"lrr": {"_type": "choice", "_value": [1]}}', "unknown parameter 'lrr' (did you mean 'lr'?)"),
        ('{"lr": {"_type": "uniform", "_value": [-1, 1]}}', "lr = -1 is within the search space"),
        ('{"lr": {"_type": "uniform", "_value": [1, 0]}}', "must have high > low"),
        ('{"epochs": {"_type": "quniform", "_value": [1, 9, 1]}}', "epochs is an integer"),
    ],
)
def test_search_spaces_that_cannot_be_right(space, message, tmp_path, repository):
    write_space(repository, "eprop_digits_temporary", space)
    assert_refused(run(tmp_path, "eprop_digits_temporary", repository=repository), message, tmp_path)


def test_curvefitting_needs_a_fixed_number_of_epochs():
    searched = {"epochs": {"_type": "choice", "_value": [10, 20]}}
    args = request.parse_arguments(["--assessor", "curvefitting"])
    with pytest.raises(request.UserMistake, match="must fix the epochs"):
        request.check_request(args, searched)
    request.check_request(args, {"epochs": {"_type": "choice", "_value": [10]}})


def test_searches_that_start_together_get_folders_of_their_own(tmp_path):
    seen = []
    for _ in range(3):
        args = request.parse_arguments(["--experiments", str(tmp_path)])
        request.reserve_folder(args)
        seen.append(args.id)
    assert len(set(seen)) == 3 and all(len(name) <= 32 for name in seen)
    args.id = seen[0]
    with pytest.raises(request.UserMistake, match="exists already"):
        request.reserve_folder(args)


def test_every_refusal_names_what_works():
    for reason in REFUSED_TUNERS.values():
        assert any(name in reason for name in TUNERS)


def test_command_that_repeats_a_trial_carries_seeds_and_parameters():
    args = request.parse_arguments(["--seed", "3", "--split-seed", "2", "--repeats", "2"])
    words = shlex.split(commands.repeat_command(args, {"lr": 0.01, "reset": "zero"}))
    assert words[:2] == [sys.executable, "main_hpo.py"]
    assert json.loads(words[words.index("--params") + 1]) == {"lr": 0.01, "reset": "zero"}
    assert [words[words.index(flag) + 1] for flag in ("--seed", "--split-seed", "--repeats")] == ["3", "2", "2"]


@pytest.mark.parametrize("limit, reason", [(60, "(2)"), (0.01, "(TimeoutExpired)")])
def test_a_report_that_fails_or_takes_too_long_harms_nothing(limit, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "handle_signals", lambda: None)  # pytest's own stay
    monkeypatch.setattr(commands, "REPORT_SECONDS", limit)
    commands.make_report(tmp_path, commands.Console())
    assert f"no report {reason}; it can be made later: python report_hpo.py {tmp_path}" in capsys.readouterr().out
