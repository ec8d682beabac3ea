"""Faults of an object store that pass: a command goes on, and nothing is there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from toolkit.errors import StoreError
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, lance, open_store
from toolkit_store.database import Database
from toolkit_store.lance import LanceFault, repeated

CUT = "lance error: LanceError(IO): Generic S3 error: Error getting list response body: HTTP error"
BUSY = "LanceError(IO): Server returned non-2xx status code: 503 Service Unavailable: SlowDown"
LATE = "LanceError(IO): HTTP error: operation timed out"
DENIED = "LanceError(IO): Server returned non-2xx status code: 403 Forbidden"
ROWS = pa.Table.from_pylist(
    [{"space": "A", "sample": "s", "position": 0, "features": [1], "values": [1.0]}],
    arrow_schema("activations"),
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "PAUSE_SECONDS", 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path / "store", create=True)
    made.commit(make_step("first"), {"activations": ROWS})
    return made


class Failing:
    """A method that does its work and then fails the first `times` times."""

    def __init__(self, method: Callable[..., Any], text: str, times: int = 1) -> None:
        self._method, self._text, self.left, self.calls = method, text, times, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        result = self._method(*args, **kwargs)
        if self.left:
            self.left -= 1
            raise RuntimeError(self._text)
        return result


@pytest.mark.parametrize("text", [CUT, BUSY, LATE])
def test_a_call_is_repeated_until_the_fault_has_passed(text: str) -> None:
    call = Failing(lambda: 7, text, times=3)
    assert repeated(call) == 7
    assert call.calls == 4


def test_another_fault_is_not_repeated() -> None:
    call = Failing(lambda: 7, DENIED)
    with pytest.raises(LanceFault, match="403 Forbidden"):
        repeated(call)
    assert call.calls == 1


def test_a_fault_that_stays_is_raised_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "PATIENCE_SECONDS", 0.05)
    call = Failing(lambda: 7, BUSY, times=1_000_000)
    with pytest.raises(LanceFault, match="503"):
        repeated(call)
    assert 1 < call.calls <= 50


def fail_after(monkeypatch: pytest.MonkeyPatch, method: str, name: str) -> Failing:
    """Let the first call of a method of LanceDB's tables, for the table of a name, fail after it
    has succeeded.
    """
    done = Database._table
    failing = Failing(lambda call, *args, **kwargs: call(*args, **kwargs), CUT)

    class Table:
        def __init__(self, table: Any) -> None:
            self._table = table

        def __getattr__(self, attribute: str) -> Any:
            found = getattr(self._table, attribute)
            return (lambda *a, **k: failing(found, *a, **k)) if attribute == method else found

    def table(self: Database, wanted: str) -> Any:
        found = done(self, wanted)
        return Table(found) if wanted == name and found is not None else found

    monkeypatch.setattr(Database, "_table", table)
    return failing


@pytest.mark.parametrize("name", ["activations", "steps"])
def test_a_commit_whose_answer_is_lost_is_there_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    failing = fail_after(monkeypatch, "add", name)
    assert store.commit(make_step("second"), {"activations": ROWS})
    assert failing.left == 0
    assert store.read("activations", ["first", "second"]).num_rows == 2
    assert [row.key for row in store.steps()] == ["first", "second"]
    assert store.check().problems == []


def test_rows_that_can_be_read_once_are_not_written_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows() -> Iterator[pa.Table]:
        yield ROWS

    fail_after(monkeypatch, "add", "activations")
    with pytest.raises(StoreError, match="issue the same command again"):
        store.commit(make_step("second"), {"activations": rows()})
    assert store.commit(make_step("second"), {"activations": rows()})
    assert store.read("activations", ["second"]).num_rows == 1


def test_a_state_of_a_run_is_recorded_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.record_run(run="r", name="n", state="running")
    failing = fail_after(monkeypatch, "add", "runs")
    store.record_run(run="r", name="n", state="done")
    assert failing.left == 0
    rows = store.database.rows("runs", None, ["seq", "state"]).to_pylist()
    assert sorted((row["seq"], row["state"]) for row in rows) == [(1, "running"), (2, "done")]
