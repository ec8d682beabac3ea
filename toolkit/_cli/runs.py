"""`toolkit runs`: list runs, one per line."""

from __future__ import annotations

import json

import click

from toolkit._cli._text import columns, json_option, store_option
from toolkit.terminal import echo


@click.command("runs")
@json_option
@store_option
def command(as_json: bool, store: str | None) -> None:
    """List the runs in the store, oldest first."""
    from toolkit._cli.status import views
    from toolkit._run.run_folder import store_folder

    runs = views(store_folder(store))
    if as_json:
        keys = ("run", "name", "state", "started", "done", "total", "note")
        echo(json.dumps([{key: getattr(view, key) for key in keys} for view in runs], indent=1))
    elif not runs:
        echo("No runs yet. Start one: toolkit run SPEC")
    else:
        rows = [
            (view.run, view.name, view.state, view.started[:16].replace("T", " ")) for view in runs
        ]
        echo(columns(("RUN", "NAME", "STATE", "STARTED"), rows))
