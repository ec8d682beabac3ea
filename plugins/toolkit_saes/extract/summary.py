"""Describes the passes over a model, from the events that the steps of an extraction reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EVENT = "extracted"
_WAYS = {
    "stream": "each group of SAEs was read again for each batch",
    "spill": "the streams of all batches were kept on disk until each group of SAEs had seen them",
    "rerun": "the model was run once for each group of SAEs",
}


def summary(events: Sequence[Mapping[str, Any]]) -> str:
    """Texts, passes and batches of all steps, and what was reduced for lack of memory."""
    passes = [event for event in events if event["name"] == EVENT]
    if not passes:
        return ""
    return " ".join((_work(passes), *_less_memory(passes)))


def _work(passes: Sequence[Mapping[str, Any]]) -> str:
    texts, samples, batches = (
        sum(event[name] for event in passes) for name in ("texts", "samples", "batches")
    )
    times = max(event["passes"] for event in passes)
    often = "one pass" if times == 1 else f"up to {times} passes"
    unit = "batch" if batches == 1 else "batches"
    return (
        f"{samples:,} samples were computed as {texts:,} distinct texts, in {often} over the model "
        f"({batches:,} {unit})."
    )


def _less_memory(passes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was reduced because memory ran out."""
    sentences = []
    halved = sum(event["halved"] for event in passes)
    if halved:
        times = "1 time" if halved == 1 else f"{halved} times"
        sentences.append(f"Memory ran out {times}, and batches were halved.")
    for way in sorted({way for event in passes for way in event["ways"]}):
        together = min(event["saes_together"] for event in passes)
        sentences.append(
            f"Not all SAEs fitted in memory together: at most {together} were held, and "
            f"{_WAYS[way]}."
        )
    return sentences
