"""The summaries that parts give of their own work, for the report's Methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit._run.progress import RunProgress
from toolkit.parts import TablePart


def summaries_of(
    run: RunProgress, manifest: Mapping[str, Any], parts: Sequence[TablePart]
) -> Iterator[str]:
    """A paragraph for each stage that has a summary of its steps' events or a batch plan."""
    by_name = {part.name: part for part in parts}
    for stage in manifest.get("stages") or ():
        name = str(stage.get("id"))
        part = by_name.get(str(stage.get("part")))
        facts = [
            {"name": event.name, **event.facts} for event in run.part_events if event.stage == name
        ]
        sentences = []
        if facts and part is not None and part.summary is not None:
            sentences.append(part.summary(facts))
        if sentences and name in run.batch_plans:
            sentences.append(_batch_plan(run, name))
        if sentences:
            yield f"{name}: {' '.join(sentences)}"


def _batch_plan(run: RunProgress, stage: str) -> str:
    chosen = run.batch_plans[stage]
    sizes = ", ".join(f"{name} {size:,}" for name, size in chosen.plan.items())
    free = f"{chosen.free / 2**30:.1f} GiB free ({chosen.device})"
    return f"Batch plan: {sizes or 'none'}, chosen for {free}."
