"""What passes over a model did, in words for the report: from the events that extraction told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WAYS = {
    "stream": "each group of SAEs was read again for each batch",
    "spill": "the streams of all batches were kept on disk until each group of SAEs had seen them",
    "again": "the model was run once for each group of SAEs",
}


def passes_in_words(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence or two for each stage that was computed in this run."""
    stages: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event["event"] == "extracted":
            stages[str(event["stage"])].append(event)
    plans = {event["stage"]: event for event in events if event["event"] == "batch_plan"}
    for stage, found in stages.items():
        yield " ".join((_work(stage, found), *_plan(plans.get(stage)), *_gave_way(found)))


def _work(stage: str, found: Sequence[Mapping[str, Any]]) -> str:
    texts, samples, batches = (
        sum(event[name] for event in found) for name in ("texts", "samples", "batches")
    )
    passes = max(event["passes"] for event in found)
    times = "one pass" if passes == 1 else f"up to {passes} passes"
    work = f"{samples:,} samples were computed as {texts:,} distinct texts"
    return (
        f"{stage}: {work}, in {times} over the model ({batches:,} "
        f"batch{'es'[: 2 * (batches != 1)]})."
    )


def _plan(event: Mapping[str, Any] | None) -> Iterator[str]:
    if event and event["plan"]:
        free = f"{event['free'] / 2**30:.1f} GiB free ({event['device']})"
        yield (
            f"Batch plan: at most {event['plan']['tokens']:,} padded tokens a batch, chosen for "
            f"{free}."
        )


def _gave_way(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    halved = sum(event["halved"] for event in found)
    if halved:
        yield f"Memory ran out {halved} time{'s'[: halved != 1]}, and batches were halved."
    for way in sorted({way for event in found for way in event["ways"]}):
        together = min(event["saes_together"] for event in found)
        yield (
            f"Not all SAEs fitted in memory together: at most {together} were held, and "
            f"{_WAYS[way]}."
        )
