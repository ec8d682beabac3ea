"""Decoder families, recognised by the names of their modules, and the module that computes each
site of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, choices
from toolkit.models.families import IN_BLOCK, OF_MODEL, Family

if TYPE_CHECKING:
    from torch import Tensor

OnValue = Callable[["Tensor"], None]


_ROTARY: dict[str, Any] = {
    "blocks": "model.layers",
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "rotary": "model.rotary_emb",
    "attention": "self_attn",
    "attention_end": "self_attn.o_proj",
    "mlp": "mlp",
}

FAMILIES = (
    Family(
        name="sandwich",
        **_ROTARY,
        attention_after="post_attention_layernorm",
        mlp_norm="pre_feedforward_layernorm",
        mlp_after="post_feedforward_layernorm",
        scaled=True,
    ),
    Family(
        name="post-norm",
        **_ROTARY,
        attention_after="post_attention_layernorm",
        mlp_after="post_feedforward_layernorm",
    ),
    Family(
        name="pre-norm",
        **_ROTARY,
        mlp_norm="post_attention_layernorm",
        embedding_factor="embedding_multiplier",
        branch_factor="residual_multiplier",
        logits_divisor="logits_scaling",
    ),
    Family(
        name="learned positions",
        blocks="transformer.h",
        embedding="transformer.wte",
        positions="transformer.wpe",
        norm="transformer.ln_f",
        attention="attn",
        attention_end="attn.c_proj",
        mlp_norm="ln_2",
        mlp="mlp",
    ),
    Family(
        name="parallel",
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
"""Gemma 2 and 3 are `sandwich`; OLMo 2 is `post-norm`; Llama, Mistral, Qwen, Phi-3, SmolLM3 and
Granite (whose config has the three factors) are `pre-norm`; GPT-2 is `learned positions`, Pythia
`parallel`. A model belongs to the first family whose modules it has; specific families come first.
"""


def family_of(module: Any, named: Family | None = None) -> Family:
    """The module names of a model: those given, else those of a known family."""
    if named is not None:
        _check(module, named)
        return named
    for family in FAMILIES:
        if _missing(module, family) is None:
            return family
    raise BadInput(
        f"{type(module).__name__} has module names of no family that `huggingface` knows "
        f"({choices(family.name for family in FAMILIES)}). Name them under model.with.family: "
        "docs/tutorial/a-model-loader.md."
    )


def _check(module: Any, family: Family) -> None:
    """Check that every path that a spec names leads to a module."""
    missing = _missing(module, family)
    if missing is not None:
        raise BadInput(
            f"model.with.family.{missing}: {type(module).__name__} has no module "
            f"'{getattr(family, missing)}'"
            + (f" in {family.blocks}.0. " if missing in IN_BLOCK else ". ")
            + "Print the model to see its modules' names."
        )


def _missing(module: Any, family: Family) -> str | None:
    """The first field whose path does not exist in the model."""
    for name in OF_MODEL:
        if not _has(module, getattr(family, name)):
            return name
    block = module.get_submodule(family.blocks)[0]
    return next((name for name in IN_BLOCK if not _has(block, getattr(family, name))), None)


def _has(module: Any, path: str) -> bool:
    """Whether a path leads to a module. The empty path means `no such module` and is accepted."""
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def factor(config: Any, key: str) -> float:
    """A factor from the config; 1 where the family or config has none."""
    value = getattr(config, key, None) if key else None
    return 1.0 if value is None else float(value)


# --- sites ----------------------------------------------------------------------------------------


def listen(family: Family, site: str, block: Any, on_value: OnValue, scale: float = 1.0) -> Any:
    """Call back with a site's value whenever the block runs, until the returned handle is removed.
    `scale` is the factor of attention and MLP outputs before they enter the stream.
    """
    if scale != 1.0 and site in ("attn_out", "mlp_out"):
        return SITES[site](family, block, lambda value: on_value(value * scale))
    return SITES[site](family, block, on_value)


def _before(module: Any, on_value: OnValue) -> Any:
    return module.register_forward_pre_hook(lambda _m, args: on_value(args[0]))


def _after(module: Any, on_value: OnValue) -> Any:
    return module.register_forward_hook(lambda _m, _g, out: on_value(tensor(out)))


def _weights(module: Any, on_value: OnValue) -> Any:
    return module.register_forward_hook(lambda _m, _g, out: on_value(out[1]))


def _normed(norm: Any, value: Tensor) -> Tensor:
    """A norm's output before its gain and bias: centred (LayerNorm only) and scaled."""
    from torch.nn import LayerNorm

    wide = value.float()
    if isinstance(norm, LayerNorm):
        wide = wide - wide.mean(-1, keepdim=True)
    return (wide * (wide.pow(2).mean(-1, keepdim=True) + epsilon_of(norm)).rsqrt()).to(value.dtype)


def epsilon_of(norm: Any) -> float:
    """The epsilon of a norm."""
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def _before_gain(family: Family, block: Any, on_value: OnValue) -> Any:
    norm = block.get_submodule(family.mlp_norm)
    return _before(norm, lambda value: on_value(_normed(norm, value)))


def _attention_output(family: Family, block: Any, on_value: OnValue) -> Any:
    return _after(block.get_submodule(family.attention_after or family.attention), on_value)


def _stream_before_mlp(family: Family, block: Any, on_value: OnValue) -> Any:
    return _before(block.get_submodule(family.mlp_norm or family.mlp), on_value)


def _mlp_input(family: Family, block: Any, on_value: OnValue) -> Any:
    if not family.mlp_norm:
        return _before(block.get_submodule(family.mlp), on_value)
    return _after(block.get_submodule(family.mlp_norm), on_value)


def _mlp_output(family: Family, block: Any, on_value: OnValue) -> Any:
    return _after(block.get_submodule(family.mlp_after or family.mlp), on_value)


SITES: Mapping[str, Callable[[Family, Any, OnValue], Any]] = {
    "attn_z": lambda names, block, on_value: _before(
        block.get_submodule(names.attention_end), on_value
    ),
    "attn_probs": lambda names, block, on_value: _weights(
        block.get_submodule(names.attention), on_value
    ),
    "attn_out": _attention_output,
    "resid_mid": _stream_before_mlp,
    "mlp_in_normed": _before_gain,
    "mlp_in": _mlp_input,
    "mlp_raw": lambda names, block, on_value: _after(block.get_submodule(names.mlp), on_value),
    "mlp_out": _mlp_output,
}
"""Sites inside a block, and the module that computes each."""


def tensor(output: Any) -> Tensor:
    """The tensor of a block's output: the output itself, or the first of a tuple (older releases,
    attention).
    """
    first_output: Tensor = output[0] if isinstance(output, tuple) else output
    return first_output
