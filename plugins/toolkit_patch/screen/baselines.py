"""What a screen's effects are held beside: values from shuffled labels, the difference of the
groups' means in the raw stream, and a wording that asks for the behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput
from toolkit.kept_positions import Activations, asked_of
from toolkit.randomness import half
from toolkit.selectors import Read, selected

from .arms import MeanDifference

if TYPE_CHECKING:
    import numpy as np

    from toolkit.comparisons import Comparison
    from toolkit.work import Work

    from .candidates import ComparedFeatures
    from .params import Wording

    Array = np.ndarray[Any, Any]

MEAN_SAMPLES = 100
"""Samples of each group of which the mean stream is taken, at most."""
FEWEST = 2
"""Samples without which a group has no mean."""


def labelled_units(work: Work, comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Sample -> (unit, group), for the samples that the comparison saw, as far as the samples of
    this stage tell.
    """
    if "sample_meta" not in work.inputs.tables():
        return {}
    meta = work.inputs.read("sample_meta").to_pylist()
    labels = {row["sample"]: _word(row) for row in meta if row["key"] == comparison.by}
    rows = work.inputs.read("samples").select(["sample", "unit"]).to_pylist()
    return {
        row["sample"]: (row["unit"], labels[row["sample"]])
        for row in rows
        if labels.get(row["sample"]) in comparison.group_names
        and comparison.half in ("all", half(work.seed, row["unit"]))
    }


def _word(row: Mapping[str, Any]) -> str:
    return str(row["string"]) if row["string"] is not None else f"{row['number']:g}"


# --- shuffled labels ------------------------------------------------------------------------------


def shuffled_values(work: Work, features: ComparedFeatures) -> Array | None:
    """(K, 2): the means of two groups of units that were dealt their labels by lot, one deal for
    all features. None where the activations or the labels are not there.
    """
    import numpy as np

    from toolkit.activation_matrix import read_space

    if "activations" not in work.inputs.tables():
        return None
    groups = labelled_units(work, features.comparison)
    activations = Activations(work.inputs, asked_of(features.comparison.positions))
    samples = sorted(set(groups) & activations.measured)
    dealt = _deal(work, [groups[sample] for sample in samples])
    masks = [np.array([group == name for group in dealt]) for name in features.groups]
    if any(mask.sum() < FEWEST for mask in masks):
        return None
    values = np.zeros((len(features), 2))
    for space in np.unique(features.space).tolist():
        id, members = features.spaces[space], features.of_space(space)
        width = int(features.feature[members].max()) + 1
        rows = activations.of(id, samples, id)
        fired = read_space(rows, samples, _width(rows, width), "max", id)
        means = np.stack([fired.matrix[mask].mean(axis=0) for mask in masks], axis=1)
        places = np.searchsorted(fired.features, features.feature[members])
        there = np.append(fired.features, -1)[places] == features.feature[members]
        values[members[there]] = means[places[there]]
    return values


def _width(rows: Any, least: int) -> int:
    """Enough for every feature that is listed."""
    flat = rows["features"].combine_chunks().flatten()
    return max(least, int(flat.to_numpy(zero_copy_only=False).max(initial=0)) + 1)


def _deal(work: Work, owners: Sequence[tuple[str, str]]) -> list[str]:
    """Each sample's shuffled group: whole units change labels where a unit has one label."""
    of_unit: dict[str, set[str]] = {}
    for unit, group in owners:
        of_unit.setdefault(unit, set()).add(group)
    rng = work.rng("patch.shuffled")
    if all(len(groups) == 1 for groups in of_unit.values()):
        units = sorted(of_unit)
        drawn = [next(iter(of_unit[units[place]])) for place in rng.permutation(len(units))]
        label = dict(zip(units, drawn, strict=True))
        return [label[unit] for unit, _ in owners]
    return [owners[place][1] for place in rng.permutation(len(owners))]


# --- the difference of means ----------------------------------------------------------------------


def mean_differences(
    work: Work, comparison: Comparison, hookpoints: Sequence[str], at: Any
) -> dict[str, MeanDifference]:
    """By hookpoint, the difference of the two groups' mean streams at the edited token, over
    samples that the comparison saw. Empty where a group has too few that are labelled.
    """
    import torch

    groups = labelled_units(work, comparison)
    means = []
    for name in comparison.group_names:
        prompts = _prompts(work, [s for s, (_, group) in groups.items() if group == name], at)
        if len(prompts) < FEWEST:
            return {}
        means.append(_mean_streams(work, prompts, hookpoints))
    found = {}
    for name in hookpoints:
        first, second = means[0][name], means[1][name]
        unit = torch.nn.functional.normalize(first - second, dim=0)
        found[name] = MeanDifference(unit, float(first @ unit), float(second @ unit))
    return found


def _prompts(work: Work, samples: Sequence[str], at: Any) -> list[tuple[Sequence[int], int]]:
    """(ids, position) of some samples, drawn by seed."""
    chosen = set(
        sorted(samples, key=lambda sample: float(work.rng("patch.means", sample).random()))[
            :MEAN_SAMPLES
        ]
    )
    columns = ["sample", "token_ids", "pieces", "spans"]
    rows = work.inputs.read("samples").select(columns).to_pylist()
    found = []
    for row in rows:
        if row["sample"] in chosen:
            positions = selected(at, Read.of(row), work.model.bos_id)
            found += [(row["token_ids"], position) for position in positions[-1:]]
    return found


def _mean_streams(
    work: Work, prompts: Sequence[tuple[Sequence[int], int]], hookpoints: Sequence[str]
) -> dict[str, Any]:
    sums: dict[str, Any] = dict.fromkeys(hookpoints, 0.0)
    for ids, position in prompts:
        seen = work.model.run([ids], list(hookpoints))
        for name in hookpoints:
            sums[name] = sums[name] + seen[name][0, position].float()
    return {name: total / len(prompts) for name, total in sums.items()}


# --- the wording ----------------------------------------------------------------------------------


def asked_for(work: Work, wording: Wording, text: str) -> tuple[int, ...]:
    """The ids of a prompt that asks for the behaviour in words."""
    place = 0 if wording.before is None else text.rfind(wording.before)
    if place < 0:
        raise BadInput(
            f"prompt_only.before: a decision point does not say '{wording.before}'; its text "
            f"ends '{text[-60:]}'. Name words that every prompt has, or leave `before` out."
        )
    ids = work.model.tokenise(text[:place] + wording.text + text[place:]).ids
    return tuple(ids)
