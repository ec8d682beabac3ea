"""The addresses that pages link to."""

from __future__ import annotations

from typing import Any

from toolkit._view.grid import Row
from toolkit._view.request import href


def run_href(name: str, page: str = "", **values: object) -> str:
    """The address of a page about a run."""
    return href(f"/run/{name}" + (f"/{page}" if page else ""), **values)


def feature_link(run: str) -> Any:
    """The function that links a feature's address in a table to its page."""

    def link(row: Row) -> str | None:
        address = row["address"]
        return None if address == "-" else run_href(run, "feature", address=address)

    return link


def sample_link(run: str) -> Any:
    """The function that links a sample in a table to its page."""
    return lambda row: run_href(run, "sample", sample=row["sample"], position=row.get("position"))
