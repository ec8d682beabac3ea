"""The cost model: what it says follows from sizes, and is near what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from toolkit._cli import main
from toolkit.costs import ROW, Workload
from toolkit.samples.selectors import Selector
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace, identify
from toolkit_hf._load import load
from toolkit_lab import model_path, saes_path
from toolkit_saes.extract.costs import LEAST, batches, examination, extraction
from toolkit_saes.extract.stage import Extract
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_samples import _csv_file

MODEL = {
    "bytes": 16 << 30,
    "item": 2,
    "layers": 32,
    "width": 4096,
    "intermediate": 14_336,
    "block_parameters": 6_979_321_856,
}
SAES = {
    "bytes": 31 << 30,
    "count": 31,
    "hookpoints": 31,
    "layers": list(range(1, 32)),
    "features": 31 * 32_768,
    "l0": 31 * 50.0,
}


def load_of(**changes: Any) -> Workload:
    params = {
        "samples": 6400,
        "distinct": 1500,
        "tokens": 150_000,
        "longest": 160,
        "model": MODEL,
        "saes": SAES,
        **changes,
    }
    return Workload(**params)


def test_the_studys_extraction() -> None:
    """Its dense matrices are the 24 GiB that its plan feared; sparse it is megabytes."""
    cost = extraction(Extract(at="last"), load_of())
    assert cost.forwards == 1500
    assert cost.totals["dense_bytes"] == 6400 * 31 * 32_768 * 4
    assert 24 < cost.totals["dense_bytes"] / 2**30 < 25
    assert 80e6 < cost.disk < 250e6
    assert cost.flops > 2 * 6.9e9 * 150_000
    assert cost.memory > 47 << 30
    examined = examination(None, load_of())
    assert 0 < examined.disk < 1e5
    assert examined.table_rows < 100


def test_every_token_costs_more_than_the_last_and_a_selector_at_most_as_much() -> None:
    last, every, some = (
        extraction(Extract(at=selector), load_of())
        for selector in ("last", "all", Selector(span="balance"))
    )
    assert last.disk < every.disk == some.disk
    assert last.forwards == every.forwards


def test_kept_streams_cost_their_bytes_and_no_pass() -> None:
    """Exp1's: 6,400 prompts, 31 layers, 4,096 numbers of 4 bytes."""
    alone, kept = (
        extraction(Extract(at="all", stream=stream), load_of()) for stream in (None, "last")
    )
    assert (kept.forwards, kept.flops) == (alone.forwards, alone.flops)
    assert kept.totals["dense_bytes"] == alone.totals["dense_bytes"]
    assert kept.disk - alone.disk == 6400 * 31 * (4096 * 4 + ROW)
    assert 3.0 < (kept.disk - alone.disk) / 2**30 < 3.1


def test_blocks_above_the_last_sae_cost_nothing() -> None:
    low = extraction(Extract(), load_of(saes={**SAES, "layers": [7]}))
    assert low.flops < 0.3 * extraction(Extract(), load_of()).flops


@pytest.mark.parametrize(
    ("free", "together", "tokens"),
    [
        (130 << 30, 31, 65_536),
        (48 << 30, 31, 2048),
        (30 << 30, 13, 2048),
        (17 << 30, 1, LEAST),
        (1 << 30, 1, LEAST),
    ],
)
def test_the_batch_plan_follows_the_memory(free: int, together: int, tokens: int) -> None:
    plan = batches(Extract(), load_of(), free, "cuda")
    assert plan["together"] == together
    assert plan["tokens"] == tokens


@pytest.mark.parametrize(
    ("inside", "tokens"), [(14_336, 1024), (2048, 1024), (512, 4096), (8, 8192)]
)
def test_a_cpu_gets_as_many_tokens_as_stay_in_its_caches(inside: int, tokens: int) -> None:
    model = {**MODEL, "bytes": 1 << 20, "item": 4, "width": 512, "intermediate": inside}
    assert batches(Extract(), load_of(model=model), 130 << 30, "cpu")["tokens"] == tokens


def test_without_sizes_there_is_no_plan() -> None:
    assert batches(Extract(), load_of(model={}, saes={}), 1 << 40, "cuda") == {}
    assert extraction(Extract(), load_of(model={}, saes={})).flops == 0


def test_sizes_are_those_of_what_is_loaded() -> None:
    params = HuggingFace(path=str(model_path()), dtype="float32", device="cpu")
    facts, model = identify(params).facts, load(params, SilentReporter())
    size = sum(value.numel() for value in model._module.parameters())
    blocks = sum(
        value.numel() for name, value in model._module.named_parameters() if ".layers." in name
    )
    assert (facts["bytes"], facts["block_parameters"], facts["item"]) == (4 * size, blocks, 4)
    saes = _llama_scope.LlamaScope(path=str(saes_path()))
    result, loaded = _llama_scope.identify(saes).facts, _llama_scope.load(saes, SilentReporter())
    assert result["count"] == len(loaded)
    assert result["features"] == sum(sae.width for sae in loaded)


def test_operations_are_those_that_torch_counts() -> None:
    """A whole pass of the blocks, and the encoders: within 15 % of torch's own count (which has
    attention in full).
    """
    from torch.utils.flop_counter import FlopCounterMode

    params = HuggingFace(path=str(model_path()), dtype="float32", device="cpu", attention="eager")
    model, saes = (
        load(params, SilentReporter()),
        _llama_scope.load(_llama_scope.LlamaScope(path=str(saes_path())), SilentReporter()),
    )
    ids = [[1 + (7 * index + row) % 900 for index in range(64)] for row in range(8)]
    with FlopCounterMode(display=False) as counted:
        results = model.run(ids, [sae.hookpoint for sae in saes])
        for sae in saes:
            sae.encode(torch.as_tensor(results[sae.hookpoint]).flatten(0, 1))
    facts = (
        identify(params).facts,
        _llama_scope.identify(_llama_scope.LlamaScope(path=str(saes_path()))).facts,
    )
    load_ = Workload(samples=8, distinct=8, tokens=512, longest=64, model=facts[0], saes=facts[1])
    assert extraction(Extract(at="all"), load_).flops == pytest.approx(
        counted.get_total_flops(), rel=0.15
    )


SHOWN = ("play", "samples", "features", "together")
SPEC = """
version: 1
name: priced
model: {uses: huggingface, with: {path: "package:toolkit_lab/files/model"}}
saes: {uses: llama_scope, with: {path: "package:toolkit_lab/files/saes/Lab-LXR-4x", layers: 1-2}}
samples: {uses: games, from: {stage: play}}
stages:
  - id: play
    uses: play.games
    with: {game: {uses: slot_machine, with: {components: ["", G], modes: [variable]}}, reps: 6}
  - {id: features, uses: extract.activations, with: {at: all}}
sinks:
  - {name: all, uses: npz, with: {dense: true}}
"""


def _plan(
    path: Path, capsys: pytest.CaptureFixture[str], *options: str, spec: str = SPEC
) -> tuple[int, str, str]:
    (path / "priced.yaml").write_text(spec)
    code = 0
    try:
        main(["plan", str(path / "priced.yaml"), "--store", str(path / "store"), *options])
    except SystemExit as done:
        code = int(done.code or 0)
    output = capsys.readouterr()
    return code, output.out, output.err


def test_the_plan_shows_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = _plan(tmp_path, capsys)
    assert code == 0
    costs, _, bounds = output.partition("COSTS")[2].partition("AT MOST")
    assert [
        line.split()[:2] for line in bounds.splitlines() if line.partition(" ")[0] in SHOWN
    ] == [
        ["play", "1,200"],
        ["samples", "-"],
        ["features", "12"],
        ["together", "1,236"],
    ]
    assert [line.split()[:2] for line in costs.splitlines() if line.partition(" ")[0] in SHOWN] == [
        ["play", "72"],
        ["samples", "-"],
        ["features", "12"],
        ["together", "108"],
    ]
    assert "AT MOST: games go to their last round" in output
    code, output, _ = _plan(tmp_path, capsys, "--json")
    result = json.loads(output)
    costs = {row["stage"]: row["cost"] for row in result["stages"]}
    assert (costs["play"]["forwards"], costs["play"]["exact"], costs["play"]["known"]) == (
        1200,
        False,
        True,
    )
    assert (costs["features"]["forwards"], costs["features"]["exact"]) == (12, False)
    assert result["total"]["flops"] == sum(cost["flops"] for cost in costs.values())
    assert result["total"]["memory"] == max(cost["memory"] for cost in costs.values())
    totals = result["total"]["totals"]
    assert totals["dense_bytes"] == totals["dense_bytes_all_tokens"] == 12 * 256 * 2 * 512 * 4
    assert result["total"]["totals"]["text_bytes"] == 12 * 256 * 2 * 256 * 5 * 4


OF_A_FILE = """
version: 1
name: priced
model: {uses: huggingface, with: {path: "package:toolkit_lab/files/model"}}
saes: {uses: llama_scope, with: {path: "package:toolkit_lab/files/saes/Lab-LXR-4x", layers: 1-2}}
samples: {uses: csv, with: {path: d.csv, UNIT}}
limit: {units: LIMIT}
stages:
  - {id: features, uses: extract.activations, with: {at: all}}
"""


@pytest.mark.parametrize(
    ("unit", "limit", "forwards"),
    [("", 5, 5), ("", 90, 40), ("unit: unit", 5, 25), ("unit: unit", 20, 40)],
    ids=["rows", "all-rows", "units", "all-units"],
)
def test_a_limit_holds_for_files_and_a_file_is_read_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    unit: str,
    limit: int,
    forwards: int,
) -> None:
    """Of 20 units 15 are left out, and each has a row at least."""
    (tmp_path / "d.csv").write_text(
        "text,unit\n" + "".join(f"text {index},u{index // 2}\n" for index in range(40))
    )
    reads: list[Path] = []

    def read(path: Path, params: Any, plain: Any = _csv_file._rows) -> Any:
        reads.append(path)
        return plain(path, params)

    monkeypatch.setattr(_csv_file, "_rows", read)
    spec = OF_A_FILE.replace("UNIT", unit).replace("LIMIT", str(limit))
    _, output, _ = _plan(tmp_path, capsys, "--json", spec=spec)
    costs = {row["stage"]: row["cost"] for row in json.loads(output)["stages"]}
    assert costs["features"]["forwards"] == forwards
    assert reads == [tmp_path / "d.csv"]


def test_the_plan_refuses_what_the_disk_cannot_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10 << 20))
    code, output, error = _plan(tmp_path, capsys)
    assert code == 4
    assert "features" in output
    assert "sink 'all' would take about 0.0117 GiB in" in error
    assert "Leave out `dense`, or name a folder on a larger disk." in error


@pytest.mark.parametrize(
    ("layout", "at", "gib"),
    [
        ("configuration", "all", "0.0705"),
        ("layer", "last", "0.0117"),
        ("configuration", "last", None),
    ],
)
def test_an_export_is_refused_with_its_texts_and_all_the_tokens_that_it_has_rows_for(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    at: str,
    gib: str | None,
) -> None:
    """Of the last tokens alone the matrices are 49 KB; `layer` has a row for every token all the
    same.
    """
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10 << 20))
    spec = SPEC.replace("{at: all}", f"{{at: {at}}}").replace(
        "{dense: true}", f"{{dense: true, layout: {layout}}}"
    )
    code, _, error = _plan(tmp_path, capsys, spec=spec)
    assert code == (4 if gib else 0)
    assert gib is None or f"sink 'all' would take about {gib} GiB in" in error
