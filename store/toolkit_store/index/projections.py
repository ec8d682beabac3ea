"""Compact projections of decoder rows, stored on request: `similar` then works without the SAE
files.

A row of a decoder is projected onto `dims` directions, orthogonal to each other and the same in
every store, and kept as that many bytes. Angles between rows come out with an error of about 1 /
sqrt(dims). The key of their step is made from the hash of the SAE's files, so that runs of the same
SAE share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput
from toolkit.ledger import StepRow
from toolkit.statistics.randomness import generator
from toolkit.tables import arrow_schema
from toolkit_store.derived_steps import PROJECTIONS_PART
from toolkit_store.filters import equals

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from toolkit_store.step_store import StepStore

DIMS = 512
_LAYOUT = "1"
DecoderRows = Callable[[int, int], "np.ndarray"]
"""Gives the decoder rows of the features from the first up to, not including, the last."""
_AT_ONCE = 1024
"""Features in a row of the table."""


def projection_key(sae_hash: str) -> str:
    """The key of the step with the projections of an SAE."""
    return f"projections:{hashlib.sha256(f'{_LAYOUT} {sae_hash}'.encode()).hexdigest()[:32]}"


def project(
    store: StepStore,
    space: str,
    sae_hash: str,
    width: int,
    rows: DecoderRows,
    dims: int | None = None,
    *,
    run: str = "",
) -> bool:
    """Store the projections of an SAE; False if they exist already. Existing ones of other `dims`
    are refused.
    """
    if dims is not None and not 8 <= dims <= 4096:
        raise BadInput(f"Projections have 8 to 4,096 numbers per feature, not {dims:,}.")
    stored = projected(store, sae_hash) if dims is not None else None
    if (
        dims is not None
        and stored is not None
        and stored.shape[1] != min(dims, rows(0, 1).shape[1])
    ):
        raise BadInput(
            f"{store.uri} has projections of this SAE with {stored.shape[1]:,} numbers per "
            f"feature, and {dims:,} were requested. Leave the number out to use them, or "
            "write the others to another store."
        )
    dims = dims or DIMS
    row = StepRow(
        key=projection_key(sae_hash),
        experiment="",
        stage="(projections)",
        part=PROJECTIONS_PART,
        part_version=_LAYOUT,
        run=run,
        index=0,
        material=json.dumps({"sae_hash": sae_hash, "dims": dims}),
        tables={},
        worker="store",
        seconds=0.0,
        committed_at=datetime.now(UTC).isoformat(),
    )
    return store.commit_derived([(row, {"projections": _blocks(space, width, rows, dims)})]) == 1


def projected(store: StepStore, sae_hash: str) -> np.ndarray | None:
    """One row of 8-bit numbers per feature, whose angles approximate those of the decoder's rows;
    None if they are not stored.
    """
    import numpy as np
    import pyarrow.compute as pc

    key = projection_key(sae_hash)
    if not store.index_steps([key]):
        return None
    with store.reading():
        rows = store.database.rows(
            "projections", equals("step", key), ["first", "dims", "directions"]
        )
    dims = rows["dims"][0].as_py()
    parts = pc.list_flatten(rows.sort_by("first")["directions"]).to_numpy()
    flat: np.ndarray = parts.reshape(-1, dims).astype(np.float32)
    return flat


def _blocks(space: str, width: int, rows: DecoderRows, dims: int) -> Iterator[pa.Table]:
    import pyarrow as pa

    basis: np.ndarray | None = None
    for first in range(0, width, _AT_ONCE):
        some = rows(first, min(first + _AT_ONCE, width))
        basis = _basis(some.shape[1], dims) if basis is None else basis
        projected = _as_bytes(some @ basis)
        columns: dict[str, Any] = {
            "space": [space],
            "first": [first],
            "dims": [projected.shape[1]],
            "directions": [projected.ravel()],
        }
        yield pa.table(columns, schema=arrow_schema("projections"))


def _basis(inputs: int, dims: int) -> np.ndarray:
    """Orthogonal directions as columns. As many as inputs give an exact projection."""
    import numpy as np

    if dims >= inputs:
        return np.eye(inputs, dtype=np.float32)
    drawn = generator(0, "store.projections", inputs, dims).standard_normal((inputs, dims))
    return np.asarray(np.linalg.qr(drawn)[0], np.float32)


def _as_bytes(rows: np.ndarray) -> np.ndarray:
    """Scale rows to whole numbers from -127 to 127; only directions matter."""
    import numpy as np

    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled: np.ndarray = np.rint(rows / np.where(largest == 0, 1, largest) * 127).astype(np.int8)
    return scaled
