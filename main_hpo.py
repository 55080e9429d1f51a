"""One trial: parameters in, metrics out. NNI starts it for each configuration; it also runs alone, without NNI:

python main_hpo.py --task eprop_digits                              # the task's defaults
python main_hpo.py --task eprop_digits --params '{"lr": 0.01}'      # some of them changed
python main_hpo.py --task eprop_digits --check                      # validate the search space, train one epoch
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from runner.channel import protect_trial
from runner.flags import OneLineParser, UserMistake, add_trial_flags, thread_environment
from runner.limited import run_limited
from runner.origin import PACKAGES, code_hash, fingerprint, version
from runner.parents import die_with_parent
from runner.records import WITH_DEFAULT, finite, is_finite, is_number, pack_model, pack_record, told, write_record
from runner.tensorboard import tensorboard_log
from runner.texts import one_line, take_any_terminal
from search_spaces import check_space, default_parameters, flatten, load_space, make_params, split_task

ROOT = Path(__file__).resolve().parent
CHECK_SECONDS = 20  # the epoch of --check is cut off after so long
INSIDE_NNI = "NNI_TRIAL_JOB_ID" in os.environ


class Job(NamedTuple):
    """What a trial has to do."""

    parameters: dict[str, Any]  # flat, as received
    params: Any  # the same as the objective's Params
    train: Callable  # train(params, splits, report, device, seed) -> Result
    splits: Any  # setup_hpo.Splits
    device: str  # cpu | cuda
    data: str  # the fingerprint of what the loader returned
    rebuild: Callable | None = None  # of the objective


def main() -> int:
    """Run one trial. Returns the exit status: 0, 2 for a user's mistake, 1 for a trial that failed."""
    take_any_terminal()
    args = parse_arguments()
    os.environ.update(thread_environment(args.threads))  # before anything imports a numerical library
    signal.signal(signal.SIGINT, _interrupt_once)
    if INSIDE_NNI:
        die_with_parent()  # a manager that was killed would leave it behind
    if not args.check:
        return trial(args)
    status = run_limited(lambda begin: trial(args, begin), CHECK_SECONDS)
    if status is None:
        say_checked(args, f"one epoch with the defaults takes longer than {CHECK_SECONDS} s")
    return status or 0


def trial(args: argparse.Namespace, begin: Callable[[], None] = lambda: None) -> int:
    """Do what the command line says; returns the exit status. `begin` is called before the epoch of --check."""
    record = new_record(args)

    def given() -> tuple[dict, bool]:
        make_folder(args.out)
        return receive(args, record)

    model, exit_status = attempt(args, record, given, begin=begin)
    only_looks = args.check or args.fingerprint
    if record["status"] != "interrupted" and (only_looks or (exit_status == 2 and not INSIDE_NNI)):
        return exit_status
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what there is now gets written
    deliver(args, record, model)
    if record["status"] == "interrupted":  # an exit status of 0 would read as success
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return exit_status


def run_trial(words: tuple[str, ...], start: dict) -> tuple[bytes, tuple[str, bytes] | None]:
    """Run one trial inside this process, without NNI; return the content of its record.json and its file of weights.

    `words` is the command line, `start` says what to try: {"trial", "parameter_id", "parameters"}. A process that
    runs one trial after the other loads the data once. What goes wrong stands in the record.
    """
    args = _arguments(words)
    if args.out is not None:  # of all trials; each has its folder there for TensorBoard's logs
        args = argparse.Namespace(**vars(args) | {"out": args.out / start["trial"]})
    record = new_record(args) | {"trial": start["trial"], "parameter_id": start["parameter_id"]}
    record["parameters"] = flatten(start["parameters"])
    handled = threading.current_thread() is threading.main_thread()
    if handled:
        signal.signal(signal.SIGINT, _interrupt_once)
    model, _ = attempt(args, record, lambda: (start["parameters"], True), _load)
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    complete(record)
    return pack_record(record), pack_model(model)


@lru_cache
def _arguments(words: tuple[str, ...]) -> argparse.Namespace:
    return parse_arguments(list(words))


def load(dataset: str, args: argparse.Namespace) -> tuple[Any, str]:
    """Return the splits of a dataset and the fingerprint of what its loader returned. Raises as setup_hpo does."""
    import setup_hpo

    data = setup_hpo.load(dataset, args.data_dir, args.tonic)
    return setup_hpo.split(dataset, data, args.test_seed, args.split_seed), fingerprint(data)


def _load(dataset: str, args: argparse.Namespace) -> tuple[Any, str]:
    return _load_once(dataset, args.data_dir, args.tonic, args.test_seed, args.split_seed)


@lru_cache(maxsize=1)
def _load_once(dataset, data_dir, tonic, test_seed, split_seed) -> tuple[Any, str]:
    """The data of a process's last trial, made read-only, since the next trial gets the same arrays."""
    asked = {"data_dir": data_dir, "tonic": tonic, "test_seed": test_seed, "split_seed": split_seed}
    splits, print_of_data = load(dataset, argparse.Namespace(**asked))
    for data in splits:
        data.x.flags.writeable = data.y.flags.writeable = False
    return splits, print_of_data


def attempt(
    args: argparse.Namespace, record: dict, given: Callable, load_data: Callable = load, begin: Callable = lambda: None
) -> tuple[dict | None, int]:
    """Prepare and run a trial, and enter in the record how it went. Returns what model.pt holds, and the exit status.

    `given()` returns the parameters and whether they are complete; `load_data` stands in for `load`.
    """
    try:
        job = prepare(args, *given(), load_data)
        if args.check or args.fingerprint:
            print(json.dumps({"data": job.data}), flush=True)
            return None, check(args, job, begin) if args.check else 0
        record |= {"parameters": job.parameters, "params": dataclasses.asdict(job.params), "device": job.device}
        record["data"] = job.data
        return run(job, args, record), 0
    except KeyboardInterrupt:
        record |= {"status": "interrupted", "cause": "interrupted before its first result"}
        return None, 0
    except UserMistake as mistake:
        record |= {"status": "failed", "cause": str(mistake)}
        print(f"main_hpo.py: {one_line(mistake)}", file=sys.stderr)
        return None, 2
    except Exception as error:
        record |= {"status": "failed", "cause": f"{type(error).__name__}: {error}"}
        traceback.print_exc()
        return None, 1


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Run one trial.", epilog="Without NNI it prints its result as one line of JSON.")
    parser.add_argument("--task", required=True, help="the stem of a file in search_spaces/")
    parser.add_argument("--params", default="{}", help="JSON object of parameters, on top of the task's defaults")
    parser.add_argument("--check", action="store_true", help="validate the search space and train one epoch, no more")
    parser.add_argument("--fingerprint", action="store_true", help="print a fingerprint of the data, and do no more")
    parser.add_argument("--metrics", default="", help="of --check: names that the result must have, a comma between")
    parser.add_argument("--out", type=Path, help="folder for record.json and model.pt (default: write none)")
    add_trial_flags(parser)
    return parser.parse_args(arguments)


def new_record(args: argparse.Namespace) -> dict:
    """Return the record of a trial that has not begun."""
    return {
        "trial": os.environ.get("NNI_TRIAL_JOB_ID"),
        "parameter_id": None,
        "task": args.task,
        "tonic": args.tonic,
        "code": code_hash(ROOT),
        "data": None,  # fingerprint of what the loader returned
        "parameters": {},  # as received
        "params": {},  # with the defaults that were in force
        "status": "failed",
        "cause": None,
        "result": {},
        "seeds": {
            "seed": args.seed,
            "split_seed": args.split_seed,
            "test_seed": args.test_seed,
            "repeats": args.repeats,
        },
        "repeats": [],
        "curve": [],  # what the first seed reported after each epoch
        "confusion": None,  # of the first seed on the test part: rows are the true classes, columns the predicted
        "right": None,  # of the first seed: a bit for each test sample, in hexadecimal digits
        "started": time.time(),
    }


def make_folder(out: Path | None) -> None:
    """Make the folder of --out before the training that is to be kept there. Raises UserMistake."""
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserMistake(f"--out {out}: {error.strerror}") from None


def receive(args: argparse.Namespace, record: dict) -> tuple[dict, bool]:
    """Return the given parameters, and whether they are complete (from NNI) or to be put on top of the defaults."""
    if INSIDE_NNI:
        protect_trial()
        import nni

        given = nni.get_next_parameter()
        record["parameter_id"] = nni.trial._params["parameter_id"]
        record["parameters"] = flatten(given)
        return given, True
    try:
        given = json.loads(args.params)
    except (ValueError, RecursionError) as error:
        raise UserMistake(f"--params is not valid JSON ({error}): {args.params}") from None
    if not isinstance(given, dict):
        raise UserMistake(f"--params must be a JSON object such as '{{\"lr\": 0.01}}', not {args.params}")
    return given, False


def prepare(args: argparse.Namespace, given: dict, complete: bool, load_data: Callable = load) -> Job:
    """Turn the command line into a Job. Raises UserMistake."""
    import setup_hpo
    import train_hpo
    from loaders import MissingData

    try:
        objective_name, dataset = split_task(args.task)
        params_class = train_hpo.params_class(objective_name)
        objective = train_hpo.find_objective(objective_name)
        space = load_space(args.task)
        given = flatten(given)
        parameters = given if complete else default_parameters(space, params_class, given) | given
        params = make_params(params_class, parameters)
        splits, data = load_data(dataset, args)
        if (kind := train_hpo.kind_of(splits.train)) not in objective.kinds:
            raise ValueError(f"{objective_name} takes {' or '.join(objective.kinds)}, but {dataset} has {kind}")
        if args.check:
            check_space(space, params_class, lambda params: objective.check(params, splits.train))
        objective.check(params, splits.train)
        device = setup_hpo.pick_device(args.device)
        return Job(parameters, params, objective.train, splits, device, data, objective.rebuild)
    except MissingData as missing:
        raise UserMistake(str(missing)) from None
    except (TypeError, ValueError, OverflowError) as mistake:
        raise UserMistake(f"{args.task}: {mistake}") from None


def run(job: Job, args: argparse.Namespace, record: dict) -> dict | None:
    """Train with each seed, fill in the record, return what model.pt holds: the weights of the first seed.

    Only the first seed's epochs are reported as intermediate results. Seeds that were complete before an interruption
    count, the interrupted one then does not. Raises ValueError for a `default` that no tuner could use.
    """
    results, interrupted = train_seeds(job, args, reporter(args, record))
    if results[0].predicted is not None:
        record["class_names"] = list(job.splits.test.class_names)
        record["confusion"] = confusion(job.splits.test.y, results[0].predicted, len(record["class_names"]))
        pairs = zip(job.splits.test.y, results[0].predicted, strict=True)
        record["right"] = bits_of([int(true) == int(predicted) for true, predicted in pairs])
    record["repeats"] = [result.metrics for result in results] if args.repeats > 1 else []
    record["result"] = mean_metrics([result.metrics for result in results])
    default = record["result"].get("default")
    if not is_finite(default):
        raise ValueError(f"the objective must return a finite number as 'default', not {default!r}")
    status = next((result.status for result in results if result.status != "ok"), "ok")
    record["status"] = "interrupted" if interrupted else status
    return results[0].model


def train_seeds(job: Job, args: argparse.Namespace, report: Callable[[dict], None]) -> tuple[list, bool]:
    """Train one seed after the other; return their Results, at least one, and whether they were interrupted."""
    from setup_hpo import seed_everything

    results = []
    for seed in range(args.seed, args.seed + args.repeats):
        seed_everything(seed)  # for objectives that draw from the global generators
        try:
            result = job.train(job.params, job.splits, _ignore if results else report, job.device, seed)
        except KeyboardInterrupt:
            if not results:
                raise
            return results, True
        if result.status == "interrupted":
            return results or [result], True
        results.append(result)
    return results, False


def mean_metrics(metrics: list[dict]) -> dict:
    """Return the mean over seeds of every number that differs between them; what is no number is the first seed's."""
    means = dict(metrics[0])
    for name, value in means.items():
        values = [other[name] for other in metrics]
        if is_number(value) and len(set(values)) > 1:
            means[name] = sum(values) / len(values)
    return means


def reporter(args: argparse.Namespace, record: dict) -> Callable[[dict], None]:
    """Return what takes an epoch's metrics: it keeps them in the record, logs them for TensorBoard and shows them."""
    log = tensorboard_log(output_folder(args)) if args.tensorboard else _ignore

    def report(metrics: dict) -> None:
        record["curve"].append(finite(metrics))
        log(finite(metrics))
        report_epoch(metrics)

    return report


def confusion(true, predicted, classes: int) -> list[list[int]]:
    """Count the samples of each true class (rows) by their predicted class (columns)."""
    counts = [[0] * classes for _ in range(classes)]
    for row, column in zip(true, predicted, strict=True):
        counts[int(row)][int(column)] += 1
    return counts


def bits_of(right) -> str:
    """Pack truth values (B,) into hexadecimal digits, eight to two; the first is the highest bit."""
    import numpy as np

    return np.packbits(right).tobytes().hex()


def output_folder(args: argparse.Namespace) -> Path | None:
    """Return the folder that the trial writes to; None where it writes nothing."""
    return Path(os.environ["NNI_OUTPUT_DIR"]) if INSIDE_NNI else args.out


def report_epoch(metrics: dict) -> None:
    """Show an epoch: to NNI (web UI, assessor) or, alone, on the terminal."""
    if INSIDE_NNI:
        import nni

        if "default" in finite(metrics):  # an assessor dies of anything else
            nni.report_intermediate_result(finite(metrics))
    elif sys.stderr.isatty():
        shown = "  ".join(f"{name} {value:.4g}" for name, value in finite(metrics).items())
        print(f"\r\033[K{shown}", end="", file=sys.stderr, flush=True)


def deliver(args: argparse.Namespace, record: dict, model: dict | None) -> None:
    """Print the result (alone), write the record and the weights, then tell NNI the result (inside)."""
    complete(record)
    if not INSIDE_NNI and record["result"]:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # end the line of epochs
        print(json.dumps({"status": record["status"], **record["result"]}), flush=True)
    if (out := output_folder(args)) is not None:
        write_record(out, record, model)
    if INSIDE_NNI and record["status"] in WITH_DEFAULT:
        import nni

        nni.report_final_result(told(record["result"]))


def complete(record: dict) -> None:
    """Enter how long the trial took, and with what it ran."""
    record |= {"seconds": time.time() - record["started"], "versions": _versions()}
    if "torch" in sys.modules:
        record["torch_threads"] = sys.modules["torch"].get_num_threads()


def check(args: argparse.Namespace, job: Job, begin: Callable[[], None]) -> int:
    """Train one epoch with the job's parameters and say so; the time counts from `begin`. What is wrong is raised."""
    params = job.params
    if hasattr(params, "epochs"):
        params = dataclasses.replace(params, epochs=1)
    begin()
    started = time.time()
    result = job.train(params, job.splits, _ignore, job.device, args.seed)
    check_rebuilt(job, result.model)
    check_metrics(result.metrics, [name for name in args.metrics.split(",") if name])
    say_checked(args, f"one epoch with the defaults took {time.time() - started:.1f} s, status {result.status}")
    return 0


def check_rebuilt(job: Job, model: dict | None) -> None:
    """Raise UserMistake if the net that the objective rebuilds does not give a class for each sample."""
    if job.rebuild is None:
        return
    few = job.splits.validation.x[:8]
    shape = getattr(job.rebuild(model).predict(few), "shape", None)
    if shape is None or tuple(shape) != (len(few),):
        raise UserMistake(f"rebuild(model).predict(x) must return an array of {len(few)} classes, not one of {shape}")


def say_checked(args: argparse.Namespace, outcome: str) -> None:
    """Print the line with which --check ends well."""
    print(f"{args.task}: search space and data are in order; {outcome}")


def check_metrics(metrics: dict, wanted: list[str]) -> None:
    """Raise UserMistake where a metric is not among a result's numbers, or may not be chosen by."""
    known = [name for name in told(metrics)]
    for name in wanted:
        if name not in known:
            raise UserMistake(f"there is no metric {name!r} to search by; choose from: {', '.join(known)}")


def _interrupt_once(signum, frame) -> None:
    """A second SIGINT does not cut off what the first one made the trial write."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _ignore(metrics: dict) -> None:
    pass


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        if package in sys.modules:
            versions[package] = version(package)
    return versions


if __name__ == "__main__":
    sys.exit(main())
