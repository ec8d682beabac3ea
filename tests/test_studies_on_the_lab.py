"""The specs of the studies, whole, on the packaged model: each runs on an empty store, finds the
known causes, and is told once only.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit_lab.training.sentences import BOLD
from toolkit_store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SPECS = Path(__file__).parents[1] / "specs"
CAUSES: dict[str, Callable[[float], bool]] = {
    "poor": lambda balance: balance <= 50,
    "rich": lambda balance: balance >= 150,
}
WORDS = {word for slot in BOLD for word in slot}


class Lab:
    """Runs specs with the lab's overlay; all runs of one share a store, and their exports lie in
    one folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"

    def run(self, name: str, *overlays: str, sets: Sequence[str] = (), code: int = 0) -> str:
        """What the command said."""
        done = self._command("run", name, overlays, sets)
        assert done.returncode == code, done.stderr
        return done.stderr

    def plan(self, name: str, *, sets: Sequence[str] = ()) -> dict[str, Any]:
        """What `toolkit plan --json` says before a run."""
        done = self._command("plan", name, (), sets, "--json")
        assert done.returncode == 0, done.stderr
        plan: dict[str, Any] = json.loads(done.stdout)
        return plan

    def _command(
        self, command: str, name: str, overlays: Sequence[str], sets: Sequence[str], *more: str
    ) -> subprocess.CompletedProcess[str]:
        args = ["toolkit", command, str(SPECS / f"{name}.yaml"), *more]
        for overlay in ("lab", *overlays):
            args += ["--overlay", str(SPECS / f"{overlay}.yaml")]
        if "sinks:" in (SPECS / f"{name}.yaml").read_text():
            args += ["--set", f"sinks.published.with.path={self.folder / name}"]
        for text in sets:
            args += ["--set", text]
        env = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOOLKIT_STORE": str(self.store),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-m", *args], env=env, capture_output=True, text=True, check=False
        )

    def rows(self, table: str, stage: str, experiment: str) -> list[dict[str, Any]]:
        """The rows of a table that a stage of an experiment wrote."""
        opened = open_store(self.store, read_only=True)
        steps = opened.steps(stage=stage, experiment=experiment)
        return opened.read(table, [row.key for row in steps]).to_pylist()

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the runs of an experiment logged."""
        logs = [path for path in (self.store / "runs").glob(f"{name}-*/events.jsonl")]
        return [
            json.loads(line)
            for path in logs
            for line in path.read_text(encoding="utf-8").splitlines()
        ]

    def export(self, name: str, file: str) -> Any:
        """A JSON file that a sink wrote."""
        return json.loads((self.folder / name / file).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def sae(lab: Lab) -> str:
    return lab.run("exp1_sae_l1_31")


@pytest.fixture(scope="module")
def residual(lab: Lab, sae: str) -> str:
    return lab.run("exp1_residual_l1_31")


@pytest.fixture(scope="module")
def ranking(lab: Lab) -> str:
    return lab.run("gemma_135_extract") + lab.run("gemma_top_features")


def computed(output: str, stage: str) -> int:
    """How many steps of a stage a command computed."""
    line = next(line for line in output.splitlines() if line.startswith(f"stage {stage} "))
    return int(line.rpartition("reused, ")[2].split()[0])


def number_of(rows: list[dict[str, Any]], stat: str, group: str) -> dict[tuple[str, int], float]:
    """A statistic by space and feature."""
    result = (row for row in rows if row["stat"] == stat and row["group"] == group)
    return {(row["space"], row["feature"]): row["number"] for row in result}


def auroc(values: np.ndarray[Any, Any], positive: np.ndarray[Any, Any]) -> float:
    from scipy.stats import mannwhitneyu

    return float(
        mannwhitneyu(values[positive], values[~positive]).statistic
        / (positive.sum() * (~positive).sum())
    )


# --- Exp1 -----------------------------------------------------------------------------------------


def test_exp1_plays_its_own_games_on_an_empty_store(lab: Lab, sae: str) -> None:
    assert computed(sae, "exp0_llama/play") > 0
    games = lab.rows("games", "exp0_llama/play", "exp0_llama")
    assert len(games) == 200
    assert {"voluntary_stop", "bankruptcy"} <= {game["outcome"] for game in games}


def test_exp1_counts_by_corrected_p_and_with_the_cut_as_well(lab: Lab, sae: str) -> None:
    result = lab.export("exp1_sae_l1_31", "features.json")
    rows = lab.rows("features", "groups", "exp1_sae_l1_31")
    both = "bankruptcy vs voluntary_stop"
    q, d = (number_of(rows, stat, both) for stat in ("q", "d"))
    by_p = {key for key, value in q.items() if value <= 0.05}
    assert result["total_significant_by_p"] == len(by_p) > 50
    assert result["total_significant_features"] == sum(abs(d[key]) >= 0.3 for key in by_p) > 50
    assert result["total_experiments_processed"] == 200
    assert result["layers_analyzed"] == [0, 1, 2, 3]
    features = result["layer_results"]["3"]["significant_features"]
    assert all(None not in feature.values() for feature in features)


def test_exp1_finds_readers_of_the_documented_causes(lab: Lab, sae: str) -> None:
    """A reader tells decisions where the cause holds from the others, by its activation alone
    (AUROC above 0.9 or below 0.1).
    """
    meta = lab.rows("sample_meta", "samples", "exp1_sae_l1_31")
    balance = {row["sample"]: row["number"] for row in meta if row["key"] == "balance"}
    place = {name: index for index, name in enumerate(sorted(balance))}
    marks = number_of(
        lab.rows("features", "groups", "exp1_sae_l1_31"),
        "significant",
        "bankruptcy vs voluntary_stop",
    )
    values = {key: np.zeros(len(place)) for key, mark in marks.items() if mark}
    for row in lab.rows("activations", "features", "exp1_sae_l1_31"):
        for feature, value in zip(row["features"], row["values"], strict=True):
            if (row["space"], feature) in values:
                values[row["space"], feature][place[row["sample"]]] = value
    for cause, holds in CAUSES.items():
        present = np.array([holds(balance[name]) for name in sorted(balance)])
        assert max(abs(auroc(result, present) - 0.5) for result in values.values()) > 0.4, cause


def test_balance_and_round_explain_some_of_it_and_that_is_shown(lab: Lab, sae: str) -> None:
    rows = lab.rows("features", "groups", "exp1_sae_l1_31")
    plain, adjusted = (
        number_of(rows, stat, "bankruptcy vs voluntary_stop")
        for stat in ("significant", "significant_adjusted")
    )
    assert set(plain) == set(adjusted)
    assert 0 < sum(adjusted.values()) < sum(plain.values())


def test_what_half_of_the_games_found_is_measured_on_the_other_half(lab: Lab, sae: str) -> None:
    select, confirm = (
        lab.rows("features", stage, "exp1_sae_l1_31") for stage in ("select", "confirm")
    )
    both = "bankruptcy vs voluntary_stop"
    chosen = {key for key, value in number_of(select, "significant", both).items() if value}
    assert chosen
    assert {(row["space"], row["feature"]) for row in confirm} == chosen
    d, before = (number_of(confirm, stat, both) for stat in ("d", "d_select"))
    assert before == {
        key: value for key, value in number_of(select, "d", both).items() if key in chosen
    }
    assert sum(map(abs, d.values())) < sum(map(abs, before.values()))
    comparisons = lab.rows("comparisons", "confirm", "exp1_sae_l1_31")
    assert {row["half"] for row in comparisons} == {"confirm"}
    assert sum(group["shared"] for row in comparisons for group in row["groups"]) > 0


def test_what_metadata_and_a_probe_tell_stands_beside_the_features(lab: Lab, sae: str) -> None:
    aurocs = {
        row["name"]: row["value"]
        for row in lab.rows("baselines", "leak", "exp1_sae_l1_31")
        if row["metric"] == "auroc"
    }
    assert aurocs["balance"] > 0.7
    assert not {"action", "bet"} & set(aurocs)
    kinds = {row["kind"] for row in lab.rows("baselines", "probe", "exp1_sae_l1_31")}
    assert kinds == {"linear probe", "difference of means", "best feature"}


def test_the_same_command_computes_nothing_and_writes_the_same_file(lab: Lab, sae: str) -> None:
    file = lab.folder / "exp1_sae_l1_31" / "features.json"
    before = file.read_bytes()
    again = lab.run("exp1_sae_l1_31")
    assert all(
        line.endswith(" 0 to compute") for line in again.splitlines() if line.startswith("stage ")
    )
    assert file.read_bytes() == before


def test_the_raw_control_has_spaces_of_its_own_over_the_same_games(lab: Lab, residual: str) -> None:
    assert computed(residual, "exp0_llama/play") == 0
    raw = lab.rows("spaces", "residual", "exp1_residual_l1_31")
    saes = lab.rows("spaces", "features", "exp1_sae_l1_31")
    assert [row["hookpoint"] for row in sorted(raw, key=lambda row: row["hookpoint"])] == [
        f"resid_post.{n}" for n in (1, 2, 3)
    ]
    assert {row["sae"] for row in raw} == {None}
    assert not {row["space"] for row in raw} & {row["space"] for row in saes}
    result = lab.export("exp1_residual_l1_31", "features.json")
    assert result["feature_type"] == "raw_residual_128_per_layer"
    assert result["total_significant_by_p"] >= result["total_significant_features"] > 50
    assert (
        computed(residual, "leak") == 0
    )  # what metadata alone say is exp1_sae_l1_31's, word for word
    assert computed(residual, "probe") == 0  # and so is what is read off the same stream


def test_all_of_exp1_runs_each_distinct_prompt_once(lab: Lab, sae: str, residual: str) -> None:
    """Extraction does; then neither the probe nor the control loads a model."""
    events = [*lab.events("exp1_sae_l1_31"), *lab.events("exp1_residual_l1_31")]
    prompts = {tuple(row["token_ids"]) for row in lab.rows("samples", "samples", "exp1_sae_l1_31")}
    extracted = [
        event["facts"]
        for event in events
        if event["event"] == "part_event" and event["name"] == "extracted"
    ]
    assert sum(event["texts"] for event in extracted) == len(prompts)
    assert {event["passes"] for event in extracted} == {1}
    assert computed(residual, "features") == 0
    started = [event["stage"] for event in events if event["event"] == "step_started"]
    assert {"probe", "residual"} <= set(started)
    control = lab.events("exp1_residual_l1_31")
    assert [event["stage"] for event in control if event["event"] == "step_started"] == ["residual"]
    assert not [
        event for event in control if event["event"] == "phase" and event["phase"] == "load model"
    ]


def test_the_control_is_the_same_from_a_pass_of_its_own(lab: Lab, residual: str) -> None:
    """Its batches are others than those of the extraction, which moves the last bits of float32."""
    name = "exp1_residual_again"
    lab.run(
        "exp1_residual_l1_31",
        sets=[
            f"name={name}",
            "stages.features.with.stream=null",
            f"sinks.published.with.path={lab.folder / name}",
        ],
    )
    for table, stage in (("features", "residual"), ("baselines", "probe")):
        mine = lab.rows(table, stage, name)
        theirs = lab.rows(
            table, stage, "exp1_residual_l1_31" if stage == "residual" else "exp1_sae_l1_31"
        )
        assert len(mine) == len(theirs) > 0
        for row, other in zip(mine, theirs, strict=True):
            assert described(row) == described(other)
            assert measured(row) == pytest.approx(measured(other), rel=1e-4, abs=1e-4)


MEASURED = ("number", "value", "low", "high")


def described(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row is of. The id of its comparison is made of the step's key, which differs."""
    left_out = (*MEASURED, "text", "comparison")
    return {name: value for name, value in row.items() if name not in left_out}


def measured(row: Mapping[str, Any]) -> list[float]:
    """What it says."""
    return [row[name] for name in MEASURED if row.get(name) is not None]


def test_the_pathway_follows_features_through_games_and_layers(lab: Lab) -> None:
    lab.run("exp1_pathway")
    traces = lab.rows("traces", "pathway", "exp1_pathway")
    assert len({row["unit"] for row in traces}) == 50
    assert len({(row["space"], row["feature"]) for row in traces}) == 5 * 4
    games = lab.rows("games", "play", "exp1_pathway")
    decisions = {(row["unit"], row["sample"]) for row in traces}
    assert len(decisions) > len(games)
    links = lab.rows("links", "pathway", "exp1_pathway")
    assert all(row["space"] != row["other_space"] for row in links)
    assert max(abs(row["r"]) for row in links) > 0.8
    kinds = {
        row["kind"]
        for stage in ("leak", "probe")
        for row in lab.rows("baselines", stage, "exp1_pathway")
    }
    assert kinds == {
        "metadata",
        "together",
        "linear probe",
        "difference of means",
        "best feature",
    }


# --- the trait ------------------------------------------------------------------------------------


def test_the_extraction_is_not_made_again_for_the_ranking(ranking: str) -> None:
    first, second = ranking.index("stage features"), ranking.rindex("stage features")
    assert computed(ranking[first:], "features") > 0
    assert computed(ranking[second:], "features") == 0


def test_every_token_but_bos_is_a_fragment(lab: Lab, ranking: str) -> None:
    tokens = {
        row["sample"]: len(row["token_ids"])
        for row in lab.rows("samples", "samples", "gemma_135_extract")
    }
    places: dict[tuple[str, str], list[int]] = {}
    for row in lab.rows("activations", "features", "gemma_135_extract"):
        places.setdefault((row["space"], row["sample"]), []).append(row["position"])
    assert len(tokens) == 200
    assert len(places) == 200 * 4
    assert all(
        sorted(result) == list(range(1, tokens[sample])) for (_, sample), result in places.items()
    )


def test_the_best_feature_follows_the_number_of_bold_words(lab: Lab, ranking: str) -> None:
    result = ranked(lab)
    assert float(result[0]["pearson_corr"]) > 0.8
    means = [float(result[0][f"mean_label_{label}"]) for label in range(4)]
    assert means == sorted(means)
    examples = lab.export("gemma_top_features", "feature_examples.json")
    first = next(iter(examples.values()))["examples_by_label"]
    by_layer = {
        row["name"]: row["value"]
        for row in lab.rows("baselines", "probe", "gemma_top_features")
        if row["kind"] == "linear probe"
    }
    assert set(by_layer) == {f"resid_post.{layer}" for layer in range(4)}
    assert min(by_layer.values()) > 0.9
    lengths = [
        row["value"]
        for row in lab.rows("baselines", "leak", "gemma_top_features")
        if row["metric"] == "auroc"
    ]
    assert max(lengths) < 0.6
    for label in ("1", "2", "3"):
        assert [sum(word in finding["sentence"] for word in WORDS) for finding in first[label]] == [
            int(label)
        ] * 5


def test_no_link_leads_to_a_page_that_does_not_exist(lab: Lab, ranking: str) -> None:
    assert {row["neuronpedia_url"] for row in ranked(lab)} == {""}


def ranked(lab: Lab) -> list[Mapping[str, str]]:
    with (lab.folder / "gemma_top_features" / "ranked_features.csv").open(
        newline="", encoding="utf-8"
    ) as file:
        return list(csv.DictReader(file))


def test_two_sparsities_of_one_site_are_two_spaces(lab: Lab, ranking: str) -> None:
    lab.run("gemma_top_features", "lab_gemma")
    assert {(row["layer"], row["average_l0"]) for row in ranked(lab)} == {
        ("2", "12.0"),
        ("2", "30.0"),
    }


def test_prose_that_the_lab_does_not_know_is_refused_by_the_examination(lab: Lab) -> None:
    name, path = "gemma_135_extract", SPECS / "data" / "betting_caution.csv"
    args = [
        "run",
        str(SPECS / f"{name}.yaml"),
        "--overlay",
        str(SPECS / "lab.yaml"),
        "--set",
        f"samples.with.path={path}",
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOOLKIT_STORE": str(lab.store)}
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *args],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "does not fit at resid_post" in done.stderr


# --- Exp0 -----------------------------------------------------------------------------------------


def measures(lab: Lab, experiment: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The measures of an experiment by measure, subject and condition."""
    rows = lab.rows("measures", "behaviour", experiment)
    return {(row["measure"], row["subject"], row["condition"]): row for row in rows}


@pytest.fixture(scope="module")
def exp0(lab: Lab) -> str:
    """Exp0 of the base model, with more games than the lab's limit: three repetitions."""
    return lab.run("exp0_llama", sets=["limit.units=400"])


def test_exp0_plays_every_condition_and_says_how_games_end(lab: Lab, exp0: str) -> None:
    rows = measures(lab, "exp0_llama")
    conditions = {
        condition for measure, _, condition in rows if measure == "outcome" and "-c" in condition
    }
    assert sum(name.startswith("restart-") for name in conditions) == 128
    assert sum(name.startswith("corrected-cap70-") for name in conditions) == 10
    assert sum(name.startswith(("corrected-f", "corrected-v")) for name in conditions) == 64
    ruined = rows["outcome", "bankruptcy", "layout=corrected"]
    assert ruined["low"] < ruined["value"] < ruined["high"]
    for name in ("measures.csv", "outcomes.csv", "outcomes.tex"):
        assert (lab.folder / "exp0_llama" / name).stat().st_size > 100


def test_exp0_recovers_the_documented_causes_of_stopping(lab: Lab, exp0: str) -> None:
    """The lab model was taught to stop less with G, M and H and more with P; W does nothing."""
    rows = measures(lab, "exp0_llama")
    for name, sign in (("G", -1), ("M", -1), ("H", -1), ("P", 1)):
        effect = rows["odds:leaving", name, "all"]
        assert sign * effect["value"] > 0.2, name
        assert effect["q"] < 0.01, name
    nothing = rows["odds:leaving", "W", "all"]
    assert abs(nothing["value"]) < 0.35


def test_exp0_report_opens_with_the_outcome_table(lab: Lab, exp0: str) -> None:
    (page,) = (path for path in (lab.store / "runs").glob("exp0_llama-*/report.html"))
    text = page.read_text(encoding="utf-8")
    headings = re.findall("<h2[^>]*>([^<]*)", text)
    assert headings[0] == "Outcomes"
    assert "Methods" in headings[1:]


def test_exp0_of_the_chat_model_reads_replies_that_reason_first(lab: Lab) -> None:
    lab.run("exp0_gemma")
    rows = measures(lab, "exp0_gemma")
    assert rows["outcome", "bankruptcy", "all"]["value"] < 0.5
    assert rows["replies", "unreadable", "all"]["value"] < 0.1
    assert rows["replies", "truncated", "all"]["value"] < 0.01
    rounds = lab.rows("rounds", "play", "exp0_gemma")
    assert all(row["prompt"].count("<|begin|>") <= 1 for row in rounds)
    assert {row["action"] for row in rounds if row["parse"] == "ok"} == {"bet", "stop"}
    assert min(len(row["reply_ids"]) for row in rounds if row["finish"] == "stop") >= 10


# --- Exp3 -----------------------------------------------------------------------------------------


def test_exp3_finds_the_words_of_the_decision_and_reuses_the_extraction_of_exp1(
    lab: Lab, sae: str
) -> None:
    output = lab.run("exp3_feature_words")
    assert computed(output, "features") == 0
    assert computed(output, "exp0_llama/play") == 0
    words = lab.rows("feature_words", "words", "exp3_feature_words")
    confirmed = [row for row in words if row["verdict"] == "confirmed"]
    assert {row["word"] for row in confirmed} == {"bet", "stop"}
    assert len({row["feature"] for row in confirmed}) > 20
    for row in confirmed:
        assert (row["value"] > 0) == (row["high"] > row["low"]) == (row["confirm_value"] > 0)
    tokens = lab.rows("promoted_tokens", "tokens", "exp3_feature_words")
    readings = {row["method"] for row in tokens}
    assert readings == {"unembedding", "input_embedding"}
    assert all(len(row["promoted"]) == len(row["suppressed"]) == 10 for row in tokens)
    check_contexts(lab, {(row["space"], row["feature"]) for row in (*tokens, *words)})
    relations = lab.rows("cross_references", "references", "exp3_feature_words")
    named = {row["relation"] for row in relations}
    assert {"words~tokens", "fires in balance", "fires with attention to balance"} <= named
    of_features = [row for row in relations if row["relation"] == "fires in options"]
    assert all(0 < row["p"] <= row["q"] <= 1 for row in of_features)
    assert sum(row["q"] <= 0.05 for row in of_features) > 20
    assert {row["covariate"] for row in confirmed} <= {"balance", "round"}
    assert all(row["covariate_z"] is not None for row in confirmed)


def check_contexts(lab: Lab, described: set[tuple[str, int]]) -> None:
    """Every described feature that fires at any token of the situations has contexts, most of them
    before the last token.
    """
    activations = lab.rows("activations", "tracked", "exp3_feature_words")
    fired = {(row["space"], feature) for row in activations for feature in row["features"]}
    contexts = lab.rows("feature_contexts", "contexts", "exp3_feature_words")
    shown = {(row["space"], row["feature"]) for row in contexts}
    assert shown == described & fired
    assert max(row["rank"] for row in contexts) == 3
    at_the_end = [row for row in contexts if not row["after"]]
    assert len(at_the_end) < len(contexts) / 2


FEW_POINTS = """
only:
  exp2_patching_l1_31:
    stages:
      - id: causes
        with: {points: 16, directions: 100, direction_points: 6, candidates: {top: 12}}
  exp3_cross_reference:
    stages: [{id: references, with: {permutations: 199}}]
"""


def test_labels_words_places_and_verdicts_are_compared_with_each_other(lab: Lab) -> None:
    """Labels come from files, verdicts from the screen of Exp2, which runs on the way."""
    (lab.folder / "few.yaml").write_text(FEW_POINTS, encoding="utf-8")
    lab.run("exp3_cross_reference", str(lab.folder / "few"))
    labels = lab.rows("features", "labels", "exp3_cross_reference")
    assert len({(row["space"], row["feature"]) for row in labels}) > 2000
    rows = lab.rows("cross_references", "references", "exp3_cross_reference")
    over_all = {row["relation"] for row in rows if row["feature"] is None}
    assert {"label~words", "label~tokens", "label~effect:stop"} <= over_all
    single = {row["relation"] for row in rows if row["feature"] is not None}
    assert {"label~words", "fires in balance", "fires with attention to balance"} <= single
    assert all(0 < row["p"] <= row["q"] <= 1 for row in rows)
    (page,) = (lab.store / "runs").glob("exp3_cross_reference-*/report.html")
    shown = page.read_text(encoding="utf-8")
    assert "Descriptions of each feature" in shown
    assert "label~effect:stop" in shown
    assert "The agreement of labels with words of replies is" in shown
    assert "The rank correlation of what labels say with effects on P(stop) is" in shown
