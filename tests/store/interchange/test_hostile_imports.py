"""Imports that would do harm: each is refused in one sentence, and nothing is written."""

from __future__ import annotations

import gzip
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fuzzing import FUZZ_COUNT, LONG
from tests.store.interchange.made import EXAMPLE, make, opened
from toolkit.errors import BadInput, DataError, ToolkitError
from toolkit.files import json_lines
from toolkit.files.local import sha256_of
from toolkit.ledger import key_of
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store
from toolkit_store.interchange import (
    ATTACHED,
    FORMATS,
    RunTables,
    _incoming,
    _parquet,
    export_run,
    import_run,
    run_tables,
)
from toolkit_store.write.rows import digest


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- parquet: the ledger is not believed ---


@pytest.fixture
def exported(run: RunTables, tmp_path: Path) -> Path:
    export_run(run, "parquet", tmp_path / "out")
    return tmp_path / "out"


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = folder / "toolkit-run.json"
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))


def refused(folder: Path, tmp_path: Path, match: str) -> None:
    target = opened(tmp_path / "memory" / "new")
    before = {name for name in tree(tmp_path) if not name.startswith("out/")}
    with pytest.raises(ToolkitError, match=match):
        import_run(target, "parquet", folder)
    assert target.ledger == {}
    assert target.runs == {}
    assert {name for name in tree(tmp_path) if not name.startswith("out/")} == before


PATHS = ("../../x", "/tmp/x", "", ".", "..", "a/b", "a\x1b[31m", "x" * 999)


@pytest.mark.parametrize("run_id", PATHS)
def test_the_run_of_an_export_names_no_path(exported: Path, tmp_path: Path, run_id: str) -> None:
    forge(exported, lambda content: content["run"].update(run=run_id))
    refused(exported, tmp_path, "is not an id")


@pytest.mark.parametrize("name", [*PATHS[:5], *PATHS[6:], "a//b", "/a"])
@pytest.mark.parametrize("field", ["name", "experiment", "stage", "part"])
def test_names_of_an_export_are_names(
    exported: Path, tmp_path: Path, field: str, name: str
) -> None:
    def change(content: dict[str, Any]) -> None:
        record = content["run"] if field == "name" else content["steps"][0]
        record[field] = name

    forge(exported, change)
    refused(exported, tmp_path, "is not an id")


def test_rows_under_the_key_of_another_step_are_refused(exported: Path, tmp_path: Path) -> None:
    other = key_of('{"another":"step"}')

    def change(content: dict[str, Any]) -> None:
        content["steps"][0]["key"] = other
        content["run"]["steps"] = [other]

    forge(exported, change)
    refused(exported, tmp_path, "its key is not the hash of its material")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda content: content["steps"][0].update(index="x"), r"step 0: index: .*valid integer"),
        (lambda content: content["steps"][0].pop("part"), "step 0: part: Field required"),
        (lambda content: content["run"].pop("state"), "'run': state: Field required"),
        (lambda content: content.update(steps=7), "'steps' must be a list"),
        (lambda content: content.update(tables=[]), "'tables' must name the tables"),
        (lambda content: content["run"].update(steps=[]), "the run does not list it"),
        (
            lambda content: content["steps"][0]["tables"].update(samples=99),
            r"99 rows in table 'samples', and samples\.parquet 2",
        ),
        (
            lambda content: content["steps"][0]["tables"].update({"../x": 1}),
            r"rows in table '\.\./x', which the export lacks",
        ),
    ],
)
def test_a_ledger_that_does_not_fit_is_refused(
    exported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], match: str
) -> None:
    forge(exported, change)
    refused(exported, tmp_path, match)


def test_an_import_changes_no_run_and_no_step_that_is_there(tmp_path: Path) -> None:
    run = make(tmp_path / "memory" / "store", EXAMPLE)
    export_run(run, "parquet", tmp_path / "out")
    assert import_run(run.store, "parquet", tmp_path / "out") == run.id  # the very same
    assert [step.origin for step in run_tables(run.store, run.id).steps] == [""]
    forge(tmp_path / "out", lambda content: content["run"].update(name="another"))
    with pytest.raises(
        BadInput,
        match=r"has a run run-1 already, and an import never changes a "
        r"run",
    ):
        import_run(run.store, "parquet", tmp_path / "out")
    assert run_tables(run.store, run.id).row == run.row


def test_imported_steps_are_named_by_check(tmp_path: Path) -> None:
    export_run(make(tmp_path / "memory" / "store", EXAMPLE), "parquet", tmp_path / "out")
    store = open_store(tmp_path / "new", create=True)
    import_run(store, "parquet", tmp_path / "out")
    (note,) = store.check().notes
    assert note.startswith("1 step was imported, not computed here: parquet ")


# --- numbers that are none ---


def rewritten(
    folder: Path,
    table: str,
    change: Callable[[list[dict[str, Any]]], object],
    *,
    signed: bool = True,
) -> None:
    """The table's file with other rows, and the index with its hashes: a forger can do both."""
    path = folder / f"{table}.parquet"
    result = pq.read_table(path)
    rows = result.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=result.schema), path)

    def sign(content: dict[str, Any]) -> None:
        content["tables"][table]["sha256"] = sha256_of(path)
        for step in content["steps"]:
            if signed and step["tables"].get(table):
                step["rows_sha256"][table] = digest(_parquet._batches(path, step["key"]))

    forge(folder, sign)


def test_rows_are_compared_with_the_hash_of_their_step(exported: Path, tmp_path: Path) -> None:
    """Also where the hash of the whole file was forged with them."""
    rewritten(
        exported, "activations", lambda rows: rows[0]["values"].__setitem__(0, 0.0625), signed=False
    )
    refused(exported, tmp_path, r"another hash than that of its rows in activations\.parquet")


def test_a_step_without_a_hash_of_its_rows_is_refused(exported: Path, tmp_path: Path) -> None:
    forge(exported, lambda content: content["steps"][0].pop("rows_sha256"))
    refused(exported, tmp_path, "has no hash of its rows")


@pytest.mark.slow
def test_row_groups_that_unpack_to_too_much_are_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten million equal values take a few hundred bytes of a file."""

    def bomb(rows: list[dict[str, Any]]) -> None:
        rows[0]["values"] = [1.0] * 10_000_000

    rewritten(exported, "activations", bomb, signed=False)
    assert (exported / "activations.parquet").stat().st_size < 100_000
    refused(exported, tmp_path, r"column 'values' has a list of 10,000,000 values; at most")
    monkeypatch.setattr(_parquet, "MAX_VALUES", 1_000_000)
    refused(
        exported, tmp_path, r"row group 0 has 10,000,00\d values in a column; at most 1,000,000"
    )
    monkeypatch.setattr(_parquet, "MAX_BYTES", 10)
    refused(exported, tmp_path, r"row group 0 has [\d,]+ bytes unpacked; at most 10 are read")


def test_a_step_of_many_rows_is_several_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parquet, "ROWS_OF_A_GROUP", 1)
    run = make(tmp_path / "memory" / "store", EXAMPLE)
    export_run(run, "parquet", tmp_path / "out")
    assert pq.ParquetFile(tmp_path / "out" / "activations.parquet").num_row_groups > 1
    store = open_store(tmp_path / "new", create=True)
    import_run(store, "parquet", tmp_path / "out")
    assert run_tables(store, run.id).read("activations") == run.read("activations")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: rows[0]["values"].__setitem__(0, np.nan), "is not a finite number"),
        (lambda rows: rows[0]["values"].__setitem__(0, np.inf), "is not a finite number"),
        (lambda rows: rows[0].update(position=-1), "a position is negative"),
        (lambda rows: rows[0]["features"].__setitem__(0, 12), "there is no feature 12"),
        (lambda rows: rows[0].update(sample=""), "cannot be a name"),
        (lambda rows: rows[0].update(sample="a\x1b]0;x"), "cannot be a name"),
        (lambda rows: rows[0]["values"].append(1.0), "different numbers of values and features"),
        (lambda rows: rows[0].update(space="unknown"), "table 'spaces' does not name it"),
    ],
)
def test_activations_that_are_invalid_are_refused(
    exported: Path, tmp_path: Path, change: Callable[[list[dict[str, Any]]], object], match: str
) -> None:
    rewritten(exported, "activations", change)
    refused(exported, tmp_path, match)


def archive(folder: Path, **arrays: Any) -> Path:
    base = {
        "activations": np.ones((2, 3), np.float32),
        "original_sentences": np.array(["a", "b"]),
        "sentence_indices": np.array([0, 1]),
        "token_positions": np.array([0, 0]),
        "layer": np.int64(3),
        "num_features": np.int64(3),
    }
    folder.mkdir(exist_ok=True)
    np.savez(folder / "x.npz", **{**base, **arrays})
    return folder


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"activations": np.full((2, 3), np.nan, np.float32)}, "not finite numbers"),
        ({"activations": np.full((2, 3), np.inf, np.float32)}, "not finite numbers"),
        ({"activations": np.ones((2, 3), np.complex64)}, "complex64; it must hold real numbers"),
        ({"activations": np.full((2, 3), 1e300)}, "too large for float32"),
        ({"token_positions": np.array([0, 1 << 40])}, r"holds 0 to 1099511627776; allowed"),
        ({"token_positions": np.array([0.5, 1.0])}, "must hold whole numbers"),
        ({"token_positions": np.array([0, -1])}, "a position is negative"),
        ({"layer": np.int64(-1)}, "there is no layer -1"),
        ({"layer": np.array("x")}, "must hold whole numbers"),
        ({"num_features": np.int64(-3)}, "cannot be used|wanted"),
    ],
)
def test_archives_that_are_invalid_are_refused(
    tmp_path: Path, arrays: dict[str, Any], match: str
) -> None:
    target = opened(tmp_path / "memory" / "new")
    with pytest.raises(ToolkitError, match=match):
        import_run(target, "rows", archive(tmp_path / "in", **arrays), model="m")
    assert target.ledger == {}


# --- bombs ---


def test_an_archive_that_unpacks_to_more_than_fits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_incoming, "MAX_BYTES", 1000)
    folder = archive(tmp_path / "in", activations=np.zeros((2, 3000), np.float32))
    with pytest.raises(DataError, match=r"more than 1,000 bytes unpacked"):
        import_run(opened(tmp_path / "memory" / "new"), "rows", folder, model="m")


def test_an_array_whose_header_promises_more_than_there_is(tmp_path: Path) -> None:
    folder = archive(tmp_path / "in")
    with zipfile.ZipFile(folder / "x.npz", "a") as file:
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"
        text = header.ljust(117).encode() + b"\n"
        file.writestr("huge.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(DataError, match="its header does not fit its content"):
        import_run(opened(tmp_path / "memory" / "new"), "rows", folder, model="m")


def test_a_line_without_an_end_is_refused(
    run: RunTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "MAX_LINE", 1000)
    path = tmp_path / "in" / "explanations" / "batch-0.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"x" * 100_000))
    with pytest.raises(DataError, match=r"batch-0\.jsonl\.gz:1: the line is longer than 1,000"):
        import_run(run.store, "neuronpedia", tmp_path / "in", run=run)


def test_a_number_of_thousands_of_digits_is_refused(run: RunTables, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "my.json").write_text("[" + "9" * 5000 + "]")
    with pytest.raises(DataError, match=r"my\.json cannot be read as JSON"):
        import_run(run.store, "lists", tmp_path / "in", run=run)


@pytest.mark.parametrize("form", FORMATS)
def test_paths_that_are_too_long_are_refused(run: RunTables, tmp_path: Path, form: str) -> None:
    long = tmp_path / ("x" * 300)
    with pytest.raises(ToolkitError, match=r"File name too long|There is no folder"):
        import_run(run.store, form, long, run=run if form in ATTACHED else None)
    with pytest.raises(BadInput, match=r"cannot be written to: File name too long"):
        export_run(run, form, long)


# --- anything at all ---


def spoil(content: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled, or values that JSON allows and nobody expects."""
    kind = draw.randrange(5)
    at, length = draw.randrange(len(content) + 1), draw.choice((1, 4, 64, 4000))
    if kind == 0 or not content:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at + length :]
    if kind == 2:
        return content[:at] + content[at : at + length] + content[at:]
    if kind == 3 and content[:1] in b"{[":
        return spoilt_json(content, draw)
    changed = bytearray(content)
    for _ in range(draw.choice((1, 8))):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


ODD: tuple[Any, ...] = (
    None,
    -1,
    1 << 70,
    1e308,
    "",
    "../..",
    [],
    {},
    [[]],
    True,
    "\ud800",
    "\x1b[2J",
)


def spoilt_json(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n")
    number = draw.randrange(len(lines))
    try:
        whole = json.loads(content)
    except ValueError:
        try:
            value = json.loads(lines[number])
        except ValueError:
            return content[: len(content) // 2]
        lines[number] = json.dumps(with_odd(value, draw)).encode()
        return b"\n".join(lines)
    return json.dumps(with_odd(whole, draw)).encode()


def with_odd(value: Any, draw: random.Random) -> Any:
    """The value with one place replaced."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        name = draw.choice(sorted(value))
        return {**value, name: with_odd(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        at = draw.randrange(len(value))
        return [*value[:at], with_odd(value[at], draw), *value[at + 1 :]]
    return draw.choice(ODD)


def fuzzed(run: RunTables, folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    """Exports with one file spoilt."""
    draw = random.Random(count)
    sound: dict[str, dict[str, bytes]] = {}
    for form in FORMATS:
        export_run(run, form, folder / form)
        sound[form] = tree(folder / form)
    for number in range(count):
        form = FORMATS[number % len(FORMATS)]
        name = draw.choice(sorted(sound[form]))
        content = sound[form][name]
        if name.endswith(".gz"):
            changed = gzip.compress(spoil(gzip.decompress(content), draw))
        else:
            changed = spoil(content, draw)
        (folder / form / name).write_bytes(changed)
        yield form, folder / form
        (folder / form / name).write_bytes(content)


@pytest.mark.parametrize("count", [60, pytest.param(FUZZ_COUNT, marks=LONG)])
def test_no_import_ends_in_a_traceback(
    run: RunTables, tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sentences: set[str] = set()
    taken = 0
    outside = {name for name in tree(tmp_path) if not name.startswith("memory/")}
    for form, folder in fuzzed(run, tmp_path / "exports", count):
        target = opened(tmp_path / "memory" / "target")
        attached = run_tables(run.store, run.id) if form in ATTACHED else None
        try:
            import_run(target, form, folder, run=attached)
            taken += 1
        except ToolkitError as error:
            sentences.add(str(error))
    assert [text for text in sentences if len(text) > 2000] == []
    new = {name for name in tree(tmp_path) if not name.startswith(("memory/", "exports/"))}
    assert new == outside
    assert len(sentences) > count // 6
    with capsys.disabled():
        print(f"\n{count} spoilt imports: {taken} taken, the others refused, no traceback")


def test_a_step_of_the_store_itself_is_not_imported(tmp_path: Path) -> None:
    """Rows of tables that the store derives come from nowhere else."""
    run = make(tmp_path / "memory" / "store", EXAMPLE)
    export_run(run, "parquet", tmp_path / "out")
    pq.write_table(
        arrow_schema("postings", step=True).empty_table(), tmp_path / "out" / "postings.parquet"
    )

    def change(content: dict[str, Any]) -> None:
        path = tmp_path / "out" / "postings.parquet"
        content["tables"]["postings"] = _parquet._facts(path)
        content["steps"][0]["tables"]["postings"] = 1

    forge(tmp_path / "out", change)
    store = open_store(tmp_path / "new", create=True)
    with pytest.raises(ToolkitError, match="postings"):
        import_run(store, "parquet", tmp_path / "out")
    assert store.steps() == []
    assert make_step("k").origin == ""
