"""Start the server on this machine, at the wanted port or a free one, until Ctrl-C."""

import contextlib
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from unweave.errors import UserError
from unweave.web.security import NAMES

_HOST = NAMES[0]
_TRIES = 50
"""Ports behind the wanted one that are tried before any free one is taken."""


def serve(path: Path, *, port: int, browser: bool, told: Callable[[str], None]) -> None:
    """Serve a run or a folder of runs; ``told`` hears the address, and what else a person wants to know.

    Raises ``UserError`` where there is no such folder, or no such port.
    """
    import uvicorn

    from unweave.web.app import create_app

    app = create_app(path)
    with listening(port) as listener:
        found = listener.getsockname()[1]
        if port not in (0, found):
            told(f"port {port} is in use, so this is port {found}")
        address = f"http://{_HOST}:{found}/"
        told(f"{address}  (Ctrl-C ends it)")
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, lifespan="off")
        with contextlib.suppress(KeyboardInterrupt):  # the server ends first, then says so again
            uvicorn.Server(config).run(sockets=[listener])
    told("ended")


def listening(port: int) -> socket.socket:
    """A socket that takes connections at a port of this machine, or at the next one that is free; 0: at any."""
    if not 0 <= port < 2**16:
        raise UserError(f"a port is a number from 1 to 65535, or 0 for any, got {port}")
    for wanted in range(port, min(port + _TRIES, 2**16)):
        with contextlib.suppress(OSError):
            return _bound(wanted)
    return _bound(0)


def _bound(port: int) -> socket.socket:
    # asyncio sends small answers without delay only where the socket names its protocol; else each waits 40 ms
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
