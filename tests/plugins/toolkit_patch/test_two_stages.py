"""Two stages of one kind in a run: the report names each, and nothing of them mixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_patch.worlds import OUTCOMES, run
from toolkit.errors import DataError
from toolkit.testing.fakes import TableInputs
from toolkit_patch.attribution import section as attribution
from toolkit_patch.doses import section as doses
from toolkit_patch.games import section as games
from toolkit_patch.joint import section as joint
from toolkit_patch.published import section as published
from toolkit_patch.steer import section as steering
from toolkit_patch.verdicts import section as verdicts

Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class StagedInputs(TableInputs):
    """Tables of several stages."""

    stages: Mapping[str, Tables] = field(default_factory=dict)

    def by_stage(self, table: str) -> Mapping[str, pa.Table]:
        return {name: tables[table] for name, tables in self.stages.items() if table in tables}


def staged(shared: Tables, **stages: Tables) -> StagedInputs:
    names = {name for tables in stages.values() for name in tables}
    joined = {
        name: pa.concat_tables([tables[name] for tables in stages.values() if name in tables])
        for name in names
    }
    return StagedInputs({**shared, **joined}, stages)


@pytest.fixture(scope="module")
def two_screens(world: Any, screened: Tables) -> StagedInputs:
    """A screen of 16 features, and one of 4 at other decision points."""
    few = {"points": 12, "arms": [], "candidates": {"top": 4}, "directions": 40}
    other = world.screen(**few)
    return staged(
        world.tables,
        wide={name: screened[name] for name in ("screens", "effects")},
        narrow={name: other[name] for name in ("screens", "effects")},
        verdicts={
            "verdicts": pa.concat_tables([screened["verdicts"], other["verdicts"]]),
        },
    )


def test_each_screen_has_its_own_verdicts_under_its_own_name(two_screens: StagedInputs) -> None:
    shown = list(verdicts.figures(two_screens))
    tables = {figure.title: figure for figure in shown if figure.title.endswith("Verdicts")}
    assert set(tables) == {"wide: Verdicts", "narrow: Verdicts"}
    assert tables["wide: Verdicts"].html.count('<th scope="row">') == 16
    assert tables["narrow: Verdicts"].html.count('<th scope="row">') == 4
    assert "over all 16" in tables["wide: Verdicts"].html
    assert "over all 4" in tables["narrow: Verdicts"].html
    assert {figure.title.split(": ")[0] for figure in shown} == {"wide", "narrow"}


def test_arms_of_one_screen_are_not_those_of_the_other(two_screens: StagedInputs) -> None:
    shown = {figure.title: figure.html for figure in verdicts.figures(two_screens)}
    assert "rebuilt" in shown["wide: Every arm"]
    assert "rebuilt" not in shown["narrow: Every arm"]
    sentences = sorted(result.sentence for result in verdicts.findings(two_screens))
    assert [text.split(": ")[0] for text in sentences] == ["narrow", "wide"]
    assert "4 features were screened at 12 decision points" in sentences[0]
    assert "16 features were screened at 40 decision points" in sentences[1]


def test_one_screen_judged_by_two_rules_has_both(world: Any, screened: Tables) -> None:
    strict = run("patch.verdicts", {"min_effect": 0.99}, screened)
    inputs = staged(
        world.tables,
        causes={name: screened[name] for name in ("screens", "effects")},
        usual={"verdicts": screened["verdicts"]},
        strict={"verdicts": strict["verdicts"]},
    )
    results = {
        results.sentence.split(": ")[0]: results.sentence for results in verdicts.findings(inputs)
    }
    assert set(results) == {"causes, judged by usual", "causes, judged by strict"}
    assert "4 of 16 features are causal" in results["causes, judged by usual"]
    assert "No feature is causal" in results["causes, judged by strict"]


@pytest.mark.parametrize(
    ("section", "stage", "params"),
    [
        (joint, "patch.joint", {"sets": 19, "pairs": 2}),
        (doses, "patch.doses", {}),
        (attribution, "patch.attribution", {"methods": ["atp"]}),
    ],
)
def test_other_stages_are_told_apart_too(
    world: Any, screened: Tables, section: Any, stage: str, params: Any
) -> None:
    made = {}
    for name, points in (("one", 4), ("two", 6)):
        settings = {"outcomes": OUTCOMES, "points": points, **params}
        made[name] = run(stage, settings, world.tables | screened, world.model, world.saes)
    inputs = staged(world.tables, **made)
    alone = {
        name: list(section.figures(TableInputs(world.tables | tables)))
        for name, tables in made.items()
    }
    shown = list(section.figures(inputs))
    assert [(figure.title, figure.html) for figure in shown] == [
        (f"{name}: {figure.title}", figure.html) for name in made for figure in alone[name]
    ]
    assert [result.sentence.split(": ")[0] for result in section.findings(inputs)] == ["one", "two"]


@pytest.mark.parametrize("stage", ["patch.joint", "patch.doses", "patch.attribution"])
def test_a_stage_that_reads_one_screen_refuses_two(
    world: Any, two_screens: StagedInputs, stage: str
) -> None:
    params = {"outcomes": OUTCOMES, "points": 4}
    with pytest.raises(DataError, match=r"needs: 2 screens of 'yes vs no' are needed here"):
        run(stage, params, two_screens.by_name, world.model, world.saes)


def test_steering_keeps_the_curves_of_each_stage(world: Any) -> None:
    made = {}
    for name, points in (("one", 4), ("two", 6)):
        params = {"outcomes": OUTCOMES, "points": points, "by": "cause", "between": ["yes", "no"]}
        params |= {"directions": 19, "axis_samples": 12}
        made[name] = run("patch.steer", params, world.tables, world.model)
    shown = list(steering.figures(staged(world.tables, **made)))
    assert {figure.title.split(": ")[0] for figure in shown} == {"one", "two"}
    assert {figure.html.count("<polyline") for figure in shown} == {20}


def test_games_and_published_rules_are_told_apart() -> None:
    from tests.plugins.toolkit_patch.worlds import table

    def paired(share: float) -> Tables:
        row = {"arm": "ablated", "outcome": "bankruptcy", "pairs": 10, "changed": 2, "q": 1.0}
        row |= {"unpatched": 0.5, "patched": share, "difference": share - 0.5, "low": -0.1}
        row |= {"high": 0.1, "p": 1.0, "null_arms": 0, "beyond": None, "p_null": None}
        return {"paired_games": table("paired_games", [row])}

    def judged(causal: float) -> Tables:
        rows = [
            {
                "space": "s",
                "feature": 1,
                "stat": f"published_{stat}",
                "group": "a vs b",
                "number": causal if stat in published.RULES else 0.1,
                "text": None,
                "comparison": None,
            }
            for stat in published.STATS
        ]
        return {"features": table("features", rows)}

    pairs = list(games.findings(staged({}, one=paired(0.4), two=paired(0.6))))
    assert [result.number for result in pairs] == pytest.approx([-0.1, 0.1])
    assert [result.sentence[:5] for result in pairs] == ["one: ", "two: "]
    rules = list(published.findings(staged({}, one=judged(1.0), two=judged(0.0))))
    assert [(result.number, result.n) for result in rules] == [(1.0, 1), (0.0, 1)]
