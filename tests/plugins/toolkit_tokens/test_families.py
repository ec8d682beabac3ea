"""Attribution on small random models of other families: caps, shared heads, scaled branches, norms
behind attention and learned positions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.plugins.toolkit_hf.families import FAMILIES, LAYERS, WIDTH, build
from tests.plugins.toolkit_tokens.conftest import loaded, run, samples_of
from toolkit_saes.encode.canonical import CanonicalSae, Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.weights import Weights

NAMES = ("llama", "gemma2", "gpt2", "qwen3", "pythia", "granite", "olmo2")
WIDE = 96


def sae_of(layer: int) -> CanonicalSae:
    """A random SAE, which explains little: most of a stream is its error."""
    draw = torch.Generator().manual_seed(layer)
    matrix = Matrix(torch.randn(WIDE, WIDTH, generator=draw) / WIDTH**0.5)
    weights = Weights(matrix, torch.zeros(WIDE), matrix, torch.zeros(WIDTH), gate="topk", k=8)
    facts = Facts(f"r{layer}", "random", f"resid_post.{layer}", WIDE, WIDTH, "0", "topk", 8.0)
    return CanonicalSae(facts, lambda: weights)


@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up(name: str, tmp_path: Any) -> None:
    model = loaded(build(FAMILIES[name], tmp_path / name))
    texts = {
        "clean": ("Balance 100 now", [("balance", 8, 11)]),
        "changed": ("Balance 9 now", [("balance", 8, 9)]),
    }
    tables = samples_of(model, texts, changed_from={"changed": "clean"})
    saes = [sae_of(1), sae_of(LAYERS - 1)]
    params = {"plus": ["1"], "minus": ["2"], "steps": 32, "exact_features": 4}
    results = run("stage", "attribute.tokens", params, tables, model=model, saes=saes)
    checks = results["attribution_checks"].to_pylist()
    scale = max(abs(row["measured"]) for row in checks if row["measured"] is not None)
    for row in checks:
        if row["method"] == "direct":
            if name != "gemma2":  # its logits are capped, and parts are read before the cap
                assert row["total"] == pytest.approx(row["measured"], abs=2e-4 * (1 + scale))
        if row["method"] == "integrated_gradients":
            gap = 0.02 * (scale + abs(row["measured"]))
            assert row["total"] == pytest.approx(row["measured"], abs=gap)
    for method in ("attribution_patching", "relp", "gradient_activation"):
        sums = {
            (row["layer"], row["part"]): row["total"] for row in checks if row["method"] == method
        }
        for layer in (1, LAYERS - 1):
            assert sums[layer, "token"] == pytest.approx(sums[layer, "feature"], abs=1e-4)
    last = [
        row
        for row in results["attributions"].to_pylist()
        if row["part"] == "token"
        and row["layer"] == LAYERS - 1
        and row["method"] == "integrated_gradients"
    ]
    at_last = max(row["position"] for row in last)
    for row in last:
        if row["position"] != at_last:
            assert row["exact"] == pytest.approx(0, abs=1e-5), "nothing reads it any more"
