"""The runs of a store, and queries that span runs: `toolkit_store.open(folder).run().top(space,
2059)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import BadInput, choices, nearest
from toolkit.ledger import RunRow, StepRow
from toolkit_store.query.diff import common_spaces, diff_views
from toolkit_store.query.run_view import RunView, check_row_limit
from toolkit_store.store import Store, open_store

if TYPE_CHECKING:
    import polars as pl


def open_features(path: str | Path) -> Features:
    """Open a store for reading, or raise `StoreNotUsable`, which says what is there and
    what to do.
    """
    return Features(open_store(path, read_only=True))


class Features:
    """The runs of a store and their results."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def runs(self) -> list[RunRow]:
        """The latest state of each run, oldest first."""
        return self.store.run_states()

    def run(self, run_id: str | None = None, *, steps: Iterable[str] = ()) -> RunView:
        """A run, the newest by default. `steps` names more of its steps, for one that is running
        and uses steps of others.
        """
        states = {row.run: row for row in self.runs()}
        if not states:
            raise BadInput(f"{self.store.uri} holds no runs yet. Start one: toolkit run SPEC")
        name = next(reversed(states)) if run_id is None else run_id
        if name not in states:
            raise BadInput(
                f"There is no run '{name}' in {self.store.uri}.{nearest(name, states)} Runs: "
                f"{choices(states)}."
            )
        return RunView(self.store, states[name], self._steps(states[name], steps))

    def _steps(self, state: RunRow, more: Iterable[str]) -> list[StepRow]:
        """The steps of a run; for one that is not done, including those committed since its state
        was written.
        """
        keys = {*state.steps, *more}
        if state.state == "done":
            return self.store.steps(sorted(keys))
        return [row for row in self.store.steps() if row.key in keys or row.run == state.run]

    def diff(self, run_a: str, run_b: str, space: str) -> pl.DataFrame:
        """How often and how strongly each feature fired in two runs, the largest change of rate
        first. Features are only compared within one space, which both runs must have.
        """
        first, second = self.run(run_a), self.run(run_b)
        reason = common_spaces(first, second, [space]).left_out.get(space)
        if reason:
            raise BadInput(
                f"Runs {run_a} and {run_b} cannot be compared in space '{space}': {reason}."
            )
        return diff_views(first, second, [space])

    def sql(self, text: str, run_id: str | None = None, k: int | None = None) -> pl.DataFrame:
        """One SELECT over the tables of a run, in polars' SQL; with `k`, its first rows. It reads
        nothing else, and writes nothing.
        """
        return self.run(run_id).sql(text, k)

    def sql_of_all(self, text: str, k: int | None = None) -> pl.DataFrame:
        """One SELECT over the tables of all runs together, each with a column `run`. A row that two
        runs share appears once for each.
        """
        import polars as pl

        from toolkit_store.query.sql import select

        check_row_limit(k or 0)
        views = [self.run(row.run) for row in self.runs()]
        if not views:
            raise BadInput(f"{self.store.uri} holds no runs yet. Start one: toolkit run SPEC")

        def everywhere(name: str) -> pl.LazyFrame:
            parts = [view.lazy(name).with_columns(run=pl.lit(view.id)) for view in views]
            return pl.concat(parts)

        with self.store.reading():
            return select(text, everywhere, max_rows=k)
