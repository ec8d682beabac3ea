"""`toolkit query coactive`, `diff`, `similar` and `sql`, with and without the index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

import toolkit_store
from tests.toolkit.query.asked import (
    FIRED,
    SPACES,
    STAGES,
    ask,
    begin,
    commit,
    refused,
    rows,
    space,
)
from toolkit._cli import query
from toolkit._cli import store as store_command
from toolkit.errors import BadInput
from toolkit.files.local import content_digest
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store

# --- coactive, diff ---


def test_coactive_shows_what_fires_at_the_same_positions(folder: Path) -> None:
    (row,) = rows(folder, "coactive", "2/5")
    assert (row["address"], row["both"], row["count"], row["jaccard"]) == ("2/7", 1, 1, 0.25)
    assert "No other feature fires where 2/99 does" in ask(folder, "coactive", "2/99").stderr
    assert (
        "Table 'activations' has no rows in run toy-1"
        in ask(folder, "coactive", "2/5", run="toy-1").stderr
    )


def ask_diff(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(
        query.command, ["diff", *args, "--store", str(folder)], catch_exceptions=False
    )


def test_diff_compares_each_feature_with_itself(folder: Path) -> None:
    result = json.loads(ask_diff(folder, "part-1", "full", "--json").stdout)
    assert [(row["address"], row["count_a"], row["count_b"]) for row in result] == [("2/7", 1, 1)]
    assert result[0]["change"] == pytest.approx(1 / 3 - 1 / 2)
    assert json.loads(ask_diff(folder, "full-1", "full-1", "--json").stdout) == []
    assert (
        "in the same share of samples in run full-1 and in run full-1"
        in ask_diff(folder, "full-1", "full-1").stderr
    )
    assert (
        len(json.loads(ask_diff(folder, "part-1", "full-1", "--json", "--layer", "2").stdout)) == 1
    )


def test_diff_leaves_out_and_names_what_one_run_never_looked_at(folder: Path) -> None:
    message = ask_diff(folder, "part-1", "full-1").stderr
    assert "left out: m/gpt/resid_post.9/thin: run part-1 has no samples there" in message
    only = ask_diff(folder, "part-1", "full-1", "--space", "m/gpt/resid_post.9/thin", "--json")
    assert only.stdout == "[]\n"
    assert "no space in which they kept the same kind of positions" in only.stderr


def extracted(folder: Path, run: str, positions: list[int], **material: object) -> None:
    """A run that kept these tokens of one sample."""
    rows = [
        {"space": "s1", "sample": "a", "position": at, "features": [1], "values": [1.0]}
        for at in positions
    ]
    store = open_store(folder, create=True)
    tables = {"activations": rows, "spaces": SPACES[:1]}
    text = json.dumps({"params": material})
    store.commit(
        make_step(f"of-{run}", stage="extract", run=run, material=text),
        {
            name: pa.Table.from_pylist(result, schema=arrow_schema(name))
            for name, result in tables.items()
        },
    )
    begin(store, run, "2026-01-01", "done", [f"of-{run}"], STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("indexed", [False, True])
def test_diff_does_not_compare_all_tokens_with_the_last(tmp_path: Path, indexed: bool) -> None:
    folder = tmp_path / "store"
    extracted(folder, "every", [0, 1, 2], at="all")
    extracted(folder, "last", [2], at="last")
    extracted(folder, "span", [2], at={"span": "balance"})
    if indexed:
        for run in ("every", "last", "span"):
            open_store(folder).index([f"of-{run}"], run=run)
    for first, second in (("every", "last"), ("last", "every")):
        result = ask_diff(folder, first, second)
        assert result.stdout == ""
        assert "run every kept several tokens of each sample, run last one" in result.stderr
    assert (
        "run last kept the tokens 'at: \"last\"'; "
        'run span kept the tokens \'at: {"span": "balance"}\''
        in ask_diff(folder, "last", "span").stderr
    )
    assert "left out" not in ask_diff(folder, "last", "last").stderr
    with pytest.raises(BadInput, match="cannot be compared in space 's1': run every kept several"):
        toolkit_store.open(folder).diff("every", "last", "s1")


@pytest.mark.parametrize("run", ["begun-1", "begun-2"])
def test_diff_of_a_run_that_goes_on_is_about_what_its_journal_names(begun: Path, run: str) -> None:
    result = json.loads(ask_diff(begun, "part-1", "full-1", "--json").stdout)
    assert result
    assert json.loads(ask_diff(begun, run, "full-1", "--json").stdout) == result
    assert "partial: run" in ask_diff(begun, "full-1", run).stderr


def test_diff_refuses_runs_without_a_common_space(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no space 's9'"):
        ask_diff(folder, "part-1", "full-1", "--space", "s9")
    store = open_store(tmp_path / "new", create=True)
    for name, spaces, fires in (("one", SPACES[:1], FIRED[:1]), ("two", SPACES[1:2], FIRED[4:5])):
        commit(store, name, "extract", name, {"spaces": spaces, "activations": fires})
        begin(store, name, "2026-01-01", "done", [name], STAGES)
    message = (
        r"cannot be compared by their numbers\. run one: "
        r"m/gpt/resid_post\.2/sparse; "
        r"run two: "
        r"m/gpt/resid_post\.9/thin"
    )
    with pytest.raises(BadInput, match=message):
        ask_diff(store.folder, "one", "two")
    assert (
        "Table 'activations' has no rows in run toy-1" in ask_diff(folder, "full-1", "toy-1").stderr
    )


# --- similar ---


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose run names SAE files that are there: feature 1 points as 0 does, 2 elsewhere, 3
    the other way.
    """
    folder = tmp_path_factory.mktemp("decoders")
    at = folder / "saes" / "layer_2" / "width_4" / "average_l0_1"
    at.mkdir(parents=True)
    rows = np.array([[1, 0], [2, 0], [0, 1], [-1, 0]], np.float32)
    np.savez(at / "params.npz", W_dec=rows)
    name = "layer_2/width_4/average_l0_1"
    digest = content_digest({"params.npz": at / "params.npz"})
    known = space("s1", 2, name) | {"sae_hash": digest, "width": 4}
    store = open_store(folder / "store", create=True)
    commit(
        store,
        "k",
        "extract",
        "r",
        {"spaces": [known, known | {"space": "s2", "sae_hash": "other"}]},
    )
    begin(store, "r", "2026-01-01", "done", ["k"], STAGES)
    (folder / "specs").mkdir()
    manifest = {"run": "r", "stages": STAGES, "spec_path": str(folder / "specs" / "x.yaml")}
    manifest["spec"] = {"saes": {"uses": "gemma_scope", "with": {"path": "../saes", "width": "4"}}}
    (store.folder / "runs" / "r" / "manifest.json").write_text(json.dumps(manifest))
    return store.folder


def test_similar_reads_the_files_that_the_spec_names(decoders: Path) -> None:
    result = rows(decoders, "similar", "s1:0", run="r")
    prefix = "s1:"
    assert [(row["address"], row["cosine"]) for row in result] == [
        (f"{prefix}1", 1.0),
        (f"{prefix}2", 0.0),
        (f"{prefix}3", -1.0),
    ]
    assert (
        ask(decoders, "similar", "s1:0", "--k", "1", run="r").stderr == "1 of 3 rows; more: --k N\n"
    )


def test_similar_says_where_it_looked_and_what_to_do(decoders: Path, tmp_path: Path) -> None:
    refused(
        decoders,
        "similar",
        "s2:0",
        run="r",
        message="are not those that the run used: their hash differs. Name the folder .* --saes",
    )
    refused(
        decoders,
        "similar",
        "s1:0",
        "--saes",
        str(tmp_path),
        run="r",
        message="There is no file .*params.npz.*--saes FOLDER",
    )
    refused(decoders, "similar", "s1:9", run="r", message="its width is 4")
    moved = tmp_path / "moved"
    shutil.copytree(decoders.parent, moved)
    shutil.rmtree(moved / "saes")
    manifest = moved / "store" / "runs" / "r" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(decoders.parent), str(moved)))
    refused(
        moved / "store",
        "similar",
        "s1:0",
        run="r",
        message=r"saes.* does not exist.*--saes FOLDER",
    )
    result = rows(
        moved / "store", "similar", "s1:0", "--saes", str(decoders.parent / "saes"), run="r"
    )
    assert len(result) == 3
    manifest.write_text("{}")
    refused(
        moved / "store",
        "similar",
        "s1:0",
        run="r",
        message="spec names no SAEs whose decoder can be read without torch",
    )


def test_similar_without_the_files_uses_projections_and_says_so(
    decoders: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(decoders.parent, moved)
    manifest = moved / "store" / "runs" / "r" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(decoders.parent), str(moved)))
    project = [*("project", "--run", "r", "--store", str(moved / "store")), "--space", "s1"]
    assert [CliRunner().invoke(store_command.command, project).stdout for _ in range(2)] == [
        "m/gpt/resid_post.2/layer_2/width_4/average_l0_1: 4 features\n",
        "m/gpt/resid_post.2/layer_2/width_4/average_l0_1: already stored\n",
    ]
    exact = rows(moved / "store", "similar", "s1:0", run="r")
    shutil.rmtree(moved / "saes")
    result = ask(moved / "store", "similar", "s1:0", "--json", run="r")
    assert json.loads(result.stdout) == exact
    assert result.stderr.startswith(
        "computed from projections with 2 numbers per feature, so cosines are accurate to about "
        "0.71: the SAE files are missing ("
    )
    refused(
        moved / "store",
        "similar",
        "s2:0",
        run="r",
        message="toolkit store project keeps projections of them in the store",
    )
    with pytest.raises(
        BadInput,
        match=r"Name the folder that holds the SAEs: --saes FOLDER\. Layouts that "
        r"can "
        r"be "
        r"read: [a-z_, ]+\.$",
    ):
        CliRunner().invoke(store_command.command, [*project[:-1], "s2"], catch_exceptions=False)


# --- sql ---


def test_sql_asks_the_tables_of_the_run(folder: Path) -> None:
    statement = "SELECT space, count(*) AS n FROM activations GROUP BY space ORDER BY space"
    assert rows(folder, "sql", statement) == [
        {"space": "s1", "n": 5},
        {"space": "s2", "n": 1},
        {"space": "s3", "n": 1},
    ]
    assert rows(folder, "sql", statement, run="part-1") == [{"space": "s1", "n": 3}]
    assert (
        ask(folder, "sql", "SELECT sample FROM samples WHERE sample = 'z'").stderr == "No rows.\n"
    )
    assert ask(
        folder, "sql", "SELECT features FROM activations WHERE sample = 'a3'"
    ).stdout.splitlines() == ["features", "[5]"]


def test_sql_shows_k_rows_and_reads_no_more(folder: Path) -> None:
    result = ask(folder, "sql", "SELECT feature FROM features ORDER BY feature", "--k", "2")
    assert [line.split() for line in result.stdout.splitlines()] == [["feature"], ["5"], ["5"]]
    assert result.stderr == "2 rows, and there are more: --k N\n"
    assert ask(folder, "sql", "SELECT feature FROM features LIMIT 2", "--k", "2").stderr == ""


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE features", "Only SELECT is allowed"),
        ("SELECT 1; SELECT 2", "One statement at a time"),
        ("SELECT * FROM read_csv('/etc/passwd')", "There is no function 'read_csv'."),
        (
            "SELECT * FROM nothing",
            r"polars cannot run this statement: relation 'nothing' was not found\. Tables: "
            "activations",
        ),
    ],
)
def test_sql_refuses_all_else(folder: Path, statement: str, message: str) -> None:
    refused(folder, "sql", statement, message=message)


# --- by the index ---


@pytest.mark.parametrize(
    "args",
    [
        ["top", "2/5"],
        ["top", "2/5", "--k", "2"],
        ["top", "2/99"],
        ["sample", "a1"],
        ["sample", "a1", "--position", "0"],
        ["tokens", "2/5", "a1", "--all"],
        ["coactive", "2/5"],
        ["diff", "full-1", "full-1", "--k", "3"],
    ],
    ids=" ".join,
)
def test_the_index_changes_no_answer(folder: Path, indexed: Path, args: list[str]) -> None:
    answers = []
    for store in (folder, indexed):
        run = [] if args[0] == "diff" else ["--run", "full-1"]
        result = CliRunner().invoke(
            query.command, [*args, "--store", str(store), *run], catch_exceptions=False
        )
        answers.append((result.exit_code, result.stdout, result.stderr))
    assert answers[0] == answers[1]
    assert answers[0][0] == 0
