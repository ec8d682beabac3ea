"""A step goes to a free worker that holds its model and SAEs, if there is one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from toolkit._run.workers import WorkerPool


def slot(
    loaded_key: str | None, *, job: str | None = None, started: bool = True, ended: bool = False
) -> SimpleNamespace:
    hello = object() if started else None
    return SimpleNamespace(hello=hello, job=job, ended=ended, loaded_key=loaded_key)


HOLDS_A, HOLDS_B, EMPTY = slot("A"), slot("B"), slot(None)


@pytest.mark.parametrize(
    ("slots", "chosen"),
    [
        ([HOLDS_B, EMPTY, HOLDS_A], HOLDS_A),
        ([HOLDS_B, EMPTY], EMPTY),
        ([HOLDS_B, slot("A", job="k")], HOLDS_B),
        ([slot("A", ended=True), slot("A", started=False), HOLDS_B], HOLDS_B),
        ([slot("A", job="k"), slot(None, started=False)], None),
        ([], None),
    ],
)
def test_the_worker_that_holds_the_model_comes_first_then_an_empty_one(slots, chosen) -> None:
    assert WorkerPool.idle(SimpleNamespace(slots=slots), "A") is chosen  # type: ignore[arg-type]
