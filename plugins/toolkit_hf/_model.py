"""A causal language model, run block by block with its own modules.

Sequences are padded on the right, where causal attention cannot see the padding. A row of `suffix`
is one query at the prompt's last position: it sees the prompt's keys and itself, never another row.
Blocks may stand on several devices: the stream goes to where the next block is, and what is handed
out is on the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from toolkit.costs import ANSWERED
from toolkit.errors import BadInput, DataError
from toolkit.hookpoints import Hookpoint, hookpoint
from toolkit.models import Draw, Edit, Encoded, Generated, Model, Prefix, Reply, as_probabilities

from ._structure import factor, family_of, listen, tensor
from ._text import bos_of, encode, end_ids
from ._turn import Turn, Window, additive, causal, grown, own_column, window_of

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.families import Family
    from toolkit.parts import Identity

SUFFIX_ROWS = 256
"""Rows of one suffix pass: more share a pass, but each row's mask spans them all."""
PASS_TOKENS = ANSWERED
"""Padded tokens of one pass of `generate`."""
STREAM = ("resid_pre", "resid_post")
"""Sites between blocks; the others are inside one."""


class Keys:
    """Keys and values of past positions, in the form the blocks ask for (`update`), kept apart from
    what a pass adds.

    `grow` says whether what a pass adds is kept for the next one.
    """

    def __init__(self, held: dict[int, tuple[Tensor, Tensor]] | None = None, *, grow: bool) -> None:
        self.held, self._grow = held or {}, grow

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Past and new together, for one block."""
        if layer_idx in self.held:
            key = torch.cat((self.held[layer_idx][0], key), dim=2)
            value = torch.cat((self.held[layer_idx][1], value), dim=2)
        if self._grow:
            self.held[layer_idx] = key, value
        return key, value

    def rows(self, chosen: Tensor) -> Keys:
        """Some rows, in a new object; a row may be taken several times."""
        held = {
            layer: (key[chosen.to(key.device)], value[chosen.to(key.device)])
            for layer, (key, value) in self.held.items()
        }
        return Keys(held, grow=True)


class CausalModel(Model):
    """See the module's text. Nothing here changes the weights or leaves a hook behind.

    `places` has each block's device, where they are not all on one; `switch` lets a block that
    shows its attention weights compute them plainly for that.
    """

    def __init__(
        self,
        identity: Identity,
        module: Any,
        tokeniser: Any,
        places: Sequence[torch.device] = (),
        *,
        switch: bool = True,
        family: Family | None = None,
    ) -> None:
        self.identity, self._module, self._tokeniser, self._switch = (
            identity,
            module,
            tokeniser,
            switch,
        )
        self._said: set[tuple[int, ...]] = set()
        self._family, config = family_of(module, family), module.config
        self._blocks = module.get_submodule(self._family.blocks)
        attentions = [block.get_submodule(self._family.attention) for block in self._blocks]
        self._windows = tuple(window_of(attention, config) for attention in attentions)
        rotary = self._family.rotary and module.get_submodule(self._family.rotary)
        by_kind = bool(rotary) and isinstance(getattr(rotary, "layer_types", None), list)
        self._kinds = tuple(attention.layer_type if by_kind else None for attention in attentions)
        self._branch = factor(config, self._family.branch_factor)
        self._parallel = bool(getattr(self._blocks[0], "use_parallel_residual", False))
        self.layers, self.width = int(config.num_hidden_layers), int(config.hidden_size)
        self.context = int(config.max_position_embeddings)
        self.end_ids = end_ids(module, tokeniser)
        self.bos_id = tokeniser.bos_token_id if bos_of(tokeniser) else None
        self._embedding = module.get_submodule(self._family.embedding)
        self.device = self._embedding.weight.device
        self._places = tuple(places) or (self.device,) * self.layers

    # --- text ---

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        """Ids, with exactly one BOS if the model has any."""
        return encode(self._tokeniser, text, chat=chat, model=self.identity.name)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._tokeniser.decode(list(ids), skip_special_tokens=True))

    # --- passes ---

    @torch.inference_mode()
    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        """One pass up to the last block that anyone asked for."""
        wanted = {name: self._checked(name) for name in capture}
        changes = [(self._checked(edit.hookpoint), edit) for edit in edits]
        if any(point.site not in STREAM for point, _ in changes):
            raise BadInput(
                "edits: this model edits the stream at resid_pre.LAYER and resid_post.LAYER only."
            )
        weighing = {point.layer for point in wanted.values() if point.site == "attn_probs"}
        self._check_weights(weighing)
        found: dict[str, Tensor] = {}
        stream, turn = self._begin(batch, explicit=bool(weighing))
        for layer in range(max((point.layer for point in wanted.values()), default=-1) + 1):
            stream = _changed(stream, changes, Hookpoint("resid_pre", layer))
            self._keep(found, wanted, Hookpoint("resid_pre", layer), stream)
            with self._listening(layer, wanted, found), self._plainly(layer in weighing):
                stream = self._through(layer, stream, turn)
            stream = _changed(stream, changes, Hookpoint("resid_post", layer))
            self._keep(found, wanted, Hookpoint("resid_post", layer), stream)
        return found

    @torch.inference_mode()
    def unembed(self, states: Tensor) -> Tensor:
        """Final norm, head and the cap of the logits if there is one, in float32."""
        norm, head = (
            self._module.get_submodule(self._family.norm),
            self._module.get_output_embeddings(),
        )
        logits: Tensor = head(norm(states.to(self.device, self._module.dtype)))
        cap = getattr(self._module.config, "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        divisor = factor(self._module.config, self._family.logits_divisor)
        return (logits if divisor == 1 else logits / divisor).float()

    @torch.inference_mode()
    def prefix(self, ids: Sequence[int], capture: Sequence[str] = ()) -> Prefix:
        """One pass that keeps every block's keys; only the last token's stream is kept of what is
        captured.
        """
        wanted = [*dict.fromkeys((*capture, self.last_hookpoint()))]
        points = {name: self._checked(name) for name in wanted}
        if any(point.site != "resid_post" for point in points.values()):
            raise BadInput("prefix: this model captures resid_post.LAYER only.")
        keys, captured = Keys(grow=True), {}
        stream, turn = self._begin([ids])
        for layer in range(self.layers):
            stream = self._through(layer, stream, turn, keys)
            captured.update(
                {
                    name: stream[0, -1].to(self.device)
                    for name, point in points.items()
                    if point.layer == layer
                }
            )
        before = {
            layer: (key[:, :, :-1], value[:, :, :-1]) for layer, (key, value) in keys.held.items()
        }
        return Prefix(tuple(ids), Keys(before, grow=False), captured)

    @torch.inference_mode()
    def suffix(self, prefix: Prefix, rows: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Blocks above each row's layer, at the last position only, many rows in a pass.

        A row joins the pass above its own layer, so no block computes what an edit cannot reach.
        """
        order = sorted(range(len(rows)), key=lambda at: rows[at][0])
        states = torch.empty((len(rows), self.width), dtype=self._module.dtype, device=self.device)
        for start in range(0, len(order), SUFFIX_ROWS):
            chosen = order[start : start + SUFFIX_ROWS]
            states[torch.tensor(chosen, device=self.device)] = self._climb(
                prefix, [rows[at] for at in chosen]
            )
        return states

    def _climb(self, prefix: Prefix, rows: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Rows in order of their layers."""
        for layer, _ in rows:
            self._checked(f"resid_post.{layer}")
        past = len(prefix.ids) - 1
        values = torch.stack([value.to(self.device, self._module.dtype) for _, value in rows])
        positions = torch.full((1, len(rows)), past, device=self.device)
        turn = self._turn(
            positions, lambda window: own_column(len(rows), past, window, self.device)[None, None]
        )
        done = sum(layer <= rows[0][0] for layer, _ in rows)
        stream = values[:done]
        for layer in range(rows[0][0] + 1, self.layers):
            own = turn.at(self._places[layer]).first(len(stream), past + len(stream))
            stream = self._through(layer, stream[None], own, prefix.kept)[0]
            joining = sum(start == layer for start, _ in rows)
            stream = torch.cat((stream, values[done : done + joining].to(stream.device)))
            done += joining
        return stream.to(self.device)

    @torch.inference_mode()
    def generate(
        self, batch: Sequence[Sequence[int]], draw: Draw, *, most: int, until: str | None = None
    ) -> list[Generated]:
        """With kept keys; equal prompts are read once. Rows of similar length share a pass."""
        order = sorted(range(len(batch)), key=lambda row: (len(batch[row]), tuple(batch[row])))
        replies: list[Generated | None] = [None] * len(batch)
        while order:
            longest = len(batch[order[-1]]) + most
            rows, order = (
                order[-max(1, PASS_TOKENS // longest) :],
                order[: -max(1, PASS_TOKENS // longest)],
            )
            for row, made in zip(rows, self._answer(batch, rows, draw, most, until), strict=True):
                replies[row] = made
        return [reply for reply in replies if reply is not None]

    def _answer(
        self,
        batch: Sequence[Sequence[int]],
        rows: Sequence[int],
        draw: Draw,
        most: int,
        until: str | None,
    ) -> list[Generated]:
        distinct = list(dict.fromkeys(tuple(batch[row]) for row in rows))
        which = torch.tensor(
            [distinct.index(tuple(batch[row])) for row in rows], device=self.device
        )
        lengths = torch.tensor([len(batch[row]) for row in rows], device=self.device)
        states, keys = self._read(distinct)
        states, keys, wide = states[which], keys.rows(which), max(map(len, distinct))
        replies = [Reply(self, until, most) for _ in rows]
        live = list(range(len(rows)))
        for step in range(most):
            for at, chances in zip(live, as_probabilities(self.unembed(states)), strict=True):
                replies[at].take(draw(rows[at], step, chances))
            going = [place for place, at in enumerate(live) if not replies[at].finish]
            if not going:
                break
            live, chosen = [live[place] for place in going], torch.tensor(going, device=self.device)
            if len(going) < len(states):
                keys, lengths = keys.rows(chosen), lengths[chosen]
            self._must_fit(max(len(batch[rows[at]]) for at in live) + step + 1)
            states = self._go_on(keys, [replies[at].ids[-1] for at in live], lengths, wide, step)
        return [reply.generated() for reply in replies]

    def _read(self, distinct: Sequence[Sequence[int]]) -> tuple[Tensor, Keys]:
        """Last-token states of prompts, and their keys, padded on the right."""
        keys = Keys(grow=True)
        stream, turn = self._begin(distinct)
        for layer in range(self.layers):
            stream = self._through(layer, stream, turn, keys)
        ends = torch.tensor([len(ids) - 1 for ids in distinct], device=self.device)
        states: Tensor = stream.to(self.device)[
            torch.arange(len(distinct), device=self.device), ends
        ]
        return states, keys

    def _go_on(
        self, keys: Keys, tokens: Sequence[int], lengths: Tensor, wide: int, step: int
    ) -> Tensor:
        """The states after one more token of each row; the columns between a prompt's end and
        `wide` stay hidden.
        """
        positions = (lengths + step)[:, None]
        turn = self._turn(
            positions, lambda window: grown(lengths, wide, step, window)[:, None, None]
        )
        stream = self._embedded(torch.tensor(tokens, device=self.device)[:, None], positions)
        for layer in range(self.layers):
            stream = self._through(layer, stream, turn, keys)
        return stream[:, 0].to(self.device)

    # --- pieces of a pass ---

    def _begin(
        self, batch: Sequence[Sequence[int]], *, explicit: bool = False
    ) -> tuple[Tensor, Turn]:
        """Embeddings and turn of whole sequences. Masks are left out where `sdpa` knows what to do,
        unless `explicit`.
        """
        ids = self._padded(batch)
        positions = torch.arange(ids.shape[1], device=self.device)
        explicit = explicit or self._module.config._attn_implementation != "sdpa"

        def seen(window: Window) -> Tensor | None:
            plain = window is None or len(positions) <= window
            return causal(positions, window)[None, None] if explicit or not plain else None

        return self._embedded(ids, positions[None]), self._turn(positions[None], seen)

    def _padded(self, batch: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, batch))
        self._must_fit(longest)
        if not min(map(len, batch)):
            raise DataError(
                f"A sequence has no tokens: {self.identity.name} needs at least one to read."
            )
        return torch.tensor(
            [[*ids, *[0] * (longest - len(ids))] for ids in batch], device=self.device
        )

    def _must_fit(self, longest: int) -> None:
        if longest > self.context:
            raise DataError(
                f"A sequence has {longest} tokens; {self.identity.name} reads at most "
                f"{self.context}. Shorten it."
            )

    def _embedded(self, ids: Tensor, positions: Tensor) -> Tensor:
        """What goes into the first block."""
        stream: Tensor = self._embedding(ids)
        if self._family.scaled and not hasattr(self._embedding, "embed_scale"):
            stream = stream * torch.tensor(
                self.width**0.5, dtype=stream.dtype, device=stream.device
            )
        embedding = factor(self._module.config, self._family.embedding_factor)
        if embedding != 1:
            stream = stream * embedding
        if self._family.positions:
            stream = stream + self._module.get_submodule(self._family.positions)(positions)
        return stream

    def _turn(self, positions: Tensor, seen: Callable[[Window], Tensor | None]) -> Turn:
        """What blocks are told: `seen` says which keys each query sees through a window."""
        like = torch.empty(0, dtype=self._module.dtype, device=self.device)
        rotations: dict[str | None, tuple[Tensor, ...]] = {}
        if self._family.rotary:
            rotary = self._module.get_submodule(self._family.rotary)
            for kind in set(self._kinds):
                rotations[kind] = rotary(like, positions, *([kind] if kind else []))
        shown = {window: seen(window) for window in set(self._windows)}
        masks = {
            window: None if mask is None else additive(mask, self._module.dtype)
            for window, mask in shown.items()
        }
        return Turn(positions, rotations, masks)

    def _through(self, layer: int, stream: Tensor, turn: Turn, keys: Keys | None = None) -> Tensor:
        """One block, where it stands."""
        place = self._places[layer]
        given = turn.at(place).arguments(self._windows[layer], self._kinds[layer])
        return tensor(self._blocks[layer](stream.to(place), **given, **{self._family.keys: keys}))

    def _checked(self, name: str) -> Hookpoint:
        point = hookpoint(name)
        if point.layer >= self.layers:
            raise BadInput(
                f"hookpoint '{name}': {self.identity.name} has no layer {point.layer}; its layers "
                f"are 0 to {self.layers - 1}."
            )
        if point.site == "resid_mid" and self._parallel:
            raise BadInput(
                f"hookpoint '{name}': attention and MLP of {self.identity.name} both read the "
                f"block's input, so there is no stream between them. Use resid_pre.{point.layer} "
                f"or resid_post.{point.layer}."
            )
        if point.site == "mlp_in_normed" and not self._family.mlp_norm:
            raise BadInput(
                f"hookpoint '{name}': the MLP of {self.identity.name} reads the stream without a "
                f"norm before it. Use mlp_in.{point.layer} or resid_mid.{point.layer}."
            )
        return point

    # --- what is shown ---

    @contextmanager
    def _listening(
        self, layer: int, wanted: Mapping[str, Hookpoint], found: dict[str, Tensor]
    ) -> Iterator[None]:
        """Hooks for the sites inside one block, for as long as it runs."""

        def keeper(name: str) -> Callable[[Tensor], None]:
            return lambda value: found.update({name: value.to(self.device)})

        inside = {
            name: point
            for name, point in wanted.items()
            if point.layer == layer and point.site not in STREAM
        }
        handles = [
            listen(self._family, point.site, self._blocks[layer], keeper(name), self._branch)
            for name, point in inside.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(
        self,
        found: dict[str, Tensor],
        wanted: Mapping[str, Hookpoint],
        here: Hookpoint,
        stream: Tensor,
    ) -> None:
        found.update(
            {name: stream.to(self.device) for name, point in wanted.items() if point == here}
        )

    def _check_weights(self, layers: set[int]) -> None:
        """Only attention that is computed plainly has weights to show."""
        if not layers or self._module.config._attn_implementation == "eager":
            return
        if not self._switch:
            raise BadInput(
                "attn_probs: `attention: sdpa` never has the weights in hand. Set `attention: "
                "auto` or `eager`."
            )
        if tuple(sorted(layers)) in self._said:
            return
        self._said.add(tuple(sorted(layers)))
        logging.getLogger(__name__).warning(
            "attn_probs: attention of layers %s of %s is computed by `eager`, since `sdpa` shows "
            "no weights.",
            ", ".join(map(str, sorted(layers))),
            self.identity.name,
        )

    @contextmanager
    def _plainly(self, wanted: bool) -> Iterator[None]:
        """Attention that shows its weights, for as long as one block runs."""
        config, before = self._module.config, self._module.config._attn_implementation
        config._attn_implementation = "eager" if wanted else before
        try:
            yield
        finally:
            config._attn_implementation = before


def _changed(stream: Tensor, changes: Sequence[tuple[Hookpoint, Edit]], here: Hookpoint) -> Tensor:
    mine = [edit for point, edit in changes if point == here]
    if not mine:
        return stream
    stream = stream.clone()
    for edit in mine:
        stream[edit.row, edit.position] = edit.value.to(stream)
    return stream
