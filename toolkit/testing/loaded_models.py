"""Contract checks of a loaded model: its texts, its passes and edits, and its faster methods."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.edits import set_stream
from toolkit.errors import BadInput, DataError
from toolkit.models import Encoded, Model
from toolkit.testing.decoders import check_decoder
from toolkit.testing.loaded_shortcuts import (
    check_generate,
    check_prefix,
    check_score,
    check_unembed,
    different_value,
    some_layers,
    streams_after_blocks,
)
from toolkit.testing.promises import near as _near
from toolkit.testing.promises import require as _require

LOADED_TEXTS = ("one two", "three four five six seven eight", "an \u00e9 \U0001f3b2 or two", "nine")
LONG_CONTEXT = 8192
"""A text that is too long is only tried on models with at most this context: on others it would
take minutes.
"""


def check_model(
    model: Model, texts: Sequence[str] = LOADED_TEXTS, *, tolerance: float = 1e-4
) -> None:
    """Check a loaded model: its texts, its passes and edits, and that its faster methods give the
    results of whole passes.

    `texts` differ in length. `tolerance` is relative to the largest value compared; load the model
    in float32, since in shorter floats the likeliest token depends on the batch.
    """
    sizes = (model.layers, model.width, model.context)
    _require(
        model, min(sizes) > 0, f"layers, width and context are {sizes}; each must be at least 1"
    )
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
    check_prefix(model, max(batch, key=len), tolerance)
    check_unembed(model, batch, tolerance)
    check_generate(model, [*batch, batch[0]])
    check_score(model, max(batch, key=len), tolerance)
    check_decoder(model, batch, tolerance)


def _check_encoding(model: Model, text: str, *, chat: bool) -> None:
    encoded, subject = model.encode(text, chat=chat), f"{text!r}{' in chat' if chat else ''}"
    _require(
        model,
        encoded == model.encode(text, chat=chat),
        f"encode returned a different result the second time on {subject}",
    )
    _require(
        model,
        0 < len(encoded.ids) <= model.context,
        f"encode returned {len(encoded.ids)} ids for {subject}; expected 1 to {model.context}",
    )
    _require(
        model,
        len(encoded.offsets) == len(encoded.ids),
        f"encode returned different numbers of ids and offsets for {subject}",
    )
    inside = all(0 <= start <= end <= len(encoded.text) for start, end in encoded.offsets)
    _require(model, inside, f"encode returned offsets outside the text for {subject}")
    for before, after in zip(encoded.offsets, encoded.offsets[1:], strict=False):
        _require(
            model,
            before[0] <= after[0] and before[1] <= after[1],
            f"encode returned offsets that go backwards for {subject}: {before}, then {after}. A "
            "token without characters (an added BOS or SEP) gets an empty range at the end of the "
            f"token before it: {(before[1], before[1])}",
        )
    begun = encoded.text[encoded.shift :].startswith(text)
    _require(
        model,
        begun,
        f"encode returned the shift {encoded.shift} for {subject}, but that is not where the given "
        "text begins",
    )
    if model.bos_id is not None:
        right = encoded.ids[0] == model.bos_id and encoded.ids.count(model.bos_id) == 1
        _require(
            model,
            right,
            f"encode returned {encoded.ids.count(model.bos_id)} BOS tokens for {subject}; expected "
            "exactly one, at the start",
        )
        added = chat or encoded.offsets[0][0] == encoded.offsets[0][1]
        _require(
            model,
            added,
            f"the added BOS has the characters {encoded.offsets[0]} of {subject}; give it the "
            "empty range (0, 0)",
        )


def _check_chat(model: Model, text: str) -> None:
    try:
        model.encode(text, chat=True)
    except BadInput:
        return  # the model has no chat template and refuses `chat`
    _check_encoding(model, text, chat=True)


def _check_tokens(model: Model, text: str) -> None:
    spans = (("all", 0, len(text)), ("first", 0, 1), ("rest", len(text) // 2, len(text)))
    encoded, tokens = model.encode(text), model.tokenise(text, spans=spans)
    _require(
        model,
        (tokens.text, tokens.ids) == (encoded.text, encoded.ids),
        f"tokenise differs from encode on {text!r}",
    )
    pieces = tuple(encoded.text[start:end] for start, end in encoded.offsets)
    _require(
        model,
        tokens.pieces == pieces,
        f"tokenise returned pieces that are not the characters of their tokens for {text!r}",
    )
    expected = tuple((name, *_token_range(encoded, start, end)) for name, start, end in spans)
    _require(
        model,
        tokens.spans == expected,
        f"tokenise turned {spans} of {text!r} into {tokens.spans}; expected {expected}",
    )
    decoded = model.decode(encoded.ids)
    _require(
        model,
        isinstance(decoded, str) and decoded == model.decode(encoded.ids),
        f"decode returned no text, or two different texts, for {text!r}",
    )
    if model.bos_id is not None:
        _require(
            model,
            decoded == model.decode(encoded.ids[1:]),
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
    _require(
        model,
        False,
        "tokenise accepted a text longer than the context; raise a DataError, and do not truncate",
    )


def _check_run(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    points, shape = streams_after_blocks(model), (len(batch), max(map(len, batch)), model.width)
    result = model.run(batch, points)
    _require(
        model,
        set(result) == set(points),
        f"run was called for {points}, but returned {sorted(result)}",
    )
    for name, stream in result.items():
        _require(
            model,
            tuple(stream.shape) == shape,
            f"run returned {name} with the shape {tuple(stream.shape)}; expected {shape}",
        )
        _require(
            model,
            not stream.requires_grad,
            "run returned tensors that require gradients; compute in torch.inference_mode()",
        )
    for row, ids in enumerate(batch):
        single, half = model.run([ids], points), model.run([ids[: len(ids) // 2 + 1]], points)
        for name in points:
            stream, start = result[name][row, : len(ids)], half[name][0]
            _require(model, stream.isfinite().all(), f"run returned NaN or infinity at {name}")
            same = _near(stream, single[name][0], tolerance)
            _require(
                model,
                same,
                f"{name} of a text depends on the other texts of its batch or on the padding",
            )
            seen = not model.causal or _near(stream[: len(start)], start, tolerance)
            _require(
                model,
                seen,
                f"{name} of a token depends on the tokens after it; a causal model was expected. "
                "An encoder is a toolkit.models.encoders.Encoder",
            )
    for name in points:
        only = model.run(batch[:1], [name])
        same = set(only) == {name} and _near(
            only[name][0], result[name][0, : len(batch[0])], tolerance
        )
        _require(
            model, same, f"{name} captured alone differs from {name} captured with other hookpoints"
        )


def _check_edits(model: Model, ids: Sequence[int], tolerance: float) -> None:
    """Check edits in the second of two equal rows, at the last position."""
    end, last, batch = model.last_hookpoint(), len(ids) - 1, [ids, ids]
    for name in (f"resid_post.{layer}" for layer in some_layers(model)):
        points = list(dict.fromkeys((name, end)))
        before = model.run(batch, points)
        value = before[name][1, last].clone()
        same = model.run(batch, points, [set_stream(name, [1], [last], value)])
        for point in points:
            unchanged = _near(same[point], before[point], tolerance)
            _require(model, unchanged, f"an edit at {name} to its current value changed {point}")
        after = model.run(batch, points, [set_stream(name, [1], [last], different_value(value))])
        made = _near(after[name][1, last], different_value(value), tolerance)
        _require(model, made, f"an edit at {name} does not change what is captured there")
        reaches = not _near(after[end][1, last], before[end][1, last], tolerance)
        _require(model, reaches, f"an edit at {name} to another value does not reach {end}")
        _require(
            model,
            _near(after[end][0], before[end][0], tolerance),
            f"an edit at {name} of one row changed another row",
        )
        past = not model.causal or _near(after[end][1, :last], before[end][1, :last], tolerance)
        _require(model, past, f"an edit at {name} changed earlier positions")


def _check_encoder(model: Model, ids: Sequence[int], tolerance: float) -> None:
    """Check edits, if it makes any, and the refusal of methods that need a next token."""
    try:
        _check_edits(model, ids, tolerance)
    except BadInput as error:
        _require(
            model, "edits" in str(error), f"the refusal of an edit does not mention edits: {error}"
        )
    for method in ("prefix", "suffix", "generate", "score", "unembed"):
        try:
            getattr(model, method)(ids, [])
        except BadInput as error:
            _require(
                model,
                model.identity.name in str(error) and method in str(error),
                f"the refusal of {method} does not name the method and the model: {error}",
            )
        else:
            _require(model, False, f"{method} returned something, but an encoder has no next token")
