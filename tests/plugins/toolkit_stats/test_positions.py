"""`at` of parts that read activations: one extraction at several selectors serves each as one of
its own would have done.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from toolkit._plugins.loading import load_parts
from toolkit.activations.kept_positions import Activations, AtKept, asked_of, recorded, shown
from toolkit.errors import DataError
from toolkit.features.comparisons import comparisons_of
from toolkit.parts import SinkPart
from toolkit.samples.selectors import Selector, SelectorText, selected
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import SilentReporter, TableInputs, make_work
from toolkit.work import SinkWork
from toolkit_lab import model_path, saes_path
from toolkit_stats.compare.contrasts import read_contrasts
from toolkit_stats.figures.top_features import _numbers

PARTS = load_parts([])
LAST, BALANCE, TAIL = {"take": "last"}, {"span": "balance"}, {"window": [-3, None]}
MODES = {"last": "last", '{"span":"balance"}': BALANCE}
TWO = {"by": "group", "between": ["a", "b"], "cluster": "none"}
BOS = 1


def sample(
    name: str,
    ids: Sequence[int],
    spans: Sequence[tuple[str, int, int]] = (),
    bos: bool | None = True,
) -> dict[str, Any]:
    """A row of `samples`."""
    named = [{"name": span, "start": start, "end": end} for span, start, end in spans]
    row = {"sample": name, "unit": name, "cluster": name, "text": name, "prompt_hash": name}
    pieces = [f"t{token}" for token in ids]
    return {**row, "token_ids": list(ids), "pieces": pieces, "spans": named, "bos": bos}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(name))


# --- one extraction, or one for each selector -----------------------------------------------------


class Lab:
    """The packaged model with two of its SAEs, on texts with a span, in two groups and with a
    label.
    """

    def __init__(self) -> None:
        model, saes = PARTS.get("model", "huggingface"), PARTS.get("sae", "llama_scope")
        self.model = model.load(
            model.params(path=str(model_path()), device="cpu"), SilentReporter()
        )
        self.saes = list(saes.load(saes.params(path=str(saes_path())), SilentReporter()))[:2]
        texts = [
            f"Your balance is ${index * 7 % 90 + 10} now, and the goal is "
            f"{['far', 'near'][index % 2]} today."
            for index in range(36)
        ]
        tokens = [self.model.tokenise(text) for text in texts]
        rows = [
            {
                **sample(f"s{index:02d}", text_tokens.ids, [("balance", 3, 6)]),
                "text": text_tokens.text,
            }
            for index, text_tokens in enumerate(tokens)
        ]
        meta = [
            {"sample": row["sample"], "key": "group", "number": None, "string": "ab"[index % 2]}
            for index, row in enumerate(rows)
        ]
        meta += [
            {"sample": row["sample"], "key": "label", "number": float(index % 4), "string": None}
            for index, row in enumerate(rows)
        ]
        self.samples = {
            "samples": table("samples", rows),
            "sample_meta": table("sample_meta", meta),
        }

    def extracted(self, *at: Mapping[str, Any]) -> tuple[dict[str, pa.Table], Mapping[str, Any]]:
        """The tables after an extraction at the union of the selectors, and what it told."""
        part = PARTS.get("stage", "extract.activations")
        work = make_work(
            part.params.model_validate({"at": at}), self.samples, model=self.model, saes=self.saes
        )
        result: dict[str, list[pa.Table]] = {}
        for name, rows in part.run(work):
            result.setdefault(name, []).append(rows)
        (message,) = (facts for name, facts in work.report.events if name == "extracted")
        return {
            **self.samples,
            **{name: pa.concat_tables(parts) for name, parts in result.items()},
        }, message

    def rows(
        self, part: str, tables: Mapping[str, pa.Table], **params: Any
    ) -> dict[str, list[dict[str, Any]]]:
        stage = PARTS.get("stage", part)
        model = self.model if stage.uses_model else None
        result: dict[str, list[dict[str, Any]]] = {}
        for name, table_rows in stage.run(
            make_work(stage.params.model_validate(params), dict(tables), model=model)
        ):
            result.setdefault(name, []).extend(table_rows.to_pylist())
        return result


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="module")
def union(lab: Lab) -> tuple[dict[str, pa.Table], Mapping[str, Any]]:
    """One extraction for all the selectors."""
    return lab.extracted(LAST, BALANCE, TAIL)


def same(result: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> None:
    """Equal rows; texts apart, since they name the selector, and numbers to what single precision
    leaves.
    """
    assert len(result) == len(expected) > 0
    for row, other in zip(result, expected, strict=True):
        for key, value in other.items():
            if isinstance(value, float):
                assert row[key] == pytest.approx(value, rel=1e-4, abs=1e-6)
            elif key not in ("text", "comparison", "positions"):
                assert row[key] == value


@pytest.mark.parametrize(
    ("part", "params"),
    [
        ("compare.welch", {**TWO, "details": "all"}),
        ("compare.welch", {**TWO, "pool": "mean", "missing": "leave_out"}),
        ("compare.correlation", {"by": "label", "cluster": "none", "method": "spearman"}),
        ("compare.ranking", {"by": "label"}),
        ("compare.probe", {**TWO, "layers": [1]}),
        ("trace.pathway", {**TWO, "top": 2, "links": "none"}),
    ],
)
@pytest.mark.parametrize("at", [BALANCE, LAST, TAIL])
def test_one_extraction_serves_each_selector_as_one_of_its_own(
    part: str, params: Mapping[str, Any], at: Mapping[str, Any], lab: Lab, union: Any
) -> None:
    tables, _ = union
    alone, _ = lab.extracted(at)
    assert len(alone["activations"]) < len(tables["activations"])
    part_params = (
        {"at": at} if part == "compare.ranking" else {}
    )  # by default it reads the last token
    result, expected = (
        lab.rows(part, tables, **params, at=at),
        lab.rows(part, alone, **params, **part_params),
    )
    assert result.keys() == expected.keys()
    for name in expected:
        same(result[name], expected[name])


def test_one_extraction_is_one_pass_over_each_text(lab: Lab, union: Any) -> None:
    _, message = union
    assert (message["texts"], message["passes"]) == (len(lab.samples["samples"]), 1)


def test_rows_say_which_selector_they_are_of(lab: Lab, union: Any) -> None:
    tables, _ = union
    rows = lab.rows("compare.welch", tables, **TWO, at={"span": "balance", "take": "last"})
    (comparison,) = comparisons_of(table("comparisons", rows["comparisons"]))
    assert comparison.label == 'welch, at {"span":"balance","take":"last"}'
    assert {row["comparison"] for row in rows["features"]} == {comparison.id}
    best = lab.rows("compare.probe", tables, **TWO, layers=[1], at="last")["baselines"]
    assert {row["text"].rpartition("; ")[2] for row in best if row["kind"] == "best feature"} == {
        "at last"
    }


@pytest.mark.parametrize("half", ["all", "select"])
def test_a_report_of_several_selectors_shows_each_ones_own_means(
    half: str, lab: Lab, union: Any
) -> None:
    tables, _ = union
    alone = {
        mark: lab.rows("compare.welch", tables, **TWO, half=half, at=selector)
        for mark, selector in MODES.items()
    }
    both = {
        name: table(name, [row for rows in alone.values() for row in rows[name]])
        for name in ("features", "comparisons")
    }
    inputs = TableInputs({**tables, **both})
    contrasts = list(read_contrasts(inputs))
    assert len(contrasts) == len(MODES)
    for result in contrasts:
        (mark,) = [mark for mark in MODES if f", at {mark}" in result.name]
        top = [int(index) for index in result.ranking()[:5]]
        numbers = _numbers(inputs, result, top)
        expected = {
            (row["space"], row["feature"], row["group"]): row["number"]
            for row in alone[mark]["features"]
            if row["stat"] == "mean"
        }
        assert top
        for index in top:
            for group in result.sides:
                where = result.spaces[result.space[index]].id, int(result.feature[index])
                assert numbers[*where, "mean", group] == expected[*where, group]


@pytest.mark.parametrize(
    "at",
    [
        None,
        "last",
        "all",
        {"span": "a: b, half select"},
        [BALANCE, LAST],
        {"exclude": {"bos": False}},
    ],
)
def test_a_recorded_selector_is_read_as_it_was(at: Any) -> None:
    selector = AtKept.model_validate({"at": at}).at
    assert asked_of(recorded(selector)) == selector
    assert (recorded(selector) == "") == (at is None)
    assert shown(selector) == recorded(selector).strip('"')


def test_examples_of_a_ranking_are_of_the_positions_that_it_read(lab: Lab, union: Any) -> None:
    tables, _ = union
    ranked = lab.rows(
        "compare.ranking",
        tables,
        by="label",
        preset="loose",
        min_r=-1,
        min_tpr=0,
        max_fpr=1,
        at=BALANCE,
    )
    sink = PARTS.get("sink", "ranking")
    assert isinstance(sink, SinkPart)
    params = {**tables, "saes": table("saes", [])}
    params |= {name: table(name, ranked[name]) for name in ("features", "comparisons")}
    work = SinkWork(sink.params.model_validate({}), Path("nowhere"), "run-1", TableInputs(params))
    files = {
        name: data if isinstance(data, bytes) else b"".join(data) for name, data in sink.run(work)
    }
    (first, *_) = json.loads(files["feature_examples.json"]).values()
    seen = [
        example["activation"]
        for examples in first["examples_by_label"].values()
        for example in examples
    ]
    kept = lab.extracted(BALANCE)[0]["activations"].to_pylist()
    values = [
        dict(zip(row["features"], row["values"], strict=True)).get(first["feature_id"])
        for row in kept
    ]
    assert seen
    assert max(seen) == pytest.approx(max(value for value in values if value is not None), rel=1e-4)
    assert next(csv.DictReader(io.StringIO(files["ranked_features.csv"].decode())))[
        "feature_id"
    ] == str(first["feature_id"])


# --- what was not kept ----------------------------------------------------------------------------


def tables_kept_at(
    ids: Sequence[Sequence[int]],
    at: Any,
    bos: int | None = BOS,
    spans: Any = (),
    known: bool = True,
) -> TableInputs:
    """Tables after an extraction at a selector from a model with this BOS; each row's only value is
    its position. `known`: whether the samples say which of them begin with BOS.
    """
    rows = [
        sample(f"s{number}", text_ids, spans, (text_ids[0] == bos) if known else None)
        for number, text_ids in enumerate(ids)
    ]
    activations = [
        {
            "space": "space",
            "sample": row["sample"],
            "position": position,
            "features": [0],
            "values": [float(position)],
        }
        for row in rows
        for position in selected(at, SelectorText.of(row), bos)
    ]
    return TableInputs(
        {"samples": table("samples", rows), "activations": table("activations", activations)}
    )


def read(
    inputs: TableInputs, at: Any, samples: Sequence[str] = ("s0", "s1")
) -> list[tuple[str, int]]:
    """The places that are read."""
    rows = Activations(inputs, AtKept(at=at).at).of("space", samples, "space (m/x)").to_pylist()
    return [(row["sample"], row["position"]) for row in rows]


TEXTS = ((BOS, 5, 6, 7), (BOS, 8, 9))
SOME = st.sampled_from(
    [
        "last",
        "all",
        Selector(),
        Selector(take="first"),
        Selector(window=(-2, None)),
        Selector(positions=(-1, 1)),
        Selector(tokens=(5, "t9")),
        (Selector(take="last"), Selector(positions=(2,))),
        Selector.model_validate({"exclude": {"bos": False}}),
        Selector.model_validate({"exclude": {"positions": [1]}}),
    ]
)


@given(
    st.lists(st.lists(st.integers(5, 9), min_size=1, max_size=5), min_size=1, max_size=4),
    SOME,
    SOME,
    st.booleans(),
)
@settings(deadline=None)
def test_what_is_read_is_what_the_selector_finds_in_the_text_or_it_is_refused(
    texts: list[list[int]], of_extraction: Any, of_comparison: Any, has_bos: bool
) -> None:
    """From any extraction, with and without BOS."""
    ids = [[BOS, *text] if has_bos else text for text in texts]
    bos = BOS if has_bos else None
    inputs = tables_kept_at(ids, of_extraction, bos)
    rows = inputs.read("samples").to_pylist()
    there = {(row["sample"], row["position"]) for row in inputs.read("activations").to_pylist()}
    expected = {
        (row["sample"], position)
        for row in rows
        for position in selected(of_comparison, SelectorText.of(row), bos)
    }
    result = attempt(inputs, of_comparison, [row["sample"] for row in rows])
    if isinstance(result, set):
        assert result == expected
    else:
        assert "was not kept" in result
        assert not expected <= there


def attempt(inputs: TableInputs, at: Any, samples: Sequence[str]) -> set[tuple[str, int]] | str:
    """The places that are read, or why none is."""
    try:
        return set(read(inputs, at, samples))
    except DataError as error:
        return str(error)


def test_a_position_that_was_not_kept_is_refused() -> None:
    inputs = tables_kept_at(TEXTS, Selector(window=(-2, None)))
    assert read(inputs, {"window": [-2, None]}) == [("s0", 2), ("s0", 3), ("s1", 1), ("s1", 2)]
    assert read(inputs, "all", ["s1"]) == [("s0", 2), ("s0", 3), ("s1", 1), ("s1", 2)]
    with pytest.raises(
        DataError,
        match=r"at: all selects position 1 of sample 's0', which was not kept in space space "
        r"\(m/x\) \(1 such positions\)",
    ):
        read(inputs, "all")


def test_samples_in_which_a_selector_finds_nothing_are_not_measured() -> None:
    inputs = tables_kept_at([(BOS, 5, 6), (BOS, 7, 8)], "all", spans=[("balance", 1, 2)])
    assert Activations(inputs, AtKept(at={"span": "balance"}).at).measured == {"s0", "s1"}
    assert Activations(inputs, AtKept(at={"tokens": [7]}).at).measured == {"s1"}
    assert Activations(inputs, None).measured == {"s0", "s1"}


def test_bos_is_what_the_samples_say_even_where_the_extraction_kept_it() -> None:
    inputs = tables_kept_at(TEXTS, Selector.model_validate({"exclude": {"bos": False}}))
    assert len(read(inputs, "all")) == 5
    assert len(read(inputs, {"exclude": {"bos": False}})) == 7
    assert len(read(tables_kept_at([(5, 6, 5), (5, 7, 8)], "all", None), "all")) == 6


def test_a_selector_that_depends_on_a_bos_that_nobody_recorded_is_refused() -> None:
    everything = Selector.model_validate({"exclude": {"bos": False}})
    inputs = tables_kept_at(TEXTS, everything, known=False)
    with pytest.raises(DataError, match="at: all depends on whether sample 's0' begins with BOS"):
        read(inputs, "all")
    assert len(read(inputs, {"exclude": {"bos": False}})) == 7
    assert len(read(inputs, {"exclude": {"positions": [0], "bos": False}})) == 5
    assert read(inputs, "last") == [("s0", 3), ("s1", 2)]


def test_an_empty_list_of_selectors_is_refused() -> None:
    with pytest.raises(ValidationError, match="the list of selectors is empty"):
        AtKept(at=())
