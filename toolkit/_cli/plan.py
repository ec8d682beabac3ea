"""`toolkit plan`: what will run, what is there already, and why."""

from __future__ import annotations

import json
from typing import Any

import click

from toolkit._cli._options import Asked, spec_options
from toolkit._cli._text import columns, duration


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
    heads = ("STAGE", "PART", "NEEDS", "STEPS", "THERE", "ABOUT", "WHY THE REST IS COMPUTED")
    click.echo(columns(heads, [_cells(row) for row in rows]))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """`ABOUT` is the work to expect, from what such steps took before in this store."""
    needs = ", ".join(row["needs"]) or "-"
    return row["stage"], row["part"], needs, row["steps"], str(row["there"]), duration(row["seconds"]), row["why"]
