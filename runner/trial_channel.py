"""The trial's side of NNI's command channel: its address holds a secret, which neither log nor traceback may show."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace


def hide_address() -> None:
    """Keep what NNI's client writes free of the manager's address. To be called before nni is imported."""
    logging.getLogger("nni.runtime.trial_command_channel.v3").setLevel(logging.WARNING)  # INFO has the address
    import requests
    from nni.runtime.command_channel import http

    http.requests = SimpleNamespace(put=_quiet(requests.put), get=_quiet(requests.get))


def _quiet(send: Callable) -> Callable:
    """Return `send` with errors that do not name the address. They are ConnectionErrors."""
    import requests

    def quiet(*args, **kwargs):
        try:
            return send(*args, **kwargs)
        except requests.RequestException as error:
            raise ConnectionError(f"NNI's manager does not answer ({type(error).__name__})") from None

    return quiet
