"""`toolkit check`: is the spec right?"""

from __future__ import annotations

import json

import click

from toolkit._cli._options import Asked, spec_options


@click.command("check")
@click.argument("target", metavar="SPEC|RUN_ID")
@spec_options
def command(target: str, asked: Asked) -> None:
    """Say whether a spec is right: keys, parts, values, tables. Nothing is run and no store is opened."""
    from toolkit._cli._options import load_plan

    plan, _, _ = load_plan(target, asked)
    if asked.as_json:
        stages = [{"id": stage.id, "part": stage.part.name, "needs": list(stage.needs)} for stage in plan.stages]
        click.echo(json.dumps({"ok": True, "run": plan.run, "stages": stages}))
    else:
        click.echo(f"{target}: right. {len(plan.stages)} stages, {len(plan.sinks)} sinks; it would be run {plan.run}.")
