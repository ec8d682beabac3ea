"""Tiny random checkpoints of every architecture that `huggingface` loads, written by transformers
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

LAYERS, WIDTH, HEADS, CONTEXT, WINDOW = 4, 32, 4, 64, 8
BEGIN, END = "<begin>", "<end>"
CHAT = (
    "{{ bos_token or '' }}{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{{ "
    "eos_token }}{% endfor %}<model>"
)
SIZES: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
}
ROTARY: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
}
PLAIN = {
    "attn_z": ("self_attn.o_proj", True),
    "attn_out": ("self_attn", False),
    "resid_mid": ("post_attention_layernorm", True),
    "mlp_in": ("post_attention_layernorm", False),
    "mlp_raw": ("mlp", False),
    "mlp_out": ("mlp", False),
}
"""Where a plain hook sees a site: a module of the block, and whether what goes in (True) or comes
out.
"""


@dataclass(frozen=True)
class Family:
    """An architecture: its config, what its tokeniser begins and ends texts with, and where plain
    hooks see its sites.
    """

    name: str
    config: Any
    bos: str | None = BEGIN
    blocks: str = "model.layers"
    plain: Any = None
    norm: str = "post_attention_layernorm"
    windows: tuple[int | None, ...] = (None,) * LAYERS
    eager: bool = False


FAMILIES = {
    family.name: family
    for family in (
        Family("llama", LlamaConfig(**ROTARY)),
        Family(
            "mistral",
            MistralConfig(**ROTARY, head_dim=8, sliding_window=WINDOW),
            windows=(WINDOW,) * LAYERS,
        ),
        Family("qwen2", Qwen2Config(**ROTARY, tie_word_embeddings=True), bos=None),
        Family(
            "qwen3",
            Qwen3Config(
                **ROTARY,
                head_dim=16,
                use_sliding_window=True,
                sliding_window=WINDOW,
                max_window_layers=2,
            ),
            bos=None,
            windows=(None, None, WINDOW, WINDOW),
        ),
        Family(
            "gemma2",
            Gemma2Config(
                **ROTARY,
                head_dim=16,
                query_pre_attn_scalar=8,
                sliding_window=WINDOW,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=4.0,
            ),
            plain={
                **PLAIN,
                "attn_out": ("post_attention_layernorm", False),
                "resid_mid": ("pre_feedforward_layernorm", True),
                "mlp_in": ("pre_feedforward_layernorm", False),
                "mlp_out": ("post_feedforward_layernorm", False),
            },
            norm="pre_feedforward_layernorm",
            windows=(WINDOW, None, WINDOW, None),
            eager=True,
        ),
        Family(
            "gpt2",
            GPT2Config(**SIZES, n_positions=CONTEXT, n_inner=48),
            bos=END,
            blocks="transformer.h",
            plain={
                "attn_z": ("attn.c_proj", True),
                "attn_out": ("attn", False),
                "resid_mid": ("ln_2", True),
                "mlp_in": ("ln_2", False),
                "mlp_raw": ("mlp", False),
                "mlp_out": ("mlp", False),
            },
            norm="ln_2",
        ),
        *(
            Family(
                name,
                GPTNeoXConfig(
                    **SIZES,
                    intermediate_size=48,
                    max_position_embeddings=CONTEXT,
                    rope_parameters={
                        "rope_type": "default",
                        "rope_theta": 10000.0,
                        "partial_rotary_factor": 0.5,
                    },
                    use_parallel_residual=parallel,
                ),
                bos=END,
                blocks="gpt_neox.layers",
                plain={
                    **PLAIN,
                    "attn_z": ("attention.dense", True),
                    "attn_out": ("attention", False),
                },
            )
            for name, parallel in (("pythia", True), ("neox-sequential", False))
        ),
    )
}


def build(family: Family, folder: Path) -> Path:
    """Write a checkpoint whose every tensor is random: gains are not 1 and biases not 0, so that
    leaving one out shows.
    """
    torch.manual_seed(11)
    ends = {
        "bos_token_id": None if family.bos is None else 256,
        "eos_token_id": 257,
        "pad_token_id": None,
    }
    for name, token in ends.items():
        setattr(
            family.config,
            name,
            token if family.bos == BEGIN or name != "bos_token_id" or token is None else 257,
        )
    module = AutoModelForCausalLM.from_config(family.config)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            gain = 1.0 if "norm" in name or ".ln_" in name else 0.0
            own = 0.0 if name.endswith("bias") or family.name == "gemma2" else gain
            weight.copy_(own + (0.3 if weight.ndim == 2 else 0.2) * torch.randn_like(weight))
    module.save_pretrained(folder)
    tokeniser(family).save_pretrained(folder)
    return folder


def tokeniser(family: Family) -> Any:
    """A token a byte; BOS as the real ones have it: put before by the tokeniser, the same as EOS
    but not put there, or none.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(
        models.BPE({**{letter: at for at, letter in enumerate(letters)}, BEGIN: 256, END: 257}, [])
    )
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([BEGIN, END])
    if family.bos == BEGIN:
        plain.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, 256)]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token=family.bos, eos_token=END)
    made.chat_template = CHAT
    return made
