"""compare.residual: the same numbers as a dense test, one pass, a space of its own that never meets
an SAE's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from toolkit.errors import BadInput, DataError
from toolkit.features.addresses import find
from toolkit.features.comparisons import comparisons_of
from toolkit.identity import Identity
from toolkit.parts import StagePart
from toolkit.saes import raw_space_row, space_id
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_samples, make_work
from toolkit_stats import toolkit_parts
from toolkit_stats.baselines import residual as _residual
from toolkit_stats.baselines.residual import Residual, compare_residual
from toolkit_stats.math.means import moments, welch
from toolkit_stats.math.streaming import Stream

PART = next(
    part
    for part in toolkit_parts()
    if isinstance(part, StagePart) and part.name == "compare.residual"
)


def samples(count: int = 30) -> dict[str, pa.Table]:
    return make_samples(
        [f"w{index} x{index % 7} {'y ' * (index % 4)}z{index}" for index in range(count)],
        group=["ab"[index % 2] for index in range(count)],
    )


def run(inputs: Mapping[str, pa.Table], model: Any, **params: Any) -> dict[str, pa.Table]:
    asked = Residual(**{"by": "group", "between": ("a", "b"), **params})
    result: dict[str, list[pa.Table]] = {}
    for name, rows in compare_residual(make_work(asked, inputs, model=model)):
        result.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(parts) for name, parts in result.items()}


def numbers(result: Mapping[str, pa.Table]) -> dict[tuple[str, int, str, str], float]:
    rows = result["features"].to_pylist()
    return {
        (row["space"], row["feature"], row["stat"], row["group"]): row["number"] for row in rows
    }


def test_it_keeps_the_contract(tiny: Any) -> None:
    check_part(
        PART,
        params={"by": "group", "between": ["a", "b"]},
        work=make_work(tables=samples(), model=tiny),
    )


def test_every_dimension_of_every_layer_is_tested_as_scipy_does(tiny: Any) -> None:
    inputs = samples()
    results = run(inputs, tiny, layers="1-2", details="all")
    spaces = {row["hookpoint"]: row for row in results["spaces"].to_pylist()}
    assert set(spaces) == {"resid_post.1", "resid_post.2"}
    rows, got = inputs["samples"].to_pylist(), numbers(results)
    every = []
    for layer in (1, 2):
        x = np.array([tiny.stream(row["token_ids"], layer)[-1] for row in rows], dtype=np.float64)
        theirs = stats.ttest_ind(x[0::2], x[1::2], equal_var=False)
        space = spaces[f"resid_post.{layer}"]["space"]
        for index in range(5):
            assert got[space, index, "mean", "a"] == pytest.approx(x[0::2, index].mean(), rel=1e-12)
            assert got[space, index, "t", "a vs b"] == pytest.approx(
                theirs.statistic[index], rel=1e-6
            )
            assert got[space, index, "p", "a vs b"] == pytest.approx(theirs.pvalue[index], rel=1e-6)
            assert got[space, index, "density", "b"] == 1.0
        every += list(theirs.pvalue)
    q = [value for (_, _, stat, _), value in got.items() if stat == "q"]
    np.testing.assert_allclose(q, stats.false_discovery_control(every), rtol=1e-6)


def test_signed_values_are_fine_and_the_shape_is_that_of_welch(tiny: Any) -> None:
    got = numbers(run(samples(), tiny, layers=1))
    assert min(value for (_, _, stat, _), value in got.items() if stat == "mean") < 0
    assert {stat for _, _, stat, _ in got} == {
        "mean",
        "density",
        "d",
        "p",
        "q",
        "significant",
        "fired",
    }
    every = {stat for _, _, stat, _ in numbers(run(samples(), tiny, layers=1, details="all"))}
    assert every >= {"d_low", "d_high", "g", "t", "df"}


def test_both_counts_can_be_told(tiny: Any) -> None:
    inputs = samples(60)
    loose, cut = (
        numbers(run(inputs, tiny, alpha=0.999)),
        numbers(run(inputs, tiny, alpha=0.999, min_abs_d=0.2)),
    )
    count = [
        sum(value for (_, _, stat, _), value in got.items() if stat == "significant")
        for got in (loose, cut)
    ]
    assert count[0] > count[1] > 0


def test_equal_texts_are_one_pass_and_one_cluster(tiny: Any) -> None:
    texts = ["one two", "one two", "three", "four five", "six seven", "eight"] * 2
    inputs = make_samples(texts, group=[*"aaaabbbbabab"])
    prompts = pa.array(texts)
    inputs["samples"] = inputs["samples"].set_column(2, "cluster", prompts)
    results = run(inputs, tiny, layers=0)
    assert sum(tiny.passes) == 5
    (comparison,) = comparisons_of(results["comparisons"])
    texts_of = {group.name: group.describe() for group in comparison.groups}
    groups = dict(
        zip(
            "ab",
            ([t for t, g in zip(texts, "aaaabbbbabab", strict=True) if g == name] for name in "ab"),
            strict=True,
        )
    )
    assert texts_of == {
        name: f"{len(prompts)} samples of {len(prompts)} units, {len(set(prompts))} distinct "
        f"prompts, {len(set(prompts))} clusters"
        for name, prompts in groups.items()
    }


def test_the_stream_of_sums_equals_the_matrix_at_once() -> None:
    from scipy import sparse

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)) + 1000 * (np.arange(6) == 2)
    x[:, 4] = 3.3
    clusters = np.unique(rng.integers(0, 9, 40), return_inverse=True)[1]
    stream = Stream(clusters, (6,))
    for index in rng.permutation(40):
        stream.add(x[index], [int(clusters[index])])
    got, expected = stream.moments(), moments(sparse.csr_array(x), clusters)
    np.testing.assert_allclose(got.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(got.squares, expected.squares, rtol=1e-9)
    np.testing.assert_allclose(got.variance, expected.variance, rtol=1e-9)
    assert got.squares[4] == 0
    np.testing.assert_allclose(got.skewness, expected.skewness, rtol=1e-6)
    np.testing.assert_allclose(got.kurtosis, expected.kurtosis, rtol=1e-6)
    np.testing.assert_allclose(welch(got, got).p, welch(expected, expected).p)


def test_another_order_keeps_few_clusters_open_and_changes_nothing(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = samples(40)
    inputs["samples"] = inputs["samples"].set_column(
        1, "unit", pa.array([f"u{index // 4}" for index in range(40)])
    )
    most: list[int] = []
    real = Stream.moments
    monkeypatch.setattr(
        Stream, "moments", lambda self: (most.append(self.most_open), real(self))[1]
    )
    expected = numbers(run(inputs, tiny))
    usual = max(most)
    monkeypatch.setattr(_residual, "OPEN_BYTES", 0)
    most.clear()
    got = numbers(run(inputs, tiny))
    assert max(most) == 1 < usual
    assert got == pytest.approx(expected, rel=1e-9, nan_ok=True)


# --- promise 1 ------------------------------------------------------------------------------------


class FakeSae:
    """The parts of an SAE that its space is made of."""

    hookpoint, digest, recipe = "resid_post.1", "", "raw residual"


def test_a_raw_space_is_never_that_of_an_sae() -> None:
    model = Identity("m", "1", "d")
    row = raw_space_row(model, "resid_post.1", 8)
    assert row["sae"] is None
    assert row["recipe"] == "raw residual"
    assert row["space"] != space_id(model, FakeSae())  # type: ignore[arg-type]
    assert row["space"] != raw_space_row(model, "resid_post.2", 8)["space"]
    assert row["space"] != raw_space_row(Identity("m", "2", "e"), "resid_post.1", 8)["space"]


def test_a_short_address_that_could_mean_either_is_refused_with_both() -> None:
    model = Identity("m", "1", "d")
    raw = raw_space_row(model, "resid_post.1", 8)
    sae = {
        **raw,
        "space": "other",
        "sae": "S",
        "sae_hash": "h",
        "recipe": "relu",
        "width": 64,
        "address": "m/resid_post.1/S",
    }
    with pytest.raises(
        BadInput, match=r"'1/7' may be any of 2 features: m/resid_post.1/raw:7, m/resid_post.1/S:7"
    ):
        find("1/7", [raw, sae])
    assert find("m/resid_post.1/raw:7", [raw, sae]) == raw


def test_layers_may_be_left_open_to_the_last(tiny: Any) -> None:
    result = run(samples(), tiny, layers="1-")["spaces"].to_pylist()
    assert [row["hookpoint"] for row in result] == ["resid_post.1", "resid_post.2"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("0-3", "layers: '0-3' names layer 3; tiny has the layers 0 to 2"),
        ("x", "layers: 'x' is not understood"),
        ("3-", "layers: '3-' names no layer; tiny has the layers 0 to 2"),
        ((), "names no layer"),
    ],
)
def test_layers_that_the_model_lacks(tiny: Any, layers: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(samples(), tiny, layers=layers)
