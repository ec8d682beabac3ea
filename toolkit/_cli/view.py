"""`toolkit view`: browse a store in the browser."""

from __future__ import annotations

import click

from toolkit._cli._text import store_option
from toolkit.terminal import echo


@click.command("view")
@click.argument("where", metavar="[STORE]", required=False)
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8765,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port; 0 picks a free one.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    help="Require this token. Default: none on loopback, a generated one on other hosts.",
)
def command(where: str | None, store: str | None, host: str, port: int, token: str | None) -> None:
    """Browse the runs, features, samples and games of STORE in a browser, until Ctrl-C.

    Nothing is changed. Only this machine can connect, unless --host names another address; then
    every request needs the token that is printed.
    """
    from toolkit._run.run_folder import store_folder
    from toolkit._view.server import serve

    serve(store_folder(where or store), host, port, token, _ready)


def _ready(address: str) -> None:
    echo(address)
    echo("Open it in a browser. Ctrl-C ends it.", err=True)
