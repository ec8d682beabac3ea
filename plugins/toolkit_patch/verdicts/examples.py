"""Texts in which screened features fire hardest, if the run kept activations and texts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Inputs

    Row = Mapping[str, Any]

SHOWN, EXAMPLES = 6, 2
"""Features with examples, and examples per feature."""
BEFORE, AFTER = 120, 40
"""Characters shown before and after the token on which a feature fires hardest."""


@dataclass(frozen=True)
class FiringExample:
    """A token on which a feature fires, with the text around it."""

    value: float
    before: str
    piece: str
    after: str


def examples_of(inputs: Inputs, rows: Sequence[Row]) -> dict[tuple[str, int], list[FiringExample]]:
    """(space, feature) -> the samples in which it fires hardest, for the first rows."""
    if not {"activations", "samples"} <= set(inputs.tables()):
        return {}
    activations = inputs.read("activations")
    texts = _texts(inputs.read("samples"))
    results = {}
    for row in rows[:SHOWN]:
        key = row["space"], row["feature"]
        candidates = [
            _example(texts[sample], position, value)
            for sample, position, value in _hardest(activations, *key)
            if sample in texts
        ]
        distinct = {
            (example.before, example.piece, example.after): example
            for example in reversed(candidates)
        }
        if distinct:
            results[key] = sorted(distinct.values(), key=lambda example: -example.value)[:EXAMPLES]
    return results


def _texts(samples: pa.Table) -> dict[str, list[str]]:
    names = samples["sample"].to_pylist()
    return dict(zip(names, samples["pieces"].to_pylist(), strict=True))


def _hardest(activations: pa.Table, space: str, feature: int) -> list[tuple[str, int, float]]:
    """(sample, position, value) of the largest activations, more than are shown."""
    import numpy as np
    import pyarrow.compute as pc

    rows = activations.filter(pc.equal(activations["space"], space))
    lists = rows["features"].combine_chunks()
    listed = lists.flatten().to_numpy(zero_copy_only=False)
    values = rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    entries = np.flatnonzero(listed == feature)
    owner = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    order = entries[np.argsort(-values[entries], kind="stable")][: 4 * EXAMPLES]
    chosen = rows.take(owner[order])
    return list(
        zip(
            chosen["sample"].to_pylist(),
            chosen["position"].to_pylist(),
            values[order].tolist(),
            strict=True,
        )
    )


def _example(pieces: Sequence[str], position: int, value: float) -> FiringExample:
    before, after = "".join(pieces[:position]), "".join(pieces[position + 1 :])
    return FiringExample(value, before[-BEFORE:], pieces[position], after[:AFTER])


def shown(examples: Mapping[tuple[str, int], Sequence[FiringExample]], rows: Sequence[Row]) -> str:
    """The examples of each feature, below its name and verdict."""
    parts = []
    for row in rows:
        firing = examples.get((row["space"], row["feature"]), ())
        lines = "".join(
            f"<li>{example.value:.3g}: "
            f"{_escaped(example.before)}<mark>{_escaped(example.piece)}</mark>"
            f"{_escaped(example.after)}</li>"
            for example in firing
        )
        if lines:
            parts.append(
                f"<h4>{html.escape(row['name'])}: {html.escape(row['verdict'])}</h4>"
                f'<ul style="overflow-wrap:anywhere">{lines}</ul>'
            )
    return "".join(parts)


def _escaped(text: str) -> str:
    """Line ends as marks, so that a prompt takes few lines."""
    return html.escape(text).replace("\n", "<span class='faint'>&#8629;</span> ")
