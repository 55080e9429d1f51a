"""Several machines by SSH: machines.json read, NNI set up for the machines that it names.

    [{"host": "lab2", "user": "ada", "key": "~/.ssh/id_ed25519", "python": "/home/ada/venv/bin", "data": "/data",
      "port": 22, "gpus": 0, "known_hosts": "~/.ssh/known_hosts"}]

`python` is the folder of the machine's Python; `port`, `data`, `gpus` and `known_hosts` may be left out.
machine_checks.py looks at the machines before the start; what happens during the search is remote.js's matter.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import stat
import subprocess
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from runner.flags import UserMistake
from runner.records import write_atomic

KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
KEY_TYPES = re.compile("ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa")  # that NNI's SSH client can check
NAME = re.compile(r"[A-Za-z0-9_][\w.:-]*")  # of hosts and users
FOLDER = re.compile(r"/[\w./+@-]*")  # NNI puts the Python folder into commands, unquoted
LOGIN_SECONDS, CHECK_SECONDS = 10, 90


@dataclass(frozen=True)
class Machine:
    """One machine of machines.json."""

    host: str
    user: str
    key: str  # file of the private key
    python: str  # folder of its Python there
    port: int = 22
    data: str | None = None  # folder of the datasets there
    gpus: int = 0  # one trial on each
    known_hosts: str | None = None  # file; None: OpenSSH's own

    @property
    def name(self) -> str:
        """What events and messages call it."""
        return f"{self.host}:{self.port}"


def read_machines(path: Path) -> list[Machine]:
    """Read machines.json. Raises UserMistake with one line that names file, machine, field and rule."""
    try:
        entries = json.loads(path.read_text())
    except OSError as error:
        raise UserMistake(f"--machines {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserMistake(f"--machines {path} is not valid JSON: {error}") from None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserMistake(f"--machines {path} must be a list of at least one machine, each a JSON object")
    machines = []
    for number, entry in enumerate(entries, 1):
        try:
            machines.append(_machine(entry, path.parent))
        except ValueError as mistake:
            raise UserMistake(f"--machines {path}, machine {number}: {mistake}") from None
    for name in {machine.name for machine in machines if [other.name for other in machines].count(machine.name) > 1}:
        raise UserMistake(f"--machines {path}: {name} is there more than once")
    if len({machine.gpus > 0 for machine in machines}) > 1:
        raise UserMistake(
            f"--machines {path}: either all machines have gpus or none, since each trial gets one or none"
        )
    return machines


def _machine(entry: dict, folder: Path) -> Machine:
    """Make a Machine of an entry; files are looked for in `folder`. Raises ValueError."""
    known = {field.name: field for field in fields(Machine)}
    if unknown := sorted(set(entry) - set(known)):
        raise ValueError(f"unknown field {unknown[0]!r}; choose from: {', '.join(known)}")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in entry]:
        raise ValueError(f"{missing[0]!r} is missing")
    for name in ("port", "gpus"):
        lowest, highest = {"port": (1, 65535), "gpus": (0, 64)}[name]
        value = entry.get(name, lowest)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"{name} must be an integer from {lowest} to {highest}, not {value!r}")
    for name, rule in {"host": NAME, "user": NAME, "python": FOLDER, "data": re.compile("/.*")}.items():
        value = entry.get(name)
        if (name in entry or name != "data") and not (isinstance(value, str) and rule.fullmatch(value)):
            plain = "a plain name" if rule is NAME else "an absolute folder"
            raise ValueError(f"{name} must be {plain}, without blanks or special characters, not {value!r}")
    files = {name: _file(name, entry[name], folder) for name in ("key", "known_hosts") if name in entry}
    _check_key(files["key"])
    return Machine(**entry | {"python": entry["python"].rstrip("/") or "/"} | files)


def _file(name: str, value, folder: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a file, not {value!r}")
    path = folder.resolve() / Path(value).expanduser()
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError(f"{name}: {path} is not a file that can be read")
    return str(path)


def _check_key(path: str) -> None:
    """Refuse a private key that others can read, or that only a passphrase opens. Raises ValueError."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise ValueError(f"key: {path} can be read by others (permissions {mode:o}); chmod 600 {shlex.quote(path)}")
    done = run_program(["ssh-keygen", "-y", "-P", "", "-f", path])
    if done.returncode:
        reason = "needs a passphrase, for which NNI cannot ask" if "passphrase" in done.stderr else "is no private key"
        raise ValueError(f"key: {path} {reason}")


def run_program(words: list[str], **options) -> subprocess.CompletedProcess:
    """Run a program of OpenSSH. Raises UserMistake where there is none."""
    try:
        options = {"stdin": subprocess.DEVNULL} | options if "input" not in options else options
        return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=CHECK_SECONDS, **options)
    except FileNotFoundError:
        raise UserMistake(f"--machines needs OpenSSH's {words[0]}, which is not installed here") from None
    except subprocess.TimeoutExpired as expired:
        return subprocess.CompletedProcess(words, 255, "", f"no answer within {expired.timeout} s")


def host_keys(machine: Machine) -> list[tuple[str, str]]:
    """Return (type, key in base64) of all keys by which the machine is known."""
    spec = machine.host if machine.port == 22 else f"[{machine.host}]:{machine.port}"
    lines = []
    for path in known_hosts_files(machine):
        lines += run_program(["ssh-keygen", "-F", spec, "-f", path]).stdout.splitlines()
    words = [line.split() for line in lines if line and line[0] not in "#@"]
    revoked = {line.split()[3] for line in lines if line.startswith("@revoked") and len(line.split()) > 3}
    keys = [(word[1], word[2]) for word in words if len(word) > 2 and KEY_TYPES.fullmatch(word[1])]
    return [(kind, key) for kind, key in keys if key not in revoked and base64.b64decode(key)]


def known_hosts_files(machine: Machine) -> list[str]:
    """Return the files in which the machine's host key is looked for: its own, or OpenSSH's, where they are there."""
    paths = [machine.known_hosts] if machine.known_hosts else [os.path.expanduser(path) for path in KNOWN_HOSTS]
    return [path for path in paths if os.path.exists(path)]


def ssh_words(machine: Machine, *flags: str) -> list[str]:
    """Return OpenSSH's command up to the host's command; it asks nothing and reads no configuration."""
    files = " ".join(f'"{path}"' for path in known_hosts_files(machine)) or "none"
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "IdentityAgent=none"]
    options += [f"UserKnownHostsFile={files}", "GlobalKnownHostsFile=none", f"ConnectTimeout={LOGIN_SECONDS}"]
    options += ["PreferredAuthentications=publickey", "UpdateHostKeys=no", "ExitOnForwardFailure=yes"]
    words = ["ssh", "-F", "none", "-T", "-p", str(machine.port), "-l", machine.user, "-i", machine.key]
    return words + [word for option in options for word in ("-o", option)] + [*flags, "--", machine.host]


def write_settings(path: Path, machines: list[Machine], command, environ: dict[str, str]) -> dict[str, str]:
    """Write what remote.js needs; `command(machine)` returns the words of a trial. Returns the manager's variables."""
    settings = {
        machine.name: {
            "host_keys": host_keys(machine),
            "command": shlex.join(command(machine)),
            "environ": environ | {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"},
        }
        for machine in machines
    }
    write_atomic(path, json.dumps(settings, indent=1).encode())
    return {"HPO_REMOTE": str(path)}


def configure(config, machines: list[Machine]) -> None:
    """Set NNI's ExperimentConfig("remote") up for the machines."""
    from nni.experiment import launcher
    from nni.experiment.config import RemoteMachineConfig

    config.nni_manager_ip = "127.0.0.1"  # the other end of each tunnel
    config.training_service.machine_list = [
        RemoteMachineConfig(
            host=machine.host,
            port=machine.port,
            user=machine.user,
            ssh_key_file=machine.key,
            python_path=machine.python,
            gpu_indices=list(range(machine.gpus)) or None,
            use_active_gpu=machine.gpus > 0,
        )
        for machine in machines
    ]
    if machines[0].gpus:
        config.trial_gpu_number = 1
    idle = launcher._ensure_port_idle
    # NNI also wants the next port, on which nothing listens
    launcher._ensure_port_idle = lambda port, message=None: None if message else idle(port)
