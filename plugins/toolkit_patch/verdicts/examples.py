"""Texts in which screened features fire most strongly, if the run kept activations and texts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.terminal import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Inputs

    Row = Mapping[str, Any]

SHOWN, EXAMPLES = 400, 2
"""Features with examples, the strongest verdicts first, and examples per feature: about 0.4 MB."""
OPEN = 6
"""Features whose examples are shown open; those of the others are folded."""
BEFORE, AFTER = 120, 40
"""Characters shown before and after the token on which a feature fires most strongly."""
STYLE = (
    "<style>.patch-texts h4{margin:1rem 0 .25rem}.patch-texts ul{list-style:none;margin:0;"
    "padding:0}.patch-texts li{margin:.35rem 0;padding:.4rem .8rem;background:var(--soft);"
    "border:1px solid var(--line);border-radius:.5rem;overflow-wrap:anywhere}.patch-texts mark{"
    "color:inherit;border-radius:.2rem;box-shadow:inset 0 -2px var(--computed);"
    "background:color-mix(in srgb,var(--computed) 30%,transparent);"
    "print-color-adjust:exact}</style>"
)


@dataclass(frozen=True)
class FiringExample:
    """A token on which a feature fires, with the text around it."""

    value: float
    before: str
    piece: str
    after: str


def examples_of(inputs: Inputs, rows: Sequence[Row]) -> dict[tuple[str, int], list[FiringExample]]:
    """(space, feature) -> the samples in which it fires most strongly, for the first rows."""
    if not {"activations", "samples"} <= set(inputs.tables()):
        return {}
    activations = inputs.read("activations")
    texts = _texts(inputs.read("samples"))
    by_space: dict[str, _SpaceEntries] = {}
    results = {}
    for row in rows[:SHOWN]:
        key = row["space"], row["feature"]
        if row["space"] not in by_space:
            by_space[row["space"]] = _SpaceEntries.of(activations, row["space"])
        candidates = [
            _example(texts[sample], position, value)
            for sample, position, value in by_space[row["space"]].hardest(row["feature"])
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


@dataclass(frozen=True)
class _SpaceEntries:
    """The activations of one space: rows, and the feature, value and row of each entry."""

    rows: pa.Table
    features: Any
    values: Any
    owner: Any

    @classmethod
    def of(cls, activations: pa.Table, space: str) -> _SpaceEntries:
        """The entries of a space."""
        import numpy as np
        import pyarrow.compute as pc

        rows = activations.filter(pc.equal(activations["space"], space))
        lists = rows["features"].combine_chunks()
        return cls(
            rows,
            lists.flatten().to_numpy(zero_copy_only=False),
            rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False),
            np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy())),
        )

    def hardest(self, feature: int) -> list[tuple[str, int, float]]:
        """(sample, position, value) of a feature's largest activations, more than are shown."""
        import numpy as np

        entries = np.flatnonzero(self.features == feature)
        order = entries[np.argsort(-self.values[entries], kind="stable")][: 4 * EXAMPLES]
        chosen = self.rows.take(self.owner[order])
        return list(
            zip(
                chosen["sample"].to_pylist(),
                chosen["position"].to_pylist(),
                self.values[order].tolist(),
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
            f'<li><span class="faint">value {example.value:.3g}</span> {_marked(example)}</li>'
            for example in firing
        )
        if lines:
            verdict = f'<span class="faint">{html.escape(row["verdict"])}</span>'
            parts.append(f"<h4>{html.escape(row['name'])} {verdict}</h4><ul>{lines}</ul>")
    folded = "".join(parts[OPEN:])
    if folded:
        count = len(parts) - OPEN
        folded = f"<details><summary>{counted(count, 'more feature')}</summary>{folded}</details>"
    texts = "".join(parts[:OPEN]) + folded + _elsewhere(len(rows) - len(parts))
    return f'{STYLE}<div class="patch-texts">{texts}</div>' if parts else ""


def _elsewhere(count: int) -> str:
    """Where the texts of the other features are."""
    if count <= 0:
        return ""
    have = "has" if count == 1 else "have"
    return (
        f'<p class="faint">{counted(count, "feature")} with a verdict {have} no texts here: '
        "<code>toolkit query top ADDRESS</code> and the feature's page in "
        "<code>toolkit view</code> show where a feature fires.</p>"
    )


def _marked(example: FiringExample) -> str:
    """The token in its text, which is cut between words."""
    before, after = example.before, example.after
    if len(before) == BEFORE:
        before = f"\N{HORIZONTAL ELLIPSIS}{before.partition(' ')[2]}"
    if len(after) == AFTER:
        after = f"{after.rpartition(' ')[0]} \N{HORIZONTAL ELLIPSIS}"
    piece = example.piece if example.piece.strip() else example.piece.replace(" ", "\N{OPEN BOX}")
    return f"{_escaped(before)}<mark>{_escaped(piece)}</mark>{_escaped(after)}"


def _escaped(text: str) -> str:
    """Line ends as marks, so that a prompt takes few lines."""
    return html.escape(text).replace("\n", "<span class='faint'>&#8629;</span> ")
