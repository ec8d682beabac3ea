"""Sizes of published models that are known without their files."""

from __future__ import annotations

import pytest
from transformers import Gemma2Config, LlamaConfig

from toolkit_hf._identity import HuggingFace, identify
from toolkit_hf._published import _models, published_facts

PARAMETERS = {
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b-it": 9_241_705_984,
}
"""As the model cards count them."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameters_are_those_of_the_architecture(name: str) -> None:
    """Counted by building the model without memory, as transformers does."""
    import torch
    from transformers import AutoModelForCausalLM

    shape = _models()[name]
    common = {
        "hidden_size": shape["width"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["key_heads"],
        "intermediate_size": shape["intermediate"],
        "vocab_size": shape["vocabulary"],
        "head_dim": shape["head_width"],
        "tie_word_embeddings": shape["tied"],
    }
    kind = LlamaConfig if shape["architecture"] == "llama" else Gemma2Config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(kind(**common))
    facts = published_facts(name, shape["revision"], "bfloat16")
    assert sum(weight.numel() for weight in model.parameters()) == facts["parameters"]
    assert facts["parameters"] == PARAMETERS[name]
    blocks = sum(weight.numel() for weight in model.model.layers.parameters())
    assert facts["block_parameters"] == blocks
    assert facts["bytes"] == 2 * PARAMETERS[name]


def test_another_revision_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    name = "meta-llama/Llama-3.1-8B"
    assert published_facts(name, "0" * 40, "bfloat16") == {}
    assert identify(HuggingFace(id=name, revision="0" * 40)).facts == {}
    pinned = HuggingFace(id=name, revision=_models()[name]["revision"], dtype="bfloat16")
    assert identify(pinned).facts["layers"] == 32


def test_what_the_weights_are_stored_in_is_not_guessed() -> None:
    name = "google/gemma-2-2b"
    facts = published_facts(name, _models()[name]["revision"], "auto")
    assert facts["layers"] == 26
    assert "bytes" not in facts
