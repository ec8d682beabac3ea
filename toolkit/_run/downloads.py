"""Find the hub files that a plan's stages lack, and check whether they can be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolkit._run.stage_progress import unfinished_stages
from toolkit.errors import BadInput
from toolkit.files import hub

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan, Stage
    from toolkit_store import Store


def missing_downloads(stage: Stage) -> Iterator[hub.Download]:
    """The downloads of a stage that the cache lacks."""
    for loadable in (None if stage.model_replaced else stage.model, stage.saes):
        if loadable is None or loadable.part.downloads is None:
            continue
        for download in loadable.part.downloads(loadable.params):
            if not hub.cached_files(download.snapshot, download.patterns):
                yield download


def check_downloads(plan: Plan, store: Store) -> None:
    """If the network is disabled, refuse a run that would have to fetch a model or SAEs for workers
    on this machine. Committed stages need none.
    """
    if not hub.offline():
        return
    for stage in unfinished_stages(plan, store):
        if not plan.executors[stage.on].part.local_gpus:
            continue
        for download in missing_downloads(stage):
            snapshot = download.snapshot
            raise BadInput(
                f"stage '{stage.id}': {hub.not_cached(snapshot.name, snapshot.revision)}"
            )
