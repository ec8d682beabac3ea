"""The examination: SAEs fit where they belong, and each usual mistake is found and named."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from toolkit.errors import DataError
from toolkit.saes import Sae, space_id
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter, TableInputs
from toolkit.testing.planted import Planted
from toolkit.work import Figure
from toolkit_lab import lab_files, saes_path
from toolkit_saes import toolkit_parts
from toolkit_saes.examine import stage as _examine
from toolkit_saes.examine.measurement import HIGH, LEAST_EV, LOW, SaeMeasurement, measure
from toolkit_saes.examine.section import figures, findings
from toolkit_saes.examine.stage import explain
from toolkit_saes.layouts.llama_scope import LlamaScope, load

PARTS = {part.name: part for part in toolkit_parts()}


def examined(world: Any, saes: Any, texts: Any = None) -> list[dict[str, Any]]:
    """Rows of `saes`."""
    results = dict(_examine.examine(world.work(saes, _examine.Examine(), texts)))
    return list(results["saes"].to_pylist())


def verdicts(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["site"]: row["verdict"] for row in rows}


def places(name: str) -> dict[str, Any]:
    """Settings of an SAE that reads and writes there."""
    return {"hook_point_in": name, "hook_point_out": name}


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., list[Any]]:
    """A layer of the lab's SAEs with other settings or tensors in its files."""

    numbers = itertools.count()

    def change(
        layer: int,
        tensors: Callable[[dict[str, torch.Tensor]], None] = lambda _: None,
        **settings: Any,
    ) -> list[Any]:
        name = f"Lab-L{layer}R-4x"
        folder = Path(shutil.copytree(saes_path() / name, tmp_path / str(next(numbers)) / name))
        known = json.loads((folder / "hyperparams.json").read_text())
        (folder / "hyperparams.json").write_text(json.dumps(known | settings))
        stored = load_file(folder / "checkpoints" / "final.safetensors")
        tensors(stored)
        save_file(stored, folder / "checkpoints" / "final.safetensors")
        return load(LlamaScope(path=str(folder.parent)), SilentReporter())

    return change


# --- what fits ------------------------------------------------------------------------------------


def test_contract(small: Any) -> None:
    work = small.work(small.saes(layers="1-2"))
    check_part(PARTS["examine.saes"], work=work)


@pytest.mark.parametrize("layout", ["llama_scope", "gemma_scope"])
def test_saes_fit_where_they_belong(small: Any, layout: str) -> None:
    saes = small.saes(layout)
    rows = examined(small, saes)
    rows_of_sae = [row for row in rows if row["verdict"] in ("fits", "does not fit")]
    assert [row["space"] for row in rows_of_sae] == [
        space_id(small.model.identity, sae) for sae in saes
    ]
    assert [(row["site"], row["verdict"], row["message"]) for row in rows_of_sae] == [
        (sae.hookpoint, "fits", "") for sae in saes
    ]
    assert [row["declared_l0"] for row in rows_of_sae] == [sae.declared_l0 for sae in saes]


def test_the_layers_beside_are_looked_at_too(small: Any) -> None:
    assert list(verdicts(examined(small, small.saes(layers=1)))) == [
        "resid_post.1",
        "resid_post.0",
        "resid_post.2",
    ]
    assert list(verdicts(examined(small, small.saes(layers=0)))) == ["resid_post.0", "resid_post.1"]
    assert list(verdicts(examined(small, small.saes(layers=3)))) == ["resid_post.3", "resid_post.2"]


@pytest.mark.slow
def test_the_lab_measures_what_it_states(lab: Any) -> None:
    stated = {
        row["sae"]: row for row in json.loads((lab_files() / "metrics.json").read_text())["saes"]
    }
    for layout in ("llama_scope", "gemma_scope"):
        saes = lab.saes(layout)
        rows = [
            row
            for row in examined(lab, saes)
            if row["verdict"] not in ("suits better", "suits worse")
        ]
        for sae, row in zip(saes, rows, strict=True):
            assert (row["site"], row["verdict"], row["message"]) == (sae.hookpoint, "fits", "")
            known = stated[
                f"L{sae.layer}" if layout == "llama_scope" else f"gemma_scope/{sae.name}"
            ]
            assert row["l0"] == pytest.approx(known["l0"], rel=0.2)
            assert row["explained_variance"] == pytest.approx(known["ev"], abs=0.02)
            assert row["cosine"] > 0.95
            assert row["tokens"] == sum(
                len(ids) - 1 for ids in {tuple(ids): ids for ids in lab.texts}.values()
            )


def test_the_planted_truth_is_measured(small: Any, planted: Planted) -> None:
    truth = planted.truth.sae("narrow", 2)
    row = next(
        row
        for row in examined(small, small.saes("gemma_scope", layers=2, l0=(9,)))
        if row["site"] == "resid_post.2"
    )
    assert row["l0"] == pytest.approx(truth.l0, rel=0.05)
    assert row["explained_variance"] == pytest.approx(truth.explained_variance, abs=0.02)
    assert 0 < row["dead_share"] < 1


def test_one_measure_against_a_plain_loop(small: Any) -> None:
    (sae,) = small.saes(layers=2)
    rows = small.model.run(small.texts[:1], ["resid_post.2"])["resid_post.2"][0, 1:]
    result = measure(sae, rows, chunk=7)
    features = sae.encode(rows).double()
    rebuilt, x = sae.decode(sae.encode(rows)).double(), rows.double()
    assert result.l0 == pytest.approx(float((features > 0).sum(1).double().mean()))
    spread = float((x - x.mean(0)).square().sum())
    assert result.explained_variance == pytest.approx(
        1 - float((x - rebuilt).square().sum()) / spread, abs=1e-6
    )
    assert result.cosine == pytest.approx(
        float(torch.cosine_similarity(x, rebuilt, dim=-1).mean()), abs=1e-6
    )
    assert result.dead_share == pytest.approx(1 - int((features > 0).any(0).sum()) / sae.width)
    assert result.tokens == len(rows)


def test_only_the_first_samples_are_looked_at(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_examine, "SAMPLES", 5)
    first, all_of_them = (
        examined(small, small.saes(layers=1), small.texts[:5]),
        examined(small, small.saes(layers=1)),
    )
    assert first == all_of_them


# --- what does not --------------------------------------------------------------------------------


def test_a_layer_off_by_one_is_named(lab: Any, changed: Callable[..., list[Any]]) -> None:
    """An SAE put one layer off may still explain much: only the neighbouring layer shows it."""
    for layer, claimed in ((1, 2), (2, 1), (3, 2)):
        saes = changed(layer, **places(f"blocks.{claimed}.hook_resid_post"))
        rows = examined(lab, saes, lab.texts[:8])
        assert verdicts(rows)[f"resid_post.{claimed}"] == "does not fit"
        assert verdicts(rows)[f"resid_post.{layer}"] == "suits better"
        message = rows[0]["message"]
        assert message.startswith(f"SAE Lab-L{layer}R-4x does not fit at resid_post.{claimed}: L0 ")
        assert re.search(
            rf"At resid_post\.{layer} it would: L0 2\d\.\d, explained variance 0\.9\d\. "
            rf"The layer is off "
            rf"by "
            rf"one\.$",
            message,
        )


def test_a_dropped_threshold_is_named(lab: Any, changed: Callable[..., list[Any]]) -> None:
    (row, *_) = examined(lab, changed(2, jump_relu_threshold=0.0), lab.texts[:8])
    assert row["verdict"] == "does not fit"
    assert row["l0"] > 3 * 24
    assert re.fullmatch(
        r"SAE Lab-L2R-4x does not fit at resid_post\.2: L0 \d+\.\d against 24 declared, "
        r"explained variance "
        r"\d\.\d\d \(at least "
        r"0\.5 "
        r"is expected\)\. Far too many features fire: the threshold is missing, or is in "
        r"other "
        r"units than the "
        r"activations\.",
        row["message"],
    )


def test_a_dropped_norm_is_named(lab: Any, changed: Callable[..., list[Any]]) -> None:
    """Run on inputs a tenth as long as those that the encoder was trained on."""
    (row, *_) = examined(
        lab, changed(2, lambda stored: stored["encoder.weight"].mul_(0.1)), lab.texts[:8]
    )
    assert row["verdict"] == "does not fit"
    assert row["l0"] < 24 / 3
    assert row["message"].endswith(
        "Far too few features fire: a norm factor is missing, so that its inputs are too "
        "small, or it belongs to another model."
    )


def test_an_sae_of_another_model_is_named(lab: Any, changed: Callable[..., list[Any]]) -> None:
    """Of the same size: the stream's axes mean something else there."""
    turn = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(0))).Q

    def turned(stored: dict[str, torch.Tensor]) -> None:
        stored["encoder.weight"] = (stored["encoder.weight"].float() @ turn).contiguous()
        stored["decoder.weight"] = (turn.T @ stored["decoder.weight"].float()).contiguous()

    rows = examined(lab, changed(2, turned), lab.texts[:8])
    assert rows[0]["verdict"] == "does not fit"
    assert "suits better" not in verdicts(rows).values()
    assert rows[0]["message"].endswith(
        ("it belongs to another model.", "it belongs to another model or site.")
    )


def test_an_sae_that_loses_too_much(small: Any, planted: Planted) -> None:
    saes = load(LlamaScope(path=str(planted.lossy)), SilentReporter())
    rows = examined(small, saes)
    assert rows[0]["explained_variance"] < 0.5
    assert rows[0]["verdict"] == "does not fit"
    assert rows[0]["message"].startswith(
        "SAE PlantedLossy-L1R-8x does not fit at resid_post.1: L0 "
    )
    assert rows[0]["message"].endswith(
        "It does not fit at the adjacent layers either: it belongs to another model or site."
    )


def test_an_sae_of_another_width(small: Any, lab: Any) -> None:
    with pytest.raises(
        DataError,
        match=r"input width 128, but the model's resid_post\.1 is 48 wide",
    ):
        examined(small, lab.saes(layers=1))


@pytest.mark.parametrize(
    ("at_hookpoint", "neighbour", "end"),
    [
        (SaeMeasurement(20, 0.9, 1, 0, 9), SaeMeasurement(20, 0.93, 1, 0, 9), ""),
        (
            SaeMeasurement(20, 0.9, 1, 0, 9),
            SaeMeasurement(20, 0.96, 1, 0, 9),
            "The layer is off by one.",
        ),
        (SaeMeasurement(20, 0.9, 1, 0, 9), SaeMeasurement(50, 0.96, 1, 0, 9), ""),
        (SaeMeasurement(7, 0.9, 1, 0, 9), SaeMeasurement(20, 0.4, 1, 0, 9), ""),
        (
            SaeMeasurement(6, 0.9, 1, 0, 9),
            SaeMeasurement(20, 0.4, 1, 0, 9),
            "or it belongs to another model.",
        ),
        (
            SaeMeasurement(61, 0.9, 1, 0, 9),
            SaeMeasurement(20, 0.4, 1, 0, 9),
            "in other units than the activations.",
        ),
        (
            SaeMeasurement(61, 0.4, 1, 0, 9),
            SaeMeasurement(20, 0.4, 1, 0, 9),
            "another model or site.",
        ),
        (
            SaeMeasurement(61, 0.4, 1, 0, 9),
            SaeMeasurement(20, 0.8, 1, 0, 9),
            "The layer is off by one.",
        ),
    ],
)
def test_where_the_limits_are(
    lab: Any, at_hookpoint: SaeMeasurement, neighbour: SaeMeasurement, end: str
) -> None:
    (sae,) = lab.saes(layers=1)
    sae.declared_l0 = 20
    message = explain(sae, at_hookpoint, {"resid_post.2": neighbour})
    assert message.endswith(end)
    assert bool(message) == bool(end)


def test_without_a_declared_l0_explained_variance_decides(lab: Any) -> None:
    (sae,) = lab.saes(layers=1)
    sae.declared_l0 = None
    assert explain(sae, SaeMeasurement(400, 0.6, 1, 0, 9), {}) == ""
    message = explain(sae, SaeMeasurement(400, 0.4, 1, 0, 9), {})
    assert message.startswith(
        "SAE Lab-L1R-4x does not fit at resid_post.1: L0 400.0, explained variance 0.40 (at least "
        "0.5 is expected)."
    )


@pytest.mark.parametrize("texts", [[[1]], [[1, 5]], [[1, 5], [1, 5]]])
def test_too_little_to_examine(small: Any, texts: list[list[int]]) -> None:
    with pytest.raises(DataError) as caught:
        examined(small, small.saes(layers=1), texts)
    assert str(caught.value) == (
        "examination of SAE Planted-L1R-8x: the first 64 samples give 1 tokens, all with the same "
        "stream, so that there is nothing to explain. Give more samples, or longer ones."
    )


def test_nothing_to_examine(small: Any) -> None:
    with pytest.raises(DataError, match="There are no samples to examine the SAEs on"):
        examined(small, small.saes(layers=1), [])


# --- the report -----------------------------------------------------------------------------------


def shown(saes: list[Any], rows: list[dict[str, Any]], names: dict[str, str]) -> list[Figure]:
    spaces = [
        {
            name: names[space] if name == "sae" else 1 if name == "width" else space
            for name in arrow_schema("spaces").names
        }
        for space in names
    ]
    tables = {
        name: pa.Table.from_pylist(rows_of_table, schema=arrow_schema(name))
        for name, rows_of_table in (("saes", rows), ("spaces", spaces))
    }
    check_part(PARTS["examination"], work=None)
    return list(figures(TableInputs(tables)))


def test_the_report_shows_a_misfit_and_where_it_would_fit(
    lab: Any, changed: Callable[..., list[Sae]]
) -> None:
    good, bad = lab.saes(layers=0), changed(1, **places("blocks.2.hook_resid_post"))
    rows = examined(lab, [*bad, *good], lab.texts[:8])
    names = {space_id(lab.model.identity, sae): sae.name for sae in [*good, *bad]}
    (figure,) = shown([*good, *bad], rows, names)
    assert figure.title == "1 of 2 SAEs fit"
    result = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', figure.html)
    assert result == [
        ("Lab-L0R-4x", "resid_post.0"),
        ("Lab-L1R-4x", "resid_post.2"),
        ("Lab-L1R-4x", "resid_post.1"),
        ("Lab-L1R-4x", "resid_post.3"),
    ]
    assert "The layer is off by one." in figure.html
    assert (LOW, HIGH, LEAST_EV) == (1 / 3, 3.0, 0.5)
    assert (
        "its L0 is between a third and three times the declared one, it explains at least half of "
        "the variance" in figure.html
    )


def test_the_report_escapes_names() -> None:
    row = dict.fromkeys(arrow_schema("saes").names, 0.0)
    row |= {
        "space": "s",
        "site": "<b>.1",
        "verdict": "does not fit",
        "message": "a<b",
        "declared_l0": None,
        "tokens": 12345,
    }
    (figure,) = shown([], [row], {"s": "<i>"})
    assert "<b>" not in figure.html
    assert "<i>" not in figure.html
    assert (
        '<th scope="row">&lt;i&gt;</th><td>&lt;b&gt;.1</td>'
        '<td class="number">0.0</td><td class="number">-</td>' in figure.html
    )
    assert ">12,345<" in figure.html


def test_nothing_examined_is_no_figure() -> None:
    assert shown([], [], {}) == []


# --- findings -------------------------------------------------------------------------------------


def measured(place: str, l0: float, explained: float, verdict: str = "fits") -> dict[str, Any]:
    row = dict.fromkeys(arrow_schema("saes").names, 0.0)
    return row | {
        "space": place,
        "site": place,
        "verdict": verdict,
        "message": "",
        "l0": l0,
        "explained_variance": explained,
        "declared_l0": None,
        "tokens": 1024,
    }


FINDINGS = [
    ([], None),
    (
        [measured("resid_post.2", 40, 0.8)],
        "The SAE fits this model: L0 40.0, explained variance 0.800, on 1,024 tokens.",
    ),
    (
        [
            measured("resid_post.2", 400, 0.1, "does not fit"),
            measured("resid_post.3", 4, 1, "suits"),
        ],
        "The SAE does not fit this model: L0 400.0, explained variance 0.100, on 1,024 tokens.",
    ),
    (
        [measured("resid_post.2", 40, 0.8), measured("resid_post.10", 55.25, 0.75)],
        "2 of 2 SAEs fit this model: L0 40.0 to 55.2, explained variance 0.750 to 0.800, on 1,024 "
        "tokens.",
    ),
    (
        [
            measured("resid_post.2", 40, 0.8),
            measured("resid_post.10", 400, 0.2, "does not fit"),
            measured("resid_post.3", 410, 0.3, "does not fit"),
        ],
        "1 of 3 SAEs fit this model; at resid_post.3, resid_post.10 they do not: L0 40.0 to 410.0, "
        "explained variance 0.200 to 0.800, on 1,024 tokens.",
    ),
]


@pytest.mark.parametrize(("rows", "sentence"), FINDINGS)
def test_the_examination_is_one_sentence(rows: list[Any], sentence: str | None) -> None:
    """SAEs that do not fit come first among findings, SAEs that fit last."""
    saes = pa.Table.from_pylist(rows, schema=arrow_schema("saes"))
    results = list(findings(TableInputs({"saes": saes})))
    assert [finding.sentence for finding in results] == ([] if sentence is None else [sentence])
    for finding in results:
        fit = sum(row["verdict"] == "fits" for row in rows)
        assert finding.n is None
        assert finding.number == fit / len(rows)
        assert finding.rank == (90 if finding.number == 1.0 else 10)
