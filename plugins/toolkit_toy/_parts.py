"""The functions of the toy parts. Params can cause delays, crashes and failures, for the toolkit's
tests.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit import figures as draw
from toolkit.errors import DataError
from toolkit.identity import Identity
from toolkit.models import Tokens
from toolkit.parts import UNHASHED, Params
from toolkit.samples.rows import metadata_row, sample_row
from toolkit.tables import arrow_schema
from toolkit.work import Figure, Inputs, Reporter, Rows, Work

if TYPE_CHECKING:
    import pyarrow as pa


class Toy(Params):
    """A model or SAE that is a number."""

    salt: int = Field(0, description="A number that changes every activation.")
    load_seconds: float = Field(0.0, ge=0, description="Seconds that loading takes.")


class Count(Params):
    """How far to count."""

    n: int = Field(16, ge=1, description="Number of samples.")
    seconds: float = Field(0.0, ge=0, description="Seconds that the source takes.")


class Hash(Params):
    """How the text becomes features."""

    width: int = Field(64, ge=2, le=65536, description="Number of features in the space.")
    active: int = Field(4, ge=1, description="Number of features active in a sample.")
    batch: int = Field(8, ge=1, description="Samples per step.")
    seconds: float = Field(
        0.0, ge=0, description="Seconds that each sample takes.", json_schema_extra=UNHASHED
    )
    fail_on: str | None = Field(None, description="Fail at the sample with this text.")
    crash_once: str | None = Field(
        None, description="A file; if it exists, the worker removes it and kills itself."
    )
    hang_seconds: float = Field(
        0.0, ge=0, description="Seconds without a message before the first sample."
    )


class MeansParams(Params):
    """Which groups to compare."""

    by: str = Field("group", description="The metadata key that holds a sample's group.")


def identify(params: Toy) -> Identity:
    """A toy is identified by its salt alone."""
    return Identity(
        name="toy",
        revision=str(params.salt),
        digest=hashlib.sha256(f"toy {params.salt}".encode()).hexdigest(),
    )


def load(params: Toy, report: Reporter) -> int:
    """Sleep for `load_seconds`, and return the salt."""
    time.sleep(params.load_seconds)
    return params.salt


def count(work: Work) -> Rows:
    """`number 0`, `number 1`, ...: even numbers are one group, odd ones the other; every sample is
    its own unit.
    """
    import pyarrow as pa

    n = min(work.params.n, work.limit_units or work.params.n)
    time.sleep(work.params.seconds)
    ids = [f"n{i:06d}" for i in range(n)]
    tokens = [Tokens(f"number {i}", ids=(), pieces=("number", str(i))) for i in range(n)]
    rows = [sample_row(name, name, text) for name, text in zip(ids, tokens, strict=True)]
    meta = [
        metadata_row(name, "group", "even" if i % 2 == 0 else "odd") for i, name in enumerate(ids)
    ]
    yield "samples", pa.Table.from_pylist(rows, schema=arrow_schema("samples"))
    yield "sample_meta", pa.Table.from_pylist(meta, schema=arrow_schema("sample_meta"))


def extract_hash(work: Work) -> Rows:
    """Each sample's active features and values are drawn by counter from (seed, text, salts)."""
    import pyarrow as pa

    params, salt = work.params, f"{work.model}/{work.saes}"
    space = hashlib.sha256(f"toy space {salt} {params.width}".encode()).hexdigest()[:16]
    samples = work.inputs.read("samples").select(["sample", "text"]).to_pylist()
    work.report.phase("compute")
    time.sleep(params.hang_seconds)
    rows = []
    for number, sample in enumerate(samples):
        rows.append(_activate(work, space, salt, sample))
        work.report.progress(number + 1, len(samples))
    yield "activations", pa.Table.from_pylist(rows, schema=arrow_schema("activations"))
    yield (
        "spaces",
        pa.Table.from_pylist([_space(space, params.width, salt)], schema=arrow_schema("spaces")),
    )


def _activate(work: Work, space: str, salt: str, sample: dict[str, Any]) -> dict[str, Any]:
    params = work.params
    _misbehave(params, sample["text"])
    rng = work.rng("toy.hash", salt, sample["text"])
    features = sorted(
        rng.choice(params.width, size=min(params.active, params.width), replace=False).tolist()
    )
    values = rng.exponential(size=len(features)).astype("float32").tolist()
    return {
        "space": space,
        "sample": sample["sample"],
        "position": 0,
        "features": features,
        "values": values,
    }


def _misbehave(params: Hash, text: str) -> None:
    time.sleep(params.seconds)
    if params.fail_on == text:
        raise DataError(
            f"sample '{text}': asked to fail here (fail_on). Remove fail_on from the stage."
        )
    if params.crash_once and os.path.exists(params.crash_once):
        os.unlink(params.crash_once)
        os.kill(os.getpid(), signal.SIGKILL)


def _space(space: str, width: int, salt: str) -> dict[str, Any]:
    return {
        "space": space,
        "model": "toy",
        "revision": salt,
        "hookpoint": "toy.0",
        "sae": "toy",
        "sae_hash": hashlib.sha256(salt.encode()).hexdigest(),
        "recipe": "hash",
        "width": width,
        "address": "toy/toy.0/toy",
    }


def compare_means(work: Work) -> Rows:
    """Sums per group over the group's size: a feature that does not fire counts as 0."""
    import pyarrow as pa

    group_of = _groups(work.inputs.read("sample_meta"), work.params.by)
    sizes: dict[str, int] = defaultdict(int)
    for group in group_of.values():
        sizes[group] += 1
    sums: dict[tuple[str, int, str], float] = defaultdict(float)
    for row in work.inputs.read("activations").to_pylist():
        for feature, value in zip(row["features"], row["values"], strict=True):
            sums[row["space"], feature, group_of[row["sample"]]] += value
    rows = [
        {
            "space": space,
            "feature": feature,
            "stat": "toy_mean",
            "group": group,
            "number": total / sizes[group],
            "text": None,
        }
        for (space, feature, group), total in sorted(sums.items())
    ]
    yield "features", pa.Table.from_pylist(rows, schema=arrow_schema("features"))


def _groups(meta: pa.Table, by: str) -> dict[str, str]:
    rows = meta.to_pylist()
    groups = {row["sample"]: row["string"] for row in rows if row["key"] == by}
    if not groups:
        known = sorted({row["key"] for row in rows})
        raise DataError(
            f"by: no sample has metadata '{by}'. The samples have: {', '.join(known) or 'none'}."
        )
    return groups


def figure(inputs: Inputs) -> Iterable[Figure]:
    """The twelve features with the largest mean."""
    rows = [row for row in inputs.read("features").to_pylist() if row["stat"] == "toy_mean"]
    if not rows:
        return
    rows.sort(key=lambda row: -row["number"])
    cells = [
        (str(row["feature"]), draw.escaped(row["group"]), f"{row['number']:.3f}")
        for row in rows[:12]
    ]
    caption = "Largest means by group"
    table = draw.table(caption, ("feature", "group", "mean"), cells, left=(1,))
    yield Figure("Largest means", table, caption)
