"""Contract checks of a loaded model: its texts, its passes and edits, and its faster methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from toolkit.edits import set_stream
from toolkit.errors import BadInput, DataError
from toolkit.hookpoints import Hookpoint
from toolkit.models import Encoded, Model, Prefix
from toolkit.randomness import generator
from toolkit.sessions import Generated
from toolkit.testing.decoders import check_decoder
from toolkit.testing.promises import kept as _kept
from toolkit.testing.promises import near as _near

if TYPE_CHECKING:
    from torch import Tensor

LOADED_TEXTS = ("one two", "three four five six seven eight", "an \u00e9 \U0001f3b2 or two", "nine")
LONG_CONTEXT = 8192
"""Too long a text is tried only on models with at most this context: on others it would take
minutes.
"""
REPLY_TOKENS = 6


def check_model(
    model: Model, texts: Sequence[str] = LOADED_TEXTS, *, tolerance: float = 1e-4
) -> None:
    """Check a loaded model: its texts, its passes and edits, and that whatever it does faster gives
    what whole passes give.

    `texts` differ in length. `tolerance` is relative to the largest value compared; load the model
    in float32, since in shorter floats the likeliest token depends on the batch.
    """
    sizes = (model.layers, model.width, model.context)
    _kept(model, min(sizes) > 0, f"layers, width and context are {sizes}; each is at least 1")
    for text in texts:
        _check_encoding(model, text, chat=False)
        _check_chat(model, text)
        _check_tokens(model, text)
    _check_too_long(model, texts[0])
    batch = [list(model.encode(text).ids) for text in texts]
    _check_run(model, batch, tolerance)
    if not model.causal:
        _check_encoder(model, max(batch, key=len), tolerance)
        return
    _check_edits(model, max(batch, key=len), tolerance)
    _check_prefix(model, max(batch, key=len), tolerance)
    _check_unembed(model, batch, tolerance)
    _check_generate(model, [*batch, batch[0]])
    _check_score(model, max(batch, key=len), tolerance)
    check_decoder(model, batch, tolerance)


def _check_encoding(model: Model, text: str, *, chat: bool) -> None:
    encoded, said = model.encode(text, chat=chat), f"{text!r}{' in chat' if chat else ''}"
    _kept(
        model,
        encoded == model.encode(text, chat=chat),
        f"encode answered differently the second time on {said}",
    )
    _kept(
        model,
        0 < len(encoded.ids) <= model.context,
        f"encode gave {len(encoded.ids)} ids for {said}; 1 to {model.context}",
    )
    _kept(
        model,
        len(encoded.offsets) == len(encoded.ids),
        f"encode gave other numbers of ids and offsets for {said}",
    )
    inside = all(0 <= start <= end <= len(encoded.text) for start, end in encoded.offsets)
    _kept(model, inside, f"encode gave offsets outside the text for {said}")
    for before, after in zip(encoded.offsets, encoded.offsets[1:], strict=False):
        _kept(
            model,
            before[0] <= after[0] and before[1] <= after[1],
            f"encode gave offsets that go backwards for {said}: {before}, then {after}. A token "
            "without characters (an added BOS or SEP) stands where the text has come to: "
            f"{(before[1], before[1])}",
        )
    begun = encoded.text[encoded.shift :].startswith(text)
    _kept(
        model,
        begun,
        f"encode gave the shift {encoded.shift} for {said}, but that is not where the given text "
        "begins",
    )
    if model.bos_id is not None:
        right = encoded.ids[0] == model.bos_id and encoded.ids.count(model.bos_id) == 1
        _kept(
            model,
            right,
            f"encode gave {encoded.ids.count(model.bos_id)} BOS for {said}; exactly one, at the "
            "start",
        )
        added = chat or encoded.offsets[0][0] == encoded.offsets[0][1]
        _kept(
            model,
            added,
            f"the added BOS has the characters {encoded.offsets[0]} of {said}; give it none, as "
            "(0, 0)",
        )


def _check_chat(model: Model, text: str) -> None:
    try:
        model.encode(text, chat=True)
    except BadInput:
        return  # no chat model, and it says so
    _check_encoding(model, text, chat=True)


def _check_tokens(model: Model, text: str) -> None:
    spans = (("all", 0, len(text)), ("first", 0, 1), ("rest", len(text) // 2, len(text)))
    encoded, tokens = model.encode(text), model.tokenise(text, spans=spans)
    _kept(
        model,
        (tokens.text, tokens.ids) == (encoded.text, encoded.ids),
        f"tokenise differs from encode on {text!r}",
    )
    pieces = tuple(encoded.text[start:end] for start, end in encoded.offsets)
    _kept(
        model,
        tokens.pieces == pieces,
        f"tokenise gave pieces that are not the characters of their tokens for {text!r}",
    )
    expected = tuple((name, *_token_range(encoded, start, end)) for name, start, end in spans)
    _kept(
        model,
        tokens.spans == expected,
        f"tokenise turned {spans} of {text!r} into {tokens.spans}; wanted {expected}",
    )
    said = model.decode(encoded.ids)
    _kept(
        model,
        isinstance(said, str) and said == model.decode(encoded.ids),
        f"decode gave no text, or two, for {text!r}",
    )
    if model.bos_id is not None:
        _kept(
            model,
            said == model.decode(encoded.ids[1:]),
            "decode shows BOS; leave special tokens out",
        )


def _token_range(encoded: Encoded, start: int, end: int) -> tuple[int, int]:
    start, end = start + encoded.shift, end + encoded.shift
    inside = [
        index for index, (first, last) in enumerate(encoded.offsets) if first < end and last > start
    ]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _check_too_long(model: Model, text: str) -> None:
    if model.context > LONG_CONTEXT:
        return
    try:
        model.tokenise(" ".join([text] * (model.context + 1)))
    except DataError:
        return
    _kept(
        model,
        False,
        "tokenise took a text longer than its context; that is a DataError, and nothing is cut off",
    )


def _streams(model: Model) -> list[str]:
    return [str(Hookpoint("resid_post", layer)) for layer in range(model.layers)]


def _some_layers(model: Model) -> list[int]:
    return sorted({0, model.layers // 2, model.layers - 1})


def _check_run(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    points, shape = _streams(model), (len(batch), max(map(len, batch)), model.width)
    result = model.run(batch, points)
    _kept(
        model, set(result) == set(points), f"run was asked for {points} and gave {sorted(result)}"
    )
    for name, stream in result.items():
        _kept(
            model,
            tuple(stream.shape) == shape,
            f"run gave {name} the shape {tuple(stream.shape)}; wanted {shape}",
        )
        _kept(
            model,
            not stream.requires_grad,
            "run gave tensors that keep their gradients; work in torch.inference_mode()",
        )
    for row, ids in enumerate(batch):
        single, half = model.run([ids], points), model.run([ids[: len(ids) // 2 + 1]], points)
        for name in points:
            stream, start = result[name][row, : len(ids)], half[name][0]
            _kept(model, stream.isfinite().all(), f"run gave NaN or infinity at {name}")
            same = _near(stream, single[name][0], tolerance)
            _kept(model, same, f"{name} of a text depends on the texts beside it or on the padding")
            seen = not model.causal or _near(stream[: len(start)], start, tolerance)
            _kept(
                model,
                seen,
                f"{name} of a token depends on the tokens after it; the model is to be causal. An "
                "encoder is a toolkit.encoders.Encoder",
            )
    for name in points:
        only = model.run(batch[:1], [name])
        same = set(only) == {name} and _near(
            only[name][0], result[name][0, : len(batch[0])], tolerance
        )
        _kept(model, same, f"{name} captured by itself differs from the same captured with others")


def _check_edits(model: Model, ids: Sequence[int], tolerance: float) -> None:
    """In the second of two equal rows, at the last position."""
    end, last, batch = model.last_hookpoint(), len(ids) - 1, [ids, ids]
    for name in (f"resid_post.{layer}" for layer in _some_layers(model)):
        points = list(dict.fromkeys((name, end)))
        before = model.run(batch, points)
        value = before[name][1, last].clone()
        same = model.run(batch, points, [set_stream(name, [1], [last], value)])
        for point in points:
            kept = _near(same[point], before[point], tolerance)
            _kept(model, kept, f"an edit at {name} to the value that is there changed {point}")
        after = model.run(batch, points, [set_stream(name, [1], [last], _another(value))])
        made = _near(after[name][1, last], _another(value), tolerance)
        _kept(model, made, f"an edit at {name} does not show in what is captured there")
        reaches = not _near(after[end][1, last], before[end][1, last], tolerance)
        _kept(model, reaches, f"an edit at {name} to another value does not reach {end}")
        _kept(
            model,
            _near(after[end][0], before[end][0], tolerance),
            f"an edit at {name} of one row changed another row",
        )
        past = not model.causal or _near(after[end][1, :last], before[end][1, :last], tolerance)
        _kept(model, past, f"an edit at {name} changed positions before its own")


def _check_encoder(model: Model, ids: Sequence[int], tolerance: float) -> None:
    """Edits, if it makes any, and the refusal of methods that need a next token."""
    try:
        _check_edits(model, ids, tolerance)
    except BadInput as error:
        _kept(model, "edits" in str(error), f"an edit was refused without its name: {error}")
    for method in ("prefix", "suffix", "generate", "score", "unembed"):
        try:
            getattr(model, method)(ids, [])
        except BadInput as error:
            _kept(
                model,
                model.identity.name in str(error) and method in str(error),
                f"{method} was refused without the names of method and model: {error}",
            )
        else:
            _kept(model, False, f"{method} gave something, but an encoder has no next token")


def _another(value: Tensor, way: int = 1) -> Tensor:
    """A value far from the given one."""
    import torch

    wave = torch.cos(way * torch.arange(len(value), device=value.device))
    return (value + (1 + value.abs().max()) * wave).to(value.dtype)


def _check_prefix(model: Model, ids: Sequence[int], tolerance: float) -> None:
    points = _streams(model)
    prefix, result = model.prefix(ids, points), model.run([ids], points)
    _kept(model, prefix.ids == tuple(ids), "prefix gave other ids than it was given")
    captured = prefix.captured or {}
    for name in points:
        same = name in captured and _near(captured[name], result[name][0, -1], tolerance)
        _kept(
            model,
            same,
            f"prefix captured something else at {name} than run gives for the last token",
        )
    _check_suffix(
        model,
        prefix,
        {layer: result[points[layer]][0, -1] for layer in range(len(points))},
        tolerance,
    )


def _check_suffix(
    model: Model, prefix: Prefix, replaced: Mapping[int, Tensor], tolerance: float
) -> None:
    """Rows at several layers, out of order, half of them the prompt's own."""
    import torch

    layers, rows = [], []
    for way, layer in enumerate([*reversed(_some_layers(model)), *_some_layers(model)]):
        layers += [layer, layer]
        rows += [_another(replaced[layer], way + 1), replaced[layer]]
    given = torch.tensor(layers), torch.stack(rows)
    got, repeated = model.suffix(prefix, *given), model.suffix(prefix, *given)
    expected = Model.suffix(model, prefix, *given)
    _kept(
        model,
        got.shape == expected.shape,
        f"suffix gave the shape {tuple(got.shape)}; wanted {tuple(expected.shape)}",
    )
    for layer, state, right in zip(layers, got, expected, strict=True):
        _kept(
            model,
            _near(state, right, tolerance),
            f"suffix of rows at several layers gave other states for layer {layer} than whole "
            "passes give",
        )
    _kept(
        model,
        _near(repeated, got, tolerance),
        "a second suffix of the same prefix gave other states; leave the prefix as it is",
    )
    none = tuple(model.suffix(prefix, given[0][:0], given[1][:0]).shape)
    _kept(
        model,
        none == (0, model.width),
        f"suffix of no rows gave the shape {none}; wanted {(0, model.width)}",
    )


def _check_unembed(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    import torch

    states = model.run(batch, [model.last_hookpoint()])[model.last_hookpoint()]
    ends = torch.stack([states[row, len(ids) - 1] for row, ids in enumerate(batch)])
    logits = model.unembed(ends)
    _kept(
        model,
        logits.ndim == 2 and len(logits) == len(batch),
        f"unembed gave the shape {tuple(logits.shape)} for {len(batch)} rows",
    )
    _kept(model, logits.isfinite().all(), "unembed gave NaN or infinity")
    named = [
        *model.end_ids,
        *([] if model.bos_id is None else [model.bos_id]),
        *(token for ids in batch for token in ids),
    ]
    inside = all(0 <= token < logits.shape[1] for token in named)
    _kept(
        model, inside, f"unembed gave {logits.shape[1]} logits, but token ids go up to {max(named)}"
    )
    single = torch.cat([model.unembed(end[None]) for end in ends])
    _kept(
        model, _near(single, logits, tolerance), "the logits of a row depend on the rows beside it"
    )
    _kept(
        model,
        _near(model.next_logits(batch), logits, tolerance),
        "next_logits differs from unembed of the last token's state",
    )


def _check_generate(model: Model, batch: Sequence[Sequence[int]]) -> None:
    """Each reply equals that of whole passes, whatever the batch, except for close calls."""
    asked: list[tuple[int, int]] = []

    def draw(row: int, made: int) -> float:
        asked.append((row, made))
        return float(generator(0, "contract", row, made).random())

    until = None
    for _ in range(2):
        expected = Model.generate(model, batch, draw, max_tokens=REPLY_TOKENS, until=until)
        asked.clear()
        got = list(model.generate(batch, draw, max_tokens=REPLY_TOKENS, until=until))
        once = [(row, made) for row, reply in enumerate(got) for made in range(len(reply.ids))]
        _kept(
            model,
            _same_replies(got, expected),
            f"generate gave {got}; token by token with whole passes it is {expected}",
        )
        _kept(
            model,
            sorted(asked) == once,
            "generate did not ask draw exactly once for each token, by row and number",
        )
        single = [
            model.generate(
                [ids],
                partial(_as_row, draw, row),
                max_tokens=REPLY_TOKENS,
                until=until,
            )[0]
            for row, ids in enumerate(batch)
        ]
        _kept(model, _same_replies(single, got), "a reply depends on the prompts beside it")
        until = (got[0].text.strip() or " ")[-1]


def _as_row(draw: Callable[[int, int], float], row: int, _: int, made: int) -> float:
    return draw(row, made)


def _same_replies(left: Sequence[Generated], right: Sequence[Generated]) -> bool:
    """Ids, text and end of every reply that had no close call."""
    return len(left) == len(right) and all(
        a.close_calls or b.close_calls or (a.ids, a.text, a.finish) == (b.ids, b.text, b.finish)
        for a, b in zip(left, right, strict=True)
    )


def _check_score(model: Model, ids: Sequence[int], tolerance: float) -> None:
    import torch

    def logp(given: Sequence[int]) -> Tensor:
        return torch.log_softmax(model.next_logits([given])[0].detach().cpu().double(), dim=-1)

    likely, unlikely = int(logp(ids).argmax()), int(logp(ids).argmin())
    both = float(logp(ids)[likely] + logp([*ids, likely])[unlikely])
    expected = [float(logp(ids)[likely]), float(logp(ids)[unlikely]), both]
    got = model.score(ids, [[likely], [unlikely], [likely, unlikely]])
    near = len(got) == len(expected) and _near(torch.tensor(got), torch.tensor(expected), tolerance)
    _kept(
        model, near, f"score gave {got}; the log-probabilities of next_logits add up to {expected}"
    )
