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
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PersimmonConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from toolkit.models.families import Family as Names

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

SANDWICH = {
    **PLAIN,
    "attn_out": ("post_attention_layernorm", False),
    "resid_mid": ("pre_feedforward_layernorm", True),
    "mlp_in": ("pre_feedforward_layernorm", False),
    "mlp_out": ("post_feedforward_layernorm", False),
}


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
    names: Names | None = None
    branch: float = 1.0
    """What attention and MLP are multiplied by before they enter the stream."""
    unsupported: tuple[str, ...] = ()
    """Sites that the architecture does not have."""
    gain: float = 0.0
    """What is added to the weights of its norms."""

    @property
    def loader_params(self) -> dict[str, Any]:
        """Params of `huggingface` besides the folder."""
        return {"family": self.names} if self.names else {}


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
            plain=SANDWICH,
            norm="pre_feedforward_layernorm",
            windows=(WINDOW, None, WINDOW, None),
            eager=True,
            gain=1.0,
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
        Family(
            "gemma3",
            Gemma3TextConfig(
                **ROTARY,
                head_dim=16,
                query_pre_attn_scalar=8,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention"] * 2,
                final_logit_softcapping=4.0,
            ),
            plain=SANDWICH,
            norm="pre_feedforward_layernorm",
            windows=(WINDOW, None, WINDOW, None),
            gain=1.0,
        ),
        Family(
            "granite",
            GraniteConfig(
                **ROTARY,
                embedding_multiplier=3.0,
                residual_multiplier=0.4,
                attention_multiplier=0.3,
                logits_scaling=2.5,
            ),
            branch=0.4,
        ),
        Family(
            "phi3",
            Phi3Config(**ROTARY, sliding_window=WINDOW),
            windows=(WINDOW,) * LAYERS,
        ),
        Family(
            "olmo2",
            Olmo2Config(**ROTARY),
            plain={
                **PLAIN,
                "attn_out": ("post_attention_layernorm", False),
                "resid_mid": ("mlp", True),
                "mlp_in": ("mlp", True),
                "mlp_out": ("post_feedforward_layernorm", False),
            },
            unsupported=("mlp_in_normed",),
        ),
        Family(
            "smollm3",
            SmolLM3Config(
                **ROTARY,
                no_rope_layers=[1, 0, 1, 0],
                use_sliding_window=True,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention"] * 2,
            ),
            windows=(WINDOW, None, WINDOW, None),
        ),
        Family(
            "persimmon",
            PersimmonConfig(
                **{name: value for name, value in ROTARY.items() if name != "num_key_value_heads"}
            ),
            plain={
                **PLAIN,
                "attn_z": ("self_attn.dense", True),
            },
            names=Names(
                name="persimmon",
                blocks="model.layers",
                embedding="model.embed_tokens",
                norm="model.final_layernorm",
                rotary="model.rotary_emb",
                attention="self_attn",
                attention_end="self_attn.dense",
                mlp="mlp",
                mlp_norm="post_attention_layernorm",
            ),
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
            offset = 0.0 if name.endswith("bias") else gain - family.gain * gain
            weight.copy_(offset + (0.3 if weight.ndim == 2 else 0.2) * torch.randn_like(weight))
    module.save_pretrained(folder)
    tokeniser(family).save_pretrained(folder)
    return folder


def tokeniser(family: Family) -> Any:
    """A token a byte; BOS as the real ones have it: put before by the tokeniser, the same as EOS
    but not put there, or none.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(
        models.BPE(
            {**{letter: index for index, letter in enumerate(letters)}, BEGIN: 256, END: 257}, []
        )
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
