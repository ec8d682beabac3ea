"""`toolkit check`: check a spec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from toolkit._cli._options import spec_options
from toolkit._run.options import RunOptions
from toolkit.terminal import counted, echo

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan


@click.command("check")
@click.argument("target", metavar="SPEC|RUN_ID")
@spec_options
def command(target: str, options: RunOptions, as_json: bool) -> None:
    """Check the keys, parts, values and tables of a spec. Nothing is run and no store is opened."""
    from toolkit import _flow

    plan = _flow.plan(target, options).plan
    if as_json:
        stages = [
            {
                "id": stage.id,
                "part": stage.part.name,
                "on": stage.on,
                "needs": list(stage.needs),
            }
            for stage in plan.stages
        ]
        echo(json.dumps({"ok": True, "run": plan.run, "stages": stages, "found": _detected(plan)}))
    else:
        echo(
            f"{target}: valid. {counted(len(plan.stages), 'stage')}, "
            f"{counted(len(plan.sinks), 'sink')}; its run would be {plan.run}."
        )
        for line in [*_executors(plan), *_detected(plan)]:
            echo(line)


def _executors(plan: Plan) -> list[str]:
    """Which stages run on which executor, if there are several."""
    stages_on = plan.stages_on()
    if len(stages_on) < 2:
        return []
    return [
        f"on {plan.executors[name].describe()}: {', '.join(stages)}"
        for name, stages in stages_on.items()
    ]


def _detected(plan: Plan) -> list[str]:
    """What parts with automatic detection have detected (`saes: auto detected ...`), once each."""
    used = [
        (name, loadable)
        for stage in plan.stages
        for name, loadable in (("model", stage.model), ("saes", stage.saes))
        if loadable
    ]
    lines = [
        f"{name}: {part.part.name} detected {part.identity.facts['found']}"
        for name, part in used
        if "found" in part.identity.facts
    ]
    return list(dict.fromkeys(lines))
