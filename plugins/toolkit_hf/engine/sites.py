"""Captures and edits of one pass: between blocks by hand, inside a block by hooks that are removed
when the block is done, whatever happens.

Hooks run in the order in which a block computes its sites; at one site an edit is made before the
capture, so what is captured is what was edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from toolkit.edits import Edit, Editing, PassRows
from toolkit.hookpoints import Hookpoint
from toolkit_hf._structure import listen, tensor

from .decoder import Decoder

if TYPE_CHECKING:
    from torch import Tensor

BETWEEN_BLOCKS = ("resid_pre", "resid_post")
IN_ORDER = (
    "attn_z",
    "attn_probs",
    "attn_out",
    "resid_mid",
    "mlp_in_normed",
    "mlp_in",
    "mlp_raw",
    "mlp_out",
)
"""Sites inside a block, in the order in which it computes them."""
EDITABLE = (*BETWEEN_BLOCKS, "attn_z", "attn_out", "resid_mid", "mlp_in", "mlp_raw", "mlp_out")


class Sites:
    """What one pass shows and changes. `rows` are those of the pass; `shares` as for `Editing`."""

    def __init__(
        self,
        decoder: Decoder,
        capture: Sequence[str],
        edits: Sequence[Edit] = (),
        rows: PassRows | Sequence[Sequence[int]] = (),
        shares: Mapping[int, Sequence[int]] | None = None,
        keep: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`keep`: what is kept of a captured stream; by default all of it, on the first device."""
        self._decoder = decoder
        self.wanted = {name: decoder.checked(name) for name in capture}
        for edit in edits:
            decoder.checked(edit.hookpoint)
            if edit.reads is not None:
                decoder.checked(edit.reads)
        editable = [site for site in EDITABLE if site != "resid_mid" or not decoder.is_parallel]
        self._editing = Editing(
            edits,
            rows,
            shares=shares,
            editable=editable,
            layers=decoder.layers,
            model=decoder.name,
        )
        self._edited = {decoder.checked(name) for name in self._editing.hookpoints}
        self._keep = keep or (lambda stream: stream.to(decoder.device))
        self.captured: dict[str, Tensor] = {}

    @property
    def last_layer(self) -> int:
        """The last block that a capture needs; -1 where none is needed."""
        return max((point.layer for point in self.wanted.values()), default=-1)

    def before(self, layer: int, stream: Tensor) -> Tensor:
        """The stream into a block."""
        return self._at(Hookpoint("resid_pre", layer), stream)

    def after(self, layer: int, stream: Tensor) -> Tensor:
        """The stream out of a block."""
        return self._at(Hookpoint("resid_post", layer), stream)

    def _at(self, point: Hookpoint, stream: Tensor) -> Tensor:
        if point in self._edited:
            stream = self._editing.apply(str(point), stream)
        self._capture(point, stream)
        return stream

    def _capture(self, point: Hookpoint, value: Tensor) -> None:
        names = [name for name, wanted in self.wanted.items() if wanted == point]
        if names:
            kept = self._keep(value)
            self.captured.update(dict.fromkeys(names, kept))

    @contextmanager
    def inside(self, layer: int, stream: Tensor) -> Iterator[None]:
        """Hooks at the sites inside one block, which `stream` goes into."""
        handles: list[Any] = []
        try:
            for point in (Hookpoint(site, layer) for site in IN_ORDER):
                if point in self._edited:
                    handles.append(self._edit_hook(point, stream))
                if point in self.wanted.values():
                    handles.append(self._listen(point, self._capture))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _listen(self, point: Hookpoint, tell: Callable[[Hookpoint, Tensor], Any]) -> Any:
        block = self._decoder.blocks[point.layer]
        return listen(self._decoder.structure, point.site, block, lambda value: tell(point, value))

    # --- edits inside a block ---

    def _edit_hook(self, point: Hookpoint, stream: Tensor) -> Any:
        structure, block = self._decoder.structure, self._decoder.blocks[point.layer]
        after_attention = structure.attention_after or structure.attention
        if point.site not in EDITABLE:  # edits read it, none changes it
            return self._listen(point, lambda at, value: self._editing.apply(str(at), value))
        if point.site == "resid_mid":
            return self._edit_middle(point, block.get_submodule(after_attention), stream)
        path = {
            "attn_z": structure.attention_end,
            "attn_out": after_attention,
            "mlp_in": structure.mlp_norm,
            "mlp_raw": structure.mlp,
            "mlp_out": structure.mlp_after or structure.mlp,
        }[point.site]
        module = block.get_submodule(path)
        if point.site == "attn_z":
            return module.register_forward_pre_hook(self._changed_input(point))
        return module.register_forward_hook(self._changed_output(point))

    def _changed_input(self, point: Hookpoint) -> Callable[..., Any]:
        def hook(_module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._editing.apply(str(point), given[0]), *given[1:])

        return hook

    def _changed_output(self, point: Hookpoint) -> Callable[..., Any]:
        def hook(_module: Any, _given: Any, out: Any) -> Any:
            return _replaced(out, self._editing.apply(str(point), tensor(out)))

        return hook

    def _edit_middle(self, point: Hookpoint, module: Any, stream: Tensor) -> Any:
        """The stream between attention and MLP is read twice, by the norm and by the sum behind
        the MLP, so its edit is made on what attention adds to it.
        """

        def hook(_module: Any, _given: Any, out: Any) -> Any:
            added = tensor(out)
            before = stream.to(added.device) + added
            after = self._editing.apply(str(point), before)
            return _replaced(out, added + (after - before))

        return module.register_forward_hook(hook)


def _replaced(output: Any, value: Tensor) -> Any:
    return (value, *output[1:]) if isinstance(output, tuple) else value
