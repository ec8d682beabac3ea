"""`toolkit query features` and `effects`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.toolkit.query.asked import (
    CONTRAST,
    FEATURES,
    OTHER,
    SPACES,
    ask,
    begin,
    commit,
    refused,
    rows,
    stat,
)
from toolkit._cli.query import statistics
from toolkit._query import feature_rows
from toolkit_store import open_store
from toolkit_store.database import Database

# --- features ---


def test_features_are_sorted_by_q_and_then_the_size_of_d(folder: Path) -> None:
    result = rows(folder, "features", "--k", "5")
    assert [(row["address"], row["contrast"], row["q"]) for row in result] == [
        ("2/7", CONTRAST, 0.01),
        ("2/5", CONTRAST, 0.01),
        ("2/5", "early vs late", 0.4),
        ("m/gpt/resid_post.9/thin:6", CONTRAST, 0.5),
        ("2/8", CONTRAST, 0.9),
    ]
    first, second = result[0], result[1]
    assert list(first)[:9] == [
        "address",
        "stage",
        "contrast",
        "d",
        "t",
        "df",
        "p",
        "q",
        "significant",
    ]
    assert list(first)[9:] == ["mean[lost]", "mean[won]", "density[lost]", "fired", "verdict"]
    assert (first["mean[lost]"], first["mean[won]"], first["verdict"]) == (-1.25, -0.25, None)
    assert (second["verdict"], second["stage"], second["significant"]) == (
        "drives stop",
        "groups",
        1.0,
    )


def test_features_without_q_come_last(folder: Path) -> None:
    result = rows(folder, "features", "--k", "100")
    assert len(result) == 35
    assert [row["address"] for row in result[-2:]] == ["2/58", "2/59"]
    assert result[-1]["q"] is None


def test_features_as_a_table(folder: Path) -> None:
    result = ask(folder, "features", "--stage", "groups", "--significant")
    output, heads, *lines = result.stdout.splitlines()
    assert output == f"stage: groups   contrast: {CONTRAST}"
    assert heads.split() == ["address", "d", "q", "significant", "mean[lost]", "mean[won]"]
    assert lines[0].split() == ["2/7", "-1.25", "0.01", "1", "-1.25", "-0.25"]
    assert len(lines) == 2
    more = ask(
        folder,
        "features",
        "--stage",
        "groups",
        "--significant",
        "--stat",
        "density",
        "--stat",
        "fired",
        "--stat",
        "p",
    )
    assert more.stdout.splitlines()[1].split() == ["address", "p", "density[lost]", "fired"]
    assert more.stdout.splitlines()[2].split() == ["2/7", "0.001", "0.25", "12345"]


def test_a_ranking_is_shown_in_the_order_of_its_sound_ranks(tmp_path: Path) -> None:
    """The features that it ranks first, not those that go down most surely."""
    ranks = {5: 2.0, 7: 1.0, 9: None}
    results = [
        stat(feature, name, "strength", number)
        for feature, rank in ranks.items()
        for name, number in (
            ("q", 1e-9 if rank is None else 0.01),
            ("rank_sound", rank),
            ("spearman", 0.5),
            ("p", 0.001),
        )
        if number is not None
    ]
    store = open_store(tmp_path / "store", create=True)
    with store.writer():
        commit(store, "k1", "ranking", "full-1", {"features": results, "spaces": SPACES[:1]})
        begin(
            store,
            "full-1",
            "2026-01-04",
            "done",
            ["k1"],
            [{"id": "ranking", "part": "compare.ranking", "writes": ["features"]}],
        )
    _, heads, *lines = ask(store.folder, "features").stdout.splitlines()
    assert heads.split() == ["address", "rank_sound", "q"]
    assert [line.split()[0] for line in lines] == ["2/7", "2/5", "2/9"]


def test_features_of_a_space_a_layer_or_a_statistic(folder: Path) -> None:
    for choice in (("--layer", "9"), ("--space", "s2"), ("--space", "m/gpt/resid_post.9/thin")):
        assert [row["address"] for row in rows(folder, "features", *choice)] == [
            "m/gpt/resid_post.9/thin:6"
        ]
    (row,) = rows(folder, "features", "--layer", "9", "--stat", "d", "--stat", "mean")
    assert list(row) == ["address", "stage", "contrast", "d", "mean[lost]", "mean[won]"]
    assert ask(folder, "features", "--stat", "t", "--layer", "9").stdout.splitlines()[
        1
    ].split() == ["address", "t"]


def test_features_sorted_by_another_statistic(folder: Path) -> None:
    assert [row["address"] for row in rows(folder, "features", "--by", "d", "--k", "2")] == [
        "2/7",
        "2/5",
    ]
    assert [
        row["q"] for row in rows(folder, "features", "--by", "p", "--layer", "2", "--k", "4")
    ] == [0.01, 0.01, 0.4, 0.9]
    assert rows(folder, "features", "--by", "mean", "--k", "1")[0]["address"] == "2/5"
    assert [
        row["address"] for row in rows(folder, "features", "--by", "toy_mean", run="toy-1")
    ] == ["2/2", "2/1"]


def test_features_of_stages_that_compare_nothing_are_shown_as_they_are(folder: Path) -> None:
    first = {
        "address": "2/1",
        "stage": "means",
        "contrast": None,
        "toy_mean[even]": 1.0,
        "toy_mean[odd]": 1.0,
    }
    assert rows(folder, "features", run="toy-1")[0] == first
    assert ask(folder, "features", run="toy-1").stdout.splitlines() == [
        "stage: means",
        "address  toy_mean[even]  toy_mean[odd]",
        "2/1                   1              1",
        "2/2                   2              2",
    ]
    assert [row["verdict"] for row in rows(folder, "features", "--stage", "cause")] == [
        "drives stop",
        "no effect",
    ]


def test_features_refuse_what_does_not_exist(folder: Path) -> None:
    refused(
        folder,
        "features",
        "--stat",
        "means",
        message=r"the statistic 'means'\. Did you mean 'mean'\? Statistics: d, density",
    )
    refused(folder, "features", "--by", "z", message="the statistic 'z'")
    refused(folder, "features", "--layer", "3", message="no space at layer 3")
    refused(
        folder,
        "features",
        "--space",
        "m/gpt/resid_post.9/thinn",
        message="Did you mean 'm/gpt/resid_post.9/thin'",
    )
    refused(
        folder, "features", "--stage", "group", message="no stage 'group'. Did you mean 'groups'"
    )


def test_features_say_why_nothing_is_shown(folder: Path) -> None:
    empty = ask(folder, "features", run="none-1")
    assert empty.stdout == ""
    assert (
        "stage 'groups' (compare.welch) writes it and its 1 committed step wrote none"
        in empty.stderr
    )
    assert "stage 'cause' (patch.delta) writes it and it has committed no step yet" in empty.stderr
    assert (
        "in these spaces. Stages that wrote some: cause, groups."
        in ask(folder, "features", "--space", "s3").stderr
    )
    assert (
        "stage 'extract' does not write it. Stages of this run that write it: groups, cause."
        in (ask(folder, "features", "--stage", "extract").stderr)
    )
    assert (
        "No difference is significant in run toy-1"
        in ask(folder, "features", "--significant", run="toy-1").stderr
    )


def test_verdicts_that_differ_are_told_apart() -> None:
    line = {"space": "s1", "feature": 5, "stage": "groups", "group": ""}
    written = [
        stat(5, "verdict", group, None, verdict) | {"stage": "cause"}
        for group, verdict in (("stop", "yes"), ("bet", "no"))
    ]

    class Labels:
        def label(self, space: str, index: int) -> str:
            return f"{space}:{index}"

    assert feature_rows._line_of(Labels(), line, written, set())["verdict"] == "stop: yes; bet: no"  # type: ignore[arg-type]


def test_a_group_called_like_another_contrast_is_of_its_own_line() -> None:
    """`cat vs dog` is a group here; a stage elsewhere compares cat with dog."""
    line = {"space": "s1", "feature": 5, "stage": "groups", "group": "cat vs dog vs mouse"}
    rows = [("d", "cat vs dog vs mouse", 1.0), ("mean", "cat vs dog", 0.25), ("mean", "mouse", 2.0)]
    written = [
        {**stat(5, name, group, number, None), "stage": "groups", "comparison": "c1"}
        for name, group, number in rows
    ]
    written.append({**stat(5, "mean", "mouse", 9.0, None), "stage": "groups", "comparison": "c2"})

    class Labels:
        def label(self, space: str, index: int) -> str:
            return f"{space}:{index}"

    compared = {"cat vs dog", "cat vs dog vs mouse"}
    cells = feature_rows._line_of(Labels(), line, written, compared)  # type: ignore[arg-type]
    assert (cells["d"], cells["mean[cat vs dog]"], cells["mean[mouse]"]) == (1.0, 0.25, 2.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """What queries read: table, rows, and whether their texts too."""
    result: list[tuple[str, int, bool]] = []
    rows_of, batches_of = Database.rows, Database.batches

    def spy(self: Database, name: str, *asked: Any) -> pa.Table:
        table = rows_of(self, name, *asked)
        result.append((name, table.num_rows, "text" in table.column_names))
        return table

    def spy_batches(self: Database, name: str, *asked: Any) -> Iterator[pa.Table]:
        for table in batches_of(self, name, *asked):
            result.append((name, table.num_rows, "text" in table.column_names))
            yield table

    monkeypatch.setattr(Database, "rows", spy)
    monkeypatch.setattr(Database, "batches", spy_batches)
    return result


def read_of(name: str, read: list[tuple[str, int, bool]]) -> tuple[int, int]:
    """Rows without their texts, and rows with them."""
    short, whole = (
        sum(count for table, count, texts in read if (table, texts) == (name, expected))
        for expected in (False, True)
    )
    return short, whole


def test_features_read_what_they_are_sorted_by_and_all_of_those_shown(
    folder: Path, read: list[tuple[str, int, bool]]
) -> None:
    (row,) = rows(folder, "features", "--k", "1")
    assert row["address"] == "2/7"
    tests = sum(entry["stat"] in ("d", "q", "significant") for entry in [*FEATURES, *OTHER])
    assert read_of("features", read) == (tests, 10)
    read.clear()
    assert len(rows(folder, "features", "--layer", "9")) == 1
    assert read_of("features", read) == (3, 10)


def test_many_features_are_read_by_their_space(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(folder, "features", "--k", "100")
    monkeypatch.setattr(feature_rows, "_LOOKED_UP", 2)
    assert rows(folder, "features", "--k", "100") == before


# --- effects ---


def test_effects_read_the_rows_that_are_asked_for(
    folder: Path, read: list[tuple[str, int, bool]]
) -> None:
    for args, expected in (
        ([], 4),
        (["--feature", "2/7"], 1),
        (["--samples", "--feature", "2/5", "--arm", "zero"], 3),
    ):
        read.clear()
        ask(folder, "effects", *args)
        assert [call[:2] for call in read if call[0] == "effects"] == [("effects", expected)]


def test_effects_are_summaries_unless_samples_are_asked_for(folder: Path) -> None:
    result = rows(folder, "effects")
    assert [(row["address"], row["arm"], row["q"]) for row in result] == [
        ("2/5", "zero", 0.001),
        ("2/7", "zero", 0.9),
        ("2/5", "sham", 0.9),
        ("-", "clean", None),
    ]
    assert list(result[0]) == ["address", "stage", *statistics.EFFECTS]
    per_sample = rows(folder, "effects", "--samples")
    assert [(row["sample"], row["effect"]) for row in per_sample] == [("a1", 0.3), ("a2", None)]


def test_effects_as_a_table(folder: Path) -> None:
    assert ask(folder, "effects", "--feature", "2/5", "--arm", "zero").stdout.splitlines() == [
        "stage: cause",
        "address  arm   outcome  probability  effect      p      q   kl",
        "2/5      zero  stop          0.1235    0.25  0.001  0.001  0.5",
    ]


def test_effects_refuse_an_unknown_arm(folder: Path) -> None:
    refused(
        folder,
        "effects",
        "--arm",
        "zeros",
        message=r"no arm 'zeros'\. Did you mean 'zero'\? Arms: clean, sham, zero",
    )


def test_effects_say_why_nothing_is_shown(folder: Path) -> None:
    assert (
        "no effects of this feature. It has effects of 3 features: 2/5, 2/7, -"
        in ask(folder, "effects", "--feature", "2/8").stderr
    )
    assert "leave out --samples" in ask(folder, "effects", "--feature", "2/7", "--samples").stderr
    assert (
        "Table 'effects' has no rows in run none-1: stage 'cause'"
        in ask(folder, "effects", run="none-1").stderr
    )
