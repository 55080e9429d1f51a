"""Two "machines" on this one for tests and benchmarks of searches by SSH: real OpenSSH servers.

    with two_machines(folder) as machines:
        machines[0].entry        # for machines.json
        machines[0].listening()  # {"127.0.0.1", ...}
        machines[0].drop_out()   # its server and all its sessions are killed
        machines[0].come_back()

Where this user may make network namespaces each has one of its own with only a loopback, so that nothing but SSH leads
from it to the manager, and is reached through a relay of bytes on 127.0.0.1; elsewhere both are servers on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

CLONE_NEWNET = 0x40000000
SSHD_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
PasswordAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
Subsystem sftp internal-sftp
SetEnv HOME={folder}/home
"""


def why_not() -> str | None:
    """Return why there can be no two machines here, or None."""
    return None if sshd() else "no OpenSSH server is installed (apt-get install openssh-server)"


def sshd() -> str | None:
    """Return the path of OpenSSH's server."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class TestMachine:
    """One "machine": a folder with keys and a home, a server, and where possible a network namespace."""

    __test__ = False

    def __init__(self, folder: Path, number: int):
        self.folder = folder / f"machine{number}"
        (self.folder / "home").mkdir(parents=True)
        for name in ("host_key", "key"):
            make_key(self.folder / name)
        self.namespace = make_namespace(f"hpo{os.getpid()}-{number}")
        self.port = free_port()  # on which this machine is reached
        self.own_port = 2222 if self.namespace else self.port
        config = SSHD_CONFIG.format(port=self.own_port, folder=self.folder)
        (self.folder / "sshd_config").write_text(config)
        self.known_as((self.folder / "host_key.pub").read_text())
        self.relay = self.start_relay() if self.namespace else None
        self.server = None

    @property
    def entry(self) -> dict:
        """Its entry in machines.json."""
        own = {"key": str(self.folder / "key"), "known_hosts": str(self.folder / "known_hosts")}
        python = str(Path(sys.executable).parent)
        return {"host": "127.0.0.1", "port": self.port, "user": getpass.getuser(), "python": python} | own

    @property
    def name(self) -> str:
        """What events call it."""
        return f"127.0.0.1:{self.port}"

    def known_as(self, public_key: str) -> None:
        """Write known_hosts with this host key."""
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public_key}")

    def configure(self, line: str) -> None:
        """Start the server anew with a line before its configuration; '' for none."""
        self.drop_out()
        config = SSHD_CONFIG.format(port=self.own_port, folder=self.folder)
        (self.folder / "sshd_config").write_text(f"{line}\n{config}")
        self.come_back()

    def inside(self, *words: str) -> list[str]:
        """Return the command that runs `words` on this machine."""
        return [*(["ip", "netns", "exec", self.namespace] if self.namespace else []), *words]

    def start_relay(self) -> subprocess.Popen:
        """Pass bytes from 127.0.0.1 here to the server in the namespace."""
        words = [sys.executable, __file__, str(self.port), self.namespace, str(self.own_port)]
        return subprocess.Popen(words)

    def come_back(self) -> None:
        """Start the server and wait until it answers."""
        words = self.inside(sshd(), "-D", "-e", "-f", str(self.folder / "sshd_config"))
        log = (self.folder / "sshd.log").open("ab")
        self.server = subprocess.Popen(words, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not answers(self.port):
            if time.monotonic() > deadline or self.server.poll() is not None:
                raise RuntimeError(f"sshd did not start:\n{(self.folder / 'sshd.log').read_text()}")
            time.sleep(0.1)

    def drop_out(self) -> None:
        """Kill the server and all its sessions; what these have left in the background runs on."""
        for process in [*psutil.Process(self.server.pid).children(recursive=True), self.server]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.server.wait()

    def listening(self) -> set[str]:
        """Return the addresses on which anything listens on this machine."""
        if self.namespace:
            said = subprocess.run(self.inside("ss", "-Hltn"), capture_output=True, text=True, check=True).stdout
            return {line.split()[3].rpartition(":")[0] for line in said.splitlines()}
        connections = [c for process in self.processes() for c in process.net_connections("inet")]
        return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}

    def ports(self) -> list[int]:
        """Return the ports on which anything but its SSH server listens in its namespace."""
        said = subprocess.run(self.inside("ss", "-Hltn"), capture_output=True, text=True, check=True).stdout
        found = {int(line.split()[3].rpartition(":")[2]) for line in said.splitlines()}
        return sorted(found - {self.own_port})

    def processes(self) -> list[psutil.Process]:
        """Return what runs with this machine's home: keeper and trials, not its server."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.folder / "home"):
                    found.append(process)
        return found

    def close(self) -> None:
        """End all that runs there."""
        self.drop_out()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.namespace:
            self.relay.kill()
            self.relay.wait()
            subprocess.run(["ip", "netns", "del", self.namespace], check=False)


def make_key(path: Path) -> None:
    """Make a pair of keys without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def make_namespace(name: str) -> str | None:
    """Make a network namespace with only a loopback; None where that is not allowed."""
    if not shutil.which("ip") or subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return None
    if subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], capture_output=True).returncode:
        subprocess.run(["ip", "netns", "del", name], check=False)
        return None
    return name


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    """Tell whether an SSH server answers on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        return bool(re.match(rb"SSH-2.0-", connection.recv(255)))
    return False


@contextlib.contextmanager
def two_machines(folder: Path) -> Iterator[list[TestMachine]]:
    """Start two machines that keep their files in `folder` (whose path has no blanks), and end them afterwards."""
    with contextlib.suppress(OSError):
        Path("/run/sshd").mkdir(exist_ok=True)  # which sshd wants when it is root
    with contextlib.ExitStack() as stack:
        machines = []
        for number in (1, 2):
            machines.append(TestMachine(folder, number))
            machines[-1].come_back()
            stack.callback(machines[-1].close)
        yield machines


def relay(port: int, namespace: str, own_port: int) -> None:
    """Listen on 127.0.0.1 here, enter the namespace, and join each connection to one made there."""
    server = socket.create_server(("127.0.0.1", port))
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    while True:
        here, _ = server.accept()
        try:
            there = socket.create_connection(("127.0.0.1", own_port))
        except OSError:
            here.close()
            continue
        for source, target in ((here, there), (there, here)):
            threading.Thread(target=copy, args=(source, target), daemon=True).start()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until one side ends; then end both."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    relay(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
