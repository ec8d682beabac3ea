"""`toolkit hub pull`: download a run from a dataset repository and import it as `toolkit store
import parquet` does, against its hashes.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit._share.repository import INDEX, RUN_FILES, check_name
from toolkit.errors import DataError
from toolkit.files import hub

if TYPE_CHECKING:
    from toolkit_store import Store


@dataclass(frozen=True)
class Pulled:
    """A pulled run: its id, and the commit that it came from."""

    run: str
    repository: str
    commit: str


def pull(store: Store, repository: str, *, revision: str = "main") -> Pulled:
    """Import the run of a dataset repository. What the store has computed is not changed."""
    from toolkit_store.interchange import import_run

    check_name(repository)
    snapshot = hub.snapshot(repository, revision, INDEX, kind="dataset")
    cached = hub.fetch(snapshot, RUN_FILES)
    with tempfile.TemporaryDirectory(prefix="toolkit-pull-") as scratch:
        folder = Path(scratch) / "run"
        folder.mkdir()
        for name in RUN_FILES:  # the cache has links, which an import does not follow
            if (cached / name).is_file():
                shutil.copyfile(cached / name, folder / name)
        try:
            run = import_run(store, "parquet", folder)
        except DataError as error:
            reason = str(error).replace(str(folder), f"{repository}@{snapshot.revision}")
            raise DataError(
                f"{reason} Delete {cached} and pull again; if it is refused again, push "
                "the run again."
            ) from None
    return Pulled(run, repository, snapshot.revision)
