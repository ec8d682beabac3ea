"""The source `hf_dataset`: the rows of a split of a dataset of the Hugging Face hub, read from its
Parquet files, or from a folder with the same files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from toolkit.errors import BadInput, DataError
from toolkit.files import hub
from toolkit.files.local import PathText, locate, sha256_of
from toolkit.identity import Identity
from toolkit.parts import UNHASHED
from toolkit.work import Rows, Work

from ._dataset_files import configurations_of, files_of
from ._parquet_file import row_cells, used_columns
from ._texts import Row, Sample, Texts, labels_of, samples_of, tables

if TYPE_CHECKING:
    import polars as pl

CARD = "README.md"


class HfDataset(Texts):
    """Which dataset, which rows of it, and what its columns mean."""

    dataset: str | None = Field(
        None,
        min_length=1,
        description="The repository on the hub, such as stanfordnlp/imdb.",
        json_schema_extra=UNHASHED,
    )
    revision: str | None = Field(
        None,
        description="The commit, 40 hex digits: a branch can move between plan and run.",
        json_schema_extra=UNHASHED,
    )
    path: PathText | None = Field(
        None,
        min_length=1,
        description="In place of `dataset`: a folder with the same files, relative to the spec.",
        json_schema_extra=UNHASHED,
    )
    config: str | None = Field(
        None,
        min_length=1,
        description="The configuration; without it, the only one or `default`.",
        json_schema_extra=UNHASHED,
    )
    split: str = Field("train", min_length=1, description="The split.", json_schema_extra=UNHASHED)
    first: int | None = Field(
        None,
        ge=1,
        description="Read only this many rows, from the first; other files are not fetched.",
    )

    @field_validator("revision")
    @classmethod
    def _is_a_commit(cls, revision: str | None) -> str | None:
        if revision is not None and not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise ValueError(
                f"'{revision}' is not a commit. Write its 40 hex digits; the hub shows them under "
                "Files, History"
            )
        return revision

    @model_validator(mode="after")
    def _names_one_origin(self) -> HfDataset:
        if (self.dataset is None) == (self.path is None):
            raise ValueError("name either `dataset` with `revision`, or `path`")
        if (self.dataset is None) != (self.revision is None):
            raise ValueError("`dataset` and `revision` belong together: write both, or `path`")
        return self


@dataclass(frozen=True)
class DatasetFile:
    """A Parquet file of a split: its path in the repository, on this machine, and its hash."""

    name: str
    path: Path
    sha256: str


def identify(params: HfDataset, folder: Path) -> Identity:
    """The repository, its commit, and a hash of the files of the split. They are fetched, and every
    row is checked, so that a bad row is reported before anything runs.
    """
    names, samples = _read(params)
    facts = {
        "rows": len(samples),
        "units": len({sample.unit for sample in samples}),
        "labels": labels_of(samples, params),
    }
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    origin = params.dataset or locate(str(params.path)).name
    return Identity(origin, params.revision or digest[:12], digest, facts)


def max_rows(params: HfDataset, available: Mapping[str, int]) -> Mapping[str, int]:
    """How many samples the split has."""
    return {"samples": len(_read(params)[1])}


def read_samples(work: Work) -> Rows:
    """The tables that the rows become."""
    yield from tables(work, _read(work.params)[1])


def _read(params: HfDataset) -> tuple[list[str], list[Sample]]:
    """The hashes of the files that were read, and the samples."""
    hashes, rows = [], list[Row]()
    where = _where(params)
    for file in _files(params, where):
        hashes.append(file.sha256)
        frame = used_columns(file.path, params)
        rows += _rows(frame, f"{where}, {file.name}", file.path)
        if params.first is not None and len(rows) >= params.first:
            break
    if not rows:
        raise DataError(f"{where}: split '{params.split}' has no rows. Name another one.")
    return hashes, samples_of(rows[: params.first], params)


def _rows(frame: pl.DataFrame, where: str, path: Path) -> Iterator[Row]:
    for number, row in enumerate(frame.iter_rows(named=True), 1):
        yield Row(f"{where} (row {number})", row_cells(path, number, row))


def _where(params: HfDataset) -> str:
    if params.path is not None:
        return str(locate(params.path))
    return f"{params.dataset}@{str(params.revision)[:12]}"


def _files(params: HfDataset, where: str) -> Iterator[DatasetFile]:
    """The files of the split, in order; each is fetched when it is read."""
    return _files_of_folder(params, where) if params.path else _files_of_hub(params, where)


def _files_of_folder(params: HfDataset, where: str) -> Iterator[DatasetFile]:
    folder = locate(str(params.path))
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder. Name the folder of a dataset, or use `parquet`.")
    paths = [str(path.relative_to(folder).as_posix()) for path in folder.rglob("*.parquet")]
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    for name in _chosen(params, paths, text, where):
        yield DatasetFile(name, folder / name, sha256_of(folder / name))


def _files_of_hub(params: HfDataset, where: str) -> Iterator[DatasetFile]:
    snapshot = hub.Snapshot(str(params.dataset), str(params.revision), None, "dataset")
    listed = {file.path: file for file in hub.listed_files(snapshot)}
    card = _fetched(snapshot, CARD).read_text("utf-8", "replace") if CARD in listed else ""
    for name in _chosen(params, list(listed), card, where):
        path = _fetched(snapshot, name)
        digest = sha256_of(path)
        if listed[name].sha256 not in (None, digest):
            raise DataError(
                f"{where}, {name}: the cached file {path} is not the one of this commit: its "
                "SHA-256 differs. Delete it and fetch it again."
            )
        yield DatasetFile(name, path, digest)


def _chosen(params: HfDataset, paths: Sequence[str], card: str, where: str) -> Sequence[str]:
    return files_of(configurations_of(paths, card, where), params.config, params.split, where)


def _fetched(snapshot: hub.Snapshot, name: str) -> Path:
    """A file of a commit, from the cache or fetched into it."""
    cached = hub.snapshot_folder(snapshot) / name
    if cached.is_file():
        return cached
    if hub.offline():
        raise BadInput(hub.not_cached(snapshot.name, snapshot.revision))
    return hub.fetch(snapshot, [name]) / name
