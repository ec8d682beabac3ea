"""`toolkit lock`: write down what a spec resolves to."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toolkit._cli._options import Asked, spec_options
from toolkit.terminal import echo


@click.command("lock")
@click.argument("target", metavar="SPEC")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: the spec's name with .lock.json."
)
@spec_options
def command(target: str, asked: Asked, out: Path | None) -> None:
    """Write the revisions and digests of models, SAEs and data that a spec resolves to, and the
    versions of all parts.
    """
    from toolkit._cli._options import load_plan
    from toolkit._plan.lock import make_lock
    from toolkit._run.job_folder import write_text

    plan, parts, _ = load_plan(target, asked)
    text = json.dumps(make_lock(plan, parts), indent=1, sort_keys=True) + "\n"
    path = out or Path(target).with_suffix(".lock.json")
    write_text(path, text)
    echo(str(path))
