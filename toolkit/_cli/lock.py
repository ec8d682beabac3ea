"""`toolkit lock`: record what a spec resolves to."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toolkit._cli._options import spec_options
from toolkit._run.options import RunOptions
from toolkit.terminal import echo


@click.command("lock")
@click.argument("target", metavar="SPEC")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: the spec's name with .lock.json."
)
@spec_options
def command(target: str, options: RunOptions, out: Path | None, as_json: bool) -> None:
    """Write the revisions and digests of models, SAEs and data that a spec resolves to, and the
    versions of all parts.
    """
    from toolkit import _flow
    from toolkit._plan.lock import make_lock
    from toolkit._run.atomic import write_text

    planned = _flow.plan(target, options)
    plan, parts = planned.plan, planned.parts
    text = json.dumps(make_lock(plan, parts), indent=1, sort_keys=True) + "\n"
    path = out or Path(target).with_suffix(".lock.json")
    write_text(path, text)
    echo(str(path))
