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

TUTORIAL = Tutorial("a-model-loader")
MAMBA = TUTORIAL.module("toolkit_mamba.py")
TESTS = TUTORIAL.module("tests/test_mamba.py")


# --- the text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "files"),
    [("python", ("toolkit_mamba.py", "tests/test_mamba.py")), ("toml", ("pyproject.toml",))],
)
def test_the_text_quotes_the_package(language: str, files: tuple[str, ...]) -> None:
    TUTORIAL.check_quotes(language, files)


def test_the_text_shows_the_class_that_it_speaks_of() -> None:
    shown = "".join(TUTORIAL.blocks("python"))
    for method in (
        "def identify",
        "def load",
        "def encode",
        "def run",
        "def unembed",
        "def toolkit_parts",
        "def test_contract",
    ):
        assert method in shown


def test_the_module_is_as_short_as_the_text_says() -> None:
    TUTORIAL.check_length("toolkit_mamba.py")


# --- the package ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "test", [result for name, result in sorted(vars(TESTS).items()) if name.startswith("test_")]
)
def test_its_own_tests_pass(test: Callable[[Path], None], tmp_path: Path) -> None:
    test(tmp_path)


def tiny_sae(folder: Path) -> Path:
    """A random SAE on block 1 of the tiny model, in Llama Scope's layout."""
    import torch
    from safetensors.torch import save_file

    drawn = torch.Generator().manual_seed(0)
    norms = {"in": 32**0.5, "out": 32**0.5}  # so that nothing is scaled
    known = {
        "d_model": 32,
        "d_sae": 64,
        "hook_point_in": "blocks.1.hook_resid_post",
        "jump_relu_threshold": 0.01,
    }
    tensors = {
        "encoder.weight": torch.randn((64, 32), generator=drawn),
        "encoder.bias": torch.zeros(64),
        "decoder.weight": torch.randn((32, 64), generator=drawn),
        "decoder.bias": torch.zeros(32),
    }
    (folder / "Tiny-L1R-2x" / "checkpoints").mkdir(parents=True)
    save_file(tensors, folder / "Tiny-L1R-2x" / "checkpoints" / "final.safetensors")
    (folder / "Tiny-L1R-2x" / "hyperparams.json").write_text(
        json.dumps({**known, "dataset_average_activation_norm": norms})
    )
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pip_installs_it_and_a_run_goes_through_it(tmp_path: Path) -> None:
    """With the spec of the text, shortened to what is here."""
    TESTS.tiny_mamba(tmp_path / "mamba-130m")
    tiny_sae(tmp_path / "saes")
    (tmp_path / "texts.csv").write_text(
        "text,kind\none two three,a\nfour five,b\nsix seven eight nine,a\n"
    )
    (spec,) = map(yaml.safe_load, TUTORIAL.blocks("yaml"))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**spec, "examine": "warn"}))
    TUTORIAL.run(tmp_path / "spec.yaml")
    rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "activations.jsonl").read_text().splitlines()
    ]
    assert [(row["sample"], row["position"]) for row in rows] == [
        *(("000000", at) for at in range(3)),
        *(("000001", at) for at in range(2)),
        *(("000002", at) for at in range(4)),
    ]
    assert all(
        row["features"] and min(row["values"]) > 0 and max(row["features"]) < 64 for row in rows
    )
    (space,) = map(json.loads, (tmp_path / "out" / "spaces.jsonl").read_text().splitlines())
    assert space["address"] == "mamba-130m/resid_post.1/Tiny-L1R-2x"
