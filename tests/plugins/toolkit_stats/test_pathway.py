"""trace.pathway: followed features, intervals, links against brute force, signatures, and p-values
that are withheld.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse, stats

from toolkit.errors import BadInput, DataError
from toolkit.parts import ReportSection, StagePart
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_samples, make_work
from toolkit_stats import toolkit_parts
from toolkit_stats.math import correlate as _correlate
from toolkit_stats.math.correlate import (
    Strongest,
    columns,
    components,
    interval,
    means,
    of_orders,
    p_of,
)
from toolkit_stats.pathway.params import Pathway
from toolkit_stats.pathway.stage import trace_pathway

PARTS = {part.name: part for part in toolkit_parts()}
PARAMS = {"by": "outcome", "between": ("ruin", "stop")}
WIDTH = 64


def space(name: str, layer: int) -> dict[str, Any]:
    where = {
        "hookpoint": f"resid_post.{layer}",
        "sae": f"S{layer}",
        "address": f"m/resid_post.{layer}/S{layer}",
    }
    return {
        "space": name,
        "model": "m",
        "revision": "1",
        "sae_hash": "h",
        "recipe": "r",
        "width": WIDTH,
        **where,
    }


def world(
    ruined: int = 20, stopped: int = 30, decisions: int = 2, seed: int = 0
) -> dict[str, pa.Table]:
    """Feature 3 of layer 1 is higher before ruin; feature 9 of layer 2 follows it; the others are
    noise of each game.
    """
    rng = np.random.default_rng(seed)
    games = ["ruin"] * ruined + ["stop"] * stopped
    texts = [
        f"game{game} round{turn} x{game * decisions + turn}"
        for game in range(len(games))
        for turn in range(decisions)
    ]
    turns = [float(turn) for _ in games for turn in reversed(range(decisions))]
    made = make_samples(
        texts, outcome=[name for name in games for _ in range(decisions)], round=turns
    )
    units = [f"g{game:03d}" for game in range(len(games)) for _ in range(decisions)]
    made["samples"] = made["samples"].set_column(1, "unit", pa.array(units))
    rows = []
    for index, sample in enumerate(made["samples"]["sample"].to_pylist()):
        game = index // decisions
        cause = max(
            0.0,
            (1.5 if games[game] == "ruin" else 0.0)
            + float(np.random.default_rng(1000 * seed + game).normal()),
        )
        for name, feature in (("s1", 3), ("s2", 9)):
            fired = (
                {feature: cause * (2.0 if name == "s2" else 1.0) + 0.05 * float(rng.random())}
                if cause
                else {}
            )
            fired |= {int(other): float(rng.random()) for other in rng.integers(20, 40, 5)}
            entries = {"features": sorted(fired), "values": [fired[key] for key in sorted(fired)]}
            rows.append({"space": name, "sample": sample, "position": 2, **entries})
    made["activations"] = pa.Table.from_pylist(rows, schema=arrow_schema("activations"))
    made["spaces"] = pa.Table.from_pylist(
        [space("s2", 2), space("s1", 1)], schema=arrow_schema("spaces")
    )
    return made


def run(inputs: Mapping[str, pa.Table], **params: Any) -> dict[str, list[dict[str, Any]]]:
    work = make_work(Pathway(**{**PARAMS, **params}), inputs)
    return {name: rows.to_pylist() for name, rows in trace_pathway(work)}


def test_decisions_none_of_which_was_measured_are_not_silent() -> None:
    inputs = world()
    with pytest.raises(
        DataError, match="no space has a row of any of the 100 samples in table 'activations'"
    ):
        run({**inputs, "activations": inputs["activations"].slice(0, 0)})


def only_row(rows: list[dict[str, Any]], **expected: Any) -> dict[str, Any]:
    (result,) = [row for row in rows if all(row[name] == value for name, value in expected.items())]
    return result


# --- correlations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("block", [7, 2**24], ids=["small blocks", "one block"])
def test_links_are_those_of_scipy_and_corrected_over_all_pairs(
    method: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_correlate, "BLOCK_PAIRS", block)
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 12)) * (rng.random((40, 12)) < 0.6)
    b = rng.normal(size=(40, 9)) * (rng.random((40, 9)) < 0.6)
    b[:, 4] += 2 * a[:, 7]
    b[:, 2] = 3.0
    rows = [columns(sparse.csc_array(x), np.arange(x.shape[1]), method, 2) for x in (a, b)]
    assert 2 not in rows[1].features
    strongest = Strongest(10)
    strongest.add(0, *rows)
    result, p, q = strongest.strongest(40, strongest.tested)
    test = stats.spearmanr if method == "spearman" else stats.pearsonr
    every = {(i, j): test(a[:, i], b[:, j]) for i in range(12) for j in range(9) if j != 2}
    best = sorted(every, key=lambda pair: -abs(every[pair].statistic))[:10]
    got = list(
        zip(
            rows[0].features[result.first].tolist(),
            rows[1].features[result.second].tolist(),
            strict=True,
        )
    )
    assert got == best
    np.testing.assert_allclose(result.r, [every[pair].statistic for pair in best], atol=1e-12)
    np.testing.assert_allclose(p, [every[pair].pvalue for pair in best], rtol=1e-9)
    expected = dict(
        zip(
            every,
            stats.false_discovery_control([tested.pvalue for tested in every.values()]),
            strict=True,
        )
    )
    exact = np.array([expected[pair] for pair in best])
    assert (q >= exact - 1e-12).all()
    np.testing.assert_allclose(q, exact, rtol=2e-3)


def test_pairs_that_are_not_kept_still_count() -> None:
    rng = np.random.default_rng(1)
    a, b = (
        columns(sparse.csc_array(rng.normal(size=(30, 60))), np.arange(60), "pearson", 2)
        for _ in range(2)
    )
    few, many = Strongest(3), Strongest(3600)
    for each in (few, many):
        each.add(0, a, b)
    kept, _, q = few.strongest(30, 3600)
    every, _, expected = many.strongest(30, 3600)
    np.testing.assert_array_equal(kept.r, every.r[:3])
    assert (q >= expected[:3] - 1e-12).all()
    np.testing.assert_allclose(q, expected[:3], rtol=1e-2)


def test_a_family_of_nulls_is_seldom_discovered() -> None:
    hits = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, b = (
            columns(sparse.csc_array(rng.normal(size=(25, 30))), np.arange(30), "pearson", 2)
            for _ in range(2)
        )
        strongest = Strongest(5)
        strongest.add(0, a, b)
        _, _, q = strongest.strongest(25, strongest.tested)
        hits += bool((q <= 0.05).any())
    assert hits <= 5


def test_means_of_clusters_and_p_at_the_ends() -> None:
    x = np.array([[1.0, 0], [3, 2], [5, 0]])
    assert means(sparse.csr_array(x), np.array([0, 0, 1])).toarray().tolist() == [[2, 1], [5, 0]]
    assert p_of(np.array([0.0, 1.0]), 10).tolist() == [1.0, 0.0]


def test_a_perfect_correlation_has_the_p_of_the_most_extreme_orders() -> None:
    x = np.zeros((12, 3))
    x[:2] = [[5.0, 5, 1], [5, 5, 0]]
    x[2:5, 2] = 1.0, 2.0, 4.0
    first, second = (
        columns(sparse.csc_array(half), np.arange(half.shape[1]), "pearson", 2)
        for half in (x[:, :1], x[:, 1:])
    )
    strongest = Strongest(10)
    strongest.add(0, first, second)
    result, p, q = strongest.strongest(12, 2)
    assert result.r[0] == pytest.approx(1.0)
    assert p[0] == pytest.approx(2 * 2 * math.factorial(10) / math.factorial(12))
    assert q[0] == pytest.approx(2 * p[0])
    few = Strongest(2)
    few.add(
        0,
        *(
            columns(sparse.csc_array(np.repeat(x[:, :1], 3, axis=1)), np.arange(3), "pearson", 2)
            for _ in range(2)
        ),
    )
    result, p, q = few.strongest(12, 100)
    assert result.r.tolist() == pytest.approx([1.0, 1.0])
    assert (q >= p * 100 / 9).all()
    assert of_orders(
        np.array([[1.0, 2, 3, 4], [0, 0, 0, 7], [1, 1, 1, 1]])
    ).tolist() == pytest.approx([2 / 24, 2 / 4, 1.0])


def test_intervals_of_ranks_are_wider() -> None:
    r = np.array([0.0, 0.5, -0.9])
    for method, spread in (("pearson", np.ones(3)), ("spearman", 1 + r**2 / 2)):
        low, high = interval(r, 20, method)
        reach = stats.norm.isf(0.025) * np.sqrt(spread / 17)
        np.testing.assert_allclose(low, np.tanh(np.arctanh(r) - reach))
        np.testing.assert_allclose(high, np.tanh(np.arctanh(r) + reach))
    assert [float(end[0]) for end in interval(np.array([1.0]), 3, "pearson")] == [-1.0, 1.0]


def test_components_are_those_of_the_correlation_matrix() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    x = np.column_stack([x, np.full(50, 2.0)])
    scores, loadings, share = components(x, 3)
    values, _ = np.linalg.eigh(np.corrcoef(x[:, :4].T))
    np.testing.assert_allclose(share, values[::-1][:3] / 4)
    np.testing.assert_allclose(scores.var(axis=0), values[::-1][:3])
    assert (loadings[:, 4] == 0).all()
    assert (loadings[np.arange(3), np.abs(loadings).argmax(axis=1)] > 0).all()


# --- the stage ------------------------------------------------------------------------------------


def test_it_keeps_the_contract() -> None:
    part = PARTS["trace.pathway"]
    assert isinstance(part, StagePart)
    check_part(part, params=PARAMS, work=make_work(tables=world(12, 12)))


def test_the_planted_path_is_found_with_its_sizes() -> None:
    inputs = world()
    results = run(inputs, order="round")
    row = only_row(results["trajectories"], space="s1", feature=3, stat="d")
    x = np.array(
        [
            dict(zip(r["features"], r["values"], strict=True)).get(3, 0.0)
            for r in inputs["activations"].to_pylist()
            if r["space"] == "s1"
        ]
    )
    a, b = x[:40], x[40:]
    pooled = np.sqrt(
        ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    )
    assert row["value"] == pytest.approx((a.mean() - b.mean()) / pooled)
    assert row["low"] < row["value"] < row["high"]
    assert row["q"] < 0.01
    assert row["chosen"]
    assert row["against"] == "stop"
    mean = only_row(results["trajectories"], space="s1", feature=3, stat="mean", group="ruin")
    assert mean["value"] == pytest.approx(a.mean())
    games = a.reshape(-1, 2).mean(axis=1)
    low, high = stats.t.interval(0.95, 19, games.mean(), stats.sem(games))
    assert (mean["low"], mean["high"]) == (pytest.approx(low), pytest.approx(high))
    link = max(results["links"], key=lambda row: abs(row["r"]))
    assert (link["space"], link["feature"], link["other_space"], link["other_feature"]) == (
        "s1",
        3,
        "s2",
        9,
    )
    assert link["q"] < 1e-6
    assert link["units"] == 50


def test_each_unit_and_decision_is_traced_in_order() -> None:
    inputs = world(4, 4)
    results = run(inputs, order="round", track=("1/3", "m/resid_post.2/S2:9", "1/60"))
    rows = [row for row in results["traces"] if row["feature"] == 3]
    assert len(rows) == 16
    assert [row["decision"] for row in rows[:4]] == [1, 0, 1, 0]
    assert {row["unit"] for row in rows} == {f"g{game:03d}" for game in range(8)}
    silent = [row for row in results["traces"] if row["feature"] == 60]
    assert {row["value"] for row in silent} == {0.0}
    assert (
        only_row(results["trajectories"], feature=60, stat="mean", group="ruin")["text"]
        == "never fired"
    )
    assert not only_row(results["trajectories"], feature=3, stat="d")["chosen"]


def test_at_4_against_46_sizes_are_shown_and_p_values_withheld_with_the_reason() -> None:
    results = run(world(4, 46, decisions=1))
    rows = [row for row in results["trajectories"] if row["stat"] == "d"]
    assert all(row["p"] is None and row["q"] is None and row["low"] < row["high"] for row in rows)
    assert all(
        "p-values withheld: group 'ruin' has 4 independent clusters, fewer than 10"
        in row["withheld"]
        for row in rows
    )
    assert results["links"]
    assert all(
        row["p"] is None and row["q"] is None and "withheld" in row["text"]
        for row in results["links"]
    )
    assert run(world(4, 46, decisions=1), p_from=4)["links"][0]["q"] is not None


def test_links_of_all_layers_and_of_none() -> None:
    inputs = world(12, 12)
    inputs["spaces"] = pa.Table.from_pylist(
        [space("s1", 1), space("s2", 2), space("s3", 5)], schema=arrow_schema("spaces")
    )
    acts = inputs["activations"].to_pylist()
    more = [{**row, "space": "s3"} for row in acts if row["space"] == "s2"]
    inputs["activations"] = pa.Table.from_pylist(acts + more, schema=arrow_schema("activations"))
    pairs = {
        which: {
            (row["space"], row["other_space"]) for row in run(inputs, links=which).get("links", [])
        }
        for which in ("adjacent", "all", "none")
    }
    assert pairs["adjacent"] == {("s1", "s2"), ("s2", "s3")}
    assert pairs["all"] == {("s1", "s2"), ("s1", "s3"), ("s2", "s3")}
    assert pairs["none"] == set()


def test_signatures_have_every_decision_and_loadings_every_feature() -> None:
    results = run(world(6, 6), top=2, components=2)
    assert len({row["sample"] for row in results["signatures"]}) == 24
    loadings = [row for row in results["trajectories"] if row["stat"] == "loading"]
    assert len(loadings) == 2 * 4
    assert sum(row["value"] ** 2 for row in loadings if row["group"] == "pc1") == pytest.approx(1.0)


def test_what_cannot_be_followed_or_ordered_is_said() -> None:
    with pytest.raises(BadInput, match="There is no space at layer 7"):
        run(world(4, 4), track=("7/1",))
    with pytest.raises(
        DataError,
        match=r"order: not every sample has a number 'turn'\. Keys with a number "
        r"for "
        r"each "
        r"sample: round",
    ):
        run(world(4, 4), order="turn")
    with pytest.raises(
        DataError, match="group 'ruin' has 4 samples of 2 units, 4 distinct prompts, 2 clusters"
    ):
        run(world(2, 8))


def test_groups_that_the_other_one_joins_are_refused_with_numbers() -> None:
    inputs = world(3, 30, decisions=1)
    units, prompts = (inputs["samples"][name].to_pylist() for name in ("unit", "cluster"))
    units[3:6], prompts[3:6] = ["gX"] * 3, prompts[:3]
    for name, values in (("unit", units), ("cluster", prompts)):
        samples = inputs["samples"]
        inputs["samples"] = samples.set_column(
            samples.schema.get_field_index(name), name, pa.array(values)
        )
    with pytest.raises(
        DataError,
        match="group 'ruin' has 1 independent clusters once units and equal prompts are joined "
        "over both",
    ):
        run(inputs)
    assert run(inputs, cluster="none")["trajectories"]


# --- the section ----------------------------------------------------------------------------------


def traced(input_tables: Mapping[str, pa.Table], **params: Any) -> TableInputs:
    written = dict(trace_pathway(make_work(Pathway(**{**PARAMS, **params}), input_tables)))
    return TableInputs({**input_tables, **written})


def section(input_tables: Mapping[str, pa.Table], **params: Any) -> list[Any]:
    part = PARTS["pathway"]
    assert isinstance(part, ReportSection)
    inputs = traced(input_tables, **params)
    check_part(part, work=make_work(tables=inputs.by_name))
    return list(part.run(inputs))


def test_the_section_says_what_is_withheld_and_why() -> None:
    figures = section(world(4, 46, decisions=1))
    assert [figure.title for figure in figures] == [
        "ruin vs stop: followed features, layer by layer",
        "ruin vs stop: both groups",
        "Correlated features of different layers",
        "Each decision as a point",
    ]
    assert (
        "P-values withheld: group &#x27;ruin&#x27; has 4 independent clusters, fewer than 10"
        in figures[0].html
    )
    assert "Chosen by |d| on these very units" in figures[0].html
    assert "q " not in figures[0].html.partition("<svg")[2]
    assert "withheld" in figures[2].html
    assert "% of the variance" in figures[3].html


def test_the_section_shows_q_where_groups_are_large_enough() -> None:
    figures = section(world())
    assert "withheld" not in figures[0].html + figures[2].html
    assert "1/3" in figures[0].html
    assert "largest is" in figures[0].alt


def test_the_finding_is_the_followed_feature_that_differs_most() -> None:
    part = PARTS["pathway"]
    assert isinstance(part, ReportSection)
    assert part.findings
    inputs = traced(world())
    (result,) = part.findings(inputs)
    rows = [row for row in inputs.read("trajectories").to_pylist() if row["stat"] == "d"]
    best = max(rows, key=lambda row: abs(row["value"]))
    assert (result.number, result.interval) == (best["value"], (best["low"], best["high"]))
    assert result.n == len({row["unit"] for row in inputs.read("traces").to_pylist()})
    assert f"/{best['feature']} differs most: d " in result.sentence
    assert "chosen on these very units; the largest |d| is " in result.sentence
    (small,) = part.findings(traced(world(4, 46, decisions=1)))
    assert "p withheld, since a group is small" in small.sentence
