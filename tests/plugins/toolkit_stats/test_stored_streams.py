"""`compare.probe` and `compare.residual` on the stream that an extraction kept: the same numbers,
and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from tests.plugins.toolkit_stats.test_probe import world
from toolkit.errors import DataError
from toolkit.parts import StagePart
from toolkit.saes import raw_space_row
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_samples, make_work
from toolkit.work import Rows
from toolkit_stats import toolkit_parts
from toolkit_stats.baselines import residual as _residual
from toolkit_stats.baselines.residual import Residual

PARTS = {part.name: part for part in toolkit_parts() if isinstance(part, StagePart)}
BOTH = ["compare.probe", "compare.residual"]
PARAMS = {"by": "group", "between": ("a", "b")}


def stored_streams(
    tiny: Any,
    samples: pa.Table,
    layers: Sequence[int] = (0, 1, 2),
    site: str = "resid_post",
    back: int = 1,
) -> pa.Table:
    """What an extraction with `stream: last` writes; and, in front of each such row, one of another
    position.
    """
    rows = []
    for layer in layers:
        space = raw_space_row(tiny.identity, f"{site}.{layer}", tiny.width)["space"]
        for row in samples.to_pylist():
            stream = tiny.stream(row["token_ids"], layer)
            for index in (0, len(stream) - back):
                tables = {
                    "sample": row["sample"],
                    "position": index,
                    "hookpoint": f"{site}.{layer}",
                    "values": stream[index].tolist(),
                }
                rows.append({"space": space, **tables})
    return pa.Table.from_pylist(rows, schema=arrow_schema("streams"))


def run(
    name: str, inputs: Mapping[str, pa.Table], tiny: Any, *, facts: Any = None, **params: Any
) -> dict[str, pa.Table]:
    """With the table of streams no model is loaded: the host hands over what it is."""
    part = PARTS[name]
    work = make_work(
        part.params(**{**PARAMS, **params}),
        inputs,
        model=None if "streams" in inputs else tiny,
        seed=1,
    )
    identity = replace(tiny.identity, facts={"layers": 3, "width": 5} if facts is None else facts)
    result: dict[str, list[pa.Table]] = {}
    rows: Rows = part.run(replace(work, identity=identity))
    for table, some in rows:
        result.setdefault(table, []).append(some)
    return {table: pa.concat_tables(parts) for table, parts in result.items()}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("layers", ["all", "1-", 2])
def test_it_equals_a_pass_of_the_model_bit_by_bit(tiny: Any, name: str, layers: Any) -> None:
    inputs = world(tiny)
    expected = run(name, inputs, tiny, layers=layers)
    tiny.passes.clear()
    assert (
        run(
            name,
            {**inputs, "streams": stored_streams(tiny, inputs["samples"])},
            tiny,
            layers=layers,
        )
        == expected
    )
    assert tiny.passes == []


def test_equal_prompts_and_many_open_clusters_are_summed_in_the_same_order(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'long ' * (index % 5)}end{index % 11}" for index in range(44)]
    inputs = make_samples(texts, group=["ab"[index % 11 % 2] for index in range(44)])
    inputs["samples"] = inputs["samples"].set_column(
        1, "unit", pa.array([f"u{index % 11}" for index in range(44)])
    )
    streams = stored_streams(tiny, inputs["samples"])
    for most in (2**30, 0):
        monkeypatch.setattr(_residual, "OPEN_BYTES", most)
        expected = run("compare.residual", inputs, tiny)
        assert run("compare.residual", {**inputs, "streams": streams}, tiny) == expected


@pytest.mark.parametrize("name", BOTH)
def test_it_keeps_the_contract(tiny: Any, name: str) -> None:
    inputs = world(tiny)
    work = make_work(tables={**inputs, "streams": stored_streams(tiny, inputs["samples"])})
    identity = replace(tiny.identity, facts={"layers": 3, "width": 5})
    check_part(PARTS[name], params=PARAMS, work=replace(work, identity=identity))


@pytest.mark.parametrize("name", BOTH)
def test_a_layer_that_was_not_kept_is_an_error(tiny: Any, name: str) -> None:
    inputs = world(tiny)
    inputs["streams"] = stored_streams(tiny, inputs["samples"], layers=(1, 2))
    message = (
        r"layers: 'all' asks for resid_post.0, and the extraction .* kept the "
        r"stream "
        r"at resid_post.1, "
        r"resid_post.2 only"
    )
    with pytest.raises(DataError, match=message):
        run(name, inputs, tiny)
    assert run(name, inputs, tiny, layers="1-")
    with pytest.raises(DataError, match="names layer 3; tiny has the layers 0 to 2"):
        run(name, inputs, tiny, layers="1-7")


@pytest.mark.parametrize("name", BOTH)
def test_streams_of_other_places_are_not_those_behind_layers(tiny: Any, name: str) -> None:
    inputs = world(tiny)
    inputs["streams"] = stored_streams(tiny, inputs["samples"], site="mlp_out")
    with pytest.raises(
        DataError,
        match=r"asks for resid_post.1, and .* kept the stream at "
        r"mlp_out.0, "
        r"mlp_out.1, "
        r"mlp_out.2 only",
    ):
        run(name, inputs, tiny, layers=1)


def test_the_probe_takes_what_is_kept_where_it_is_told_to(tiny: Any) -> None:
    inputs = world(tiny)
    streams = stored_streams(tiny, inputs["samples"], layers=(0, 2))
    results = run("compare.probe", {**inputs, "streams": streams}, tiny, layers="kept", facts={})
    assert results == run("compare.probe", inputs, tiny, layers=(0, 2))
    with pytest.raises(
        DataError,
        match=r"'kept' is the layers whose stream an extraction kept, and none .* of tiny",
    ):
        run("compare.probe", inputs, tiny, layers="kept")
    other = {**inputs, "streams": stored_streams(tiny, inputs["samples"], site="mlp_out")}
    with pytest.raises(
        DataError, match=r"'kept' is the layers whose stream an extraction kept, and none"
    ):
        run("compare.probe", other, tiny, layers="kept")
    with pytest.raises(ValidationError, match="`kept` is for compare"):
        Residual(**PARAMS, layers="kept")


@pytest.mark.parametrize("name", BOTH)
def test_a_sample_whose_last_token_was_not_kept_is_an_error(tiny: Any, name: str) -> None:
    inputs = world(tiny)
    inputs["streams"] = stored_streams(tiny, inputs["samples"], back=2)
    with pytest.raises(
        DataError,
        match=r"sample 's\d+': its stream at resid_post.0 is not kept at its "
        r"last "
        r"token "
        r"\(position 2\)",
    ):
        run(name, inputs, tiny)


@pytest.mark.parametrize("name", BOTH)
def test_rows_that_two_extractions_kept_count_once(tiny: Any, name: str) -> None:
    inputs = world(tiny)
    streams = stored_streams(tiny, inputs["samples"])
    twice = pa.concat_tables([streams, streams]).sort_by(
        [(column, "ascending") for column in ("space", "sample", "position")]
    )
    assert run(name, {**inputs, "streams": twice}, tiny) == run(name, inputs, tiny)


@pytest.mark.parametrize("name", BOTH)
def test_a_table_without_rows_and_layers_that_nobody_knows_are_errors(tiny: Any, name: str) -> None:
    inputs = world(tiny)
    with pytest.raises(DataError, match="table 'streams' has no rows"):
        run(name, {**inputs, "streams": arrow_schema("streams").empty_table()}, tiny)
    streams = stored_streams(tiny, inputs["samples"])
    with pytest.raises(DataError, match="how many layers tiny has is not known without loading it"):
        run(name, {**inputs, "streams": streams}, tiny, facts={"width": 5})
