"""The tutorial's package is real: its text quotes it, its own tests pass, it installs, and a run
goes through it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.docs.tutorials import Tutorial
from toolkit.testing.fakes import SilentReporter
from toolkit_lab import saes_path
from toolkit_saes import toolkit_parts

TUTORIAL = Tutorial("an-sae-adapter")
SPARSIFY = TUTORIAL.module("toolkit_sparsify.py")
TESTS = TUTORIAL.module("tests/test_sparsify.py")


# --- the text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "files"),
    [("python", ("toolkit_sparsify.py", "tests/test_sparsify.py")), ("toml", ("pyproject.toml",))],
)
def test_the_text_quotes_the_package(language: str, files: tuple[str, ...]) -> None:
    TUTORIAL.check_quotes(language, files)


def test_the_text_shows_what_it_speaks_of() -> None:
    shown = "".join(TUTORIAL.blocks("python"))
    for part in (
        "class Sparsify(",
        "def identify",
        "def encode",
        "def decode",
        "def decoder_rows",
        "def toolkit_parts",
    ):
        assert part in shown


def test_the_module_is_as_short_as_the_text_says() -> None:
    TUTORIAL.check_length("toolkit_sparsify.py")


# --- the package ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "test", [result for name, result in sorted(vars(TESTS).items()) if name.startswith("test_")]
)
def test_its_own_tests_pass(test: Callable[[Path], None], tmp_path: Path) -> None:
    test(tmp_path)


def as_sparsify(folder: Path) -> None:
    """The lab's SAE of layer 2 with the 30 largest instead of a threshold, as sparsify would have
    written it.
    """
    import torch
    from safetensors.torch import save_file

    (part,) = (part for part in toolkit_parts() if part.name == "llama_scope")
    (sae,) = part.load(part.params(path=str(saes_path()), layers=2), SilentReporter())
    weights = sae.weights(torch.empty(0))
    w_enc, w_dec = (
        matrix.rows(range(sae.width)).contiguous() for matrix in (weights.w_enc, weights.w_dec)
    )
    bias = weights.b_enc + w_enc @ weights.b_dec  # what subtracting b_dec takes away
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(
        json.dumps({"d_in": sae.inputs, "num_latents": sae.width, "k": 30})
    )
    tensors = {
        "encoder.weight": w_enc,
        "encoder.bias": bias,
        "W_dec": w_dec,
        "b_dec": weights.b_dec,
    }
    save_file(tensors, folder / "sae.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pip_installs_it_and_a_run_goes_through_it(tmp_path: Path) -> None:
    """With the spec of the text; the SAE passes the examination."""
    as_sparsify(tmp_path / "saes" / "layers.2")
    games = [
        f"You have ${10 * at}. The last spin {outcome}. Do you bet or stop?"
        for at in range(1, 9)
        for outcome in ("won", "lost")
    ]
    (tmp_path / "texts.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in games))
    (spec,) = map(yaml.safe_load, TUTORIAL.blocks("yaml"))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    TUTORIAL.run(tmp_path / "spec.yaml")
    results = {
        name: [
            json.loads(line)
            for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()
        ]
        for name in ("activations", "saes", "spaces")
    }
    assert {row["verdict"] for row in results["saes"] if row["site"] == "resid_post.2"} == {"fits"}
    assert all(0 < len(row["features"]) <= 30 for row in results["activations"])
    assert {row["sample"] for row in results["activations"]} == {
        f"{at:06d}" for at in range(len(games))
    }
    (space,) = results["spaces"]
    assert space["address"].endswith("/resid_post.2/layers.2")
    assert space["recipe"] == "sparsify: topk of ReLU, b_dec subtracted"
