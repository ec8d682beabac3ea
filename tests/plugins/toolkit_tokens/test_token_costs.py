"""What tracking is forecast to store, against what the store then holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.plugins.toolkit_tokens.conftest import PARTS, SCENARIOS, run
from tests.scripts import load_benchmark
from toolkit._cli import cli
from toolkit._plan.texts import workload
from toolkit._plan.token_estimate import estimated_tokens
from toolkit.costs import Workload
from toolkit_lab import model_path, saes_path

ROOT = Path(__file__).parents[3]
TOKEN_BYTES = load_benchmark("_token_bytes")
LLAMA_TOKENS, published_rows = TOKEN_BYTES.LLAMA_TOKENS, TOKEN_BYTES.published_rows
written = TOKEN_BYTES.written


def forecast(load: Workload, **params: Any) -> int:
    part = PARTS.get("stage", "track.tokens")
    return part.estimates.cost(part.params.model_validate(params), load).disk


@pytest.mark.parametrize("params", [{}, {"attention": {"top": 20}}])
def test_what_a_run_on_the_lab_stores(
    params: Any, lab: Any, lab_saes: Any, scenarios: Any, tmp_path: Path
) -> None:
    facts = []
    for kind, name, path in (
        ("model", "huggingface", model_path()),
        ("sae", "llama_scope", saes_path()),
    ):
        part = PARTS.get(kind, name)
        facts.append(SimpleNamespace(identity=part.identify(part.params(path=str(path)))))
    load = workload(scenarios["samples"], *facts)
    tables = run("stage", "track.tokens", params, scenarios, model=lab, saes=lab_saes)
    kept = {name: tables[name] for name in ("activations", "attention")}
    assert forecast(load, **params) == pytest.approx(written(tmp_path, kept), rel=0.1)


def test_the_estimate_without_a_tokeniser_is_near_its_count() -> None:
    part = PARTS.get("source", "scenarios")
    texts = part.estimates.texts(part.params.model_validate(SCENARIOS, context={"parts": PARTS}))
    estimates = [estimated_tokens(text) for _, text in texts]
    assert estimates == pytest.approx(list(LLAMA_TOKENS), abs=2)


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The bytes of rows of the published shape at two layers, for texts as long as the tokeniser of
    the model says.
    """
    return written(tmp_path_factory.mktemp("two_layers"), published_rows(LLAMA_TOKENS, 2))


@pytest.mark.parametrize("spec", ["exp6_tokens", "exp6_tokens_l1_31"])
def test_an_offline_plan_at_8b_forecasts_what_such_a_run_stores(
    spec: str, two_layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan has neither model nor tokeniser."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no_models"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no_models"))
    command = [
        "plan",
        str(ROOT / "specs" / f"{spec}.yaml"),
        "--store",
        str(tmp_path / "s"),
        "--json",
    ]
    planned = json.loads(CliRunner().invoke(cli, command, catch_exceptions=False).stdout)
    (cost,) = [stage["cost"] for stage in planned["stages"] if stage["stage"] == "tokens"]
    assert cost["tokens_from"] == "estimate"
    assert cost["tokens"] == pytest.approx(sum(LLAMA_TOKENS), rel=0.02)
    layers = 3 if spec == "exp6_tokens" else 31
    assert cost["disk"] == pytest.approx(two_layers * layers / 2, rel=0.1)


def test_a_plan_says_how_it_counted_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no_models"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no_models"))
    specs = ROOT / "specs"
    command = ["plan", str(specs / "exp6_tokens.yaml"), "--store", str(tmp_path / "s")]
    at_8b = CliRunner().invoke(cli, command, catch_exceptions=False).stdout
    assert "Tokens of samples, examine, tokens, spans: estimated from the words" in at_8b
    assert re.search(r"^tokens +13 ", at_8b, re.MULTILINE)
    command += ["--overlay", str(specs / "lab.yaml")]
    on_the_lab = CliRunner().invoke(cli, command, catch_exceptions=False).stdout
    assert "Tokens of samples, examine, tokens, spans: counted by the model's tokeniser." in (
        on_the_lab
    )


def test_rows_of_the_published_shape(tmp_path: Path) -> None:
    """Ten texts of 121 tokens, two layers of 31 written: the forecast of all 31 is so many times as
    much.
    """
    load = Workload(
        samples=10, distinct=10, tokens=1210, longest=121,
        model={"layers": 32, "heads": 32, "width": 4096},
        saes={"count": 31, "layers": list(range(1, 32)), "features": 31 * 32768, "l0": 31 * 50.0},
    )  # fmt: skip
    stored = written(tmp_path, published_rows([121] * 10, 2))
    assert forecast(load) == pytest.approx(stored * 31 / 2, rel=0.1)
