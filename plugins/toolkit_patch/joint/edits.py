"""Copies of a prompt in which several features are changed at the last token, a later layer on what
the earlier ones left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.edits import Add, Edit, OnFeatures, OnStream, Set, tokens

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.saes import Sae
    from toolkit_patch.screen.candidates import ComparedFeatures


@dataclass(frozen=True, eq=False)
class Copy:
    """One copy: which members are changed, and to which values; or, for a random set, what is added
    behind each layer.
    """

    members: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    added: Mapping[int, Tensor] | None = None


def edits_of(
    copies: Sequence[Copy], features: ComparedFeatures, saes: Mapping[int, Sae], last: int
) -> list[Edit]:
    """The edits of all copies, those with the same members of a layer in one."""
    return [*_set_features(copies, features, saes, last), *_add_vectors(copies, last)]


def _set_features(
    copies: Sequence[Copy], features: ComparedFeatures, saes: Mapping[int, Sae], last: int
) -> list[Edit]:
    import torch

    shared: dict[tuple[int, tuple[int, ...]], list[tuple[int, list[float]]]] = {}
    for row, copy in enumerate(copies):
        given = dict(zip(copy.members, copy.values, strict=True))
        for space in sorted({int(features.space[member]) for member in copy.members}):
            own = tuple(one for one in copy.members if int(features.space[one]) == space)
            shared.setdefault((space, own), []).append((row, [given[one] for one in own]))
    edits = []
    for (space, own), rows in shared.items():
        sae, numbers = saes[space], [int(features.feature[one]) for one in own]
        change = Set(torch.tensor([values for _, values in rows], dtype=torch.float32))
        targets = tokens([row for row, _ in rows], [last] * len(rows))
        edits.append(Edit(sae.hookpoint, OnFeatures.of(sae, numbers, change), targets))
    return edits


def _add_vectors(copies: Sequence[Copy], last: int) -> list[Edit]:
    import torch

    rows = [(row, copy.added) for row, copy in enumerate(copies) if copy.added is not None]
    layers = sorted({layer for _, added in rows for layer in added})
    edits = []
    for layer in layers:
        mine = [(row, added[layer]) for row, added in rows if layer in added]
        vectors: Any = torch.stack([vector for _, vector in mine])
        targets = tokens([row for row, _ in mine], [last] * len(mine))
        edits.append(Edit(f"resid_post.{layer}", OnStream(Add(vectors)), targets))
    return edits
