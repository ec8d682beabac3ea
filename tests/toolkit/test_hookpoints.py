"""Names of hookpoints: ours, other tools', and what is said of names that are neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import BadInput
from toolkit.hookpoints import SITES, Hookpoint, hookpoint


@given(site=st.sampled_from(SITES), layer=st.integers(0, 10_000))
def test_a_name_is_read_back(site: str, layer: int) -> None:
    point = Hookpoint(site, layer)
    assert hookpoint(str(point)) == point


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("blocks.12.hook_resid_pre", "resid_pre.12"),
        ("blocks.12.hook_resid_mid", "resid_mid.12"),
        ("blocks.0.hook_resid_post", "resid_post.0"),
        ("blocks.3.attn.hook_z", "attn_z.3"),
        ("blocks.3.hook_attn_out", "attn_out.3"),
        ("blocks.3.attn.hook_pattern", "attn_probs.3"),
        ("blocks.3.ln2.hook_normalized", "mlp_in_normed.3"),
        ("blocks.3.mlp.hook_in", "mlp_in.3"),
        ("blocks.31.hook_mlp_out", "mlp_out.31"),
        ("blocks.31.hook_in", "resid_pre.31"),
        ("blocks.31.hook_out", "resid_post.31"),
        ("layers.7", "resid_post.7"),
        ("model.layers.7", "resid_post.7"),
        ("transformer.h.7", "resid_post.7"),
        ("gpt_neox.layers.7", "resid_post.7"),
        ("layers.7.mlp", "mlp_raw.7"),
        ("model.layers.7.post_feedforward_layernorm", "mlp_out.7"),
        ("z.3", "attn_z.3"),
        ("mlp_out_post.3", "mlp_out.3"),
        ("attn_out_post.3", "attn_out.3"),
        ("resid_post.007", "resid_post.7"),
    ],
)
def test_other_tools_names(text: str, name: str) -> None:
    assert str(hookpoint(text)) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resid_post",
        "resid_post.",
        "resid_post.x",
        "resid_post.-1",
        "resid_post.1.2",
        "blocks.1",
        "blocks.1.hook_q",
        "layers.1.q",
        "12",
    ],
)
def test_what_is_no_hookpoint(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        hookpoint(text)
    assert str(caught.value).startswith(f"'{text}' is not a hookpoint.")
    assert (
        "Write SITE.LAYER, layers counted from 0; sites: attn_out, attn_probs, attn_z, mlp_in,"
        in str(caught.value)
    )


def test_the_nearest_site_is_proposed() -> None:
    with pytest.raises(
        BadInput, match=r"'resid_pots.3' is not a hookpoint. Did you mean 'resid_post'\? Write"
    ):
        hookpoint("resid_pots.3")
