"""What plans of shipped specs expect, on the packaged model and an empty store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit._cli import main

SPECS = Path(__file__).parents[1] / "specs"


def plan(name: str, store: Path, capsys: pytest.CaptureFixture[str], *sets: str) -> dict[str, Any]:
    args = ["plan", str(SPECS / f"{name}.yaml"), "--overlay", str(SPECS / "lab.yaml"), "--json"]
    for text in sets:
        args += ["--set", text]
    with pytest.raises(SystemExit) as done:
        main([*args, "--store", str(store)])
    assert not done.value.code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.slow
def test_the_same_samples_by_two_routes_count_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = plan("exp2_patching_l1_31", tmp_path, capsys)
    rows = {row["stage"]: row for row in result["stages"]}
    twins = {name: row["same_as"] for name, row in rows.items() if row["same_as"]}
    assert twins == dict.fromkeys(
        ("joint.samples", "doses.samples", "gradients.samples"), "causes.samples"
    )
    for name in twins:
        assert (rows[name]["cost"], rows[name]["expected"], rows[name]["whole"]) == (None,) * 3
        assert rows[name]["why"] == "with causes.samples, which is the same"
    for of, total in (("cost", result["total"]), ("expected", result["expected"])):
        assert total["disk"] == sum(row[of]["disk"] for row in rows.values() if row[of])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["exp2_patching_l1_31", "exp2_as_published", "exp5_persistent", "exp2_steering"]
)
def test_what_is_expected_is_below_the_most_and_names_rows(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = plan(name, tmp_path, capsys)
    bound, expected = result["total"], result["expected"]
    for of in ("forwards", "flops", "disk"):
        assert 0 < expected[of] < bound[of] / 2, of
    games = [row for row in result["stages"] if row["part"] in ("play.games", "play.patched")]
    for row in games:
        assert row["expected"]["tokens_from"] == "tokeniser"
        assert row["expected"]["table_rows"] > row["expected"]["forwards"] > 0
    assert expected["table_rows"] > 1000
