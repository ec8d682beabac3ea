"""The store that the pages show. Its runs are opened once and kept until they change."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit._view.cache import AnswerCache
from toolkit.errors import BadInput, ToolkitError, nearest

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.ranking import RankedLines
    from toolkit._query.run import Run
    from toolkit._query.tested import TestedFeatures
    from toolkit._run.progress import RunProgress
    from toolkit.ledger import RunRow
    from toolkit.work import Figure, Finding

OPEN_RUNS = 8
"""How many opened runs are kept: the most recently used. One keeps the directories of its index,
about 10 MB for 31 SAEs of 16,384 features.
"""
CACHE_BYTES = 128 << 20
"""The most bytes of kept answers: rankings, volcanoes and tables."""
FINDINGS = 64
"""How many runs' findings are kept."""
PAGE_ROWS = 100
"""Rows on one page of a list."""
MAX_CHANGES = 1_000
"""The most features whose change between two runs is shown."""
PREPARED = 4
"""How many comparisons of a run are prepared."""


class Library:
    """A store, opened read-only. One request at a time makes a page, the one that holds `lock`.
    Findings, features that fire together and files, which take longest, are read meanwhile, each
    kind under a lock of its own.
    """

    def __init__(self, folder: Path, *, prepares: bool = False) -> None:
        """With `prepares`, what the pages of a run need is computed before it is asked for."""
        from toolkit_store import open_store

        self.folder, self.prepares = folder, prepares
        self.store = open_store(folder, read_only=True)
        self.lock = threading.RLock()
        self.answers = AnswerCache(CACHE_BYTES)
        self._runs = AnswerCache(OPEN_RUNS)
        self._findings = AnswerCache(FINDINGS)
        self._findings_lock = threading.Lock()
        self._coactive_lock = threading.Lock()
        self._preparing = threading.Lock()
        self.download_lock = threading.Lock()

    @property
    def uri(self) -> str:
        """The location of the store."""
        return self.store.uri

    def states(self) -> Sequence[RunRow]:
        """The latest state of each run, oldest first."""
        return self.store.run_states()

    def run(self, name: str) -> Run:
        """A run by its full id. A run in progress is opened again once it has changed."""
        from toolkit._query.run import run_of
        from toolkit._run.run_folder import run_folder, run_ids

        states = self.states()
        ids = {*run_ids(self.folder), *(row.run for row in states)}
        if name not in ids:
            raise BadInput(
                f"There is no run '{name}' in this store.{nearest(name, ids)} Choose one from the "
                "first page."
            )
        state = next((row for row in states if row.run == name), None)
        journal = run_folder(self.folder, name) / "events.jsonl"
        size = journal.stat().st_size if journal.exists() else 0
        key = ("run", name, state and (state.seq, state.state), size)
        opened: Run = self._runs.get(key, lambda: run_of(self.store, name, states), _one)
        return opened

    def step_keys(self, state: RunRow) -> Collection[str]:
        """The keys of a run's steps, without opening it if it is done."""
        if state.state == "done":
            return frozenset(state.steps)
        return frozenset(step.key for step in self.run(state.run).steps)

    def progress(self, name: str) -> RunProgress:
        """The progress of a run."""
        from toolkit._run.event_log import read_events
        from toolkit._run.progress import progress_of
        from toolkit._run.run_folder import run_folder

        return progress_of(read_events(run_folder(self.folder, self.run(name).id)))

    def findings(self, run: Run) -> Sequence[Finding]:
        """The findings of a run, as its report states them."""
        from toolkit._plugins.loading import load_parts
        from toolkit._report.findings import findings_of
        from toolkit._run.inputs import StoreInputs

        def read() -> Sequence[Finding]:
            with self._findings_lock:
                return findings_of(StoreInputs(self.store, {"": run.steps}), load_parts())

        results: Sequence[Finding] = self._findings.get((run.id, len(run.steps)), read, _one)
        return results

    def is_ranked(self, run: Run, by: str | None) -> bool:
        """Whether the order of a run's features is kept."""
        return ("ranking", run.id, len(run.steps), by) in self.answers

    def ranking(self, run: Run, by: str | None) -> RankedLines:
        """The order of a run's features, by a statistic if it is named."""
        from toolkit._query.ranking import rank

        key = ("ranking", run.id, len(run.steps), by)
        ranking: RankedLines = self.answers.get(
            key, lambda: rank(run, None, {}, by), lambda answer: answer.lines.estimated_size()
        )
        return ranking

    def ranked(self, run: Run, layer: int | None, stage: str | None, by: str | None) -> RankedLines:
        """The part of a ranking for a layer or a stage."""
        from toolkit._query import answers

        ranking = self.ranking(run, by)
        return answers.ranked_lines(run, run.spaces_of(None, layer), stage, by, ranking)

    def features(
        self, run: Run, layer: int | None, stage: str | None, by: str | None, significant: bool
    ) -> pl.DataFrame:
        """The first features of a run, ranked."""
        from toolkit._query import answers

        ranked = self.ranked(run, layer, stage, by)
        chosen = ranked.significant() if significant else ranked
        lines = chosen.rows(0, PAGE_ROWS)
        names = tuple(tuple(line.values()) for line in lines)
        key = ("features", run.id, len(run.steps), stage, by, ranked.compared, names)
        table: pl.DataFrame = self.answers.get(
            key, lambda: answers.features_of(run, ranked, lines, stage, by), _bytes
        )
        return table

    def changes(self, first: Run, second: Run, spaces: Sequence[str]) -> pl.DataFrame:
        """The features that fire more or less often in the second of two runs, the largest change
        first.
        """
        import polars as pl

        from toolkit_store.query.diff import COLUMNS, diff_views

        def read() -> pl.DataFrame:
            if not spaces:
                return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.String))
            changes = diff_views(first.view, second.view, spaces, MAX_CHANGES)
            return changes.filter(pl.col("change") != 0)

        key = ("changes", first.id, len(first.steps), second.id, len(second.steps))
        changes: pl.DataFrame = self.answers.get(key, read, _bytes)
        return changes

    def coactive(self, run: Run, space: str, feature: int, k: int) -> pl.DataFrame:
        """The first k features that fire with one. All postings of its space are read, for one
        feature at a time.
        """

        def read() -> pl.DataFrame:
            with self._coactive_lock:
                return run.view.coactive(space, feature, k)

        key = ("coactive", run.id, len(run.steps), space, feature, k)
        coactive: pl.DataFrame = self.answers.get(key, read, _bytes)
        return coactive

    def labels(self, run: Run) -> pl.DataFrame:
        """The labels of a run's features, for the search."""
        from toolkit._query import answers

        key = ("labels", run.id, len(run.steps))
        labels: pl.DataFrame = self.answers.get(key, lambda: answers.all_labels(run), _bytes)
        return labels

    def is_drawn(self, run: Run, comparison: str) -> bool:
        """Whether the volcano of a comparison is kept, and the features that it tested."""
        return all(
            (kind, run.id, len(run.steps), comparison) in self.answers
            for kind in ("tested", "volcano")
        )

    def tested(self, run: Run, comparison: str, effect: str) -> TestedFeatures:
        """The features that a comparison tested."""
        from toolkit._query.tested import tested_features

        key = ("tested", run.id, len(run.steps), comparison)
        tested: TestedFeatures = self.answers.get(
            key,
            lambda: tested_features(run, comparison, effect),
            lambda answer: answer.rows.estimated_size(),
        )
        return tested

    def volcano(
        self, tested: TestedFeatures, comparison: str, effect: str, alpha: float
    ) -> tuple[Figure | None, int]:
        """The volcano of a comparison, and how many features it shows."""
        import polars as pl

        from toolkit._view import charts

        def draw() -> tuple[Figure | None, int]:
            known = pl.col("q").is_not_null() & pl.col(effect).is_not_null()
            rows = tested.named(tested.rows.filter(known).head(charts.MAX_POINTS))
            columns = (rows[name] for name in ("address", effect, "q", "significant"))
            points = [
                charts.VolcanoPoint(address, size, q, significant == 1)
                for address, size, q, significant in zip(*columns, strict=True)
            ]
            return (charts.volcano(points, alpha, effect) if points else None), len(points)

        key = ("volcano", tested.run.id, len(tested.run.steps), comparison)
        volcano: tuple[Figure | None, int] = self.answers.get(
            key, draw, lambda answer: len(answer[0].html) if answer[0] else 0
        )
        return volcano

    def prepare(self, run: Run) -> None:
        """Compute in the background what the pages about all features of a run need, unless that is
        kept or another run is being prepared.
        """
        key = ("prepared", run.id, len(run.steps))
        if not self.prepares or key in self.answers or not run.stages("features"):
            return
        if self._preparing.acquire(blocking=False):
            threading.Thread(target=self._prepare, args=(run,), name="prepare").start()

    def _prepare(self, run: Run) -> None:
        key = ("prepared", run.id, len(run.steps))
        try:
            self.answers.get(key, lambda: True, _one)
            self.features(run, None, None, None, False)
            self.labels(run)
            rows = run.read_stages("comparisons", None, None, ("comparison", "effect", "alpha"))
            for row in rows.to_pylist()[:PREPARED]:
                effect = row["effect"] or "d"
                tested = self.tested(run, row["comparison"], effect)
                self.volcano(tested, row["comparison"], effect, row["alpha"])
        except ToolkitError:
            pass  # the page that needs it says what is wrong
        finally:
            self._preparing.release()


def _bytes(frame: pl.DataFrame) -> int:
    """The size of a table in memory."""
    return int(frame.estimated_size())


def _one(answer: object) -> int:
    """The size of an answer in a cache that counts answers."""
    return 1
