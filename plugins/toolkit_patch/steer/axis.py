"""The axis: from one group's mean stream to the other's, at the last token, and how far samples
spread along it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, choices
from toolkit.statistics.randomness import half

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.work import Work

    from .params import Steering


@dataclass(frozen=True, eq=False)
class Axis:
    """At each layer: the unit direction (width,), and how far samples spread along it (sd)."""

    layers: tuple[int, ...]
    directions: tuple[Tensor, ...]
    spreads: tuple[float, ...]


def make_axis(work: Work, layers: Sequence[int]) -> Axis:
    """The difference of means between two groups of samples, from units that no decision point is
    taken from.
    """
    import torch

    params: Steering = work.params
    groups = _prompts_by_group(work)
    sums: dict[str, list[list[Tensor]]] = {group: [[] for _ in layers] for group in groups}
    names = [f"resid_post.{layer}" for layer in layers]
    for group, prompts in groups.items():
        for ids in prompts:
            captured = work.model.prefix(ids, names).captured
            for index, name in enumerate(names):
                sums[group][index].append(captured[name].float())
    directions, spreads = [], []
    for index in range(len(layers)):
        group_a, group_b = (torch.stack(sums[group][index]) for group in params.between)
        unit = torch.nn.functional.normalize(group_a.mean(0) - group_b.mean(0), dim=0)
        deviations = torch.cat((group_a - group_a.mean(0), group_b - group_b.mean(0))) @ unit
        directions.append(unit)
        spreads.append(float(deviations.std()))
    return Axis(tuple(layers), tuple(directions), tuple(spreads))


def _prompts_by_group(work: Work) -> dict[str, list[list[int]]]:
    """Prompts of either group, from the half that selects, in an order drawn by seed."""
    params: Steering = work.params
    meta = work.inputs.read("sample_meta").to_pylist()
    labels = {row["sample"]: row["string"] for row in meta if row["key"] == params.by}
    rows = work.inputs.read("samples").select(["sample", "unit", "token_ids"]).to_pylist()
    rows.sort(key=lambda row: float(work.rng("patch.axis", row["sample"]).random()))
    groups: dict[str, list[list[int]]] = {group: [] for group in params.between}
    for row in rows:
        group = labels.get(row["sample"])
        unseen = params.half == "all" or half(work.seed, row["unit"]) == "select"
        if group in groups and unseen and len(groups[group]) < params.axis_samples // 2:
            groups[group].append(row["token_ids"])
    too_small = [group for group, prompts in groups.items() if len(prompts) < 2]
    if too_small:
        group_names = sorted({str(label) for label in labels.values()})
        raise DataError(
            f"between: group '{too_small[0]}' of {params.by} has fewer than 2 samples in the half "
            f"that selects. Groups: {choices(group_names)}."
        )
    return groups


def random_axes(work: Work, axis: Axis, count: int) -> list[Axis]:
    """Random normal directions at every layer, moved as far as the axis."""
    import torch

    axes = []
    for number in range(count):
        directions = []
        for layer, direction in zip(axis.layers, axis.directions, strict=True):
            sample: Any = work.rng("patch.steer", layer, number).standard_normal(len(direction))
            directions.append(
                torch.nn.functional.normalize(torch.from_numpy(sample).to(direction), dim=0)
            )
        axes.append(Axis(axis.layers, tuple(directions), axis.spreads))
    return axes
