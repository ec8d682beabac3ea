"""Whether the tables of a store have the columns that this version declares."""

from __future__ import annotations

from typing import Any

from toolkit.errors import StoreNotUsable
from toolkit_store.float16 import stored_schema
from toolkit_store.lance import LanceFault, lance_faults


def check_columns(uri: str, name: str, table: Any) -> None:
    """Refuse a LanceDB table that another version made; one that cannot be opened is reported when
    its rows are read.
    """
    try:
        with lance_faults():
            stored = set(table.schema.names)
    except LanceFault:
        return
    declared = set(stored_schema(name).names)
    parts = [
        f"{verb} {', '.join(sorted(names))}"
        for verb, names in (("lacks", declared - stored), ("also has", stored - declared))
        if names
    ]
    if parts:
        raise StoreNotUsable(
            f"Table '{name}' of the store at {uri} {' and '.join(parts)}: another version of the "
            "toolkit made it, and tables are not converted. Give --store a new folder, or use that "
            "version."
        )
