"""Where SAEs are: a repository of the hub or a folder, and which layers of it."""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field, model_validator

from toolkit.files.local import PathText
from toolkit.parts import Params
from toolkit_saes.layouts.layers import Layers
from toolkit_saes.layouts.releases import releases

P = TypeVar("P", bound="SaeLocation")


class SaeLocation(Params):
    """Which SAEs. Either `release` (a repository of the hub) or `path` (a folder)."""

    release: str | None = Field(
        None, description="Repository on the hub, for example google/gemma-scope-2b-pt-res."
    )
    revision: str | None = Field(
        None,
        description="Commit, tag or branch. Default: the commit recorded for a known release, else "
        "main.",
    )
    path: PathText | None = Field(
        None,
        description="Folder with the SAEs, a path or `package:NAME/FOLDER`; its files are "
        "named as the layout prescribes.",
    )
    layers: Layers = Field("all", description="all, 8, 1-31 or [8, 15, 31]; layers count from 0.")

    @property
    def pinned_revision(self) -> str:
        """The given revision, else the one recorded for a known release, else main. A commit
        belongs to one owner's repository: copies under other owners may have other commits.
        """
        return self.revision or str(releases().get(str(self.release), {}).get("revision", "main"))

    @model_validator(mode="after")
    def _one_source(self: P) -> P:
        if self.release is None and self.path is None:
            raise ValueError(
                "name the SAEs: give release (a repository on the hub) or path (a folder)"
            )
        if self.release is not None and self.path is not None:
            raise ValueError(
                "give either release (a repository on the hub) or path (a folder), not both"
            )
        return self
