"""Who speaks to NNI's manager speaks to this user's own one only, and tells nobody its address, which holds a secret.

    protect_trial()                                       # in a trial, before nni is imported
    python -P runner/channel.py --exp_params ...          # NNI's tuner, in place of python -m nni
    send("GET", "http://127.0.0.1:8080/...", timeout=20)

When a manager is gone another user may listen at its port, and NNI's clients would connect again: they would hand over
the secret and run what they are sent (its messages can hold pickles). Hence each connection is looked at before it is
used. Nothing of this project is imported here.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import runpy
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import urlsplit

CONNECTIONS = Path("/proc/net/tcp")
ESTABLISHED, LISTENS = "01", "0A"  # as the kernel has them


class Answer(NamedTuple):
    """What a manager answers, under the names that the package requests has for it."""

    status_code: int
    text: str

    def json(self):
        """Return what the text holds. Raises ValueError."""
        return json.loads(self.text)


def check_owner(connection: socket.socket) -> None:
    """Check that who listens at the other end, on this machine, is this user. Raises ConnectionError.

    Where there is no /proc (not Linux) it is taken for granted.
    """
    if not CONNECTIONS.exists():
        return
    (host, port), own_port = connection.getpeername()[:2], connection.getsockname()[1]
    owners = _owners(host, port, own_port)
    if owners != {os.geteuid()}:
        raise ConnectionError(f"port {port} is not this user's")


def _owners(host: str, port: int, own_port: int) -> set[int]:
    """Return the ids of the users who listen at an address, or hold the other end of a connection from `own_port`."""
    packed = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}"
    owners = set()
    for line in CONNECTIONS.read_text().splitlines()[1:]:
        _, local, remote, state, _, _, _, uid, _, inode, *_ = line.split()
        if local not in (f"{packed}:{port:04X}", f"00000000:{port:04X}"):
            continue
        accepted = state == ESTABLISHED and remote.endswith(f":{own_port:04X}") and inode != "0"
        if state == LISTENS or accepted:
            owners.add(int(uid))
    return owners


def send(method: str, url: str, data=None, timeout: float | None = None) -> Answer:
    """Send a request, with `data` as JSON, and return the answer. Raises OSError with a text that names no address."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    try:
        connection.connect()
        check_owner(connection.sock)
        body = None if data is None else json.dumps(data)
        path = where.path + (f"?{where.query}" if where.query else "")
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        kind = TimeoutError if isinstance(error, TimeoutError) else ConnectionError
        raise kind(f"NNI's manager does not answer ({type(error).__name__})") from None
    finally:
        connection.close()


def protect_trial() -> None:
    """Have NNI's client in a trial use `send`, and keep the address out of its log. Before nni is imported."""
    logging.getLogger("nni.runtime.trial_command_channel.v3").setLevel(logging.WARNING)  # INFO has the address
    from nni.runtime.command_channel import http as client

    client.requests = SimpleNamespace(get=lambda url: send("GET", url), put=lambda url, json: send("PUT", url, json))


def protect_tuner() -> None:
    """Have the web socket of NNI's tuner, also when it connects again, look at who listens."""
    import websockets
    from nni.runtime.command_channel.websocket import connection

    async def connect(url: str):
        where = urlsplit(url)
        opened = socket.create_connection((where.hostname, where.port))
        try:
            check_owner(opened)
        except ConnectionError:
            opened.close()
            raise
        return await websockets.connect(url, max_size=None, sock=opened)

    connection._connect_async = connect


if __name__ == "__main__":
    protect_tuner()
    runpy.run_module("nni", run_name="__main__", alter_sys=True)
