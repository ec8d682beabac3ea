"""The SAEs: batch-top-k training on the residual stream, then a threshold fitted on what is stored.

Training space is the published Llama Scope one: inputs scaled to an average norm of sqrt(d),
decoder rows of any norm. The threshold is fitted last, after the fold into raw units and after
rounding, so mean L0 equals k.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from toolkit_lab.training.corpus import TrainingExample

ROUND = torch.bfloat16
FIT_TOKENS = 32_768


@dataclass(frozen=True)
class Coder:
    """Training-space tensors, as stored: encoder (d_sae, d), decoder (d, d_sae), and the scale of
    the inputs.
    """

    encoder: torch.Tensor
    encoder_bias: torch.Tensor
    decoder: torch.Tensor
    decoder_bias: torch.Tensor
    norm: float

    @property
    def scale(self) -> float:
        """The factor from raw to training space."""
        return float(self.decoder.shape[0] ** 0.5 / self.norm)


@dataclass(frozen=True)
class Folded:
    """Raw-space row-vector form with unit decoder rows; `threshold` is one number or one per
    feature.
    """

    w_enc: torch.Tensor
    b_enc: torch.Tensor
    w_dec: torch.Tensor
    b_dec: torch.Tensor
    threshold: torch.Tensor

    def encode(self, acts: torch.Tensor) -> torch.Tensor:
        """Return feature activations."""
        before = acts @ self.w_enc + self.b_enc
        return torch.where(before > self.threshold, before, torch.zeros(())).clamp(min=0)

    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction."""
        return feature_acts @ self.w_dec + self.b_dec


@torch.no_grad()
def residuals(
    model: LlamaForCausalLM, examples: list[TrainingExample], batch: int = 64
) -> list[torch.Tensor]:
    """Return the output of every layer, one row per token, BOS and padding left out."""
    by_layer: list[list[torch.Tensor]] = [[] for _ in model.model.layers]
    pad = int(model.config.pad_token_id or 0)
    ordered = sorted(examples, key=lambda example: len(example.ids))
    for start in range(0, len(ordered), batch):
        chunk = ordered[start : start + batch]
        width = max(len(example.ids) for example in chunk)
        ids = torch.tensor(
            [[*example.ids, *[pad] * (width - len(example.ids))] for example in chunk]
        )
        real = (ids != pad) & (torch.arange(width) > 0)
        for layer, acts in enumerate(_layer_outputs(model, ids)):
            by_layer[layer].append(acts[real])
    return [torch.cat(parts) for parts in by_layer]


def _layer_outputs(model: LlamaForCausalLM, ids: torch.Tensor) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _a, out: outputs.append(_tensor(out)))
        for layer in model.model.layers
    ]
    try:
        model.model(input_ids=ids)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _tensor(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def train_coder(
    acts: torch.Tensor,
    d_sae: int,
    k: int,
    steps: int,
    seed: int,
    *,
    by_norm: bool,
    batch: int = 2048,
) -> Coder:
    """Train one SAE; `by_norm` chooses the active features by activation times decoder norm."""
    generator = torch.Generator().manual_seed(seed)
    norm = acts.norm(dim=1).mean().item()
    scaled = acts * (acts.shape[1] ** 0.5 / norm)
    weights = _start(scaled, d_sae, generator)
    optimizer = torch.optim.Adam(weights, lr=2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps, pct_start=0.05
    )
    variance = scaled.var(dim=0).sum()
    for _ in range(steps):
        rows = scaled[torch.randint(len(scaled), (batch,), generator=generator)]
        loss = (rows - _reconstruct(weights, rows, k, by_norm=by_norm)).square().sum(
            1
        ).mean() / variance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    encoder, encoder_bias, decoder, decoder_bias = (_round(weight.detach()) for weight in weights)
    return Coder(encoder, encoder_bias, decoder, decoder_bias, norm)


def _start(scaled: torch.Tensor, d_sae: int, generator: torch.Generator) -> list[torch.Tensor]:
    d_model = scaled.shape[1]
    directions = functional.normalize(torch.randn(d_sae, d_model, generator=generator), dim=1)
    lengths = 1 + torch.rand(d_sae, 1, generator=generator)
    centre = scaled.mean(0)
    encoder = directions / lengths
    weights = [encoder, -encoder @ centre, (directions * lengths).T.contiguous(), centre]
    return [weight.clone().requires_grad_() for weight in weights]


def _reconstruct(
    weights: list[torch.Tensor], rows: torch.Tensor, k: int, *, by_norm: bool
) -> torch.Tensor:
    encoder, encoder_bias, decoder, decoder_bias = weights
    before = functional.relu(functional.linear(rows, encoder, encoder_bias))
    score = before.detach() * decoder.detach().norm(dim=0) if by_norm else before.detach()
    subset = score[:256].flatten()
    lowest = subset.topk(256 * k, sorted=False).values.min().clamp(min=1e-6)
    return functional.linear(before * (score >= lowest), decoder, decoder_bias)


def _round(weight: torch.Tensor) -> torch.Tensor:
    return weight.to(ROUND).float()


def fold(coder: Coder, acts: torch.Tensor, k: int, *, by_norm: bool) -> Folded:
    """Fold into raw units with unit decoder rows and fit the threshold so that mean L0 is k on
    `acts`.
    """
    lengths = coder.decoder.norm(dim=0)
    w_enc = coder.encoder.T * lengths
    b_enc, w_dec = coder.encoder_bias * lengths / coder.scale, (coder.decoder / lengths).T
    sample = acts[
        torch.randperm(len(acts), generator=torch.Generator().manual_seed(0))[:FIT_TOKENS]
    ]
    unit = torch.ones(()) if by_norm else lengths / coder.scale
    ratio = ((sample @ w_enc + b_enc) / unit).flatten()
    threshold = ratio.topk(len(sample) * k, sorted=False).values.min().clamp(min=0) * unit
    return Folded(w_enc, b_enc, w_dec, coder.decoder_bias / coder.scale, threshold)
