"""Running sinks: each file by atomic rename, never outside the sink's folder, with its hash in the
record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from toolkit._run.atomic import write_bytes
from toolkit._run.events import SinkWritten
from toolkit.errors import BadInput, DataError
from toolkit.work import ReportContents, RunInputs, SinkWork

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan, Sink
    from toolkit._run.inputs import StoreInputs


ContentsFor = Callable[[RunInputs], ReportContents]
"""Makes what a report of these tables shows."""


def check_sinks(plan: Plan) -> None:
    """Refuse a run whose sinks could not be written at its end."""
    for sink in plan.sinks:
        problem = sink.part.check(sink.params) if sink.part.check else None
        if problem:
            raise BadInput(f"sink '{sink.name}': {problem}")


def write_sinks(
    plan: Plan, inputs: StoreInputs, record: Mapping[str, Any], contents_for: ContentsFor
) -> Iterator[SinkWritten]:
    """Write every sink of the plan."""
    for sink in plan.sinks:
        folder = sink_folder(plan, sink)
        work = SinkWork(
            params=sink.params,
            folder=folder,
            run=plan.run,
            inputs=inputs,
            committed_at=inputs.newest(),
            record=record,
            report=lambda: contents_for(inputs),
        )
        hashes = {}
        try:
            for name, data in sink.part.run(work):
                hashes[name] = write_bytes(folder / _safe(name, sink.name), data)
        except OSError as error:
            raise DataError(
                f"sink '{sink.name}': {folder} cannot be written: {error.strerror or error}. Every "
                "step is safe; make room or change the sink's path, then continue with the same "
                "command."
            ) from error
        yield SinkWritten(sink=sink.name, folder=str(folder), hashes=hashes)


def sink_folder(plan: Plan, sink: Sink) -> Path:
    """The sink's folder, resolved against that of the spec."""
    return (plan.loaded.path.parent / sink.params.path).resolve()


def _safe(name: str, sink: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DataError(
            f"sink '{sink}' wants to write '{name}', outside its folder. A sink names files inside "
            "its folder."
        )
    return path
