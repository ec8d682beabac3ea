"""SAEs that EleutherAI's sparsify writes, for toolkit: `saes: {uses: sparsify, with: {path:
../sae-llama, layers: [8, 15]}}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit import hookimpl
from toolkit.errors import BadInput, DataError
from toolkit.files.local import (
    PathText,
    check_link,
    content_digest,
    locate,
    read_json,
    safetensors_header,
)
from toolkit.hookpoints import hookpoint
from toolkit.identity import Identity
from toolkit.parts import Params, Part, SaePart
from toolkit.saes import Sae
from toolkit.work import Reporter

if TYPE_CHECKING:
    from torch import Tensor

FILES = ("cfg.json", "sae.safetensors")
DEFAULTS = {
    "activation": "topk",
    "expansion_factor": 32,
    "num_latents": 0,
    "k": 32,
    "transcode": False,
    "skip_connection": False,
}


class Sparsify(Params):
    """Which SAEs."""

    path: PathText = Field(
        description="Folder with one folder per SAE, named by its module: layers.8, layers.8.mlp."
    )
    layers: tuple[int, ...] = Field(
        (), description="Layers, counted from 0; all there are if none is named."
    )


def identify(params: Sparsify) -> Identity:
    """Digest and sizes, from configs and headers: no torch, nothing loaded."""
    root, saes = locate(params.path), _saes(params)
    digest = content_digest(
        {f"{sae.name}/{file}": root / sae.name / file for sae in saes for file in FILES}
    )
    facts = {
        "inputs": saes[0].inputs,
        "width": saes[0].width,
        "layers": [sae.layer for sae in saes],
    }
    return Identity(root.name, "local", digest, facts)


def load(params: Sparsify, report: Reporter) -> list[Sae]:
    """The SAEs in order of layers. Their weights are read when they are first needed."""
    report.phase("load")
    return list(_saes(params))


def _saes(params: Sparsify) -> list[SparsifySae]:
    root = locate(params.path)
    saes = [SparsifySae(file.parent) for file in root.glob(f"*/{FILES[1]}")]
    wanted = [sae for sae in saes if not params.layers or sae.layer in params.layers]
    missing = set(params.layers) - {sae.layer for sae in wanted}
    if missing or not wanted:
        there = ", ".join(map(str, sorted(sae.layer for sae in saes))) or "none"
        raise BadInput(
            f"saes.with.path: {root} has SAEs of sparsify for layers {there}. Name some of these, "
            "or another folder."
        )
    return sorted(wanted, key=lambda sae: (sae.layer, sae.name))


class SparsifySae(Sae):
    """f = the k largest of ReLU((x - b_dec) E^T + e); x^ = f W_dec + b_dec."""

    recipe = "sparsify: topk of ReLU, b_dec subtracted"

    def __init__(self, folder: Path) -> None:
        for file in FILES:
            check_link(folder / file, folder.parent)
        known = {**DEFAULTS, **read_json(folder / FILES[0])}
        self.name, self.release, self._file = folder.name, folder.parent.name, folder / FILES[1]
        self.hookpoint = str(hookpoint(folder.name))
        self.digest = content_digest({file: folder / file for file in FILES})
        for name, value in (
            ("activation", "topk"),
            ("transcode", False),
            ("skip_connection", False),
        ):
            if known[name] != value:
                raise BadInput(
                    f"{folder / FILES[0]}: {name} is {known[name]!r}; `sparsify` reads SAEs with "
                    f"{value!r} only."
                )
        self.inputs, self._k = int(known["d_in"]), int(known["k"])
        self.width = int(known["num_latents"]) or self.inputs * int(known["expansion_factor"])
        self.declared_l0 = float(self._k)
        shape = {"encoder.weight": [self.width, self.inputs], "encoder.bias": [self.width]}
        shape |= {"W_dec": [self.width, self.inputs], "b_dec": [self.inputs]}
        found = {name: tensor["shape"] for name, tensor in safetensors_header(self._file).items()}
        if found != shape:
            raise BadInput(f"{self._file} holds {found}; its config promises {shape}.")
        self._weights: dict[str, Tensor] = {}

    def encode(self, rows: Tensor) -> Tensor:
        """The k largest, by row."""
        import torch

        weights = self._on(rows.device)
        before = (
            (rows.float() - weights["b_dec"]) @ weights["encoder.weight"].T
            + weights["encoder.bias"]
        ).relu()
        kept = before.topk(self._k, dim=-1, sorted=False)
        return torch.zeros_like(before).scatter_(-1, kept.indices, kept.values)

    def decode(self, activations: Tensor) -> Tensor:
        """Reconstruct rows of the stream."""
        weights = self._on(activations.device)
        return activations @ weights["W_dec"] + weights["b_dec"]

    def decoder_rows(self, features: Sequence[int]) -> Tensor:
        """Return the decoder row of each feature: what one unit of it adds to the stream."""
        return self._on(self._weights["W_dec"].device if self._weights else "cpu")["W_dec"][
            list(features)
        ]

    def release_memory(self) -> None:
        """Forget the weights."""
        self._weights = {}

    def _on(self, device: Any) -> dict[str, Tensor]:
        """The weights in float32 on a device, read when they are first used."""
        from safetensors.torch import load_file

        if not self._weights:
            self._weights = {name: tensor.float() for name, tensor in load_file(self._file).items()}
            bad = next(
                (name for name, tensor in self._weights.items() if not tensor.isfinite().all()),
                None,
            )
            if bad:
                raise DataError(
                    f"{self._file}: {bad} has numbers that are NaN or infinite. Copy or download "
                    "it again."
                )
        self._weights = {name: tensor.to(device) for name, tensor in self._weights.items()}
        return self._weights


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """List the parts of this plugin."""
    yield SaePart(
        name="sparsify",
        help="SAEs written by EleutherAI's sparsify.",
        params=Sparsify,
        identify=identify,
        load=load,
        examine="examine.saes",
    )
