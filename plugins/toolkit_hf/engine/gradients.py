"""Gradients of one number per row with respect to streams: the only code that builds a graph.
Neither weights nor returned tensors require gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from toolkit.edits import Edit
from toolkit.errors import BadInput, DataError
from toolkit.models import LOGITS, Frozen, Gradients, Objective

from .attention import PLANNED, Sequences
from .decoder import DecoderModules
from .norms import centred, factor_of, gain_of
from .sites import EDITABLE, Sites

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("attention", "norms", "mlp")


def gradients(
    decoder: DecoderModules,
    logits: Callable[[Tensor], Tensor],
    batch: Sequence[Sequence[int]],
    hookpoints: Sequence[str],
    objective: Objective,
    reads: Sequence[str],
    edits: Sequence[Edit],
    freeze: Collection[Frozen],
) -> Gradients:
    """One forward and one backward pass over all rows together; rows do not see each other."""
    _check(decoder, hookpoints, freeze)
    streams = [name for name in reads if name != LOGITS]
    last = f"resid_post.{decoder.layers - 1}"
    captured = [*hookpoints, *streams, *([last] if LOGITS in reads else [])]
    with torch.inference_mode(False), torch.enable_grad():
        sites = Sites(decoder, [*dict.fromkeys(captured)], edits, batch, keep=lambda value: value)
        plan = Sequences(decoder.windows, is_frozen="attention" in freeze)
        stream, inputs = decoder.begin(batch, planned=True)
        stream = stream.detach().requires_grad_()
        with decoder.attention_by(PLANNED), frozen_modules(decoder, freeze):
            for layer in range(sites.last_layer + 1):
                stream = sites.before(layer, stream)
                with sites.inside(layer, stream):
                    stream = decoder.run_block(layer, stream, inputs, plan=plan)
                stream = sites.after(layer, stream)
            read_values = {name: sites.captured[name] for name in streams}
            if LOGITS in reads:
                ends = torch.tensor([len(ids) - 1 for ids in batch], device=stream.device)
                rows = torch.arange(len(batch), device=stream.device)
                read_values[LOGITS] = logits(sites.captured[last][rows, ends])
            values = objective(read_values)
        if tuple(values.shape) != (len(batch),):
            raise DataError(
                f"gradients: the objective gave the shape {tuple(values.shape)}; it gives one "
                f"number a row: ({len(batch)},)."
            )
        hookpoint_streams = [sites.captured[name] for name in hookpoints]
        grads = torch.autograd.grad(values.sum(), hookpoint_streams, allow_unused=True)
    return Gradients(
        {
            name: torch.zeros_like(value).detach() if slope is None else slope.to(decoder.device)
            for name, value, slope in zip(hookpoints, hookpoint_streams, grads, strict=True)
        },
        {name: sites.captured[name].detach().to(decoder.device) for name in hookpoints},
        values.detach(),
    )


def _check(decoder: DecoderModules, hookpoints: Sequence[str], freeze: Collection[str]) -> None:
    for name in hookpoints:
        point = decoder.checked(name)
        scaled = decoder.branch_factor != 1 and point.site in ("attn_out", "mlp_out")
        if point.site not in EDITABLE or scaled:
            raise BadInput(
                f"gradients at '{name}': {decoder.name} only observes this site: nothing is "
                "computed from it. Take the gradient at resid_pre, resid_mid or resid_post."
            )
    unknown = sorted(set(freeze) - set(KINDS))
    if unknown:
        raise BadInput(f"freeze: '{unknown[0]}' is unknown. Known: {', '.join(KINDS)}.")


# --- what is held constant ------------------------------------------------------------------------


@contextmanager
def frozen_modules(decoder: DecoderModules, freeze: Collection[str]) -> Iterator[None]:
    """A context in which hooks hold the factors of norms and the gates of MLPs constant."""
    handles: list[Any] = []
    try:
        if "norms" in freeze:
            handles += [norm.register_forward_hook(_frozen_norm) for norm in _norms(decoder)]
        if "mlp" in freeze:
            for block in decoder.blocks:
                handles += _frozen_mlp(block.get_submodule(decoder.family.mlp))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norms(decoder: DecoderModules) -> list[Any]:
    inside = [
        module
        for block in decoder.blocks
        for module in block.modules()
        if isinstance(module, torch.nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")
    ]
    return [*inside, decoder.norm]


def _frozen_norm(norm: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
    """The same value, linear in the input."""
    gain, bias = gain_of(norm)
    value = args[0]
    with torch.no_grad():
        factor = factor_of(norm, value)
    linear = centred(norm, value.float()) * factor * gain
    return (linear if bias is None else linear + bias).to(out.dtype)


def _frozen_mlp(mlp: Any) -> list[Any]:
    """Hold gates constant: an activation multiplies its input by a constant factor, and each factor
    of a product gets half of the gradient.
    """
    handles = [
        module.register_forward_hook(_frozen_activation)
        for name, module in mlp.named_modules()
        if name in ("act_fn", "act", "activation_fn")
    ]
    if hasattr(mlp, "gate_proj") or hasattr(mlp, "gate_up_proj"):
        handles.append(mlp.down_proj.register_forward_pre_hook(_halved))
    return handles


def _frozen_activation(_module: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
    value: Tensor = args[0]
    ratio = (out / torch.where(value == 0, torch.ones_like(value), value)).detach()
    return value * ratio


def _halved(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (0.5 * args[0] + 0.5 * args[0].detach(), *args[1:])
