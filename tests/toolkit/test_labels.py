"""A label or group that the data do not have is refused by `check`, with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = "text,group,score\nThe cat sat.,calm,1\nThe dog ran.,bold,2\nA bird flew.,calm,3\n"
SPEC = """version: 1
name: a
model: {{uses: huggingface, with: {{path: "package:toolkit_lab/files/model"}}}}
saes: {{uses: llama_scope, with: {{path: "package:toolkit_lab/files/saes/Lab-LXR-4x"}}}}
samples: {{uses: csv, with: {{path: texts.csv}}}}
stages:
  - {{id: features, uses: extract.activations}}
  - {{id: groups, uses: compare.welch, needs: [features], with: {{{params}}}}}
"""


def checked(toolkit, folder: Path, params: str):
    (folder / "texts.csv").write_text(TEXTS)
    (folder / "a.yaml").write_text(SPEC.format(params=params))
    return toolkit.run("check", folder / "a.yaml")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            "by: grop, between: [bold, calm]",
            "a.yaml:8: stages.1.with.by: the samples of texts.csv have no metadata key 'grop'. "
            "Did you mean 'group'? Their keys: group, score.",
        ),
        (
            "by: group, between: [bolt, calm]",
            "a.yaml:8: stages.1.with.between: no sample of texts.csv has group 'bolt'. "
            "Did you mean 'bold'? Its values: bold, calm.",
        ),
        (
            "by: group, between: [bold, calm], covariates: [scor]",
            "a.yaml:8: stages.1.with.covariates: the samples of texts.csv have no metadata key "
            "'scor'. Did you mean 'score'?",
        ),
        (
            "by: score, between: [1, 4]",
            "no sample of texts.csv has score '4'. Its values: 1, 2, 3.",
        ),
        ("by: group, between: [bold, calm], unit: author", "no metadata key 'author'."),
    ],
)
def test_a_slip_in_a_label_is_refused(toolkit, tmp_path, params, message) -> None:
    done = checked(toolkit, tmp_path, params)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    "params",
    ["by: group, between: [bold, rest]", "by: score, between: [1, 3], unit: sample, within: group"],
)
def test_labels_that_are_there_pass(toolkit, tmp_path, params) -> None:
    done = checked(toolkit, tmp_path, params)
    assert done.returncode == 0, done.stderr


def test_prompts_in_the_spec_are_looked_at_too(toolkit, tmp_path) -> None:
    prompts = "{uses: prompts, with: {prompts: [{text: A b., kind: x}, {text: C d., kind: y}]}}"
    text = SPEC.format(params="by: kind, between: [x, z]")
    text = text.replace("{uses: csv, with: {path: texts.csv}}", prompts)
    (tmp_path / "a.yaml").write_text(text)
    done = toolkit.run("check", tmp_path / "a.yaml")
    assert done.returncode == 2
    assert "no sample of 'samples' has kind 'z'. Its values: x, y." in done.stderr


def test_features_of_one_release_are_not_used_with_saes_of_another(toolkit, tmp_path) -> None:
    text = (ROOT / "specs" / "quickstart.yaml").read_text()
    assert "  - id: causes\n" in text
    path = tmp_path / "a.yaml"
    folder = ROOT / "plugins" / "toolkit_lab" / "files" / "gemma_scope"
    saes = f"    saes: {{uses: gemma_scope, with: {{path: {folder}}}}}\n"
    path.write_text(text.replace("  - id: causes\n", f"  - id: causes\n{saes}"))
    line = path.read_text().splitlines().index(saes.rstrip()) + 1
    done = toolkit.run("check", path)
    assert done.returncode == 2
    assert f"a.yaml:{line}: stages." in done.stderr
    assert "reads features of toolkit_lab/model/Lab-LXR-4x@local (stage 'features')" in done.stderr
    assert "and uses toolkit_lab/model/gemma_scope@local." in done.stderr


SPARSE = """version: 1
name: a
model: {uses: huggingface, with: {path: "package:toolkit_lab/files/model"}}
saes: {uses: gemma_scope, with: {path: "package:toolkit_lab/files/gemma_scope", layers: 2, l0: L0S}}
samples: {uses: games, from: {stage: play}}
stages:
  - {id: play, uses: play.games, with: {game: {uses: slot_machine}}}
  - {id: features, uses: extract.activations}
"""
LAB = "package:toolkit_lab/files/gemma_scope"
OTHER = f"{{uses: gemma_scope, with: {{path: '{LAB}', layers: 2, l0: [30]}}}}"
GROUPS = "by: outcome, between: [bankruptcy, voluntary_stop]"
SCREENED = f"""  - {{id: groups, uses: compare.welch, needs: [features], with: {{{GROUPS}}}}}
  - id: causes
    uses: patch.delta
    needs: [groups, features]
    with: {{outcomes: {{stop: ["2"], bet: ["1"]}}}}
    saes: {OTHER}
"""
CONFIRMED = f"""  - {{id: other, uses: extract.activations, saes: {OTHER}}}
  - {{id: select, uses: compare.welch, needs: [features], with: {{{GROUPS}, half: select}}}}
  - id: confirm
    uses: compare.welch
    needs: [other, select]
    with: {{{GROUPS}, half: confirm, family: discovered}}
"""
SPACE = "toolkit_lab/model/resid_post.2/layer_2/width_1k/average_l0_"


@pytest.mark.parametrize(
    ("stages", "field", "message"),
    [
        (SCREENED, "saes", f"reads features of {SPACE}12 (stage 'features') and uses {SPACE}30."),
        (
            CONFIRMED,
            "needs",
            f"confirms results of stage 'select' in {SPACE}12 (stage 'features'), but reads "
            f"activations of {SPACE}30 (stage 'other').",
        ),
    ],
    ids=["screened", "confirmed"],
)
def test_two_sparsities_of_a_layer_are_two_spaces(
    toolkit, tmp_path, stages: str, field: str, message: str
) -> None:
    (tmp_path / "a.yaml").write_text(SPARSE.replace("L0S", "[12]") + stages)
    refused = toolkit.run("check", tmp_path / "a.yaml")
    assert refused.returncode == 2
    assert f": stages.{3 if field == 'saes' else 4}.{field}: stage " in refused.stderr
    assert message in refused.stderr
    (tmp_path / "b.yaml").write_text(SPARSE.replace("L0S", "[12, 30]") + stages)
    shared = toolkit.run("check", tmp_path / "b.yaml")
    assert shared.returncode == 0, shared.stderr


PLAYED = """version: 1
name: a
model: {{uses: huggingface, with: {{path: "package:toolkit_lab/files/model"}}}}
saes: {{uses: llama_scope, with: {{path: "package:toolkit_lab/files/saes/Lab-LXR-4x"}}}}
samples: {{uses: games, from: {{stage: play}}}}
stages:
  - {{id: play, uses: play.games, with: {{game: {{uses: slot_machine}}}}}}
  - {{id: features, uses: extract.activations}}
  - {{id: groups, uses: compare.welch, needs: [features], with: {{{params}}}}}
"""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            "by: outcom, between: [bankruptcy, voluntary_stop]",
            "a.yaml:9: stages.2.with.by: the samples of 'samples' have no metadata key 'outcom'. "
            "Did you mean 'outcome'?",
        ),
        (
            "by: outcome, between: [bankrupt, voluntary_stop]",
            "no sample of 'samples' has outcome 'bankrupt'. Did you mean 'bankruptcy'?",
        ),
        (
            "by: outcome, between: [bankruptcy, voluntary_stop], covariates: [balanc]",
            "stages.2.with.covariates: the samples of 'samples' have no metadata key 'balanc'. "
            "Did you mean 'balance'?",
        ),
        ("by: mode, between: [fixed, varied]", "Its values: fixed, variable."),
    ],
)
def test_labels_of_games_are_known_before_they_are_played(
    toolkit, tmp_path, params, message
) -> None:
    (tmp_path / "a.yaml").write_text(PLAYED.format(params=params))
    done = toolkit.run("check", tmp_path / "a.yaml")
    assert done.returncode == 2
    assert message in done.stderr


def test_labels_of_games_that_are_there_pass(toolkit, tmp_path) -> None:
    params = (
        "by: outcome, between: [bankruptcy, voluntary_stop], unit: game, within: mode, "
        "covariates: [balance, round, losses_in_a_row]"
    )
    (tmp_path / "a.yaml").write_text(PLAYED.format(params=params))
    done = toolkit.run("check", tmp_path / "a.yaml")
    assert done.returncode == 0, done.stderr


def test_features_of_one_layer_are_not_used_with_saes_of_another(toolkit, tmp_path) -> None:
    """Also within one release: a number means something in its own space only."""
    text = (ROOT / "specs" / "quickstart.yaml").read_text()
    release = "package:toolkit_lab/files/saes/Lab-LXR-4x"
    override = f"saes: {{uses: llama_scope, with: {{path: '{release}', %s}}}}"
    text = text.replace("  - id: causes\n", f"  - id: causes\n    {override % 'layers: [1]'}\n")
    features = "{id: features, uses: extract.activations"
    assert features in text
    text = text.replace(features, f"{features}, {override % 'layers: [2, 3]'}")
    path = tmp_path / "a.yaml"
    path.write_text(text)
    done = toolkit.run("check", path)
    assert done.returncode == 2, done.stdout
    other = "toolkit_lab/model/resid_post.1/Lab-L1R-4x"
    features = ", ".join(f"toolkit_lab/model/resid_post.{at}/Lab-L{at}R-4x" for at in (2, 3))
    assert f"features of {features} (stage 'features') and uses {other}." in done.stderr
