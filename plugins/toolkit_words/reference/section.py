"""The report's section on how far descriptions agree: each relation over all features, the clearest
single features, and every description of the features that patching or words select.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.features.addresses import prefixes
from toolkit.features.labels import LABEL
from toolkit.terminal import cell
from toolkit.work import Figure, Finding
from toolkit_words.replies.pairs import CONFIRMED

if TYPE_CHECKING:
    from toolkit.work import Inputs

    Row = Mapping[str, Any]
    Key = tuple[str, int]

SHOWN, EACH, LISTED = 16, 4, 6
"""Features of a table, features of each relation, and words of a feature."""
WRAPS = "white-space:normal;min-width:11rem"
NARROW = "white-space:normal;width:10rem"
FIRES, ATTENDS = "fires in ", "fires with attention to "


def reference_figures(inputs: Inputs) -> Iterator[Figure]:
    """Tables of each relation: over all features of a space, and for the most significant
    features; then one row per feature, with every description of it.
    """
    rows = inputs.read("cross_references").to_pylist()
    if not rows:
        return
    names = prefixes(inputs.read("spaces").to_pylist())
    over_all = [row for row in rows if row["feature"] is None]
    single = [row for row in rows if row["feature"] is not None]
    single.sort(key=lambda row: (2 if row["q"] is None else row["q"], -_beyond_shuffles(row)))
    clearest = [row for rows_of in _by_relation(single).values() for row in rows_of[:EACH]]
    shown = [*over_all, *clearest]
    note = (
        "Agreement of what different sources say of features, compared with shuffles. q over the "
        f"{len(over_all):,} numbers of whole spaces, and over the {len(single):,} of single "
        f"features, of which the {EACH} clearest of each relation are shown."
    )
    heads = ("relation", "feature", "score", "shuffled", "p", "q", "n", "")
    cells = [_cells(row, names) for row in shown]
    yield Figure("Do the sources agree?", draw.table(note, heads, cells, words=True), note)
    yield from _joined(inputs, single, names)


def _beyond_shuffles(row: Row) -> float:
    """How far the score is from that of shuffles."""
    if row["score"] is None or row["baseline"] is None:
        return 0.0
    return float(abs(abs(row["score"]) - row["baseline"]))


def _by_relation(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["relation"]):
        groups.setdefault(row["relation"], []).append(row)
    return groups


def reference_findings(inputs: Inputs) -> Iterable[Finding]:
    """For each relation between descriptions, the space with the strongest evidence."""
    rows = inputs.read("cross_references").to_pylist()
    names = prefixes(inputs.read("spaces").to_pylist())
    over_all = [row for row in rows if row["feature"] is None and row["score"] is not None]
    for relation in dict.fromkeys(row["relation"] for row in over_all):
        of_relation = [row for row in over_all if row["relation"] == relation]
        best = min(of_relation, key=lambda row: (row["p"], -abs(row["score"])))
        yield Finding(
            sentence=f"{_about(relation)} is {best['score']:.2f} over {best['n']} features of "
            f"{_space(best, names)} (q {best['q']:.2g}), the strongest evidence among "
            f"{len(of_relation)} spaces",
            number=best["score"],
            n=best["n"],
            baseline=f"{best['baseline']:.2f} under shuffles",
            rank=44 if relation.startswith(("label~words", "label~effect")) else 45,
        )


def _about(relation: str) -> str:
    """A relation in words: `label~effect:stop`, `label~words`."""
    first, _, second = relation.partition("~")
    if second.startswith("effect:"):
        outcome = second.removeprefix("effect:")
        return f"The rank correlation of what {_plural(first)} say with effects on P({outcome})"
    return f"The agreement of {_plural(first)} with {_plural(second)}"


def _plural(kind: str) -> str:
    return {"label": "labels", "words": "words of replies", "tokens": "promoted tokens"}[kind]


def _space(row: Row, names: Mapping[str, str]) -> str:
    name = names.get(row["space"], row["space"]).rstrip("/:")
    return f"layer {name}" if name.isdigit() else name


def _cells(row: Row, names: Mapping[str, str]) -> tuple[str, ...]:
    whose = (
        f"all of {_space(row, names)}"
        if row["feature"] is None
        else _feature((row["space"], row["feature"]), names)
    )
    return (
        f'<div style="{NARROW}">{draw.escaped(row["relation"])}</div>',
        draw.escaped(whose),
        "" if row["score"] is None else f"{row['score']:.2f}",
        "" if row["baseline"] is None else f"{row['baseline']:.2f}",
        "" if row["p"] is None else draw.small(row["p"]),
        "" if row["q"] is None else draw.small(row["q"]),
        str(row["n"]),
        draw.escaped(cell(row["text"] or "")),
    )


def _feature(key: Key, names: Mapping[str, str]) -> str:
    return f"{names.get(key[0], key[0] + ':')}{key[1]}"


# --- one row per feature --------------------------------------------------------------------------


def _joined(inputs: Inputs, single: Sequence[Row], names: Mapping[str, str]) -> Iterator[Figure]:
    """Label, words, places, attention and effect of the features with an effect or a word."""
    effects, words, labels = _effects(inputs), _words(inputs), _labels(inputs)
    clearest = {key: row["p"] for key, row in effects.items()}
    for key, word_rows in words.items():
        clearest[key] = min([clearest.get(key, 1.0), *(row["p"] for row in word_rows)])
    if not clearest:
        return
    order = sorted(clearest, key=lambda key: (key not in labels, clearest[key], key))[:SHOWN]
    fires, attends = _strongest(single, FIRES), _strongest(single, ATTENDS)
    note = (
        f"What is said of {len(order)} of {len(clearest):,} features with an effect or a confirmed "
        "word, labelled ones first, then by the smaller p of the two. For spans and attention the "
        "one with the smallest q is named."
    )
    cells = [
        (
            draw.escaped(_feature(key, names)),
            f'<div style="{WRAPS}">{draw.escaped(cell(labels.get(key, "")))}</div>',
            draw.escaped(", ".join(cell(row["word"]) for row in words.get(key, ())[:LISTED])),
            _place(fires.get(key), FIRES, share=True),
            _place(attends.get(key), ATTENDS, share=False),
            _effect(effects.get(key)),
        )
        for key in order
    ]
    heads = ("feature", "label", "words of replies", "fires in", "with attention to", "effect")
    yield Figure("Descriptions of each feature", draw.table(note, heads, cells, words=True), note)


def _effects(inputs: Inputs) -> dict[Key, Row]:
    """The verdict of each feature with the smallest p."""
    rows = inputs.read("verdicts").to_pylist() if "verdicts" in inputs.tables() else []
    best: dict[Key, Row] = {}
    for row in sorted(rows, key=lambda row: (row["p"], row["outcome"])):
        best.setdefault((row["space"], row["feature"]), row)
    return best


def _words(inputs: Inputs) -> dict[Key, list[Row]]:
    """The confirmed words that are more frequent where the feature is high, clearest first."""
    if "feature_words" not in inputs.tables():
        return {}
    rows = [
        row
        for row in inputs.read("feature_words").to_pylist()
        if row["verdict"] == CONFIRMED and row["value"] > 0
    ]
    words: dict[Key, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["p"], row["word"])):
        words.setdefault((row["space"], row["feature"]), []).append(row)
    return words


def _labels(inputs: Inputs) -> dict[Key, str]:
    """The first label of each feature; `features` may hold millions of other statistics."""
    import pyarrow.compute as pc

    if "features" not in inputs.tables():
        return {}
    features = inputs.read("features")
    rows = features.filter(pc.equal(features["stat"], LABEL)).to_pylist()
    labels: dict[Key, str] = {}
    for row in sorted(rows, key=lambda row: str(row["group"])):
        labels.setdefault((row["space"], row["feature"]), row["text"] or "")
    return labels


def _strongest(single: Sequence[Row], relation: str) -> dict[Key, Row]:
    """For each feature the row of a kind of relation with the smallest q."""
    best: dict[Key, Row] = {}
    for row in single:
        if row["relation"].startswith(relation):
            best.setdefault((row["space"], row["feature"]), row)
    return best


def _place(row: Row | None, relation: str, *, share: bool) -> str:
    if row is None or row["score"] is None:
        return ""
    score = f"{row['score']:.0%}" if share else f"r {draw.signed(row['score'])}"
    span = draw.escaped(row["relation"].removeprefix(relation))
    return f"{span} {score}, q {draw.small(row['q'])}"


def _effect(row: Row | None) -> str:
    if row is None:
        return "not screened"
    change = draw.fixed(row["effect"], 3)
    sentence = f"{change} of P({row['outcome']}), q {draw.small(row['q'])}: {row['verdict']}"
    return draw.escaped(sentence)
