"""Random models for benchmarks: given shapes, random weights, no tokeniser."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from toolkit.identity import Identity
from toolkit_hf.engine import CausalModel


class _NoText:
    """Stands in for a tokeniser."""

    bos_token, bos_token_id, eos_token_id, chat_template = None, None, 0, None

    def decode(self, ids: Any, *, skip_special_tokens: bool = True) -> str:
        """No text."""
        return ""


def random_llama(
    *, device: str = "cpu", dtype: torch.dtype = torch.float32, **shape: Any
) -> CausalModel:
    """A Llama of a shape (`LlamaConfig`), made on its device, with the facts that a loader states
    of a real one.
    """
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module = LlamaForCausalLM._from_config(
                LlamaConfig(**shape), attn_implementation="sdpa"
            ).eval()
    finally:
        torch.set_default_dtype(before)
    return CausalModel(
        Identity("random-llama", "0", "0", _facts(module, dtype.itemsize)), module, _NoText()
    )


def stand_in(layers: int = 8, width: int = 512, vocabulary: int = 1024) -> CausalModel:
    """The small model that CPU benchmarks use in place of a real one."""
    return random_llama(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=2048,
    )


def _facts(module: Any, item: int) -> dict[str, Any]:
    """The facts that `identify` would state."""
    config, parameters = module.config, sum(value.numel() for value in module.parameters())
    blocks = sum(value.numel() for name, value in module.named_parameters() if ".layers." in name)
    same = {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "intermediate": config.intermediate_size,
    }
    return {
        **same,
        "item": item,
        "parameters": parameters,
        "block_parameters": blocks,
        "bytes": item * parameters,
    }
