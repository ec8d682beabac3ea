"""What tracking holds on the host: the rows of one layer of one batch, however many layers there
are. Tensors, which a GPU would hold, are not counted.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_tokens.conftest import PARTS
from toolkit.testing.fakes import make_work


def peak_of(name: str, params: dict[str, Any], tables: Any, **loaded: Any) -> tuple[int, int]:
    """The most bytes of arrays at a time (NumPy's by tracemalloc, Arrow's by its own count) while
    rows are taken and let go of, and the bytes of all rows together.
    """
    part = PARTS.get("stage", name)
    work = make_work(part.params.model_validate(params), tables, **loaded)
    gc.collect()
    bytes_before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        arrow = total = 0
        rows = part.run(work)
        for _, table in rows:
            total += table.nbytes
            arrow = max(arrow, pa.total_allocated_bytes() - bytes_before)
            del table
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before + arrow, total


@pytest.mark.slow
def test_attention_of_more_layers_takes_no_more(lab: Any, scenarios: Any) -> None:
    run_once = {"layers": "0"}
    peak_of("track.attention", run_once, scenarios, model=lab)  # what is imported on first use
    peak, of_one = peak_of("track.attention", run_once, scenarios, model=lab)
    every, of_every = peak_of("track.attention", {"layers": "all"}, scenarios, model=lab)
    assert of_every > 3.9 * of_one
    assert every < 1.2 * peak
    assert every < of_every / 2


@pytest.mark.slow
def test_features_of_more_saes_take_no_more(lab: Any, lab_saes: Any, scenarios: Any) -> None:
    params = {"attention": None}
    peak_of("track.tokens", params, scenarios, model=lab, saes=lab_saes[:1])
    peak, of_one = peak_of("track.tokens", params, scenarios, model=lab, saes=lab_saes[:1])
    every, of_every = peak_of("track.tokens", params, scenarios, model=lab, saes=lab_saes)
    assert of_every > 3.5 * of_one
    assert every < 1.25 * peak
