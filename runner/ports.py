"""Ports for the web UI: which are free, on every address, and which another search is about to take."""

from __future__ import annotations

import errno
import socket


def port_is_free(port: int) -> bool:
    """Tell whether nothing listens on `port`, be it on the loopback or on any other address."""
    addresses = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")]
    return all(_can_bind(family, host, port) for family, host in addresses)


def _can_bind(family: int, host: str, port: int) -> bool:
    """Tell whether `port` can be bound; an address that this machine does not have is no obstacle."""
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Node does; passes over closed connections
            probe.bind((host, port))
            return True
    except OSError as error:
        return error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def next_free_port(first: int = 8080) -> int:
    """Return the first free port from `first` on. Raises RuntimeError where there is none."""
    for port in range(first, 65536):
        if port_is_free(port):
            return port
    raise RuntimeError(f"no port from {first} to 65535 is free")


def claim_port(port: int) -> bool:
    """Claim `port` among the searches of this machine until this process ends; False where another one has it.

    A manager takes seconds to listen on a port that was free. A second search that chose the same port meanwhile would
    find the first one's manager there, take it for its own and send it its configuration.
    """
    if port in _claims:
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0nni-manager-port-{port}")  # an abstract address: it goes with the process, and leaves no file
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


_claims: dict[int, socket.socket] = {}


class PortTaken(RuntimeError):
    """Another program, or another search that is about to start, has the port."""
