"""The pieces of a forward pass: embeddings, the other inputs of blocks, and one block at a time.

Sequences are padded on the right, where causal attention cannot see the padding. Blocks may be on
several devices: the stream moves to the device of the next block, and results are on the first
device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from toolkit.errors import BadInput, DataError
from toolkit.hookpoints import Hookpoint, hookpoint
from toolkit.models import Counted
from toolkit_hf._structure import factor, family_of, tensor

from .attention import PLANNED, AttentionPlan, Heads, Sequences
from .inputs import PassInputs, Window, additive, causal, window_of

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models.families import Family


@dataclass
class _AttentionProbe(Sequences):
    """An attention implementation that records whether it is called."""

    was_called: bool = False

    def attend(self, heads: Heads) -> Tensor:
        self.was_called = True
        return super().attend(heads)


class DecoderModules:
    """A decoder's modules, and how to run them. `block_devices` has the device of each block, where
    they are not all on one.
    """

    def __init__(
        self,
        module: Any,
        name: str,
        context: int,
        block_devices: Sequence[torch.device] = (),
        family: Family | None = None,
    ) -> None:
        self.module, self.name, self.context = module, name, context
        module.requires_grad_(False)
        self.config = module.config
        self.family = family_of(module, family)
        self.blocks = module.get_submodule(self.family.blocks)
        self.attentions = [block.get_submodule(self.family.attention) for block in self.blocks]
        self.windows = tuple(window_of(attention, self.config) for attention in self.attentions)
        rotary = self.family.rotary and module.get_submodule(self.family.rotary)
        by_kind = bool(rotary) and isinstance(getattr(rotary, "layer_types", None), list)
        self.kinds = tuple(
            attention.layer_type if by_kind else None for attention in self.attentions
        )
        self.branch_factor = factor(self.config, self.family.branch_factor)
        self.is_parallel = bool(getattr(self.blocks[0], "use_parallel_residual", False))
        self.layers, self.width = len(self.blocks), int(self.config.hidden_size)
        self.embedding = module.get_submodule(self.family.embedding)
        self.norm = module.get_submodule(self.family.norm)
        self.device: torch.device = self.embedding.weight.device
        self.dtype: torch.dtype = module.dtype
        self.block_devices = tuple(block_devices) or (self.device,) * self.layers
        self.counted = Counted()
        heads = int(self.config.num_attention_heads)
        self._head_width = heads * int(getattr(self.config, "head_dim", 0) or self.width // heads)
        self._sizes = [sum(part.numel() for part in block.parameters()) for block in self.blocks]

    # --- into a pass ---

    def begin(
        self, batch: Sequence[Sequence[int]], *, explicit: bool = False, planned: bool = False
    ) -> tuple[Tensor, PassInputs]:
        """Embeddings and inputs of whole sequences. Masks are left out where `sdpa` needs none,
        unless `explicit`, and where a plan makes its own.
        """
        ids = self.padded(batch)
        positions = torch.arange(ids.shape[1], device=self.device)
        if planned:
            return self.embed(ids, positions[None]), self.inputs(positions[None])
        explicit = explicit or self.config._attn_implementation != "sdpa"

        def visible(window: Window) -> Tensor | None:
            plain = window is None or len(positions) <= window
            return causal(positions, window)[None, None] if explicit or not plain else None

        return self.embed(ids, positions[None]), self.inputs(positions[None], visible)

    def padded(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """(rows, longest) ids, zeros on the right."""
        longest = max(map(len, batch))
        self.check_length(longest)
        if not min(map(len, batch)):
            raise DataError(f"A sequence has no tokens: {self.name} needs at least one to read.")
        return torch.tensor(
            [[*ids, *[0] * (longest - len(ids))] for ids in batch], device=self.device
        )

    def check_length(self, longest: int) -> None:
        """Refuse a sequence longer than the context; nothing is truncated."""
        if longest > self.context:
            raise DataError(
                f"A sequence has {longest} tokens; {self.name} reads at most {self.context}. "
                "Shorten it."
            )

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """The input of the first block."""
        stream = self.embed_tokens(ids)
        if self.family.positions:
            stream = stream + self.module.get_submodule(self.family.positions)(positions)
        return stream

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """The token part of the input of the first block, without positions."""
        stream: Tensor = self.embedding(ids)
        if self.family.scaled and not hasattr(self.embedding, "embed_scale"):
            stream = stream * torch.tensor(
                self.width**0.5, dtype=stream.dtype, device=stream.device
            )
        multiplier = factor(self.config, self.family.embedding_factor)
        return stream if multiplier == 1 else stream * multiplier

    def inputs(
        self, positions: Tensor, visible: Callable[[Window], Tensor | None] = lambda _: None
    ) -> PassInputs:
        """The inputs of blocks besides the stream; `visible` says which keys each query sees
        through a window.
        """
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        rotations: dict[str | None, tuple[Tensor, ...]] = {}
        if self.family.rotary:
            rotary = self.module.get_submodule(self.family.rotary)
            for kind in set(self.kinds):
                rotations[kind] = rotary(like, positions, *([kind] if kind else []))
        shown = {window: visible(window) for window in set(self.windows)}
        masks = {
            window: None if mask is None else additive(mask, self.dtype)
            for window, mask in shown.items()
        }
        return PassInputs(positions, rotations, masks)

    # --- through a block ---

    def run_block(
        self,
        layer: int,
        stream: Tensor,
        inputs: PassInputs,
        keys: Any = None,
        plan: AttentionPlan | None = None,
    ) -> Tensor:
        """Run one block on its device. `plan` is passed to the attention function."""
        self._count(layer, stream, plan)
        more = {} if plan is None else {"plan": plan}
        device = self.block_devices[layer]
        arguments = inputs.on(device).arguments(self.windows[layer], self.kinds[layer])
        arguments[self.family.keys] = keys
        return tensor(self.blocks[layer](stream.to(device), **arguments, **more))

    def _count(self, layer: int, stream: Tensor, plan: AttentionPlan | None) -> None:
        """Count a block's products with its weights and, for each token, with the keys and
        values.
        """
        tokens, columns = stream.shape[0] * stream.shape[1], stream.shape[1]
        seen = columns + (plan.past if plan is not None else 0)
        self.counted.operations += tokens * (2 * self._sizes[layer] + 4 * seen * self._head_width)

    @cached_property
    def takes_plans(self) -> bool:
        """Whether the model's attention calls the implementation that is registered with
        transformers. A model that computes attention by itself cannot follow plans.
        """
        plan = _AttentionProbe(self.windows)
        with torch.inference_mode(), self.attention_by(PLANNED):
            stream, inputs = self.begin([[0]], planned=True)
            try:
                self.run_block(0, stream, inputs, plan=plan)
            except (TypeError, KeyError, ValueError):
                return False
        return plan.was_called

    @contextmanager
    def attention_by(self, implementation: str | None) -> Iterator[None]:
        """A context in which blocks use another attention implementation."""
        before = self.config._attn_implementation
        self.config._attn_implementation = implementation or before
        try:
            yield
        finally:
            self.config._attn_implementation = before

    # --- names ---

    def checked(self, name: str) -> Hookpoint:
        """The hookpoint of this name; one that the model does not have is an error."""
        point = hookpoint(name)
        if point.layer >= self.layers:
            raise BadInput(
                f"hookpoint '{name}': {self.name} has no layer {point.layer}; its layers are 0 to "
                f"{self.layers - 1}."
            )
        if point.site == "resid_mid" and self.is_parallel:
            raise BadInput(
                f"hookpoint '{name}': attention and MLP of {self.name} both read the block's "
                f"input, so there is no stream between them. Use resid_pre.{point.layer} or "
                f"resid_post.{point.layer}."
            )
        if point.site == "mlp_in_normed" and not self.family.mlp_norm:
            raise BadInput(
                f"hookpoint '{name}': the MLP of {self.name} reads the stream without a norm "
                f"before it. Use mlp_in.{point.layer} or resid_mid.{point.layer}."
            )
        return point
