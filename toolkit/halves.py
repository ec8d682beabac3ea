"""The two halves of the units: which samples are in one, and how rows of table `features` say of
which half they are.

What is found in `select` is tested in `confirm`. Both are drawn by unit from the seed
(`toolkit.randomness.half`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.randomness import half

if TYPE_CHECKING:
    import pyarrow as pa


def in_half(
    seed: int, samples: Iterable[Mapping[str, Any]], part: str, *, prompts: bool = True
) -> tuple[set[str], set[str]]:
    """Names of the samples in a half (`all`, `select` or `confirm`), and of those left out of
    `confirm`: `select` has their prompt.

    `samples` are rows with `sample`, `unit` and `cluster` of all that there are, so that who is
    left out does not depend on labels. On a base model an equal prompt is an equal activation, and
    what chose a feature cannot confirm it. `prompts=False` keeps them.
    """
    rows = list(samples)
    if part == "all":
        return {row["sample"] for row in rows}, set()
    side = {unit: half(seed, unit) for unit in {row["unit"] for row in rows}}
    own = {row["sample"] for row in rows if side[row["unit"]] == part}
    if part == "select" or not prompts:
        return own, set()
    seen = {row["cluster"] for row in rows if side[row["unit"]] == "select"}
    shared = {row["sample"] for row in rows if row["sample"] in own and row["cluster"] in seen}
    return own - shared, shared


def marked(text: str | None, part: str) -> str | None:
    """The text of a row of a comparison of that half: a half stands at its end, all units go
    without saying.
    """
    if part == "all":
        return text
    return f"{text}, half {part}" if text else f"half {part}"


def half_of(text: str | None) -> str:
    """The half that a row's text is marked with; `all` without a mark."""
    return next(
        (part for part in ("select", "confirm") if f", half {part}:" in f", {text}:"), "all"
    )


def rows_of_half(rows: pa.Table, part: str) -> pa.Table:
    """The rows of `features` whose text is marked with that half; of `all`, those that bear no
    mark. Few texts stand in many rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [text for text in pc.unique(rows["text"]).to_pylist() if half_of(text) == part]
    return rows.filter(pc.is_in(rows["text"], value_set=pa.array(texts, pa.string())))
