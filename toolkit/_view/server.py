"""Serving the pages until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from toolkit._view.app import make_app
from toolkit._view.guard import is_loopback
from toolkit._view.library import Library
from toolkit.errors import BadInput

MIN_TOKEN_LENGTH = 16
"""The fewest characters of a token."""


def serve(
    store: Path, host: str, port: int, token: str | None, ready: Callable[[str], None]
) -> None:
    """Serve a store at `host`; `ready` is called with the address to open. A host other than
    loopback needs a token, which is generated if none is given.
    """
    import uvicorn

    if not host:  # a socket would take it as every address of this machine
        raise BadInput("--host is empty. Name an address of this machine, such as 127.0.0.1.")
    if token is not None and (
        len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isalnum()
    ):
        raise BadInput(f"--token: give at least {MIN_TOKEN_LENGTH} letters and digits.")
    if token is None and not is_loopback(host):
        token = secrets.token_hex(16)
    library = Library(store, prepares=True)
    states = library.states()  # imports what reading needs before the address is printed
    app = make_app(library, token)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    ready(f"{address}?token={token}" if token else address)
    if states:
        library.prepare(library.run(states[-1].run))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off"
    )
    uvicorn.Server(config).run([listening])


def _listen(host: str, port: int) -> socket.socket:
    """The socket that the server listens at. If the port is taken, no other is tried."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen()  # a browser may ask as soon as the address is printed
    except OSError as error:
        listening.close()
        raise BadInput(
            f"The server cannot listen at {host}:{port} ({error.strerror or error}). Choose "
            "another port: --port N, or --port 0 for any free one."
        ) from None
    return listening
