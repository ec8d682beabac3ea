"""A causal language model from Hugging Face files: implements the model contract with the
engine.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch

from toolkit.edits import Edit, check_targets
from toolkit.errors import BadInput
from toolkit.models import (
    LOGITS,
    AttentionRows,
    Encoded,
    Frozen,
    Gradients,
    Model,
    Objective,
    Prefix,
    check_queries,
)
from toolkit_hf._structure import factor
from toolkit_hf._text import bos_of, encode, end_ids

from .attention import PLANNED, Sequences
from .decoder import DecoderModules
from .gradients import gradients
from .norms import gain_of, linear_part
from .session import SlotSession
from .sites import EDITABLE, Sites
from .suffix import KeptPrompt, edited_rows, last_token_rows

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.identity import Identity
    from toolkit.models.families import Family
    from toolkit.models.readout import Tiles
    from toolkit.models.sessions import Session

DRAW_TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""By dtype, the largest difference between cumulative probabilities computed in two batches."""
VOCABULARY_TILE = 1 << 14
"""Tokens of the vocabulary whose logits are in memory at a time."""


class CausalModel(Model):
    """A decoder, run block by block. `block_devices` has the device of each block, where they are
    not all on one. With `switch`, a block whose attention weights are requested computes them by
    `eager`.
    """

    def __init__(
        self,
        identity: Identity,
        module: Any,
        tokeniser: Any,
        block_devices: Sequence[torch.device] = (),
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
        self._warned: set[tuple[int, ...]] = set()
        self.context = int(module.config.max_position_embeddings)
        self.decoder = DecoderModules(module, identity.name, self.context, block_devices, family)
        self.layers, self.width = self.decoder.layers, self.decoder.width
        self.counted = self.decoder.counted
        self.device = self.decoder.device
        self.editable = tuple(
            site for site in EDITABLE if site != "resid_mid" or not self.decoder.is_parallel
        )
        self.draw_tolerance = DRAW_TOLERANCE[module.dtype]
        self.end_ids = end_ids(module, tokeniser)
        self.bos_id = tokeniser.bos_token_id if bos_of(tokeniser) else None

    # --- text ---

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        """Token ids, with exactly one BOS if the model has one."""
        return encode(self._tokeniser, text, chat=chat, model=self.identity.name)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._tokeniser.decode(list(ids), skip_special_tokens=True))

    # --- passes ---

    @torch.inference_mode()
    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        """One pass up to the last block that a capture needs."""
        check_targets(edits, [len(ids) for ids in batch])
        self.counted.texts += len(batch)
        sites = Sites(self.decoder, capture, edits, batch)
        weighed = {point.layer for point in sites.captures.values() if point.site == "attn_probs"}
        self._check_weights(weighed)
        stream, inputs = self.decoder.begin(batch, explicit=bool(weighed))
        for layer in range(sites.last_layer + 1):
            stream = sites.before(layer, stream)
            shown = "eager" if layer in weighed else None
            with sites.inside(layer, stream), self.decoder.attention_by(shown):
                stream = self.decoder.run_block(layer, stream, inputs)
            stream = sites.after(layer, stream)
        return sites.captured

    @torch.inference_mode()
    def unembed(self, states: Tensor) -> Tensor:
        """Applies the final norm, the head and the cap of logits, if any; float32."""
        return self._logits(states)

    def _logits(self, states: Tensor) -> Tensor:
        normed = self.decoder.norm(states.to(self.device, self._module.dtype))
        return self._finished(self._module.get_output_embeddings()(normed))

    def _finished(self, logits: Tensor) -> Tensor:
        """Apply cap and divisor to the head's output."""
        self.counted.operations += 2 * self.width * logits.numel()
        cap = getattr(self._module.config, "final_logit_softcapping", None)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        divisor = factor(self._module.config, self.decoder.family.logits_divisor)
        return (logits if divisor == 1 else logits / divisor).float()

    def _logit_tiles(self, states: Tensor) -> Tiles:
        """The head's logits, one tile of the vocabulary at a time."""
        head = self._module.get_output_embeddings()
        with torch.inference_mode():
            normed = self.decoder.norm(states.to(self.device, self._module.dtype))
        for start in range(0, len(head.weight), VOCABULARY_TILE):
            tile = slice(start, start + VOCABULARY_TILE)
            bias = None if head.bias is None else head.bias[tile]
            with torch.inference_mode():
                logits = torch.nn.functional.linear(normed, head.weight[tile], bias)
                yield start, self._finished(logits)

    # --- one prompt, many edits ---

    @torch.inference_mode()
    def prefix(self, ids: Sequence[int], capture: Sequence[str] = ()) -> Prefix:
        """One pass that keeps every block's keys; of captured streams only the last token is
        kept.
        """
        if not self.decoder.takes_plans:
            return super().prefix(ids, capture)
        self.counted.texts += 1
        names = [*dict.fromkeys((*capture, self.last_hookpoint()))]
        sites = Sites(self.decoder, names, keep=lambda stream: stream[0, -1].to(self.device))
        plan = Sequences(self.decoder.windows, keep=True)
        stream, inputs = self.decoder.begin([ids], planned=True)
        with self.decoder.attention_by(PLANNED):
            for layer in range(self.layers):
                stream = sites.before(layer, stream)
                with sites.inside(layer, stream):
                    stream = self.decoder.run_block(layer, stream, inputs, plan=plan)
                stream = sites.after(layer, stream)
        return Prefix(tuple(ids), KeptPrompt(plan.kept_keys), sites.captured)

    @torch.inference_mode()
    def suffix(
        self, prefix: Prefix, layers: Tensor, rows: Tensor, made: Tensor | None = None
    ) -> Tensor:
        """Runs the blocks above each row's layer at the last position only, many rows per pass."""
        self.check_suffix(layers, rows)
        if prefix.kept is None:
            return super().suffix(prefix, layers, rows, made)
        return last_token_rows(self.decoder, prefix.kept, len(prefix.ids), layers, rows, made)

    @torch.inference_mode()
    def edited_states(self, prefix: Prefix, edits: Sequence[Edit], count: int) -> Tensor:
        """Computes only blocks and positions from the first edited one on."""
        check_targets(edits, [len(prefix.ids)] * count)
        if prefix.kept is None:
            return super().edited_states(prefix, edits, count)
        return edited_rows(self.decoder, prefix.kept, prefix.ids, edits, count)

    # --- replies ---

    def session(self, budget: int | None = None) -> Session:
        """A generation session that keeps keys."""
        if not self.decoder.takes_plans:
            return super().session(budget)
        return SlotSession(self, self.decoder, self.unembed, budget)

    # --- attention, gradients and matrices ---

    @torch.inference_mode()
    def attention(
        self,
        batch: Sequence[Sequence[int]],
        queries: Sequence[Sequence[int]],
        layers: Sequence[int],
        *,
        capture: Sequence[str] = (),
        edits: Sequence[Edit] = (),
    ) -> AttentionRows:
        """Attention weights of the chosen queries, computed in addition to the fast attention of
        the same pass.
        """
        if not self.decoder.takes_plans:
            return super().attention(batch, queries, layers, capture=capture, edits=edits)
        check_targets(edits, [len(ids) for ids in batch])
        check_queries(batch, queries)
        self.counted.texts += len(batch)
        for layer in layers:
            self.decoder.checked(f"attn_probs.{layer}")
        sites = Sites(self.decoder, capture, edits, batch)
        max_queries = max(map(len, queries), default=0)
        chosen = torch.tensor([[*row, *[0] * (max_queries - len(row))] for row in queries])
        plan = Sequences(self.decoder.windows, queries=chosen, layers=frozenset(layers))
        stream, inputs = self.decoder.begin(batch, planned=True)
        with self.decoder.attention_by(PLANNED):
            for layer in range(max(sites.last_layer, *layers, -1) + 1):
                stream = sites.before(layer, stream)
                with sites.inside(layer, stream):
                    stream = self.decoder.run_block(layer, stream, inputs, plan=plan)
                stream = sites.after(layer, stream)
        weights = {
            layer: [
                shown[:, : len(row), : len(ids)].transpose(0, 1).to(self.device)
                for shown, row, ids in zip(plan.weights[layer], queries, batch, strict=True)
            ]
            for layer in layers
        }
        return AttentionRows(weights, sites.captured)

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
        """One pass forward and one back."""
        if not self.decoder.takes_plans:
            return super().gradients(
                batch, hookpoints, objective, reads=reads, edits=edits, freeze=freeze
            )
        check_targets(edits, [len(ids) for ids in batch])
        before = self.counted.operations
        result = gradients(
            self.decoder, self._logits, batch, hookpoints, objective, reads, edits, freeze
        )
        self.counted.texts += len(batch)
        self.counted.operations += self.counted.operations - before  # weights need no gradient
        return result

    @torch.inference_mode()
    def embedding_rows(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Embeddings as they enter the first block, without positions."""
        ids = torch.as_tensor(tokens, dtype=torch.long, device=self.device)
        return self.decoder.embed_tokens(ids).float()

    @torch.inference_mode()
    def unembedding_rows(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Rows of the head."""
        ids = torch.as_tensor(tokens, dtype=torch.long, device=self.device)
        divisor = factor(self._module.config, self.decoder.family.logits_divisor)
        rows: Tensor = self._module.get_output_embeddings().weight[ids].float()
        return rows / divisor

    @torch.inference_mode()
    def unembedding_offsets(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """The logits that the biases of the final norm and the head add."""
        rows = self.unembedding_rows(tokens)
        _, bias = gain_of(self.decoder.norm)
        offsets = rows.new_zeros(len(rows)) if bias is None else rows @ bias
        head = self._module.get_output_embeddings()
        if head.bias is not None:
            offsets += head.bias[torch.as_tensor(tokens, device=self.device)].float()
        return offsets

    @torch.inference_mode()
    def fold_final_norm(self, parts: Tensor, whole: Tensor | None = None) -> Tensor:
        """Applies the final norm to parts, with the scaling factor of the whole stream."""
        moved = parts.to(self.device)
        stream = moved if whole is None else whole.to(self.device)
        return linear_part(self.decoder.norm, moved, stream)

    @torch.inference_mode()
    def head_outputs(self, layer: int, z: Tensor) -> Tensor:
        """The output of each head, by slices of the output matrix."""
        point = self.decoder.checked(f"attn_z.{layer}")
        block = self.decoder.blocks[point.layer]
        end = block.get_submodule(self.decoder.family.attention_end)
        matrix = end.weight if isinstance(end, torch.nn.Linear) else end.weight.T  # Conv1D turned
        heads = int(self._module.config.num_attention_heads)
        sliced = matrix.float().reshape(self.width, heads, -1)
        by_head = z.to(matrix.device).float().reshape(*z.shape[:-1], heads, -1)
        written = torch.einsum("...hd,whd->...hw", by_head, sliced)
        return (written * self.decoder.branch_factor).to(self.device)

    # --- what is shown ---

    def _check_weights(self, layers: set[int]) -> None:
        """Check that attention weights are available: only `eager` computes them."""
        if not layers or self._module.config._attn_implementation == "eager":
            return
        if not self._switch:
            raise BadInput(
                "attn_probs: `attention: sdpa` does not compute the weights explicitly. Set "
                "`attention: "
                "auto` or `eager`."
            )
        if tuple(sorted(layers)) in self._warned:
            return
        self._warned.add(tuple(sorted(layers)))
        logging.getLogger(__name__).warning(
            "attn_probs: attention of layers %s of %s is computed by `eager`, since `sdpa` shows "
            "no weights.",
            ", ".join(map(str, sorted(layers))),
            self.identity.name,
        )
