"""The address of NNI's manager, which begins with a secret: who does not know it can neither read nor steer a search.

    secret = new_secret(port)                  # of the manager that is about to listen there; see guard.js
    keep_address(folder, address_of(port))     # in the one file that holds it, which only its owner can read
    read_address(folder)                       # for nni_main.py --list

NNI's launcher never gets to know the secret, since it would write it to a command line and to ~/nni-experiments.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from runner.channel import send

FILE = "web_ui_address"
_secrets: dict[int, str] = {}  # port -> secret of the manager that this process has started there


def new_secret(port: int) -> str:
    """Draw a secret of 128 bits for a manager at `port`, and use it from now on."""
    _secrets[port] = secrets.token_hex(16)
    return _secrets[port]


def address_of(port: int) -> str:
    """Return the address of the manager's web UI."""
    return f"http://127.0.0.1:{port}/{_secrets[port]}"


def keep_address(folder: Path, address: str) -> None:
    """Write the address to a file of its own, of mode 600, in the experiment's folder. Raises OSError."""
    forget_address(folder)
    handle = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w") as file:
        file.write(address + "\n")


def read_address(folder: Path) -> str | None:
    """Return the address of the manager that runs an experiment; None if there is none."""
    try:
        return (folder / FILE).read_text().strip() or None
    except OSError:
        return None


def forget_address(folder: Path) -> None:
    """Remove the file of an address that leads nowhere any more."""
    (folder / FILE).unlink(missing_ok=True)


def ask(method: str, port: int | None, api: str, data=None, prefix: str | None = None):
    """Send a request to a manager that this process has started: stands for nni.experiment.rest.request.

    Returns what the JSON of the answer holds, None for an empty one. Raises OSError with the reason; NNI's own would
    name the address, in its log too.
    """
    from nni.experiment import rest

    if port not in _secrets:
        raise ConnectionError("the experiment is not running")
    answer = send(method.upper(), f"{address_of(port)}/api/v1/nni/{api.strip('/')}", data, rest.timeout)
    if not 200 <= answer.status_code < 300:
        raise ConnectionError(f"NNI's manager answers {answer.status_code}: {answer.text[:500]}")
    return answer.json() if answer.text and method.lower() in ("get", "post") else None
