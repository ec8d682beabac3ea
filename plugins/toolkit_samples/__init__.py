"""Samples from files, from datasets of the hub and from the spec itself."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Estimates, LabelKeys, Params, Part, SourcePart

from . import _csv_file, _hub_dataset, _jsonl_file, _parquet_file, _prompts
from ._file import FileSource


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield _file_part(
        "csv",
        "Samples from a CSV file: one text per row, other columns as metadata.",
        _csv_file.Csv,
        FileSource("CSV", _csv_file.read_file),
    )
    yield _file_part(
        "jsonl",
        "Samples from a file of JSON lines: one object per line, its keys as columns.",
        _jsonl_file.Jsonl,
        FileSource("JSONL", _jsonl_file.read_file),
    )
    yield _file_part(
        "parquet",
        "Samples from a Parquet file: one text per row, other columns as metadata.",
        _parquet_file.Parquet,
        FileSource("Parquet", _parquet_file.read_file),
    )
    yield SourcePart(
        name="hf_dataset",
        help="Samples from a dataset of the Hugging Face hub: one text per row, other columns as "
        "metadata.",
        params=_hub_dataset.HfDataset,
        run=_hub_dataset.read_samples,
        estimates=Estimates(max_rows=_hub_dataset.max_rows),
        identify=_hub_dataset.identify,
        uses_model=True,
    )
    yield SourcePart(
        name="prompts",
        help="Samples written in the spec itself: texts, with metadata if wanted.",
        params=_prompts.Prompts,
        run=_prompts.read_samples,
        estimates=Estimates(max_rows=_prompts.max_rows),
        labels=LabelKeys(offered=_prompts.labels),
        uses_model=True,
    )


def _file_part(name: str, text: str, params: type[Params], source: FileSource) -> SourcePart:
    return SourcePart(
        name=name,
        help=text,
        params=params,
        run=source.read_samples,
        estimates=Estimates(max_rows=source.max_rows),
        identify=source.identify,
        uses_model=True,
    )
