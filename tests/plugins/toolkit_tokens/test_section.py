"""The report's figures: what they show adds up, user text is escaped, and long texts stay light."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_tokens.conftest import run, table
from toolkit.testing.fakes import TableInputs
from toolkit_tokens.report import drawings
from toolkit_tokens.report.section import figures, findings
from toolkit_tokens.report.strongest import game_finding, part_findings
from toolkit_tokens.report.timelines import timelines


@pytest.fixture(scope="module")
def tables(scenarios: Any, tracked: Any) -> Any:
    params = {"by": "group", "between": ["risky", "safe"], "where": {"consistent": "yes"}}
    return {
        **scenarios,
        **tracked,
        **run("stage", "track.contrasts", params, {**scenarios, **tracked}),
    }


def test_tracking_has_its_figures(tables: Any) -> None:
    results = {figure.title: figure for figure in figures(TableInputs(tables))}
    titles = " | ".join(results)
    for part in (
        "Features by position",
        "Sum of activations on the text",
        "Attention from the decision back",
        "Features by layer and token: ",
        "Strongest feature of each layer at the decision: ",
        "attention by layer, group risky",
        "Activation of spans by layer, group risky",
        "Differences of spans, share of attention: risky - safe",
        "Differences of spans, activation: risky - safe",
    ):
        assert part in titles
    assert all(figure.html and figure.alt for figure in results.values())
    strongest, finding = findings(TableInputs(tables))
    assert "fires most strongly at one token" in strongest.sentence
    assert "p is withheld, since a group is small" in finding.sentence
    assert finding.n == 8
    assert finding.interval is not None


def test_layers_are_drawn_from_the_rows_of_one_text(tables: Any) -> None:
    """Shares of each layer add up to 1, and each layer has its own strongest feature."""
    results = {figure.title.partition(":")[0]: figure for figure in figures(TableInputs(tables))}
    shares = results["Features by layer and token"]
    sample = shares.title.partition(": ")[2]
    for layer in range(4):
        of_layer = [row["share"] for row in shares.data if row["layer"] == layer]
        assert sum(of_layer) == pytest.approx(1)
    assert shares.html.count("<text") > 4
    strongest = results["Strongest feature of each layer at the decision"]
    rows = {row["sample"]: row for row in tables["samples"].to_pylist()}
    last = len(rows[sample]["token_ids"]) - 1
    layer_of = {row["space"]: int(row["hookpoint"][-1]) for row in tables["spaces"].to_pylist()}
    stored = {
        (layer_of[row["space"]], feature): value
        for row in tables["activations"].to_pylist()
        if (row["sample"], row["position"]) == (sample, last)
        for feature, value in zip(row["features"], row["values"], strict=True)
    }
    assert [row["layer"] for row in strongest.data] == [0, 1, 2, 3]
    for row in strongest.data:
        layer, number = map(int, row["feature"].split("/"))
        assert row["layer"] == layer
        assert row["activation"] == stored[layer, number]
        assert row["activation"] == max(value for (at, _), value in stored.items() if at == layer)
        assert row["feature"] in strongest.html
    spans = results["Activation of spans by layer, group risky"]
    contrasts = {
        (row["span"], row["layer"]): row["value"]
        for row in tables["span_contrasts"].to_pylist()
        if (row["statistic"], row["group"]) == ("activation", "risky")
    }
    assert {(row["span"], row["layer"]): row["activation"] for row in spans.data} == contrasts


def test_the_strongest_feature_at_a_token_is_that_of_the_last_layer(tables: Any) -> None:
    strongest = next(iter(findings(TableInputs(tables))))
    samples = {row["sample"]: row for row in tables["samples"].to_pylist()}
    (last,) = [row for row in tables["spaces"].to_pylist() if row["hookpoint"].endswith(".3")]
    peaks: dict[tuple[int, str], dict[str, float]] = {}
    for row in tables["activations"].to_pylist():
        sample = samples[row["sample"]]
        if row["space"] == last["space"] and not (sample["bos"] and row["position"] == 0):
            for feature, value in zip(row["features"], row["values"], strict=True):
                fired = peaks.setdefault((feature, sample["pieces"][row["position"]]), {})
                fired[row["sample"]] = max(value, fired.get(row["sample"], 0.0))
    (feature, token), values = max(peaks.items(), key=lambda each: sum(each[1].values()))
    assert f"3/{feature} fires most strongly at one token, {token!r}" in strongest.sentence
    assert strongest.number == pytest.approx(sum(values.values()) / len(values))
    assert strongest.n == len({samples[sample]["unit"] for sample in values})


def test_one_layer_has_no_evolution(tables: Any) -> None:
    first = tables["spaces"].to_pylist()[0]["space"]
    activations = tables["activations"]
    only = activations.filter([name == first for name in activations["space"].to_pylist()])
    titles = [figure.title for figure in figures(TableInputs({**tables, "activations": only}))]
    assert not [title for title in titles if title.startswith("Strongest feature")]


def test_a_waterfall_ends_at_its_sum() -> None:
    drawn = drawings.waterfall([("a", 2.0), ("b", -0.5)], 1.5, 1.4)
    bars = [
        (float(x), float(width))
        for x, width in re.findall(
            r'<rect class="\w+" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn
        )
    ]
    (first, second, total, measured) = bars
    assert first[0] + first[1] == pytest.approx(second[0] + second[1], abs=0.2)
    assert second[0] == pytest.approx(total[0] + total[1], abs=0.2)
    assert total[1] / measured[1] == pytest.approx(1.5 / 1.4, rel=0.01)


def test_a_character_of_several_tokens_is_written_once() -> None:
    """As a tokeniser that falls back to bytes gives it; the strongest of its tokens shades it."""
    pieces = [" 한", "판", "판", "판", "에", "판", "판", "!", "<end>"]
    drawn = drawings.highlighted(" 한판에판!", pieces, {1: 0.1, 2: 1.0, 7: 0.5})
    spans = re.findall(r"(\d+)%,transparent\)\" title=\"([^\"]*)\">([^<]*)<", drawn)
    assert "".join(text for *_, text in spans) == " 한판에판!&lt;end&gt;"
    assert spans[1] == ("60", "1: 0.1, 2: 1, 3: 0", "판")
    assert spans[3] == ("0", "5: 0, 6: 0", "판")


def test_a_series_of_one_layer_is_a_dot() -> None:
    assert drawings.lines({"balance": [(1, 0.5)]}, "layer", "share").count("<circle") == 1
    assert "<circle" not in drawings.lines({"balance": [(1, 0.5), (2, 0.4)]}, "layer", "share")


def test_attention_is_shaded_relative_to_the_largest() -> None:
    pieces = [" w"] * 100
    drawn = drawings.bands({0: {position: 0.01 for position in range(100)}}, pieces, [])
    assert set(re.findall(r'fill-opacity="([\d.]+)"', drawn)) == {"1.00"}


def test_text_of_users_is_escaped() -> None:
    pieces = ["<b>", "&"]
    for drawn in (
        drawings.highlighted("".join(pieces), pieces, {0: 1.0}),
        drawings.heatmap(["<i>"], [{0: 1.0}], pieces),
        drawings.bands({0: {0: 1.0}}, pieces, [{"name": "<u>", "start": 0, "end": 1}]),
        drawings.waterfall([("<s>", 1.0)], 1.0, 1.0),
    ):
        assert not re.search(r"<[bius]>", drawn)
        assert "&lt;" in drawn


def test_a_text_of_512_tokens_stays_light() -> None:
    """Cells without a value are not drawn."""
    pieces = [f" w{number}" for number in range(512)]
    grid = [{position: 1.0 for position in range(0, 512, 10)} for _ in range(16)]
    drawn = drawings.heatmap([str(number) for number in range(16)], grid, pieces)
    assert drawn.count("<rect") == 16 * 52
    assert len(drawn) < 200_000
    layers = {
        layer: {position: (1 + position + layer / 40) / 512 for position in range(512)}
        for layer in range(31)
    }
    drawn = drawings.bands(layers, pieces, [])
    assert drawn.count("<rect") == drawings.CELLS
    assert "511 w511" in drawn  # the strongest are kept
    assert "0 w0:" not in drawn
    assert len(drawn) < 1_500_000


def game_tables(rounds: int) -> dict[str, pa.Table]:
    """Decisions of one game, whose feature 7 grows by one a round, 9 stands still, 11 fires once,
    and 5 never at the decision.
    """
    names = [f"g/{number}" for number in range(1, rounds + 1)]
    blank = {"unit": "g", "cluster": "", "text": "", "pieces": ["a", "b"], "spans": []}
    space = {
        "space": "s",
        "model": "m",
        "revision": "0",
        "hookpoint": "resid_post.3",
        "sae": "a",
        "sae_hash": "0",
        "recipe": "plain",
        "width": 16,
        "address": "m/resid_post.3/a",
    }
    return {
        "samples": table(
            "samples",
            [
                {**blank, "sample": name, "token_ids": [1, 2], "prompt_hash": "", "bos": False}
                for name in names
            ],
        ),
        "sample_meta": table(
            "sample_meta",
            [
                {"sample": name, "key": "round", "number": float(number), "string": None}
                for number, name in enumerate(names, 1)
            ],
        ),
        "spaces": table("spaces", [space]),
        "activations": table(
            "activations",
            [
                row
                for number, name in enumerate(names, 1)
                for row in (
                    {"space": "s", "sample": name, "position": 0, "features": [5], "values": [99]},
                    {
                        "space": "s",
                        "sample": name,
                        "position": 1,
                        "features": [7, 9] + [11] * (number == 2),
                        "values": [number, 3] + [0.5] * (number == 2),
                    },
                )
            ],
        ),
    }


def test_features_are_drawn_through_a_game() -> None:
    (figure,) = timelines(TableInputs(game_tables(5)))
    assert figure.title == "Features through a game: g, layer 3"
    assert "2 features that change most" in figure.alt
    assert "5 decisions" in figure.alt
    assert figure.html.index("3/7") < figure.html.index("3/11")
    assert "3/9" not in figure.html
    assert "3/5" not in figure.html
    (grows, once) = re.findall(r'<polyline class="path" points="([^"]+)"', figure.html)
    heights = [float(point.split(",")[1]) for point in grows.split()]
    assert heights == sorted(heights, reverse=True)
    steps = [first - second for first, second in itertools.pairwise(heights)]
    assert max(steps) - min(steps) <= 0.21
    assert len({point.split(",")[1] for point in once.split()}) == 2


def test_the_feature_that_changes_most_through_games_is_a_finding() -> None:
    (result,) = game_finding(TableInputs(game_tables(5)))
    assert result.sentence == (
        "From the first to the last decision of a game, 3/7 changes most: +4 (1 game; "
        "chosen on these very games), from 1 to 5."
    )
    assert (result.number, result.interval, result.n) == (4.0, None, 1)
    assert not list(game_finding(TableInputs(game_tables(2))))


def test_a_game_of_two_decisions_has_no_timeline() -> None:
    assert not list(timelines(TableInputs(game_tables(2))))


def test_a_finding_counts_samples_and_a_waterfall_is_of_the_lowest_layer() -> None:
    about = {"sample": "a", "against": "b", "outcome": "o", "method": "integrated_gradients"}
    checks = [
        {
            **about, "part": "token", "layer": layer, "space": f"s{layer}", "total": 1.0,
            "measured": 1.0 + layer / 100, "compared": 0, "r": None, "rank_r": None,
            "same_sign": None,
        }
        for layer in (1, 3)
    ]  # fmt: skip
    parts = [
        {
            **about, "part": "token", "layer": layer, "position": position, "head": None,
            "space": f"s{layer}", "feature": None, "value": float(position == 1),
            "exact": None, "attention": None, "norm": None,
        }
        for layer in (1, 3)
        for position in (0, 1)
    ]  # fmt: skip
    inputs = TableInputs(
        {
            "attribution_checks": table("attribution_checks", checks),
            "attributions": table("attributions", parts),
        }
    )
    token, finding = findings(inputs)
    assert token.sentence == (
        "integrated_gradients gives the token position 1 (layer 1) the largest share of the "
        "outcome o: +1 (1 pair of prompts; the largest of 2, chosen on these very pairs; not "
        "patched)."
    )
    assert (finding.n, finding.number) == (1, pytest.approx(0.03))
    drawn = [figure for figure in figures(inputs) if figure.title.startswith("integrated")]
    assert [figure.title for figure in drawn] == ["integrated_gradients, layer 1: a against b"]
    assert drawn[0].html.count("<rect") == 3  # what gives nothing has no bar


def test_the_parts_with_the_largest_exact_effect_come_first() -> None:
    """As the mean over pairs; of the methods integrated gradients, and tokens by their span."""
    sizes = {
        ("integrated_gradients", "token", 0, None, None): (5.0, 1.0),
        ("integrated_gradients", "token", 1, None, None): (3.0, 2.0),
        ("relp", "token", 0, None, None): (9.0, 9.0),
        ("attribution_patching", "head", None, 0, None): (0.5, 0.25),
        ("attribution_patching", "head", None, 2, None): (0.0, -0.75),
        ("integrated_gradients", "feature", 1, None, 4): (7.0, None),
        ("integrated_gradients", "feature", 1, None, 8): (0.5, 0.5),
    }
    rows = [
        {
            "sample": sample, "against": "x", "outcome": "o", "method": method, "part": part,
            "layer": 2, "position": position, "head": head, "space": "s" if feature else None,
            "feature": feature, "value": value, "exact": exact and exact + shift,
            "attention": None, "norm": None,
        }
        for (method, part, position, head, feature), (value, exact) in sizes.items()
        for sample, shift in (("a", 0.0), ("b", 0.125))
    ]  # fmt: skip
    texts = [
        {
            "sample": name, "unit": name, "cluster": "", "text": "", "prompt_hash": "",
            "token_ids": [1, 2], "pieces": ["p", "q"], "bos": False,
            "spans": [{"name": "balance", "start": 1, "end": 2}],
        }
        for name in "ab"
    ]  # fmt: skip
    inputs = TableInputs(
        {"attributions": table("attributions", rows), "samples": table("samples", texts)}
    )
    token, head, feature = part_findings(inputs)
    assert token.sentence == (
        "Of the tokens patched alone, a token of the span balance (layer 2) moves the outcome o "
        "most: by +2.06, where integrated_gradients gives it +3 (mean of 2 pairs of prompts, +2 to "
        "+2.12; the largest of 2, chosen on these very pairs)."
    )
    assert (token.number, token.n) == (2.0625, 2)
    assert "head 2 of layer 2 moves the outcome o most: by -0.688, where attr" in head.sentence
    assert "attribution_patching gives it +0 (" in head.sentence
    assert head.number == -0.6875
    assert "Of the features patched alone, 8 moves the outcome o most" in feature.sentence
    assert token.rank < head.rank < feature.rank < 30


def test_each_method_has_its_agreement_beside_its_gap() -> None:
    about = {"sample": "a", "against": "b", "outcome": "o", "layer": 1, "space": "s"}
    numbers = ("part", "total", "measured", "compared", "r", "rank_r", "same_sign")
    checks = [
        {**about, "method": method, **dict(zip(numbers, values, strict=True))}
        for method, values in (
            ("relp", ("token", 1.0, 1.25, 9, 0.9, 0.8, 1.0)),
            ("rollout", ("token", 1.0, None, 9, 0.12, -0.34, None)),
            ("direct", ("head", 1.0, 1.0, 0, None, None, None)),
        )
    ]
    inputs = TableInputs(
        {
            "attribution_checks": table("attribution_checks", checks),
            "attributions": table("attributions", []),
        }
    )
    drawn = next(iter(figures(inputs)))
    cells = [
        re.sub("<[^>]+>", " ", row).split()
        for row in re.findall("<tr>(.*?)</tr>", drawn.html, re.DOTALL)
    ]
    (finding,) = findings(inputs)
    assert finding.sentence == (
        "relp: its parts miss the measured change by at most 0.25; they correlate with exact "
        "patching of single tokens (r 0.90)."
    )
    assert cells[1:] == [
        ["direct", "head", "0.00", "not", "patched", "not", "patched", "0", "1"],
        ["relp", "token", "0.250", "0.90", "0.80", "9", "1"],
        ["rollout", "token", "no", "sum", "0.12", "\N{MINUS SIGN}0.34", "9", "1"],
    ]
