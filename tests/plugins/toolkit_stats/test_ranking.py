"""compare.ranking and its sink: every number against NumPy and SciPy, the published shapes, and
what the sound ranking refuses.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import sparse, stats

from tests.plugins.toolkit_stats.comparison_tables import joined
from toolkit.errors import DataError
from toolkit.features.comparisons import comparisons_of
from toolkit.parts import ReportSection, SinkPart, StagePart
from toolkit.statistics.randomness import half
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_samples, make_work
from toolkit.work import SinkWork
from toolkit_stats import toolkit_parts
from toolkit_stats.math.ordinal import bounded, describe, quantile, trend_test
from toolkit_stats.ranking.params import Ranking
from toolkit_stats.ranking.sink import RankingFiles, write_ranking
from toolkit_stats.ranking.stage import compare_ranking

PARTS = {part.name: part for part in toolkit_parts() if not isinstance(part, ReportSection)}
BY = "concept_strength_label"
LABELS = np.arange(4.0)


def world(
    count: int = 120, seed: int = 0, position: int = 1, **changed: Any
) -> dict[str, pa.Table]:
    """Labels 0 to 3 by turns. Feature 7 rises with the label, 3 is noise, 5 never changes, 9 falls,
    2 fires in label 1 only.
    """
    label = changed.pop("label", [index % 4 for index in range(count)])
    rng = np.random.default_rng(seed)
    made = make_samples([f"word{index} end{index}" for index in range(count)], **{BY: label})
    rows = []
    for name, value in zip(made["samples"]["sample"].to_pylist(), label, strict=True):
        fired = {5: 1.5}
        fired |= {7: 0.2 * value + 0.1 * float(rng.random())} if value else {}
        fired |= {3: float(rng.random())} if rng.random() < 0.5 else {}
        fired |= {9: float(3.5 - value)} if value < 3 else {}
        fired |= {2: 1.0 + float(rng.random())} if value == 1 else {}
        entries = {
            "features": sorted(fired),
            "values": [fired[feature] for feature in sorted(fired)],
        }
        rows.append({"space": "s1", "sample": name, "position": position, **entries})
    made["activations"] = pa.Table.from_pylist(rows, schema=arrow_schema("activations"))
    made["spaces"] = pa.Table.from_pylist([space()], schema=arrow_schema("spaces"))
    return made


def space(name: str = "s1", layer: int = 12, l0: int = 82) -> dict[str, Any]:
    sae = f"layer_{layer}/width_16k/average_l0_{l0}"
    where = {
        "hookpoint": f"resid_post.{layer}",
        "sae": sae,
        "address": f"google/gemma-2-2b/resid_post.{layer}/{sae}",
    }
    return {
        "space": name,
        "model": "google/gemma-2-2b",
        "revision": "1",
        "sae_hash": "h",
        "recipe": "r",
        "width": 16384,
        **where,
    }


def run(inputs: Mapping[str, pa.Table], **params: Any) -> dict[tuple[int, str, str], float | None]:
    return {
        (row["feature"], row["stat"], row["group"]): row["number"]
        for row in ranked(inputs, **params)["features"].to_pylist()
    }


def dense(inputs: Mapping[str, pa.Table], feature: int) -> np.ndarray:
    rows = inputs["activations"].to_pylist()
    return np.array(
        [dict(zip(row["features"], row["values"], strict=True)).get(feature, 0.0) for row in rows]
    )


# --- numbers --------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.7, 1.0]), st.booleans())
@settings(max_examples=40)
def test_every_statistic_is_that_of_the_dense_column(
    seed: int, density: float, signed: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 5, (37, 5)) * (rng.random((37, 5)) < density).astype(float)
    x *= rng.choice([-1, 1], x.shape) if signed else 1
    label = (np.arange(37) % 4).astype(float)
    result = describe(sparse.csr_array(x), label, LABELS)
    for index, column in enumerate(x.T):
        if column.std() == 0:
            assert np.isnan(
                [result.pearson[index], result.spearman[index], result.separation[index]]
            ).all()
        else:
            assert result.pearson[index] == pytest.approx(
                stats.pearsonr(column, label).statistic, abs=1e-12
            )
            assert result.spearman[index] == pytest.approx(
                stats.spearmanr(column, label).statistic, abs=1e-12
            )
            means = [column[label == value].mean() for value in LABELS]
            np.testing.assert_allclose(result.means[:, index], means)
            assert result.separation[index] == pytest.approx((means[3] - means[0]) / column.std())
        threshold = np.percentile(column[label == 0], 95)
        assert result.threshold[index] == pytest.approx(threshold)
        assert result.tpr[index] == (column[label == 3] > result.threshold[index]).mean()
        assert result.fpr[index] == (column[label == 0] > result.threshold[index]).mean()


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 9))
@settings(max_examples=40)
def test_quantiles_of_sparse_columns_are_numpys(seed: int, share: float, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(rows, 4)), 1) * (rng.random((rows, 4)) < 0.6)
    np.testing.assert_allclose(
        quantile(sparse.csc_array(x), share), np.quantile(x, share, axis=0), atol=1e-12
    )


def test_the_p_is_that_of_a_correlation_over_cluster_means() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)) * (rng.random((60, 5)) < 0.5) + (np.arange(5) == 3)
    x[:, 4] = 2.0
    label, cluster = (
        (np.arange(60) % 4).astype(float),
        np.unique(rng.integers(0, 20, 60), return_inverse=True)[1],
    )
    result = trend_test(sparse.csr_array(x), label, cluster)
    means = [
        np.array([values[cluster == key].mean(axis=0) for key in np.unique(cluster)])
        for values in (x, label)
    ]
    np.testing.assert_allclose(
        result[:4],
        [stats.pearsonr(column, means[1]).pvalue for column in means[0].T[:4]],
        rtol=1e-9,
    )
    assert result[4] == 1.0


def test_a_perfect_line_has_the_p_of_the_most_extreme_way_to_deal_out_the_labels() -> None:
    label = np.repeat(np.arange(4.0), 2)
    x = np.column_stack([label, -2 * label, label >= 0])
    ways = math.factorial(8) / 2**4
    assert trend_test(sparse.csr_array(x), label, np.arange(8)).tolist() == pytest.approx(
        [2 / ways, 2 / ways, 1.0]
    )
    single = (np.arange(5) == 3).astype(float)
    assert trend_test(
        sparse.csr_array(single[:, None]), single, np.arange(5)
    ).tolist() == pytest.approx([2 / 5])


def test_null_features_are_false_discoveries_as_often_as_alpha_says() -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(60), 3)
    label = (np.arange(60) % 4).astype(float)[cluster]
    x = np.maximum(rng.normal(size=(60, 800))[cluster] + 0.5 * rng.normal(size=(180, 800)), 0)
    clustered = (trend_test(sparse.csr_array(x), label, cluster) < 0.05).mean()
    rows = (trend_test(sparse.csr_array(x), label, np.arange(180)) < 0.05).mean()
    assert clustered < 0.07
    assert rows > 0.15


def test_the_far_tail_of_null_features_is_no_heavier_than_said() -> None:
    x = sparse.csr_array(np.random.default_rng(16).normal(size=(16, 40_000)))
    beyond = (trend_test(x, np.arange(16) % 4.0, np.arange(16)) < 1e-4).sum()
    assert beyond <= stats.poisson.isf(1e-3, 40_000 * 1e-4)


def test_a_bounded_separation_is_a_correlation() -> None:
    assert bounded(np.array([0.0, 2.0, -1e9])).tolist() == pytest.approx(
        [0.0, 2 / np.sqrt(8), -1.0]
    )


# --- the stage ------------------------------------------------------------------------------------


def test_it_keeps_the_contract() -> None:
    part = PARTS["compare.ranking"]
    assert isinstance(part, StagePart)
    check_part(part, params={"by": BY}, work=make_work(tables=world()))


def test_the_published_score_is_the_published_formula() -> None:
    made = world()
    result, label = run(made), np.array([index % 4 for index in range(120)], dtype=float)
    x = dense(made, 7)
    r = stats.pearsonr(x, label).statistic
    separation = (x[label == 3].mean() - x[label == 0].mean()) / x.std()
    threshold = np.percentile(x[label == 0], 95)
    tpr, fpr = (x[label == 3] > threshold).mean(), (x[label == 0] > threshold).mean()
    assert result[7, "score", BY] == pytest.approx(0.4 * r + 0.3 * separation + 0.3 * (tpr - fpr))
    assert result[7, "rank", BY] == 1.0
    assert result[7, "mean", f"{BY} 3"] == pytest.approx(x[label == 3].mean())
    assert [
        feature for (feature, stat, _), value in result.items() if stat == "passes" and value
    ] == [7]
    assert [
        feature for (feature, stat, _), value in result.items() if stat == "passes_sound" and value
    ] == [7]


def test_a_constant_feature_is_dropped_and_one_that_never_fired_counts_in_the_family() -> None:
    tables = ranked(world())
    result = tables["features"].to_pylist()
    assert 5 not in {row["feature"] for row in result}
    (comparison,) = comparisons_of(tables["comparisons"])
    assert "bh over 16384 features" in comparison.describe()
    p = sorted(row["number"] for row in result if row["stat"] == "p")
    q = sorted(row["number"] for row in result if row["stat"] == "q")
    assert q[0] == pytest.approx(min(value * 16384 / (index + 1) for index, value in enumerate(p)))


def test_the_sound_numbers_are_of_the_other_half_with_the_threshold_of_the_first() -> None:
    made = world()
    results = run(made)
    side = np.array([half(2, unit) for unit in made["samples"]["unit"].to_pylist()])
    label, x = np.array([index % 4 for index in range(120)], dtype=float), dense(made, 3)
    select, confirm = side == "select", side == "confirm"
    threshold = np.percentile(x[select & (label == 0)], 95)
    assert results[3, "threshold_select", BY] == pytest.approx(threshold)
    assert results[3, "pearson_confirm", BY] == pytest.approx(
        stats.pearsonr(x[confirm], label[confirm]).statistic
    )
    assert results[3, "fpr_confirm", BY] == pytest.approx(
        (x[confirm & (label == 0)] > threshold).mean()
    )
    assert (
        results[3, "fpr", BY] <= 2 / 30
    )  # what the 95th percentile of 30 leaves above itself, whatever the feature


def test_presets_and_own_filters() -> None:
    assert Ranking(by=BY).filters() == (0.4, 0.5, 0.2)
    assert Ranking(by=BY, preset="strict").filters() == (0.6, 0.7, 0.1)
    assert Ranking(by=BY, preset="loose", min_r=0.0).filters() == (0.0, 0.4, 0.3)
    assert not [
        1
        for (_, stat, _), value in run(world(), min_r=0.9999).items()
        if stat == "passes" and value
    ]


def test_only_the_best_and_those_that_pass_are_written() -> None:
    assert {feature for feature, _, _ in run(world(), rows=1)} == {7}
    assert {feature for feature, _, _ in run(world())} == {2, 3, 7, 9}


def test_other_positions_do_not_count() -> None:
    made, other = world(), world(position=0, seed=9)
    both = pa.concat_tables([made["activations"], other["activations"]])
    assert run({**made, "activations": both}) == run(made)


# --- what is missing ------------------------------------------------------------------------------


def relabelled(old: float, new: float | None) -> dict[str, pa.Table]:
    made = world()
    meta = [
        {**row, "number": new if row["number"] == old else row["number"]}
        for row in made["sample_meta"].to_pylist()
    ]
    return {**made, "sample_meta": pa.Table.from_pylist(meta, schema=arrow_schema("sample_meta"))}


def test_a_label_without_samples_is_an_error_or_a_stated_null_and_never_0() -> None:
    made = relabelled(2, 1)
    with pytest.raises(
        DataError, match="no sample has concept_strength_label 2, so its mean is unknown"
    ):
        run(made)
    results = run(made, missing="null")
    assert results[7, "mean", f"{BY} 2"] is None
    assert results[7, "monotonic", BY] == 0.0
    assert results[7, "passes", BY] == 0.0


def test_samples_without_a_label_are_refused_or_left_out() -> None:
    made = relabelled(2, None)
    with pytest.raises(DataError, match="sample 's0002' has no concept_strength_label"):
        run(made)
    assert run(made, missing="null")[7, "mean", f"{BY} 2"] is None


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (relabelled(0, 1), "no sample has concept_strength_label 0"),
        (
            relabelled(3, 7),
            r"sample 's0003' has concept_strength_label 7, which is none of the labels 0, 1, 2, 3",
        ),
        (world(position=0), r"sample 's0000' has no row at its final token \(position 1\)"),
        (
            world(16),
            r"the (select|confirm) half of the units has \d clusters "
            r"with "
            r"concept_strength_label "
            r"\d",
        ),
        (
            {**world(), "sample_meta": make_samples(["a", "b"], **{BY: ["x", "y"]})["sample_meta"]},
            "'x', which is not a number",
        ),
        (
            {
                **world(),
                "sample_meta": make_samples(["a", "b"], strength=[1.0, 2.0])["sample_meta"],
            },
            "no sample has metadata",
        ),
    ],
)
def test_bad_labels_and_rows(made: Mapping[str, pa.Table], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(made, missing="null")


def without(expected: str, value: int) -> dict[str, pa.Table]:
    """A world in which no sample of that half has that label."""
    made = world(240)
    sides = [half(2, unit) for unit in made["samples"]["unit"].to_pylist()]
    keep = [
        index for index, side in enumerate(sides) if not (index % 4 == value and side == expected)
    ]
    names = set(made["samples"].take(keep)["sample"].to_pylist())
    rows = [row for row in made["sample_meta"].to_pylist() if row["sample"] in names]
    meta = pa.Table.from_pylist(rows, schema=arrow_schema("sample_meta"))
    return {
        **made,
        **{name: made[name].take(keep) for name in ("samples", "activations")},
        "sample_meta": meta,
    }


@pytest.mark.parametrize("side", ["select", "confirm"])
def test_a_middle_label_that_a_half_lacks_is_said(side: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"the {side} half of the units has 0 clusters with {BY} 2 .*at least 1 is needed",
    ):
        run(without(side, 2))


def test_units_that_have_every_label_alike_are_refused() -> None:
    made = world(160)
    units = pa.array([f"u{index // 4}" for index in range(160)])
    made["samples"] = made["samples"].set_column(1, "unit", units)
    with pytest.raises(
        DataError,
        match=r"clusters of the confirm half has the same mean concept_strength_label \(1.5\)",
    ):
        run(made)


def test_labels_that_do_not_rise() -> None:
    with pytest.raises(ValidationError, match="do not rise"):
        Ranking(by=BY, labels=(0, 2, 1))


# --- files ----------------------------------------------------------------------------------------


def files(made: Mapping[str, pa.Table], **params: Any) -> dict[str, str]:
    settings = {**made, **ranked(made)}
    work = SinkWork(RankingFiles(**params), Path("nowhere"), "r", TableInputs(settings))
    return {name: data.decode() for name, data in write_ranking(work)}


def test_the_csv_has_exactly_the_published_columns() -> None:
    result = files(world())
    rows = list(csv.DictReader(io.StringIO(result["ranked_features.csv"])))
    assert ",".join(rows[0]) == (
        "rank,layer,average_l0,feature_id,neuronpedia_url,interpretability_score,pearson_corr,spearman_corr,separation_score,"
        "tpr,fpr,mean_label_0,mean_label_1,mean_label_2,mean_label_3,monotonic"
    )
    assert [
        rows[0][name] for name in ("rank", "layer", "average_l0", "feature_id", "monotonic")
    ] == [
        "1",
        "12",
        "82.0",
        "7",
        "True",
    ]
    assert (
        rows[0]["neuronpedia_url"]
        == "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/7"
    )
    sound = list(csv.DictReader(io.StringIO(result["ranked_features_sound.csv"])))
    assert [row["feature_id"] for row in sound] == ["7"]
    assert float(sound[0]["q"]) <= 0.05


def test_examples_have_the_published_shape_and_are_the_strongest() -> None:
    made = world()
    result = json.loads(files(made, per_label=2)["feature_examples.json"])
    (name,) = result
    assert name == "layer_12_l0_82.0_feature_7"
    rows = result[name]
    assert list(rows) == [
        *(
            "rank",
            "layer",
            "average_l0",
            "feature_id",
            "neuronpedia_url",
            "interpretability_score",
            "pearson_correlation",
        ),
        *("tpr", "fpr", "examples_by_label"),
    ]
    x, label = dense(made, 7), np.array([at % 4 for at in range(120)])
    texts = made["samples"]["text"].to_pylist()
    for value in range(4):
        best = sorted(
            (at for at in range(120) if label[at] == value and x[at] > 0), key=lambda at: -x[at]
        )[:2]
        expected = [{"sentence": texts[at], "activation": pytest.approx(x[at])} for at in best]
        assert rows["examples_by_label"][str(value)] == expected
    assert rows["examples_by_label"]["0"] == []


def test_an_sae_without_a_page_has_no_link() -> None:
    made = {
        **world(),
        "spaces": pa.Table.from_pylist([space(l0=23, layer=13)], schema=arrow_schema("spaces")),
    }
    rows = list(csv.DictReader(io.StringIO(files(made)["ranked_features.csv"])))
    assert rows[0]["neuronpedia_url"] == ""
    assert (
        json.loads(files(made)["feature_examples.json"])["layer_13_l0_23.0_feature_7"][
            "neuronpedia_url"
        ]
        is None
    )


def test_the_sink_keeps_the_contract_and_asks_for_a_ranking() -> None:
    part = PARTS["ranking"]
    assert isinstance(part, SinkPart)
    made = dict(world())
    with pytest.raises(DataError, match=r"no stage `compare.ranking` wrote one"):
        list(
            part.run(
                SinkWork(
                    RankingFiles(),
                    Path("x"),
                    "r",
                    TableInputs({**made, **joined()}),
                )
            )
        )
    check_part(part, work=make_work(tables={**made, **ranked(made)}))


def ranked(made: Mapping[str, pa.Table], **params: Any) -> dict[str, pa.Table]:
    rows = compare_ranking(make_work(Ranking(by=BY, **params), made, seed=2))
    return joined(*({name: table} for name, table in rows))


def test_two_rankings_by_one_label_are_not_mixed() -> None:
    made = dict(world())
    loose, strict = (
        ranked(made, preset="loose", rows=1),
        ranked(made, preset="strict", min_r=0.999, rows=1),
    )
    for parts in ((loose, strict), (strict, loose)):
        inputs = TableInputs({**made, **joined(*parts)})
        with pytest.raises(
            DataError, match=f"more than one stage ranks by {BY}, and the files have room for one"
        ):
            list(write_ranking(SinkWork(RankingFiles(), Path("x"), "r", inputs)))
        part = next(
            part
            for part in toolkit_parts()
            if isinstance(part, ReportSection) and part.name == "ranking"
        )
        titles = [figure.title for figure in part.run(inputs)]
        assert len(set(titles)) == 4
        assert all(title.startswith(f"{BY}, ranking, at last, half confirm (") for title in titles)


def test_a_key_that_begins_like_the_label_is_another_key() -> None:
    made = dict(world())
    index = made["sample_meta"].schema.get_field_index("key")
    keys = [f"{key} of old" if key == BY else key for key in made["sample_meta"]["key"].to_pylist()]
    old = made["sample_meta"].set_column(
        index, made["sample_meta"].schema.field(index), pa.array(keys)
    )
    both = {**made, "sample_meta": pa.concat_tables([made["sample_meta"], old])}
    mine = ranked(made)
    other = compare_ranking(make_work(Ranking(by=f"{BY} of old"), both, seed=2))
    two = joined(mine, *({name: table} for name, table in other))
    plain, result = (
        dict(write_ranking(SinkWork(RankingFiles(), Path("x"), "r", TableInputs({**both, **rows}))))
        for rows in (mine, two)
    )
    assert {name: result[f"{BY}/{name}"] for name in plain} == plain


def test_the_report_shows_both_rankings() -> None:
    part = next(
        part
        for part in toolkit_parts()
        if isinstance(part, ReportSection) and part.name == "ranking"
    )
    made = {**world(), **ranked(world())}
    check_part(part, work=make_work(tables=made))
    sound, published = part.run(TableInputs(made))
    assert sound.alt == "1 pass the sound filters, 1 the published ones"
    assert "12/7" in sound.html
    assert "12/7" in published.html
    assert "12/3" not in sound.html + published.html
    assert list(part.run(TableInputs({**made, **joined()}))) == []
    none = {**made, **ranked(made, min_r=0.9999)}
    assert "No feature passes." in next(iter(part.run(TableInputs(none)))).html
