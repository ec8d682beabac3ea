"""`toolkit report`: write a run's report again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from toolkit._cli._text import store_option
from toolkit.terminal import echo


@click.command("report")
@click.argument("run")
@click.option(
    "--figures",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Write every chart as SVG, PNG and PDF, and every chart's data and every table as CSV. "
    "PNG and PDF need the extra `figures`.",
)
@store_option
def command(run: str, figures: str | None, store: str | None) -> None:
    """Write the report of RUN again; its path is the last line on stdout."""
    from toolkit._plugins.loading import load_parts
    from toolkit._report.figures import export_figures
    from toolkit._report.page import make_report
    from toolkit._run.run_folder import find_run, run_folder, store_folder
    from toolkit.errors import BadInput, StoreNotUsable
    from toolkit_store import open_store

    if figures == "":
        raise BadInput("--figures is empty. Name a folder, or leave the option out.")
    folder = store_folder(store)
    run_id = find_run(folder, run)
    try:
        opened, parts = open_store(folder, read_only=True), load_parts()
        path = make_report(opened, run_id, parts)
    except OSError as error:
        raise StoreNotUsable(
            f"{run_folder(folder, run_id)}: the report cannot be written "
            f"({error.strerror or error}). Copy the store to a writable folder, or make this one "
            "writable."
        ) from error
    if figures is not None:
        to = Path(figures)
        _write_figures(lambda: export_figures(opened, run_id, parts, to), to)
    echo(path)


def _write_figures(write: Callable[[], list[Path]], folder: Path) -> None:
    from toolkit._report.images import HOW_TO, converters
    from toolkit.errors import BadInput

    try:
        files = write()
    except OSError as error:
        raise BadInput(
            f"--figures {folder}: cannot be written ({error.strerror or error}). Name a folder "
            "that is writable."
        ) from error
    echo(f"{len(files)} files in {folder}; index.csv describes each", err=True)
    if not converters():
        echo(HOW_TO, err=True)
