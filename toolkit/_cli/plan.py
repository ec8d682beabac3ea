"""`toolkit plan`: what will run, what is committed already, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    expected = total_of(row["expected"] for row in rows)
    if as_json:
        answer = {"run": plan.run, "stages": rows, "sinks": [sink.name for sink in plan.sinks]}
        echo(json.dumps({**answer, "total": asdict(total), "expected": asdict(expected)}))
    else:
        echo(
            _headline(
                plan.run, len(rows), options.command(target), all(row["why"] == "-" for row in rows)
            )
        )
        _show(rows, total, expected)
    check_disk(plan, [total], [total_of(row["whole"] for row in rows)], store_folder(options.store))


def _headline(run: str, stages: int, command: str, all_there: bool) -> str:
    sentence = (
        f"everything is in the store: `{command}` computes nothing."
        if all_there
        else f"`{command}` computes the missing steps."
    )
    return f"run {run}: {counted(stages, 'stage')}; {sentence}\n"


def _show(rows: Sequence[dict[str, Any]], total: Cost, expected: Cost) -> None:
    several = len({row["on"] for row in rows}) > 1  # else the headline names it
    on = ("ON",) if several else ()
    heads = ("STAGE", "PART", *on, "NEEDS", "STEPS", "DONE", "ABOUT", "WHY THE REST IS COMPUTED")
    echo(columns(heads, [_cells(row, several) for row in rows]))
    if any(row["imported"] for row in rows):
        echo(_IMPORTED)
    if priced := [row for row in rows if row["cost"]]:
        _show_costs("COSTS", {row["stage"]: row["expected"] for row in priced}, expected)
        bounds = {row["stage"]: row["cost"] for row in priced if _is_bound(row)}
        if bounds:
            _show_costs("AT MOST", bounds, total)
        echo(_COSTS)
    powered = [_power_cells(row["stage"], row["power"]) for row in rows if row["power"]]
    if powered:
        finds = ("FINDS", "UNITS", "FAMILY", "SMALLEST EFFECT")
        echo("\n" + columns(finds, powered, right=finds[2:]))
        echo(_POWER)


def _show_costs(title: str, costs: Mapping[str, dict[str, Any]], total: Cost) -> None:
    """A table of costs by stage. `total` is that of all stages, in both tables."""
    named = [_cost_cells(stage, cost) for stage, cost in costs.items()]
    known = all(cost["known"] for cost in costs.values())
    if len(named) > 1 or title != "COSTS":
        named.append(_cost_cells("together", {**asdict(total), "known": known}))
    titles: tuple[str, ...] = (title, "FORWARDS", "TFLOP", "READ", "MEMORY", "STORED", "ROWS")
    if title != "COSTS":  # few parts bound their rows, so that a sum of them bounds nothing
        titles, named = titles[:-1], [row[:-1] for row in named]
    echo("\n" + columns(titles, named, right=titles[1:]))
    for count in dict.fromkeys(cost["tokens_from"] for cost in costs.values()):
        stages = [stage for stage, cost in costs.items() if cost["tokens_from"] == count]
        if count in TOKENS_FROM:
            echo(f"Tokens of {', '.join(stages)}: {TOKENS_FROM[count]}")


def _is_bound(row: dict[str, Any]) -> bool:
    """Whether the most that a stage can cost differs from what is expected."""
    cost, expected = row["cost"], row["expected"]
    return any(cost[of] != expected[of] for of in ("forwards", "flops", "memory", "disk"))


TOKENS_FROM = {
    "tokeniser": "counted by the model's tokeniser.",
    "estimate": "estimated from the words of the texts; the tokeniser is not here.",
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


_COSTS = """The work that is left, from configs and headers. COSTS is what to expect: texts and
         games that do not exist yet are taken to be as long as those of earlier runs in this store,
         or as is usual. AT MOST: games go to their last round, and every feature is selected. A
         stage that is the same as an earlier one counts once. FORWARDS are texts that the model
         reads, MEMORY is that of one worker, STORED is what the store keeps, ROWS are those of all
         its tables (empty: not known). `?`: the sizes of the model or the SAEs are not known until
         their files are here (`toolkit fetch SPEC`).
         """


def _cost_cells(name: str, cost: dict[str, Any]) -> tuple[str, ...]:
    forwards = f"{cost['forwards']:,}" if cost["forwards"] else "-"
    rows = f"{cost['table_rows']:,}" if cost["table_rows"] else ""
    if not cost["known"]:
        return (name, forwards, *"????", rows)
    sizes = (size(cost[of]) if cost[of] else "-" for of in ("read", "memory", "disk"))
    return (name, forwards, _teraflops(cost["flops"] / 1e12), *sizes, rows)


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
