"""`exp6_attention_only` asks for no SAE, not even where the spec names some."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from toolkit._cli import cli

ROOT = Path(__file__).parents[3]
CLOSED = ROOT / "tests" / "resources" / "closed_saes_plugin.py"
SAES = {
    "closed": "saes: {uses: closed_saes}",
    "missing": "saes: {uses: llama_scope, with: {path: no/such/folder, layers: all}}",
    "misspelt": "saes: {uses: closed_sae}",
}


def call(command: str, spec: str, saes: str, folder: Path) -> Result:
    overlay = folder / "saes.yaml"
    overlay.write_text(SAES[saes], encoding="utf-8")
    overlays = ("--overlay", str(ROOT / "specs" / "lab.yaml"), "--overlay", str(overlay))
    arguments = [command, str(ROOT / "specs" / f"{spec}.yaml"), *overlays, "--plugin", str(CLOSED)]
    return CliRunner().invoke(cli, arguments, env={"TOOLKIT_STORE": str(folder / "store")})


@pytest.mark.parametrize("saes", ["closed", "missing"])
@pytest.mark.parametrize("command", ["check", "plan", "fetch"])
def test_attention_alone_asks_for_no_sae(command: str, saes: str, tmp_path: Path) -> None:
    result = call(command, "exp6_attention_only", saes, tmp_path)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("saes", "said"), [("closed", "an SAE was asked for"), ("missing", "does not exist")]
)
def test_features_ask_for_them(saes: str, said: str, tmp_path: Path) -> None:
    """The same SAEs stop a spec that uses them."""
    result = call("check", "exp6_tokens", saes, tmp_path)
    assert said in str(result.exception)


def test_an_unused_sae_part_still_has_to_exist(tmp_path: Path) -> None:
    result = call("check", "exp6_attention_only", "misspelt", tmp_path)
    assert "closed_saes" in str(result.exception)
