"""compare.probe: readers of the stream against scikit-like brute force, by folds, and the best
feature; and the section.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from scipy import optimize

from toolkit.errors import DataError
from toolkit.parts import ReportSection, StagePart
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_samples, make_work
from toolkit_stats import toolkit_parts
from toolkit_stats.baselines.probe import Probe, compare_probe
from toolkit_stats.math.linear import difference_of_means, probe, ridge
from toolkit_stats.samples import raw_streams as _rows

PARTS = {part.name: part for part in toolkit_parts()}
PARAMS = {"by": "group", "between": ("a", "b")}


def world(tiny: Any, count: int = 60) -> dict[str, pa.Table]:
    """Samples whose label is the sign of dimension 2 of the stream after layer 1; feature 4 of
    space s1 tells it in part.
    """
    texts = [f"w{index} x{index * 7 % 31} z{index}" for index in range(count)]
    made = make_samples(texts)
    rows = made["samples"].to_pylist()
    sign = [tiny.stream(row["token_ids"], 1)[-1][2] > 0 for row in rows]
    made = make_samples(texts, group=["a" if positive else "b" for positive in sign])
    rng = np.random.default_rng(5)
    acts = []
    for row, positive in zip(rows, sign, strict=True):
        fired = {4: 1.0 + rng.random()} if positive != (rng.random() < 0.15) else {}
        fired |= {int(feature): float(rng.random()) for feature in rng.integers(5, 30, 4)}
        entries = {
            "features": sorted(fired),
            "values": [fired[feature] for feature in sorted(fired)],
        }
        acts.append({"space": "s1", "sample": row["sample"], "position": 2, **entries})
    where = {
        "hookpoint": "resid_post.1",
        "address": "tiny/resid_post.1/S",
        "recipe": "relu",
        "sae": "S",
        "sae_hash": "h",
    }
    spaces = [{"space": "s1", "model": "tiny", "revision": "1", "width": 32, **where}]
    made["activations"] = pa.Table.from_pylist(acts, schema=arrow_schema("activations"))
    made["spaces"] = pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))
    return made


def run(
    inputs: Mapping[str, pa.Table], model: Any, **params: Any
) -> dict[tuple[str, str], dict[str, Any]]:
    work = make_work(Probe(**{**PARAMS, **params}), inputs, model=model, seed=1)
    return {
        (row["kind"], row["name"]): row
        for _, table in compare_probe(work)
        for row in table.to_pylist()
    }


def test_features_of_samples_none_of_which_was_measured_are_not_silent(tiny: Any) -> None:
    inputs = world(tiny)
    with pytest.raises(
        DataError, match="no space has a row of any of the 60 samples in table 'activations'"
    ):
        run({**inputs, "activations": inputs["activations"].slice(0, 0)}, tiny)


def test_without_features_the_stream_is_read_alone(tiny: Any) -> None:
    inputs = world(tiny)
    alone = run({name: inputs[name] for name in ("samples", "sample_meta")}, tiny)
    both = run(inputs, tiny)
    assert {kind for kind, _ in alone} == {"difference of means", "linear probe"}
    assert alone == {key: row for key, row in both.items() if key[0] != "best feature"}
    assert len(both) > len(alone)


# --- readers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)], ids=["tall", "wide"])
def test_the_ridge_probe_is_the_minimum_of_its_loss(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, row = rng.normal(size=shape) * np.linspace(1, 9, shape[1]), rng.integers(0, shape[0], 70)
    positive = rng.random(70) < 0.3
    weight = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())
    mean = weight @ x[row]
    scaled = (x[row] - mean) / np.sqrt(weight @ (x[row] - mean) ** 2)
    used = len(np.unique(np.column_stack([row, positive]), axis=0))
    unit = shape[1] / min(used, shape[1])
    target = np.where(positive, 1.0, -1.0)

    def loss(w: np.ndarray) -> float:
        return float(weight @ (scaled @ w - target) ** 2 + 0.5 * unit * w @ w)

    expected = optimize.minimize(loss, np.zeros(shape[1]), tol=1e-14).x
    (direction,) = ridge(x, row, positive, [0.5])
    np.testing.assert_allclose(
        direction, expected / np.sqrt(weight @ (x[row] - mean) ** 2), atol=1e-5
    )


def test_the_difference_of_means_is_that_of_the_samples() -> None:
    rng = np.random.default_rng(1)
    x, row, positive = rng.normal(size=(9, 4)), rng.integers(0, 9, 30), np.arange(30) % 3 == 0
    np.testing.assert_allclose(
        difference_of_means(x, row, positive), x[row[positive]].mean(0) - x[row[~positive]].mean(0)
    )


def test_a_dimension_that_never_changes_is_left_alone() -> None:
    rng = np.random.default_rng(2)
    x = np.column_stack([rng.normal(size=20), np.full(20, 7.0)])
    direction = probe(x, np.arange(20), x[:, 0] > 0, np.arange(20) % 4 == 0, np.arange(20))
    assert direction[1] == 0
    assert direction[0] > 0


# --- the stage ------------------------------------------------------------------------------------


def test_it_keeps_the_contract(tiny: Any) -> None:
    part = PARTS["compare.probe"]
    assert isinstance(part, StagePart)
    check_part(part, params=PARAMS, work=make_work(tables=world(tiny), model=tiny))


def test_what_is_linear_in_the_stream_is_read_where_it_is(tiny: Any) -> None:
    tiny.passes.clear()
    results = run(world(tiny), tiny)
    assert sum(tiny.passes) == 60
    assert results["linear probe", "resid_post.1"]["value"] > 0.95
    assert results["difference of means", "resid_post.1"]["value"] > 0.8
    assert {name for kind, name in results if kind == "linear probe"} == {
        f"resid_post.{layer}" for layer in range(3)
    }
    best = results["best feature", "tiny/resid_post.1/S"]
    assert 0.7 < best["value"] < 0.98
    assert best["text"].startswith("chosen in the other folds: 4, 4, 4, 4, 4")
    every = results["best feature", "of all spaces"]
    assert every["value"] == best["value"]
    assert "tiny/resid_post.1/S:4" in every["text"]


def test_labels_at_random_are_not_read(tiny: Any) -> None:
    inputs = world(tiny, 80)
    rng = np.random.default_rng(0)
    meta = inputs["sample_meta"].to_pylist()
    shuffled = rng.permutation([row["string"] for row in meta])
    rows = [{**row, "string": str(label)} for row, label in zip(meta, shuffled, strict=True)]
    inputs["sample_meta"] = pa.Table.from_pylist(rows, schema=arrow_schema("sample_meta"))
    for row in run(inputs, tiny, layers=1).values():
        assert row["low"] < 0.6


def test_rows_on_disk_give_the_same_and_leave_nothing(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    inputs = world(tiny)
    expected = run(inputs, tiny)
    monkeypatch.setattr(_rows, "MOST_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(inputs, tiny) == expected
    assert list(tmp_path.iterdir()) == []


def test_a_space_where_nothing_fired_is_at_chance(tiny: Any) -> None:
    inputs = world(tiny)
    rows = [{**row, "features": [], "values": []} for row in inputs["activations"].to_pylist()]
    inputs["activations"] = pa.Table.from_pylist(rows, schema=arrow_schema("activations"))
    results = {
        name: row
        for (kind, name), row in run(inputs, tiny, layers=0).items()
        if kind == "best feature"
    }
    assert set(results) == {"tiny/resid_post.1/S", "of all spaces"}
    for row in results.values():
        assert row["value"] == 0.5
        assert row["text"].startswith("no feature fired")


def test_a_space_where_nothing_fired_does_not_hide_the_others(tiny: Any) -> None:
    inputs = world(tiny)
    silent = [
        {**row, "space": "s2", "features": [], "values": []}
        for row in inputs["activations"].to_pylist()
    ]
    other = {
        **inputs["spaces"].to_pylist()[0],
        "space": "s2",
        "address": "tiny/resid_post.2/S",
        "hookpoint": "resid_post.2",
    }
    inputs["activations"] = pa.concat_tables(
        [inputs["activations"], pa.Table.from_pylist(silent, schema=arrow_schema("activations"))]
    )
    inputs["spaces"] = pa.concat_tables(
        [inputs["spaces"], pa.Table.from_pylist([other], schema=arrow_schema("spaces"))]
    )
    results = run(inputs, tiny, layers=0)
    assert results["best feature", "tiny/resid_post.2/S"]["value"] == 0.5
    assert (
        results["best feature", "of all spaces"]["value"]
        == results["best feature", "tiny/resid_post.1/S"]["value"]
    )


def test_two_folds_leave_none_to_choose_the_penalty_on() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 3"):
        Probe(**PARAMS, folds=2)


# --- the section ----------------------------------------------------------------------------------


def baseline(kind: str, name: str, value: float, separates: bool = False) -> dict[str, Any]:
    numbers = {
        "value": value,
        "low": max(0, value - 0.1),
        "high": min(1, value + 0.05),
        "chance": 0.5,
    }
    return {
        "contrast": "a vs b",
        "kind": kind,
        "name": name,
        "metric": "auroc",
        **numbers,
        "folds": 5,
        "groups": "a: 30 samples; b: 30 samples",
        "separates": separates,
        "text": None,
    }


def test_the_section_says_what_gives_the_label_away_and_escapes_names() -> None:
    rows = [
        baseline("metadata", "<balance>", 1.0, separates=True),
        baseline("linear probe", "resid_post.3", 0.9),
        baseline(
            "best feature", "m/resid_post.3/a-rather-long-name-of-an-sae-of-some-release", 0.8
        ),
    ]
    section = PARTS["baselines"]
    assert isinstance(section, ReportSection)
    inputs = TableInputs(
        {"baselines": pa.Table.from_pylist(rows, schema=arrow_schema("baselines"))}
    )
    first, second = section.run(inputs)
    assert "&lt;balance&gt; alone separates the groups</li>" in first.html
    assert "<balance>" not in first.html + second.html
    assert first.alt == (
        "AUROC of the best of each kind, chance 0.5. metadata: <balance> 1.00; linear probe: "
        "resid_post.3 0.90; best feature: "
        "m/resid_post.3/a-rather-long-name-of-an-sae-of-some-release 0.80."
    )
    assert "0.800 to 0.950" in second.html
    assert second.html.count("5 folds by unit and prompt; a: 30 samples; b: 30 samples") == 1
    check_part(section, work=make_work(tables={"baselines": inputs.read("baselines")}))


def test_without_a_perfect_key_there_is_no_warning() -> None:
    rows = [baseline("metadata", "balance, which separates the groups; not", 0.7)]
    section = PARTS["baselines"]
    assert isinstance(section, ReportSection)
    first, _ = section.run(
        TableInputs({"baselines": pa.Table.from_pylist(rows, schema=arrow_schema("baselines"))})
    )
    assert "read off the metadata" not in first.html
