"""Baselines of a screen: values from shuffled labels, the difference of the groups' means in the
raw stream, and a wording that asks for the behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.activations.kept_positions import Activations, asked_of
from toolkit.errors import BadInput
from toolkit.samples.selectors import SelectorText, selected
from toolkit.statistics.randomness import half

from .arms import MeanDifference

if TYPE_CHECKING:
    import numpy as np

    from toolkit.features.comparisons import Comparison
    from toolkit.work import Work

    from .candidates import ComparedFeatures
    from .params import Wording

    Array = np.ndarray[Any, Any]

MEAN_SAMPLES = 100
"""Most samples per group for a mean stream."""
MIN_SAMPLES = 2
"""Fewest samples for the mean of a group."""


def labelled_units(work: Work, comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Sample -> (unit, group), for the samples that the comparison used, as far as this stage's
    samples have labels.
    """
    if "sample_meta" not in work.inputs.tables():
        return {}
    meta = work.inputs.read("sample_meta").to_pylist()
    labels = {row["sample"]: _label(row) for row in meta if row["key"] == comparison.by}
    rows = work.inputs.read("samples").select(["sample", "unit"]).to_pylist()
    return {
        row["sample"]: (row["unit"], labels[row["sample"]])
        for row in rows
        if labels.get(row["sample"]) in comparison.group_names
        and comparison.half in ("all", half(work.seed, row["unit"]))
    }


def _label(row: Mapping[str, Any]) -> str:
    return str(row["string"]) if row["string"] is not None else f"{row['number']:g}"


# --- shuffled labels ------------------------------------------------------------------------------


def shuffled_values(work: Work, features: ComparedFeatures) -> Array | None:
    """(K, 2): the means of two groups after the labels of the units are shuffled, with one shuffle
    for all features. None without activations or labels.
    """
    import numpy as np

    from toolkit.activations.matrix import read_space

    if "activations" not in work.inputs.tables():
        return None
    groups = labelled_units(work, features.comparison)
    activations = Activations(work.inputs, asked_of(features.comparison.positions))
    samples = sorted(set(groups) & activations.measured)
    shuffled_labels = _shuffled_labels(work, [groups[sample] for sample in samples])
    masks = [np.array([group == name for group in shuffled_labels]) for name in features.groups]
    if any(mask.sum() < MIN_SAMPLES for mask in masks):
        return None
    values = np.zeros((len(features), 2))
    for space in np.unique(features.space).tolist():
        id, members = features.spaces[space], features.of_space(space)
        width = int(features.feature[members].max()) + 1
        rows = activations.of(id, samples, id)
        fired = read_space(rows, samples, _width(rows, width), "max", id)
        means = np.stack([fired.matrix[mask].mean(axis=0) for mask in masks], axis=1)
        columns = np.searchsorted(fired.features, features.feature[members])
        is_present = np.append(fired.features, -1)[columns] == features.feature[members]
        values[members[is_present]] = means[columns[is_present]]
    return values


def _width(rows: Any, min_width: int) -> int:
    """A width that covers every listed feature."""
    listed = rows["features"].combine_chunks().flatten()
    return max(min_width, int(listed.to_numpy(zero_copy_only=False).max(initial=0)) + 1)


def _shuffled_labels(work: Work, sample_groups: Sequence[tuple[str, str]]) -> list[str]:
    """Each sample's shuffled group: whole units swap labels if every unit has one label."""
    groups_by_unit: dict[str, set[str]] = {}
    for unit, group in sample_groups:
        groups_by_unit.setdefault(unit, set()).add(group)
    rng = work.rng("patch.shuffled")
    if all(len(groups) == 1 for groups in groups_by_unit.values()):
        units = sorted(groups_by_unit)
        shuffled = [
            next(iter(groups_by_unit[units[index]])) for index in rng.permutation(len(units))
        ]
        label_of_unit = dict(zip(units, shuffled, strict=True))
        return [label_of_unit[unit] for unit, _ in sample_groups]
    return [sample_groups[index][1] for index in rng.permutation(len(sample_groups))]


# --- the difference of means ----------------------------------------------------------------------


def mean_differences(
    work: Work, comparison: Comparison, hookpoints: Sequence[str], selector: Any
) -> dict[str, MeanDifference]:
    """By hookpoint, the difference of the two groups' mean streams at the edited token, over
    samples that the comparison used. Empty if a group has too few labelled samples.
    """
    import torch

    groups = labelled_units(work, comparison)
    means = []
    for name in comparison.group_names:
        prompts = _prompts(
            work, [sample for sample, (_, group) in groups.items() if group == name], selector
        )
        if len(prompts) < MIN_SAMPLES:
            return {}
        means.append(_mean_streams(work, prompts, hookpoints))
    differences = {}
    for name in hookpoints:
        mean_a, mean_b = means[0][name], means[1][name]
        unit = torch.nn.functional.normalize(mean_a - mean_b, dim=0)
        differences[name] = MeanDifference(unit, float(mean_a @ unit), float(mean_b @ unit))
    return differences


def _prompts(work: Work, samples: Sequence[str], selector: Any) -> list[tuple[Sequence[int], int]]:
    """(ids, position of the edited token) of some samples, drawn by seed."""
    chosen = set(
        sorted(samples, key=lambda sample: float(work.rng("patch.means", sample).random()))[
            :MEAN_SAMPLES
        ]
    )
    columns = ["sample", "token_ids", "pieces", "spans"]
    rows = work.inputs.read("samples").select(columns).to_pylist()
    prompts = []
    for row in rows:
        if row["sample"] in chosen:
            positions = selected(selector, SelectorText.of(row), work.model.bos_id)
            prompts += [(row["token_ids"], position) for position in positions[-1:]]
    return prompts


def _mean_streams(
    work: Work, prompts: Sequence[tuple[Sequence[int], int]], hookpoints: Sequence[str]
) -> dict[str, Any]:
    sums: dict[str, Any] = dict.fromkeys(hookpoints, 0.0)
    for ids, position in prompts:
        captured = work.model.run([ids], list(hookpoints))
        for name in hookpoints:
            sums[name] = sums[name] + captured[name][0, position].float()
    return {name: total / len(prompts) for name, total in sums.items()}


# --- the wording ----------------------------------------------------------------------------------


def ids_with_wording(work: Work, wording: Wording, text: str) -> tuple[int, ...]:
    """The token ids of a prompt that asks for the behaviour in words."""
    position = 0 if wording.before is None else text.rfind(wording.before)
    if position < 0:
        raise BadInput(
            f"prompt_only.before: a decision point does not say '{wording.before}'; its text "
            f"ends '{text[-60:]}'. Name words that every prompt has, or leave `before` out."
        )
    ids = work.model.tokenise(text[:position] + wording.text + text[position:]).ids
    return tuple(ids)
