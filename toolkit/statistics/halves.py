"""Split units into two halves. Effects selected in `select` are tested in `confirm`. The split is
drawn by unit from the seed (`toolkit.statistics.randomness.half`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from toolkit.statistics.randomness import half


def in_half(
    seed: int, samples: Iterable[Mapping[str, Any]], part: str, *, prompts: bool = True
) -> tuple[set[str], set[str]]:
    """Names of the samples in a half (`all`, `select` or `confirm`), and of those left out of
    `confirm` because `select` has their prompt. `samples` are the rows (`sample`, `unit`,
    `cluster`) of all samples, so that the choice does not depend on labels. A base model gives
    equal prompts equal activations, and data that selected a feature cannot confirm it.
    `prompts=False` keeps them.
    """
    rows = list(samples)
    if part == "all":
        return {row["sample"] for row in rows}, set()
    side = {unit: half(seed, unit) for unit in {row["unit"] for row in rows}}
    in_part = {row["sample"] for row in rows if side[row["unit"]] == part}
    if part == "select" or not prompts:
        return in_part, set()
    seen = {row["cluster"] for row in rows if side[row["unit"]] == "select"}
    shared = {row["sample"] for row in rows if row["sample"] in in_part and row["cluster"] in seen}
    return in_part - shared, shared


def joined_by_state(
    samples: Iterable[Mapping[str, Any]], state_of: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The rows with a `cluster` that joins samples of equal prompts or equal states, transitively.
    `state_of` gives the state of each sample.
    """
    rows = [dict(row) for row in samples]
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for row in rows:
        prompt, state = root(f"prompt {row['cluster']}"), root(f"state {state_of[row['sample']]}")
        parent[max(prompt, state)] = min(prompt, state)
    return [{**row, "cluster": root(f"prompt {row['cluster']}")} for row in rows]
