"""Features of many layers: ours, storing included, against a batch-1 script, a lean one-pass loop,
SAELens and the bare products.

    python benchmarks/extraction.py [--rounds 5] [--prompts 256] [--at last --at all]

Stand-in: 8 layers, width 512, 8 SAEs of 4,096 features (top-k 50), random weights, prompts of 96 to
128 tokens, all different. `batch-1` runs the whole model for each prompt and layer (timed on few
prompts, reported for all). `lean` is one pass in batches of similar length with everything known
beforehand: no spaces, no rows, nothing written. `ours` is `extract.activations`, its rows in Arrow
files as a worker writes them. `floor` is the matrix products alone. `saelens` is SAELens's encoders
on TransformerLens's cache, where both are installed. Batches are as large as our batch plan says
for all of them but the bare products, which gain by larger ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from _random_model import stand_in

from toolkit._run.job_folder import JobWriter
from toolkit.costs import Workload
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_work
from toolkit.work import Work
from toolkit_hf.engine import CausalModel
from toolkit_saes.encode.canonical import CanonicalSae, Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.weights import Weights
from toolkit_saes.extract.costs import batches
from toolkit_saes.extract.stage import Extract, extract
from toolkit_saes.layouts.sizes import Size, sizes

LAYERS, WIDTH, FEATURES, K, FEW = 8, 512, 4096, 50, 4
LARGE = 4096
"""Padded tokens of a batch of the bare products, which are the faster the larger they are."""


def _encoder(layer: int) -> torch.Tensor:
    """(features, width)."""
    return torch.randn(FEATURES, WIDTH, generator=torch.Generator().manual_seed(layer)) / WIDTH**0.5


def _weights(layer: int) -> Weights:
    encoder = Matrix(_encoder(layer))
    return Weights(encoder, torch.zeros(FEATURES), encoder, torch.zeros(WIDTH), gate="topk", k=K)


def _saes() -> list[CanonicalSae]:
    def facts(layer: int) -> Facts:
        return Facts(
            f"random-{layer}",
            "random",
            f"resid_post.{layer}",
            FEATURES,
            WIDTH,
            str(layer),
            "topk",
            float(K),
        )

    held = [_weights(layer) for layer in range(LAYERS)]
    return [CanonicalSae(facts(layer), lambda layer=layer: held[layer]) for layer in range(LAYERS)]  # type: ignore[misc]


def _prompts(count: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(96, 129, (count,), generator=draw).tolist()
    return [torch.randint(1, 1024, (length,), generator=draw).tolist() for length in lengths]


# --- the ways -------------------------------------------------------------------------------------


def _batch_one(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]], at: str
) -> None:
    """A whole forward pass for each prompt and layer, a dense row to NumPy: what scripts do."""
    for sae in saes:
        for ids in prompts[:FEW]:
            states = model._module(torch.tensor([ids]), output_hidden_states=True).hidden_states[
                sae.layer + 1
            ][0]
            sae.encode(states[-1:] if at == "last" else states).numpy()


def _lean(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]], at: str
) -> None:
    """One pass, batches of similar length, a top-k of the products: nothing is kept but features
    and values.
    """
    held = [next(sae.weights(torch.empty(0)).w_enc.blocks())[1] for sae in saes]
    assert all(len(encoder) == FEATURES for encoder in held)
    for batch in _batches(prompts, _plan(model, saes, prompts)["tokens"]):
        ends = torch.tensor([len(ids) - 1 for ids in batch])
        found = model.run(batch, [sae.hookpoint for sae in saes])
        seen = torch.arange(max(map(len, batch))) <= ends[:, None]
        for sae, encoder in zip(saes, held, strict=True):
            stream = found[sae.hookpoint]
            rows = stream[torch.arange(len(batch)), ends] if at == "last" else stream[seen]
            for start in range(0, len(rows), 512):
                (rows[start : start + 512] @ encoder.T).topk(K, dim=-1)


def _floor(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]], at: str
) -> None:
    """Every weight matrix times the rows that pass it."""
    held = [next(sae.weights(torch.empty(0)).w_enc.blocks())[1] for sae in saes]
    assert all(len(encoder) == FEATURES for encoder in held)
    for batch in _batches(prompts, LARGE):
        rows = torch.randn(sum(map(len, batch)), WIDTH)
        picked = rows[: len(batch)] if at == "last" else rows
        for layer, encoder in enumerate(held):
            block = model.decoder.blocks[layer]
            for part in (
                block.self_attn.q_proj,
                block.self_attn.k_proj,
                block.self_attn.v_proj,
                block.self_attn.o_proj,
            ):
                rows @ part.weight.T
            wide = rows @ block.mlp.gate_proj.weight.T
            rows @ block.mlp.up_proj.weight.T
            wide @ block.mlp.down_proj.weight.T
            picked @ encoder.T


def _batches(prompts: Sequence[list[int]], tokens: int) -> list[list[list[int]]]:
    found: list[list[list[int]]] = [[]]
    for ids in sorted(prompts, key=len):
        if found[-1] and len(ids) * (len(found[-1]) + 1) > tokens:
            found.append([])
        found[-1].append(ids)
    return found


def _ours(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]], at: str
) -> None:
    """The stage itself, its rows written as a worker writes them."""
    work = _work(model, saes, prompts, at)
    with tempfile.TemporaryDirectory() as folder:
        writer = JobWriter(Path(folder), "extract.activations", ("activations", "spaces"))
        for name, rows in extract(work):
            writer.add(name, rows)
        writer.finish({})


def _work(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]], at: str
) -> Work:
    none: dict[str, Any] = {"cluster": "", "text": "", "pieces": [], "spans": [], "prompt_hash": ""}
    rows = [
        {"sample": f"s{at:05d}", "unit": f"s{at:05d}", "token_ids": ids, **none}
        for at, ids in enumerate(prompts)
    ]
    samples = pa.Table.from_pylist(rows, schema=arrow_schema("samples"))
    work = make_work(Extract(at=at), {"samples": samples}, model=model, saes=saes)
    return replace(work, batch=_plan(model, saes, prompts))


def _plan(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]]
) -> dict[str, int]:
    """The batch plan, with memory for all of it."""
    known = [
        Size(sae.hookpoint, sae.inputs, sae.width, sae.declared_l0, 4 * sae.inputs * sae.width)
        for sae in saes
    ]
    lengths = list(map(len, prompts))
    load = Workload(
        samples=len(prompts),
        distinct=len(prompts),
        tokens=sum(lengths),
        longest=max(lengths),
        model=model.identity.facts,
        saes=sizes(known),
    )
    return dict(batches(Extract(), load, 16 << 30, "cpu"))


def _saelens(model: CausalModel, saes: Sequence[CanonicalSae]) -> Callable[..., None] | None:
    """SAELens's encoders on TransformerLens's cache, batched; None where they are not installed."""
    if not all(importlib.util.find_spec(name) for name in ("sae_lens", "transformer_lens")):
        return None
    from sae_lens import TopKSAE, TopKSAEConfig
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=WIDTH,
        n_ctx=2048,
        d_head=WIDTH // 8,
        n_heads=8,
        d_mlp=4 * WIDTH,
        d_vocab=1024,
        act_fn="silu",
        gated_mlp=True,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        final_rms=True,
        rotary_dim=WIDTH // 8,
    )
    peer, names = (
        HookedTransformer(config),
        [f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)],
    )
    theirs = [TopKSAE(TopKSAEConfig(d_in=WIDTH, d_sae=FEATURES, k=K, device="cpu")) for _ in saes]

    def run(
        model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]], at: str
    ) -> None:
        for batch in _batches(prompts, _plan(model, saes, prompts)["tokens"]):
            longest = max(map(len, batch))
            ids = torch.tensor([[*one, *[0] * (longest - len(one))] for one in batch])
            _, cache = peer.run_with_cache(
                ids, names_filter=names, return_type=None, stop_at_layer=LAYERS
            )
            ends = torch.tensor([len(one) - 1 for one in batch])
            for sae, name in zip(theirs, names, strict=True):
                sae.encode(
                    cache[name][torch.arange(len(batch)), ends] if at == "last" else cache[name]
                )

    return run


# --- measuring ------------------------------------------------------------------------------------


@torch.inference_mode()
def _time(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Interleaved rounds; medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument(
        "--at", action="append", choices=("last", "all"), help="which tokens; both if not said"
    )
    options = parser.parse_args()
    model, saes, prompts = stand_in(LAYERS, WIDTH), _saes(), _prompts(options.prompts)
    ways: dict[str, Callable[..., None]] = {
        "batch-1": _batch_one,
        "lean": _lean,
        "ours": _ours,
        "floor": _floor,
    }
    if peer := _saelens(model, saes):
        ways["saelens"] = peer
    size = (
        f"{LAYERS} layers, width {WIDTH}, {LAYERS} x {FEATURES:,} features, "
        f"{torch.get_num_threads()} threads"
    )
    print(
        f"{len(prompts)} prompts of 96 to 128 tokens, {size}; median of {options.rounds} "
        "interleaved rounds"
    )
    print(f"batch plan: {_plan(model, saes, prompts)}")
    for at in options.at or ("last", "all"):
        _compare(at, ways, model, saes, prompts, options.rounds)
    if "saelens" not in ways:
        print("saelens: not installed (pip install sae-lens), so not compared")


def _compare(
    at: str,
    ways: dict[str, Callable[..., None]],
    model: CausalModel,
    saes: Sequence[CanonicalSae],
    prompts: Sequence[list[int]],
    rounds: int,
) -> None:
    took: dict[str, list[float]] = {name: [] for name in ways}
    for work in ways.values():
        _time(lambda work=work: work(model, saes, prompts[: 4 * FEW], at))  # type: ignore[misc]
    for _ in range(rounds):
        for name, work in ways.items():
            seconds = _time(lambda work=work: work(model, saes, prompts, at))  # type: ignore[misc]
            took[name].append(
                seconds * (len(prompts) / min(FEW, len(prompts)) if name == "batch-1" else 1)
            )
    each = {name: statistics.median(times) for name, times in took.items()}
    print(f"\n{at} token(s)")
    for name, seconds in each.items():
        print(
            f"{name:8} {seconds:8.2f} s   {seconds / each['lean']:6.2f} x lean   "
            f"{seconds / each['floor']:6.2f} x floor"
        )


if __name__ == "__main__":
    main()
