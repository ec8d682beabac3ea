"""`track.contrasts`: for each span and layer, how much the decision attends to it and how strongly
features fire on it, in two groups of samples and between them.

Values are first averaged within each unit. A p-value is given where both groups have at least
`min_units` units, and q is computed over all tested differences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import BadInput, DataError, choices, nearest
from toolkit.features.addresses import layer_of, short
from toolkit.parts import LabelUse, Params
from toolkit.samples.selectors import SelectorText, selected
from toolkit.statistics.arrays import finite_or_none
from toolkit.statistics.corrections import q_values
from toolkit.tables import arrow_schema, written
from toolkit.work import Rows, Work
from toolkit_tokens.statistics import (
    MIN_UNITS,
    difference,
    mean,
    permutation_p,
)
from toolkit_tokens.track.params import Positions

if TYPE_CHECKING:
    import numpy as np

SHARE, FIRING = "attention_share", "activation"
"""The share of attention that goes to a span, averaged over heads and queries; and the sum of
activations of a token, averaged over the tokens of a span.
"""


class Contrasts(Params):
    """Which groups are compared, from which tokens attention is read, and which spans."""

    by: str = Field(min_length=1, description="The metadata key that holds a sample's group.")
    between: tuple[str, str] = Field(description="The two groups to compare.")
    where: dict[str, str] = Field(
        {}, description="Compare only samples with this metadata, such as {consistent: yes}."
    )
    queries: Positions = Field("last", description="The query tokens whose attention is compared.")
    spans: tuple[str, ...] = Field(
        (), description="Names of the spans to compare; by default all that samples have."
    )
    min_units: int = Field(
        MIN_UNITS,
        ge=3,
        description="Minimum number of units per group for p-values to be reported.",
    )


def label_uses(params: Contrasts) -> Iterator[LabelUse]:
    """The metadata that the params name."""
    yield LabelUse(field="by", key=params.by, values_field="between", values=tuple(params.between))
    for key, value in params.where.items():
        yield LabelUse(field="where", key=key, values_field="where", values=(value,))


@dataclass(frozen=True)
class _TrackedSample:
    """A sample of one of the groups."""

    name: str
    unit: str
    group: str
    spans: Mapping[str, frozenset[int]]
    queries: frozenset[int]


_Key = tuple[str, str, int]
"""Statistic, span, layer."""
_Values = Mapping[_Key, Mapping[str, float]]
"""By key, the value of each sample."""


def contrast(work: Work) -> Rows:
    """Rows of `span_contrasts`: each group's mean, then the difference."""
    import pyarrow as pa

    samples = _samples(work)
    values = {**_shares(work, samples), **_activation_sums(work, samples)}
    if not values:
        raise DataError(
            "track.contrasts: the needed stages kept neither attention nor activations of these "
            "spans. Add track.tokens or track.attention to `needs`."
        )
    named = _largest_differences(work, samples)
    rows = list(_rows(work, samples, values, named))
    yield "span_contrasts", pa.Table.from_pylist(rows, schema=arrow_schema("span_contrasts"))


def _samples(work: Work) -> dict[str, _TrackedSample]:
    params: Contrasts = work.params
    meta: dict[str, dict[str, str]] = defaultdict(dict)
    for row in work.inputs.read("sample_meta").to_pylist():
        text = row["string"] if row["string"] is not None else written(row["number"])
        meta[row["sample"]][row["key"]] = text
    chosen = {}
    for row in work.inputs.read("samples").to_pylist():
        facts = meta[row["sample"]]
        if any(facts.get(key) != value for key, value in params.where.items()):
            continue
        if facts.get(params.by) not in params.between:
            continue
        read_sample = SelectorText.of(row)
        spans: dict[str, set[int]] = defaultdict(set)
        for name, start, end in read_sample.spans:
            spans[name] |= set(range(start, end))
        queries = selected(params.queries, read_sample, None)
        frozen = {name: frozenset(positions) for name, positions in spans.items()}
        group = facts[params.by]
        chosen[row["sample"]] = _TrackedSample(
            row["sample"], row["unit"], group, frozen, frozenset(queries)
        )
    _check_groups(params, chosen, meta)
    if not params.spans:
        return chosen
    return {name: _with_spans(sample, params.spans) for name, sample in chosen.items()}


def _with_spans(sample: _TrackedSample, names: Sequence[str]) -> _TrackedSample:
    spans = {name: tokens for name, tokens in sample.spans.items() if name in names}
    return replace(sample, spans=spans)


def _check_groups(
    params: Contrasts, samples: Mapping[str, _TrackedSample], meta: Mapping[str, Mapping[str, str]]
) -> None:
    for group in params.between:
        if not any(sample.group == group for sample in samples.values()):
            known = sorted({facts[params.by] for facts in meta.values() if params.by in facts})
            condition = " and the metadata of `where`" if params.where else ""
            raise DataError(
                f"between: no sample has {params.by} = '{group}'{condition}."
                f"{nearest(group, known)} Values of {params.by}: {choices(known) or '(none)'}."
            )
    known_spans = {name for sample in samples.values() for name in sample.spans}
    for name in params.spans:
        if name not in known_spans:
            raise BadInput(
                f"spans: no sample has a span '{name}'.{nearest(name, known_spans)} Spans: "
                f"{choices(known_spans)}."
            )


# --- one number per sample, span and layer --------------------------------------------------------


def _shares(work: Work, samples: Mapping[str, _TrackedSample]) -> _Values:
    """The share of attention, averaged over the heads and the queries of a sample."""
    import numpy as np

    if "attention" not in work.inputs.tables():
        return {}
    sums: dict[_Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    columns = ["sample", "layer", "query", "keys", "weights"]
    for batch in work.inputs.read("attention").select(columns).to_batches():
        for row in batch.to_pylist():
            sample = samples.get(row["sample"])
            if sample is None or row["query"] not in sample.queries:
                continue
            weights = np.array(row["weights"], dtype=np.float64)
            keys = range(len(weights)) if row["keys"] is None else row["keys"]
            index_of = {key: number for number, key in enumerate(keys)}
            for name, tokens in sample.spans.items():
                mass = sum(float(weights[index_of[token]]) for token in tokens if token in index_of)
                sums[SHARE, name, row["layer"]][sample.name].append(mass)
    return {
        key: {name: float(np.mean(shares)) for name, shares in by_sample.items()}
        for key, by_sample in sums.items()
    }


def _activation_sums(work: Work, samples: Mapping[str, _TrackedSample]) -> _Values:
    """The sum of a token's activations, averaged over the tracked tokens of a span."""
    import numpy as np

    totals: dict[_Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row, layer in _activations(work):
        sample = samples.get(row["sample"])
        if sample is None:
            continue
        total = float(np.sum(row["values"], dtype=np.float64))
        for name, tokens in sample.spans.items():
            if row["position"] in tokens:
                totals[FIRING, name, layer][sample.name].append(total)
    return {
        key: {name: float(np.mean(sums)) for name, sums in by_sample.items()}
        for key, by_sample in totals.items()
    }


def _activations(work: Work) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Rows of activations with their layer."""
    if not {"activations", "spaces"} <= set(work.inputs.tables()):
        return
    layers = {row["space"]: layer_of(row) for row in work.inputs.read("spaces").to_pylist()}
    for batch in work.inputs.read("activations").to_batches():
        for row in batch.to_pylist():
            layer = layers.get(row["space"])
            if layer is not None:
                yield row, layer


def _largest_differences(
    work: Work, samples: Mapping[str, _TrackedSample]
) -> dict[tuple[str, int], str]:
    """By span and layer, the feature whose mean differs most between the groups: a description, not
    a test.
    """
    group_a, group_b = work.params.between
    sizes = {group: 0 for group in (group_a, group_b)}
    for sample in samples.values():
        sizes[sample.group] += 1
    sums: dict[tuple[str, int], dict[tuple[str, int], float]] = defaultdict(
        lambda: defaultdict(float)
    )
    spaces = {}
    if "spaces" in work.inputs.tables():
        spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    for row, layer in _activations(work):
        tracked = samples.get(row["sample"])
        if tracked is None:
            continue
        weight = (1.0 if tracked.group == group_a else -1.0) / sizes[tracked.group]
        for name, tokens in tracked.spans.items():
            if row["position"] in tokens:
                feature_sums = sums[name, layer]
                for feature, value in zip(row["features"], row["values"], strict=True):
                    feature_sums[row["space"], feature] += weight * value / len(tokens)
    labels = {}
    for key, feature_sums in sums.items():
        if feature_sums:
            (space, feature), gap = max(feature_sums.items(), key=lambda entry: abs(entry[1]))
            labels[key] = f"largest difference: {short(spaces[space], feature)} {gap:+.3g}"
    return labels


# --- rows -----------------------------------------------------------------------------------------


def _rows(
    work: Work,
    samples: Mapping[str, _TrackedSample],
    values: _Values,
    named: Mapping[tuple[str, int], str],
) -> list[dict[str, Any]]:
    params: Contrasts = work.params
    rows: list[dict[str, Any]] = []
    tested: list[dict[str, Any]] = []
    for key in sorted(values):
        statistic, span, layer = key
        sides = [_unit_means(samples, values[key], group) for group in params.between]
        facts = {"statistic": statistic, "span": span, "layer": layer}
        for group, side in zip(params.between, sides, strict=True):
            if len(side):
                estimate = mean(side, work.rng("track.mean", *key, group))
                rows.append(_row(facts, group, estimate, len(side)))
        if not all(map(len, sides)):
            continue
        estimate = difference(sides[0], sides[1], work.rng("track.difference", *key))
        is_small = min(map(len, sides)) < params.min_units
        p = None if is_small else permutation_p(sides[0], sides[1], work.rng("track.p", *key))
        text = named.get((span, layer), "") if statistic == FIRING else ""
        if is_small:
            counts = " and ".join(str(len(side)) for side in sides)
            withheld = f"p withheld: {counts} units, fewer than {params.min_units} in a group"
            text = f"{text}; {withheld}" if text else withheld
        row = _row(facts, " - ".join(params.between), estimate, sum(map(len, sides)), text or None)
        row["p"] = p
        tested.append(row)
    for row, q in zip(tested, q_values([row["p"] for row in tested]), strict=True):
        row["q"] = q
    return rows + tested


def _unit_means(
    samples: Mapping[str, _TrackedSample], values: Mapping[str, float], group: str
) -> np.ndarray[Any, Any]:
    import numpy as np

    units: dict[str, list[float]] = defaultdict(list)
    for name, value in values.items():
        if samples[name].group == group:
            units[samples[name].unit].append(value)
    return np.array([np.mean(unit_values) for unit_values in units.values()], dtype=np.float64)


def _row(
    facts: Mapping[str, Any],
    group: str,
    estimate: Sequence[float],
    units: int,
    text: str | None = None,
) -> dict[str, Any]:
    value, low, high = map(finite_or_none, estimate)
    return {
        **facts,
        "group": group,
        "value": value,
        "low": low,
        "high": high,
        "p": None,
        "q": None,
        "units": units,
        "text": text,
    }
