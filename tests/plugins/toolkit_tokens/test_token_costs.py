"""What tracking is forecast to store, against what the store then holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.plugins.toolkit_tokens.conftest import PARTS, run
from toolkit._plan.texts import workload
from toolkit.costs import Workload
from toolkit.ledger import StepRow
from toolkit.saes import Sparse
from toolkit_lab import model_path, saes_path
from toolkit_store import open_store
from toolkit_tokens.track.rows import Owner, TrackedText, activation_rows, attention_rows


def forecast(load: Workload, **params: Any) -> int:
    part = PARTS.get("stage", "track.tokens")
    return part.estimates.cost(part.params.model_validate(params), load).disk


def written(folder: Path, tables: Any) -> int:
    """Bytes of the tables in a store, and of what it derives to answer by feature."""
    store = open_store(folder / "store", create=True)
    row = StepRow(
        key="k" * 64, experiment="e", stage="tokens", part="track.tokens", part_version="1",
        run="r", index=0, material="{}", tables={}, worker="w", seconds=1.0,
        committed_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    store.commit(row, tables)
    store.index(["k" * 64])
    names = ("activations", "attention", "postings", "feature_index")
    return sum(
        file.stat().st_size
        for name in names
        for file in (folder / "store" / "tables" / f"{name}.lance").rglob("*")
        if file.is_file()
    )


@pytest.mark.parametrize("params", [{}, {"attention": {"top": 20}}])
def test_what_a_run_on_the_lab_stores(
    params: Any, lab: Any, lab_saes: Any, scenarios: Any, tmp_path: Path
) -> None:
    facts = []
    for kind, name, path in (
        ("model", "huggingface", model_path()),
        ("sae", "llama_scope", saes_path()),
    ):
        part = PARTS.get(kind, name)
        facts.append(SimpleNamespace(identity=part.identify(part.params(path=str(path)))))
    load = workload(scenarios["samples"], *facts)
    tables = run("stage", "track.tokens", params, scenarios, model=lab, saes=lab_saes)
    kept = {name: tables[name] for name in ("activations", "attention")}
    assert forecast(load, **params) == pytest.approx(written(tmp_path, kept), rel=0.1)


def test_rows_of_the_published_shape(tmp_path: Path) -> None:
    """Ten texts of 121 tokens, 32 heads and 32,768 features a layer, two layers of 31 written: the
    forecast of all 31 is so many times as much.
    """
    draw = np.random.default_rng(0)
    texts = [
        TrackedText(
            tuple(range(121)),
            (Owner(f"situation_{number}", tuple(range(1, 121)), tuple(range(121))),),
        )
        for number in range(10)
    ]
    activations, attention = [], []
    for layer in (1, 2):
        rows, active = 1200, 50
        numbers = np.sort([draw.choice(32768, active, replace=False) for _ in range(rows)])
        values = draw.exponential(1.0, rows * active).astype("float32")
        sparse = Sparse(
            torch.full((rows,), active), torch.tensor(numbers.ravel()), torch.tensor(values)
        )
        activations.append(activation_rows(f"space-{layer}", texts, sparse))
        scores = torch.tensor(draw.normal(0, 2, (121, 32, 121)).astype("float32"))
        scores[..., 0] += 4  # where heads rest
        hidden = torch.arange(121) > torch.arange(121)[:, None]
        weights = scores.masked_fill(hidden[:, None], -torch.inf).softmax(-1)
        attention += [attention_rows("m", layer, text, weights, None, True) for text in texts]
    tables = {
        "activations": pa.concat_tables(activations),
        "attention": pa.concat_tables(attention),
    }
    load = Workload(
        samples=10, distinct=10, tokens=1210, longest=121,
        model={"layers": 32, "heads": 32, "width": 4096},
        saes={"count": 31, "layers": list(range(1, 32)), "features": 31 * 32768, "l0": 31 * 50.0},
    )  # fmt: skip
    assert forecast(load) == pytest.approx(written(tmp_path, tables) * 31 / 2, rel=0.1)
