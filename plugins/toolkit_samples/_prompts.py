"""The source `prompts`: texts written in the spec itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StrictFloat, StrictInt, model_validator

from toolkit.errors import DataError
from toolkit.parts import Labels
from toolkit.work import Rows, Work

from ._texts import Cell, Row, Sample, Texts, labels_of, samples_of, tables

PromptEntry = Annotated[str, Field(min_length=1)] | dict[str, str | StrictInt | StrictFloat]


class Prompts(Texts):
    """The texts, and what their metadata keys mean."""

    prompts: tuple[PromptEntry, ...] = Field(
        min_length=1,
        description="Each a text, or a map with a text and metadata: {text: ..., label: 2}.",
    )

    @model_validator(mode="after")
    def _check_prompts(self) -> Prompts:
        try:
            _samples(self)
        except DataError as error:
            raise ValueError(str(error)) from None
        return self


def max_rows(params: Prompts, available: Mapping[str, int]) -> Mapping[str, int]:
    """How many texts the spec holds."""
    return {"samples": len(params.prompts)}


def labels(params: Prompts) -> Labels:
    """The metadata keys of the prompts, with their values."""
    return labels_of(_samples(params), params)


def read_samples(work: Work) -> Rows:
    """The tables that the spec's texts become."""
    yield from tables(work, _samples(work.params))


def _samples(params: Prompts) -> list[Sample]:
    rows = [
        Row(f"prompts.{number}", _cells(entry, params.text))
        for number, entry in enumerate(params.prompts)
    ]
    return samples_of(rows, params)


def _cells(entry: PromptEntry, text: str) -> dict[str, Cell]:
    values = {text: entry} if isinstance(entry, str) else entry
    cells = {
        key: value if isinstance(value, str) else float(value) for key, value in values.items()
    }
    return {key: cell for key, cell in cells.items() if not isinstance(cell, str) or cell.strip()}
