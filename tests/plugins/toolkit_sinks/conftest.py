"""What the tests of the sinks share: rows of small tables, and what a sink writes of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toolkit.parts import SinkPart
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs
from toolkit.work import SinkWork
from toolkit_sinks import toolkit_parts

SINKS = {part.name: part for part in toolkit_parts() if isinstance(part, SinkPart)}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(name))


def space(name: str, address: str, width: int = 6) -> dict[str, Any]:
    """A row of `spaces`."""
    facts = {
        "space": name,
        "address": address,
        "width": width,
        "hookpoint": "resid_post.1",
        "recipe": "relu",
    }
    return {**facts, "model": "m", "revision": "1", "sae": "x", "sae_hash": "h"}


def sample(name: str, pieces: Sequence[str]) -> dict[str, Any]:
    """A row of `samples`, its first token a span."""
    facts = {
        "sample": name,
        "unit": name,
        "cluster": name,
        "text": "".join(pieces),
        "prompt_hash": name,
    }
    return {
        **facts,
        "token_ids": list(range(len(pieces))),
        "pieces": list(pieces),
        "spans": [{"name": "balance", "start": 0, "end": 1}],
        "bos": None,
    }


def active(space: str, sample: str, position: int, **values: float) -> dict[str, Any]:
    """A row of `activations`; f3=1.5 says that feature 3 is 1.5."""
    features = [int(name[1:]) for name in values]
    return {
        "space": space,
        "sample": sample,
        "position": position,
        "features": features,
        "values": list(values.values()),
    }


ACTIVATIONS = (
    active("s1", "b", 0, f0=0.25),
    active("s1", "a", 1, f2=1.5, f5=2.5),
    active("s1", "a", 0),
    active("s2", "a", 0, f1=4.0),
)
SPACES = (space("s1", "org/m/resid_post.1/sae: x"), space("s2", "org/m/resid_post.2/x"))
FEATURES = [
    {
        "space": "s",
        "feature": feature,
        "stat": "mean",
        "group": group,
        "number": 0.5,
        "text": None,
        "comparison": None,
    }
    for feature, group in ((10, "a"), (2, "b"), (2, "a"))
]


SAMPLES = (sample("a", ["Bal", "ance:", " $9"]), sample("b", ["Stop", " it"]))
META = ({"sample": "a", "key": "concept_strength_label", "number": 3.0, "string": None},)


def sink_files(
    sink: str,
    params: Mapping[str, Any],
    spaces: Sequence[Mapping[str, Any]] = SPACES,
    activations: Sequence[Any] = ACTIVATIONS,
    samples: Sequence[Mapping[str, Any]] = SAMPLES,
    meta: Sequence[Mapping[str, Any]] = META,
    attention: Sequence[Mapping[str, Any]] = (),
) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
    """What a sink gives: the name and the pieces of each file."""
    tables = {
        "activations": table("activations", activations),
        "spaces": table("spaces", spaces),
        "features": table("features", FEATURES),
        "samples": table("samples", samples),
        "sample_meta": table("sample_meta", meta),
        "saes": table("saes", []),
        "attention": table("attention", attention),
    }
    if not spaces:  # as in a run whose stages write neither
        del tables["spaces"], tables["activations"]
    validated = SINKS[sink].params.model_validate(params)
    work = SinkWork(
        validated,
        Path("nowhere"),
        "run-1",
        TableInputs(tables),
        committed_at="2025-10-17T12:00:00+00:00",
    )
    yield from SINKS[sink].run(work)


def written(sink: str, params: Mapping[str, Any], *args: Any, **tables: Any) -> dict[str, bytes]:
    """The files whole."""
    result = sink_files(sink, params, *args, **tables)
    return {name: data if isinstance(data, bytes) else b"".join(data) for name, data in result}


def loaded(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an archive."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)
