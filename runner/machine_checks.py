"""What each of several machines lacks, found out before a search: login, host key, Python, packages, tunnel, space.

    found, notes = check_machines(read_machines(path), packages_for("models.rsnn", None))

Nothing is changed on a machine. It is looked at by OpenSSH's own client with the options that NNI's will have.
"""

from __future__ import annotations

import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from runner.flags import UserMistake
from runner.machines import KNOWN_HOSTS, Machine, host_keys, known_hosts_files, run_program, ssh_words
from runner.manager import NNI_VERSION

LEAST_PYTHON = (3, 11)
LEAST_FREE = 500 * 1024**2  # bytes, in the home folder of a machine: NNI works in ~/nni-experiments
MOST_FILES, MOST_BYTES = 2000, 300 * 1024**2  # of the code folder, by NNI
TRIAL_PACKAGES = ("nni", "numpy", "scikit-learn")  # that every trial imports
PACKAGES_OF = {"simulator": ("numba",), "models": ("torch", "snntorch")}  # ... and those by where their Params are

# Runs on each machine, by its Python, be it an old one.
LOOK = """
import json, os, shutil, subprocess, sys
asked = json.loads(%r)
found = {"python": list(sys.version_info[:3]), "cores": len(os.sched_getaffinity(0)), "versions": {}, "listening": []}
if sys.version_info >= (3, 8):
    from importlib import metadata
    for name in asked["packages"]:
        try:
            found["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
found["data"] = not asked["data"] or os.path.isdir(asked["data"])
found["free"] = shutil.disk_usage(os.path.expanduser("~")).free
found["gpus"] = 0
if shutil.which("nvidia-smi"):
    lines = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE).stdout.splitlines()
    found["gpus"] = sum(line.startswith(b"GPU ") for line in lines)
for name in "/proc/net/tcp", "/proc/net/tcp6":
    if os.path.exists(name):
        with open(name) as file:
            for line in list(file)[1:]:
                address, port = line.split()[1].split(":")
                if int(port, 16) == asked["port"] and line.split()[3] == "0A":
                    found["listening"].append(address)
print(json.dumps(found))
"""
LOOPBACKS = ("0100007F", "00000000000000000000000001000000")

# Lists what NNI would pack, by NNI's own reading of .nniignore.
LIST_FILES = """
const [root, modules] = process.argv.slice(1), fs = require('fs'), path = require('path');
const file = path.join(root, '.nniignore'), rules = require(path.join(modules, 'ignore'))();
if (fs.existsSync(file)) rules.add(fs.readFileSync(file, 'utf8'));
const walk = folder => fs.readdirSync(path.join(root, folder)).forEach(entry => {
    const name = path.join(folder, entry), stats = fs.lstatSync(path.join(root, name)), inner = stats.isDirectory();
    if (rules.ignores(name + (inner ? '/' : ''))) return;
    if (inner) walk(name); else console.log(stats.size + ' ' + JSON.stringify(name));
});
walk('');
"""


def packages_for(module: str, tonic: str | None) -> tuple[str, ...]:
    """Return the packages that a trial needs, by the module that its Params are in, such as "models.rsnn"."""
    own = PACKAGES_OF.get(module.partition(".")[0], ())
    return (*TRIAL_PACKAGES, *own, *(("tonic",) if tonic else ()))


def check_machines(machines: list[Machine], packages: tuple[str, ...]) -> tuple[list[dict], list[str]]:
    """Look at all machines at once. Returns what was found on each, and lines on what differs from here.

    Raises UserMistake with one line a machine that cannot be used. Nothing is changed on them.
    """
    with ThreadPoolExecutor(len(machines)) as pool:
        found = list(pool.map(lambda machine: _look_at(machine, packages), machines))
    if wrong := [f"{m.name}: {what}" for m, what in zip(machines, found, strict=True) if isinstance(what, str)]:
        raise UserMistake("--machines: " + "\n    ".join(wrong))
    mistakes, notes = [], []
    for machine, what in zip(machines, found, strict=True):
        if missing := _missing(machine, what, packages):
            mistakes.append(f"{machine.name}: {'; '.join(missing)}")
        notes += [f"{machine.name} has {line}" for line in _differences(what, packages)]
    if mistakes:
        raise UserMistake("--machines: " + "\n    ".join(mistakes))
    return found, notes


def _look_at(machine: Machine, packages: tuple[str, ...]) -> dict | str:
    """Log in, open a tunnel as NNI will, look round. Returns what was found, or why that could not be done."""
    if not host_keys(machine):
        files = " ".join(known_hosts_files(machine)) or KNOWN_HOSTS[0]
        return f"its host key is not in {files}; ssh there once, or add what ssh-keyscan -p {machine.port} says"
    port = random.randint(20000, 32000)
    script = LOOK % json.dumps({"packages": packages, "data": machine.data, "port": port})
    words = ssh_words(machine, "-R", f"127.0.0.1:{port}:127.0.0.1:9")
    done = run_program([*words, f"{machine.python}/python -"], input=script)
    if done.returncode == 255:
        return _ssh_reason(done.stderr)
    if done.returncode in (126, 127):
        return f"there is no Python at {machine.python}/python"
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        return f"its login shell or Python says what NNI could not read: {said[0]}"
    if any(address not in LOOPBACKS for address in found["listening"]):
        return "its SSH server opens tunnels to the network (GatewayPorts yes); set GatewayPorts no"
    if run_program([*ssh_words(machine, "-s"), "sftp"]).returncode:
        return "its SSH server has no sftp subsystem"
    return found


def _ssh_reason(said: str) -> str:
    """Return one line on why ssh failed."""
    lines = [line for line in said.strip().splitlines() if line.strip()] or ["ssh failed without a word"]
    if "HOST IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
        return "its host key is not the known one: another machine may answer in its place; nothing was sent to it"
    if "remote port forwarding failed" in said or "forwarding" in lines[-1]:
        return "its SSH server refuses the tunnel to the manager (AllowTcpForwarding no)"
    return lines[-1]


def _missing(machine: Machine, found: dict, packages: tuple[str, ...]) -> list[str]:
    """Return what a machine lacks."""
    lacks = [f"{name} is not installed in {machine.python}" for name in packages if name not in found["versions"]]
    if tuple(found["python"]) < LEAST_PYTHON:
        lacks = [f"Python {_dotted(found['python'])} is older than {_dotted(LEAST_PYTHON)}"]
    if (version := found["versions"].get("nni", NNI_VERSION)) != NNI_VERSION:
        lacks.append(f"nni must be {NNI_VERSION}, not {version}")
    if not found["data"]:
        lacks.append(f"there is no data folder {machine.data}")
    if found["free"] < LEAST_FREE:
        lacks.append(
            f"only {found['free'] // 1024**2} MB are free in the home folder; {LEAST_FREE // 1024**2} are needed"
        )
    if found["gpus"] < machine.gpus:
        lacks.append(f"nvidia-smi shows {found['gpus']} GPUs, not {machine.gpus}")
    return lacks


def _differences(found: dict, packages: tuple[str, ...]) -> list[str]:
    """Return what differs from this machine, so that the same parameters may give other figures there."""
    lines = []
    if found["python"][:2] != list(sys.version_info[:2]):
        lines.append(f"Python {_dotted(found['python'])}, not {_dotted(sys.version_info[:3])}")
    for name in packages:
        there, here = found["versions"].get(name), _version(name)
        if there and here and there != here:
            lines.append(f"{name} {there}, not {here}")
    return lines


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _dotted(version) -> str:
    return ".".join(map(str, version))


def check_code_folder(root: Path, machines: list[Machine]) -> None:
    """Refuse a code folder over NNI's limits, or with a private key in it, before it is packed.

    Raises UserMistake that names the largest files, or the key.
    """
    import nni_node

    nni = Path(nni_node.__path__[0])
    listed = run_program([str(nni / "node"), "-e", LIST_FILES, str(root), str(nni / "node_modules")])
    if listed.returncode:
        raise UserMistake(f"--machines: {root} cannot be packed: {listed.stderr.strip()}")
    lines = [line.partition(" ") for line in listed.stdout.splitlines()]
    sizes = {json.loads(name): int(size) for size, _, name in lines}
    for key in {Path(machine.key).resolve() for machine in machines} & {(root / name).resolve() for name in sizes}:
        raise UserMistake(f"--machines: the private key {key} would be sent to all machines; keep it elsewhere")
    if len(sizes) > MOST_FILES or sum(sizes.values()) > MOST_BYTES:
        largest = sorted(sizes, key=sizes.get, reverse=True)[:3]
        named = ", ".join(f"{name} ({sizes[name] / 1024**2:.1f} MB)" for name in largest)
        raise UserMistake(
            f"--machines: {root} has {len(sizes)} files of {sum(sizes.values()) / 1024**2:.0f} MB to send, NNI takes "
            f"{MOST_FILES} of {MOST_BYTES // 1024**2} MB; name what trials do not need in .nniignore; largest: {named}"
        )
