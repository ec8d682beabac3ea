"""Contract checks of a loaded SAE: its names, encoding, decoding and single features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import BadInput
from toolkit.hookpoints import hookpoint
from toolkit.saes import Sae
from toolkit.testing.promises import Broken
from toolkit.testing.promises import near as _near
from toolkit.testing.promises import require as _require

if TYPE_CHECKING:
    from torch import Tensor


def check_sae(sae: Sae, rows: Tensor | None = None, *, tolerance: float = 1e-4) -> None:
    """Check a loaded SAE on rows of its hookpoint's stream, by default on random ones. `tolerance`
    as for `check_model`.
    """
    import torch

    _check_names(sae)
    inputs = (
        torch.randn((16, sae.inputs), generator=torch.Generator().manual_seed(0))
        if rows is None
        else rows
    )
    _check_encode(sae, inputs, tolerance)
    _check_sparse(sae, inputs, tolerance)
    _check_chosen(sae, inputs, tolerance)
    _check_decode(sae, sae.encode(inputs), tolerance)
    before = sae.encode(inputs)
    sae.release_memory()
    _require(
        sae,
        _near(sae.encode(inputs), before, tolerance),
        "encode returns other values after release_memory",
    )


def _check_names(sae: Sae) -> None:
    for name in ("name", "release", "hookpoint", "digest", "recipe"):
        _require(sae, getattr(sae, name, ""), f"its {name} is empty")
    try:
        canonical = str(hookpoint(sae.hookpoint))
    except BadInput as error:
        raise Broken(f"SAE '{sae.name}': {error}") from None
    _require(
        sae,
        canonical == sae.hookpoint,
        f"its hookpoint is '{sae.hookpoint}'; write it as '{canonical}': str(hookpoint(...))",
    )
    _require(
        sae,
        str(hookpoint(sae.output_hookpoint)) == sae.output_hookpoint,
        f"its output_hookpoint is '{sae.output_hookpoint}'; write it as "
        f"'{hookpoint(sae.output_hookpoint)}'",
    )
    _require(
        sae,
        sae.layer == hookpoint(canonical).layer,
        f"its layer is {sae.layer}, but its hookpoint is {canonical}",
    )
    _require(
        sae,
        min(sae.inputs, sae.width) > 0,
        f"its inputs and width are {(sae.inputs, sae.width)}; each must be at least 1",
    )


def _check_encode(sae: Sae, rows: Tensor, tolerance: float) -> None:
    import torch

    result, expected = sae.encode(rows), (len(rows), sae.width)
    _require(
        sae,
        tuple(result.shape) == expected,
        f"encode returned the shape {tuple(result.shape)}; expected {expected}",
    )
    _require(
        sae,
        result.dtype == torch.float32,
        f"encode returned {result.dtype}; expected torch.float32",
    )
    _require(
        sae,
        not result.requires_grad,
        "encode returned a tensor that requires gradients; detach the weights",
    )
    meant = sae.signed or bool((result >= 0).all())
    _require(
        sae,
        result.isfinite().all() and meant,
        "encode returned activations below zero, NaN or infinity",
    )
    single = torch.cat([sae.encode(row[None]) for row in rows])
    _require(
        sae,
        _near(single, result, tolerance),
        "the activations of a row depend on the other rows",
    )
    short = rows.bfloat16()
    try:
        same = _near(sae.encode(short), sae.encode(short.float()), tolerance)
    except RuntimeError as error:
        raise Broken(
            f"SAE '{sae.name}': encode does not take bfloat16, as models give it: {error}"
        ) from None
    _require(
        sae,
        same,
        "encode of bfloat16 differs from encode of the same numbers in float32; compute in float32",
    )


def _check_sparse(sae: Sae, rows: Tensor, tolerance: float) -> None:
    import torch

    dense = sae.encode(rows)
    for chunk in (4096, 3):
        result = sae.sparse(rows, chunk)
        whole = len(result.counts) == len(rows) and int(result.counts.sum()) == len(
            result.features
        ) == len(result.values)
        _require(sae, whole, "sparse returned counts that do not add up to its features and values")
        owner = torch.repeat_interleave(
            torch.arange(len(rows), device=result.counts.device), result.counts
        )
        rebuilt = torch.zeros_like(dense)
        rebuilt[owner, result.features] = result.values.to(rebuilt)
        same = _near(rebuilt, dense, tolerance) and int((rebuilt != 0).sum()) == len(result.values)
        _require(sae, same, "sparse returned activations that differ from encode")


def _check_chosen(sae: Sae, rows: Tensor, tolerance: float) -> None:
    """Check that chosen features alone are what `encode` gives for them."""
    features = sorted({0, sae.width // 3, sae.width // 2, sae.width - 1}, reverse=True)
    expected, result = sae.encode(rows)[:, features], sae.activations_of(rows, features)
    _require(
        sae,
        tuple(result.shape) == tuple(expected.shape),
        f"activations_of returned the shape {tuple(result.shape)}; expected "
        f"{tuple(expected.shape)}",
    )
    _require(
        sae,
        _near(result, expected, tolerance),
        "activations_of returned activations that differ from encode",
    )
    if not sae.pointwise:
        return
    columns, count = sae.encoder_columns(features), len(features)
    shapes = [tuple(columns.shape), tuple(sae.encoder_bias(features).shape)]
    shapes.append(tuple(sae.thresholds(features).shape))
    allowed = [(count, sae.inputs), (count,), (count,)]
    _require(
        sae,
        shapes == allowed,
        "encoder_columns, encoder_bias and thresholds returned the shapes "
        f"{shapes[0]}, {shapes[1]}, {shapes[2]}; expected {allowed[0]}, {allowed[1]}, {allowed[2]}",
    )
    before, limits = sae.preactivations(rows, features), sae.thresholds(features)
    fired = before * (before > limits.to(before.device))
    _require(
        sae,
        _near(fired, expected, tolerance),
        "it is pointwise, but its pre-activations above their thresholds differ from encode",
    )


def _check_decode(sae: Sae, activations: Tensor, tolerance: float) -> None:
    """Check decoding, from encoded activations and from zeros: adding one feature adds its decoder
    row.
    """
    import torch

    expected = (len(activations), sae.outputs)
    result = sae.decode(activations)
    _require(
        sae,
        tuple(result.shape) == expected,
        f"decode returned the shape {tuple(result.shape)}; expected {expected}",
    )
    _require(sae, result.isfinite().all(), "decode returned NaN or infinity")
    features = sorted({0, sae.width // 3, sae.width // 2, sae.width - 1}, reverse=True)
    rows = sae.decoder_rows(features)
    shape = (len(features), sae.outputs)
    _require(
        sae,
        tuple(rows.shape) == shape,
        f"decoder_rows returned the shape {tuple(rows.shape)}; expected {shape}",
    )
    for start in (torch.zeros_like(activations[:1]), activations[:1]):
        for feature, row in zip(features, rows, strict=True):
            more = start.clone()
            more[0, feature] += 2.5
            same = _near(sae.decode(start)[0] + 2.5 * row.to(start), sae.decode(more)[0], tolerance)
            _require(
                sae,
                same,
                f"decode does not add the decoder row of feature {feature}: it must be affine in "
                "the activations",
            )
