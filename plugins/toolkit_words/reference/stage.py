"""`words.cross_reference`: whether several descriptions of a feature agree.

Descriptions (a label, words of replies, promoted tokens) are compared with each other and with
effects of patching. Positions where features fire are compared with spans of the texts and with the
attention of their layer. Each number is given with its value under shuffles. q runs over all
numbers of single features, and over all numbers of whole spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import DataError
from toolkit.features.addresses import layer_of, locate
from toolkit.features.agreement import stems, stems_of
from toolkit.features.labels import LABEL
from toolkit.parts import Params
from toolkit_words.replies.pairs import CONFIRMED

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Rows, Work
    from toolkit_words.reference.descriptions import Bags

KINDS = ("label", "words", "tokens")
Described = Mapping[str, Mapping[str, Mapping[int, frozenset[str]]]]
"""By kind of description and space, the stems of each feature."""
Ranges = Mapping[str, Mapping[str, Sequence[tuple[int, int]]]]
"""By name of the span and sample, its ranges of tokens."""


class CrossReference(Params):
    """What is compared, and the number of shuffles."""

    labels: dict[str, str] = Field(
        {},
        description="Labels by address, in addition to those that a needed stage wrote to "
        "`features` (stat `label`).",
    )
    outcomes: dict[str, tuple[str, ...]] = Field(
        {},
        description="Words that indicate each outcome of the verdicts, such as {stop: [stop, "
        "careful], bet: [bet, risk]}: descriptions that contain them are compared with effects.",
    )
    spans: tuple[str, ...] | None = Field(
        None,
        description="Names of the spans to compare with; by default all that the samples have.",
    )
    permutations: int = Field(999, ge=19, description="Number of shuffles for each statistic.")
    max_features: int = Field(
        4096, ge=1, description="Maximum number of features per space that are compared with spans."
    )


def cross_reference(work: Work) -> Rows:
    """Rows of `cross_references`."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    described = _described(work, spaces)
    if not any(described.values()):
        raise DataError(
            "words.cross_reference: no feature has a description. Need a stage that writes "
            "`promoted_tokens` or `feature_words`, or give `labels`."
        )
    work.report.phase("compute")
    rows = [*_descriptions(work, spaces, described), *_effects(work, spaces, described)]
    rows += _in_spans(work, spaces, described)
    yield (
        "cross_references",
        pa.Table.from_pylist(_corrected(rows), schema=arrow_schema("cross_references")),
    )


def _corrected(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """q by Benjamini-Hochberg over two families: numbers of single features, and numbers over all
    features of a space.
    """
    import numpy as np

    from toolkit.statistics.corrections import benjamini_hochberg

    for single in (True, False):
        family = [
            row for row in rows if row["p"] is not None and (row["feature"] is not None) == single
        ]
        if family:
            q = benjamini_hochberg(np.array([row["p"] for row in family]), len(family))
            for row, value in zip(family, q.tolist(), strict=True):
                row["q"] = value
    return list(rows)


def _row(space: str, feature: int | None, relation: str, **numbers: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("score", "baseline", "p", "q", "text"))
    return {"space": space, "feature": feature, "relation": relation, **empty, **numbers}


# --- descriptions ---------------------------------------------------------------------------------


def _described(work: Work, spaces: Mapping[str, Mapping[str, Any]]) -> Described:
    """All descriptions of features."""
    import pyarrow.compute as pc

    tables = work.inputs.tables()
    described: dict[str, dict[tuple[str, int], list[str]]] = {kind: {} for kind in KINDS}
    if "features" in tables:
        features = work.inputs.read("features")
        for row in features.filter(pc.equal(features["stat"], LABEL)).to_pylist():
            if row["text"]:
                described["label"].setdefault((row["space"], row["feature"]), []).append(
                    row["text"]
                )
    for address, text in work.params.labels.items():
        space, index = locate(address, spaces.values())
        described["label"].setdefault((str(space["space"]), index), []).append(text)
    if "feature_words" in tables:
        for row in work.inputs.read("feature_words").to_pylist():
            if row["verdict"] == CONFIRMED and row["value"] > 0:
                described["words"].setdefault((row["space"], row["feature"]), []).append(
                    row["word"]
                )
    if "promoted_tokens" in tables:
        for row in work.inputs.read("promoted_tokens").to_pylist():
            if row["method"] == "unembedding":
                described["tokens"][row["space"], row["feature"]] = row["promoted_pieces"]
    made: dict[str, dict[str, dict[int, frozenset[str]]]] = {kind: {} for kind in KINDS}
    for kind, features in described.items():
        for (id, feature), texts in features.items():
            bag = stems(texts[0]) if kind == "label" else stems_of(texts)
            made[kind].setdefault(id, {})[feature] = bag
    return made


def _descriptions(
    work: Work, spaces: Mapping[str, Any], described: Described
) -> Iterator[dict[str, Any]]:
    """Rows for each pair of kinds in each space: every feature, and the mean over features."""
    from toolkit_words.reference.descriptions import agreements

    for first, second in combinations(KINDS, 2):
        relation = f"{first}~{second}"
        for id in sorted(spaces):
            agreement = agreements(
                described[first].get(id, {}),
                described[second].get(id, {}),
                work.rng("cross reference", relation, id),
                work.params.permutations,
            )
            if agreement is None:
                continue
            for index, feature in enumerate(agreement.features):
                yield _row(
                    id,
                    feature,
                    relation,
                    score=float(agreement.score[index]),
                    baseline=float(agreement.baseline[index]),
                    p=float(agreement.p[index]),
                    n=len(agreement.features),
                )
            yield _row(
                id,
                None,
                relation,
                score=agreement.mean,
                baseline=agreement.shuffled,
                p=agreement.mean_p,
                n=len(agreement.features),
                text="mean over features, against shuffles of which feature has which",
            )


# --- effects --------------------------------------------------------------------------------------


def _effects(
    work: Work, spaces: Mapping[str, Any], described: Described
) -> Iterator[dict[str, Any]]:
    """Whether features whose description names an outcome raise it when they are patched."""
    from toolkit_words.reference.descriptions import polarity_against_effects

    outcomes = {name: stems_of(words) for name, words in work.params.outcomes.items()}
    if not outcomes or "verdicts" not in work.inputs.tables():
        return
    effects: dict[tuple[str, str], dict[int, float]] = {}
    for row in work.inputs.read("verdicts").to_pylist():
        effects.setdefault((row["space"], row["outcome"]), {})[row["feature"]] = row["effect"]
    for (id, outcome), effects_of in sorted(effects.items()):
        if outcome not in outcomes or id not in spaces:
            continue
        away = frozenset().union(*(bag for name, bag in outcomes.items() if name != outcome))
        for kind in KINDS:
            relation = f"{kind}~effect:{outcome}"
            bags: Bags = described[kind].get(id, {})
            words = (outcomes[outcome] - away, away - outcomes[outcome])
            rng = work.rng("cross reference", relation, id)
            correlation = polarity_against_effects(
                bags, effects_of, words, rng, work.params.permutations
            )
            if correlation is not None:
                yield _row(
                    id,
                    None,
                    relation,
                    score=correlation.r,
                    baseline=correlation.shuffled,
                    p=correlation.p,
                    n=correlation.n,
                    text="Spearman's r over features; the baseline is the mean size under shuffles",
                )


# --- spans ----------------------------------------------------------------------------------------


def _in_spans(
    work: Work, spaces: Mapping[str, Mapping[str, Any]], described: Described
) -> Iterator[dict[str, Any]]:
    """Where described features fire, and whether they do where their layer attends to a span."""
    from toolkit.activations.rows import BySpace
    from toolkit_words.reference.spans import inside, read_entries, shares

    if "activations" not in work.inputs.tables():
        return
    texts_of = _distinct(work.inputs.read("samples"))
    ranges = _ranges(texts_of, work.params.spans)
    samples = [row["sample"] for row in texts_of]
    by_space = BySpace(work.inputs.read("activations"))
    has_attention = "attention" in work.inputs.tables()
    attention = work.inputs.read("attention") if has_attention else None
    for id in sorted(set(spaces) & set(by_space.spaces)):
        features = sorted({feature for kind in KINDS for feature in described[kind].get(id, {})})
        features = features[: work.params.max_features]
        if not features:
            continue
        texts, entries = read_entries(by_space.of(id), samples, features)
        for span, ranges_of in ranges.items():
            within = inside(texts, ranges_of)
            if within.any() and not within.all():
                rng = work.rng("cross reference", "fires in", span, id)
                result = shares(texts, entries, within, rng, work.params.permutations)
                share = f"{within.mean():.1%} of the positions that were kept lie in it"
                for index, feature in enumerate(entries.features.tolist()):
                    if result.texts[index]:
                        yield _row(
                            id,
                            feature,
                            f"fires in {span}",
                            score=float(result.share[index]),
                            baseline=float(result.shuffled[index]),
                            p=float(result.p[index]),
                            n=int(result.texts[index]),
                            text=share,
                        )
            layer = layer_of(spaces[id])
            if attention is not None and layer is not None:
                yield from _attending(work, id, span, ranges_of, texts, entries, attention, layer)


def _attending(
    work: Work,
    id: str,
    span: str,
    ranges: Mapping[str, Sequence[tuple[int, int]]],
    texts: Any,
    entries: Any,
    attention: pa.Table,
    layer: int,
) -> Iterator[dict[str, Any]]:
    """Correlations over texts of a feature's activation at a query with the attention to the
    span.
    """
    import numpy as np

    from toolkit_words.reference.descriptions import rank_correlations
    from toolkit_words.reference.spans import attention_to

    mass = attention_to(attention, layer, ranges)
    places, weights = [], []
    for text, name in enumerate(texts.names):
        positions_of_text = range(texts.start[text], texts.start[text + 1])
        known = [index for index in positions_of_text if (name, int(texts.position[index])) in mass]
        if known:  # one query of each text: the last that both tables have
            places.append(known[-1])
            weights.append(mass[name, int(texts.position[known[-1]])])
    row_of = {position: row for row, position in enumerate(places)}
    values = np.zeros((len(places), len(entries.features)))
    for position, column, value in zip(entries.index, entries.column, entries.value, strict=True):
        if int(position) in row_of:
            values[row_of[int(position)], column] = value
    rng = work.rng("cross reference", "attends", span, id)
    correlations = rank_correlations(values, np.array(weights), rng, work.params.permutations)
    for feature, correlation in zip(entries.features.tolist(), correlations, strict=True):
        if correlation is not None:
            yield _row(
                id,
                feature,
                f"fires with attention to {span}",
                score=correlation.r,
                baseline=correlation.shuffled,
                p=correlation.p,
                n=correlation.n,
                text=f"Spearman's r over texts with the mean over heads of layer {layer}",
            )


def _distinct(samples: pa.Table) -> list[dict[str, Any]]:
    """One sample of each prompt: equal prompts have equal activations."""
    rows = samples.select(["sample", "cluster", "spans"]).to_pylist()
    by_cluster: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: str(row["sample"])):
        by_cluster.setdefault(row["cluster"], row)
    return list(by_cluster.values())


def _ranges(rows: Sequence[Mapping[str, Any]], requested: Sequence[str] | None) -> Ranges:
    """The ranges of each span; one that no sample has is refused."""
    ranges: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for row in rows:
        for span in row["spans"]:
            of_sample = ranges.setdefault(span["name"], {}).setdefault(row["sample"], [])
            of_sample.append((span["start"], span["end"]))
    if missing := [name for name in requested or () if name not in ranges]:
        raise DataError(
            f"spans: no sample has a span '{missing[0]}'. Spans: {', '.join(sorted(ranges))}."
        )
    return {
        name: of_sample
        for name, of_sample in sorted(ranges.items())
        if requested is None or name in requested
    }
