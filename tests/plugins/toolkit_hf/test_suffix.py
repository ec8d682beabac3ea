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
from toolkit.models import Model
from toolkit.models.sessions import CompleteLine, ReplyBuilder, Request, Until
from toolkit.statistics.randomness import generator
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.planted import Planted, ReferenceModel, prompts
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_hf.engine import suffix as engine_suffix

# --- prefix and suffix ----------------------------------------------------------------------------


def edited(
    model: Any, ids: Sequence[int], count: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows at layers in random order: the prompt's own stream at its last token, moved by a tenth
    of its length.
    """
    streams, rng = (
        model.prefix(ids, [f"resid_post.{layer}" for layer in range(model.layers)]).captured,
        np.random.default_rng(seed),
    )
    layers = torch.from_numpy(rng.integers(model.layers, size=count))
    stream = torch.stack([streams[f"resid_post.{layer}"].float() for layer in layers.tolist()])
    noise = torch.from_numpy(rng.standard_normal((count, model.width))).float()
    return layers, stream + 0.1 * stream.norm(dim=1, keepdim=True) * noise / noise.norm(
        dim=1, keepdim=True
    )


@pytest.mark.parametrize(("length", "count"), [(23, 300), (1, 40), (2, 40)])
def test_suffix_is_what_whole_passes_give(
    each: Any, close: Callable[..., None], length: int, count: int
) -> None:
    model, ids = each.model, each.batch((length,))[0]
    layers, rows = edited(model, ids, count)
    assert layers.tolist() != sorted(layers.tolist())
    assert set(layers.tolist()) == set(range(model.layers))
    result = model.suffix(model.prefix(ids), layers, rows)
    close(result, Model.suffix(model, Model.prefix(model, ids), layers, rows), 5e-5)


def test_suffix_spans_several_passes(
    each: Any, close: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = each.batch((11,))[0]
    rows, prefix = edited(each.model, ids, 20), each.model.prefix(ids)
    at_once = each.model.suffix(prefix, *rows)
    monkeypatch.setattr(engine_suffix, "TILE_NUMBERS", 3 * 4 * each.model.width)
    close(each.model.suffix(prefix, *rows), at_once, 5e-5)


def test_rows_do_not_see_each_other(each: Any, close: Callable[..., None]) -> None:
    ids = each.batch((13,))[0]
    rows, prefix = edited(each.model, ids, 12), each.model.prefix(ids)
    together = each.model.suffix(prefix, *rows)
    for index in range(12):
        alone = each.model.suffix(prefix, *(part[index : index + 1] for part in rows))
        close(together[index : index + 1], alone, 5e-5)


def test_an_edit_that_changes_nothing_gives_the_prompts_own_state(
    each: Any, close: Callable[..., None]
) -> None:
    model, ids = each.model, each.batch((17,))[0]
    names = [f"resid_post.{layer}" for layer in range(model.layers)]
    prefix = model.prefix(ids, names)
    stream = torch.stack([prefix.captured[name] for name in names])
    result = model.suffix(prefix, torch.arange(model.layers), stream)
    close(result, prefix.captured[names[-1]].expand_as(result), 5e-5)


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
    first = each.model.suffix(prefix, *rows)
    each.model.suffix(prefix, *edited(each.model, ids, 8, seed=1))
    assert torch.equal(first, each.model.suffix(prefix, *rows))


def test_suffix_agrees_with_a_float64_forward(small: Any, planted: Planted) -> None:
    reference = ReferenceModel.load(planted.model)
    for prompt in prompts(planted, 4):
        layers, rows = edited(small.model, prompt.ids, 9)
        logits = small.model.unembed(
            small.model.suffix(small.model.prefix(prompt.ids), layers, rows)
        ).numpy()
        for layer, value, result in zip(layers.tolist(), rows, logits, strict=True):

            def put(stream: Any, value: Any = value) -> Any:
                stream[-1] = value.double().numpy()
                return stream

            np.testing.assert_allclose(
                result, reference.run(prompt.ids, {layer: put}).logits[-1], atol=1e-4
            )


def test_half_precision_gives_what_whole_passes_give_roughly(
    lab: Any, close: Callable[..., None]
) -> None:
    model = load(
        HuggingFace(path=str(lab.folder), dtype="bfloat16", device="cpu"), SilentReporter()
    )
    ids = lab.batch((23,))[0]
    rows = edited(model, ids, 30)
    result = model.suffix(model.prefix(ids), *rows)
    assert result.dtype == torch.bfloat16
    close(result, Model.suffix(model, Model.prefix(model, ids), *rows), 0.05)


def test_no_rows_are_no_states(small: Any) -> None:
    none = torch.empty(0, dtype=torch.long), torch.empty(0, small.model.width)
    assert small.model.suffix(small.model.prefix([1, 2]), *none).shape == (0, small.model.width)


def test_a_row_at_a_layer_that_is_not_there(small: Any) -> None:
    with pytest.raises(BadInput, match=r"model has no layer 4; its layers are 0 to 3\."):
        small.model.suffix(
            small.model.prefix([1, 2]), torch.tensor([4]), torch.zeros(1, small.model.width)
        )


def test_prefix_captures_every_site(each: Any, close: Callable[..., None]) -> None:
    ids, names = each.batch((9,))[0], ["attn_out.0", "mlp_in.2", "attn_z.1", "resid_pre.3"]
    captured, streams = each.model.prefix(ids, names).captured, each.model.run([ids], names)
    for name in names:
        close(captured[name], streams[name][0, -1])


# --- replies --------------------------------------------------------------------------------------


def drawn(row: int, step: int) -> float:
    """A number that depends on the row and the step alone."""
    return float(generator(0, "reply", row, step).random())


def scripted(
    model: Any, batch: Sequence[Sequence[int]], script: Any
) -> Callable[[int, int], float]:
    """The number in the middle of the token that the script of a row says next."""

    def draw(row: int, step: int) -> float:
        logits = model.next_logits([[*batch[row], *script[row][:step]]])[0].double()
        summed = torch.softmax(logits, -1).cumsum(-1)
        token = script[row][step]
        return float((summed[token] + (summed[token - 1] if token else 0)) / 2)

    return draw


def test_generate_is_what_whole_passes_give(each: Any) -> None:
    """Prompts of all lengths, some of them equal, and replies that end one after the other."""
    model, batch = each.model, each.batch()
    batch = [*batch, batch[3], batch[1], batch[3]]
    result = model.generate(batch, drawn, max_tokens=14)
    expected = Model.generate(model, batch, drawn, max_tokens=14)
    for ours, plain in zip(result, expected, strict=True):
        assert ours.close_calls or plain.close_calls or ours == plain
    assert sum(not reply.close_calls for reply in result) >= 5
    assert len({reply.ids for reply in result}) == len(batch)


def test_a_reply_ends_at_a_stop_string(lab: Any) -> None:
    """Not where it only begins with it."""
    line = lab.tokeniser("\n", add_special_tokens=False)["input_ids"]
    assert len(line) == 1
    word = lab.tokeniser("stop", add_special_tokens=False)["input_ids"][0]
    script = {0: [*line, *line, word, *line, word], 1: [word, word, word, word, word]}
    batch = lab.batch((5, 8))
    draw = scripted(lab.model, batch, script)
    result = lab.model.generate(batch, draw, max_tokens=5, until="\n")
    assert [reply.ids for reply in result] == [tuple(script[0][:4]), tuple(script[1])]
    assert [reply.finish for reply in result] == ["until", "length"]
    assert result[0].text.startswith("\n\n")
    assert result == Model.generate(lab.model, batch, draw, max_tokens=5, until="\n")


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
        (CompleteLine(lambda text: "yes" in text), "no\nyes\nno", "until", 7),
        (CompleteLine(lambda text: "yes" in text), "no\nyes", "length", 6),
        (None, "anything", "length", 8),
        ("", "anything", "length", 8),
    ],
)
def test_where_a_reply_ends(until: Until, text: str, finish: str, length: int) -> None:
    model: Any = Speller()
    reply = ReplyBuilder(model, Request("r", (1,), None, len(text), until=until))
    for letter in text:
        if not reply.finish:
            reply.take(ord(letter))
    assert (reply.finish, reply.generated().text) == (finish, text[:length])


def test_a_long_line_is_not_decoded_for_every_token() -> None:
    """The whole reply is looked at where a line ends, and no longer than its end may be near."""
    looked: list[str] = []
    until = CompleteLine(lambda text: bool(looked.append(text)))
    text = "first\n" + "x" * 200 + "\n"
    model: Any = Speller()
    reply = ReplyBuilder(model, Request("r", (1,), None, len(text), until=until))
    for letter in text:
        reply.take(ord(letter))
    assert "first\n" in looked
    assert text in looked
    assert len(looked) < 20


def test_a_reply_over_the_context_is_an_error_either_way(small: Any) -> None:
    short = copy.copy(small.model)
    short.context = 12
    batch = small.batch((4, 10))
    assert len(short.generate(batch, drawn, max_tokens=3)[1].ids) == 3
    for way in (short.generate, lambda *args, **named: Model.generate(short, *args, **named)):
        with pytest.raises(DataError, match=r"'1' has 10 tokens and may get 4 more; .* at most 12"):
            way(batch, drawn, max_tokens=4)


def test_no_prompts_are_no_replies(small: Any) -> None:
    assert small.model.generate([], drawn, max_tokens=3) == []
