"""`toolkit check`: is the spec right?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from toolkit._cli._options import spec_options
from toolkit._run.options import RunOptions
from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan


@click.command("check")
@click.argument("target", metavar="SPEC|RUN_ID")
@spec_options
def command(target: str, options: RunOptions, as_json: bool) -> None:
    """Say whether a spec is right: keys, parts, values, tables. Nothing is run and no store is
    opened.
    """
    from toolkit import _flow

    plan = _flow.plan(target, options).plan
    if as_json:
        stages = [
            {"id": stage.id, "part": stage.part.name, "needs": list(stage.needs)}
            for stage in plan.stages
        ]
        echo(json.dumps({"ok": True, "run": plan.run, "stages": stages, "found": _found(plan)}))
    else:
        echo(
            f"{target}: right. {len(plan.stages)} stages, {len(plan.sinks)} sinks; it would be run "
            f"{plan.run}."
        )
        for line in _found(plan):
            echo(line)


def _found(plan: Plan) -> list[str]:
    """What parts that look for themselves found: `saes: auto found ...`, once each."""
    used = [
        (name, loadable)
        for stage in plan.stages
        for name, loadable in (("model", stage.model), ("saes", stage.saes))
        if loadable
    ]
    lines = [
        f"{name}: {part.part.name} found {part.identity.facts['found']}"
        for name, part in used
        if "found" in part.identity.facts
    ]
    return list(dict.fromkeys(lines))
