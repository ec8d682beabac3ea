"""The store without accidents: opening and refusing, committing, reading back, hashing,
cleaning.
"""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from toolkit.errors import BadInput, DataError, StoreError, StoreNotUsable
from toolkit.tables import DATA_TABLES, STORE_FORMAT, TABLES, arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, folder, open_store


def meta(*samples: str, number: float | None = 1.0) -> pa.Table:
    rows = [{"sample": sample, "key": "k", "number": number, "string": None} for sample in samples]
    return pa.Table.from_pylist(rows, schema=arrow_schema("sample_meta"))


def example(name: str) -> pa.Table:
    """Two rows of any table, with every kind of type filled and nullable columns null once."""
    values: dict[str, list[Any]] = {
        "string": ["it's", "é"],
        "bool": [True, False],
        "list<string>": [["a", ""], []],
        "list<struct<name:string,start:uint32,end:uint32>>": [
            [{"name": "n", "start": 0, "end": 4_000_000_000}],
            [],
        ],
    }
    groups = TABLES["comparisons"].columns["groups"]
    counts = ("samples", "units", "prompts", "clusters", "not_measured", "shared")
    values[groups] = [[{"name": "a", **dict.fromkeys(counts, 7)}], []]
    columns = {}
    for column, kind in TABLES[name].columns.items():
        plain = kind.rstrip("?")
        result = values.get(plain) or _examples(plain)
        columns[column] = [result[0], None] if kind.endswith("?") else result
    return pa.table(columns, schema=arrow_schema(name))


def _examples(kind: str) -> list[Any]:
    """Two values of a type of numbers, of a list of them, or of a list of records."""
    fields = re.fullmatch(r"list<struct<(.*)>>", kind)
    if fields is None:
        return [[1, 2], []] if kind.startswith("list") else [1, 2]
    pairs = (field.split(":") for field in fields[1].split(","))
    return [[{name: "s" if type_ == "string" else 3 for name, type_ in pairs}], []]


def orphan(store: Store, key: str, rows: pa.Table) -> None:
    """What a kill between the data and the ledger leaves."""
    store.database.append(
        "sample_meta",
        rows.append_column(pa.field("step", pa.string(), False), pa.array([key] * len(rows))),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "a store", create=True)


# --- opening ---


def printed(code: str) -> str:
    """What an interpreter of its own prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    ).stdout


def test_import_is_light() -> None:
    code = (
        "import sys, toolkit_store; print([m for m in ('lancedb', 'pyarrow', 'torch') if m in "
        "sys.modules])"
    )
    assert printed(code).strip() == "[]"


@pytest.mark.slow
def test_lancedb_comes_without_its_network_client_which_is_whole_for_others() -> None:
    code = """
import sys
from toolkit_store.lance import lancedb
lancedb().connect
print([name for name in sys.modules if name.startswith("lance_namespace_urllib3_client.api")])
import lance_namespace, lance_namespace_urllib3_client as client
print(client.DataApi.__name__, client.CreateTableRequest is lance_namespace.CreateTableRequest)
"""
    assert printed(code).splitlines() == ["[]", "DataApi True"]


@pytest.mark.slow
def test_lancedb_comes_whole_where_it_does_not_come_without_its_client() -> None:
    code = """
import sys
from contextlib import contextmanager
from toolkit_store import lance
tried = []
@contextmanager
def broken():
    tried.append(1)
    sys.modules["lance_namespace"] = None
    try:
        yield
    finally:
        del sys.modules["lance_namespace"]
lance._without_client = broken
print(len(tried), lance.lancedb().connect.__name__, len(tried))
"""
    assert printed(code).split() == ["0", "connect", "1"]


def test_a_question_does_not_ask_the_table_for_its_columns(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(make_step("k"), {"sample_meta": meta("a", "b")})
    asked: list[Any] = []
    monkeypatch.setattr(
        "lancedb.table.AsyncTable.schema", lambda table: asked.append(table) or _never()
    )
    assert store.read("sample_meta", ["k"])["sample"].to_pylist() == ["a", "b"]
    assert asked == []


async def _never() -> None:
    pytest.fail("it asked")


def test_made_store_is_a_marked_folder_and_opens_again(store: Store) -> None:
    marker = json.loads((store.folder / "toolkit-store.json").read_text())
    assert marker["format"] == STORE_FORMAT
    assert marker["made_by"].startswith("sae-toolkit ")
    assert open_store(store.uri).folder == store.folder


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreNotUsable, match=r"There is no store at .*/nowhere\. Check --store"):
        open_store(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_foreign_names_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(
        StoreNotUsable,
        match=r"is not a store: it has no toolkit-store.json and holds thesis\.tex\. Give --store",
    ):
        open_store(tmp_path, create=True)


def test_unfinished_making_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "toolkit-store.json.123").write_text("{")
    assert open_store(tmp_path, create=True).steps() == []


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(StoreNotUsable, match="is a file"):
        open_store(tmp_path / "f", create=True)
    with pytest.raises(StoreNotUsable, match="cannot be"):
        open_store(tmp_path / "f" / "below", create=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "no whole number under 'format'"),
        ('{"format": true}', "found True"),
        (
            f'{{"format": {STORE_FORMAT + 1}}}',
            rf"has format {STORE_FORMAT + 1}; .* Upgrade: python -m pip install -U sae-toolkit",
        ),
        ('{"format": 0}', r"has format 0; .* Give --store a new folder"),
    ],
)
def test_bad_marker(store: Store, text: str, message: str) -> None:
    (store.folder / "toolkit-store.json").write_text(text)
    with pytest.raises(StoreNotUsable, match=message):
        open_store(store.folder)


def test_read_only_medium(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit(make_step("k"), {"sample_meta": meta("a")})

    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(folder, "_probe", refuse)
    with pytest.raises(StoreNotUsable, match="cannot be written to: Read-only file system"):
        open_store(store.folder)
    reader = open_store(store.folder, read_only=True)
    assert reader.read("sample_meta", ["k"]).equals(meta("a"))
    with pytest.raises(StoreError, match="opened for reading only"):
        reader.commit(make_step("l"), {})


# --- committing and reading ---


@pytest.mark.parametrize("name", [name for name in DATA_TABLES if not TABLES[name].derived])
def test_every_table_comes_back_as_declared(store: Store, name: str) -> None:
    assert store.read(name, ["k"]).equals(example(name).slice(0, 0))
    assert store.commit(make_step("k"), {name: example(name)})
    result = store.read(name, ["k"])
    assert result.schema.equals(arrow_schema(name))
    key = [(column, "ascending") for column in TABLES[name].key]
    assert result.equals(example(name).sort_by(key))


def test_commit_happens_once_and_is_entered(store: Store) -> None:
    row = make_step("it's", first=3, last=9, index=7)
    assert store.commit(row, {"sample_meta": [meta("b"), meta("a")], "samples": []})
    assert not store.commit(row, {"sample_meta": meta("c")})
    assert store.has(["it's", "other"]) == {"it's"}
    assert store.steps() == [
        make_step("it's", first=3, last=9, index=7, tables={"sample_meta": 2, "samples": 0})
    ]
    assert store.read("sample_meta", ["it's"], ["sample"]).to_pydict() == {"sample": ["a", "b"]}


def test_thousands_of_rows_and_keys(store: Store) -> None:
    store.commit(make_step("k"), {"sample_meta": meta(*(f"{i:05}" for i in range(12_000)))})
    assert store.read("sample_meta", [*(f"none{i}" for i in range(1200)), "k"]).num_rows == 12_000


def test_steps_are_found_by_key_experiment_and_stage(store: Store) -> None:
    for key, experiment, stage in (("1", "x", "s"), ("2", "x", "t"), ("3", "y", "s")):
        store.commit(make_step(key, experiment=experiment, stage=stage), {})
    assert [row.key for row in store.steps(experiment="x")] == ["1", "2"]
    assert [row.key for row in store.steps(["2", "3"], stage="s")] == ["3"]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "sample_metas",
            {},
            r"table 'sample_metas': it is not declared\. Did you mean 'sample_meta'",
        ),
        ("steps", {}, "cannot write to table 'steps'"),
        ("postings", {}, "cannot write to table 'postings': the store derives it"),
        ("sample_meta", {"sample": ["a"], "keys": ["k"]}, "no column 'keys'. Did you mean 'key'"),
        ("sample_meta", {"sample": ["a"]}, "column 'key': the column is missing"),
        (
            "sample_meta",
            {"sample": [1], "key": ["k"]},
            "column 'sample': the type is int64, it must be string",
        ),
        (
            "sample_meta",
            {"sample": ["a", None], "key": ["k", "l"]},
            "column 'sample': there are nulls",
        ),
        (
            "sample_meta",
            {"sample": ["a", "a"], "key": ["k", "k"]},
            r"sample='a', key='k' occurs 2 times in one step \(1 such",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    store: Store, name: str, rows: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        store.commit(make_step("k"), {name: pa.table(rows)})
    assert store.has(["k"]) == set()
    assert store.orphans() == {}


def test_harmless_differences_are_evened_out(store: Store) -> None:
    rows = pa.table(
        {"key": pa.array(["k"], pa.large_string()), "number": pa.nulls(1), "sample": ["a"]}
    )
    store.commit(make_step("k"), {"sample_meta": rows})
    assert store.read("sample_meta", ["k"]).equals(meta("a", number=None))


def test_null_inside_a_list_is_refused(store: Store) -> None:
    rows = example("activations").to_pylist()
    rows[0]["features"] = [None]
    bare = pa.schema(
        [
            field if field.name != "features" else pa.field("features", pa.list_(pa.uint32()))
            for field in arrow_schema("activations")
        ]
    )
    with pytest.raises(DataError, match="column 'features': there are nulls"):
        store.commit(make_step("k"), {"activations": pa.Table.from_pylist(rows, schema=bare)})


def test_reading_an_unknown_column(store: Store) -> None:
    with pytest.raises(BadInput, match=r"no column 'sampel'\. Did you mean 'sample'"):
        store.read("sample_meta", ["k"], ["sampel"])


def test_orphans_are_unseen_replaced_and_cleaned(store: Store) -> None:
    orphan(store, "k", meta("cut off"))
    orphan(store, "gone", meta("never finished", "nor this"))
    assert store.read("sample_meta", ["k", "gone"]).num_rows == 0
    assert store.orphans() == {"sample_meta": 3}
    store.commit(make_step("k"), {"sample_meta": meta("a")})
    assert store.clean().rows == {"sample_meta": 2}
    assert store.orphans() == {}
    assert store.read("sample_meta", ["k", "gone"]).equals(meta("a"))


@pytest.mark.slow
def test_clean_gives_back_files_and_changes_nothing_else(store: Store) -> None:
    keys = [f"k{i}" for i in range(70)]  # past the joining of small files
    with store.writer():
        for key in keys:
            store.commit(make_step(key), {"sample_meta": meta(key)})
    before, size = store.fingerprint(keys), sum(store.sizes().values())
    report = store.clean()
    assert report.files > 0
    assert report.bytes == size - sum(store.sizes().values()) > 0
    assert store.fingerprint(keys) == before


def test_fingerprint_sees_values_and_no_order(tmp_path: Path) -> None:
    prints = []
    for i, tables in enumerate(
        ([meta("a"), meta("b")], [meta("b"), meta("a")], [meta("a"), meta("b", number=2.0)])
    ):
        store = open_store(tmp_path / str(i), create=True)
        store.commit(make_step("k", committed_at=str(i)), {"sample_meta": tables})
        prints.append(store.fingerprint(["k"]))
    assert prints[0] == prints[1] != prints[2]
    assert list(prints[0]) == ["sample_meta"]


def test_run_states_are_the_latest(store: Store) -> None:
    store.record_run(run="b", name="n", state="running", at="1", total=2)
    store.record_run(run="a", name="n", state="running", at="2")
    last = store.record_run(run="b", name="n", state="done", at="3", done=2, total=2, steps=["k"])
    assert last.seq == 2
    assert [(row.run, row.state) for row in store.run_states()] == [("a", "running"), ("b", "done")]
    assert store.run_states("b") == [last]
    assert store.run_states("c") == []


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc'"),
            st.lists(st.sampled_from("xyz"), unique=True),
            st.sampled_from(["commit", "cut", "clean"]),
        )
    )
)
def test_store_behaves_as_a_dict(actions: list[tuple[str, list[str], str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        store, model = open_store(place, create=True), dict[str, list[str]]()
        for key, samples, action in actions:
            if action == "commit":
                assert store.commit(make_step(key), {"sample_meta": meta(*samples)}) == (
                    key not in model
                )
                model.setdefault(key, samples)
            elif action == "cut" and key not in model and samples:
                orphan(store, key, meta(*samples))
            elif action == "clean":
                store.clean()
        assert store.has("abc'") == set(model)
        for key in "abc'":
            assert store.read("sample_meta", [key])["sample"].to_pylist() == sorted(
                model.get(key, [])
            )


# --- rows that several steps write ---


def spaces(*ids: str, **fields: object) -> pa.Table:
    fixed = {
        "model": "m",
        "revision": "r",
        "hookpoint": "resid_post.1",
        "sae": "s",
        "sae_hash": "h",
        "recipe": "j",
        "width": 4,
        "address": "m/resid_post.1/s",
    }
    rows = [{"space": name, **fixed, **fields} for name in ids]
    return pa.Table.from_pylist(rows, schema=arrow_schema("spaces"))


def stored(store: Store) -> list[tuple[str, str]]:
    """What another program finds in the table: space and step."""
    rows = store.database.rows("spaces").to_pylist()
    return sorted((row["space"], row["step"]) for row in rows)


def test_a_space_has_one_row_however_many_steps_write_it(store: Store) -> None:
    store.commit(make_step("k"), {"spaces": spaces("A", "B")})
    store.commit(make_step("l"), {"spaces": spaces("B", "C")})
    again = open_store(store.folder)
    again.commit_many([(make_step(key), {"spaces": spaces("A", "D")}) for key in ("m", "n")])
    assert stored(store) == [("A", "k"), ("B", "k"), ("C", "l"), ("D", "m")]
    for keys, ids in (("k", "AB"), ("l", "BC"), ("m", "AD"), ("n", "AD"), ("kln", "ABCD")):
        result = again.read("spaces", keys)
        assert result["space"].to_pylist() == list(ids)
        assert result.column_names == list(TABLES["spaces"].columns)
    assert [row.tables for row in again.steps("n")] == [{"spaces": 2}]
    assert again.orphans() == {}
    assert again.check().problems == []
    again.clean()
    assert again.read("spaces", "n")["space"].to_pylist() == ["A", "D"]


def test_a_row_that_says_something_else_is_what_its_step_reads_back(store: Store) -> None:
    store.commit(make_step("k"), {"spaces": spaces("A")})
    store.commit(make_step("l"), {"spaces": spaces("A", address="elsewhere")})
    assert store.read("spaces", "k")["address"].to_pylist() == ["m/resid_post.1/s"]
    assert store.read("spaces", "l")["address"].to_pylist() == ["elsewhere"]
    assert store.check().problems == []


def test_a_row_of_a_step_that_was_cut_off_stands_for_no_other(store: Store) -> None:
    cut_off = spaces("A").append_column(pa.field("step", pa.string(), False), pa.array(["gone"]))
    store.database.append("spaces", cut_off)
    store.commit(make_step("k"), {"spaces": spaces("A")})
    assert store.read("spaces", "k")["space"].to_pylist() == ["A"]
    assert store.orphans() == {"spaces": 1}
    store.clean()
    assert stored(store) == [("A", "k")]
    assert store.check().problems == []
