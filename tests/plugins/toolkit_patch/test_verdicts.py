"""Verdicts as sentences, and what the report shows of them."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_patch.worlds import OUTCOMES, run, table
from toolkit.testing.fakes import make_samples, make_work
from toolkit_patch.screen.params import Verdicts
from toolkit_patch.verdicts.examples import FiringExample, examples_of, shown
from toolkit_patch.verdicts.section import figures, findings, joined
from toolkit_patch.verdicts.stage import ORDER, evidence, verdict_of

ROW: dict[str, Any] = {
    "contrast": "ruined vs left",
    "group_a": "ruined",
    "group_b": "left",
    "outcome": "stop",
    "effect": 0.05,
    "low": 0.04,
    "high": 0.06,
    "p_units": 1e-20,
    "p_directions": 0.001,
    "null": "features",
    "beyond": 0,
    "directions": 999,
    "fired_here": 12,
    "points": 200,
    "sham": 1e-7,
    "reconstruct_a": 0.0,
    "reconstruct_b": 0.0,
    "p_reconstruct": 1.0,
    "family": 16,
}


@pytest.mark.parametrize(
    ("changed", "q", "verdict", "reason"),
    [
        ({}, 0.01, "causal", r"from the mean of left to that of ruined; 0 of 999 other features"),
        ({"beyond": 30, "p_directions": 0.03}, 0.2, "unspecific", r"but 30 of 999 .*\(q 0.2 over"),
        (
            {"effect": 0.004, "p_directions": None},
            1.0,
            "below the threshold",
            "real but below 0.01",
        ),
        ({"p_units": 0.4, "p_directions": None}, 1.0, "no effect", r"\(p 0.4 over the units\)"),
        ({"fired_here": 0}, 0.01, "silent here", "fires at none of 200 decision points"),
        ({"sham": 0.01}, 0.01, "sham fails", "the edit to its own value moves P"),
        (
            {
                "effect": 0.0,
                "p_directions": None,
                "reconstruct_a": 0.3,
                "reconstruct_b": 0.31,
                "p_reconstruct": 1e-9,
            },
            1.0,
            "reconstruction",
            r"both values move P\(stop\) \(\+0.300 and \+0.310\)",
        ),
    ],
)
def test_each_verdict_has_its_reason(changed, q, verdict, reason):
    result = verdict_of({**ROW, **changed}, q, Verdicts())
    assert result[0] == verdict
    assert re.search(reason, result[1])
    assert verdict in ORDER


def test_a_tiny_p_never_stands_beside_no_effect():
    row = {**ROW, "effect": 0.009, "p_units": 1e-41, "p_directions": None}
    assert verdict_of(row, 1.0, Verdicts())[0] != "no effect"


def test_who_was_not_held_against_directions_has_no_evidence():
    assert evidence({**ROW, "p_directions": None}) == 1.0
    assert evidence({**ROW, "p_units": 0.03}) == 0.03
    assert evidence(ROW) == 0.001


def test_the_report_begins_with_the_verdicts_and_how_p_was_corrected(world, screened):
    work = make_work(None, world.tables | screened)
    drawn = list(figures(work.inputs))
    assert drawn[0].title == "Verdicts"
    assert "4 of 16 features are causal for P(stop)" in drawn[0].html
    assert "q is Benjamini-Hochberg over all 16, of the larger p of two questions" in drawn[0].html
    assert drawn[0].alt
    assert "are causal" not in drawn[0].alt  # screen readers read it with the paragraph
    assert {figure.title for figure in drawn} > {"Effect against evidence", "Every arm"}
    result = next(iter(findings(work.inputs)))
    assert result.sentence.startswith("4 of 16 features are causal for P(stop): ")
    assert "95 % of other features" in result.baseline


def without_causal(world, screened, **null_band):
    """The screen with its causal features unspecific, and another band of random directions."""
    weaker = [
        {**row, "verdict": "unspecific", "q": 0.095} if row["verdict"] == "causal" else row
        for row in screened["verdicts"].to_pylist()
    ]
    screens = [{**row, **null_band} for row in screened["screens"].to_pylist()]
    changed = {"verdicts": table("verdicts", weaker), "screens": table("screens", screens)}
    return make_work(None, world.tables | screened | changed).inputs


def test_an_effect_inside_the_band_is_no_more_than_others_would(world, screened):
    inputs = without_causal(world, screened, null_low=-1.0, null_high=1.0)
    finding = next(iter(findings(inputs)))
    sentence = finding.sentence
    assert sentence.startswith("No feature is causal for P(stop). 4 of 16 do move it, but no more")
    assert "0 of 3" in sentence
    assert "(q 0.095)" in sentence
    strongest = sentence.split("the strongest, ")[1].split(",")[0]
    assert f"as long as {strongest}'s edit" in finding.baseline
    assert sentence in next(iter(figures(inputs))).html


@pytest.mark.parametrize(
    ("null", "words"), [("features", "other features"), ("directions", "random directions")]
)
def test_an_effect_outside_the_band_fails_by_correction(world, screened, null, words):
    inputs = without_causal(world, screened, null=null, null_low=-1e-6, null_high=1e-6)
    sentence = next(iter(findings(inputs))).sentence
    assert sentence.startswith("No feature is causal for P(stop). 4 of 16 do move it: the strong")
    assert f"more than most {words}, but not significantly after correction (q 0.095)" in sentence
    assert re.search(rf"\(q 0.095\); 0 of 3\d* {words} move it as much\.", sentence)
    assert "no more than others" not in sentence
    assert f"more than {words} moved as far" in sentence
    drawn = list(figures(inputs))
    assert sentence in drawn[0].html
    text = " ".join(figure.html + figure.alt for figure in drawn)
    (other,) = {"other features", "random directions"} - {words}
    assert f"95 % of {words} lie when they are moved as far" in text
    # The verdicts' own reasons were made with the null of the screen.
    assert other not in re.sub(r"\d+ of \d+ (other features|random directions)", "", text)


def test_two_screens_of_the_same_features_are_told_apart(world, screened):
    params = {"outcomes": OUTCOMES, "candidates": {"top": 20}, "points": 5, "arms": []}
    other = run("patch.delta", params, world.tables, world.model, world.saes)
    both = pa.concat_tables([screened["screens"], other["screens"]])
    work = make_work(None, world.tables | screened | {"screens": both})
    rows = joined(work.inputs)
    assert len(rows) == len(screened["verdicts"])
    assert all(row["reconstruct"] is not None for row in rows)


def test_groups_may_have_vs_in_their_names() -> None:
    row = {**ROW, "contrast": "cat vs dog vs bird", "group_a": "cat vs dog", "group_b": "bird"}
    _, reason = verdict_of(row, 0.01, Verdicts())
    assert "from the mean of bird to that of cat vs dog" in reason


def test_features_without_texts_in_the_report_are_named_with_where_they_are():
    rows = [
        {"space": "s", "feature": feature, "name": f"1/{feature}", "verdict": "unspecific"}
        for feature in range(40)
    ]
    firing = {("s", feature): [FiringExample(1.0, "a", "b", "c")] for feature in range(39)}
    assert shown(firing, rows).count("<h4>") == 39
    assert "1 feature with a verdict has no texts here: <code>toolkit query top" in shown(
        firing, rows
    )
    assert "no texts here" not in shown(firing, rows[:39])


def test_more_features_have_texts_than_a_table_names():
    made = make_samples(["one two"])
    (name,) = made["samples"]["sample"].to_pylist()
    fired = {"space": "s", "sample": name, "position": 1, "features": list(range(60))}
    activations = table("activations", [{**fired, "values": [1.0] * 60}])
    rows = [{"space": "s", "feature": feature} for feature in range(60)]
    inputs = make_work(None, {**made, "activations": activations}).inputs
    assert len(examples_of(inputs, rows)) == 60
