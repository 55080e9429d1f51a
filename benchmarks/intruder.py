"""Another user of the machine who tries to read, steer and end a search; for tests and the soak test.

    with intruder({8080: 403}) as found:     # a port, and the status with which everything must be refused there
        ...                                  # a search runs
    found["answered"]                        # [] if nobody but the owner was answered
    with intruder({8080: None}) as found:    # listens at a port as soon as its manager is gone
        ...
    found["received"]                        # [] if nobody has told it anything

It runs as user 65534 and needs only Python. It begins before anything listens, and tries every word of 32 hexadecimal
digits that it finds in a command line, an environment or a file that it can read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

UID = "65534"
EVIL_TUNER = {"tuner": {"className": "evil.Evil", "codeDirectory": "/tmp"}, "maxTrialNumber": 1, "trialConcurrency": 1}
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
UPGRADE |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
API = "/api/v1/nni"
ATTEMPTS = [  # method, path, body, headers
    *[("GET", API + path, None, {}) for path in ("/experiment", "/trial-jobs", "/check-status", "/export-data")],
    ("GET", "/", None, {}),
    ("GET", "/oview", None, {}),
    ("GET", "/logs/nnimanager.log", None, {}),
    ("GET", "/data/environment", None, {}),  # TensorBoard's
    ("GET", API + "/trial-file/x/" + 9 * "..%2f" + "etc%2fshadow", None, {}),
    ("GET", API + "/trial-file/x/" + 9 * "..%252f" + "etc%252fshadow", None, {}),
    ("GET", "/logs/" + 9 * "../" + "etc/shadow", None, {}),
    ("POST", API + "/experiment", json.dumps(EVIL_TUNER), {"Content-Type": "application/json"}),
    ("POST", API + "/experiment", "{}", {"Content-Type": "text/plain", "Origin": "http://evil.example"}),
    ("POST", API + "/trial-jobs", "{}", {"Content-Type": "text/plain", "Origin": "http://evil.example"}),
    ("POST", API + "/trial-jobs", '{"weight": 7}', {"Content-Type": "application/json"}),
    ("POST", API + "/tensorboard", '{"trials": "x"}', {"Content-Type": "application/json"}),
    ("GET", API + "/experiment", None, {"Host": "rebound.example:8080"}),
    ("PUT", API + "/experiment?update_type=TRIAL_CONCURRENCY", '{"params": {}}', {"Content-Type": "application/json"}),
    ("PUT", API + "/experiment/cluster-metadata", '{"x": 1}', {"Content-Type": "application/json"}),
    ("DELETE", API + "/experiment", None, {}),
    ("DELETE", API + "/trial-jobs/x", None, {}),
    ("GET", "/env/local-env/0", None, {}),
    ("PUT", "/env/local-env/0", '{"type": "request_parameter"}', {"Content-Type": "application/json"}),
    ("OPTIONS", API + "/experiment", None, {"Origin": "http://evil.example"}),
    ("POST", API + "/experiment", "{}", {"Expect": "100-continue", "Content-Type": "application/json"}),
    ("GET", "/tuner", None, UPGRADE),
    ("GET", "/platform/remote/0", None, UPGRADE),
    ("GET", "/tuner", None, UPGRADE | {"Origin": "http://evil.example"}),
]


@contextlib.contextmanager
def intruder(ports: dict[int, int | None], *places: Path, inside: Sequence[str] = ()) -> Iterator[dict]:
    """Let another user try all attempts at `ports` again and again, and read in `places`; needs root.

    `inside` are words before the command, such as those that enter a network namespace. The dict has, in the end,
    "statuses" (how many requests were answered by which status), "answered" (the attempts that were not refused),
    "visitors" (how many connections came to a port without status) and "received" (what they sent).
    """
    arguments = json.dumps([list(ports.items()), [str(place) for place in places]])
    words = [*inside, *another_users_python(), Path(__file__).read_text(), arguments]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found = {}
    try:
        yield found
    finally:
        said, _ = process.communicate()
        found |= json.loads(said)


def another_users_python() -> list[str]:
    """Return the command with which that user runs Python code. Raises RuntimeError if there is none."""
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        words = [*user, python, "-I", "-c"]
        if subprocess.run([*words, "import http.client"], capture_output=True).returncode == 0:
            return words
    raise RuntimeError("another user finds no Python here that works (apt-get install python3)")


def main(ports: list[tuple[int, int | None]], places: list[str]) -> None:
    """Try until standard input is closed; print what came of it as JSON."""
    statuses, answered, visits = Counter(), [], []
    for port in [port for port, refusal in ports if refusal is None]:
        threading.Thread(target=squat, args=(port, visits), daemon=True).start()
    ports = [(port, refusal) for port, refusal in ports if refusal is not None]
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        for prefix in ("", *sorted(guesses(places))):
            for port, refusal in ports:
                for attempt in ATTEMPTS:
                    status, body = send(port, prefix, *attempt)
                    statuses[str(status)] += 1
                    if status not in (refusal, None):
                        answered.append([port, *attempt[:2], status, body])
    received = [text for text in visits if text]
    print(json.dumps({"statuses": statuses, "answered": answered[:20], "visitors": len(visits), "received": received}))


def squat(port: int, visits: list[str]) -> None:
    """Listen at a port as soon as it is free, and note what whoever connects sends first."""
    while True:
        try:
            server = socket.create_server(("127.0.0.1", port))
            break
        except OSError:
            time.sleep(0.002)
    while True:
        visitor, _ = server.accept()
        visitor.settimeout(2)
        try:
            visits.append(visitor.recv(300).decode(errors="replace"))
        except OSError:
            visits.append("")
        visitor.close()


def guesses(places: list[str]) -> set[str]:
    """Return what could be a secret, as the beginning of a path."""
    texts = []
    for process in Path("/proc").glob("[0-9]*"):
        texts += [read(process / "cmdline"), read(process / "environ")]
    for place in places:
        for folder, _, names in os.walk(place):
            texts += [read(Path(folder, name)) for name in names]
    return {
        f"/{word.decode()}" for text in texts for word in re.findall(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", text)
    }


def read(path: Path) -> bytes:
    """Return a file's content; nothing if that is refused."""
    try:
        return path.read_bytes()[: 10**6]
    except OSError:
        return b""


def send(port: int, prefix: str, method: str, path: str, body: str | None, headers: dict) -> tuple[int | None, str]:
    """Send a request as it is, and return status and beginning of the answer; None if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.putrequest(method, prefix + path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() if body else None)
        answer = connection.getresponse()
        return answer.status, answer.read(200).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None, ""
    finally:
        connection.close()


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
