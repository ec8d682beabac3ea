"""Captures and edits of one pass: made directly between blocks, and inside a block by hooks that
are always removed when the block ends.

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

from .decoder import DecoderModules

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
    """The captures and edits of one pass. `rows` are those of the pass; `shares` as for
    `Editing`.
    """

    def __init__(
        self,
        decoder: DecoderModules,
        capture: Sequence[str],
        edits: Sequence[Edit] = (),
        rows: PassRows | Sequence[Sequence[int]] = (),
        shares: Mapping[int, Sequence[int]] | None = None,
        keep: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`keep` selects the part of a captured stream to keep; by default all of it, on the first
        device.
        """
        self._decoder = decoder
        self.captures = {name: decoder.checked(name) for name in capture}
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
        """The last block that a capture needs; -1 if none is needed."""
        return max((point.layer for point in self.captures.values()), default=-1)

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
        names = [name for name, hookpoint in self.captures.items() if hookpoint == point]
        if names:
            captured_value = self._keep(value)
            self.captured.update(dict.fromkeys(names, captured_value))

    @contextmanager
    def inside(self, layer: int, stream: Tensor) -> Iterator[None]:
        """Hooks at the sites inside one block, which `stream` goes into."""
        handles: list[Any] = []
        try:
            for point in (Hookpoint(site, layer) for site in IN_ORDER):
                if point in self._edited:
                    handles.append(self._edit_hook(point, stream))
                if point in self.captures.values():
                    handles.append(self._listen(point, self._capture))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _listen(self, point: Hookpoint, on_value: Callable[[Hookpoint, Tensor], Any]) -> Any:
        block = self._decoder.blocks[point.layer]
        scale = self._decoder.branch_factor
        return listen(
            self._decoder.family, point.site, block, lambda value: on_value(point, value), scale
        )

    # --- edits inside a block ---

    def _edit_hook(self, point: Hookpoint, stream: Tensor) -> Any:
        family, block = self._decoder.family, self._decoder.blocks[point.layer]
        if point.site not in EDITABLE:  # edits may read this site but not change it
            return self._listen(point, lambda site, value: self._editing.apply(str(site), value))
        if point.site == "resid_mid":
            module = block.get_submodule(family.attention_after or family.attention)
            return module.register_forward_hook(self._changed_middle(point, stream))
        inputs = {"attn_z": family.attention_end}
        if not family.mlp_norm:
            inputs["mlp_in"] = family.mlp
        outputs = {
            "attn_out": family.attention_after or family.attention,
            "mlp_in": family.mlp_norm,
            "mlp_raw": family.mlp,
            "mlp_out": family.mlp_after or family.mlp,
        }
        if point.site in inputs:
            module = block.get_submodule(inputs[point.site])
            return module.register_forward_pre_hook(self._changed_input(point))
        module = block.get_submodule(outputs[point.site])
        return module.register_forward_hook(self._changed_output(point))

    def _changed_input(self, point: Hookpoint) -> Callable[..., Any]:
        def hook(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._editing.apply(str(point), args[0]), *args[1:])

        return hook

    def _changed_output(self, point: Hookpoint) -> Callable[..., Any]:
        """Replace a branch's output; the site's value is the output times the branch's factor."""
        scale = self._decoder.branch_factor if point.site in ("attn_out", "mlp_out") else 1.0

        def hook(_module: Any, _args: Any, out: Any) -> Any:
            value = tensor(out)
            if scale == 1.0:
                return _replaced(out, self._editing.apply(str(point), value))
            return _replaced(out, self._editing.apply(str(point), value * scale) / scale)

        return hook

    def _changed_middle(self, point: Hookpoint, stream: Tensor) -> Callable[..., Any]:
        """The stream between attention and MLP is read twice, by the norm and by the sum behind
        the MLP, so its edit is made on what attention adds to it.
        """
        scale = self._decoder.branch_factor

        def hook(_module: Any, _args: Any, out: Any) -> Any:
            added = tensor(out)
            before = stream.to(added.device) + added * scale
            after = self._editing.apply(str(point), before)
            return _replaced(out, added + (after - before) / scale)

        return hook


def _replaced(output: Any, value: Tensor) -> Any:
    return (value, *output[1:]) if isinstance(output, tuple) else value
