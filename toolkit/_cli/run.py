"""`toolkit run`: run a spec, or repeat a run."""

from __future__ import annotations

import click

from toolkit._cli._options import Asked, spec_options


@click.command("run")
@click.argument("target", metavar="SPEC|RUN_ID")
@spec_options
def command(target: str, asked: Asked) -> None:
    """Run a spec, or repeat a run by its id. The same command continues what was cut off."""
    from toolkit._cli._options import load_plan
    from toolkit._run.run_plan import run_experiment

    plan, parts, asked = load_plan(target, asked)
    report = run_experiment(plan, parts, asked)
    if not asked.as_json:
        click.echo(str(report))
