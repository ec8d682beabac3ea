"""The run that a query reads: its committed rows, a batch of steps at a time, and the reason if
there are none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._query.text import Row
from toolkit.terminal import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit._run.progress import RunProgress
    from toolkit.ledger import RunRow, StepRow
    from toolkit_store import RunView, Store
    from toolkit_store.query.committed_rows import CommittedRows

BATCH_ROWS = 100_000
"""Rows read at a time: the activations of a large run do not fit in memory."""


@dataclass(frozen=True)
class Run:
    """The committed rows of one run."""

    id: str
    folder: Path
    store: Store
    steps: Sequence[StepRow]
    state: RunRow
    notes: Sequence[str] = ()
    """Notes for readers, such as that it is not done."""

    @cached_property
    def view(self) -> RunView:
        """The store's view of the run, which uses its index if there is one."""
        from toolkit_store import RunView

        return RunView(self.store, self.state, self.steps)

    def stages(self, table: str) -> dict[str, list[str]]:
        """Stage -> keys of its steps that wrote rows to `table`."""
        return self.rows.stages(table)

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a table, from all stages."""
        return self.store.read(
            table, [step.key for step in self.steps if step.tables.get(table)], columns
        )

    def batches(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of a table, the steps of about `BATCH_ROWS` rows at a time."""
        keys: list[str] = []
        count = 0
        for step in self.steps:
            if rows := step.tables.get(table):
                keys, count = [*keys, step.key], count + rows
            if count >= BATCH_ROWS:
                yield self.store.read(table, keys, columns)
                keys, count = [], 0
        if keys:
            yield self.store.read(table, keys, columns)

    @cached_property
    def rows(self) -> CommittedRows:
        """The rows of the run's steps."""
        from toolkit_store.query.committed_rows import CommittedRows

        return CommittedRows(self.store, self.steps)

    def read_stages(
        self,
        table: str,
        stage: str | None,
        where: Mapping[str, Sequence[Any]] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The rows of a table whose columns have one of the values in `where`, with a column
        `stage`; of one stage, if it is named.
        """
        self.check_stage(table, stage)
        return self.rows.by_stage(table, where, columns, stage)

    def check_stage(self, table: str, stage: str | None) -> None:
        """Refuse a stage that the run does not have."""
        from toolkit.errors import BadInput, choices, nearest

        if stage is not None and stage not in self.stages(table):
            known = {step.stage for step in self.steps} | {
                str(entry.get("id")) for entry in self.planned
            }
            if stage not in known:
                raise BadInput(
                    f"Run {self.id} has no stage '{stage}'.{nearest(stage, known)} Stages: "
                    f"{choices(known)}."
                )

    def texts(self, samples: Sequence[str]) -> list[Row]:
        """The rows of table `samples` for these samples."""
        rows: list[Row] = self.view.samples(samples).to_dicts()
        return rows

    def pieces(self, samples: Sequence[str]) -> dict[str, Row]:
        """Text and pieces of these samples, by name."""
        found = self.rows.samples(samples, ("sample", "text", "pieces"))
        return {row["sample"]: row for row in found.unique("sample", keep="first").to_dicts()}

    @cached_property
    def spaces(self) -> list[Row]:
        """The rows of `spaces`."""
        rows: list[Row] = self.read("spaces").to_pylist()
        return rows

    @cached_property
    def manifest(self) -> Row:
        """The run's record; empty when it cannot be read."""
        from toolkit._run.manifest import read_manifest
        from toolkit._run.run_folder import run_folder
        from toolkit.errors import BadInput

        try:
            return read_manifest(run_folder(self.folder, self.id))
        except BadInput:
            return {}

    @property
    def planned(self) -> list[Row]:
        """The stages of the manifest."""
        return list(self.manifest.get("stages") or ())

    @cached_property
    def _prefixes(self) -> dict[str, str]:
        from toolkit.features.addresses import prefixes

        return prefixes(self.spaces)

    def label(self, space: str, index: int) -> str:
        """The shortest address of a feature that can be typed back; `-` for rows about no
        feature.
        """
        return f"{self._prefixes.get(space, f'{space}:')}{index}" if space else "-"

    def feature(self, address: str) -> tuple[str, int]:
        """Space id and index of an address."""
        from toolkit.errors import BadInput
        from toolkit.features.addresses import locate, parse

        if not self.spaces:
            parse(address)
            raise BadInput(self.why("spaces"))
        space, index = locate(address, self.spaces)
        return str(space["space"]), index

    def spaces_of(self, name: str | None, layer: int | None) -> list[str] | None:
        """Ids of the spaces that `--space` and `--layer` select; None for all."""
        from toolkit.errors import BadInput, nearest
        from toolkit.features.addresses import at_layer

        if name is None and layer is None:
            return None
        rows = self.spaces if layer is None else at_layer(self.spaces, layer)
        results = [row for row in rows if name in (None, row["space"], row["address"])]
        if not results:
            known = [str(row["address"]) for row in rows]
            raise BadInput(
                f"Run {self.id} has no space '{name}'.{nearest(str(name), known)} Spaces: "
                f"{listing(known)}."
            )
        return [str(row["space"]) for row in results]

    def placed(self, table: pa.Table) -> pa.Table:
        """The table with a column `layer`, by which spaces are sorted."""
        import pyarrow as pa

        from toolkit.features.addresses import layer_of

        layers = {row["space"]: layer_of(row) for row in self.spaces}
        spaces = table["space"].combine_chunks().dictionary_encode()
        known = pa.array([layers.get(space) for space in spaces.dictionary.to_pylist()], pa.int64())
        return table.append_column("layer", known.take(spaces.indices))

    def sample(self, name: str) -> Row:
        """The sample of that id, or an error with the nearest."""
        from toolkit.errors import BadInput, nearest

        if rows := self.texts([name]):
            return rows[0]
        known = sorted(
            {
                id
                for batch in self.batches("samples", ("sample",))
                for id in batch["sample"].to_pylist()
            }
        )
        raise BadInput(
            f"Run {self.id} has no sample '{name}'.{nearest(name, known)} "
            f"It has {len(known):,}, such as {listing(known, 3)}."
        )

    def why(self, table: str, stage: str | None = None, where: str = "") -> str:
        """Why a table is empty, and which stage writes it."""
        writers = [entry for entry in self.planned if table in (entry.get("writes") or ())]
        head = f"Table '{table}' has no rows {where or f'in run {self.id}'}"
        if stage is not None and stage not in [entry.get("id") for entry in writers]:
            return f"{head}: stage '{stage}' does not write it. " + _writes(writers, table)
        if where or not writers:
            return f"{head}. " + (
                f"Stages that wrote some: {listing(list(self.stages(table)))}."
                if where
                else _writes([], table)
            )
        return (
            f"{head}: "
            + "; ".join(
                self._why_stage(entry) for entry in writers if stage in (None, entry.get("id"))
            )
            + "."
        )

    def _why_stage(self, entry: Mapping[str, Any]) -> str:
        done = sum(step.stage == entry.get("id") for step in self.steps)
        reason = (
            f"its {counted(done, 'committed step')} wrote none"
            if done
            else "it has committed no step yet"
        )
        return f"stage '{entry.get('id')}' ({entry.get('part')}) writes it and {reason}"


def _writes(writers: Sequence[Mapping[str, Any]], table: str) -> str:
    """Which stages write the table; if none does, which installed parts would."""
    from toolkit._plugins.loading import load_parts
    from toolkit.errors import PluginError
    from toolkit.parts import TablePart

    if writers:
        return (
            "Stages of this run that write it: "
            f"{', '.join(str(entry.get('id')) for entry in writers)}."
        )
    try:
        installed = [part for part in load_parts().all() if isinstance(part, TablePart)]
        parts = [part.name for part in installed if table in part.writes]
    except PluginError:  # committed rows can be read without the plugins
        return (
            "No stage of this run writes it. The parts that would cannot be listed; toolkit "
            "plugins says why."
        )
    return (
        "No stage of this run writes it. Parts that would: "
        f"{', '.join(parts) or 'none is installed'}."
    )


def open_run(where: str | None, name: str | None = None) -> Run:
    """The run whose id begins with `name`, else the newest of the store. For a run that is not
    done, the committed steps, with a note in `notes`.
    """
    from toolkit._run.run_folder import find_run, store_folder
    from toolkit.errors import BadInput
    from toolkit_store import open_store

    folder = store_folder(where)
    store = open_store(folder, read_only=True)
    states = store.run_states()
    if name is None and not states:
        raise BadInput(f"{folder} holds no runs yet. Start one: toolkit run SPEC")
    recorded = [row.run for row in states]
    run = run_of(store, recorded[-1] if name is None else find_run(folder, name, recorded), states)
    if name is None and len(states) > 1:
        return replace(run, notes=(f"run: {run.id}, the newest of {len(states)}", *run.notes))
    return run


def run_of(store: Store, name: str, states: Sequence[RunRow]) -> Run:
    """A run of an open store by its full id, with the steps that it has committed."""
    from toolkit._run.event_log import read_events
    from toolkit._run.progress import progress_of
    from toolkit._run.run_folder import run_folder

    progress = progress_of(read_events(run_folder(store.folder, name)))
    row = next((row for row in states if row.run == name), None)
    steps = store.steps(sorted({*(row.steps if row else ()), *progress.keys}))
    run = Run(name, store.folder, store, steps, row or _started(name, progress))
    state = state_of(row) if row else progress.state
    if state == "done":
        return run
    total = (row.total if row else None) or progress.planned
    note = f"partial: run {name} is {state}; {len(steps)} of {total or '?'} steps are committed"
    return replace(run, notes=(note,))


def state_of(row: RunRow) -> str:
    """The state of a run; `dead` if its process is gone although it is recorded as running."""
    return "dead" if row.state == "running" and not alive(row) else row.state


def alive(row: RunRow) -> bool:
    """Whether the process of a run's last row may still be running. On other hosts this is unknown,
    so the answer is yes.
    """
    import psutil

    if row.host != socket.gethostname() or row.pid == os.getpid():
        return True
    try:
        process = psutil.Process(row.pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _started(name: str, progress: RunProgress) -> RunRow:
    """The state of a run that has not recorded one yet."""
    from toolkit.ledger import RunRow

    return RunRow(
        run=name,
        seq=0,
        name=name,
        state=progress.state,
        at=progress.started,
        done=0,
        total=progress.planned,
        note="",
        steps=(),
        pid=0,
        host="",
    )


def only(table: pa.Table, column: str, values: Iterable[Any] | None) -> pa.Table:
    """The rows whose `column` is one of `values`; all rows for None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if values is None:
        return table
    return table.filter(
        pc.is_in(table[column], value_set=pa.array(list(values), table.schema.field(column).type))
    )


def sorted_by(table: pa.Table, order: Iterable[tuple[str, bool]]) -> pa.Table:
    """The sorted rows; True means ascending. Nulls come last either way, as in Arrow."""
    import pyarrow.compute as pc

    keys = [(name, "ascending" if up else "descending") for name, up in order]
    return table.take(pc.sort_indices(table, sort_keys=keys))


def first_rows(table: pa.Table, k: int) -> list[Row]:
    rows: list[Row] = table.slice(0, k).to_pylist()
    return rows


def listing(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "(none)") + more
