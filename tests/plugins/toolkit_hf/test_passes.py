"""Forward passes: every hookpoint against plain hooks of transformers, edits, padding, and nothing
left behind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.hooks import changed_input, changed_output
from tests.plugins.toolkit_hf.families import PLAIN
from toolkit.edits import set_stream
from toolkit.errors import BadInput, DataError
from toolkit_hf._structure import SITES


def hooks(model: Any) -> int:
    """How many hooks the model's modules hold."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model._module.modules()
    )


# --- what is captured -----------------------------------------------------------------------------


def test_streams_are_what_transformers_says(each: Any, close: Callable[..., None]) -> None:
    last = each.model.layers - 1
    names = [f"{site}.{layer}" for site in ("resid_pre", "resid_post") for layer in range(last + 1)]
    results = each.model.run(each.batch(), names)
    assert set(results) == set(names)
    for row, ids in enumerate(each.batch()):
        with torch.inference_mode():
            states = each.plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in range(last + 1):
            close(results[f"resid_pre.{layer}"][row, : len(ids)], states[layer][0])
            expected = (
                states[layer + 1][0]
                if layer < last
                else each.hooked(each.plain.model.layers[last], ids, before=False)
            )
            close(results[f"resid_post.{layer}"][row, : len(ids)], expected)


def test_every_site_has_a_plain_hook_here() -> None:
    assert set(SITES) == {*PLAIN, "mlp_in_normed", "attn_probs"}


@pytest.mark.parametrize("site", PLAIN)
def test_a_site_is_what_a_plain_hook_sees(each: Any, close: Callable[..., None], site: str) -> None:
    ids, (path, before) = each.batch((14,))[0], PLAIN[site]
    for layer in (0, each.model.layers - 1):
        module = each.plain.model.layers[layer].get_submodule(path)
        close(
            each.model.run([ids], [f"{site}.{layer}"])[f"{site}.{layer}"][0],
            each.hooked(module, ids, before=before),
        )


def test_mlp_in_normed_has_no_gain(each: Any, close: Callable[..., None]) -> None:
    results = each.model.run(each.batch(), ["resid_mid.1", "mlp_in_normed.1", "mlp_in.1"])
    middle, norm = (
        results["resid_mid.1"].double(),
        each.plain.model.layers[1].post_attention_layernorm,
    )
    expected = middle / (middle.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    torch.testing.assert_close(results["mlp_in_normed.1"].double(), expected, rtol=1e-5, atol=1e-12)
    close(results["mlp_in.1"], results["mlp_in_normed.1"] * norm.weight.detach())
    assert not torch.allclose(results["mlp_in.1"], results["mlp_in_normed.1"], rtol=0.05)


def test_the_sites_of_a_block_add_up(each: Any, close: Callable[..., None]) -> None:
    sites = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    pre, attention, middle, mlp, post = each.model.run(
        each.batch((9,)), [f"{site}.2" for site in sites]
    ).values()
    close(pre + attention, middle)
    close(middle + mlp, post)


def test_other_names_of_a_hookpoint_are_keys_of_their_own(small: Any) -> None:
    names = ["resid_post.1", "blocks.1.hook_resid_post", "layers.1"]
    results = small.model.run(small.batch((4,)), names)
    assert all(torch.equal(results[name], results["resid_post.1"]) for name in names)


def test_padding_is_invisible(each: Any, close: Callable[..., None]) -> None:
    names = ["resid_post.0", "attn_out.2", "resid_post.3"]
    together = each.model.run(each.batch(), names)
    for row, ids in enumerate(each.batch()):
        for name, alone in each.model.run([ids], names).items():
            close(together[name][row, : len(ids)], alone[0])


def test_no_block_above_the_last_one_captured_is_run(small: Any) -> None:
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(small.model.decoder.blocks)
    ]
    small.model.run(small.batch((3,)), ["resid_post.1", "mlp_out.0"])
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


# --- edits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
def test_an_edit_is_what_a_plain_hook_would_do(
    each: Any, close: Callable[..., None], site: str
) -> None:
    batch, layer, row, position = each.batch((6, 9, 4)), 1, 1, 5
    value = torch.linspace(-1, 1, each.model.width)
    name, last = f"{site}.{layer}", each.model.last_hookpoint()
    results = each.model.run(batch, [name, last], [set_stream(name, [row], [position], value)])

    def put(stream: torch.Tensor) -> torch.Tensor:
        stream = stream.clone()
        stream[0, position] = value
        return stream

    block = each.plain.model.layers[layer]
    changed = changed_input if site == "resid_pre" else changed_output
    with changed(block, put):
        expected = each.hooked(each.plain.model.layers[-1], batch[row], before=False)

    close(results[last][row, : len(batch[row])], expected)
    assert torch.equal(results[name][row, position], value)
    untouched = each.model.run(batch, [last])[last]
    assert (
        float(
            (results[last][row, position:] - untouched[row, position : len(batch[1])]).abs().max()
        )
        > 1e-3
    )
    for other in (0, 2):
        close(results[last][other, : len(batch[other])], untouched[other, : len(batch[other])])


def test_several_edits_at_one_hookpoint_are_all_made(small: Any) -> None:
    values = [torch.full((small.model.width,), number) for number in (1.0, 2.0, 3.0)]
    edits = [
        set_stream("resid_post.0", [row], [row + 1], value) for row, value in enumerate(values)
    ]
    result = small.model.run(small.batch((5, 5, 5)), ["resid_post.0"], edits)["resid_post.0"]
    assert all(torch.equal(result[row, row + 1], value) for row, value in enumerate(values))


def test_an_edit_below_shows_above_only(small: Any) -> None:
    """The input of block 2 is the output of block 1: editing the one must not rewrite what was
    captured of the other.
    """
    edit, value = "resid_pre.2", torch.ones(small.model.width)
    results = small.model.run(
        small.batch((5,)), ["resid_post.1", edit], [set_stream(edit, [0], [3], value)]
    )
    plain = small.model.run(small.batch((5,)), ["resid_post.1"])
    assert torch.equal(results["resid_post.1"], plain["resid_post.1"])
    assert torch.equal(results[edit][0, 3], value)


def test_attention_weights_cannot_be_edited(small: Any) -> None:
    edit = set_stream("attn_probs.1", [0], [0], torch.zeros(small.model.width))
    with pytest.raises(
        BadInput, match=r"edit at 'attn_probs.1': \S*model cannot edit attn_probs. It edits "
    ):
        small.model.run(small.batch((3,)), ["resid_post.1"], [edit])


# --- logits ---------------------------------------------------------------------------------------


def test_unembed_and_next_logits_are_the_logits_of_transformers(
    each: Any, close: Callable[..., None]
) -> None:
    last, batch = each.model.last_hookpoint(), each.batch()
    states, following = each.model.run(batch, [last])[last], each.model.next_logits(batch)
    for row, ids in enumerate(batch):
        with torch.inference_mode():
            expected = each.plain(torch.tensor([ids])).logits[0]
        close(each.model.unembed(states[row, : len(ids)]), expected, 1e-4)
        close(following[row], expected[-1], 1e-4)


def test_score_is_the_log_probability_of_the_continuation(each: Any) -> None:
    ids, continuations = each.batch((8,))[0], [[6], [7, 9], [11, 5, 8]]
    for more, score in zip(continuations, each.model.score(ids, continuations), strict=True):
        with torch.inference_mode():
            logits = each.plain(torch.tensor([ids + more])).logits[0].double()
        expected = sum(
            torch.log_softmax(logits[7 + index], -1)[token] for index, token in enumerate(more)
        )
        assert score == pytest.approx(float(expected), abs=1e-4)


# --- what cannot be done, and what is left behind -------------------------------------------------


def test_a_layer_that_is_not_there(small: Any) -> None:
    with pytest.raises(
        BadInput, match=r"hookpoint 'resid_post.4': .*model has no layer 4; its layers are 0 to 3\."
    ):
        small.model.run(small.batch((3,)), ["resid_post.4"])


def test_a_sequence_over_the_context(small: Any) -> None:
    with pytest.raises(
        DataError, match=r"A sequence has 2049 tokens; .*model reads at most 2048\. Shorten it\."
    ):
        small.model.run([[1] * 2049], ["resid_post.0"])


def test_a_site_that_cannot_be_captured_leaves_no_hook_behind(small: Any) -> None:
    model = copy.copy(small.model)
    model._switch = False
    with pytest.raises(
        BadInput,
        match=r"attn_probs: `attention: sdpa` does not compute the weights explicitly\. "
        r"Set "
        r"`attention: auto` or",
    ):
        model.run(small.batch((3,)), ["attn_out.0", "mlp_in.1", "attn_probs.1"])
    assert hooks(small.model) == 0


def test_a_pass_that_fails_leaves_no_hook_behind(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(small.model.decoder.blocks[1].mlp, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        small.model.run(small.batch((3,)), ["attn_out.0", "mlp_in.1", "resid_mid.2"])
    assert hooks(small.model) == 0


def test_nothing_changes_the_weights(small: Any) -> None:
    before = copy.deepcopy(small.model._module.state_dict())
    prefix = small.model.prefix(small.batch((5,))[0])
    small.model.suffix(prefix, torch.tensor([1]), torch.ones(1, small.model.width))
    small.model.run(
        small.batch(),
        ["mlp_in_normed.3"],
        [set_stream("resid_pre.0", [0], [0], torch.ones(small.model.width))],
    )
    assert all(
        torch.equal(before[name], weight)
        for name, weight in small.model._module.state_dict().items()
    )
