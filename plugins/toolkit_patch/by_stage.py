"""Groups rows of a report by the stage that wrote them, so that stages of one kind stay apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.work import RunInputs

Row = Mapping[str, Any]


def rows_by_stage(inputs: RunInputs, table: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of `table` by stage; none if no stage wrote any."""
    if table not in inputs.tables():
        return {}
    stages = {stage: rows.to_pylist() for stage, rows in inputs.by_stage(table).items()}
    return {stage: rows for stage, rows in stages.items() if rows}


def headed(stage: str, stages: Mapping[str, Any], text: str) -> str:
    """A title or a sentence, after the name of its stage if there is more than one."""
    return f"{stage}: {text}" if len(stages) > 1 else text
