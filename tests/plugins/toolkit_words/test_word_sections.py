"""The report's sections on words: what they show, and that texts of models are harmless."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_words.reply_tables import SPACE, planted, replied, run
from toolkit.parts import ReportSection
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs, make_work
from toolkit.testing.output_contracts import check_report
from toolkit_words import toolkit_parts

SECTIONS = {part.name: part for part in toolkit_parts() if isinstance(part, ReportSection)}


@pytest.fixture(scope="module")
def inputs() -> TableInputs:
    results = run("words.replies", replied(*planted()))
    piece = "<b>\x1b[31m\u202e"
    tokens = {
        "space": "s1",
        "feature": 3,
        "method": "unembedding",
        "promoted": [1, 2],
        "promoted_pieces": [piece, "\n"],
        "promoted_values": [2.0, 1.0],
        "suppressed": [3],
        "suppressed_pieces": [" x"],
        "suppressed_values": [-2.0],
    }
    rows = {**results, "promoted_tokens": [tokens], "spaces": [{**SPACE, "width": 12}]}
    reference = {"space": "s1", "relation": "label~words", "text": "t", "n": 8}
    numbers = {"score": 0.5, "baseline": 0.1, "p": 0.001, "q": 0.01}
    rows["cross_references"] = [
        {**reference, **numbers, "feature": None},
        {**reference, **numbers, "feature": 3},
    ]
    return TableInputs(
        {
            name: pa.Table.from_pylist(table_rows, schema=arrow_schema(name))
            for name, table_rows in rows.items()
        }
    )


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_contract(name: str, inputs: TableInputs) -> None:
    check_report(SECTIONS[name], inputs)
    assert list(SECTIONS[name].run(inputs))


def test_words_are_shown_with_both_halves_and_their_contexts(inputs: TableInputs) -> None:
    titles = {figure.title: figure.html for figure in SECTIONS["feature-words"].run(inputs)}
    assert list(titles) == [
        "Found and confirmed",
        "Words associated with features",
        "Where they fire most strongly",
    ]
    assert "gamble" in titles["Words associated with features"]
    assert titles["Found and confirmed"].count("<circle") == 2
    assert "<mark>prompt" in titles["Where they fire most strongly"]


def test_the_finding_has_its_numbers(inputs: TableInputs) -> None:
    section = SECTIONS["feature-words"]
    assert section.findings is not None
    (result,) = section.findings(inputs)
    assert result.sentence.startswith("Words go with 1 features: 2 of 2 listed pairs hold")
    assert "with 3/3, in " in result.sentence
    assert result.number is not None
    assert result.n
    assert "of other replies" in result.baseline


def test_without_a_confirmed_word_the_finding_says_so(inputs: TableInputs) -> None:
    rows: list[dict[str, Any]] = [
        {**row, "verdict": "not confirmed"} for row in inputs.read("feature_words").to_pylist()
    ]
    other = TableInputs(
        {
            "feature_words": pa.Table.from_pylist(rows, schema=arrow_schema("feature_words")),
            "spaces": inputs.read("spaces"),
        }
    )
    section = SECTIONS["feature-words"]
    assert section.findings is not None
    (result,) = section.findings(other)
    assert result.sentence.startswith("No word goes with a feature on both halves")
    assert [figure.title for figure in section.run(other)] == ["Found and confirmed"]


def test_contexts_of_features_without_words_are_shown_strongest_first(
    inputs: TableInputs,
) -> None:
    (tokens,) = inputs.read("promoted_tokens").to_pylist()
    place = {"space": "s1", "feature": 5, "sample": "s", "before": "", "after": ""}
    places = [
        {**place, "rank": 1, "position": 4, "value": 1.5, "piece": "weak"},
        {**place, "rank": 1, "position": 7, "value": 2.5, "piece": "hard"},
    ]
    rows = {"promoted_tokens": [tokens, {**tokens, "feature": 5}], "feature_contexts": places}
    tables = {
        name: pa.Table.from_pylist(of, schema=arrow_schema(name)) for name, of in rows.items()
    }
    kept = {name: inputs.read(name) for name in ("spaces", "feature_words")}
    _, figure = SECTIONS["promoted-tokens"].run(TableInputs({**kept, **tables}))
    assert figure.title == "Where features without words fire most strongly"
    assert "<b>3/5</b>" in figure.html
    assert figure.html.index("<mark>hard</mark>") < figure.html.index("<mark>weak</mark>")


def test_tokens_are_printable_and_escaped(inputs: TableInputs) -> None:
    (figure,) = SECTIONS["promoted-tokens"].run(inputs)
    assert "<b>\x1b" not in figure.html
    assert r"&lt;b&gt;\x1b[31m\u202e" in figure.html
    assert "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}" in figure.html


def test_agreement_of_descriptions_is_told_against_shuffles(inputs: TableInputs) -> None:
    section = SECTIONS["cross-reference"]
    figure, joined = section.run(inputs)
    assert "label~words" in figure.html
    assert joined.title == "Descriptions of each feature"
    assert section.findings is not None
    (result,) = section.findings(inputs)
    assert result.number == 0.5
    assert "0.10 under shuffles" in result.baseline
    assert result.n == 8


def test_what_is_said_of_a_feature_stands_in_one_row(inputs: TableInputs) -> None:
    """Labels, words, a span, attention and the effect, each where it is known."""
    label = {"space": "s1", "feature": 3, "stat": "label", "group": "human", "text": "<b>risk"}
    fires = {"space": "s1", "feature": 3, "n": 9, "baseline": 0.1, "p": 0.001, "q": 0.02}
    references = [
        {**fires, "relation": "fires in balance", "score": 0.8},
        {**fires, "relation": "fires in goal", "score": 0.1, "q": 0.9},
        {**fires, "relation": "fires with attention to goal", "score": -0.5},
    ]
    schema = arrow_schema("verdicts")
    blank = {
        name: "" if pa.types.is_string(schema.field(name).type) else 0 for name in schema.names
    }
    verdicts = [
        {**blank, "space": "s1", "feature": feature, "outcome": "stop", "effect": 0.05, **numbers}
        for feature, numbers in (
            (3, {"p": 0.01, "q": 0.03, "verdict": "causal"}),
            (4, {"p": 0.5, "q": 0.7, "verdict": "no effect"}),
        )
    ]
    tables = {
        "spaces": inputs.read("spaces"),
        "feature_words": inputs.read("feature_words"),
        "features": pa.Table.from_pylist([label], schema=arrow_schema("features")),
        "cross_references": pa.Table.from_pylist(
            references, schema=arrow_schema("cross_references")
        ),
        "verdicts": pa.Table.from_pylist(verdicts, schema=schema),
    }
    *_, joined = SECTIONS["cross-reference"].run(TableInputs(tables))
    first, second = joined.html.split("<tr>")[2:]
    for shown in (
        "3/3",
        "&lt;b&gt;risk",
        "gamble",
        "balance 80%, q 0.020",
        "goal r \N{MINUS SIGN}0.50",
    ):
        assert shown in first
    assert "0.050 of P(stop), q 0.030: causal" in first
    assert "3/4" in second
    assert "no effect" in second


def test_a_section_bears_rows_of_tf_idf_alone() -> None:
    results = run("words.replies", replied(*planted(effect=0.0)), alpha=1e-9)
    rows = {**results, "spaces": [{**SPACE, "width": 12}]}
    work = make_work(
        None,
        {
            name: pa.Table.from_pylist(table_rows, schema=arrow_schema(name))
            for name, table_rows in rows.items()
        },
    ).inputs
    assert list(SECTIONS["feature-words"].run(work)) == []
