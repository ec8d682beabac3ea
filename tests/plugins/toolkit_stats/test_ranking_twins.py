"""compare.ranking over several SAEs of one site: what is listed twice counts once, in the rows, the
report and the sound file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_stats.comparison_tables import joined
from tests.plugins.toolkit_stats.test_ranking import BY, space, world
from toolkit.features.comparisons import comparisons_of
from toolkit.parts import ReportSection
from toolkit.statistics.randomness import half
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs, make_work
from toolkit.work import SinkWork
from toolkit_stats import toolkit_parts
from toolkit_stats.ranking.params import Ranking
from toolkit_stats.ranking.sink import RankingFiles, write_ranking
from toolkit_stats.ranking.stage import compare_ranking

SECTION = next(
    part for part in toolkit_parts() if isinstance(part, ReportSection) and part.name == "ranking"
)


def several(spaces: Sequence[Mapping[str, Any]], noise: float = 0.05) -> dict[str, pa.Table]:
    """The world's feature 7 in each of the spaces, a little noisier in each; feature 8 follows the
    label too, its noise its own.
    """
    made = world()
    rng = np.random.default_rng(1)
    label = {row["sample"]: row["number"] for row in made["sample_meta"].to_pylist()}
    names = sorted(label)
    base = {name: 1.0 + label[name] + rng.normal() * 0.5 for name in names}
    rows = []
    for index, written in enumerate(spaces):
        for name in names:
            seven = base[name] + index * noise * rng.normal()
            fired = [7], [float(seven)]
            if index == 0:
                fired = [7, 8], [float(seven), float(1.0 + label[name] + rng.normal() * 0.8)]
            rows.append(
                {
                    "space": written["space"],
                    "sample": name,
                    "position": 1,
                    "features": fired[0],
                    "values": fired[1],
                }
            )
    activations = pa.Table.from_pylist(rows, schema=arrow_schema("activations"))
    return {
        **made,
        "activations": activations,
        "spaces": pa.Table.from_pylist(list(spaces), schema=arrow_schema("spaces")),
    }


def ranked(made: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    rows = compare_ranking(make_work(Ranking(by=BY), made, seed=2))
    return {**made, **joined(*({name: table} for name, table in rows))}


def twins(made: Mapping[str, pa.Table], stat: str) -> list[tuple[str, int, str, float]]:
    rows = [row for row in made["features"].to_pylist() if row["stat"] == stat]
    return [(row["space"], row["feature"], row["text"], row["number"]) for row in rows]


ONE_SITE = (space("s1", 12, 82), space("s2", 12, 22), space("s3", 12, 445))


def test_a_feature_of_three_sparsities_counts_once() -> None:
    made = ranked(several(ONE_SITE))
    for stat, rank, passes in (
        ("same_as", "rank", "passes"),
        ("same_as_sound", "rank_sound", "passes_sound"),
    ):
        passing = {
            (row["space"], row["feature"])
            for row in made["features"].to_pylist()
            if row["stat"] == passes and row["number"]
        }
        assert passing >= {("s1", 7), ("s2", 7), ("s3", 7)}
        of_rank = {
            row["number"]: (row["space"], row["feature"])
            for row in made["features"].to_pylist()
            if row["stat"] == rank
        }
        best = min(number for number, key in of_rank.items() if number and key[1] == 7)
        others = sorted({("s1", 7), ("s2", 7), ("s3", 7)} - {of_rank[best]})
        assert twins(made, stat) == [(*other, of_rank[best][0], 7.0) for other in others]


def test_the_report_counts_both_ways() -> None:
    for figure in SECTION.run(TableInputs(ranked(several(ONE_SITE)))):
        assert figure.alt == (
            "4 pass the sound filters, 4 the published ones; with features that do the same in "
            "several SAEs of one site counted once: 2 and 2"
        )
        assert figure.alt in figure.html


def test_the_sound_file_names_the_twin_and_the_published_one_keeps_its_columns() -> None:
    made = ranked(several(ONE_SITE))
    files = dict(write_ranking(SinkWork(RankingFiles(), Path("x"), "r", TableInputs(made))))
    sound = list(csv.DictReader(io.StringIO(bytes(files["ranked_features_sound.csv"]).decode())))
    address = {row["space"]: row["address"] for row in ONE_SITE}
    expected = {
        (str(row[0]), row[1]): f"{address[row[2]]}:{row[3]:.0f}"
        for row in twins(made, "same_as_sound")
    }
    l0 = {"82.0": "s1", "22.0": "s2", "445.0": "s3"}
    results = {(l0[row["average_l0"]], int(row["feature_id"])): row["same_as"] for row in sound}
    assert results == {key: expected.get(key, "") for key in results}
    assert len(results) == 4
    assert "same_as" not in bytes(files["ranked_features.csv"]).decode()


@pytest.mark.parametrize(
    ("spaces", "noise"),
    [((space("s1", 12), space("s2", 13)), 0.05), (ONE_SITE[:2], 0.6)],
    ids=["sites", "unlike"],
)
def test_features_at_other_sites_and_those_that_are_not_alike_are_not_joined(
    spaces: Any, noise: float
) -> None:
    made = ranked(several(spaces, noise))
    passing = [
        row
        for row in made["features"].to_pylist()
        if row["stat"] == "passes_sound" and row["number"] and row["feature"] == 7
    ]
    assert {row["space"] for row in passing} == {"s1", "s2"}
    assert twins(made, "same_as") == twins(made, "same_as_sound") == []


def test_a_sound_ranking_says_how_many_sentences_both_halves_have() -> None:
    made = world()
    sides = [half(2, unit) for unit in made["samples"]["unit"].to_pylist()]
    chosen, held_out = (
        next(index for index, side in enumerate(sides) if side == part and index % 4 == 1)
        for part in ("select", "confirm")
    )
    prompts = made["samples"]["cluster"].to_pylist()
    prompts[held_out] = prompts[chosen]
    index = made["samples"].schema.get_field_index("cluster")
    shared = {
        **made,
        "samples": made["samples"].set_column(
            index, made["samples"].schema.field(index), pa.array(prompts)
        ),
    }
    (before,), (after,) = (
        comparisons_of(ranked(inputs)["comparisons"]) for inputs in (made, shared)
    )
    assert (before.half, after.half) == ("confirm", "confirm")
    assert [group.shared for group in before.groups] == [0, 0, 0, 0]
    assert [group.shared for group in after.groups] == [0, 1, 0, 0]
