"""The options of a run, besides its spec."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from toolkit._spec.defaults import DEFAULT_EXECUTOR


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options that `check`, `plan` and `run` share, on the command line and in Python."""

    sets: tuple[str, ...] = ()
    """`KEY=VALUE` changes to the spec, applied after the overlays."""
    overlays: tuple[Path, ...] = ()
    """YAML files merged over the spec, in order."""
    plugins: tuple[Path, ...] = ()
    """Scratch plugin files to load with the installed plugins; their hashes are recorded."""
    on: str = DEFAULT_EXECUTOR
    """The executor of every stage that names none with `on:`: an installed one, or an entry of the
    spec's `executors`.
    """
    gpu: str | None = None
    """Which GPUs of this machine to use: `5`, `2,5`, `all` or `none`; None leaves the choice to
    the executors' params and to CUDA_VISIBLE_DEVICES. An executor with `gpus: none`
    keeps it where others may have GPUs.
    """
    store: str | None = None
    """Folder or URI of the store; None means TOOLKIT_STORE, else ./toolkit-runs."""

    def command(self, target: str) -> str:
        """The command line that runs `target` with these options."""
        words = ["toolkit", "run", target]
        for option, values in (
            ("--set", self.sets),
            ("--overlay", self.overlays),
            ("--plugin", self.plugins),
        ):
            for value in values:
                words += [option, str(value)]
        if self.on != DEFAULT_EXECUTOR:
            words += ["--on", self.on]
        if self.gpu is not None:
            words += ["--gpu", self.gpu]
        if self.store:
            words += ["--store", self.store]
        return shlex.join(words)
