"""`extract.activations`: sparse features of every SAE from one pass over the distinct texts. No dense matrix outlives a chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.records import UNHASHED, Params, Rows, Work
from toolkit.saes import Sae, Sparse, space_id, space_row
from toolkit.streams import Pass, Text, distinct_texts, last_only, passes, without_bos
from toolkit.tables import arrow_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Extract(Params):
    """Where in the texts to look, and how much to do at once."""

    at: Literal["last", "all"] = Field("last", description="last: the last token; all: every token but BOS.")
    batch: int = Field(128, ge=1, description="Samples of one step.")
    tokens: int = Field(8192, ge=1, description="Padded tokens of one forward pass.", json_schema_extra=UNHASHED)


def extract(work: Work) -> Rows:
    """Rows of `activations`, one a space, sample and position, and the spaces they belong to."""
    import pyarrow as pa

    model, saes = work.model, list(work.saes)
    samples = work.inputs.read("samples").select(["sample", "token_ids"]).to_pylist()
    texts = distinct_texts(samples, last_only if work.params.at == "last" else without_bos(model))
    hookpoints = list(dict.fromkeys(sae.hookpoint for sae in saes))
    done = 0
    for found in passes(model, texts, hookpoints, work.params.tokens):
        yield from (("activations", rows) for rows in _rows(work, saes, found))
        done += sum(len(text.samples) for text in found.texts)
        work.report.progress(done, len(samples))
    spaces = [space_row(model.identity, sae) for sae in saes]
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


def _rows(work: Work, saes: Sequence[Sae], found: Pass) -> Iterator[pa.Table]:
    for sae in saes:
        yield _table(space_id(work.model.identity, sae), sae.sparse(found.rows[sae.hookpoint]), found.texts)


def _table(space: str, sparse: Sparse, texts: Sequence[Text]) -> pa.Table:
    """Arrow rows: those of a text once for each sample that has it."""
    import numpy as np
    import pyarrow as pa

    starts = np.cumsum([0, *(len(text.positions) for text in texts)])
    owners = [(name, at) for at, text in enumerate(texts) for name in text.samples]
    source = np.concatenate([np.arange(starts[at], starts[at + 1]) for _, at in owners])
    counts = sparse.counts.cpu().numpy()
    pick, offsets = _gather(counts, source)
    schema = arrow_schema("activations")
    columns: dict[str, Any] = {
        "space": pa.array([space] * len(source), pa.string()),
        "sample": pa.array([name for name, at in owners for _ in texts[at].positions], pa.string()),
        "position": pa.array([position for _, at in owners for position in texts[at].positions], pa.int32()),
        "features": _lists(offsets, sparse.features.cpu().numpy().astype("uint32")[pick], schema.field("features").type),
        "values": _lists(offsets, sparse.values.float().cpu().numpy()[pick], schema.field("values").type),
    }
    return pa.table(columns, schema=schema)


def _gather(counts: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Which entries make up the rows `source`, in order, and where each of these rows begins."""
    import numpy as np

    before = np.concatenate([[0], np.cumsum(counts)])
    offsets = np.concatenate([[0], np.cumsum(counts[source])])
    pick = np.repeat(before[source] - offsets[:-1], counts[source]) + np.arange(offsets[-1])
    return pick, offsets


def _lists(offsets: Any, values: Any, kind: pa.ListType) -> pa.Array:
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), type=kind)
