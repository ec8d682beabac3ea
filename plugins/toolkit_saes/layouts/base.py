"""The base of adapters of SAE files: choosing SAEs, finding or fetching files, identity and
loading. A layout says how its files are named and what they hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from toolkit.errors import BadInput
from toolkit.files.hub import Download, Snapshot, cached, fetch, offline, snapshot
from toolkit.files.local import check_link, content_digest, locate
from toolkit.identity import Identity
from toolkit.work import Reporter
from toolkit_saes.encode.canonical import CanonicalSae, Facts
from toolkit_saes.encode.weights import Weights
from toolkit_saes.layouts.layers import all_there
from toolkit_saes.layouts.location import SaeLocation
from toolkit_saes.layouts.releases import known
from toolkit_saes.layouts.sizes import Size, sizes

P = TypeVar("P", bound=SaeLocation)


class FileLayout(ABC, Generic[P]):
    """One layout. An SAE is identified by a path: its folder, or its file if it has only one."""

    # --- how files are named ---

    @abstractmethod
    def marker(self, params: P) -> str:
        """A pattern of a file that shows that a cached snapshot has SAEs."""

    @abstractmethod
    def patterns(self, params: P, snapshot: Snapshot) -> list[str]:
        """Patterns of the files to fetch; where possible only those of the chosen SAEs."""

    @abstractmethod
    def is_complete(self, params: P, root: Path) -> bool:
        """Whether a cache certainly has every chosen SAE."""

    @abstractmethod
    def locate_saes(self, params: P, root: Path) -> list[Path]:
        """The chosen SAEs in order; a missing one is an error that lists those available."""

    @abstractmethod
    def files(self, sae: Path) -> Mapping[str, Path]:
        """The files of an SAE by name; the last one holds the weights."""

    @abstractmethod
    def requested(self, params: P) -> str:
        """The choice that a spec makes in a repository: it identifies a set that is not fetched
        yet.
        """

    def published_facts(self, params: P) -> dict[str, Any]:
        """Sizes of a known release without its files; empty for an unknown one."""
        return {}

    def digest_name(self, sae: Path, root: Path) -> str:
        """The SAE's name in the digest of a set."""
        return str(sae.relative_to(root))

    # --- what they hold ---

    @abstractmethod
    def facts(self, params: P, sae: Path, release: str) -> Facts:
        """The facts from configs and headers, checked against each other."""

    @abstractmethod
    def read(self, params: P, sae: Path) -> Weights:
        """The weights in the form in which the SAE is run."""

    # --- the part ---

    def identify(self, params: P) -> Identity:
        """The hash of the chosen SAEs' files, and their hookpoints."""
        if params.path is not None:
            root = locate(params.path)
            chosen = self._chosen(params, root)
            return Identity(
                root.name, "local", self._digest(params, root, chosen), self._sizes(params, chosen)
            )
        snapshot = self.snapshot(params)
        if snapshot.folder is not None and self.is_complete(params, snapshot.folder):
            facts = self._sizes(params, self._chosen(params, snapshot.folder))
        else:
            facts = self.published_facts(params)
        digest = f"{snapshot.name}@{snapshot.revision}:{self.requested(params)}"
        return Identity(snapshot.name, snapshot.revision, digest, facts)

    def load(self, params: P, report: Reporter) -> list[CanonicalSae]:
        """The chosen SAEs in order; weights are read when an SAE is first used."""
        root = self._root(params, report)
        report.phase("load")
        release = params.release or root.name
        return [
            CanonicalSae(self.facts(params, sae, release), partial(self.read, params, sae))
            for sae in self._chosen(params, root)
        ]

    def downloads(self, params: P) -> Iterator[Download]:
        """What to fetch before an offline run."""
        if params.path is None:
            snapshot = self.snapshot(params)
            yield Download(snapshot, tuple(self.patterns(params, snapshot)))

    def cached_root(self, params: P, marker: str) -> Path:
        """The given folder, or that of the release in the cache; fetches nothing."""
        if params.path is not None:
            return locate(params.path)
        root = cached(str(params.release), params.pinned_revision, marker)
        if root is None:
            raise BadInput(
                f"{params.release} at revision {params.pinned_revision} is not in the Hugging Face "
                "cache."
            )
        return root

    def snapshot(self, params: P) -> Snapshot:
        """The release at one commit."""
        revision = params.pinned_revision
        published = known(params.release).get("revision") == revision
        return snapshot(str(params.release), revision, self.marker(params), published=published)

    def _root(self, params: P, report: Reporter) -> Path:
        """The folder of the files, after fetching what the cache may lack."""
        if params.path is not None:
            return locate(params.path)
        snapshot = self.snapshot(params)
        if snapshot.folder and (offline() or self.is_complete(params, snapshot.folder)):
            return snapshot.folder
        report.phase("download")
        return fetch(snapshot, self.patterns(params, snapshot))

    def _chosen(self, params: P, root: Path) -> list[Path]:
        """The chosen SAEs; a file outside the root is refused."""
        saes = self.locate_saes(params, root)
        for sae in saes:
            for file in self.files(sae).values():
                check_link(file, root)
        return saes

    def _digest(self, params: P, root: Path, saes: Sequence[Path]) -> str:
        """The digest of all files, by their names below the root."""
        named: dict[str, Path] = {}
        for sae in saes:
            prefix = self.digest_name(sae, root)
            for name, file in self.files(sae).items():
                named[prefix if file == sae else f"{prefix}/{name}"] = file
        return content_digest(named)

    def _sizes(self, params: P, saes: Sequence[Path]) -> dict[str, Any]:
        """The sizes that plans use."""
        return sizes([self._size(params, sae) for sae in saes])

    def _size(self, params: P, sae: Path) -> Size:
        facts, (*_, weights) = self.facts(params, sae, ""), self.files(sae).values()
        return Size(
            facts.hookpoint,
            facts.inputs,
            facts.width,
            facts.declared_l0,
            weights.stat().st_size,
            facts.name,
        )


class FolderLayout(FileLayout[P]):
    """A layout in which each SAE has a folder of its own."""

    @abstractmethod
    def by_layer(self, params: P, root: Path) -> Mapping[int, object]:
        """The SAE folders below `root`, by layer."""

    def is_complete(self, params: P, root: Path) -> bool:
        """Whether each requested layer has an SAE folder."""
        return all_there(params.layers, self.by_layer(params, root))
