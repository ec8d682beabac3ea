"""The job folders of a run, each named by the key of its step.

Making a folder and its first file, and removing them, costs a file system more than all that a
short step writes. So a folder is emptied when its step is committed, and renamed for a later step.
"""

from __future__ import annotations

import shutil
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit._plan.plan import Step


class JobFolders:
    """Makes job folders, and keeps the emptied ones for later steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._empty: deque[Path] = deque()

    def of(self, step: Step) -> Path:
        """The folder where a worker puts a step's tables."""
        return self._folder / step.key

    def make(self, step: Step) -> Path:
        """An empty folder for a step, without files of an earlier attempt."""
        path = self.of(step)
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)
        while self._empty:
            with suppress(OSError):  # somebody removed it
                self._empty.popleft().rename(path)
                if not any(path.iterdir()):
                    return path
                shutil.rmtree(path)  # a worker that was given up wrote to it
        path.mkdir(parents=True)
        return path

    def empty(self, step: Step) -> None:
        """Remove the files of a step that is committed."""
        path = self.of(step)
        try:
            for file in path.iterdir():
                file.unlink()
        except OSError:  # a part left a folder, or a file of another user
            shutil.rmtree(path, ignore_errors=True)
        else:
            self._empty.append(path)
