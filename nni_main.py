"""The experiment: task, tuner and budget in; a watched search, the best parameters, weights and tables out.

python nni_main.py                                         # the default task, 20 trials
python nni_main.py eprop_digits --tuner random --trials 50 --concurrency 2
python nni_main.py eprop_digits --duration 2h --assessor medianstop --keep
python nni_main.py eprop_digits --machines machines.json   # trials run on other machines, by SSH
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from pathlib import Path

from runner import commands, request, resume
from runner.flags import UserMistake, thread_environment
from runner.listing import print_experiments
from runner.records import remove_temporaries
from runner.texts import one_line, take_any_terminal
from runner.web_address import forget_address
from search_spaces import load_space
from tuners import ASSESSORS, TUNERS

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Check the request, then run the search. Returns the exit status: 2 for a mistake found before the start."""
    take_any_terminal()
    try:
        args = request.parse_arguments()
    except UserMistake as mistake:
        print(f"nni_main.py: {one_line(mistake)}", file=sys.stderr)
        return 2
    if args.list:
        print_experiments(args.experiments)
        return 0
    os.environ.update(thread_environment(args.threads))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost," + os.environ.get("no_proxy", "")
    commands.handle_signals()
    try:
        if args.view:
            return view(args)
        space = load_space(args.task)
        request.check(args, space)
        if not args.resume:
            request.reserve_folder(args)
        with resume.hold(args.experiments / args.id):
            remove_temporaries(args.experiments / args.id)
            forget_address(args.experiments / args.id)  # of a manager that was killed
            resume.save_request(args.experiments / args.id, args, space)
            return search(args, space)
    except (UserMistake, ValueError, OSError) as mistake:
        print(f"nni_main.py: {one_line(mistake)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nni_main.py: interrupted before the search began", file=sys.stderr)
        return 128 + signal.SIGINT


def tuner_settings(args: argparse.Namespace, seed: int) -> dict:
    """Return the tuner's name or class and its arguments."""
    settings = TUNERS[args.tuner](seed)
    if args.objectives or args.limit:
        settings["class_args"] |= {"objectives": args.aim.objectives, "limits": args.aim.limits}
    if args.warm_start:
        settings["class_args"]["journal"] = str(args.experiments / args.warm_start / "journal.jsonl")
    return settings


def configure(args: argparse.Namespace, space: dict, tuner: dict):
    """Return NNI's ExperimentConfig for the request; `tuner` has the tuner's name or class and its arguments."""
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
    config.tuner = algorithm(tuner)
    if args.assessor != "none":
        config.assessor = algorithm(ASSESSORS[args.assessor](request.fixed_epochs(space)))
    if args.machines:
        from runner import machines

        machines.configure(config, args.machines)
    if args.gpus:
        config.trial_gpu_number = 1
        config.training_service.use_active_gpu = True
        config.training_service.max_trial_number_per_gpu = args.trials_per_gpu
    return config


def algorithm(settings: dict):
    """Return NNI's config of a built-in algorithm ("name") or one of this project's ("class_name")."""
    from nni.experiment.config import AlgorithmConfig, CustomAlgorithmConfig

    return (CustomAlgorithmConfig if "class_name" in settings else AlgorithmConfig)(**settings)


def search(args: argparse.Namespace, space: dict) -> int:
    """Run the search to its end, to Ctrl-C or to SIGTERM; return the exit status; the results are written."""
    following = search_of(args)
    results, console = following.results, following.console
    say_what_is_skipped(results.folder)
    where = f"on {args.dask}" if args.dask else f"{args.concurrency} at once"
    console.print(f"experiment {args.id}: {args.tuner}, {args.trials} trials, {where}", soft_wrap=True)
    exit_status = (search_headless if args.headless else search_with_nni)(following, args, space)
    if args.report and results.entries and exit_status in (0, 130):  # what is terminated shall end at once
        commands.make_report(results.folder, console)
    return exit_status


def search_with_nni(following, args: argparse.Namespace, space: dict) -> int:
    """Let NNI's manager run the trials, and its web UI show them."""
    from runner import managed

    return managed.conduct(following, parts_of(args, space, following))


def view(args: argparse.Namespace) -> int:
    """Show an experiment that has ended in NNI's web UI, also one that ran without it."""
    from runner import managed

    folder = args.experiments / args.id
    args.machines, args.gpus, args.concurrency = None, None, args.concurrency or 1  # no trial runs
    request.end_leftovers(args)
    request.check_nni_can_start(args)
    with resume.hold(folder):
        say_what_is_skipped(folder)
        following = search_of(args)
        return managed.view(following, parts_of(args, resume.read_request(folder)["space"], following))


def say_what_is_skipped(folder: Path) -> None:
    """Tell of an experiment's lines of which nothing can be made."""
    if said := resume.skipped_lines(folder):
        print(f"note: {said}", flush=True)


def search_of(args: argparse.Namespace):
    """Return the Search that a request is about, with the results that it has so far."""
    from runner.results import Results
    from runner.search import Search, plain_console

    folder = args.experiments / args.id
    results = Results(folder, lambda parameters: commands.repeat_command(args, parameters), args.aim)
    return Search(results, folder / "events.jsonl", args.trials, args.duration, plain_console())


def parts_of(args: argparse.Namespace, space: dict, following):
    """Return what runner.managed must know of a request."""
    from runner.managed import Parts

    return Parts(
        configure=lambda tuner: configure(args, space, tuner),
        tuner=lambda seed: tuner_settings(args, seed),
        start=lambda experiment: start_manager(experiment, args, following.events, again=bool(following.url)),
        seed=args.seed,
        slots=args.concurrency,
        keep=args.keep,
    )


def search_headless(following, args: argparse.Namespace, space: dict) -> int:
    """Run the trials without NNI's manager."""
    from main_hpo import run_trial
    from runner import headless

    words = tuple(commands.trial_command(args)[2:])
    if args.dask:
        from runner.dask_slots import DaskSlots

        slots = DaskSlots(args.dask, ROOT, run_trial, words, args.trial_duration)
    else:
        log = following.results.folder / "log"
        if args.tensorboard:
            words += ("--out", str(headless.trial_folder(following.results.folder.resolve(), "")))
        slots = headless.LocalSlots(args.concurrency, run_trial, words, log, args.trial_duration, args.gpu_names)
    return headless.conduct(following, lambda seed: tuner_settings(args, seed), args.seed, space, slots)


def start_manager(experiment, args: argparse.Namespace, events: Path, again: bool) -> None:
    """Start NNI's manager; on the next free port if another program takes the default one, or any while it is repaired.

    `again`: it is started anew in place of one that stood still.
    """
    from runner import manager, ports

    port = args.port or ports.next_free_port(request.DEFAULT_PORT)
    environ = thread_environment(args.threads) | ({"HPO_GPUS": json.dumps(args.gpu_names)} if args.gpus else {})
    if args.machines:
        from runner import machines

        settings = events.with_name("machines.json")
        environ |= machines.write_settings(settings, args.machines, lambda m: commands.remote_command(args, m), environ)
    while True:
        try:
            return manager.start_manager(experiment, port, events, environ)
        except RuntimeError as error:
            lost = isinstance(error, ports.PortTaken) or not ports.port_is_free(port)
            if (args.port and not again) or not lost:
                raise
            port = ports.next_free_port(port + 1)


if __name__ == "__main__":
    sys.exit(main())
