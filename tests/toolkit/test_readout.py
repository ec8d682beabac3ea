"""Readouts in tiles are what the whole vocabulary gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from toolkit.models.readout import read_out

STATES = torch.randn((9, 5), generator=torch.Generator().manual_seed(1))
HEAD = torch.randn((5, 41), generator=torch.Generator().manual_seed(2)) * 4


def tiles(size: int, seen: list[tuple[int, int]] | None = None):
    def give(states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        for first in range(0, 41, size):
            tile = states @ HEAD[:, first : first + size]
            if seen is not None:
                seen.append(tuple(tile.shape))
            yield first, tile

    return give


@pytest.mark.parametrize("size", [1, 7, 40, 41])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_tiles_give_what_the_whole_gives(size: int, rows: int) -> None:
    base = STATES[3]
    result = read_out(tiles(size), STATES, [40, 0, 17], base, rows)
    logits = (STATES @ HEAD).double()
    logp, plain = logits.log_softmax(-1), (base @ HEAD).double().log_softmax(-1)
    torch.testing.assert_close(result.logits, logits[:, [40, 0, 17]], rtol=0, atol=1e-5)
    torch.testing.assert_close(result.normaliser, logits.logsumexp(-1), rtol=0, atol=1e-5)
    assert result.kl is not None
    expected = (plain.exp() * (plain - logp)).sum(-1)
    torch.testing.assert_close(result.kl, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        result.probabilities(), logp[:, [40, 0, 17]].exp(), atol=1e-6, rtol=0
    )
    assert float(result.kl[3]) < 1e-6


def test_nothing_as_large_as_rows_times_vocabulary_is_made() -> None:
    seen: list[tuple[int, int]] = []
    read_out(tiles(7, seen), STATES, [0], STATES[0], 2)
    assert max(rows * columns for rows, columns in seen) <= 14


def test_large_logits_do_not_overflow() -> None:
    def give(states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        yield 0, torch.full((len(states), 2), -1e4)
        yield 2, torch.full((len(states), 2), 3e4)

    result = read_out(give, STATES, [2], STATES[0])
    assert bool(result.normaliser.isfinite().all())
    torch.testing.assert_close(
        result.probabilities(), torch.full((9, 1), 0.5, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_no_states_are_no_readout() -> None:
    result = read_out(tiles(7), STATES[:0], [1, 2], STATES[0])
    assert result.logits.shape == (0, 2)
    assert result.normaliser.shape == (0,)
    assert result.kl is not None
    assert result.kl.shape == (0,)
