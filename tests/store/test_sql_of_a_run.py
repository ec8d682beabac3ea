"""SQL through the store itself: what is read of its tables, which rows of the store's own are
there, and any text, also by command.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner

import toolkit_store
from tests.store.statements import generated
from toolkit._cli import query
from toolkit.errors import BadInput, StoreError
from toolkit.tables import DATA_TABLES, TABLES, arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import RunView, open_store
from toolkit_store.database import Database
from toolkit_store.index.projections import project
from toolkit_store.query.committed_rows import matching
from toolkit_store.query.similar import slices

SPACE = {
    "model": "m",
    "revision": "1",
    "hookpoint": "resid_post.1",
    "sae": "s",
    "recipe": "relu",
    "width": 8,
}
NAMES = ("A", "it's", "")


def rows(name: str, result: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(result), schema=arrow_schema(name))


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    """A finished run with an index and projections; two more steps belong to no run of interest."""
    store = open_store(tmp_path_factory.mktemp("sql") / "store", create=True)
    rng = random.Random(3)
    places = [(space, f"s{number % 5}", number) for space in NAMES for number in range(12)]
    activations = [
        {
            "space": space,
            "sample": sample,
            "position": at,
            "features": [at % 3, 3],
            "values": [0.5, 1.0],
        }
        for space, sample, at in places
    ]
    features = [
        {
            "space": rng.choice(NAMES),
            "feature": number,
            "stat": rng.choice(("d", "q")),
            "group": rng.choice(("a", "b")),
            "number": 1.0 * number if number % 3 else None,
            "text": rng.choice((None, "x", "A")),
        }
        for number in range(40)
    ]
    spaces = [
        {**SPACE, "space": name, "sae_hash": f"hash of {name}", "address": f"m/{name}"}
        for name in NAMES
    ]
    for key, some in (
        ("k", activations[:20]),
        ("l", activations[20:]),
        ("foreign", activations[:3]),
    ):
        store.commit(
            make_step(key),
            {"activations": rows("activations", some), "spaces": rows("spaces", spaces)},
        )
    store.commit(make_step("f"), {"features": rows("features", features)})
    for steps in (["k", "l"], ["foreign"]):
        store.index(steps)
    for number, name in enumerate(("A", "not of the run")):
        project(store, name, f"hash of {name}", 8, slices(np.eye(8, dtype=np.float32) + number))
    store.record_run(run="r", name="n", state="done", steps=["k", "l", "f"])
    return toolkit_store.open(store.folder).run()


# --- the store's own tables ---


def test_the_tables_that_the_store_derives_answer_for_the_run_alone(view: RunView) -> None:
    assert view.sql("SELECT sum(count) AS n FROM postings")["n"].to_list() == [72]
    fired = view.sql("SELECT fired FROM postings WHERE space = 'A' AND feature = 3")
    assert fired["fired"].to_list() == [5]
    looked = view.sql("SELECT space, looked_at, samples FROM feature_index ORDER BY space")
    assert looked.rows() == [("", 12, 5), ("A", 12, 5), ("it's", 12, 5)]
    assert view.sql("SELECT sample FROM sample_index ORDER BY number")["sample"].to_list() == [
        "s0",
        "s1",
        "s2",
        "s3",
        "s4",
    ]
    assert view.sql("SELECT space, first, dims FROM projections").rows() == [("A", 0, 8)]


def test_while_a_run_goes_on_nothing_is_derived_yet(view: RunView) -> None:
    going = RunView(view.store, view.state, [step for step in view.steps if step.key == "k"])
    assert going.sql("SELECT count(*) AS n FROM postings")["n"].to_list() == [0]
    assert going.sql("SELECT count(*) AS n FROM activations")["n"].to_list() == [20]


# --- what is read ---


@pytest.fixture
def filters(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What is asked of LanceDB: the filter without the steps, and the columns."""
    asked: list[tuple[str, list[str]]] = []
    batches = Database.batches

    def spy(
        self: Database, name: str, where: str | None = None, columns: Sequence[str] | None = None
    ) -> Any:
        asked.append((str(where).partition(" AND ")[2], list(columns or ())))
        return batches(self, name, where, columns)

    monkeypatch.setattr(Database, "batches", spy)
    return asked


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("sample = 's1'", "(`sample` IN ('s1'))"),
        ("'s1' = sample AND position > 3", "(`sample` IN ('s1'))"),
        (
            "space = 'it''s' AND (sample = 's1' AND position = 3)",
            "(`position` IN (3)) AND (`sample` IN ('s1')) AND (`space` IN ('it''s'))",
        ),
        ("sample IN ('s1', 's2')", "(`sample` IN ('s1', 's2'))"),
        ("sample = 's1' OR space = 'A'", ""),
        ("NOT sample = 's1'", ""),
        ("sample <> 's1'", ""),
        ("sample NOT IN ('s1', 's2')", ""),
        ("position = 3000000000", ""),
        ("sample = space", ""),
        ("sample = NULL", ""),
        ("sample || 'x' = 's1x'", ""),
    ],
)
def test_what_has_to_hold_is_handed_to_the_store(
    view: RunView, filters: list[tuple[str, list[str]]], where: str, expected: str
) -> None:
    result = view.sql(f"SELECT position FROM activations WHERE {where} ORDER BY space, position")
    assert {" AND ".join(sorted(asked.split(" AND "))) for asked, _ in filters} <= {expected}
    whole = pl.DataFrame(view.store.read("activations", ["k", "l"]))
    with pl.SQLContext(t=whole, eager=True) as context:
        assert result.equals(
            context.execute(f"SELECT position FROM t WHERE {where} ORDER BY space, position")
        )


def test_what_is_handed_on_uses_the_index(view: RunView) -> None:
    for names in (["s1"], ["s1", "s2"]):
        plan = view.store.database.plan(
            "activations", matching({"sample": names, "space": ["A"]}), ["position"]
        )
        assert "ScalarIndexQuery" in plan
    assert (
        matching({"space": ["it's"], "feature": [1, 2]})
        == "(`space` IN ('it''s')) AND (`feature` IN (1, 2))"
    )


def test_only_the_columns_asked_for_are_read(
    view: RunView, filters: list[tuple[str, list[str]]]
) -> None:
    view.sql("SELECT max(position) FROM activations WHERE sample = 's1'")
    assert [sorted(columns) for _, columns in filters] == [["position", "sample"]]


def test_no_more_rows_than_are_wanted_are_read(
    view: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    batches = Database.batches

    def one_by_one(self: Database, *asked: Any) -> Iterator[pa.Table]:
        nonlocal read
        for batch in batches(self, *asked):
            for index in range(batch.num_rows):
                read += 1
                yield batch.slice(index, 1)

    monkeypatch.setattr(Database, "batches", one_by_one)
    assert view.sql("SELECT * FROM activations", 3).height == 3
    assert 0 < read < 36
    assert view.sql("SELECT * FROM spaces LIMIT 2").height == 2
    assert view.sql("SELECT * FROM spaces", 2).height == 2


def test_every_column_can_be_compared(view: RunView) -> None:
    for name in DATA_TABLES:
        for column, kind in TABLES[name].columns.items():
            if kind.rstrip("?") in ("string", "int32", "uint32", "int64"):
                value = "'zz'" if kind.startswith("string") else "7654321"
                assert view.sql(f'SELECT * FROM {name} WHERE "{column}" = {value}').is_empty()


COMPARED = (
    "space = 'A'",
    "space = 'it''s'",
    "space = ''",
    "stat = 'd'",
    "stat IN ('d', 'z')",
    "text = 'x'",
    "text IS NULL",
)
COMPARED += (
    "\"group\" = 'b'",
    "feature = 4",
    "4 = feature",
    "feature IN (3, 4, 5, 6)",
    "feature > 7",
    "number = 4",
    "space = text",
)
COMPARED += (
    "feature = -1",
    "feature = 4.0",
    "feature = 1e30",
    "text <> 'x'",
    "feature = '4'",
    "NOT text = 'x'",
    "true",
    "number = feature",
)


@pytest.mark.slow
def test_any_where_has_the_answer_of_a_frame_in_memory(view: RunView) -> None:
    rng = random.Random(8)
    whole = pl.DataFrame(view.store.read("features", ["f"]))
    some = 0
    for _ in range(150):
        where = rng.choice(COMPARED)
        for _ in range(rng.randint(0, 3)):
            where = (
                f"({where}) {rng.choice(('AND', 'AND', 'OR', 'AND NOT'))} {rng.choice(COMPARED)}"
            )
        text = f"SELECT feature FROM {{}} WHERE {where} ORDER BY feature"
        try:
            with pl.SQLContext(t=whole, eager=True) as context:
                expected = context.execute(text.format("t"))
        except pl.exceptions.PolarsError:
            with pytest.raises(BadInput, match="polars cannot run this statement"):
                view.sql(text.format("features"))
            continue
        some += expected.height
        assert view.sql(text.format("features")).equals(expected), where
    assert some > 200


def test_what_the_store_cannot_read_is_told_as_such(
    view: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Database, *asked: Any) -> Any:
        raise StoreError("Could not read table 'activations'")

    monkeypatch.setattr(Database, "batches", broken)
    with pytest.raises(StoreError, match="Could not read table 'activations'"):
        view.sql("SELECT * FROM activations")


# --- any text ---


def test_generated_statements_end_well_at_the_store(
    view: RunView, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark.csv"
    mark.write_text("secret\nxyzzy\n")
    before = view.store.fingerprint(["k", "l", "f"])
    answered = 0
    for text in generated(6, 1_000):
        try:
            result = view.sql(text.replace("{mark}", str(mark)))
        except BadInput:
            continue
        answered += 1
        assert "xyzzy" not in str(result.to_dicts())
    assert answered > 20
    assert view.store.fingerprint(["k", "l", "f"]) == before
    assert view.store.check().problems == []
    assert list(tmp_path.iterdir()) == [mark]
    assert capfd.readouterr().err == ""


def test_generated_statements_end_well_at_the_command(view: RunView, tmp_path: Path) -> None:
    mark = tmp_path / "mark.csv"
    mark.write_text("secret\nxyzzy\n")
    codes = []
    for text in (*generated(7, 60), "SELECT 1 AS x", "SELECT space FROM spaces"):
        args = [
            "sql",
            "--json",
            "--store",
            str(view.store.folder),
            "--",
            text.replace("{mark}", str(mark)),
        ]
        done = CliRunner().invoke(query.command, args)
        assert done.exception is None or isinstance(done.exception, BadInput), text
        assert "xyzzy" not in done.output
        codes.append(done.exit_code)
    assert codes[-2:] == [0, 0]
    assert any(codes)
