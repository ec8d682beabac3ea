"""A Llama-architecture model, run block by block with its own modules.

Sequences are padded on the right, where causal attention cannot see the padding, so a pass needs no mask. A row of
`suffix` is one query at the prompt's last position: it sees the prompt's keys and itself, never another row.

Shapes: R rows, T positions, D width, H heads, K keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from toolkit.errors import BadInput, DataError, choices
from toolkit.hookpoints import Hookpoint, hookpoint
from toolkit.models import Draw, Edit, Encoded, Generated, Model, Prefix, Reply, as_probabilities

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.records import Identity

SUFFIX_ROWS = 256
"""Rows of one suffix pass: more share a pass, but each row's mask spans them all."""
PASS_TOKENS = 16_384
"""Padded tokens of one pass of `generate`."""
MARK = "THE-USERS-TEXT"
"""Rendered in place of a text, to find where a chat template puts it."""


class Keys:
    """Keys and values of past positions, in the form the blocks ask for (`update`), kept apart from what a pass adds.

    `grow` says whether what a pass adds is kept for the next one.
    """

    def __init__(self, held: dict[int, tuple[Tensor, Tensor]] | None = None, *, grow: bool) -> None:
        self.held, self._grow = held or {}, grow

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Past and new together, for one block."""
        if layer_idx in self.held:
            key = torch.cat((self.held[layer_idx][0], key), dim=2)
            value = torch.cat((self.held[layer_idx][1], value), dim=2)
        if self._grow:
            self.held[layer_idx] = key, value
        return key, value

    def rows(self, chosen: Tensor) -> Keys:
        """Some rows, in a new object; a row may be taken several times."""
        return Keys({layer: (key[chosen], value[chosen]) for layer, (key, value) in self.held.items()}, grow=True)


class LlamaModel(Model):
    """See the module's text. Nothing here changes the weights or leaves a hook behind."""

    def __init__(self, identity: Identity, module: Any, tokeniser: Any) -> None:
        self.identity, self._module, self._tokeniser = identity, module, tokeniser
        self._body = module.model
        config = module.config
        self.layers, self.width = int(config.num_hidden_layers), int(config.hidden_size)
        self.context = int(config.max_position_embeddings)
        self.end_ids, self.bos_id = _end_ids(module, tokeniser), tokeniser.bos_token_id
        self.device = next(module.parameters()).device

    # --- text ---

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        """Ids with exactly one BOS, whether the template, the tokeniser or the text itself brings it."""
        rendered, shift = self._chat(text) if chat else (text, 0)
        bos = self._tokeniser.bos_token
        begun = bool(bos) and rendered.startswith(bos)
        found = self._tokeniser(rendered, add_special_tokens=not (chat or begun), return_offsets_mapping=True)
        ids, offsets = list(found["input_ids"]), [tuple(pair) for pair in found["offset_mapping"]]
        if bos and ids[:1] != [self._tokeniser.bos_token_id]:
            ids, offsets = [self._tokeniser.bos_token_id, *ids], [(0, 0), *offsets]
        return Encoded(rendered, tuple(ids), tuple(offsets), shift)

    def _chat(self, text: str) -> tuple[str, int]:
        """The rendered turn, and where the text begins in it: behind the header, even where that holds the same words."""
        if not self._tokeniser.chat_template:
            raise BadInput(f"{self.identity.name} has no chat template: it is no chat model. Leave `chat` out.")
        rendered, start = self._turns(text), self._turns(MARK).find(MARK)
        if rendered.startswith(text, start):
            return rendered, start
        if rendered.startswith(text.strip(), start):
            return rendered, start - (len(text) - len(text.lstrip()))
        return rendered, max(rendered.find(text), 0)

    def _turns(self, text: str) -> str:
        turns = [{"role": "user", "content": text}]
        return str(self._tokeniser.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._tokeniser.decode(list(ids), skip_special_tokens=True))

    # --- passes ---

    @torch.inference_mode()
    def run(self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()) -> dict[str, Tensor]:
        """One pass up to the last block that anyone asked for."""
        wanted = {name: self._checked(name) for name in capture}
        stream = self._body.embed_tokens(self._padded(batch))
        found: dict[str, Tensor] = {}
        changes = [(self._checked(edit.hookpoint), edit) for edit in edits]
        if any(point.site not in ("resid_pre", "resid_post") for point, _ in changes):
            raise BadInput("edits: this model edits the stream at resid_pre.LAYER and resid_post.LAYER only.")
        _check_sites(wanted.values())
        turn = self._turn(torch.arange(stream.shape[1], device=self.device)[None])
        for layer in range(max((point.layer for point in wanted.values()), default=-1) + 1):
            stream = _changed(stream, changes, Hookpoint("resid_pre", layer))
            _keep(found, wanted, Hookpoint("resid_pre", layer), stream)
            with self._listening(layer, wanted, found):
                stream = _tensor(self._body.layers[layer](stream, **turn))
            stream = _changed(stream, changes, Hookpoint("resid_post", layer))
            _keep(found, wanted, Hookpoint("resid_post", layer), stream)
        return found

    @torch.inference_mode()
    def unembed(self, states: Tensor) -> Tensor:
        """Final norm and head, in float32."""
        logits: Tensor = self._module.lm_head(self._body.norm(states.to(self.device, self._module.dtype))).float()
        return logits

    @torch.inference_mode()
    def prefix(self, ids: Sequence[int], capture: Sequence[str] = ()) -> Prefix:
        """One pass that keeps every block's keys; only the last token's stream is kept of what is captured."""
        wanted = [*dict.fromkeys((*capture, self.last_hookpoint()))]
        points = {name: self._checked(name) for name in wanted}
        if any(point.site != "resid_post" for point in points.values()):
            raise BadInput("prefix: this model captures resid_post.LAYER only.")
        keys, captured = Keys(grow=True), {}
        stream = self._body.embed_tokens(self._padded([ids]))
        turn = self._turn(torch.arange(len(ids), device=self.device)[None])
        for layer, block in enumerate(self._body.layers):
            stream = _tensor(block(stream, **turn, past_key_values=keys))
            captured.update({name: stream[0, -1] for name, point in points.items() if point.layer == layer})
        before = {layer: (key[:, :, :-1], value[:, :, :-1]) for layer, (key, value) in keys.held.items()}
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
            states[torch.tensor(chosen, device=self.device)] = self._climb(prefix, [rows[at] for at in chosen])
        return states

    def _climb(self, prefix: Prefix, rows: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Rows in order of their layers."""
        for layer, _ in rows:
            self._checked(f"resid_post.{layer}")
        past = len(prefix.ids) - 1
        values = torch.stack([value for _, value in rows]).to(self.device, self._module.dtype)
        mask = _own_column(len(rows), past, values)
        turn = self._turn(torch.full((1, len(rows)), past, device=self.device))
        done = sum(layer <= rows[0][0] for layer, _ in rows)
        stream = values[:done]
        for layer in range(rows[0][0] + 1, self.layers):
            own = mask[:, :, : len(stream), : past + len(stream)]
            at = {name: _leading(part, len(stream)) for name, part in turn.items()}
            stream = _tensor(self._body.layers[layer](stream[None], attention_mask=own, past_key_values=prefix.kept, **at))[0]
            joining = sum(start == layer for start, _ in rows)
            stream = torch.cat((stream, values[done : done + joining]))
            done += joining
        return stream

    @torch.inference_mode()
    def generate(self, batch: Sequence[Sequence[int]], draw: Draw, *, most: int, until: str | None = None) -> list[Generated]:
        """With kept keys; equal prompts are read once. Rows of similar length share a pass."""
        order = sorted(range(len(batch)), key=lambda row: (len(batch[row]), tuple(batch[row])))
        replies: list[Generated | None] = [None] * len(batch)
        while order:
            longest = len(batch[order[-1]]) + most
            rows, order = order[-max(1, PASS_TOKENS // longest) :], order[: -max(1, PASS_TOKENS // longest)]
            for row, made in zip(rows, self._answer(batch, rows, draw, most, until), strict=True):
                replies[row] = made
        return [reply for reply in replies if reply is not None]

    def _answer(
        self, batch: Sequence[Sequence[int]], rows: Sequence[int], draw: Draw, most: int, until: str | None
    ) -> list[Generated]:
        distinct = list(dict.fromkeys(tuple(batch[row]) for row in rows))
        which = torch.tensor([distinct.index(tuple(batch[row])) for row in rows], device=self.device)
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
        stream = self._body.embed_tokens(self._padded(distinct))
        turn = self._turn(torch.arange(stream.shape[1], device=self.device)[None])
        for block in self._body.layers:
            stream = _tensor(block(stream, **turn, past_key_values=keys))
        ends = torch.tensor([len(ids) - 1 for ids in distinct], device=self.device)
        states: Tensor = stream[torch.arange(len(distinct), device=self.device), ends]
        return states, keys

    def _go_on(self, keys: Keys, tokens: Sequence[int], lengths: Tensor, wide: int, step: int) -> Tensor:
        """The states after one more token of each row; the columns between a prompt's end and `wide` stay hidden."""
        columns = torch.arange(wide + step + 1, device=self.device)
        seen = (columns < lengths[:, None]) | (columns >= wide)
        mask = _additive(seen, self._module.dtype)[:, None, None]
        stream: Tensor = self._body.embed_tokens(torch.tensor(tokens, device=self.device)[:, None])
        turn = self._turn((lengths + step)[:, None])
        for block in self._body.layers:
            stream = _tensor(block(stream, attention_mask=mask, past_key_values=keys, **turn))
        return stream[:, 0]

    # --- pieces of a pass ---

    def _padded(self, batch: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, batch))
        self._must_fit(longest)
        return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in batch], device=self.device)

    def _must_fit(self, longest: int) -> None:
        if longest > self.context:
            raise DataError(f"A sequence has {longest} tokens; {self.identity.name} reads at most {self.context}. Shorten it.")

    def _turn(self, positions: Tensor) -> dict[str, Any]:
        """What every block is told of positions: their numbers and rotations."""
        like = torch.empty(0, dtype=self._module.dtype, device=self.device)
        return {"position_ids": positions, "position_embeddings": self._body.rotary_emb(like, positions)}

    def _checked(self, name: str) -> Hookpoint:
        point = hookpoint(name)
        if point.layer >= self.layers:
            raise BadInput(
                f"hookpoint '{name}': {self.identity.name} has no layer {point.layer}; its layers are 0 to {self.layers - 1}."
            )
        return point

    @contextmanager
    def _listening(self, layer: int, wanted: Mapping[str, Hookpoint], found: dict[str, Tensor]) -> Iterator[None]:
        """Hooks for the sites inside one block, for as long as it runs."""
        handles = [
            _SITES[point.site](self._body.layers[layer], partial(found.__setitem__, name))
            for name, point in wanted.items()
            if point.layer == layer and point.site in _SITES
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _check_sites(points: Iterable[Hookpoint]) -> None:
    sites = ("resid_pre", "resid_post", *_SITES)
    missing = [point.site for point in points if point.site not in sites]
    if missing:
        raise BadInput(f"hookpoint site '{missing[0]}' cannot be captured from this model; it shows {choices(sites)}.")


def _before(module: Any, tell: Callable[[Tensor], None]) -> Any:
    return module.register_forward_pre_hook(lambda _m, given: tell(given[0]))


def _after(module: Any, tell: Callable[[Tensor], None]) -> Any:
    return module.register_forward_hook(lambda _m, _g, out: tell(_tensor(out)))


def _normed(norm: Any, value: Tensor) -> Tensor:
    """RMS norm without the gain."""
    wide = value.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)).to(value.dtype)


_SITES: Mapping[str, Callable[[Any, Callable[[Tensor], None]], Any]] = {
    "attn_z": lambda block, tell: _before(block.self_attn.o_proj, tell),
    "attn_out": lambda block, tell: _after(block.self_attn, tell),
    "resid_mid": lambda block, tell: _before(block.post_attention_layernorm, tell),
    "mlp_in_normed": lambda block, tell: _before(
        block.post_attention_layernorm, lambda value: tell(_normed(block.post_attention_layernorm, value))
    ),
    "mlp_in": lambda block, tell: _after(block.post_attention_layernorm, tell),
    "mlp_raw": lambda block, tell: _after(block.mlp, tell),
    "mlp_out": lambda block, tell: _after(block.mlp, tell),
}
"""Sites inside a Llama block and the module that shows each. Nothing stands between the MLP and the stream: raw is out."""


def _tensor(output: Any) -> Tensor:
    """Blocks return a tensor, or (older releases, attention) a tuple that begins with it."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _changed(stream: Tensor, changes: Sequence[tuple[Hookpoint, Edit]], here: Hookpoint) -> Tensor:
    mine = [edit for point, edit in changes if point == here]
    if not mine:
        return stream
    stream = stream.clone()
    for edit in mine:
        stream[edit.row, edit.position] = edit.value.to(stream)
    return stream


def _keep(found: dict[str, Tensor], wanted: Mapping[str, Hookpoint], here: Hookpoint, stream: Tensor) -> None:
    found.update({name: stream for name, point in wanted.items() if point == here})


def _own_column(rows: int, past: int, like: Tensor) -> Tensor:
    """(1, 1, rows, past + rows): each row sees the past and its own column."""
    seen = torch.cat((torch.ones(rows, past, dtype=torch.bool), torch.eye(rows, dtype=torch.bool)), dim=1)
    return _additive(seen.to(like.device), like.dtype)[None, None]


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def _leading(part: Any, rows: int) -> Any:
    """The first rows of positions or of the pair of rotations."""
    return tuple(piece[:, :rows] for piece in part) if isinstance(part, tuple) else part[:, :rows]


def _end_ids(module: Any, tokeniser: Any) -> tuple[int, ...]:
    given = getattr(module.generation_config, "eos_token_id", None)
    found = [*(given if isinstance(given, list) else [given]), tokeniser.eos_token_id]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))
