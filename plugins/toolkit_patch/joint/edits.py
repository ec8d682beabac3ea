"""Copies of a prompt with several features changed at the last token; a later layer sees the edits
of earlier ones.
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
    """One copy: which members are changed, and to which values; for a random set, the vector that
    is added at each hookpoint.
    """

    members: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    added: Mapping[str, Tensor] | None = None


def edits_of(
    copies: Sequence[Copy], features: ComparedFeatures, saes: Mapping[int, Sae], position: int
) -> list[Edit]:
    """The edits of all copies. Copies that change the same members of a space share an edit."""
    return [*_set_features(copies, features, saes, position), *_add_vectors(copies, position)]


def _set_features(
    copies: Sequence[Copy], features: ComparedFeatures, saes: Mapping[int, Sae], position: int
) -> list[Edit]:
    import torch

    shared: dict[tuple[int, tuple[int, ...]], list[tuple[int, list[float]]]] = {}
    for row, copy in enumerate(copies):
        value_of = dict(zip(copy.members, copy.values, strict=True))
        for space in sorted({int(features.space[member]) for member in copy.members}):
            members = tuple(
                member for member in copy.members if int(features.space[member]) == space
            )
            shared.setdefault((space, members), []).append(
                (row, [value_of[member] for member in members])
            )
    edits = []
    for (space, members), rows in shared.items():
        sae, indices = saes[space], [int(features.feature[member]) for member in members]
        change = Set(torch.tensor([values for _, values in rows], dtype=torch.float32))
        targets = tokens([row for row, _ in rows], [position] * len(rows))
        reads = sae.hookpoint if sae.hookpoint != sae.output_hookpoint else None
        operation = OnFeatures.of(sae, indices, change)
        edits.append(Edit(sae.output_hookpoint, operation, targets, reads))
    return edits


def _add_vectors(copies: Sequence[Copy], position: int) -> list[Edit]:
    import torch

    rows = [(row, copy.added) for row, copy in enumerate(copies) if copy.added is not None]
    hookpoints = sorted({name for _, added in rows for name in added})
    edits = []
    for name in hookpoints:
        entries = [(row, added[name]) for row, added in rows if name in added]
        vectors: Any = torch.stack([vector for _, vector in entries])
        targets = tokens([row for row, _ in entries], [position] * len(entries))
        edits.append(Edit(name, OnStream(Add(vectors)), targets))
    return edits
