"""A scratch plugin: SAEs that fail as soon as anything identifies, fetches or opens them."""

from __future__ import annotations

from typing import NoReturn

from toolkit import hookimpl
from toolkit.errors import DataError
from toolkit.parts import Params, SaePart


def refuse(*_: object) -> NoReturn:
    raise DataError("an SAE was asked for")


@hookimpl
def toolkit_parts():
    yield SaePart(
        name="closed_saes",
        help="Fail when used.",
        params=Params,
        identify=refuse,
        load=refuse,
        downloads=refuse,
        examine="examine.saes",
    )
