"""The explorer on a store of 9.9 M entries with 5.6 M statistics: times are printed, memory is
bounded. `benchmarks/view.py` makes the store and asks for the pages.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.browsing import CHROMIUM, IN_A_BROWSER
from tests.scripts import BENCHMARKS, load_benchmark

pytestmark = pytest.mark.timeout(1_800)
MOST_MEMORY = 1_024
"""MiB of resident memory, pages of files included, that the server may have at any time."""
QUESTIONS = 280
SLOWEST = 3_000
"""Milliseconds of a page or a click in the median."""


@pytest.fixture(scope="module")
def benchmark_view() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield load_benchmark("view")
        for name in ("_store_data", "_view_store"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def large_store(benchmark_view: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("large") / "store"
    benchmark_view.fill(folder, benchmark_view.SAMPLES)
    return folder


@pytest.mark.slow
def test_memory_is_bounded_over_many_different_questions(
    benchmark_view: ModuleType, large_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features, samples, runs, searches and files: memory stays below the bound, and does not grow
    once every kind of page has been asked for.
    """
    with capsys.disabled(), benchmark_view.served(large_store) as server:
        sizes = benchmark_view.ask_many(server, benchmark_view.SAMPLES, QUESTIONS)
    assert max(sizes) < MOST_MEMORY
    assert min(sizes[-3:]) < 1.25 * max(sizes[:5])


@IN_A_BROWSER[0]
@IN_A_BROWSER[1]
def test_first_paints_and_clicks_are_printed(
    benchmark_view: ModuleType, large_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every page is painted and every click arrives. The bounds leave room for a machine with other
    work; a page that ranks all features at each click exceeds them.
    """
    with capsys.disabled(), benchmark_view.served(large_store) as server:
        benchmark_view.get(server, f"/run/{benchmark_view.RUN}/features", {})
        paints, clicks = benchmark_view.measure_in_browser(
            server, benchmark_view.SAMPLES, 4, CHROMIUM
        )
    slow = {
        name: spent
        for times in (paints, clicks)
        for name, spent in times.items()
        if statistics.median(spent) > SLOWEST
    }
    assert slow == {}
