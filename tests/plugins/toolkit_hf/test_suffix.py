"""Kept prompts and replies: each fast way gives what whole passes give, and what an independent
float64 forward says.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.errors import BadInput, DataError
from toolkit.models import Model, Reply
from toolkit.randomness import generator
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.planted import Planted, ReferenceModel, prompts
from toolkit_hf import _model
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load

# --- prefix and suffix ----------------------------------------------------------------------------


def edited(
    model: Any, ids: Sequence[int], count: int, seed: int = 0
) -> list[tuple[int, torch.Tensor]]:
    """Rows at layers in random order: the prompt's own stream at its last token, moved by a tenth
    of its length.
    """
    streams, rng = (
        model.prefix(ids, [f"resid_post.{layer}" for layer in range(model.layers)]).captured,
        np.random.default_rng(seed),
    )
    rows = []
    for layer in rng.integers(model.layers, size=count).tolist():
        own = streams[f"resid_post.{layer}"]
        noise = torch.from_numpy(rng.standard_normal(model.width)).float()
        rows.append((layer, own + 0.1 * own.norm() * noise / noise.norm()))
    return rows


@pytest.mark.parametrize(("length", "count"), [(23, 300), (1, 40), (2, 40)])
def test_suffix_is_what_whole_passes_give(
    each: Any, close: Callable[..., None], length: int, count: int
) -> None:
    model, ids = each.model, each.batch((length,))[0]
    rows = edited(model, ids, count)
    assert [layer for layer, _ in rows] != sorted(layer for layer, _ in rows)
    assert {layer for layer, _ in rows} == set(range(model.layers))
    found = model.suffix(model.prefix(ids), rows)
    close(found, Model.suffix(model, Model.prefix(model, ids), rows), 5e-5)


def test_suffix_spans_several_passes(
    each: Any, close: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = each.batch((11,))[0]
    rows, prefix = edited(each.model, ids, 20), each.model.prefix(ids)
    at_once = each.model.suffix(prefix, rows)
    monkeypatch.setattr(_model, "SUFFIX_ROWS", 3)
    close(each.model.suffix(prefix, rows), at_once, 5e-5)


def test_rows_do_not_see_each_other(each: Any, close: Callable[..., None]) -> None:
    ids = each.batch((13,))[0]
    rows, prefix = edited(each.model, ids, 12), each.model.prefix(ids)
    together = each.model.suffix(prefix, rows)
    for at, row in enumerate(rows):
        close(together[at : at + 1], each.model.suffix(prefix, [row]), 5e-5)


def test_an_edit_that_changes_nothing_gives_the_prompts_own_state(
    each: Any, close: Callable[..., None]
) -> None:
    model, ids = each.model, each.batch((17,))[0]
    names = [f"resid_post.{layer}" for layer in range(model.layers)]
    prefix = model.prefix(ids, names)
    found = model.suffix(
        prefix, [(layer, prefix.captured[name]) for layer, name in enumerate(names)]
    )
    close(found, prefix.captured[names[-1]].expand_as(found), 5e-5)


def test_prefix_captures_the_last_token(each: Any, close: Callable[..., None]) -> None:
    ids = each.batch((9,))[0]
    names = ["resid_post.0", "blocks.2.hook_resid_post", each.model.last_hookpoint()]
    captured, streams = each.model.prefix(ids, names[:2]).captured, each.model.run([ids], names)
    assert set(captured) == set(names)
    for name in names:
        close(captured[name], streams[name][0, -1])


def test_a_prefix_can_be_used_again(each: Any) -> None:
    ids = each.batch((9,))[0]
    prefix, rows = each.model.prefix(ids), edited(each.model, ids, 5)
    first = each.model.suffix(prefix, rows)
    each.model.suffix(prefix, edited(each.model, ids, 8, seed=1))
    assert torch.equal(first, each.model.suffix(prefix, rows))


def test_suffix_agrees_with_a_float64_forward(small: Any, planted: Planted) -> None:
    reference = ReferenceModel.load(planted.model)
    for prompt in prompts(planted, 4):
        rows = edited(small.model, prompt.ids, 9)
        logits = small.model.unembed(
            small.model.suffix(small.model.prefix(prompt.ids), rows)
        ).numpy()
        for (layer, value), found in zip(rows, logits, strict=True):

            def put(stream: Any, value: Any = value) -> Any:
                stream[-1] = value.double().numpy()
                return stream

            np.testing.assert_allclose(
                found, reference.run(prompt.ids, {layer: put}).logits[-1], atol=1e-4
            )


def test_half_precision_gives_what_whole_passes_give_roughly(
    lab: Any, close: Callable[..., None]
) -> None:
    model = load(
        HuggingFace(path=str(lab.folder), dtype="bfloat16", device="cpu"), SilentReporter()
    )
    ids = lab.batch((23,))[0]
    rows = edited(model, ids, 30)
    found = model.suffix(model.prefix(ids), rows)
    assert found.dtype == torch.bfloat16
    close(found, Model.suffix(model, Model.prefix(model, ids), rows), 0.05)
    assert [
        len(reply.ids) for reply in model.generate([ids, ids[:9]], ending(model, (2, 5)), most=9)
    ] == [3, 6]


def test_no_rows_are_no_states(small: Any) -> None:
    assert small.model.suffix(small.model.prefix([1, 2]), []).shape == (0, small.model.width)


def test_a_row_at_a_layer_that_is_not_there(small: Any) -> None:
    with pytest.raises(BadInput, match=r"model has no layer 4; its layers are 0 to 3\."):
        small.model.suffix(small.model.prefix([1, 2]), [(4, torch.zeros(small.model.width))])


def test_prefix_captures_the_stream_only(small: Any) -> None:
    with pytest.raises(BadInput, match=r"prefix: this model captures resid_post\.LAYER only"):
        small.model.prefix([1, 2], ["attn_out.0"])


# --- replies --------------------------------------------------------------------------------------


def drawn(row: int, step: int, probabilities: torch.Tensor) -> int:
    """A draw that depends on the row, the step and the probabilities alone."""
    assert probabilities.dtype == torch.float64
    assert probabilities.device.type == "cpu"
    assert float(probabilities.sum()) == pytest.approx(1)
    share = generator(0, "reply", row, step).random()
    return min(int((probabilities.cumsum(0) < share).sum()), len(probabilities) - 1)


def ending(model: Any, ends: Sequence[int]) -> Callable[[int, int, torch.Tensor], int]:
    """The same, but row r ends its reply with token number `ends[r]`, and nowhere else."""

    def draw(row: int, step: int, chances: torch.Tensor) -> int:
        going_on = chances.clone()
        going_on[model.end_ids[0]] = 0
        return (
            model.end_ids[0] if step == ends[row] else drawn(row, step, going_on / going_on.sum())
        )

    return draw


@pytest.mark.parametrize("tokens", [16_384, 60])
def test_generate_is_what_whole_passes_give(
    each: Any, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """Prompts of all lengths, some of them equal, and replies that end one after the other."""
    model, batch = each.model, each.batch()
    batch = [*batch, batch[3], batch[1], batch[3]]
    draw = ending(model, (3, 0, 12, 5, 30, 8, 1, 7, 30, 5))
    monkeypatch.setattr(_model, "PASS_TOKENS", tokens)
    found = model.generate(batch, draw, most=14)
    assert found == Model.generate(model, batch, draw, most=14)
    assert [reply.finish for reply in found] == ["stop"] * 4 + ["length"] + ["stop"] * 3 + [
        "length",
        "stop",
    ]
    assert [len(reply.ids) for reply in found] == [4, 1, 13, 6, 14, 9, 2, 8, 14, 6]
    assert len({reply.ids for reply in found}) == len(batch)


def test_a_reply_ends_at_a_stop_string(lab: Any) -> None:
    """Not where it only begins with it."""
    line = lab.tokeniser("\n", add_special_tokens=False)["input_ids"]
    assert len(line) == 1
    word = lab.tokeniser("stop", add_special_tokens=False)["input_ids"][0]
    script = {0: [*line, *line, word, *line, word], 1: [word, word, word, word, word]}
    found = lab.model.generate(
        lab.batch((5, 8)), lambda row, step, _: script[row][step], most=5, until="\n"
    )
    assert [(reply.finish, len(reply.ids)) for reply in found] == [("until", 4), ("length", 5)]
    assert found[0].text.startswith("\n\n")
    assert found == Model.generate(
        lab.model, lab.batch((5, 8)), lambda row, step, _: script[row][step], most=5, until="\n"
    )


class Speller:
    """The part of a model that a reply asks: each token is a letter."""

    end_ids = (0,)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in ids)


@pytest.mark.parametrize(
    ("until", "text", "finish", "length"),
    [
        ("stop", "tops stop it", "until", 9),
        ("stop", "sstop it", "until", 5),
        ("stop", "stop stop", "until", 9),
        ("stop", "stopstopping", "length", 12),
        ("\n", "\n\nyes\nno", "until", 6),
        (None, "anything", "length", 8),
        ("", "anything", "length", 8),
    ],
)
def test_where_a_reply_ends(until: str | None, text: str, finish: str, length: int) -> None:
    model: Any = Speller()
    reply = Reply(model, until, most=len(text))
    for letter in text:
        if not reply.finish:
            reply.take(ord(letter))
    assert (reply.finish, reply.generated().text) == (finish, text[:length])


def test_a_reply_over_the_context_is_an_error_either_way(small: Any) -> None:
    short = copy.copy(small.model)
    short.context = 12
    batch = small.batch((4, 10))
    assert len(short.generate(batch, drawn, most=3)[1].ids) == 3
    for way in (short.generate, lambda *given, **named: Model.generate(short, *given, **named)):
        with pytest.raises(DataError, match=r"A sequence has 13 tokens; .* reads at most 12\."):
            way(batch, drawn, most=4)


def test_no_prompts_are_no_replies(small: Any) -> None:
    assert small.model.generate([], drawn, most=3) == []
