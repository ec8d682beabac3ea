"""A loaded model: the methods that stages call, most of them with a working default."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, NoReturn

from toolkit.edits import Edit, Editing, OnStream, Set, check_targets, tokens
from toolkit.errors import BadInput, DataError
from toolkit.hookpoints import Hookpoint
from toolkit.models.readout import Readout, Tiles, read_out
from toolkit.models.records import (
    LOGITS,
    AttentionRows,
    Counted,
    Encoded,
    Frozen,
    Gradients,
    Objective,
    Prefix,
    Span,
    Tokens,
    check_queries,
    token_span,
)
from toolkit.models.sessions import Generated, Session, Until
from toolkit.models.whole_pass_sessions import WholePassSession

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.identity import Identity

PASS_ROWS = 64
"""Rows per whole pass in the default methods."""


class Model(ABC):
    """A loaded model. Layers count from 0; sequences are padded on the right, where a causal model
    cannot see the padding.
    """

    identity: Identity
    layers: int
    width: int
    context: int

    # --- methods that a loader has to write ---

    @abstractmethod
    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        """Token ids, with exactly one BOS if the model uses one (also in a chat), and the
        characters of each.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out."""

    @abstractmethod
    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        """One pass: for each hookpoint of `capture` a tensor (rows, longest, width), after the
        edits are made.

        `attn_z` is as wide as all heads together; `attn_probs` is (rows, heads, longest, longest):
        queries, then keys.

        Blocks after the last one captured need not be run. Values beyond a row's end are
        meaningless.
        """

    @abstractmethod
    def unembed(self, states: Tensor) -> Tensor:
        """Logits of rows of the last block's output: final norm, head and, if there is one, the
        cap.
        """

    editable: tuple[str, ...] = ("resid_pre", "resid_post")
    """Sites at which `run` makes edits."""

    draw_tolerance: float = 1e-4
    """How far two computations of the same cumulative probability may differ."""

    end_ids: tuple[int, ...] = ()
    """Tokens that end a reply."""

    bos_id: int | None = None
    """The token at the beginning of every text, if the model has one; its activations are left out
    of results.
    """

    causal: bool = True
    """Whether a token sees only earlier tokens. `toolkit.models.encoders.Encoder` is for models
    where it is False.
    """

    # --- working defaults ---

    @cached_property
    def counted(self) -> Counted:
        """What it has computed since it was loaded. A loader that counts adds to it; reports then
        compare it with the forecast.
        """
        return Counted()

    def tokenise(
        self, text: str, *, chat: bool = False, spans: Sequence[Span] = (), name: str = ""
    ) -> Tokens:
        """Tokens with character spans turned into token ranges: any overlap counts. Longer than the
        context is an error.
        """
        encoded = self.encode(text, chat=chat)
        if len(encoded.ids) > self.context:
            of = f"sample '{name}'" if name else f"the text '{text[:40]}...'"
            raise DataError(
                f"{of} has {len(encoded.ids)} tokens; {self.identity.name} reads at most "
                f"{self.context}. Shorten the text, or leave the sample out: truncating "
                f"it would change the prompt."
            )
        ranges = tuple(token_span(span, encoded) for span in spans)
        pieces = tuple(encoded.text[start:end] for start, end in encoded.offsets)
        spans = tuple(span for span in ranges if span is not None)
        bos = len(encoded.ids) > 0 and encoded.ids[0] == self.bos_id
        return Tokens(encoded.text, encoded.ids, pieces, spans, bos)

    def editing(self, batch: Sequence[Sequence[int]], edits: Sequence[Edit]) -> Editing:
        """The edits of one pass over whole sequences, for `run`: hand `apply` the stream at each
        hookpoint, in the order in which they are computed.
        """
        check_targets(edits, [len(ids) for ids in batch])
        return Editing(
            edits, batch, editable=self.editable, layers=self.layers, model=self.identity.name
        )

    def last_hookpoint(self) -> str:
        """The hookpoint whose rows `unembed` takes."""
        return str(Hookpoint("resid_post", self.layers - 1))

    # --- one prompt, many edits ---

    def prefix(self, ids: Sequence[int], capture: Sequence[str] = ()) -> Prefix:
        """Compute a prompt once for many `suffix` calls, and keep its last token's stream at
        `capture`.
        """
        names = [*dict.fromkeys((*capture, self.last_hookpoint()))]
        streams = self.run([ids], names)
        return Prefix(tuple(ids), None, {name: streams[name][0, len(ids) - 1] for name in names})

    def suffix(
        self, prefix: Prefix, layers: Tensor, rows: Tensor, made: Tensor | None = None
    ) -> Tensor:
        """Last-token states, one row each, where the stream after block `layers[i]`, at the last
        token, is `rows[i]`. `layers`: (n,) int64; `rows`: (n, width); gives (n, width). Adds to
        `made`, (n,) int64 on the CPU, how often each row was set in a pass.
        """
        import torch

        self.check_suffix(layers, rows)
        last, states = len(prefix.ids) - 1, []
        for start in range(0, len(layers), PASS_ROWS):
            chunk, values = layers[start : start + PASS_ROWS], rows[start : start + PASS_ROWS]
            edits = [
                self._set_last(int(layer), (chunk == layer).nonzero()[:, 0].cpu(), last, values)
                for layer in torch.unique(chunk)
            ]
            states.append(self._last_states([prefix.ids] * len(chunk), edits))
            if made is not None:
                times = [sum(edit.tally.total(row) for edit in edits) for row in range(len(chunk))]
                made[start : start + len(chunk)] += torch.tensor(times)
        return torch.cat(states) if states else torch.empty((0, self.width))

    def _set_last(self, layer: int, chosen: Tensor, last: int, values: Tensor) -> Edit:
        """The stream of some rows after a block, at the last token."""
        import torch

        targets = tokens(chosen, torch.full((len(chosen),), last))
        operation = OnStream(Set(values[chosen.to(values.device)]))
        return Edit(f"resid_post.{layer}", operation, targets)

    def check_suffix(self, layers: Tensor, rows: Tensor) -> None:
        """Check that there is one layer of the model per row, and that rows have its width."""
        if tuple(rows.shape) != (len(layers), self.width):
            raise BadInput(
                f"suffix: {len(layers)} layers and rows of the shape {tuple(rows.shape)}; give "
                f"({len(layers)}, {self.width})."
            )
        if len(layers) and not 0 <= int(layers.min()) <= int(layers.max()) < self.layers:
            layer = int(layers.min()) if int(layers.min()) < 0 else int(layers.max())
            raise BadInput(
                f"suffix: {self.identity.name} has no layer {layer}; its layers are 0 to "
                f"{self.layers - 1}."
            )

    def edited_states(self, prefix: Prefix, edits: Sequence[Edit], count: int) -> Tensor:
        """Last-token states of `count` copies of the prompt, (count, width). Targets of edits name
        the copies as rows 0 to count - 1; an edit may be at any hookpoint and position.
        """
        import torch

        states = [
            self._last_states(
                [prefix.ids] * (min(start + PASS_ROWS, count) - start),
                [edit.of_rows(start, min(start + PASS_ROWS, count)) for edit in edits],
            )
            for start in range(0, count, PASS_ROWS)
        ]
        return torch.cat(states) if states else torch.empty((0, self.width))

    def _last_states(self, batch: Sequence[Sequence[int]], edits: Sequence[Edit] = ()) -> Tensor:
        """Each sequence's last row of the last block's output."""
        import torch

        states = self.run(batch, [self.last_hookpoint()], edits)[self.last_hookpoint()]
        ends = torch.tensor([len(ids) - 1 for ids in batch], device=states.device)
        return states[torch.arange(len(batch), device=states.device), ends]

    # --- logits ---

    def next_logits(self, batch: Sequence[Sequence[int]], edits: Sequence[Edit] = ()) -> Tensor:
        """Logits of the token after each sequence."""
        return self.unembed(self._last_states(batch, edits))

    def readout(
        self, states: Tensor, tokens: Sequence[int] | Tensor, base: Tensor | None = None
    ) -> Readout:
        """Compute from last-token states (n, width) the logits of chosen tokens, the logarithm of
        the sum of exponentials over the vocabulary, and with `base` (width,) the divergence from
        its distribution, KL(base || row). An n x vocabulary matrix is never in memory.
        """
        return read_out(self._logit_tiles, states, tokens, base)

    def _logit_tiles(self, states: Tensor) -> Tiles:
        """(first token, logits of a range of the vocabulary), until all of it is covered. By
        default all in one.
        """
        yield 0, self.unembed(states)

    def score(self, ids: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        """The exact log-probability of each continuation after `ids`."""
        import torch

        batch = [[*ids, *more] for more in continuations]
        states = self.run(batch, [self.last_hookpoint()])[self.last_hookpoint()]
        scores = []
        for row, more in enumerate(continuations):
            logp = torch.log_softmax(
                self.unembed(states[row, len(ids) - 1 : len(batch[row]) - 1]).double(), dim=-1
            )
            scores.append(float(logp[torch.arange(len(more)), torch.tensor(list(more))].sum()))
        return scores

    # --- replies ---

    def session(self, budget: int | None = None) -> Session:
        """A session in which replies join and leave at every token; `budget`: tokens kept at a
        time.
        """
        return WholePassSession(self, budget)

    def generate(
        self,
        batch: Sequence[Sequence[int]],
        draw: Callable[[int, int], float] | None = None,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        until: Until = None,
        edits: Sequence[Edit] = (),
        budget: int | None = None,
    ) -> list[Generated]:
        """Replies to all of a batch. `draw(row, n)` is the random number in [0, 1) that chooses
        token n of a row's reply; None: always the likeliest token.
        """
        session = self.session(budget)
        for row, ids in enumerate(batch):
            session.submit(
                row,
                ids,
                None if draw is None else partial(draw, row),
                max_tokens=max_tokens,
                temperature=temperature,
                until=until,
                edits=edits,
                row=row,
            )
        replies = {reply.id: reply for reply in session.run()}
        return [replies[row] for row in range(len(batch))]

    # --- attention, gradients and matrices: optional for a loader ---

    def attention(
        self,
        batch: Sequence[Sequence[int]],
        queries: Sequence[Sequence[int]],
        layers: Sequence[int],
        *,
        capture: Sequence[str] = (),
        edits: Sequence[Edit] = (),
    ) -> AttentionRows:
        """Attention of the queries (positions of each row), for every head of some layers, and
        captures of the same pass. By default from the whole `attn_probs`, if `run` captures them.
        """
        check_queries(batch, queries)
        names = {layer: f"attn_probs.{layer}" for layer in layers}
        streams = self.run(batch, [*names.values(), *capture], edits)
        weights = {
            layer: [
                streams[name][row][:, list(positions), : len(ids)].transpose(0, 1).float()
                for row, (ids, positions) in enumerate(zip(batch, queries, strict=True))
            ]
            for layer, name in names.items()
        }
        return AttentionRows(weights, {name: streams[name] for name in capture})

    def gradients(
        self,
        batch: Sequence[Sequence[int]],
        hookpoints: Sequence[str],
        objective: Objective,
        *,
        reads: Sequence[str] = (LOGITS,),
        edits: Sequence[Edit] = (),
        freeze: Collection[Frozen] = (),
    ) -> Gradients:
        """Gradients of one number per row with respect to the streams at hookpoints. The objective
        gets what it `reads`: streams by hookpoint, and LOGITS.
        """
        self._refuse("has no gradients", "gradients")

    def embedding_rows(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """The vector that each token writes into the stream, (n, width), float32, without
        positions.
        """
        self._refuse("does not expose rows of its embedding", "embedding_rows")

    def unembedding_rows(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """The direction read by each token's logit after `fold_final_norm`, (n, width), float32."""
        self._refuse("does not expose rows of its unembedding", "unembedding_rows")

    def unembedding_offsets(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """The part of each token's logit that does not depend on the stream, (n,): the biases of
        norm and head.
        """
        self._refuse("does not expose rows of its unembedding", "unembedding_offsets")

    def fold_final_norm(self, parts: Tensor, whole: Tensor | None = None) -> Tensor:
        """Parts of a last-token stream as `unembedding_rows` reads them: (..., width), float32, by
        the norm of `whole` (..., width); without it, each by its own norm. Linear in the parts:

            logit = fold_final_norm(parts, whole) @ unembedding_rows(t) summed over parts
                    + unembedding_offsets(t), before a cap of logits.
        """
        self._refuse("does not expose its final norm", "fold_final_norm")

    def head_outputs(self, layer: int, z: Tensor) -> Tensor:
        """The output of each head of a layer: attn_z (..., heads * size) -> (..., heads, width),
        float32, before any norm after attention, without biases.
        """
        self._refuse("does not expose single heads", "head_outputs")

    def _refuse(self, lacks: str, method: str) -> NoReturn:
        raise BadInput(
            f"{self.identity.name} {lacks}: its loader does not override "
            f"toolkit.models.Model.{method}. Use a loader that does, such as `huggingface`."
        )
