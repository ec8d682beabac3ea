"""Names of hookpoints: `resid_post.12` is the output of block 12, counted from 0. Other tools'
names are accepted wherever a hookpoint is read, and converted at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.errors import BadInput, choices, nearest

SITES = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_z",
    "attn_out",
    "attn_probs",
    "mlp_in_normed",
    "mlp_in",
    "mlp_raw",
    "mlp_out",
)
"""Every site of a block, unordered. `mlp_in` includes the norm's gain, `mlp_in_normed` does not;
`mlp_out` is what enters the stream.
"""

_ALIASES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "attn.hook_z": "attn_z",
    "hook_attn_out": "attn_out",
    "attn.hook_pattern": "attn_probs",
    "ln2.hook_normalized": "mlp_in_normed",
    "mlp.hook_in": "mlp_in",
    "hook_mlp_out": "mlp_out",
    "hook_in": "resid_pre",
    "hook_out": "resid_post",
}
"""TransformerLens, after `blocks.LAYER.`: the names of version 1 and of version 3."""
_ELSEWHERE = {"z": "attn_z", "attn_out_post": "attn_out", "mlp_out_post": "mlp_out"}
"""Names of interp-engine that differ. Its `mlp_out` and `attn_out` are also names here, but on
Gemma 2 it takes them before the norm.
"""
_MODULES = {"": "resid_post", ".mlp": "mlp_raw", ".post_feedforward_layernorm": "mlp_out"}
"""Outputs of modules, by their path inside a block (sparsify, delphi)."""


@dataclass(frozen=True)
class Hookpoint:
    """A site of one layer. `str` gives its canonical name."""

    site: str
    layer: int

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"


def hookpoint(text: str) -> Hookpoint:
    """Parse a name, the toolkit's (`resid_post.12`) or another tool's (`blocks.12.hook_resid_post`,
    `layers.12`).
    """
    if match := re.fullmatch(r"([a-z_]+)\.(\d+)", text):
        if match[1] in SITES:
            return Hookpoint(match[1], int(match[2]))
        if match[1] in _ELSEWHERE:
            return Hookpoint(_ELSEWHERE[match[1]], int(match[2]))
    if (match := re.fullmatch(r"blocks\.(\d+)\.([a-z0-9_.]+)", text)) and match[2] in _ALIASES:
        return Hookpoint(_ALIASES[match[2]], int(match[1]))
    if (
        match := re.fullmatch(
            r"(?:model\.layers|layers|transformer\.h|gpt_neox\.layers)\.(\d+)(.*)", text
        )
    ) and match[2] in _MODULES:
        return Hookpoint(_MODULES[match[2]], int(match[1]))
    site = text.partition(".")[0]
    raise BadInput(
        f"'{text}' is not a hookpoint.{nearest(site, SITES)} Write SITE.LAYER, layers counted from "
        f"0; sites: {choices(SITES)}."
    )
