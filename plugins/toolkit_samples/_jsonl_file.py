"""The source `jsonl`: one JSON object per line, each a sample; its keys are the columns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from toolkit.errors import DataError
from toolkit.files.local import PathText
from toolkit.parts import UNHASHED

from ._file import not_utf8
from ._texts import Cell, Row, Sample, Texts, missing_column, samples_of

KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


class Jsonl(Texts):
    """Which file, and what the keys of its objects mean."""

    path: PathText = Field(
        min_length=1,
        description="The file, relative to the spec; UTF-8, one object per line.",
        json_schema_extra=UNHASHED,
    )


class _BadObject(ValueError):
    """An object with a key twice, or with a constant that JSON does not have, such as NaN."""


def read_file(path: Path, params: Jsonl) -> list[Sample]:
    """The samples of a JSONL file."""
    objects = [
        (where, _object(where, line, is_complete)) for where, line, is_complete in _lines(path)
    ]
    if not objects:
        raise DataError(
            f"{path}:1: the file is empty. Write one JSON object per line, with the key "
            f"'{params.text}'."
        )
    keys = list(dict.fromkeys(key for _, content in objects for key in content))
    for field, name in params.named():
        if name not in keys:
            raise missing_column(f"{path}:1", field, name, keys)
    columns = {params.text, params.id, params.unit, params.spans, *params.metadata(keys)}
    return samples_of(
        [Row(where, _cells(where, content, columns)) for where, content in objects], params
    )


def _lines(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Location and text of each line that is not blank, and whether it ends in a newline."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise not_utf8(path) from None
            if text.strip():
                yield f"{path}:{number}", text.rstrip("\r\n"), raw.endswith(b"\n")


def _object(where: str, line: str, is_complete: bool) -> dict[str, Any]:
    try:
        content = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        if not is_complete:
            raise DataError(
                f"{where}: the file is cut off in the middle of this line, at character "
                f"{len(line)}. Copy or write it again."
            ) from None
        raise DataError(
            f"{where}: this line is not JSON: {error.msg.removesuffix(' at')} at character "
            f"{error.colno}. Write one object per line."
        ) from None
    except _BadObject as error:
        raise DataError(f"{where}: {error}") from None
    except RecursionError:
        raise DataError(
            f"{where}: lists or objects lie too deep in this line. Write one flat object per line."
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{where}: this line holds {KINDS.get(type(content), 'null')}; expected a JSON object, "
            'like {"text": ...}.'
        )
    return content


def _refuse_constant(name: str) -> float:
    raise _BadObject(f"{name} is not a number in JSON. Leave the key out, or write null.")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise _BadObject(f"the key '{duplicate}' stands twice in one object. Keep one.")
    return content


def _cells(where: str, content: dict[str, Any], columns: set[str | None]) -> dict[str, Cell]:
    """The requested cells; null and blank texts are left out."""
    cells = {
        key: _cell(where, key, value)
        for key, value in content.items()
        if key in columns and value is not None
    }
    return {key: cell for key, cell in cells.items() if not isinstance(cell, str) or cell.strip()}


def _cell(where: str, key: str, value: Any) -> Cell:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _encodable(where, key, value)
    number = _finite(value)
    if number is None:
        raise DataError(
            f"{where}: '{key}' holds "
            f"{KINDS[type(value)] if isinstance(value, dict | list) else 'a number too large'}; "
            "metadata are texts and numbers. Name the keys you want with `columns`, or write it "
            "as a text."
        )
    return number


def _finite(value: Any) -> float | None:
    """A JSON number as a float; None where it is not a number, or is too large for a float."""
    try:
        number = float(value)
    except (TypeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _encodable(where: str, key: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: '{key}' holds half a surrogate pair (\\u{ord(value[error.start]):04x}) at "
            f"character {error.start + 1}; that is no text. Write the file again with whole "
            "characters."
        ) from None
    return value
