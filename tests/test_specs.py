"""The specs of the studies: each is right with and without the lab's overlay, and names what is
known to exist; and their sentences.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
from collections import Counter
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.toolkit.conftest import Toolkit, toolkit  # noqa: F401

SPECS = Path(__file__).parents[1] / "specs"
DATA = SPECS / "data"
STUDIES = sorted(
    path.name for path in SPECS.glob("*.yaml") if path.name.startswith(("exp", "gemma", "trace"))
)
GEMMA = [name for name in STUDIES if name.startswith("gemma")]
LAB, LAB_GEMMA = (("--overlay", str(SPECS / name)) for name in ("lab.yaml", "lab_gemma.yaml"))
REVISIONS = {
    "meta-llama/Llama-3.1-8B": "d04e592bb4f6aa9cfee91e2e20afa771667e1d4b",
    "fnlp/Llama3_1-8B-Base-LXR-8x": "8dbc1d85edfced43081c03c38b05514dbab1368b",
    "google/gemma-2-9b-it": "11c9b309abf73637e4b6f9a3fa1e92e615547819",
    "google/gemma-2-2b": "c5ebcd40d208330abc697524c919956e692655cf",
    "google/gemma-scope-2b-pt-res": "fd571b47c1c64851e9b1989792367b9babb4af63",
}
"""Commits that were seen at their source; no other is to be written into a spec."""


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with 1 TiB free: some of the studies' plans are refused on less than 22 GiB."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 40))


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says that the network is forbidden, and there is none: whoever asks it, fails."""
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load((SPECS / name).read_text(encoding="utf-8"))
    return result


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def checked(toolkit: Toolkit, name: str, *args: str) -> dict[str, Any]:  # noqa: F811
    done = toolkit.run("check", SPECS / name, "--json", *args)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", [name for name in STUDIES if "saes" in read(name)])
def test_layers_are_chosen_without_an_overlay(toolkit: Toolkit, name: str) -> None:  # noqa: F811
    """Also where the games come from a spec that has no SAEs."""
    assert (
        checked(toolkit, name)["run"]
        != checked(toolkit, name, "--set", "saes.with.layers=1-2")["run"]
    )


def test_the_studies_are_all_there() -> None:
    expected = {
        "exp0_gemma",
        "exp0_llama",
        "exp1_sae_l1_31",
        "exp1_residual_l1_31",
        "exp1_pathway",
        "exp2_as_published",
        "exp2_patching_l1_31",
        "exp6_tokens",
        "exp6_tokens_l1_31",
        "exp6_attention_only",
        "exp6_attribution",
        "exp6_games",
        "trace_decision",
        "exp3_feature_words",
        "exp3_cross_reference",
        "exp2_steering",
        "exp5_persistent",
        "gemma_135_extract",
        "gemma_top_features",
    }
    assert {Path(name).stem for name in STUDIES} == expected
    assert all(read(name)["name"] == Path(name).stem for name in STUDIES)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", STUDIES)
def test_each_is_right_without_asking_the_network(toolkit: Toolkit, name: str) -> None:  # noqa: F811
    as_written, lab = checked(toolkit, name), checked(toolkit, name, *LAB)
    assert as_written["run"] != lab["run"]
    assert [stage["id"] for stage in as_written["stages"]] == [
        stage["id"] for stage in lab["stages"]
    ]


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", GEMMA)
def test_the_gemma_specs_are_right_with_saes_of_their_layout(toolkit: Toolkit, name: str) -> None:  # noqa: F811
    assert checked(toolkit, name, *LAB, *LAB_GEMMA)["run"] != checked(toolkit, name, *LAB)["run"]


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", GEMMA)
def test_other_sentences_are_named_relative_to_the_spec(toolkit: Toolkit, name: str) -> None:  # noqa: F811
    other = checked(toolkit, name, "--set", "samples.with.path=data/betting_caution.csv")
    assert other["run"] != checked(toolkit, name)["run"]


@pytest.mark.usefixtures("_no_network")
def test_a_plan_says_what_it_cannot_know_before_the_files_are_there(
    toolkit: Toolkit,  # noqa: F811
) -> None:
    spec = SPECS / "exp1_sae_l1_31.yaml"
    other = ("--set", f"saes.with.revision={'0' * 40}", "--set", f"model.with.revision={'0' * 40}")
    unknown, lab = (toolkit.run("plan", spec, *args).stdout for args in (other, LAB))
    expected, bound = unknown.split("AT MOST", 1)
    assert re.search(r"^together +44,928 +\? +\? +\? +\? +[\d,]+$", expected, re.MULTILINE)
    assert re.search(r"^together +646,528 +\? +\? +\? +\?$", bound, re.MULTILINE)
    assert re.search(r"^together +20,328 +[\d.]+ +[\d.]+ MiB", lab, re.MULTILINE)


@pytest.mark.parametrize("forbidden", ["", "1"])
@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", STUDIES)
def test_a_plan_of_the_published_models_needs_no_files_and_no_network(
    toolkit: Toolkit,  # noqa: F811
    name: str,
    forbidden: str,
) -> None:
    done = toolkit.run("plan", SPECS / name, "--json", HF_HUB_OFFLINE=forbidden)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert all(row["cost"]["known"] for row in answer["stages"] if not row["same_as"])
    total = answer["total"]
    assert min(total["forwards"], total["flops"], total["memory"], total["disk"]) > 0
    weights = {
        "exp0_gemma.yaml": 9_241_705_984 * 2,
        **{gemma: 2_614_341_888 * 2 for gemma in GEMMA},
    }
    assert total["memory"] > weights.get(name, 8_030_261_248 * 2)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", [*STUDIES, "quickstart.yaml"])
def test_every_stage_of_a_plan_has_a_cost_that_is_known(toolkit: Toolkit, name: str) -> None:  # noqa: F811
    lab = () if name.startswith("quickstart") else LAB
    done = toolkit.run("plan", SPECS / name, *lab, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["stages"]
    for stage, cost in {row["stage"]: row["cost"] for row in rows if not row["same_as"]}.items():
        assert cost, stage
        assert cost["known"], stage
        assert cost["memory"] > 0, stage
        assert cost["disk"] > 0 or stage.rpartition("/")[2] == "examine", stage


COMPARING = ["exp1_sae_l1_31.yaml", "exp1_residual_l1_31.yaml", "exp1_pathway.yaml"]


@pytest.mark.parametrize("name", COMPARING)
def test_baselines_stand_beside_the_comparisons(name: str) -> None:
    stages = read(name)["stages"]
    groups = {
        stage["uses"]: (stage["with"]["by"], stage["with"]["between"])
        for stage in stages
        if "between" in stage["with"]
    }
    assert {"compare.leak", "compare.probe"} < set(groups)
    assert len(groups) == 3
    assert all(group == groups["compare.leak"] for group in groups.values())
    independent = {
        stage["with"].get("cluster", "prompt") for stage in stages if "between" in stage["with"]
    }
    assert len(independent) == 1


def test_baselines_stand_beside_the_ranking() -> None:
    stages = {stage["uses"]: stage["with"] for stage in read("gemma_top_features.yaml")["stages"]}
    assert (
        stages["compare.leak"].items()
        >= {"by": stages["compare.ranking"]["by"], "between": ["3", "0"]}.items()
    )
    assert stages["compare.probe"].items() >= stages["compare.leak"].items()


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", [*COMPARING, "gemma_top_features.yaml"])
def test_after_the_games_a_study_runs_each_distinct_prompt_once(
    toolkit: Toolkit,  # noqa: F811
    name: str,
) -> None:
    """The extraction does; the examination of the SAEs before it reads the first 64 samples, and at
    most once more at other sites; the readers of the stream read none.
    """
    rows = json.loads(toolkit.run("plan", SPECS / name, *LAB, "--json").stdout)["stages"]
    forwards = {
        row["stage"]: row["cost"]["forwards"]
        for row in rows
        if row["cost"]["forwards"] and not row["stage"].endswith("play")
    }
    assert set(forwards) == {"examine", "features"}
    assert forwards["examine"] == 2 * 64
    assert {row["stage"] for row in rows} >= {"probe", "leak"}


@pytest.mark.parametrize("name", STUDIES)
def test_each_names_commits_that_are_known_to_exist(name: str) -> None:
    places = [part["with"] for key, part in read(name).items() if key in ("model", "saes")]
    named = {place.get("id") or place["release"]: place["revision"] for place in places}
    assert named
    assert named.items() <= REVISIONS.items()


@pytest.mark.parametrize("name", STUDIES)
def test_each_opens_with_what_it_asks_and_how_it_runs_offline(name: str) -> None:
    text = (SPECS / name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"toolkit run specs/{name} --overlay specs/lab.yaml" in text


def test_the_cross_reference_shares_the_extraction_of_exp2() -> None:
    first, second = (
        read(f"{name}.yaml") for name in ("exp2_patching_l1_31", "exp3_cross_reference")
    )
    for key in ("seed", "model", "saes", "samples"):
        assert first[key] == second[key]
    assert first["stages"][0] == second["stages"][0]


def test_the_two_trait_specs_share_their_extraction() -> None:
    first, second = (read(name) for name in GEMMA)
    for key in ("seed", "model", "saes", "samples"):
        assert first[key] == second[key]
    assert first["stages"][0] == second["stages"][0]


# --- the sentences --------------------------------------------------------------------------------

SENTENCES = [("betting_caution.csv", 50), ("aggression_small.csv", 20), ("lab_trait.csv", 80)]


@pytest.mark.parametrize(("name", "each"), SENTENCES)
def test_sentences_are_balanced_and_stand_once(name: str, each: int) -> None:
    result = rows(name)
    assert list(result[0]) == ["sentence", "concept_strength_label"]
    assert Counter(row["concept_strength_label"] for row in result) == dict.fromkeys("0123", each)
    assert len({row["sentence"].lower() for row in result}) == len(result)


def test_no_sentence_on_betting_is_made_from_a_template() -> None:
    """No five words in a row stand in two sentences, and no three words begin two."""
    sentences = [
        re.findall(r"[\w']+", row["sentence"].lower()) for row in rows("betting_caution.csv")
    ]
    runs = Counter(
        run
        for words in sentences
        for run in {tuple(words[index : index + 5]) for index in range(len(words) - 4)}
    )
    assert [run for run, count in runs.items() if count > 1] == []
    assert max(Counter(tuple(words[:3]) for words in sentences).values()) == 1


def test_the_length_of_a_sentence_on_betting_says_little_of_its_label() -> None:
    lengths: dict[str, list[int]] = {}
    for row in rows("betting_caution.csv"):
        lengths.setdefault(row["concept_strength_label"], []).append(len(row["sentence"].split()))
    means = [mean(lengths[label]) for label in "0123"]
    assert max(means) - min(means) < 1
    assert (round(min(means), 1), round(max(means), 1)) == (12.9, 13.8)


def test_sentences_on_betting_hold_commas_and_quotes() -> None:
    results = [row["sentence"] for row in rows("betting_caution.csv")]
    assert any("," in text and '"' in text for text in results)
