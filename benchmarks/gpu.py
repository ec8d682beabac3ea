"""Extraction at the size of Llama-3.1-8B on a GPU: tokens a second, the share of a large product's
rate, peak memory.

    python benchmarks/gpu.py [extract] [--prompts 6400] [--tiny]
    python benchmarks/gpu.py patch [--tiny]
    python benchmarks/gpu.py play [--games 256] [--tiny]

Weights are random and made on the device in bfloat16; 31 SAEs of 32,768 features in the layout of
Llama Scope's R (JumpReLU), one a layer from 1 on; 6,400 prompts of 96 to 160 tokens, all different;
the last token's features, rows written as a worker writes them. The rate is that of the
floating-point operations that blocks and encoders cannot do without, against an 8192 x 8192 x 8192
product in bfloat16 in the same run. `patch` screens all 1,015,808 features at 2 prompts under 4
arms, exactly, and prints the share of its floor. `play` answers the prompts of a step of the slot
machine in a session, with replies of a fixed distribution of lengths, terse (layout restart) and
reasoned (layout corrected): tokens a second, and what 6,400 such games would take. `--tiny` runs
the same on a CPU in seconds, which says nothing about speed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from _gpu_patch import measure as measure_patch
from _gpu_play import play
from _random_model import random_llama

from toolkit._run.job_folder import JobWriter
from toolkit.costs import Workload
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_work
from toolkit.work import Work
from toolkit_hf.engine import CausalModel
from toolkit_saes.encode.canonical import CanonicalSae, Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.weights import Weights
from toolkit_saes.extract.costs import batches, extraction
from toolkit_saes.extract.stage import Extract, extract
from toolkit_saes.layouts.sizes import Size, sizes

STEP = 1024
"""Samples of one step."""
ACTIVE = 50
SPENT = 400.0
"""Seconds after which no further step is begun: the remaining prompts are left out, and the output
says so.
"""


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    layers: int
    width: int
    inside: int
    heads: int
    groups: int
    vocabulary: int
    features: int
    prompts: int
    product: int


LLAMA = Sizes(32, 4096, 14_336, 32, 8, 128_256, 32_768, 6400, 8192)
TINY = Sizes(3, 64, 128, 4, 2, 256, 512, 24, 256)


def _model(size: Sizes, device: str) -> CausalModel:
    return random_llama(
        device=device,
        dtype=torch.bfloat16,
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inside,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.groups,
        max_position_embeddings=8192,
        rope_theta=500_000.0,
    )


def _saes(size: Sizes, device: str) -> list[CanonicalSae]:
    """Thresholds let about 50 features through, as the release declares."""
    return [_sae(size, layer, device) for layer in range(1, size.layers)]


def _sae(size: Sizes, layer: int, device: str) -> CanonicalSae:
    facts = Facts(
        f"L{layer}R-8x",
        "random",
        f"resid_post.{layer}",
        size.features,
        size.width,
        str(layer),
        "jumprelu",
        float(ACTIVE),
    )

    draw = torch.Generator(device).manual_seed(layer)
    encoder = (
        torch.randn(size.features, size.width, generator=draw, device=device, dtype=torch.bfloat16)
        / size.width**0.5
    )
    scale, nothing = torch.ones(size.features, device=device), torch.zeros(1, device=device)
    held = Weights(
        Matrix(encoder, scale=scale),
        torch.zeros(size.features, device=device),
        Matrix(nothing[None]),
        nothing,
        threshold=nothing, norm="row", undo_norm=False,
    )  # fmt: skip
    first = CanonicalSae(facts, lambda: held).encode(torch.randn(64, size.width, device=device))
    fitted = replace(held, threshold=first.topk(ACTIVE, dim=-1).values[:, -1].mean())
    return CanonicalSae(facts, lambda: fitted)


def _prompts(size: Sizes) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(96, 161, (size.prompts,), generator=draw).tolist()
    return [
        torch.randint(1, size.vocabulary, (length,), generator=draw).tolist() for length in lengths
    ]


def _steps(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: list[list[int]], plan: dict[str, int]
) -> Iterator[Work]:
    """The work of each step: samples in order of length, split as the host would split them."""
    ordered = sorted(prompts, key=len)
    none: dict[str, Any] = {"cluster": "", "text": "", "pieces": [], "spans": [], "prompt_hash": ""}
    for start in range(0, len(ordered), STEP):
        rows = [
            {"sample": f"s{start + at:05d}", "unit": f"s{start + at:05d}", "token_ids": ids, **none}
            for at, ids in enumerate(ordered[start : start + STEP])
        ]
        samples = pa.Table.from_pylist(rows, schema=arrow_schema("samples"))
        work = make_work(Extract(at="last"), {"samples": samples}, model=model, saes=saes)
        yield Work(**{**work.__dict__, "batch": plan})


def _extract(work: Work) -> int:
    """One step, written; gives its rows."""
    with tempfile.TemporaryDirectory() as folder:
        writer = JobWriter(Path(folder), "extract.activations", ("activations", "spaces"))
        for name, rows in extract(work):
            writer.add(name, rows)
        return writer.finish({})["activations"]


def _seconds(work: Callable[[], Any], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _rate(size: int, device: str) -> float:
    """Operations a second of a square product in bfloat16: the best of some tries."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    left @ right
    return max(2 * size**3 / _seconds(lambda: left @ right, device) for _ in range(10))


def main() -> None:
    """Run one measurement; every printed line is complete in itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", nargs="?", choices=("extract", "patch", "play"), default="extract")
    parser.add_argument("--games", type=int, help="games that are played side by side")
    parser.add_argument("--prompts", type=int)
    parser.add_argument(
        "--tiny", action="store_true", help="a small model on the CPU: that it runs, nothing more"
    )
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        print(
            "no GPU here: nothing was measured. `--tiny` runs the same on the CPU, at a size that "
            "says nothing."
        )
        return
    size, device = (TINY, "cpu") if options.tiny else (LLAMA, "cuda")
    size = Sizes(**{**size.__dict__, "prompts": options.prompts or size.prompts})
    if options.work == "play":
        games = options.games or (4 if options.tiny else 256)
        play(_model(size, device), games, tiny=options.tiny)
    elif options.work == "patch":
        _patch(size, device)
    else:
        _measure(size, device)


@torch.inference_mode()
def _patch(size: Sizes, device: str) -> None:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}; {size.layers} layers, width {size.width}")
    rate, model = _rate(size.product, device), _model(size, device)
    print(f"a {size.product}^3 bfloat16 product: {rate / 1e12:.4g} TFLOP/s")
    measure_patch(model, size.features, size.vocabulary, rate, device, SPENT)


@torch.inference_mode()
def _measure(size: Sizes, device: str) -> None:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}; {size.layers} layers, width {size.width}, "
        f"{size.prompts} prompts"
    )
    rate = _rate(size.product, device)
    model, saes, prompts = _model(size, device), _saes(size, device), _prompts(size)
    load = _load(model, saes, prompts)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else 4 << 30
    held = load.model["bytes"] + load.saes["bytes"]
    plan = dict(batches(Extract(at="last"), load, int(0.9 * (free + held)), device))
    print(f"batch plan: {plan}")
    _extract(
        next(_steps(model, saes, prompts[:8], plan))
    )  # what runs for the first time is compiled and cached
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    done, rows, started = 0, 0, time.perf_counter()
    for work in _steps(model, saes, prompts, plan):
        if time.perf_counter() - started > SPENT:
            break
        rows += _extract(work)
        done += len(work.inputs.read("samples"))
    _wait(device)
    _say(
        size,
        sorted(prompts, key=len)[:done],
        rows,
        time.perf_counter() - started,
        rate,
        model,
        saes,
    )


def _load(
    model: CausalModel, saes: Sequence[CanonicalSae], prompts: Sequence[list[int]]
) -> Workload:
    known = [
        Size(sae.hookpoint, sae.inputs, sae.width, sae.declared_l0, 2 * sae.inputs * sae.width)
        for sae in saes
    ]
    tokens = sum(map(len, prompts))
    return Workload(
        samples=len(prompts),
        distinct=len(prompts),
        tokens=tokens,
        longest=max(map(len, prompts)),
        model=model.identity.facts,
        saes=sizes(known),
    )


def _say(
    size: Sizes,
    prompts: Sequence[list[int]],
    rows: int,
    seconds: float,
    rate: float,
    model: CausalModel,
    saes: Sequence[CanonicalSae],
) -> None:
    if len(prompts) < size.prompts:
        print(
            f"stopped after {SPENT:.0f} s: {len(prompts)} of {size.prompts} prompts, the shortest "
            "ones"
        )
    cost = extraction(Extract(at="last"), _load(model, saes, prompts))
    tokens = sum(map(len, prompts))
    print(
        f"{seconds:.1f} s, {len(prompts)} forwards, {tokens / seconds:,.0f} tokens/s, {rows:,} "
        "rows written"
    )
    print(
        f"{cost.flops / seconds / 1e12:.4g} TFLOP/s, {cost.flops / seconds / rate:.1%} of a "
        f"{size.product}^3 bfloat16 product's"
    )
    print(f"that product: {rate / 1e12:.4g} TFLOP/s")
    if torch.cuda.is_available():
        print(
            f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB; the cost model says "
            f"{cost.memory / 2**30:.1f} GiB"
        )


if __name__ == "__main__":
    main()
