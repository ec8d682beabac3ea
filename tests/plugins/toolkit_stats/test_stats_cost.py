"""The costs of tests and baselines, compared with what they take: rows, memory, passes and
operations.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.plugins.toolkit_stats.conftest import Tiny
from tests.plugins.toolkit_stats.test_stored_streams import stored_streams
from toolkit._run.atomic import write_parts
from toolkit._run.job_folder import read_arrow
from toolkit.activations.rows import BySpace
from toolkit.costs import ROW, Cost, Workload
from toolkit.parts import StagePart
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import SilentReporter, make_samples, make_step, make_work
from toolkit.work import Rows
from toolkit_hf._identity import HuggingFace, identify
from toolkit_hf._load import load
from toolkit_lab import model_path
from toolkit_stats import toolkit_parts
from toolkit_stats.compare import run_comparison as _family
from toolkit_stats.costs import BASELINE, STORED, TESTS, read
from toolkit_stats.math import correlate as _correlate
from toolkit_store import open_store

PARTS = {part.name: part for part in toolkit_parts() if isinstance(part, StagePart)}
WIDTH, SPACES, SAMPLES, ACTIVE = 1500, 4, 600, 60
TWO = {"by": "group", "between": ("a", "b")}


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    """Samples in two groups, each with a number of its own, and SAEs of whose features each has an
    equal chance to fire.
    """
    rng = np.random.default_rng(0)
    texts = [f"word{index} then{index % 97} end{index}" for index in range(SAMPLES)]
    half = ["ab"[index % 2] for index in range(SAMPLES)]
    made = make_samples(texts, group=half, label=[float(index % 4) for index in range(SAMPLES)])
    names = made["samples"]["sample"].to_pylist()
    fired = [np.sort(rng.choice(WIDTH, ACTIVE, replace=False)) for _ in range(SPACES * SAMPLES)]
    rows = {
        "space": [f"s{space}" for space in range(SPACES) for _ in names],
        "sample": names * SPACES,
        "position": [2] * len(fired),
        "features": fired,
        "values": [rng.random(ACTIVE) + 0.1 for _ in fired],
    }
    made["activations"] = pa.table(rows, schema=arrow_schema("activations"))
    where = {"model": "m", "revision": "1", "sae_hash": "h", "recipe": "r", "width": WIDTH}
    spaces = [
        {
            "space": f"s{index}",
            "hookpoint": f"resid_post.{index}",
            "address": f"m/resid_post.{index}/S",
            "sae": "S",
            **where,
        }
        for index in range(SPACES)
    ]
    made["spaces"] = pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))
    return made


def load_of(tables: Mapping[str, pa.Table], model: Mapping[str, Any] | None = None) -> Workload:
    """What the host tells of these tables: sizes, nothing of what is in them."""
    lengths = [len(ids) for ids in tables["samples"]["token_ids"].to_pylist()]
    saes = {"count": SPACES, "features": SPACES * WIDTH, "layers": list(range(SPACES))}
    rows = SPACES * SAMPLES
    known = (
        {"saes": saes, "rows": rows, "entries": rows * ACTIVE} if "activations" in tables else {}
    )
    sizes = {
        "samples": len(lengths),
        "distinct": len(lengths),
        "tokens": sum(lengths),
        "longest": max(lengths),
    }
    return Workload(**sizes, model=model or {}, **known)


def cost_of(name: str, params: Any, load: Workload) -> Cost:
    part = PARTS[name]
    assert part.estimates.cost is not None
    return part.estimates.cost(params, load)


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """The most bytes that Python, NumPy and Arrow held together since it began, at most."""
    before, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] + (counted.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def taken(rows: Rows) -> dict[str, int]:
    """How many rows of each table; they are let go as they come, as a worker does."""
    result: dict[str, int] = {}
    for name, table in rows:
        result[name] = result.get(name, 0) + table.num_rows
    return result


def params_of(name: str) -> dict[str, Any]:
    params: dict[str, Any] = {
        "correlation": {"by": "label"},
        "anova": {"by": "label"},
        "kruskal": {"by": "label"},
    }.get(name, TWO)
    return {**params, "details": "all"}


@pytest.fixture
def warm(tables: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported and made once is there; and there are as many threads as a plan takes there
    to be.
    """
    monkeypatch.setattr(_family.os, "cpu_count", lambda: 4)
    for name in ("compare.welch", "compare.mann_whitney"):
        taken(PARTS[name].run(make_work(PARTS[name].params.model_validate(TWO), tables)))


def test_what_a_comparison_holds_goes_by_the_spaces_in_hand_and_not_by_all_of_them() -> None:
    params = PARTS["compare.welch"].params.model_validate(TWO)
    sizes = {"samples": 100, "distinct": 100, "tokens": 300, "longest": 3}
    few, many = (
        cost_of(
            "compare.welch",
            params,
            Workload(
                **sizes,
                saes={"count": spaces, "features": 8},
                rows=spaces * 10**5,
                entries=spaces * 10**6,
            ),
        )
        for spaces in (4, 400)
    )
    assert many.read == 100 * few.read
    assert many.memory <= few.memory


def test_rows_are_read_space_by_space_without_a_copy(
    tables: dict[str, pa.Table], tmp_path: Path
) -> None:
    path = tmp_path / "activations.arrow"
    write_parts(
        path,
        tables["activations"].schema,
        [tables["activations"].slice(index * 500, 500) for index in range(5)],
    )
    rows = read_arrow(path)
    before = pa.total_allocated_bytes()
    result = BySpace(rows)
    parts = {space: result.of(space) for space in result.spaces}
    assert pa.total_allocated_bytes() == before
    assert list(parts) == [f"s{index}" for index in range(SPACES)]
    for space, part in parts.items():
        assert part.equals(rows.filter(pc.equal(rows["space"], space)))
    assert result.of("unknown").num_rows == 0


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("name", TESTS)
def test_a_comparison_writes_and_holds_no_more_than_it_says(
    name: str, tables: dict[str, pa.Table]
) -> None:
    """And no more than twice the rows. Four threads that take turns on a busy machine hold a
    quarter of what they may hold at once.
    """
    part = PARTS[f"compare.{name}"]
    params = part.params.model_validate(params_of(name))
    with peak() as memory:
        rows = taken(part.run(make_work(params, tables)))["features"]
        before = memory()
    cost = cost_of(part.name, params, load_of(tables))
    assert rows * STORED <= cost.disk <= 2 * rows * STORED
    assert before <= cost.memory <= 16 * before
    assert not cost.exact


def test_the_store_takes_no_more_for_rows_than_is_said(
    tables: dict[str, pa.Table], tmp_path: Path
) -> None:
    part = PARTS["compare.welch"]
    params = part.params.model_validate(params_of("welch"))
    written = part.run(make_work(params, tables))
    made = pa.concat_tables([rows for name, rows in written if name == "features"])
    folder = tmp_path / "store"
    open_store(folder, create=True).commit(
        make_step("k1", part=part.name, tables={"features": made.num_rows}), {"features": made}
    )
    size = sum(
        path.stat().st_size
        for path in (folder / "tables" / "features.lance").rglob("*")
        if path.is_file()
    )
    cost = cost_of(part.name, params, load_of(tables))
    assert size <= cost.disk <= 4 * size


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("name", "settings"),
    [("compare.ranking", {"by": "label"}), ("trace.pathway", {**TWO, "links": "none"})],
)
def test_rankings_and_paths_write_and_hold_no_more_than_they_say(
    name: str, settings: dict[str, Any], tables: dict[str, pa.Table]
) -> None:
    part = PARTS[name]
    params = part.params.model_validate(settings)
    taken(part.run(make_work(params, tables)))
    with peak() as memory:
        rows = taken(part.run(make_work(params, tables)))
        before = memory()
    cost = cost_of(name, params, load_of(tables))
    assert sum(rows.values()) * STORED <= cost.disk <= 4 * sum(rows.values()) * STORED
    assert before <= cost.memory <= 4 * before


def test_linked_layers_cost_the_products_that_are_made(
    tables: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every feature is on in enough clusters here, so that the bound is met: two operations a pair
    and cluster.
    """
    multiplied = []
    products = _correlate._products

    def counted(a: Any, b: Any) -> Any:
        multiplied.append(2.0 * a.shape[0] * b.shape[0] * a.shape[1])
        return products(a, b)

    monkeypatch.setattr(_correlate, "_products", counted)
    few = {**tables, "spaces": tables["spaces"].slice(0, 2)}
    few["activations"] = tables["activations"].slice(0, 2 * SAMPLES)
    saes = {"count": 2, "features": 2 * WIDTH, "layers": [0, 1]}
    load = replace(load_of(tables), saes=saes, rows=2 * SAMPLES, entries=2 * SAMPLES * ACTIVE)
    none, linked = (
        PARTS["trace.pathway"].params.model_validate({**TWO, "links": links})
        for links in ("none", "adjacent")
    )
    with peak() as memory:
        rows = taken(PARTS["trace.pathway"].run(make_work(linked, few)))
        before = memory()
    cost = cost_of("trace.pathway", linked, load)
    assert cost.flops - cost_of("trace.pathway", none, load).flops == pytest.approx(
        sum(multiplied), rel=1e-6
    )
    assert before <= cost.memory <= 4 * before
    assert rows["links"] == linked.keep  # type: ignore[attr-defined]


def test_a_leak_report_holds_no_more_than_it_says() -> None:
    keys = {
        f"key{index}": [f"w{(index + 3) * row % 31}" for row in range(400)] for index in range(8)
    }
    made = make_samples(
        [f"a{index} b{index}" for index in range(400)],
        group=["ab"[index % 2] for index in range(400)],
        **keys,
    )
    params = PARTS["compare.leak"].params.model_validate(TWO)
    taken(PARTS["compare.leak"].run(make_work(params, made)))
    with peak() as memory:
        rows = taken(PARTS["compare.leak"].run(make_work(params, made)))["baselines"]
        before = memory()
    cost = cost_of("compare.leak", params, load_of(made))
    assert rows * BASELINE <= cost.disk <= 2 * rows * BASELINE
    assert before <= cost.memory <= 4 * before


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("name", ["compare.residual", "compare.probe"])
def test_the_raw_stream_takes_a_pass_a_text_and_no_more_memory_than_it_says(
    name: str, tables: dict[str, pa.Table]
) -> None:
    """The tiny model's streams are NumPy's, so that their memory is counted; of the probe's rows
    some are the features'.
    """
    model = Tiny(layers=4, width=96)
    facts = {
        "layers": 4,
        "width": 96,
        "bytes": 0,
        "block_parameters": 0,
        "item": 4,
        "intermediate": 0,
    }
    settings = {"details": "all"} if name == "compare.residual" else {"folds": 3}
    params = PARTS[name].params.model_validate({**TWO, "layers": "1-2", "tokens": 256, **settings})
    held_of = {
        table: rows
        for table, rows in tables.items()
        if name == "compare.probe" or table.startswith("sample")
    }
    repeated = {**held_of, "samples": twice(held_of["samples"])}
    taken(
        PARTS[name].run(make_work(params, repeated, model=Tiny(layers=4, width=96)))
    )  # what is imported is there
    with peak() as memory:
        rows = taken(PARTS[name].run(make_work(params, repeated, model=model)))
        before = memory()
    cost = cost_of(name, params, replace(load_of(held_of, facts), distinct=SAMPLES // 2))
    assert cost.forwards == sum(model.passes) == SAMPLES // 2
    assert before <= cost.memory <= 4 * before
    written, size = (
        (rows["features"], STORED) if name == "compare.residual" else (rows["baselines"], BASELINE)
    )
    assert written * size <= cost.disk <= 2 * written * size


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("name", ["compare.residual", "compare.probe"])
def test_a_kept_stream_takes_no_pass_and_no_more_memory_than_it_says(
    name: str, tables: dict[str, pa.Table]
) -> None:
    """The table itself is a file that is mapped: of it a layer's rows are held at a time."""
    model = Tiny(layers=4, width=96)
    facts = {
        "layers": 4,
        "width": 96,
        "bytes": 10**9,
        "block_parameters": 10**9,
        "item": 4,
        "intermediate": 0,
    }
    settings = {"details": "all"} if name == "compare.residual" else {"folds": 3}
    params = PARTS[name].params.model_validate({**TWO, "layers": "1-2", **settings})
    held_of = {
        table: rows
        for table, rows in tables.items()
        if name == "compare.probe" or table.startswith("sample")
    }
    repeated = {**held_of, "samples": twice(held_of["samples"])}
    work = make_work(
        params, {**repeated, "streams": stored_streams(model, repeated["samples"], (1, 2))}
    )
    work = replace(work, identity=replace(model.identity, facts=facts))
    taken(PARTS[name].run(work))  # what is imported is there
    with peak() as memory:
        taken(PARTS[name].run(work))
        before = memory()
    load = replace(load_of(held_of, facts), distinct=SAMPLES // 2, model_replaced=True)
    cost, computed = (
        cost_of(name, params, load),
        cost_of(name, params, replace(load, model_replaced=False)),
    )
    assert (cost.forwards, computed.forwards) == (0, SAMPLES // 2)
    assert before <= cost.memory <= 4 * before
    assert cost.flops < computed.flops
    assert cost.disk == computed.disk
    assert cost.read - (read(load) if name == "compare.probe" else 0) == SAMPLES * 2 * (
        4 * 96 + ROW
    )


def twice(samples: pa.Table) -> pa.Table:
    """Two samples each have the same tokens."""
    ids = samples["token_ids"].to_pylist()
    column = pa.array(
        [ids[index // 4 * 4 + index % 2] for index in range(len(ids))],
        samples.schema.field("token_ids").type,
    )
    return samples.set_column(samples.schema.get_field_index("token_ids"), "token_ids", column)


def test_operations_of_the_raw_stream_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    loader = HuggingFace(path=str(model_path()), dtype="float32", device="cpu", attention="eager")
    model, facts = load(loader, SilentReporter()), identify(loader).facts
    texts = [
        " ".join(f"{word}{(index * 7 + word) % 89}" for word in range(40)) for index in range(12)
    ]
    made = make_samples(texts, group=["ab"[index % 2] for index in range(12)])
    ids = [[1 + number % 900 for number in row] for row in made["samples"]["token_ids"].to_pylist()]
    column = pa.array(ids, made["samples"].schema.field("token_ids").type)
    made["samples"] = made["samples"].set_column(4, "token_ids", column)
    params = PARTS["compare.residual"].params.model_validate({**TWO, "layers": "0-1"})
    with FlopCounterMode(display=False) as counted:
        taken(PARTS["compare.residual"].run(make_work(params, made, model=model)))
    cost = cost_of("compare.residual", params, load_of(made, facts))
    assert cost.flops == pytest.approx(counted.get_total_flops(), rel=0.15)
