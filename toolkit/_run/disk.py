"""Check that the disks have room for what a run writes to its store and sinks."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit._run.run_folder import at_uri
from toolkit._run.sinks import sink_folder
from toolkit.costs import Cost
from toolkit.errors import Refused

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan


def check_disk(plan: Plan, left: Iterable[Cost], whole: Iterable[Cost], store: Path) -> None:
    """Refuse a plan that does not fit on disk. `left` is the cost of what is still to be stored;
    sinks write the `whole` workload, including what is stored already.
    """
    if not at_uri(store):
        advice = "Free some space, take fewer samples or SAEs, or name another store with --store."
        _check_free(store, sum(left, Cost()).disk, "the store", advice)
    total = sum(whole, Cost())
    for sink in plan.sinks:
        if sink.part.disk:
            needed = sink.part.disk(sink.params, total)
            name = f"sink '{sink.name}'"
            _check_free(sink_folder(plan, sink), needed, name, sink.part.disk_advice)


def _check_free(folder: Path, needed: int, subject: str, advice: str) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise Refused(
            f"{subject} would take about {needed / 2**30:,.3g} GiB in {folder}, and "
            f"{free / 2**30:,.3g} GiB are free there. {advice}"
        )
