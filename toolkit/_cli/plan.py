"""`toolkit plan`: what will run, what is there already, and why."""

from __future__ import annotations

import json

import click

from toolkit._cli._options import Asked, spec_options
from toolkit._cli._text import columns


@click.command("plan")
@click.argument("target", metavar="SPEC|RUN_ID")
@spec_options
def command(target: str, asked: Asked) -> None:
    """Say what will run: stages, steps, what the store has already and why the rest is computed."""
    from toolkit._annotate import annotate
    from toolkit._cli._options import load_plan
    from toolkit._places import store_folder

    plan, _, _ = load_plan(target, asked)
    rows = annotate(plan, store_folder(asked.store))
    if asked.as_json:
        click.echo(json.dumps({"run": plan.run, "stages": rows, "sinks": [sink.name for sink in plan.sinks]}))
        return
    click.echo(f"run {plan.run}: {len(plan.stages)} stages; `toolkit run {target}` computes what is not there yet.\n")
    heads = ("STAGE", "PART", "NEEDS", "STEPS", "THERE", "WHY THE REST IS COMPUTED")
    found = [(r["stage"], r["part"], ", ".join(r["needs"]) or "-", r["steps"], str(r["there"]), r["why"]) for r in rows]
    click.echo(columns(heads, found))
