"""The tutorial's package is real: its text quotes it, its own tests pass, it installs, and a run goes through it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
PACKAGE = TUTORIAL / "a-model-loader"
TEXT = (TUTORIAL / "a-model-loader.md").read_text(encoding="utf-8")


def module(name: str, path: Path) -> ModuleType:
    """A module from its file, under a name that others import it by."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


MAMBA = module("toolkit_mamba", PACKAGE / "toolkit_mamba.py")
TESTS = module("toolkit_mamba_tests", PACKAGE / "tests" / "test_mamba.py")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language in the tutorial's text."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


# --- the text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "files"), [("python", ("toolkit_mamba.py", "tests/test_mamba.py")), ("toml", ("pyproject.toml",))]
)
def test_the_text_quotes_the_package(language: str, files: tuple[str, ...]) -> None:
    """Word for word; only how far a block is indented is its own, and `...` stands for what is left out."""
    held = [(PACKAGE / file).read_text(encoding="utf-8") for file in files]
    assert blocks(language)
    for block in blocks(language):
        quotes = [part.strip("\n") for part in re.split(r"^ *\.\.\.\n", block, flags=re.MULTILINE)]
        found = [quote for quote in quotes if any(quote in text or textwrap.indent(quote, "    ") in text for text in held)]
        assert found == quotes


def test_the_text_shows_the_class_that_it_speaks_of() -> None:
    shown = "".join(blocks("python"))
    for method in ("def identify", "def load", "def encode", "def run", "def unembed", "def toolkit_parts", "def test_contract"):
        assert method in shown


def test_the_module_is_as_short_as_the_text_says() -> None:
    lines = (PACKAGE / "toolkit_mamba.py").read_text(encoding="utf-8").splitlines()
    (said,) = re.findall(r"under (\d+) lines", TEXT)
    assert int(said) - 10 <= len(lines) < int(said)


# --- the package --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", [found for name, found in sorted(vars(TESTS).items()) if name.startswith("test_")])
def test_its_own_tests_pass(test: Callable[[Path], None], tmp_path: Path) -> None:
    test(tmp_path)


def tiny_sae(folder: Path) -> Path:
    """A random SAE on block 1 of the tiny model, in Llama Scope's layout."""
    import torch
    from safetensors.torch import save_file

    drawn = torch.Generator().manual_seed(0)
    norms = {"in": 32**0.5, "out": 32**0.5}  # so that nothing is scaled
    known = {"d_model": 32, "d_sae": 64, "hook_point_in": "blocks.1.hook_resid_post", "jump_relu_threshold": 0.01}
    tensors = {
        "encoder.weight": torch.randn((64, 32), generator=drawn),
        "encoder.bias": torch.zeros(64),
        "decoder.weight": torch.randn((32, 64), generator=drawn),
        "decoder.bias": torch.zeros(32),
    }
    (folder / "Tiny-L1R-2x" / "checkpoints").mkdir(parents=True)
    save_file(tensors, folder / "Tiny-L1R-2x" / "checkpoints" / "final.safetensors")
    (folder / "Tiny-L1R-2x" / "hyperparams.json").write_text(json.dumps({**known, "dataset_average_activation_norm": norms}))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pip_installs_it_and_a_run_goes_through_it(tmp_path: Path) -> None:
    """With the spec of the text, shortened to what is here."""
    site = tmp_path / "site"
    pip = "pip install -q --no-deps --no-index --no-build-isolation --no-cache-dir --target".split()
    subprocess.run([sys.executable, "-m", *pip, str(site), str(PACKAGE)], check=True, timeout=120)
    TESTS.tiny_mamba(tmp_path / "mamba-130m")
    tiny_sae(tmp_path / "saes")
    (tmp_path / "texts.csv").write_text("text,kind\none two three,a\nfour five,b\nsix seven eight nine,a\n")
    (spec,) = map(yaml.safe_load, blocks("yaml"))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**spec, "examine": "warn"}))
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "run", str(tmp_path / "spec.yaml")],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "activations.jsonl").read_text().splitlines()]
    assert [(row["sample"], row["position"]) for row in rows] == [
        *(("000000", at) for at in range(3)),
        *(("000001", at) for at in range(2)),
        *(("000002", at) for at in range(4)),
    ]
    assert all(row["features"] and min(row["values"]) > 0 and max(row["features"]) < 64 for row in rows)
    (space,) = map(json.loads, (tmp_path / "out" / "spaces.jsonl").read_text().splitlines())
    assert space["address"] == "mamba-130m/resid_post.1/Tiny-L1R-2x"
