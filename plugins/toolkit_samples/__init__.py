"""Samples from files and from the spec itself: CSV, JSON lines, Parquet, datasets of the hub,
prompts.
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Estimates, Part, SourcePart

from . import _csv_file, _hub_dataset, _jsonl_file, _parquet_file, _prompts


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield SourcePart(
        name="csv",
        help="Samples from a CSV file: one text per row, other columns as metadata.",
        params=_csv_file.Csv,
        run=_csv_file.read_samples,
        estimates=Estimates(max_rows=_csv_file.max_rows),
        identify=_csv_file.identify,
        uses_model=True,
    )
    yield SourcePart(
        name="jsonl",
        help="Samples from a file of JSON lines: one object per line, its keys as columns.",
        params=_jsonl_file.Jsonl,
        run=_jsonl_file.read_samples,
        estimates=Estimates(max_rows=_jsonl_file.max_rows),
        identify=_jsonl_file.identify,
        uses_model=True,
    )
    yield SourcePart(
        name="parquet",
        help="Samples from a Parquet file: one text per row, other columns as metadata.",
        params=_parquet_file.Parquet,
        run=_parquet_file.read_samples,
        estimates=Estimates(max_rows=_parquet_file.max_rows),
        identify=_parquet_file.identify,
        uses_model=True,
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
        labels=_prompts.labels,
        uses_model=True,
    )
