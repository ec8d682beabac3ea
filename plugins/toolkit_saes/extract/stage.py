"""`extract.activations`: sparse features of every SAE from one pass over the distinct texts. No
dense matrix outlives a chunk.

While the device computes a batch, another thread turns the one before into rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.costs import TOKENS
from toolkit.models.streams import Budget, Text, chosen_texts
from toolkit.parts import UNHASHED
from toolkit.saes import Sparse, space_id, space_row
from toolkit.samples.selectors import At, SelectorText, Where, selected
from toolkit.tables import arrow_schema, list_column
from toolkit.work import Rows, Work
from toolkit_saes.extract.columns import PassColumns
from toolkit_saes.extract.groups import BatchEncoder, EncodedBatch
from toolkit_saes.extract.streams import StreamRecorder, recorded_positions

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

AHEAD = 4
"""Tables that may be queued, so that the device is never far ahead of the writer."""


class Extract(At):
    """Which positions to encode, what to keep, and batch sizes."""

    stream: Where | None = Field(
        None,
        description="Positions, among those of `at`, at which the raw stream at the SAEs' "
        "hookpoints is stored too (table `streams`, 4 bytes per number), so that compare.probe "
        "and compare.residual need not load the model.",
    )
    batch: int = Field(
        128, ge=1, description="Samples per step; samples with equal tokens are in the same step."
    )
    tokens: int | Literal["auto"] = Field(
        "auto",
        description="Padded tokens per forward pass; auto: as many as fit in memory by the cost "
        "model.",
        json_schema_extra=UNHASHED,
    )


def written(params: Extract) -> tuple[str, ...]:
    """The tables that an extraction writes: streams only on request."""
    return ("activations", "spaces", *(("streams",) if params.stream is not None else ()))


def extract(work: Work) -> Rows:
    """Rows of `activations`, one per space, sample and position, with their spaces, and the raw
    stream where requested.
    """
    import pyarrow as pa

    model, saes = work.model, list(work.saes)
    samples = (
        work.inputs.read("samples").select(["sample", "token_ids", "pieces", "spans"]).to_pylist()
    )
    texts = chosen_texts(
        samples, lambda row: selected(work.params.at, SelectorText.of(row), model.bos_id)
    )
    budget = Budget(_tokens(work))
    recorder = StreamRecorder(model, recorded_positions(work.params, samples, model.bos_id))
    encoder = BatchEncoder(
        model,
        saes,
        budget,
        together=work.batch.get("together"),
        scratch=work.scratch,
        seen=recorder.take,
    )
    if samples and not texts:
        work.report.event("warning", text=_nothing_chosen(len(samples)))
    done = len(samples) - sum(len(text.samples) for text in texts)
    for batch, rows in _ahead(work, encoder, texts):
        yield "activations", rows
        yield from recorder.rows()
        if batch.last:
            done += sum(len(text.samples) for text in batch.texts)
            work.report.progress(done, len(samples))
    _report_summary(work, encoder, budget, len(samples))
    spaces = [space_row(model.identity, sae) for sae in saes]
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


def _nothing_chosen(samples: int) -> str:
    return (
        f"`at` chose no token in any of the {samples} samples of this step: it has no "
        "activations. Check that these texts have such tokens, spans or positions."
    )


def _tokens(work: Work) -> int:
    return int(
        work.batch.get("tokens", TOKENS) if work.params.tokens == "auto" else work.params.tokens
    )


def _report_summary(work: Work, encoder: BatchEncoder, budget: Budget, samples: int) -> None:
    """Report how much was encoded, and what was reduced for lack of memory."""
    summary = encoder.summary
    facts = {
        "samples": samples,
        "texts": summary.texts,
        "batches": summary.batches,
        "padded_tokens": summary.padded,
    }
    memory = {
        "halved": budget.halved,
        "saes_together": summary.together,
        "ways": list(summary.ways),
        "rows_at_once": summary.chunk,
    }
    work.report.event("extracted", **facts, passes=summary.passes, tokens=budget.tokens, **memory)


# --- rows -----------------------------------------------------------------------------------------


def _ahead(
    work: Work, encoder: BatchEncoder, texts: Sequence[Text]
) -> Iterator[tuple[EncodedBatch, pa.Table]]:
    """Tables in the order of the passes, built in a thread while the next pass runs."""
    owners = _Owners()
    waiting: deque[tuple[EncodedBatch, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(1) as helper:
        for batch in encoder.run(texts):
            space = space_id(work.model.identity, batch.sae)
            waiting.append(
                (batch, helper.submit(_table, space, batch.sparse, owners.of(batch.texts)))
            )
            while len(waiting) > AHEAD or (waiting and waiting[0][1].done()):
                done, table = waiting.popleft()
                yield done, table.result()
        for done, table in waiting:
            yield done, table.result()


class _Owners:
    """Caches the columns of the current pass, which every SAE needs."""

    def __init__(self) -> None:
        self._texts: Sequence[Text] | None = None
        self._columns: PassColumns | None = None

    def of(self, texts: Sequence[Text]) -> PassColumns:
        if self._columns is None or self._texts is not texts:
            self._texts, self._columns = texts, PassColumns(texts)
        return self._columns


def _table(space: str, sparse: Sparse, owners: PassColumns) -> pa.Table:
    """Arrow rows, with those of a text repeated for each of its samples."""
    import pyarrow as pa

    pick, offsets = _gather(sparse.counts.cpu().numpy(), owners.source)
    features, values = (
        sparse.features.cpu().numpy().astype("uint32"),
        sparse.values.float().cpu().numpy(),
    )
    schema = arrow_schema("activations")
    columns: dict[str, Any] = {
        "space": pa.array([space], pa.string()).take(pa.array([0] * len(owners.source))),
        "sample": owners.sample,
        "position": owners.position,
        "features": list_column(
            offsets, features if pick is None else features[pick], schema.field("features").type
        ),
        "values": list_column(
            offsets, values if pick is None else values[pick], schema.field("values").type
        ),
    }
    return pa.table(columns, schema=schema)


def _gather(counts: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """The entries of the rows `source`, in order (None for all), and the offsets of these rows."""
    import numpy as np

    if len(source) == len(counts) and (source == np.arange(len(counts))).all():
        return None, np.concatenate([[0], np.cumsum(counts)])
    before = np.concatenate([[0], np.cumsum(counts)])
    offsets = np.concatenate([[0], np.cumsum(counts[source])])
    pick = np.repeat(before[source] - offsets[:-1], counts[source]) + np.arange(offsets[-1])
    return pick, offsets
