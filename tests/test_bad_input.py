"""What a user gets wrong first, through the real command on the packaged model: each answer says
where, what, and what to do next.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from tests.toolkit.conftest import Toolkit, toolkit  # noqa: F401
from toolkit_lab import lab_files
from toolkit_lab.training.game import random_state
from toolkit_lab.training.layouts import render
from toolkit_store import open_store

MODEL, SAES = "package:toolkit_lab/files/model", "package:toolkit_lab/files/saes/Lab-LXR-4x"
TEXTS = "sentence,label\n" + "".join(
    f"Current balance: ${n}.,{'high' if n > 8 else 'low'}\n" for n in range(16)
)


@pytest.fixture
def spec(tmp_path):
    """Writes a small spec on the lab model: sixteen texts, features, a comparison. Keywords replace
    top-level entries.
    """

    def write(by: str = "label", between: tuple[str, str] = ("high", "low"), **top: Any) -> Path:
        (tmp_path / "texts.csv").write_text(TEXTS)
        compare = {"by": by, "between": list(between)}
        results = {
            "version": 1,
            "name": "small",
            "model": {"uses": "huggingface", "with": {"path": MODEL}},
            "saes": {"uses": "llama_scope", "with": {"path": SAES, "layers": [1]}},
            "samples": {"uses": "csv", "with": {"path": "texts.csv", "text": "sentence"}},
            "stages": [
                {"id": "features", "uses": "extract.activations"},
                {"id": "groups", "uses": "compare.welch", "needs": ["features"], "with": compare},
            ],
            **top,
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(results, sort_keys=False))
        return path

    return write


def copied(tmp_path: Path, what: str) -> Path:
    """A copy of packaged files, to damage."""
    return Path(shutil.copytree(lab_files() / what, tmp_path / Path(what).name))


def saes_at(path: Path, **params: Any) -> dict[str, Any]:
    return {"uses": "llama_scope", "with": {"path": str(path), **params}}


def refused(toolkit: Toolkit, path: Path, code: int = 2, command: str = "check", *args: str) -> str:  # noqa: F811
    result = toolkit.run(command, path, *args)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_the_good_spec_is_right(toolkit, spec):  # noqa: F811
    assert toolkit.run("check", spec()).returncode == 0


def test_truncated_weights(toolkit, spec, tmp_path):  # noqa: F811
    model = copied(tmp_path, "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    message = refused(toolkit, spec(model={"uses": "huggingface", "with": {"path": str(model)}}))
    assert f"{weights} is cut off: its header promises" in message
    assert "Copy or download it again." in message


def test_truncated_sae(toolkit, spec, tmp_path):  # noqa: F811
    saes = copied(tmp_path, "saes/Lab-LXR-4x")
    file = saes / "Lab-L1R-4x/checkpoints/final.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{file} is cut off" in refused(toolkit, spec(saes=saes_at(saes, layers=[1])))


@pytest.mark.slow
def test_saes_of_another_width(toolkit, spec, tmp_path):  # noqa: F811
    from toolkit.testing.planted import build_planted

    planted = build_planted(tmp_path / "planted")
    message = refused(toolkit, spec(saes=saes_at(planted.llama_scope)))
    assert "small.yaml" in message
    assert (
        "the SAEs of Planted-LXR-8x have the input width 48, but the stream of toolkit_lab/model "
        "is 128 wide" in message
    )


def test_a_layer_that_the_release_does_not_have(toolkit, spec):  # noqa: F811
    message = refused(toolkit, spec(), 2, "check", "--set", "saes.with.layers=1-31")
    assert (
        "saes.with.layers: Lab-LXR-4x has no SAE for layer 4; it has 0-3. Layers count from 0."
        in message
    )


def test_a_layer_that_the_model_does_not_have(toolkit, spec, tmp_path):  # noqa: F811
    saes = copied(tmp_path, "saes/Lab-LXR-4x")
    folder = (saes / "Lab-L3R-4x").rename(saes / "Lab-L9R-4x")
    known = folder / "hyperparams.json"
    known.write_text(known.read_text().replace("blocks.3.", "blocks.9."))
    message = refused(toolkit, spec(saes=saes_at(saes)))
    assert "has an SAE for layer 9, but toolkit_lab/model has only the layers 0 to 3" in message


def test_a_model_that_is_not_there_offline(toolkit, spec):  # noqa: F811
    message = refused(
        toolkit, spec(model={"uses": "huggingface", "with": {"id": "meta-llama/Llama-3.1-8B"}})
    )
    assert (
        "'meta-llama/Llama-3.1-8B' at revision 'main' is not in the Hugging Face cache" in message
    )
    assert "Unset HF_HUB_OFFLINE, name a cached revision, or a folder with `path:`." in message


def test_a_folder_that_is_not_there(toolkit, spec, tmp_path):  # noqa: F811
    message = refused(toolkit, spec(model={"uses": "huggingface", "with": {"path": "modl"}}))
    assert f"{tmp_path}/modl does not exist" in message
    assert "texts.csv" in message


@pytest.mark.slow
def test_an_sae_at_the_wrong_layer_stops_the_run(toolkit, spec, tmp_path):  # noqa: F811
    saes = copied(tmp_path, "saes/Lab-LXR-4x")
    known = saes / "Lab-L1R-4x" / "hyperparams.json"
    known.write_text(known.read_text().replace("blocks.1.", "blocks.2."))
    path = spec(saes=saes_at(saes, layers=[1]))
    draw = Random(0)
    prompts = [render(random_state(draw)) for _ in range(16)]
    (tmp_path / "texts.csv").write_text(
        "sentence,label\n"
        + "".join(
            f'"{prompt}",{("high", "low")[number % 2]}\n' for number, prompt in enumerate(prompts)
        )
    )
    message = refused(toolkit, path, 4, "run")
    assert "SAE Lab-L1R-4x does not fit at resid_post.2" in message
    assert "At resid_post.1 it would" in message
    assert "The layer is off by one." in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "labl"}, "labl"),
        ({"between": ("high", "lowest")}, "lowest"),
    ],
)
def test_groups_that_are_not_there(toolkit, spec, change, message):  # noqa: F811
    for command in ("check", "run"):
        output = refused(toolkit, spec(**change), 2, command)
        assert message in output
        assert "Did you mean" in output


@pytest.mark.slow
def test_a_text_over_the_context(toolkit, spec, tmp_path):  # noqa: F811
    path = spec()
    (tmp_path / "texts.csv").write_text(TEXTS + "word " * 100_000 + ",low\n")
    message = refused(toolkit, path, 3, "run")
    assert "tokens; toolkit_lab/model reads at most 2048" in message
    assert "texts.csv:18 (row 17)" in message
    store = open_store(toolkit.store, read_only=True)
    assert store.steps() == []


@pytest.mark.slow
def test_weights_that_give_nan(toolkit, spec, tmp_path):  # noqa: F811
    import torch
    from safetensors.torch import load_file, save_file

    model = copied(tmp_path, "model")
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    message = refused(
        toolkit,
        spec(model={"uses": "huggingface", "with": {"path": str(model)}}),
        3,
        "run",
        "--set",
        "examine=off",
    )
    assert "the stream at resid_post.1, position" in message
    assert "is not finite (NaN or infinity)" in message
