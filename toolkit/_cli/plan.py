"""`toolkit plan`: what will run, what is committed already, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from toolkit._cli._options import spec_options
from toolkit._cli._text import columns, duration, size
from toolkit._run.options import RunOptions
from toolkit.costs import Cost
from toolkit.terminal import counted, echo


@click.command("plan")
@click.argument("target", metavar="SPEC|RUN_ID")
@spec_options
def command(target: str, options: RunOptions, as_json: bool) -> None:
    """Show what will run: stages, steps, what the store already has and why the rest is
    computed.
    """
    from toolkit import _flow
    from toolkit._plan.costs import total_of
    from toolkit._run.disk import check_disk
    from toolkit._run.forecast import annotate
    from toolkit._run.run_folder import store_folder

    plan = _flow.plan(target, options).plan
    rows = annotate(plan, store_folder(options.store))
    total = total_of(row["cost"] for row in rows)
    if as_json:
        sinks = [sink.name for sink in plan.sinks]
        echo(json.dumps({"run": plan.run, "stages": rows, "sinks": sinks, "total": asdict(total)}))
    else:
        echo(
            _headline(
                plan.run, len(rows), options.command(target), all(row["why"] == "-" for row in rows)
            )
        )
        _show(rows, total)
    check_disk(plan, [total], [total_of(row["whole"] for row in rows)], store_folder(options.store))


def _headline(run: str, stages: int, command: str, all_there: bool) -> str:
    sentence = (
        f"everything is in the store: `{command}` computes nothing."
        if all_there
        else f"`{command}` computes the missing steps."
    )
    return f"run {run}: {counted(stages, 'stage')}; {sentence}\n"


def _show(rows: Sequence[dict[str, Any]], total: Cost) -> None:
    several = len({row["on"] for row in rows}) > 1  # else the headline names it
    on = ("ON",) if several else ()
    heads = ("STAGE", "PART", *on, "NEEDS", "STEPS", "DONE", "ABOUT", "WHY THE REST IS COMPUTED")
    echo(columns(heads, [_cells(row, several) for row in rows]))
    if any(row["imported"] for row in rows):
        echo(_IMPORTED)
    if priced := [row for row in rows if row["cost"]]:
        _show_costs(priced, total)
    powered = [_power_cells(row["stage"], row["power"]) for row in rows if row["power"]]
    if powered:
        finds = ("FINDS", "UNITS", "FAMILY", "SMALLEST EFFECT")
        echo("\n" + columns(finds, powered, right=finds[2:]))
        echo(_POWER)


def _show_costs(priced: Sequence[dict[str, Any]], total: Cost) -> None:
    named = [_cost_cells(row["stage"], row["cost"]) for row in priced]
    counts = dict.fromkeys(row["cost"]["tokens_from"] for row in priced)
    if len(priced) > 1:
        known = all(row["cost"]["known"] for row in priced)
        weakest = next((count for count in ("assumed", "estimate") if count in counts), "samples")
        together = {**asdict(total), "known": known, "tokens_from": weakest}
        named.append(_cost_cells("together", together))
    titles = ("COSTS", "", "FORWARDS", "TFLOP", "READ", "MEMORY", "STORED")
    echo("\n" + columns(titles, named, right=titles[2:]))
    for count in counts:
        stages = [row["stage"] for row in priced if row["cost"]["tokens_from"] == count]
        if count in TOKENS_FROM:
            echo(f"Tokens of {', '.join(stages)}: {TOKENS_FROM[count]}")
    echo(_COSTS)


TOKENS_FROM = {
    "tokeniser": "counted by the model's tokeniser.",
    "estimate": "estimated from the words of the texts (~); the tokeniser is not here.",
    "assumed": "256 for each text, since the texts do not exist yet.",
}
"""How the tokens of samples that do not exist yet were counted."""

_IMPORTED = """
Imported steps are reused as they came: their rows were computed elsewhere. A run in a new store
computes them here."""

EFFECTS = {"d": "|d|", "r": "|r|", "eta2": "eta2"}
_POWER = """The smallest effect that is detected 4 times out of 5 if nothing else is (alpha shared
         over the family): |d| is a difference between the means of units in standard deviations,
         |r| a correlation over units, eta2 the share of the variance between units that lies
         between groups. Units with equal prompts count once. `<=`: the samples do not exist yet;
         groups of equal size are the best case.
         """


def _power_cells(name: str, power: dict[str, Any]) -> tuple[str, ...]:
    least = "" if power["exact"] else "<= "
    units = ", ".join(f"{group} {least}{count:,}" for group, count in power["groups"].items())
    family = f"{power['family']:,}" if power["family"] else "unknown"
    value, bound = power[power["effect"]], "" if power["exact"] and power["family"] else ">= "
    effect = "too few units" if value is None else f"{EFFECTS[power['effect']]} {bound}{value:.2f}"
    return name, units, family, effect


_COSTS = """The work that is left, from configs and headers. `<=`: an upper bound; games go to
         their last round, and every feature is selected. FORWARDS are texts that the model reads,
         MEMORY is that of one worker, STORED is what the store keeps, for most stages before
         compression. `?`: the sizes of the model or the SAEs are not known until their files are
         here (`toolkit fetch SPEC`).
         """


def _cost_cells(name: str, cost: dict[str, Any]) -> tuple[str, ...]:
    least = "" if cost["exact"] else "~" if cost["tokens_from"] == "estimate" else "<="
    forwards = f"{cost['forwards']:,}" if cost["forwards"] else "-"
    if not cost["known"]:
        return (name, least, forwards, *"????")
    sizes = (size(cost[of]) if cost[of] else "-" for of in ("read", "memory", "disk"))
    return (name, least, forwards, _teraflops(cost["flops"] / 1e12), *sizes)


def _teraflops(count: float) -> str:
    if count >= 100:
        return f"{count:,.0f}"
    return f"{count:.3g}" if count >= 0.001 else "< 0.001" if count else "-"


def _there(row: dict[str, Any]) -> str:
    """The number of reused steps, and how many of these were imported."""
    there, imported = row["there"], row["imported"]
    if not imported:
        return str(there)
    return f"{there} (imported)" if imported == there else f"{there} ({imported} imported)"


def _cells(row: dict[str, Any], several: bool) -> tuple[str, ...]:
    """The cells of a stage's row, with its executor if there are `several`. `ABOUT` is the forecast
    time, from similar steps in this store.
    """
    needs = ", ".join(row["needs"]) or "-"
    return (
        row["stage"],
        row["part"],
        *((row["on"],) if several else ()),
        needs,
        row["steps"],
        _there(row),
        duration(row["seconds"]),
        row["why"],
    )
