"""Benchmarks run in small: that for GPUs also on a CPU, where it says that nothing was measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONSAFEPATH": "",
}
"""What a benchmark runs with: no GPU, no network, and the modules of its folder, which
PYTHONSAFEPATH would hide."""
pytestmark = pytest.mark.slow


def printed_by(name: str, *options: str) -> str:
    """What `benchmarks/NAME.py` prints."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *options],
        env={**os.environ, **VARIABLES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tiny_goes_through_every_step() -> None:
    printed = printed_by("gpu", "--tiny", "--prompts", "10")
    assert "10 prompts" in printed
    assert "10 forwards" in printed
    assert "20 rows written" in printed
    assert "bfloat16 product's" in printed


def test_the_screen_of_a_whole_model_in_small() -> None:
    printed = printed_by("gpu", "patch", "--tiny")
    assert "8,192 edits of 1,024 features, 2 prompts of 300 tokens, 4 arms" in printed
    assert "share of the floor" in printed


def test_without_a_gpu_it_says_so() -> None:
    assert printed_by("gpu") == (
        "no GPU here: nothing was measured. `--tiny` runs the same on the CPU, at a size that says "
        "nothing.\n"
    )


def test_the_cost_of_a_step_is_measured_over_a_run() -> None:
    """Small, its figures say nothing; the columns and the ratio are there."""
    lines = printed_by("steps", "--tiny").splitlines()
    assert lines[0].startswith("40 steps, 2 workers")
    assert len(lines) == 16
    assert "last tenth / first:" in lines[-1]


def test_every_way_to_play_is_gone_through() -> None:
    """Small, its figures say nothing; each way is timed or says why not."""
    printed = printed_by("play", "--tiny", "--games", "2")
    lines = [line.split() for line in printed.splitlines() if line]
    for way in ("study", "padded", "padded_all", "continuous", "ours"):
        assert sum(line[0] == way and "games/s" in line for line in lines) == 3
    assert sum(line[0] == "ours" and "prefill" in line for line in lines) == 3


def test_play_at_the_shape_of_a_large_model_goes_through_both_designs() -> None:
    """Small, its figures say nothing."""
    terse, reasoned = printed_by("gpu", "play", "--tiny", "--games", "3").splitlines()
    assert terse.startswith("terse: 3 games, ")
    assert reasoned.startswith("reasoned: 3 games, ")
    for line in (terse, reasoned):
        assert "tokens/s (best published offline rate at 8B on an H100: 16,000)" in line
        assert "6,400 games: " in line


def test_the_words_of_a_layer_are_counted() -> None:
    """Small, its figures say nothing; each piece of work is timed."""
    lines = printed_by("words", "--tiny").splitlines()
    assert lines[0] == "400 replies, 512 features, 60 words, 3 rounds"
    assert [line.split("  ")[1] for line in lines if line.endswith(" s")] == [
        "every pair of feature and word, tested and corrected",
        "TF-IDF as published",
        "tokens at either end",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("patch", ("us an edit", "x the floor", "largest relative error")),
        ("planted_nulls", ("of 6 null screens", "planted causes found")),
        ("view", ("token of a sample", "memory at the end: ")),
    ],
)
def test_benchmarks_run_in_small(name: str, words: tuple[str, ...]) -> None:
    printed = printed_by(name, "--tiny")
    assert all(word in printed for word in words)


def test_the_store_is_asked_beside_readers() -> None:
    """Small, its figures say nothing; every question is asked alone and during other reads."""
    lines = printed_by("store", "--tiny", "--readers", "2").splitlines()
    questions = [line for line in lines if line.startswith("features firing in >= 100 samples")]
    assert len(questions) == 2
    assert sum("2 other readers" in line for line in lines) == 1


def test_every_way_to_track_tokens_is_gone_through() -> None:
    """Small, its figures say nothing; each way is timed, or is not installed."""
    lines = printed_by("tokens", "--tiny").splitlines()
    assert lines[0] == "2 prompts, 4 layers, 4 tracked, 1 round(s)"
    assert [line.split()[0] for line in lines[1:4]] == ["ours", "eager", "saelens"]
    assert [line.split(":")[0] for line in lines[6:8]] == ["ours / eager", "rows / none"]
    check_bytes(lines[8:])


def check_bytes(lines: Sequence[str]) -> None:
    """These figures are the same in small: within 10 % at 8B and on the packaged model."""
    names = [line.partition(":")[0] for line in lines]
    assert names == [
        "10 situations x 31 layers at 8B (2 written, scaled up)",
        "the same spec on the packaged model",
    ]
    for line in lines:
        forecast, written, ratio = (
            float(number.replace(",", ""))
            for number in re.findall(r"[\d,.]*\d", line.partition(": ")[2])
        )
        assert ratio == pytest.approx(forecast / written, abs=1e-3)
        assert ratio == pytest.approx(1, abs=0.1)


def test_scaling_in_small_prints_all_of_it() -> None:
    printed = printed_by("scaling", "--tiny")
    assert "2 workers, steps of 0.1 s: efficiency" in printed
    assert "40 empty steps on 2 workers:" in printed
    assert printed.count("   1000   ") == 2


def test_the_simulation_of_the_page_on_scaling_is_what_it_computes() -> None:
    page = BENCHMARKS.parent / "docs" / "explanation" / "scaling.md"
    assert f"```\n{printed_by('scaling', '--host', '0.005')}```" in page.read_text(encoding="utf-8")


def test_charts_are_drawn_in_every_way() -> None:
    """Small, only the size of the scripts says something."""
    lines = [line.split() for line in printed_by("charts", "--tiny").splitlines()]
    assert lines[0][0] == "Vega"
    assert [line[0] for line in lines[2:]] == [
        name for name in ("volcano", "histogram", "heatmap") for _ in range(3)
    ]
    assert all(line[-2] == "1.0" for line in lines[2::3])
    assert all(float(line[-2]) > 1 for line in lines[3::3])
