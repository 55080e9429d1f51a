"""The experiment: task, tuner and budget in; a watched search, the best parameters, weights and tables out.

python nni_main.py                                         # the default task, 20 trials
python nni_main.py eprop_digits --tuner random --trials 50 --concurrency 2
python nni_main.py eprop_digits --duration 2h --assessor medianstop --keep
python nni_main.py eprop_digits --machines machines.json   # trials run on other machines, by SSH
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from rich.console import Console

from runner import commands, request, resume
from runner.flags import UserMistake, thread_environment
from search_spaces import load_space
from tuners import ASSESSORS, TUNERS

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Check the request, then run the search. Returns the exit status: 2 for a mistake found before the start."""
    try:
        args = request.parse_arguments()
    except UserMistake as mistake:
        print(f"nni_main.py: {mistake}", file=sys.stderr)
        return 2
    os.environ.update(thread_environment(args.threads))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost," + os.environ.get("no_proxy", "")
    commands.handle_signals()
    try:
        space = load_space(args.task)
        request.check(args, space)
        if not args.resume:
            request.reserve_folder(args)
            resume.save_request(args.experiments / args.id, args, space)
        if args.headless:
            with resume.hold(args.experiments / args.id):
                return search_headless(args, space)
    except (UserMistake, ValueError) as mistake:
        print(f"nni_main.py: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nni_main.py: interrupted before the search began", file=sys.stderr)
        return 128 + signal.SIGINT
    return search(args, space)


def tuner_settings(args: argparse.Namespace) -> dict:
    """Return the tuner's name or class and its arguments."""
    settings = TUNERS[args.tuner](args.seed)
    if args.objectives or args.limit:
        settings["class_args"] |= {"objectives": args.aim.objectives, "limits": args.aim.limits}
    if args.warm_start:
        settings["class_args"]["journal"] = str(args.experiments / args.warm_start / "journal.jsonl")
    return settings


def configure(args: argparse.Namespace, space: dict):
    """Return NNI's ExperimentConfig for the request."""
    from nni.experiment import ExperimentConfig

    config = ExperimentConfig("remote" if args.machines else "local")
    config.experiment_name = args.task
    config.experiment_working_directory = args.experiments
    config.search_space = space
    config.trial_command = shlex.join(commands.trial_command(args))
    config.trial_code_directory = ROOT
    config.trial_concurrency = args.concurrency
    config.max_trial_number = args.trials
    config.max_experiment_duration = args.duration
    config.max_trial_duration = args.trial_duration
    config.tuner = algorithm(tuner_settings(args))
    if args.assessor != "none":
        config.assessor = algorithm(ASSESSORS[args.assessor](request.fixed_epochs(space)))
    if args.machines:
        from runner import machines

        machines.configure(config, args.machines)
    if args.gpus:
        config.trial_gpu_number = 1
        config.training_service.gpu_indices = list(range(args.gpus))
        config.training_service.use_active_gpu = True
    return config


def algorithm(settings: dict):
    """Return NNI's config of a built-in algorithm ("name") or one of this project's ("class_name")."""
    from nni.experiment.config import AlgorithmConfig, CustomAlgorithmConfig

    return (CustomAlgorithmConfig if "class_name" in settings else AlgorithmConfig)(**settings)


def search(args: argparse.Namespace, space: dict) -> int:
    """Run the experiment to its end, to Ctrl-C or to SIGTERM; write the results in each case."""
    from nni.experiment import Experiment

    from runner import manager
    from runner.records import Results
    from runner.search import Search, print_closing

    console = Console()
    results = Results(
        args.experiments / args.id, lambda parameters: commands.repeat_command(args, parameters), args.aim
    )
    following = Search(results, results.folder / "events.jsonl", args.trials, args.duration, console)
    experiment = Experiment(configure(args, space), id=args.id)
    exit_status = 0
    try:
        console.print(f"experiment {args.id}: {args.tuner}, {args.trials} trials, {args.concurrency} at once")
        start_manager(experiment, args, following.events)
        following.url = f"http://127.0.0.1:{experiment.port}"
        console.print(f"web UI: {following.url}")
        following.follow(experiment)
        if args.keep:
            results.write_table()
            console.print(f"finished; the web UI stays at {following.url} until Ctrl-C")
            signal.pause()
    except KeyboardInterrupt:
        exit_status = 0 if following.finished else 130
    except SystemExit as terminated:
        exit_status = terminated.code
    except RuntimeError as error:
        console.print(f"nni_main.py: {error}", soft_wrap=True, markup=False)
        exit_status = 1
    finally:
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the results get written first
            signal.signal(signal_number, signal.SIG_IGN)
        if following.running:
            console.print(f"stopping; {len(following.running)} running trials have 5 s to write what they have")
        manager.stop_manager(experiment)
        following.poll()
        following.cut_off()
        results.write_table()
        print_closing(results, console)
    if args.report and results.entries and exit_status in (0, 130):  # what is terminated shall end at once
        commands.make_report(results.folder, console)
    return exit_status or (0 if results.ranking() else 1)


def search_headless(args: argparse.Namespace, space: dict) -> int:
    """Run the search without NNI's manager; returns the exit status. The results are written however it ends."""
    from main_hpo import run_trial
    from runner import headless
    from runner.records import Results
    from runner.search import Search

    results = Results(
        args.experiments / args.id, lambda parameters: commands.repeat_command(args, parameters), args.aim
    )
    search = Search(results, results.folder / "events.jsonl", args.trials, args.duration, Console())
    words = tuple(commands.trial_command(args)[2:])
    if args.dask:
        from runner.dask_slots import DaskSlots

        slots = DaskSlots(args.dask, ROOT, run_trial, words, args.trial_duration)
    else:
        log = results.folder / "log"
        if args.tensorboard:
            words += ("--out", str(headless.trial_folder(results.folder.resolve(), "")))
        slots = headless.LocalSlots(args.concurrency, run_trial, words, log, args.trial_duration, args.gpus or 0)
    where = f"on {args.dask}" if args.dask else f"{args.concurrency} at once"
    search.console.print(f"experiment {args.id}: {args.tuner}, {args.trials} trials, {where}", soft_wrap=True)
    exit_status = headless.conduct(search, lambda seed: tuner_settings(args), args.seed, space, slots)
    if args.report and results.entries and exit_status in (0, 130):
        commands.make_report(results.folder, search.console)
    return exit_status


def start_manager(experiment, args: argparse.Namespace, events: Path) -> None:
    """Start NNI's manager; where another program takes the default port meanwhile, on the next free one."""
    from runner import manager

    port = args.port or manager.next_free_port(request.DEFAULT_PORT)
    environ = thread_environment(args.threads)
    if args.machines:
        from runner import machines

        settings = events.with_name("machines.json")
        environ |= machines.write_settings(settings, args.machines, lambda m: commands.remote_command(args, m), environ)
    while True:
        try:
            return manager.start_manager(experiment, port, events, environ)
        except RuntimeError as error:
            lost = isinstance(error, manager.PortTaken) or not manager.port_is_free(port)
            if args.port or not lost:
                raise
            port = manager.next_free_port(port + 1)


if __name__ == "__main__":
    sys.exit(main())
