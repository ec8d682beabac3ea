"""How a family of decoders names its modules. `huggingface` knows some families; a new one is such
a mapping under `model.with.family` of a spec and needs no code.

```yaml
model:
  uses: huggingface
  with:
    path: ../persimmon-8b
    family:
      name: persimmon
      blocks: model.layers
      embedding: model.embed_tokens
      norm: model.final_layernorm
      rotary: model.rotary_emb
      attention: self_attn
      attention_end: self_attn.dense
      mlp: mlp
      mlp_norm: post_attention_layernorm
```

The mapping enters the model's digest, since another mapping may give a hookpoint another meaning.
"""

from __future__ import annotations

from pydantic import Field

from toolkit.params import Params

IN_BLOCK = ("attention", "attention_end", "attention_after", "mlp", "mlp_norm", "mlp_after")
"""Paths that begin at a block. The other paths begin at the model."""
OF_MODEL = ("blocks", "embedding", "norm", "rotary", "positions")


class Family(Params):
    """Paths of modules, as `get_submodule` takes them; an empty path means that there is no such
    module.
    """

    name: str = Field(default="custom", description="A name for messages.")
    blocks: str = Field(description="The list of blocks, for example model.layers.")
    embedding: str = Field(description="The token embedding, for example model.embed_tokens.")
    norm: str = Field(description="The norm between the last block and the head: model.norm.")
    rotary: str = Field(
        default="", description="The module of rotary position embeddings: model.rotary_emb."
    )
    positions: str = Field(
        default="", description="The learned position embedding: transformer.wpe."
    )
    attention: str = Field(description="In a block: the attention, for example self_attn.")
    attention_end: str = Field(
        description="In a block: the projection that reads all heads, self_attn.o_proj."
    )
    attention_after: str = Field(default="", description="In a block: a norm after the attention.")
    mlp: str = Field(description="In a block: the MLP, for example mlp.")
    mlp_norm: str = Field(
        default="", description="In a block: the norm before the MLP, post_attention_layernorm."
    )
    mlp_after: str = Field(default="", description="In a block: a norm after the MLP.")
    keys: str = Field(
        default="past_key_values",
        description="The argument of a block that takes the cached keys and values.",
    )
    scaled: bool = Field(
        default=False,
        description="Whether embeddings are multiplied by the root of the width (Gemma).",
    )
    embedding_factor: str = Field(
        default="", description="Key of config.json: what embeddings are multiplied by (Granite)."
    )
    branch_factor: str = Field(
        default="",
        description="Key of config.json: what attention and MLP are multiplied by before they "
        "enter the stream (Granite).",
    )
    logits_divisor: str = Field(
        default="", description="Key of config.json: what logits are divided by (Granite)."
    )
