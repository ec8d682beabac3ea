"""What a plan will cost, from configs and headers: stage by stage, together, and whether there is room for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._sinks import sink_folder
from toolkit._texts import facts
from toolkit.errors import Refused
from toolkit.records import Cost, Workload

if TYPE_CHECKING:
    from toolkit._plan import Plan, Stage

TYPICAL = 256
"""Tokens that a text is taken to have while nobody has seen it."""


def cost_of(stage: Stage, load: Workload | None) -> Cost | None:
    """What a stage asks for; None when its part does not say, or nothing is known of its samples."""
    price = getattr(stage.part, "cost", None)
    return price(stage.params, load) if price and load else None


def bound(plan: Plan, stage: Stage) -> Workload | None:
    """The most that a stage can be given while its samples are not there; None when nobody can say."""
    at_most = [_most(plan, plan.stage(need)) for need in stage.needs]
    known = [most for most in at_most if most is not None]
    if not known:
        return None
    first = getattr(stage.part, "first", None)
    count = min(known[0], first) if first else known[0]
    return Workload(
        samples=count,
        distinct=count,
        tokens=count * TYPICAL,
        longest=TYPICAL,
        exact=False,
        model=facts(stage.model),
        saes=facts(stage.saes),
    )


def _most(plan: Plan, stage: Stage) -> int | None:
    """How many samples a source gives at most."""
    most = getattr(stage.part, "most", None)
    made = [units for need in stage.needs if (units := plan.stage(need).units()) is not None]
    return most(stage.params, made[0] if made else None) if most else None


def check_disk(plan: Plan, costs: Iterable[Cost], store: Path) -> None:
    """Refuse what cannot be written: rows in the store, and the files of sinks that say how large they will be."""
    total = sum(costs, Cost())
    _check(store, total.disk, "the store", "Free some space, take fewer samples or SAEs, or name another store with --store.")
    for sink in plan.sinks:
        if sink.part.disk:
            advice = "Leave out `dense`, or name a folder on a larger disk."
            _check(sink_folder(plan, sink), sink.part.disk(sink.params, total), f"sink '{sink.name}'", advice)


def _check(folder: Path, wanted: int, what: str, advice: str) -> None:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if wanted > free:
        raise Refused(
            f"{what} would take about {wanted / 2**30:,.3g} GiB in {folder}, and {free / 2**30:,.3g} GiB are free there. {advice}"
        )


def as_row(cost: Cost | None, load: Workload | None) -> dict[str, Any] | None:
    """A cost as plain data; `exact` is False for one that is a bound."""
    return None if cost is None or load is None else {**asdict(cost), "exact": load.exact}


def total_of(rows: Iterable[Mapping[str, Any] | None]) -> Cost:
    """All rows together."""
    known = [{name: value for name, value in row.items() if name != "exact"} for row in rows if row]
    return sum((Cost(**row) for row in known), Cost())
