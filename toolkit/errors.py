"""Every error the toolkit raises on purpose. Each message says where the problem is, what was read,
what is allowed and what to do next. Exit codes belong to the classes, so that the command line
translates errors in one place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ToolkitError(Exception):
    """Base of all errors. `str(error)` is a complete message: a user needs no traceback to act on
    it.
    """

    exit_code = 3


class BadInput(ToolkitError):
    """Something that the user wrote (a spec, an option, a file, a plugin) cannot be used."""

    exit_code = 2


class SpecError(BadInput):
    """A spec, overlay or `--set` is wrong. Carries file:line and the field path in its text."""


class PluginError(BadInput):
    """A plugin fails to import, offers a part twice, or does not fit the hookspecs."""


class StoreError(ToolkitError):
    """The store is foreign, newer, read-only, locked or damaged."""


class StoreNotUsable(StoreError):
    """The store cannot be opened at all: foreign, newer, unreadable or read-only."""

    exit_code = 2


class DataError(ToolkitError):
    """Input data cannot be used (an empty group, NaN activations, a prompt over the context)."""


class StepFailed(ToolkitError):
    """A step failed; the other steps of the run are safe, and the same command continues."""


class WorkerDied(ToolkitError):
    """A worker ended without an answer. The host retries the step on a fresh worker."""


class VersionMismatch(BadInput):
    """A worker has other versions of the toolkit or of a plugin than the host."""


class Refused(ToolkitError):
    """The run may not start or continue: it does not fit, or an SAE failed its examination."""

    exit_code = 4


class Interrupted(ToolkitError):
    """The user pressed Ctrl-C; everything committed so far is kept."""

    exit_code = 130


def nearest(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the allowed name nearest to `word`, or an empty string."""
    names = [str(name) for name in allowed]
    matches = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def choices(allowed: Iterable[str]) -> str:
    """The allowed names, sorted, for the end of a message."""
    return ", ".join(sorted(str(name) for name in allowed)) or "(none installed)"
