"""Features of all tokens and attention of all heads of four layers: ours, rows included, against
eager `output_attentions` and, where they are installed, SAELens on TransformerLens's cache.

    nox -s bench -- tokens                     with the peer
    python benchmarks/tokens.py [--rounds 5] [--prompts 16] [--tiny]

Stand-in: 8 layers, width 512, SAEs of 4,096 features (top-k 50) at the last four, random weights,
prompts of 96 to 128 tokens. `ours` is `track.tokens`. `eager` runs transformers with eager
attention and every layer's weights, encodes the four layers and writes nothing. `saelens` does the
same on TransformerLens. Then: the attention rows of one query on the fast path, of every
layer and head, against the same pass without them. Time is the median of interleaved rounds after
one that does not count. Memory is what one call adds to the peak: on a GPU by torch's own count,
on a CPU (Linux) the resident memory of the process.

Last, bytes of ten situations (and three twins) at 31 layers of Llama 3.1 8B: what `toolkit plan`
forecasts, against what a store then holds of rows of that shape; and the same of a run of the spec
on the packaged model.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from _random_model import stand_in
from _token_bytes import LAYERS_AT_8B, at_8b, on_the_lab

from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_work
from toolkit_hf.engine import CausalModel
from toolkit_saes.encode.canonical import CanonicalSae, Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.weights import Weights
from toolkit_tokens.track.params import TrackTokens
from toolkit_tokens.track.stage import track_tokens

NAMES = ("ours", "eager", "saelens", "pass", "pass + rows")
LAYERS, WIDTH, FEATURES, K, TRACKED = 8, 512, 4096, 50, 4


def _sae(layer: int, width: int, features: int) -> CanonicalSae:
    draw = torch.Generator().manual_seed(layer)
    matrix = Matrix(torch.randn(features, width, generator=draw) / width**0.5)
    held = Weights(matrix, torch.zeros(features), matrix, torch.zeros(width), gate="topk", k=K)
    facts = Facts(
        f"random-{layer}",
        "random",
        f"resid_post.{layer}",
        features,
        width,
        str(layer),
        "topk",
        float(K),
    )
    return CanonicalSae(facts, lambda: held)


def _prompts(count: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(96, 129, (count,), generator=draw).tolist()
    return [torch.randint(1, 1024, (length,), generator=draw).tolist() for length in lengths]


def _samples(prompts: Sequence[list[int]]) -> pa.Table:
    rows = [
        {
            "sample": f"s{number}",
            "unit": f"s{number}",
            "cluster": f"s{number}",
            "text": "",
            "token_ids": ids,
            "pieces": [],
            "spans": [],
            "prompt_hash": f"s{number}",
            "bos": False,
        }
        for number, ids in enumerate(prompts)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("samples"))


# --- the ways -------------------------------------------------------------------------------------


def _ours(model: CausalModel, saes: Sequence[CanonicalSae], prompts: Any) -> Callable[[], int]:
    tables = {"samples": _samples(prompts)}

    def run() -> int:
        work = make_work(TrackTokens(), tables, model=model, saes=saes)
        return sum(table.num_rows for _, table in track_tokens(work))

    return run


def _eager(model: CausalModel, saes: Sequence[CanonicalSae], prompts: Any) -> Callable[[], int]:
    module = copy.deepcopy(model._module)
    module.set_attn_implementation("eager")

    def run() -> int:
        rows = 0
        for ids in prompts:
            out = module(
                torch.tensor([ids], device=model.device),
                output_attentions=True,
                output_hidden_states=True,
            )
            for sae in saes:
                sae.encode(out.hidden_states[sae.layer + 1][0])
                rows += out.attentions[sae.layer].shape[-1]
        return rows

    return run


def _saelens(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Any
) -> Callable[[], int] | None:
    """None where they are not installed."""
    if not all(importlib.util.find_spec(name) for name in ("sae_lens", "transformer_lens")):
        return None
    from sae_lens import TopKSAE, TopKSAEConfig
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=model.layers,
        d_model=model.width,
        n_ctx=2048,
        d_head=model.width // 8,
        n_heads=8,
        d_mlp=4 * model.width,
        d_vocab=1024,
        act_fn="silu",
        gated_mlp=True,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        final_rms=True,
        rotary_dim=model.width // 8,
    )
    peer = HookedTransformer(config)
    theirs = [TopKSAE(TopKSAEConfig(d_in=model.width, d_sae=sae.width, k=K)) for sae in saes]
    names = [
        f"blocks.{sae.layer}.{site}"
        for sae in saes
        for site in ("hook_resid_post", "attn.hook_pattern")
    ]

    def run() -> int:
        rows = 0
        for ids in prompts:
            _, cache = peer.run_with_cache(torch.tensor([ids]), names_filter=names)
            for sae, their in zip(saes, theirs, strict=True):
                their.encode(cache[f"blocks.{sae.layer}.hook_resid_post"][0])
                rows += cache[f"blocks.{sae.layer}.attn.hook_pattern"].shape[-1]
        return rows

    return run


def _row_passes(model: CausalModel, prompts: Any) -> dict[str, Callable[[], int]]:
    """A pass to the last block, and the same with one query's attention in every layer."""
    last, layers = model.last_hookpoint(), list(range(model.layers))

    def plain() -> int:
        return sum(len(model.run([ids], [last])) for ids in prompts)

    def with_rows() -> int:
        found = [
            model.attention([ids], [[len(ids) - 1]], layers, capture=[last]) for ids in prompts
        ]
        return len(found)

    return {"pass": plain, "pass + rows": with_rows}


# --- measuring ------------------------------------------------------------------------------------


@torch.inference_mode()
def _seconds(run: Callable[[], int]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def _peak(run: Callable[[], int]) -> float:
    """MiB that one call adds to the peak."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # return memory that earlier calls freed
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # reset the peak
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 1024


def _resident(name: str) -> int:
    """KiB, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _ways(given: argparse.Namespace) -> dict[str, Callable[[], int]]:
    """What is compared, by name; peers only where they are installed."""
    layers, width, features = (4, 64, 256) if given.tiny else (LAYERS, WIDTH, FEATURES)
    prompts = _prompts(2 if given.tiny else given.prompts)
    model = stand_in(layers, width)
    saes = [_sae(layer, width, features) for layer in range(layers - TRACKED, layers)]
    ways = {
        "ours": _ours(model, saes, prompts),
        "eager": _eager(model, saes, prompts),
        "saelens": _saelens(model, saes, prompts),
        **_row_passes(model, prompts),
    }
    print(f"{len(prompts)} prompts, {layers} layers, {TRACKED} tracked, {given.rounds} round(s)")
    return {name: run for name, run in ways.items() if run is not None}


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--prompts", type=int, default=16)
    options.add_argument(
        "--tiny", action="store_true", help="Small: its figures say nothing, its steps are all."
    )
    given = options.parse_args()
    given.rounds = 1 if given.tiny else given.rounds
    return given


def main() -> None:
    given = _options()
    ways = _ways(given)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for name in ways:
        _seconds(ways[name])
    for _ in range(given.rounds):
        for name, run in ways.items():
            taken[name].append(_seconds(run))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    peaks = {name: _peak(run) for name, run in ways.items()}
    for name in NAMES:
        if name in ways:
            print(f"{name:12} {medians[name]:9.3f} s {peaks[name]:9.1f} MiB")
        else:
            print(f"{name:12} not installed: nox -s bench -- tokens")
    for other in ("eager", "saelens"):
        if other in ways:
            print(
                f"ours / {other}: {medians['ours'] / medians[other]:.2f} of the time, "
                f"{_share(peaks['ours'], peaks[other])} of the memory"
            )
    print(f"rows / none: {medians['pass + rows'] / medians['pass']:.2f} of the time (at most 1.2)")
    _print_bytes(2 if given.tiny else LAYERS_AT_8B)


def _print_bytes(layers: int) -> None:
    """The bytes forecast and written; so many layers of 8B are written."""
    with tempfile.TemporaryDirectory() as folder:
        scaled = "" if layers == LAYERS_AT_8B else f" ({layers} written, scaled up)"
        print(f"10 situations x {LAYERS_AT_8B} layers at 8B{scaled}: {at_8b(Path(folder), layers)}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"the same spec on the packaged model: {on_the_lab(Path(folder))}")


def _share(ours: float, other: float) -> str:
    """A ratio of peaks; a way that adds nothing to the peak has none."""
    return f"{ours / other:.2f}" if other > 0 else "more than none"


if __name__ == "__main__":
    main()
