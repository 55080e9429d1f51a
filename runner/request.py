"""What a search is asked to do: the command line, and every check of it that can be made before the start.

A mistake raises UserMistake: one line that names the mistake, the value and the choices.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

from runner import origin, resume
from runner.commands import check_trial, data_fingerprint
from runner.flags import HIGHEST_COUNT, OneLineParser, UserMistake, add_trial_flags, count, thread_environment
from runner.gpus import choose_gpus
from runner.records import read_journal
from runner.tensorboard import check_tensorboard
from runner.texts import printable
from search_spaces import levels, split_task, task_names
from tuners import ASSESSORS, DEFAULT_TUNER, REFUSED_TUNERS, TUNERS, WITH_AIMS, WITH_JOURNAL
from tuners.aim import Aim, parse_limit, parse_objectives
from tuners.space import fits

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_TASK = "eprop_digits"
DEFAULT_TRIALS = 20
DEFAULT_PORT = 8080
MOST_CONCURRENT = 8  # trials at once, unless told
MOST_PER_GPU = 64


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Search hyperparameters with NNI.", epilog=f"Tasks: {', '.join(task_names())}.")
    parser.add_argument("task", nargs="?", default=DEFAULT_TASK, help=f"a search space's name (default {DEFAULT_TASK})")
    parser.add_argument("--tuner", type=tuner_name, default=DEFAULT_TUNER, help=f"{' | '.join(TUNERS)} (default first)")
    parser.add_argument(
        "--objectives", type=aimed(parse_objectives), help="metrics to optimise, such as default:max,energy_nj:min"
    )
    parser.add_argument(
        "--limit", type=aimed(parse_limit), action="append", help='bound on a metric, such as "synaptic_operations<1e6"'
    )
    parser.add_argument(
        "--warm-start", type=filled, metavar="ID", help="learn from the trials of an earlier experiment first"
    )
    parser.add_argument("--assessor", choices=ASSESSORS, default="none", help="stops hopeless trials (default none)")
    parser.add_argument("--trials", type=count(1), default=DEFAULT_TRIALS, help=f"budget (default {DEFAULT_TRIALS})")
    parser.add_argument("--duration", type=seconds, help="no trial starts after 90s, 30m, 2h, 1d (default: no limit)")
    parser.add_argument("--trial-duration", type=seconds, help="longest time for one trial (default: none)")
    parser.add_argument("--concurrency", type=count(1), help="trials at once (default: cores, at most 8; or GPUs)")
    parser.add_argument(
        "--gpus", type=count(1), help="so many of the GPUs that CUDA_VISIBLE_DEVICES shows, one for a trial"
    )
    parser.add_argument(
        "--trials-per-gpu", type=count(1, MOST_PER_GPU), default=1, help="trials that share a GPU (default 1)"
    )
    parser.add_argument(
        "--port", type=count(1024, 65535), help=f"of the web UI (default: first free from {DEFAULT_PORT})"
    )
    parser.add_argument("--id", type=experiment_id, help="name of the experiment's folder (default: task and time)")
    parser.add_argument("--machines", type=Path, metavar="FILE", help="JSON list of machines for the trials, by SSH")
    parser.add_argument("--keep", action="store_true", help="leave the web UI up after the last trial, until Ctrl-C")
    parser.add_argument("--no-check", dest="check", action="store_false", help="skip the check of one epoch beforehand")
    parser.add_argument("--no-report", dest="report", action="store_false", help="make no report after the search")
    parser.add_argument("--experiments", type=Path, default=ROOT / "experiments", help="folder of all experiments")
    parser.add_argument("--headless", action="store_true", help="without NNI's manager: no web UI, no port, no Node")
    parser.add_argument(
        "--dask", type=filled, metavar="ADDRESS", help="with --headless: the workers of this Dask scheduler run it"
    )
    parser.add_argument("--accept-changes", action="store_true", help="with --resume: although the data has changed")
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", metavar="ID", type=experiment_id, help="go on with an experiment that has ended")
    earlier.add_argument("--view", metavar="ID", type=experiment_id, help="show one that has ended in the web UI")
    earlier.add_argument("--list", action="store_true", help="print all experiments, and do nothing more")
    add_trial_flags(parser)
    args = parser.parse_args(arguments)
    if identifier := args.resume or args.view:
        args = resume.apply_request(parser, arguments, args.experiments.resolve() / identifier)
        args.id = identifier
    args.machines_file = str(args.machines.resolve()) if args.machines else None
    args.asked_concurrency = args.concurrency
    if args.concurrency is None and not args.machines:  # check_machines sets it otherwise
        args.concurrency = (args.gpus or 0) * args.trials_per_gpu or min(len(os.sched_getaffinity(0)), MOST_CONCURRENT)
    args.device = "cuda" if args.gpus else args.device
    args.gpu_names = []  # check_gpus finds them
    args.threads = int(thread_environment(args.threads)["OMP_NUM_THREADS"])
    args.experiments = args.experiments.resolve()
    args.aim = Aim(args.objectives or [("default", "max")], args.limit or [])
    args.origin = {"code": origin.code_hash(ROOT), "data": None, "versions": origin.versions()}  # data: a check adds it
    return args


def filled(text: str) -> str:
    """An argparse type: a text that is not empty, as that of a shell's variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"must not be empty, which {text!r} is")
    return text


def tuner_name(text: str) -> str:
    """An argparse type: the name of a tuner on offer."""
    if text not in TUNERS:
        reason = REFUSED_TUNERS.get(text.lower(), "unknown")
        raise argparse.ArgumentTypeError(f"{text!r}: {reason}. Choose from: {', '.join(TUNERS)}")
    return text


def aimed(parse):
    """Return an argparse type that shows what `parse` finds wrong."""

    def read(text: str):
        try:
            return parse(text)
        except ValueError as mistake:
            raise argparse.ArgumentTypeError(str(mistake)) from None

    return read


def seconds(text: str) -> int:
    """An argparse type: a time such as 90, 90s, 30m, 2h or 1d, in seconds."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0
    if not 1 <= value <= HIGHEST_COUNT:
        limit = " of at most 24855d" if value else ""
        raise argparse.ArgumentTypeError(
            f"must be a time such as 90s, 30m, 2h or 1d{limit}, not {printable(text, 40)!r}"
        )
    return int(value)


def experiment_id(text: str) -> str:
    """An argparse type: what NNI takes for an experiment's id."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", text) or text == "_latest":
        raise argparse.ArgumentTypeError(f"must be 1 to 32 letters, digits, - or _, not {text!r}")
    return text


def check(args: argparse.Namespace, space: dict) -> None:
    """Check all that can be wrong before a search begins; the last check trains for an epoch. Raises UserMistake."""
    if args.accept_changes and not args.resume:
        raise UserMistake("--accept-changes needs --resume")
    check_request(args, space)
    check_folder(args)
    end_leftovers(args)
    if not args.headless:
        check_nni_can_start(args)
    if args.headless:
        check_headless(args)
    elif args.dask:
        raise UserMistake("--dask needs --headless")
    if args.machines:
        check_machines(args)
    if args.resume:
        resume.check_space_unchanged(args.experiments / args.id, space)
        resume.compare_origin(args, lambda: data_fingerprint(args))
    elif args.check:
        args.origin["data"] = check_trial(args)


def check_request(args: argparse.Namespace, space: dict) -> None:
    """Refuse combinations of flags and search space that cannot be right. Raises UserMistake, ValueError."""
    from nni.common.hpo_utils import validate_search_space

    from setup_hpo import check_tonic

    check_tonic(split_task(args.task)[1], args.tonic)
    if args.tensorboard:
        check_tensorboard()
    try:
        for level in levels(space):
            validate_search_space(level, raise_exception=True)
    except ValueError as error:
        raise UserMistake(f"search_spaces/{args.task}.json: {error}") from None
    check_tuner(args)
    if args.warm_start:
        check_warm_start(args, space)
    if args.assessor != "none" and args.repeats > 1:
        raise UserMistake(
            f"--assessor {args.assessor} with --repeats {args.repeats}: an assessor sees one seed's curve only"
        )
    if args.assessor == "curvefitting" and fixed_epochs(space) is None:
        raise UserMistake(
            f"--assessor curvefitting: search_spaces/{args.task}.json must fix the epochs (a choice of one value), "
            "since it extrapolates to the last one; use medianstop"
        )
    check_gpus(args)


def check_tuner(args: argparse.Namespace) -> None:
    """Refuse objectives, limits or an earlier journal that the tuner cannot take. Raises UserMistake."""
    if (args.objectives or args.limit) and args.tuner not in WITH_AIMS:
        raise UserMistake(f"--objectives and --limit need --tuner {' or '.join(WITH_AIMS)}, not {args.tuner}")
    if tested := [name for name in args.aim.metrics if name.startswith("test_")]:
        raise UserMistake(f"{tested[0]} is no objective and no limit: nothing is chosen by the test part")
    if args.warm_start and args.tuner not in WITH_JOURNAL:
        raise UserMistake(f"--warm-start needs --tuner {' or '.join(WITH_JOURNAL)}, not {args.tuner}")


def check_warm_start(args: argparse.Namespace, space: dict) -> None:
    """Refuse an earlier experiment of which nothing fits the search space. Raises UserMistake."""
    from tuners.asktell import FAILED, WITH_DEFAULT

    earlier = args.experiments / args.warm_start
    if not (earlier / "journal.jsonl").is_file():
        raise UserMistake(f"--warm-start {args.warm_start}: {earlier} has no journal.jsonl")
    ended = (entry for entry in read_journal(earlier / "journal.jsonl") if entry.get("status") in WITH_DEFAULT + FAILED)
    trials = [entry.get("parameters") or {} for entry in ended]
    fitting = sum(fits(space, parameters) for parameters in trials)
    if not fitting:
        raise UserMistake(
            f"--warm-start {args.warm_start}: none of its {len(trials)} trials fits the search space of {args.task}"
        )
    if said := resume.skipped_lines(earlier):
        print(f"note: --warm-start {args.warm_start}: {said}")
    if fitting < len(trials):
        print(f"note: {fitting} of the {len(trials)} trials of {args.warm_start} fit the search space; no others count")


def check_gpus(args: argparse.Namespace) -> None:
    """Find the GPUs for the trials, sets args.gpu_names. Raises UserMistake where they are too few."""
    if not args.gpus:
        if args.trials_per_gpu > 1:
            raise UserMistake(f"--trials-per-gpu {args.trials_per_gpu} needs --gpus")
        return
    if args.machines:
        raise UserMistake(f"--gpus {args.gpus} with --machines: each machine's number of GPUs stands in the file")
    if args.dask:
        raise UserMistake(f"--gpus {args.gpus} with --dask: give --device cuda; a worker's GPU is its environment's")
    args.gpu_names = choose_gpus(args.gpus)
    if args.concurrency > args.gpus * args.trials_per_gpu:
        raise UserMistake(
            f"--concurrency {args.concurrency} with --gpus {args.gpus} --trials-per-gpu {args.trials_per_gpu}: "
            f"they take {args.gpus * args.trials_per_gpu} trials at a time"
        )


def fixed_epochs(space: dict) -> int | None:
    """Return the number of epochs where the search space fixes it."""
    values = space.get("epochs", {}).get("_value", [])
    return values[0] if len(values) == 1 else None


def check_folder(args: argparse.Namespace) -> None:
    """Find a used id, or a folder that cannot be written, before the start. Raises UserMistake."""
    try:
        args.experiments.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserMistake(f"--experiments {args.experiments}: {error.strerror}") from None
    if not os.access(args.experiments, os.W_OK):
        raise UserMistake(f"--experiments {args.experiments}: no permission to write there")
    if args.id and not args.resume and (args.experiments / args.id).exists():
        raise UserMistake(f"--id {args.id}: {args.experiments / args.id} exists already; choose another id")


def end_leftovers(args: argparse.Namespace) -> None:
    """End what a killed search has left running."""
    from runner import processes

    for identifier in processes.end_leftovers(args.experiments):
        print(f"note: what was still running of experiment {identifier} has been ended; its nni_main.py is gone")


def check_home() -> None:
    """Find out that NNI cannot write its list of experiments, without which its manager dies. Raises UserMistake."""
    folder = Path(os.path.expanduser("~"), "nni-experiments")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        if (folder / ".experiment").exists():
            (folder / ".experiment").open("a").close()
    except OSError as error:
        raise UserMistake(
            f"HOME: NNI cannot write its list of experiments in {folder} ({error.strerror}); set HOME to a folder that "
            "can be written, or use --headless"
        ) from None


def check_nni_can_start(args: argparse.Namespace) -> None:
    """Find a taken port, another NNI or a home that it cannot write. Raises UserMistake."""
    from runner.manager import check_nni
    from runner.ports import next_free_port, port_is_free

    check_home()
    if args.port is not None and not port_is_free(args.port):
        raise UserMistake(f"--port {args.port} is in use; {next_free_port(args.port)} is free")
    try:
        check_nni()
    except RuntimeError as error:
        raise UserMistake(str(error)) from None


def check_headless(args: argparse.Namespace) -> None:
    """Refuse what needs NNI's manager, and a Dask cluster that cannot be had. Raises UserMistake."""
    needing = {"assessor": args.assessor != "none", "port": args.port, "keep": args.keep, "machines": args.machines}
    if flags := [f"--{name}" for name, given in needing.items() if given]:
        raise UserMistake(f"{flags[0]} needs NNI's manager, which --headless does without: leave one of them out")
    if args.dask and args.tensorboard:
        raise UserMistake("--tensorboard with --dask: the logs would stay with the workers; leave one of them out")
    if args.dask:
        from runner.dask_slots import check_cluster, is_open

        if is_open(args.dask):
            print(
                f"note: --dask {printable(args.dask)} is not encrypted, and whoever reaches its ports can run code as "
                "you; tls:// with certificates in Dask's configuration prevents that"
            )
        check_cluster(args.dask, ROOT, args.data_dir)


def check_machines(args: argparse.Namespace) -> None:
    """Read --machines and look at each; sets args.machines to the list, and the concurrency. Raises UserMistake."""
    import train_hpo
    from runner import machines
    from runner.machine_checks import check_code_folder, check_machines, packages_for

    args.machines = machines.read_machines(args.machines)
    gpus = sum(machine.gpus for machine in args.machines)
    if gpus and (args.concurrency or 1) > gpus:
        raise UserMistake(f"--concurrency {args.concurrency}: the machines have {gpus} GPUs, each takes one trial")
    check_code_folder(ROOT, args.machines)
    packages = packages_for(train_hpo.params_module(split_task(args.task)[0]), args.tonic)
    found, notes = check_machines(args.machines, packages)
    for note in notes:
        print(f"note: {note}; the same parameters may give other figures there")
    least = min(min(each["cores"], MOST_CONCURRENT) for each in found)
    args.concurrency = args.concurrency or gpus or least * len(found)


def reserve_folder(args: argparse.Namespace) -> None:
    """Make the experiment's folder, which no other search can then take; sets args.id where none was given.

    Raises UserMistake where another search has taken the id meanwhile.
    """
    started = f"{args.task[:15]}-{time.strftime('%y%m%d-%H%M%S')}"
    names = [args.id] if args.id else [started, *(f"{started}-{number}" for number in range(2, 10))]
    for name in names:
        try:
            (args.experiments / name).mkdir(mode=0o700)  # parameters, weights and errors are the owner's
        except FileExistsError:
            continue
        args.id = name
        return
    raise UserMistake(f"--id {names[0]}: {args.experiments / names[0]} exists already; choose another id")
