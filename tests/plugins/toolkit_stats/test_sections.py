"""The report sections: what they draw from known rows, what they keep quiet about, and that users'
text stays text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from toolkit import figures as draw
from toolkit.parts import ReportSection
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import (
    TableInputs,
    make_comparison,
    make_comparisons,
    make_samples,
    make_work,
)
from toolkit.work import Figure
from toolkit_stats import toolkit_parts
from toolkit_stats.compare.contrasts import read_contrasts, read_spaces

OF_CONTRASTS = ("layer-profile", "volcano", "top-features")
SECTIONS = {
    part.name: part
    for part in toolkit_parts()
    if isinstance(part, ReportSection) and part.name in OF_CONTRASTS
}
Feature = tuple[str, int, float | None, float, float, bool]


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(name))


def spaces(*hookpoints: str, saes: Sequence[str] = ()) -> pa.Table:
    """Spaces s0, s1, ... at these hookpoints."""
    fixed = {"model": "m", "revision": "1", "sae_hash": "h", "recipe": "relu", "width": 64}
    names = saes or ["x"] * len(hookpoints)
    rows = [
        {
            "space": f"s{index}",
            "hookpoint": hookpoint,
            "sae": sae,
            "address": f"m/{hookpoint}/{sae}",
            **fixed,
        }
        for index, (hookpoint, sae) in enumerate(zip(hookpoints, names, strict=True))
    ]
    return table("spaces", rows)


def features(*result: Feature, a: str = "a", b: str = "b") -> pa.Table:
    """Rows of one contrast; a feature is (space, index, d, p, q, significant)."""
    rows = []
    for space, feature, d, p, q, significant in result:
        numbers = {"d": d, "p": p, "q": q, "significant": float(significant)}
        stats = [(stat, f"{a} vs {b}", number) for stat, number in numbers.items()]
        stats += [
            (stat, group, number)
            for stat, number in (("mean", 0.25), ("density", 0.5))
            for group in (a, b)
        ]
        rows += [
            {
                "space": space,
                "feature": feature,
                "stat": s,
                "group": g,
                "number": n,
                "comparison": f"{a}|{b}",
            }
            for s, g, n in stats
        ]
    return table("features", rows)


def compared(rows: pa.Table) -> dict[str, pa.Table]:
    """The rows, and the comparisons that they are of."""
    pairs = [pair for pair in rows["comparison"].unique().to_pylist() if pair]
    made = (make_comparison(*pair.split("|"), id=pair) for pair in pairs)
    return {"features": rows, "comparisons": make_comparisons(*made)}


FOUND = features(
    ("s0", 3, 1.5, 1e-8, 1e-6, True),
    ("s0", 7, -0.5, 1e-3, 1e-2, True),
    ("s1", 9, -2.0, 1e-9, 1e-7, True),
    ("s1", 11, 0.1, 0.4, 0.9, False),
    ("s1", 12, None, 1.0, 1.0, False),
)
SPACES = spaces("resid_post.2", "resid_post.10")


def texts(positions: int = 3) -> dict[str, pa.Table]:
    """Four samples of three tokens; feature 9 of s1 fires in all, hardest on the second token of
    the last sample.
    """
    made = make_samples(
        ["one two three", "four <b> six", "seven\neight nine", "ten eleven twelve"],
        group=list("aabb"),
    )
    rows = []
    for number, name in enumerate(made["samples"]["sample"].to_pylist()):
        values = [0.5 + number, 1.0 + number, 0.0][-positions:]
        for index, value in enumerate(values, 3 - positions):
            fired = (
                {"features": [9, 20], "values": [value, 9.0]}
                if value
                else {"features": [20], "values": [9.0]}
            )
            rows.append({"space": "s1", "sample": name, "position": index, **fired})
    return {**made, "activations": table("activations", rows)}


def drawn(section: str, features: pa.Table = FOUND, **tables: pa.Table) -> list[Figure]:
    params = {"spaces": SPACES, **compared(features), **tables}
    return list(SECTIONS[section].run(TableInputs(params)))


# --- every section --------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_each_section_keeps_the_contract_and_has_something_to_say(section: ReportSection) -> None:
    inputs = TableInputs({**compared(FOUND), "spaces": SPACES, **texts()})
    check_part(section, work=make_work(tables=inputs.by_name))
    figures = list(section.run(inputs))
    assert figures
    assert all(figure.alt for figure in figures)


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_rows_of_other_parts_and_missing_tables_are_passed_over(section: ReportSection) -> None:
    other = {
        "space": "s0",
        "feature": 1,
        "stat": "toy_mean",
        "group": "a",
        "number": 1.0,
        "text": None,
    }
    assert (
        list(section.run(TableInputs({**compared(table("features", [other])), "spaces": SPACES})))
        == []
    )
    assert list(section.run(TableInputs({}))) == []


@pytest.mark.parametrize("stat", ["d", "p", "q", "significant"])
@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_contrast_that_lacks_a_statistic_is_passed_over(
    section: ReportSection, stat: str
) -> None:
    rows = [row for row in FOUND.to_pylist() if row["stat"] != stat]
    assert (
        list(section.run(TableInputs({**compared(table("features", rows)), "spaces": SPACES})))
        == []
    )


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_each_contrast_has_its_own_figures(section: ReportSection) -> None:
    both = pa.concat_tables([FOUND, features(("s0", 3, 0.2, 0.1, 0.2, False), a="a", b="c")])
    titles = [
        figure.title for figure in section.run(TableInputs({**compared(both), "spaces": SPACES}))
    ]
    assert [title.split(":")[0] for title in titles] == ["a vs b", "a vs c"]


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_names_of_users_are_escaped(section: ReportSection) -> None:
    evil = "<img onerror=x>"
    tables = {
        **compared(features(("s0", 3, 1.0, 1e-5, 1e-4, True), a=evil)),
        "spaces": spaces(evil),
    }
    html = "".join(figure.html for figure in section.run(TableInputs({**tables, **texts()})))
    assert "<img" not in html
    assert "&lt;img onerror=x&gt;" in html


# --- contrasts and names --------------------------------------------------------------------------


def test_features_come_in_order_of_layers_and_not_of_ids() -> None:
    (result,) = read_contrasts(
        TableInputs({**compared(FOUND), "spaces": spaces("resid_post.10", "resid_post.2")})
    )
    assert [result.address(index) for index in range(5)] == ["2/9", "2/11", "2/12", "10/3", "10/7"]
    assert [result.address(index) for index in result.ranking()] == ["2/9", "10/3", "10/7", "2/11"]


def test_rows_that_say_the_same_twice_count_once() -> None:
    (result,) = read_contrasts(
        TableInputs({**compared(pa.concat_tables([FOUND, FOUND])), "spaces": SPACES})
    )
    assert len(result.d) == 5


@pytest.mark.parametrize(
    ("described", "short"),
    [
        (spaces("resid_post.1", "resid_post.2"), ["1", "2"]),
        (spaces("mlp_out.1", "resid_post.1"), ["mlp_out.1", "resid_post.1"]),
        (spaces("resid_post.1", "resid_post.1", saes=["x", "y"]), ["1:x", "1:y"]),
        (arrow_schema("spaces").empty_table(), ["s0", "s1"]),
    ],
    ids=["layer", "hookpoint", "sae", "id"],
)
def test_spaces_have_the_shortest_name_that_tells_them_apart(
    described: pa.Table, short: list[str]
) -> None:
    assert [
        space.short for space in read_spaces(TableInputs({"spaces": described}), ["s0", "s1"])
    ] == short


# --- layer-profile --------------------------------------------------------------------------------


def test_the_layer_profile_counts_each_sign_at_each_hookpoint() -> None:
    (figure,) = drawn("layer-profile")
    cells = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', figure.html)
    numbers = {head: re.findall(r'<td class="number">(.*?)</td>', row) for head, row in cells}
    assert numbers["resid_post.2"] == ["2", "1", "1", "+1.50", "2/3"]
    assert numbers["resid_post.10"] == ["3", "0", "1", "\N{MINUS SIGN}2.00", "10/9"]
    assert numbers["all"][:3] == ["5", "1", "2"]
    assert figure.html.count('<rect class="more"') == 1
    assert figure.html.count('<rect class="less"') == 2


def test_the_layer_profile_says_in_words_what_it_draws() -> None:
    (figure,) = drawn("layer-profile")
    assert figure.alt == (
        "Bar chart over 2 hookpoints: 1 features are significantly higher in a, 2 in b. Most of "
        "them at resid_post.2: 2. The table below it has all numbers."
    )


def test_many_hookpoints_fold_their_table_and_long_names_are_turned() -> None:
    many = features(*((f"s{index}", 1, 0.5, 0.01, 0.02, False) for index in range(40)))
    (figure,) = drawn(
        "layer-profile",
        features=many,
        spaces=spaces(*(f"resid_post.{index}" for index in range(40))),
    )
    assert "<summary>Numbers of all 40 hookpoints</summary>" in figure.html
    names = [
        f"mlp_out.{index // 2}" if index % 2 else f"resid_post.{index // 2}" for index in range(40)
    ]
    (figure,) = drawn("layer-profile", features=many, spaces=spaces(*names))
    assert "rotate(-40" in figure.html


# --- volcano --------------------------------------------------------------------------------------


def test_the_volcano_colours_significant_features_by_sign_and_labels_the_first() -> None:
    (figure,) = drawn("volcano")
    kinds = re.findall(r'<circle class="(\w+)".*?<title>(\S+):', figure.html)
    assert sorted(kinds) == [("less", "10/9"), ("less", "2/7"), ("more", "2/3"), ("rest", "10/11")]
    assert re.findall(r'class="strong">([\d/]+)<', figure.html) == ["2/3", "10/11", "10/9", "2/7"]
    assert "Not drawn: 1 with the same value" in figure.html


def test_a_point_further_right_and_up_has_more_effect_and_evidence() -> None:
    (figure,) = drawn("volcano")
    places = {
        name: (float(x), float(y))
        for x, y, name in re.findall(r'cx="(\S+)" cy="(\S+)" r="\S+"><title>(\S+):', figure.html)
    }
    assert places["10/9"][0] < places["2/7"][0] < places["10/11"][0] < places["2/3"][0]
    assert places["10/9"][1] < places["2/3"][1] < places["2/7"][1] < places["10/11"][1]


@pytest.mark.parametrize(
    ("significant", "note"),
    [
        (50, "3,000 of 3,500 points are drawn: all significant ones and evenly chosen others."),
        (3400, "3,000 of 3,500 points are drawn: evenly chosen."),
    ],
    ids=["few", "many"],
)
def test_many_points_are_thinned_and_that_is_said(significant: int, note: str) -> None:
    many = features(
        *(
            (
                "s0",
                index,
                0.001 * index - 1.7,
                1e-6 * (index + 1),
                1e-5 * (index + 1),
                index < significant,
            )
            for index in range(3500)
        )
    )
    (figure,) = drawn("volcano", features=many)
    assert note in figure.html
    assert figure.html.count("<circle") == 3000
    assert figure.html.count('<circle class="rest"') == max(0, 3000 - significant)


def test_a_probability_of_zero_has_a_place() -> None:
    (figure,) = drawn(
        "volcano",
        features=features(("s0", 1, 3.0, 0.0, 0.0, True), ("s0", 2, 1.0, 0.5, 0.9, False)),
    )
    assert "p under 1e\N{MINUS SIGN}300" in figure.html
    assert "inf" not in figure.html
    assert "nan" not in figure.html


# --- top-features ---------------------------------------------------------------------------------


def test_the_table_lists_the_clearest_differences_first() -> None:
    figure = drawn("top-features")[0]
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', figure.html)
    assert [head for head, _ in rows] == ["10/9", "2/3", "2/7", "10/11"]
    cells = re.findall(r'<td class="number">(.*?)</td>', rows[0][1])
    assert cells[1:] == [
        "1.0e\N{MINUS SIGN}9",
        "1.0e\N{MINUS SIGN}7",
        "0.250",
        "0.250",
        *["50.0\N{NO-BREAK SPACE}%"] * 2,
    ]


def test_examples_are_the_samples_in_which_a_feature_fires_most_strongly() -> None:
    _, figure = drawn("top-features", **texts())
    named = re.findall(r"(?:<b>(\w)</b><br>)?(s\d{4})<br>peak (\S+?)<", figure.html)
    assert named == [("b", "s0003", "4"), ("b", "s0002", "3"), ("a", "s0001", "2")]


def test_tokens_are_marked_by_their_activation_and_the_peak_is_underlined() -> None:
    _, figure = drawn("top-features", **texts())
    (first, *_) = re.findall(r'<div class="said">(.*?)</div>', figure.html)
    assert first == (
        '<span style="--a:0.88" title="3.5">ten</span> '
        '<span class="peak" style="--a:1.00" title="4">eleven</span> twelve'
    )


def test_a_single_position_marks_its_token() -> None:
    inputs = texts()
    activations = inputs["activations"].to_pylist()
    inputs["activations"] = table(
        "activations", [row for row in activations if row["position"] == 1]
    )
    _, figure = drawn("top-features", **inputs)
    (first, *_) = re.findall(r'<div class="said">(.*?)</div>', figure.html)
    assert first == 'ten <span class="peak" style="--a:1.00" title="4">eleven</span> twelve'


def test_samples_of_other_groups_are_no_examples() -> None:
    inputs = texts()
    rows = inputs["sample_meta"].to_pylist()
    rows[3]["string"] = "c"
    _, figure = drawn("top-features", **{**inputs, "sample_meta": table("sample_meta", rows)})
    assert "s0003" not in figure.html


def test_text_is_escaped_and_a_newline_is_a_visible_mark() -> None:
    row = {"unit": "u", "cluster": "c", "token_ids": [1, 2, 3], "spans": [], "prompt_hash": "h"}
    sample = {"sample": "s0000", "text": "<i>\n end", "pieces": ["<i>", "\n", " end"], **row}
    entries = [
        {
            "space": "s1",
            "sample": "s0000",
            "position": index,
            "features": [9],
            "values": [1.0 + index],
        }
        for index in range(2)
    ]
    _, figure = drawn(
        "top-features",
        samples=table("samples", [sample]),
        activations=table("activations", entries),
    )
    (sentence,) = re.findall(r'<div class="said">(.*?)</div>', figure.html)
    assert "&lt;i&gt;" in sentence
    assert ">\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}</span> end" in sentence


def test_tokens_without_letters_are_marked_visibly() -> None:
    row = {"unit": "u", "cluster": "c", "token_ids": [1, 2, 3], "spans": [], "prompt_hash": "h"}
    sample = {"sample": "s0000", "text": "a ", "pieces": ["", "a", " "], **row}
    entries = [
        {
            "space": "s1",
            "sample": "s0000",
            "position": index,
            "features": [9],
            "values": [1.0 + index],
        }
        for index in (0, 2)
    ]
    _, figure = drawn(
        "top-features",
        samples=table("samples", [sample]),
        activations=table("activations", entries),
    )
    (sentence,) = re.findall(r'<div class="said">(.*?)</div>', figure.html)
    assert re.sub(r"<.*?>", "|", sentence) == "|\N{WHITE SQUARE}|a|\N{OPEN BOX}|"


def test_a_long_text_is_cut_to_a_window_around_the_peak() -> None:
    words = [f"w{number:03d}" for number in range(400)]
    inputs = make_samples([" ".join(words)], group=["a"])
    entries = [
        {
            "space": "s1",
            "sample": "s0000",
            "position": index,
            "features": [9],
            "values": [index % 201],
        }
        for index in range(400)
    ]
    _, figure = drawn(
        "top-features", samples=inputs["samples"], activations=table("activations", entries)
    )
    (sentence,) = re.findall(r'<div class="said">(.*?)</div>', figure.html)
    gap = '<span class="gap">\N{HORIZONTAL ELLIPSIS}</span>'
    assert sentence.startswith(gap)
    assert sentence.endswith(gap)
    assert "w200" in sentence
    assert "w100" not in sentence
    assert "w250" not in sentence


def test_a_position_outside_the_text_marks_the_end() -> None:
    inputs = make_samples(["one two"], group=["a"])
    entries = [{"space": "s1", "sample": "s0000", "position": 77, "features": [9], "values": [2.0]}]
    _, figure = drawn(
        "top-features", samples=inputs["samples"], activations=table("activations", entries)
    )
    assert 'one <span class="peak" style="--a:1.00" title="2">two</span>' in figure.html


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "count", "whole", "expected"),
    [
        (0.0, 10.0, 5, False, [0, 2, 4, 6, 8, 10]),
        (-1.0, 1.0, 4, False, [-1, -0.5, 0, 0.5, 1]),
        (-1.0, 2.0, 5, True, [-1, 0, 1, 2]),
        (0.0, 0.003, 3, False, [0, 0.001, 0.002, 0.003]),
    ],
)
def test_ticks_are_round_numbers(
    low: float, high: float, count: int, whole: bool, expected: list[float]
) -> None:
    assert draw.ticks(low, high, count, whole=whole) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.25, "0.250"),
        (0.001, "0.001"),
        (0.00032, "3.2e\N{MINUS SIGN}4"),
        (1e-40, "1.0e\N{MINUS SIGN}40"),
        (0.0, "under 1e\N{MINUS SIGN}300"),
        (float("nan"), "undefined"),
    ],
)
def test_probabilities_are_written_short(value: float, words: str) -> None:
    assert draw.small(value) == words
