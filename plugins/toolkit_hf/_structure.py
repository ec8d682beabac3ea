"""Where a model's modules are, found by what it has and not by what it is called, and how each site
of a block is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, choices

if TYPE_CHECKING:
    from torch import Tensor

Tell = Callable[["Tensor"], None]


@dataclass(frozen=True)
class Structure:
    """One way to build a model, as paths of modules: those of `_IN_BLOCK` begin at a block, the
    others at the model.

    An empty path: this way has no such module. `scaled`: embeddings are multiplied by the root of
    the width, by the embedding itself or (in older releases of transformers) by the model.
    """

    name: str
    body: str
    blocks: str
    embedding: str
    norm: str
    attention: str
    attention_end: str
    mlp_norm: str
    mlp: str
    rotary: str = ""
    positions: str = ""
    attention_after: str = ""
    """Between attention and the stream."""
    mlp_after: str = ""
    """Between the MLP and the stream."""
    keys: str = "past_key_values"
    """What a block calls the keys of past positions."""
    scaled: bool = False


_ROTARY: dict[str, Any] = {
    "body": "model",
    "blocks": "model.layers",
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "rotary": "model.rotary_emb",
    "attention": "self_attn",
    "attention_end": "self_attn.o_proj",
    "mlp": "mlp",
}

STRUCTURES = (
    Structure(
        "sandwich",
        **_ROTARY,
        attention_after="post_attention_layernorm",
        mlp_norm="pre_feedforward_layernorm",
        mlp_after="post_feedforward_layernorm",
        scaled=True,
    ),
    Structure("pre-norm", **_ROTARY, mlp_norm="post_attention_layernorm"),
    Structure(
        "learned positions",
        body="transformer",
        blocks="transformer.h",
        embedding="transformer.wte",
        positions="transformer.wpe",
        norm="transformer.ln_f",
        attention="attn",
        attention_end="attn.c_proj",
        mlp_norm="ln_2",
        mlp="mlp",
    ),
    Structure(
        "parallel",
        body="gpt_neox",
        blocks="gpt_neox.layers",
        embedding="gpt_neox.embed_in",
        norm="gpt_neox.final_layer_norm",
        rotary="gpt_neox.rotary_emb",
        attention="attention",
        attention_end="attention.dense",
        mlp_norm="post_attention_layernorm",
        mlp="mlp",
        keys="layer_past",
    ),
)
"""Llama, Mistral and Qwen are `pre-norm`; Gemma 2 is `sandwich`, GPT-2 `learned positions`, Pythia
`parallel`. A model has the first one whose modules are all there: the more particular come first.
"""

_IN_BLOCK = ("attention", "attention_end", "mlp_norm", "mlp", "attention_after", "mlp_after")
_NO_PATH = ("name", "keys", "scaled")


def structure_of(module: Any) -> Structure:
    """How a model is built."""
    for structure in STRUCTURES:
        if _fits(module, structure):
            return structure
    raise BadInput(
        f"{type(module).__name__} is built in no way that `huggingface` knows "
        f"({choices(one.name for one in STRUCTURES)}). Another one takes one file: "
        "docs/tutorial/a-model-loader.md."
    )


def _fits(module: Any, structure: Structure) -> bool:
    paths = {
        field.name: getattr(structure, field.name)
        for field in fields(structure)
        if field.name not in _NO_PATH
    }
    if not all(_has(module, path) for name, path in paths.items() if name not in _IN_BLOCK):
        return False
    block = module.get_submodule(structure.blocks)[0]
    return all(_has(block, path) for name, path in paths.items() if name in _IN_BLOCK)


def _has(module: Any, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


# --- sites ----------------------------------------------------------------------------------------


def listen(structure: Structure, site: str, block: Any, tell: Tell) -> Any:
    """Tell what a site shows whenever the block runs; the handle ends it."""
    return SITES[site](structure, block, tell)


def _before(module: Any, tell: Tell) -> Any:
    return module.register_forward_pre_hook(lambda _m, given: tell(given[0]))


def _after(module: Any, tell: Tell) -> Any:
    return module.register_forward_hook(lambda _m, _g, out: tell(tensor(out)))


def _weights(module: Any, tell: Tell) -> Any:
    return module.register_forward_hook(lambda _m, _g, out: tell(out[1]))


def _normed(norm: Any, value: Tensor) -> Tensor:
    """What a norm makes of a value before its gain and bias: centred by a LayerNorm, scaled by
    either kind.
    """
    from torch.nn import LayerNorm

    wide = value.float()
    if isinstance(norm, LayerNorm):
        wide = wide - wide.mean(-1, keepdim=True)
    return (wide * (wide.pow(2).mean(-1, keepdim=True) + _epsilon(norm)).rsqrt()).to(value.dtype)


def _epsilon(norm: Any) -> float:
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def _before_gain(structure: Structure, block: Any, tell: Tell) -> Any:
    norm = block.get_submodule(structure.mlp_norm)
    return _before(norm, lambda value: tell(_normed(norm, value)))


SITES: Mapping[str, Callable[[Structure, Any, Tell], Any]] = {
    "attn_z": lambda at, block, tell: _before(block.get_submodule(at.attention_end), tell),
    "attn_probs": lambda at, block, tell: _weights(block.get_submodule(at.attention), tell),
    "attn_out": lambda at, block, tell: _after(
        block.get_submodule(at.attention_after or at.attention), tell
    ),
    "resid_mid": lambda at, block, tell: _before(block.get_submodule(at.mlp_norm), tell),
    "mlp_in_normed": _before_gain,
    "mlp_in": lambda at, block, tell: _after(block.get_submodule(at.mlp_norm), tell),
    "mlp_raw": lambda at, block, tell: _after(block.get_submodule(at.mlp), tell),
    "mlp_out": lambda at, block, tell: _after(block.get_submodule(at.mlp_after or at.mlp), tell),
}
"""Sites inside a block, and the module that shows each."""


def tensor(output: Any) -> Tensor:
    """Blocks return a tensor, or (older releases, attention) a tuple that begins with it."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found
