"""The checks of loaded models and SAEs: right ones pass, and each broken promise is found and
named.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from toolkit._plugins.loading import load_parts
from toolkit.edits import Edit, Editing, OnStream, Set, from_position
from toolkit.errors import BadInput
from toolkit.hookpoints import hookpoint
from toolkit.identity import Identity
from toolkit.models import (
    LOGITS,
    AttentionRows,
    Encoded,
    Gradients,
    Model,
    Prefix,
    Span,
    Tokens,
)
from toolkit.models.sessions import Generated, Session
from toolkit.models.whole_pass_sessions import WholePassSession
from toolkit.parts import ModelPart, SaePart
from toolkit.saes import Sae, Sparse
from toolkit.testing.loaded import check_loaded
from toolkit.testing.loaded_models import check_model
from toolkit.testing.loaded_saes import check_sae
from toolkit.testing.promises import Broken

COUNT = load_parts().get("source", "count")
COUNTER = itertools.count()


def identity() -> Identity:
    return Identity(name="m", revision="1", digest="d")


# --- models ---------------------------------------------------------------------------------------

BOS, BYTES = 256, 257


class Tiny(Model):
    """A right model that reads bytes: each block adds a squashed mean of all positions so far.
    Subclasses break one promise each.
    """

    layers, width, context, bos_id, end_ids = 3, 8, 200, BOS, (0,)
    identity = Identity("tiny", "1", "d")

    def __init__(self) -> None:
        drawn = torch.randn(
            (self.layers + BYTES, self.width, self.width),
            generator=torch.Generator().manual_seed(0),
        )
        self.blocks, self.table, self.head = (
            drawn[: self.layers],
            drawn[self.layers :, 0],
            drawn[self.layers :, 1],
        )

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        rendered = f"user: {text}" if chat else text
        places = [
            (index, index + 1) for index, letter in enumerate(rendered) for _ in letter.encode()
        ]
        return Encoded(rendered, (BOS, *rendered.encode()), ((0, 0), *places), 6 if chat else 0)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token != BOS).decode(errors="replace")

    def mixed(self, stream: Tensor) -> Tensor:
        return stream.cumsum(1) / torch.arange(1, stream.shape[1] + 1)[:, None]

    editable = ("resid_post",)

    def edited(self, stream: Tensor, layer: int, editing: Editing) -> Tensor:
        return editing.apply(f"resid_post.{layer}", stream)

    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        for name in capture:
            if hookpoint(name).site != "resid_post":
                raise BadInput(f"hookpoint '{name}': tiny has resid_post only.")
        editing = self.editing(batch, edits)
        longest = max(map(len, batch))
        stream = self.table[torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in batch])]
        results = {}
        for layer, block in enumerate(self.blocks):
            stream = self.edited(stream + (self.mixed(stream) @ block).tanh(), layer, editing)
            results[f"resid_post.{layer}"] = stream
        return {name: results[name] for name in capture}

    def unembed(self, states: Tensor) -> Tensor:
        return states @ self.head.T


def changed(name: str, change: Callable[..., Any]) -> type[Tiny]:
    """A `Tiny` with a method that hands what the right one gives to `change`, with the model and
    the arguments before it.
    """

    def method(self: Tiny, *args: Any, **named: Any) -> Any:
        return change(self, *args, getattr(Tiny, name)(self, *args, **named))

    return type("Changed", (Tiny,), {name: method})


class NoBosInChat(Tiny):
    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        result = super().encode(text, chat=chat)
        return replace(result, ids=result.ids[1:], offsets=result.offsets[1:]) if chat else result


class CutsOff(Tiny):
    def tokenise(
        self, text: str, *, chat: bool = False, spans: Sequence[Span] = (), name: str = ""
    ) -> Tokens:
        return super().tokenise(text[:50], chat=chat, spans=spans, name=name)


class SpanOfOne(Tiny):
    def tokenise(
        self, text: str, *, chat: bool = False, spans: Sequence[Span] = (), name: str = ""
    ) -> Tokens:
        result = super().tokenise(text, chat=chat, spans=spans, name=name)
        return replace(
            result, spans=tuple((name, start, start + 1) for name, start, _ in result.spans)
        )


class SeesPadding(Tiny):
    def mixed(self, stream: Tensor) -> Tensor:
        return stream.mean(1, keepdim=True).expand_as(stream)


class SeesNeighbours(Tiny):
    def mixed(self, stream: Tensor) -> Tensor:
        return super().mixed(stream) - stream.mean(0)


class SeesAhead(Tiny):
    """Pays no heed to padding, but a token sees all of its own text."""

    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        results = super().run(batch, capture, edits)
        ends = {
            name: torch.stack([stream[row, len(ids) - 1] for row, ids in enumerate(batch)])
            for name, stream in results.items()
        }
        return {name: stream + ends[name][:, None] for name, stream in results.items()}


class NoEdits(Tiny):
    def edited(self, stream: Tensor, layer: int, editing: Editing) -> Tensor:
        return stream


class ChangesEdits(Tiny):
    """Makes other edits than it is given."""

    @staticmethod
    def changed(edit: Edit) -> Edit:
        raise NotImplementedError

    def editing(self, batch: Sequence[Sequence[int]], edits: Sequence[Edit]) -> Editing:
        return super().editing(batch, [self.changed(edit) for edit in edits])


class EditsEveryRow(ChangesEdits):
    @staticmethod
    def changed(edit: Edit) -> Edit:
        (start,) = edit.targets.starts.tolist()
        return replace(edit, targets=replace(from_position(start), index=edit.targets.index))


class EditsThePast(Tiny):
    """What an edit adds at its token, it adds to every token before it."""

    def edited(self, stream: Tensor, layer: int, editing: Editing) -> Tensor:
        new = super().edited(stream, layer, editing)
        moved = (new - stream).flip(1).cumsum(1).flip(1)
        return stream + moved


class EditsTwice(ChangesEdits):
    @staticmethod
    def changed(edit: Edit) -> Edit:
        assert isinstance(edit.operation, OnStream)
        assert isinstance(edit.operation.change, Set)
        return replace(edit, operation=OnStream(Set(2 * edit.operation.change.values)))


class EditsStay(Tiny):
    """What is edited is captured, but the next block reads the stream without it."""

    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        editing = self.editing(batch, edits)
        results = super().run(batch, [f"resid_post.{layer}" for layer in range(self.layers)])
        shown = {
            name: self.edited(stream, hookpoint(name).layer, editing)
            for name, stream in results.items()
        }
        return {name: shown[name] for name in capture}


class KeepsGradients(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(self.table)


class FirstToken(Tiny):
    def prefix(self, ids: Sequence[int], capture: Sequence[str] = ()) -> Prefix:
        return replace(
            super().prefix(ids, capture),
            captured={name: self.run([ids], [name])[name][0, 0] for name in capture},
        )


class SortsRows(Tiny):
    def suffix(
        self, prefix: Prefix, layers: Tensor, rows: Tensor, made: Tensor | None = None
    ) -> Tensor:
        order = layers.argsort(stable=True)
        return super().suffix(prefix, layers[order], rows[order], made)


class CountsNothing(Tiny):
    def suffix(
        self, prefix: Prefix, layers: Tensor, rows: Tensor, made: Tensor | None = None
    ) -> Tensor:
        return super().suffix(prefix, layers, rows)


class UsesUp(Tiny):
    """Leaves its last rows in what the prefix keeps."""

    def prefix(self, ids: Sequence[int], capture: Sequence[str] = ()) -> Prefix:
        return replace(super().prefix(ids, capture), kept=[])

    def suffix(
        self, prefix: Prefix, layers: Tensor, rows: Tensor, made: Tensor | None = None
    ) -> Tensor:
        result = super().suffix(prefix, layers, rows, made)
        prefix.kept.append(1)
        return result if len(prefix.kept) == 1 else result + 1


class NoRows(Tiny):
    def suffix(
        self, prefix: Prefix, layers: Tensor, rows: Tensor, made: Tensor | None = None
    ) -> Tensor:
        return super().suffix(prefix, layers, rows, made) if len(rows) else torch.empty(0)


class SecondGuess(Tiny):
    def generate(
        self, batch: Sequence[Sequence[int]], draw: Any = None, **options: Any
    ) -> list[Generated]:
        return super().generate(batch, lambda row, made: 1 - draw(row, made), **options)


class OwnNumbers(Tiny):
    def generate(
        self, batch: Sequence[Sequence[int]], draw: Any = None, **options: Any
    ) -> list[Generated]:
        result = super().generate(batch, draw, **options)
        draw(0, 0)
        return result


class NoUntil(Tiny):
    def generate(
        self, batch: Sequence[Sequence[int]], draw: Any = None, **options: Any
    ) -> list[Generated]:
        return super().generate(batch, draw, **{**options, "until": None})


class Alone(Tiny):
    """By itself a prompt gets one token less."""

    def generate(
        self, batch: Sequence[Sequence[int]], draw: Any = None, **options: Any
    ) -> list[Generated]:
        fewer = options["max_tokens"] - (len(batch) == 1)
        return super().generate(batch, draw, **{**options, "max_tokens": fewer})


class OnlySets(Tiny):
    """Makes no edits but those that set a value."""

    def editing(self, batch: Sequence[Sequence[int]], edits: Sequence[Edit]) -> Editing:
        sets = [
            edit
            for edit in edits
            if isinstance(edit.operation, OnStream) and isinstance(edit.operation.change, Set)
        ]
        return super().editing(batch, sets)


class Forgets(WholePassSession):
    """Edits do not reach the sequences."""

    def submit(self, *args: Any, **options: Any) -> None:
        super().submit(*args, **{**options, "edits": ()})


class ForgetsEdits(Tiny):
    def session(self, budget: int | None = None) -> Session:
        return Forgets(self, budget)


class Hasty(WholePassSession):
    """Ends each reply one token early."""

    def submit(self, *args: Any, **options: Any) -> None:
        super().submit(*args, **{**options, "max_tokens": options["max_tokens"] - 1})


class HastySession(Tiny):
    def session(self, budget: int | None = None) -> Session:
        return Hasty(self, budget)

    def generate(self, *args: Any, **options: Any) -> list[Generated]:
        return Model.generate(Tiny(), *args, **options)


class Offers(Tiny):
    """Shows its attention, which is the same to all tokens before, its slopes and its matrices."""

    def attention(
        self,
        batch: Sequence[Sequence[int]],
        queries: Sequence[Sequence[int]],
        layers: Sequence[int],
        *,
        capture: Sequence[str] = (),
        edits: Sequence[Edit] = (),
    ) -> AttentionRows:
        rows = [
            torch.stack([self.seen(position, len(ids)) for position in asked])[:, None]
            for ids, asked in zip(batch, queries, strict=True)
        ]
        return AttentionRows(dict.fromkeys(layers, rows), self.run(batch, capture, edits))

    def seen(self, position: int, length: int) -> Tensor:
        return (torch.arange(length) <= position).float() / (position + 1)

    def gradients(
        self, batch: Sequence[Sequence[int]], hookpoints: Sequence[str], objective: Any, **_: Any
    ) -> Gradients:
        (name,), layer = hookpoints, 0
        assert name == f"resid_post.{layer}"
        start = self.run(batch, [name])[name].detach().requires_grad_()
        stream = start
        for block in self.blocks[layer + 1 :]:
            stream = stream + (self.mixed(stream) @ block).tanh()
        ends = torch.stack([stream[row, len(ids) - 1] for row, ids in enumerate(batch)])
        values = objective({LOGITS: self.unembed(ends)})
        (slope,) = torch.autograd.grad(values.sum(), start)
        return Gradients({name: slope}, {name: start.detach()}, values.detach())

    def fold_final_norm(self, parts: Tensor, whole: Tensor | None = None) -> Tensor:
        return parts

    def unembedding_rows(self, tokens: Sequence[int] | Tensor) -> Tensor:
        return self.head[list(tokens)]

    def unembedding_offsets(self, tokens: Sequence[int] | Tensor) -> Tensor:
        return torch.zeros(len(list(tokens)))

    def embedding_rows(self, tokens: Sequence[int] | Tensor) -> Tensor:
        return self.table[list(tokens)]


def offering(name: str, change: Callable[..., Any]) -> type[Offers]:
    """An `Offers` with a method that hands what the right one gives to `change`."""

    def method(self: Offers, *args: Any, **named: Any) -> Any:
        return change(getattr(Offers, name)(self, *args, **named))

    return type("Offering", (Offers,), {name: method})


def _halved(result: Gradients) -> Gradients:
    return replace(result, gradients={name: slope / 2 for name, slope in result.gradients.items()})


def _leaking(result: Gradients) -> Gradients:
    return replace(result, objectives=result.objectives.clone().requires_grad_())


def _backwards(self: Tiny, text: str, result: Encoded) -> Encoded:
    return replace(result, offsets=(result.offsets[0], *reversed(result.offsets[1:])))


MODELS: list[tuple[type[Tiny], str]] = [
    (
        type("Flat", (Tiny,), {"context": 0}),
        "layers, width and context are (3, 8, 0); each must be at least 1",
    ),
    (
        changed("encode", lambda self, text, result: replace(result, shift=next(COUNTER))),
        "encode returned a different result the second time",
    ),
    (
        changed("encode", lambda self, text, result: replace(result, ids=())),
        "encode returned 0 ids for 'one two'; expected 1 to 200",
    ),
    (
        changed("encode", lambda self, text, result: replace(result, ids=(*result.ids, 1))),
        "different numbers of ids and offsets",
    ),
    (
        changed(
            "encode",
            lambda self, text, result: replace(
                result, offsets=tuple((a + 1, b + 1) for a, b in result.offsets)
            ),
        ),
        "encode returned offsets outside the text",
    ),
    (changed("encode", _backwards), "encode returned offsets that go backwards"),
    (
        changed("encode", lambda self, text, result: replace(result, shift=1)),
        "encode returned the shift 1 for 'one two'",
    ),
    (
        changed(
            "encode",
            lambda self, text, result: replace(
                result, ids=(BOS, *result.ids), offsets=((0, 0), *result.offsets)
            ),
        ),
        "encode returned 2 BOS tokens for 'one two'; expected exactly one, at the start",
    ),
    (NoBosInChat, "encode returned 0 BOS tokens for 'one two' in chat; expected exactly one"),
    (
        changed(
            "encode",
            lambda self, text, result: replace(result, offsets=((0, 1), *result.offsets[1:])),
        ),
        "the added BOS has the characters (0, 1) of 'one two'",
    ),
    (
        changed("tokenise", lambda self, text, result: replace(result, ids=result.ids[1:])),
        "tokenise differs from encode",
    ),
    (
        changed("tokenise", lambda self, text, result: replace(result, pieces=())),
        "pieces that are not the characters of their tokens",
    ),
    (SpanOfOne, "of 'one two' into (('all', 1, 2), "),
    (CutsOff, "tokenise accepted a text longer than the context"),
    (
        changed("decode", lambda self, ids, result: f"{result}{next(COUNTER)}"),
        "decode returned no text, or two",
    ),
    (
        changed("decode", lambda self, ids, result: "<s>" * (BOS in ids) + result),
        "decode shows BOS",
    ),
    (
        changed("run", lambda self, batch, capture, *rest: {**rest[-1], "resid_post.9": None}),
        "run was called for",
    ),
    (
        changed(
            "run",
            lambda self, batch, capture, *rest: {
                name: result[:, :-1] for name, result in rest[-1].items()
            },
        ),
        "run returned resid_post.0 with the shape (4, 31, 8); expected (4, 32, 8)",
    ),
    (
        changed(
            "run",
            lambda self, batch, capture, *rest: {
                name: result / 0 for name, result in rest[-1].items()
            },
        ),
        "run returned NaN or infinity at resid_post.0",
    ),
    (
        changed(
            "run",
            lambda self, batch, capture, *rest: {
                name: result + len(capture) for name, result in rest[-1].items()
            },
        ),
        "resid_post.0 captured alone differs from resid_post.0 captured with other hookpoints",
    ),
    (KeepsGradients, "run returned tensors that require gradients"),
    (
        SeesPadding,
        "resid_post.0 of a text depends on the other texts of its batch or on the padding",
    ),
    (
        SeesNeighbours,
        "resid_post.0 of a text depends on the other texts of its batch or on the padding",
    ),
    (SeesAhead, "resid_post.0 of a token depends on the tokens after it"),
    (NoEdits, "an edit at resid_post.0 does not change what is captured there"),
    (EditsTwice, "an edit at resid_post.0 to its current value changed resid_post.0"),
    (EditsStay, "an edit at resid_post.0 to another value does not reach resid_post.2"),
    (EditsEveryRow, "an edit at resid_post.0 of one row changed another row"),
    (EditsThePast, "an edit at resid_post.0 changed earlier positions"),
    (
        changed("prefix", lambda self, ids, capture, result: replace(result, ids=())),
        "prefix.ids are not the ids that prefix was called with",
    ),
    (
        FirstToken,
        "the values that prefix captures at resid_post.0 differ from those of run at the last "
        "token",
    ),
    (
        changed("prefix", lambda self, ids, capture, result: replace(result, captured=None)),
        "the values that prefix captures",
    ),
    (
        changed("suffix", lambda self, prefix, layers, rows, *more: more[-1][:1]),
        "suffix returned the shape (1, 8); expected (12, 8)",
    ),
    (
        SortsRows,
        "the states that suffix returned for rows at layer 2 differ from those of whole passes",
    ),
    (CountsNothing, "suffix wrote [0, 0, 0"),
    (UsesUp, "a second suffix of the same prefix returned other states"),
    (NoRows, "suffix of no rows returned the shape (0,); expected (0, 8)"),
    (
        changed("unembed", lambda self, states, result: result[0]),
        "unembed returned the shape (257,) for 4 rows",
    ),
    (
        changed("unembed", lambda self, states, logits: logits.log()),
        "unembed returned NaN or infinity",
    ),
    (
        changed("unembed", lambda self, states, result: result[:, :-1]),
        "unembed returned 256 logits; token ids go up to 256",
    ),
    (
        changed("unembed", lambda self, states, result: result - result[0]),
        "the logits of a row depend on the other rows",
    ),
    (
        changed("next_logits", lambda self, batch, *rest: rest[-1] + 1),
        "next_logits differs from unembed of the last token's state",
    ),
    (SecondGuess, "generated token by token with whole passes, it is"),
    (NoUntil, "generated token by token with whole passes, it is"),
    (OwnNumbers, "generate did not call draw exactly once for each token"),
    (Alone, "a reply depends on the other prompts"),
    (OnlySets, "edits that add and scale give other values than setting the same values"),
    (
        changed("edited_states", lambda self, prefix, edits, count, result: result + 1),
        "edited_states differs from run with the same edits",
    ),
    (ForgetsEdits, "a session "),
    (HastySession, "generated token by token with whole passes, it is"),
    (
        changed(
            "readout", lambda self, *args: replace(args[-1], normaliser=args[-1].normaliser + 1)
        ),
        "readout differs from what unembed gives",
    ),
    (
        type("Ahead", (Offers,), {"seen": lambda self, at, length: torch.ones(length) / length}),
        "attention of layer 0 has weights at tokens after the query",
    ),
    (
        type("Half", (Offers,), {"seen": lambda self, at, n: Offers.seen(self, at, n) / 2}),
        "attention weights of layer 0 do not add up to 1",
    ),
    (
        offering(
            "attention",
            lambda result: replace(
                result, captured={name: value + 1 for name, value in result.captured.items()}
            ),
        ),
        "attention captures values at resid_post.2 that differ from those of run",
    ),
    (offering("gradients", _halved), "the gradient at resid_post.0 has the slope"),
    (offering("gradients", _leaking), "gradients leaves tensors that require gradients"),
    (
        offering("unembedding_rows", lambda rows: rows.flip(0)),
        "unembedding_rows ranks tokens in another order than unembed",
    ),
    (
        offering("fold_final_norm", lambda parts: parts * parts.norm(dim=-1, keepdim=True)),
        "fold_final_norm of two parts of a state does not add up",
    ),
    (
        offering("embedding_rows", lambda rows: rows[0]),
        "embedding_rows returned the shape (8,); expected (1, 8)",
    ),
    (
        changed(
            "score",
            lambda self, ids, more, result: [
                score / len(text) for score, text in zip(result, more, strict=True)
            ],
        ),
        "from next_logits, it is",
    ),
]


@pytest.mark.parametrize(
    ("kind", "message"), MODELS, ids=lambda value: getattr(value, "__name__", None)
)
def test_models(kind: type[Tiny], message: str) -> None:
    with pytest.raises(Broken) as caught:
        check_model(kind())
    assert str(caught.value).startswith("model 'tiny': ")
    assert message in str(caught.value)


def test_a_right_model() -> None:
    check_model(Tiny())
    check_model(Offers())


def test_a_right_model_that_is_no_chat_model() -> None:
    class NoChat(Tiny):
        bos_id = None

        def encode(self, text: str, *, chat: bool = False) -> Encoded:
            if chat:
                raise BadInput("no chat model")
            result = super().encode(text)
            return replace(result, ids=result.ids[1:], offsets=result.offsets[1:])

    check_model(NoChat())


def test_what_a_model_part_loads() -> None:
    part = ModelPart(
        name="m",
        help="x",
        identify=lambda params: Tiny.identity,
        load=lambda params, report: Tiny(),
    )
    check_loaded(part)
    check_loaded(COUNT)
    for change, message in (
        ({"load": lambda params, report: 7}, "load returned int instead of a toolkit.models.Model"),
        (
            {"identify": lambda params: identity()},
            "the identity of the loaded model differs from that of identify",
        ),
        ({"load": lambda params, report: NoEdits()}, "does not change what is captured there"),
    ):
        with pytest.raises(Broken, match=message):
            check_loaded(replace(part, **cast("Any", change)))


# --- SAEs -----------------------------------------------------------------------------------------


class Small(Sae):
    """A right SAE; subclasses break one promise each."""

    name, hookpoint, release, digest, recipe = "small", "resid_post.1", "r", "d", "relu"
    width, inputs = 12, 8
    pointwise = True

    def __init__(self) -> None:
        drawn = torch.randn(
            (2, self.width, self.inputs), generator=torch.Generator().manual_seed(0)
        )
        self.encoder, self.decoder = drawn[0].T, drawn[1]

    def encode(self, rows: Tensor) -> Tensor:
        return (rows.float() @ self.encoder).relu()

    def decode(self, activations: Tensor) -> Tensor:
        return activations @ self.decoder + 1

    def encoder_columns(self, features: Sequence[int]) -> Tensor:
        return self.encoder.T[list(features)]

    def encoder_bias(self, features: Sequence[int]) -> Tensor:
        return torch.zeros(len(features))

    def thresholds(self, features: Sequence[int]) -> Tensor:
        return torch.zeros(len(features))

    def activations_of(self, rows: Tensor, features: Sequence[int]) -> Tensor:
        return self.encode(rows)[:, list(features)]

    def decoder_rows(self, features: Sequence[int]) -> Tensor:
        return self.decoder[list(features)]


class Forgetful(Small):
    def release_memory(self) -> None:
        self.encoder = self.encoder * 0


class Trained(Small):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Parameter(self.encoder)


def other(name: str, method: Callable[..., Any]) -> type[Small]:
    return type("Other", (Small,), {name: method})


def sae_with(**facts: Any) -> type[Small]:
    return type("Own", (Small,), facts)


RIGHT = Small()
SAES: list[tuple[type[Small], str]] = [
    (sae_with(name=""), "SAE '': its name is empty"),
    (sae_with(release=""), "its release is empty"),
    (sae_with(digest=""), "its digest is empty"),
    (sae_with(recipe=""), "its recipe is empty"),
    (sae_with(hookpoint="residual.1"), "'residual.1' is not a hookpoint"),
    (sae_with(hookpoint="blocks.1.hook_resid_post"), "write it as 'resid_post.1'"),
    (sae_with(layer=3), "its layer is 3, but its hookpoint is resid_post.1"),
    (sae_with(width=0), "its inputs and width are (8, 0); each must be at least 1"),
    (
        other("encode", lambda self, rows: RIGHT.encode(rows)[:, 1:]),
        "encode returned the shape (16, 11); expected (16, 12)",
    ),
    (
        other("encode", lambda self, rows: RIGHT.encode(rows).double()),
        "encode returned torch.float64; expected torch.float32",
    ),
    (Trained, "encode returned a tensor that requires gradients"),
    (
        other("encode", lambda self, rows: rows.float() @ self.encoder),
        "encode returned activations below zero, NaN or infinity",
    ),
    (
        other("encode", lambda self, rows: RIGHT.encode(rows - rows.mean(0))),
        "of a row depend on the other rows",
    ),
    (
        other("encode", lambda self, rows: (rows @ self.encoder).relu()),
        "encode does not take bfloat16, as models give it",
    ),
    (
        other("encode", lambda self, rows: (rows @ self.encoder.to(rows)).relu().float()),
        "encode of bfloat16 differs from encode of the same numbers in float32",
    ),
    (
        other(
            "sparse",
            lambda self, rows, chunk: replace(
                Small.sparse(RIGHT, rows), counts=torch.ones(len(rows))
            ),
        ),
        "sparse returned counts that do not add up to its features and values",
    ),
    (
        other(
            "sparse",
            lambda self, rows, chunk: replace(
                result := Sae.sparse(self, rows), features=result.features.flip(0)
            ),
        ),
        "sparse returned activations that differ from encode",
    ),
    (
        other(
            "sparse",
            lambda self, rows, chunk: (
                Sparse(*(torch.zeros(0),) * 3) if chunk == 3 else Sae.sparse(self, rows)
            ),
        ),
        "sparse returned counts that do not add up",
    ),
    (
        other("decode", lambda self, result: RIGHT.decode(result)[:, 1:]),
        "decode returned the shape (16, 7); expected (16, 8)",
    ),
    (
        other("decode", lambda self, acts: RIGHT.decode(acts) / 0),
        "decode returned NaN or infinity",
    ),
    (other("decode", lambda self, result: RIGHT.decode(result).tanh()), "it must be affine"),
    (
        other("decoder_rows", lambda self, features: self.decoder[features] * 2),
        "it must be affine in the activations",
    ),
    (
        other("decoder_rows", lambda self, features: self.decoder[sorted(features)]),
        "it must be affine in the activations",
    ),
    (
        other("decoder_rows", lambda self, features: self.decoder),
        "decoder_rows returned the shape (12, 8); expected (4, 8)",
    ),
    (
        other(
            "activations_of", lambda self, rows, features: RIGHT.encode(rows)[:, sorted(features)]
        ),
        "activations_of returned activations that differ from encode",
    ),
    (
        other("activations_of", lambda self, rows, features: RIGHT.encode(rows)),
        "activations_of returned the shape (16, 12); expected (16, 4)",
    ),
    (
        other("encoder_columns", lambda self, features: self.encoder[:, features]),
        "returned the shapes (8, 4), (4,), (4,); expected (4, 8), (4,), (4,)",
    ),
    (
        other("encoder_bias", lambda self, features: torch.ones(len(features))),
        "its pre-activations above their thresholds differ from encode",
    ),
    (Forgetful, "encode returns other values after release_memory"),
]


@pytest.mark.parametrize(("kind", "message"), SAES)
def test_saes(kind: type[Small], message: str) -> None:
    with pytest.raises(Broken) as caught:
        check_sae(kind())
    assert message in str(caught.value)


def test_a_right_sae() -> None:
    check_sae(Small())
    check_sae(Small(), rows=torch.ones(3, 8))


def test_what_an_sae_part_loads() -> None:
    part = SaePart(
        name="s",
        help="x",
        identify=lambda params: identity(),
        load=lambda params, report: [Small(), Small()],
        examine=None,
    )
    check_loaded(part)
    for loaded in (Small(), [], [7], [Small(), Forgetful()]):
        with pytest.raises(
            Broken, match=r"expected a list of at least one toolkit.saes.Sae|after release_memory"
        ):
            check_loaded(replace(part, load=lambda params, report, loaded=loaded: loaded))
