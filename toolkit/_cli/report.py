"""`toolkit report`: write a run's report again."""

from __future__ import annotations

import click

from toolkit._cli._text import store_option
from toolkit.terminal import echo


@click.command("report")
@click.argument("run")
@store_option
def command(run: str, store: str | None) -> None:
    """Write the report of RUN again; its path is the last line on stdout."""
    from toolkit._plugins.loading import load_parts
    from toolkit._report.page import make_report
    from toolkit._run.run_folder import find_run, run_folder, store_folder
    from toolkit.errors import StoreNotUsable
    from toolkit_store import open_store

    folder = store_folder(store)
    run_id = find_run(folder, run)
    try:
        path = make_report(open_store(folder, read_only=True), run_id, load_parts())
    except OSError as error:
        raise StoreNotUsable(
            f"{run_folder(folder, run_id)}: the report cannot be written "
            f"({error.strerror or error}). Copy the store to a folder that is writable, or make "
            "this one so."
        ) from error
    echo(path)
