"""The work of `toolkit fetch`: download the files of a spec's model and SAEs from the hub into its
cache, and check that they are complete.

The hub's client resumes an interrupted download; a file of the wrong size is downloaded again.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from toolkit.errors import BadInput, DataError
from toolkit.files import hub
from toolkit.files.local import safetensors_header

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan
    from toolkit._plan.resolve import Loadable

WAITS = (1.0, 4.0, 15.0, 60.0)
"""Seconds to wait before each retry."""
TERMINAL_SECONDS, PLAIN_SECONDS = 0.2, 5.0
"""Seconds between two updates of the progress."""


@dataclass(frozen=True)
class Fetched:
    """The result of one download: how many files and bytes were cached before, and how many were
    fetched.
    """

    name: str
    revision: str
    folder: Path
    there: int = 0
    there_bytes: int = 0
    came: int = 0
    came_bytes: int = 0
    seconds: float = 0.0

    def sentence(self) -> str:
        """One line for people."""
        if self.came:
            speed = size(self.came_bytes / max(self.seconds, 1e-3))
            before = f", {self.there} were cached" if self.there else ""
            return (
                f"{self.name}@{self.revision}: {_files(self.came)}, {size(self.came_bytes)}, "
                f"{speed}/s{before}. {self.folder}"
            )
        checked = (
            "checked against their headers only, since the network is disabled"
            if hub.offline()
            else "nothing to fetch"
        )
        return (
            f"{self.name}@{self.revision}: {_files(self.there)}, {size(self.there_bytes)}, "
            f"already cached; {checked}. {self.folder}"
        )


def loadables_of(plan: Plan) -> list[Loadable[Any]]:
    """The distinct models and SAE sets of a plan."""
    loadables = (
        loadable
        for stage in plan.stages
        for loadable in (stage.model, stage.saes)
        if loadable is not None
    )
    return list(
        {(item.part.name, item.params.model_dump_json()): item for item in loadables}.values()
    )


def downloads_of(loadables: Iterable[Loadable[Any]]) -> Iterator[hub.Download]:
    """Their downloads; a part that declares none fetches its files when it loads."""
    for loadable in loadables:
        yield from loadable.part.downloads(loadable.params) if loadable.part.downloads else ()


def fetch_all(
    downloads: Iterable[hub.Download],
    screen: DownloadDisplay,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Fetched]:
    """Fetch and check each download in turn."""
    for download in downloads:
        yield _check_only(download) if hub.offline() else _fetched(download, screen, wait)


def _check_only(download: hub.Download) -> Fetched:
    """Offline: expected sizes are unknown, so files are checked against their own headers."""
    files = hub.cached_files(download.snapshot, download.patterns)
    if not files:
        raise BadInput(hub.not_cached(download.snapshot.name, download.snapshot.revision))
    for path in files.values():
        _check(path, path.stat().st_size)
    sizes = sum(path.stat().st_size for path in files.values())
    snapshot = download.snapshot
    return Fetched(
        snapshot.name, snapshot.revision, hub.snapshot_folder(snapshot), len(files), sizes
    )


def _fetched(
    download: hub.Download, screen: DownloadDisplay, wait: Callable[[float], None]
) -> Fetched:
    snapshot = download.snapshot
    named = hub.repository_files(snapshot, download.patterns)
    if not named:
        raise BadInput(
            f"'{snapshot.name}' at revision '{snapshot.revision}' has no file that matches "
            f"{', '.join(download.patterns)}. Look at the files of the repository; it may "
            f"not be what the spec expects."
        )
    there = hub.cached_files(snapshot, download.patterns)
    lacking = [
        file for file in named if not (file.path in there and _whole(there[file.path], file.size))
    ]
    _must_fit(snapshot, lacking)
    started = time.monotonic()
    for file in lacking:
        _download(snapshot, file, screen, wait, restart=file.path in there)
    came, whole = sum(file.size for file in lacking), sum(file.size for file in named)
    seconds = time.monotonic() - started
    cached = len(named) - len(lacking)
    return Fetched(
        snapshot.name,
        snapshot.revision,
        hub.snapshot_folder(snapshot),
        cached,
        whole - came,
        len(lacking),
        came,
        seconds,
    )


def _download(
    snapshot: hub.Snapshot,
    file: hub.HubFile,
    screen: DownloadDisplay,
    wait: Callable[[float], None],
    *,
    restart: bool,
) -> None:
    """Download one file, with retries until it is complete."""
    for pause in (*WAITS, None):
        try:
            with screen.file(file) as on_bytes:
                _check(hub.fetch_file(snapshot, file.path, on_bytes, restart=restart), file.size)
            return
        except BadInput:
            raise
        except Exception as error:
            restart = isinstance(error, DataError)
            first_line = (str(error).splitlines() or ["no details"])[0]
            if pause is None:
                raise BadInput(
                    f"{file.path} of '{snapshot.name}': {len(WAITS) + 1} tries failed, the last "
                    f"with {type(error).__name__}: {first_line}. The bytes received so far are "
                    f"kept; the same command continues from there."
                ) from error
            screen.line(
                f"{file.path}: {type(error).__name__}: {first_line}; trying again in {pause:.0f} s"
            )
            wait(pause)


def _whole(path: Path, size: int) -> bool:
    try:
        _check(path, size)
    except (DataError, BadInput):
        return False
    return True


def _check(path: Path, expected: int) -> None:
    """Check that a file has the expected size and a readable header."""
    size = path.stat().st_size
    if size != expected:
        raise DataError(f"{path} has {size:,} bytes; the hub has {expected:,}.")
    if path.suffix == ".safetensors":
        try:
            safetensors_header(path)
        except BadInput as error:
            raise DataError(str(error)) from None
    if path.suffix == ".npz" and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an npz file.")


def _must_fit(snapshot: hub.Snapshot, lacking: Sequence[hub.HubFile]) -> None:
    folder = hub.snapshot_folder(snapshot)
    there = next(parent for parent in folder.parents if parent.is_dir())
    needed, free = sum(file.size for file in lacking), shutil.disk_usage(there).free
    if needed > free:
        raise BadInput(
            f"'{snapshot.name}' needs {size(needed)} more at {there}, where {size(free)} are free. "
            "Make room, or set HF_HUB_CACHE to another disk."
        )


# --- what is shown --------------------------------------------------------------------------------


class DownloadDisplay:
    """Progress of one file at a time: a line that updates in place on a terminal, else a new line
    every few seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._terminal = stream.isatty()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
        self._stream.flush()

    def file(self, file: hub.HubFile) -> FileProgress:
        """Show the progress of one file: entering it returns a callback that takes the bytes so
        far.
        """
        return FileProgress(self, file)

    def passing(self, text: str) -> None:
        """Print a line that the next one overwrites; on a terminal only."""
        self._stream.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()


class FileProgress:
    """Progress and speed of one file's download."""

    def __init__(self, screen: DownloadDisplay, file: hub.HubFile) -> None:
        self._screen, self._file = screen, file
        self._every = TERMINAL_SECONDS if screen._terminal else PLAIN_SECONDS
        self._began = self._shown = screen._clock()
        self._first: int | None = None
        self._bytes = 0

    def __enter__(self) -> Callable[[int], None]:
        return self._record

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            speed = "" if self._first is None else f", {self._speed()}/s"
            self._screen.line(f"{self._file.path}: {size(self._file.size)}{speed}")

    def _record(self, there: int) -> None:
        self._first = there if self._first is None else self._first
        self._bytes = max(self._bytes, there)
        now = self._screen._clock()
        if now - self._shown >= self._every:
            self._shown = now
            share = self._bytes / self._file.size if self._file.size else 1.0
            of = f"{size(self._bytes)} of {size(self._file.size)}"
            self._screen.passing(f"{self._file.path}: {of} ({share:.0%}), {self._speed()}/s")

    def _speed(self) -> str:
        """The speed, without bytes from earlier attempts."""
        return size(
            (self._bytes - (self._first or 0)) / max(self._screen._clock() - self._began, 1e-3)
        )


def size(count: float) -> str:
    """Format bytes for people: 16.1 GB, 204 MB, 13 kB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return (
                f"{count / unit:.1f} {name}"
                if count < 10 * unit or name == "GB"
                else f"{count / unit:.0f} {name}"
            )
    return f"{count:.0f} B"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
