"""`toolkit query words` and `toolkit query label`: the words of a feature, and the features whose
label is about a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from toolkit._cli._text import layer_option
from toolkit._cli.query.answers import Answer, QueryOptions, answered, open_run
from toolkit._query.run import Run, first_rows, sorted_by
from toolkit._query.text import Row
from toolkit.features.agreement import agreement, ranked, stems, stems_of

LABEL = "label"
CONFIRMED = "confirmed"
WORDS = ("word", "method", "value", "confirm_value", "q", "confirm_q", "high", "low", "verdict")
LABELS = ("address", "match", "words", "words_p", "tokens", "tokens_p", "effect", "label")
SHOWN = 10
"""Promoted tokens that are shown."""

Key = tuple[str, int]


@click.command("words")
@click.argument("address")
@click.option("--stage", metavar="ID", help="Only rows of this stage.")
@answered
def words(options: QueryOptions, address: str, stage: str | None) -> Answer:
    """Show the words that go with the feature at ADDRESS, and above them the tokens that it
    promotes.

    Words are log-odds of replies, confirmed ones first, and TF-IDF as published.
    """
    run = open_run(options)
    heads = ("stage", *WORDS)
    tables = [name for name in ("feature_words", "promoted_tokens") if run.stages(name)]
    if not tables:
        return Answer(heads, [], 0, run.why("feature_words"))
    space, index = run.feature(address)
    where: dict[str, Sequence[Any]] = {"space": [space], "feature": [index]}
    above = _promoted(run, where) if "promoted_tokens" in tables else ""
    listed = run.read_stages("feature_words", stage, where)
    ordered = sorted_by(
        listed, [("verdict", True), ("method", True), ("p", True), ("value", False)]
    )
    rows = _confirmed_first(first_rows(ordered, len(ordered)))
    why = f"Run {run.id} lists no words for feature {address}."
    return Answer(heads, rows[: options.k], len(rows), why, shared=("stage",), above=above)


def _confirmed_first(rows: Sequence[Row]) -> list[Row]:
    order = {"log_odds": 0, "tf_idf": 1}
    return sorted(rows, key=lambda row: (row["verdict"] != CONFIRMED, order.get(row["method"], 2)))


def _promoted(run: Run, where: Mapping[str, Sequence[Any]]) -> str:
    """One line per method and direction. Tokens are quoted, since many begin with a space."""
    lines = []
    for row in run.read_stages("promoted_tokens", None, where).to_pylist():
        for end in ("promoted", "suppressed"):
            pairs = zip(row[f"{end}_pieces"][:SHOWN], row[f"{end}_values"], strict=False)
            tokens = "  ".join(f"{piece!r} {value:+.2f}" for piece, value in pairs)
            lines.append(f"{end} ({row['method']}): {tokens}")
    from toolkit.terminal import printable

    return "\n".join(printable(line) for line in lines)


@click.command("label")
@click.argument("text")
@layer_option
@answered
def label(options: QueryOptions, text: str, layer: int | None) -> Answer:
    """Show the features whose label is about TEXT, the nearest first, with other evidence for the
    label.

    Labels are those that a stage `words.labels` read, or `toolkit store import neuronpedia` added
    to the run. `match` is the agreement of the label with TEXT, `words` with the confirmed words of
    the feature and `tokens` with the tokens that it promotes, from 0 to 1; `words_p` and `tokens_p`
    are the label's rank among all features that have some. `effect` is what patching the feature
    did to the first outcome.
    """
    run = open_run(options)
    about = stems(text)
    if not about:
        from toolkit.errors import BadInput

        raise BadInput(
            f"'{text}' has no word to search for. Name a subject, such as 'risk taking'."
        )
    spaces = run.spaces_of(None, layer)
    where: dict[str, Sequence[Any]] = {"stat": [LABEL]}
    labels = run.read_stages("features", None, where | ({"space": spaces} if spaces else {}))
    if not len(labels):
        why = f"Run {run.id} has no labels. Add some: toolkit store import neuronpedia FOLDER"
        return Answer(LABELS, [], 0, why)
    hits = _hits(labels.to_pylist(), about)
    described = {"words": _words_of(run), "tokens": _tokens_of(run)}
    effects = _effects_of(run)
    rows = [_label_row(run, row, match, described, effects) for match, row in hits[: options.k]]
    why = f"No label of run {run.id} is about '{text}'; it has {len(labels):,} labels."
    return Answer(LABELS, rows, len(hits), why)


def _hits(rows: Sequence[Row], about: frozenset[str]) -> list[tuple[float, Row]]:
    """Labels that share a stem with the text, those with more shared stems first."""
    hits = []
    for row in rows:
        label_stems = stems(row["text"] or "")
        if shared := len(label_stems & about):
            hits.append((shared, agreement(label_stems, about), row))
    hits.sort(key=lambda hit: (-hit[0], -hit[1], hit[2]["space"], hit[2]["feature"]))
    return [(match, row) for _, match, row in hits]


def _label_row(
    run: Run,
    row: Row,
    match: float,
    described: Mapping[str, Mapping[Key, frozenset[str]]],
    effects: Mapping[Key, float],
) -> Row:
    key, label_stems = (row["space"], row["feature"]), stems(row["text"])
    cells: Row = {"address": run.label(*key), "match": match, "label": row["text"]}
    for name, known in described.items():
        if key in known:
            others = [bag for other, bag in known.items() if other != key and other[0] == key[0]]
            result = ranked(label_stems, known[key], others)
            cells |= {name: result.score, f"{name}_p": result.p}
    return {**cells, "effect": effects.get(key)}


def _words_of(run: Run) -> dict[Key, frozenset[str]]:
    """By feature, the stems of confirmed words that are more frequent where the feature is high."""
    confirmed = run.read_stages("feature_words", None, {"verdict": [CONFIRMED]})
    by_feature: dict[Key, list[str]] = {}
    for row in confirmed.to_pylist():
        if row["value"] > 0:
            by_feature.setdefault((row["space"], row["feature"]), []).append(row["word"])
    return {key: stems_of(words) for key, words in by_feature.items()}


def _tokens_of(run: Run) -> dict[Key, frozenset[str]]:
    """By feature, the stems of the tokens that its decoder row promotes."""
    columns = ("space", "feature", "promoted_pieces")
    promoted = run.read_stages("promoted_tokens", None, {"method": ["unembedding"]}, columns)
    return {
        (row["space"], row["feature"]): stems_of(row["promoted_pieces"])
        for row in promoted.to_pylist()
    }


def _effects_of(run: Run) -> dict[Key, float]:
    """By feature, the effect of patching, from the verdicts."""
    rows = run.read_stages("verdicts", None, None).to_pylist()
    return {(row["space"], row["feature"]): row["effect"] for row in reversed(rows)}
