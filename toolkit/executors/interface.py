"""The interface of executors: a request for one worker, and the worker that was started.

Plugins that start workers in containers or on other machines import this module,
`toolkit.executors.processes` and `toolkit.executors.protocol`; docs/how-to/write-an-executor.md
walks through them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from toolkit.executors.gpus import Gpu
from toolkit.executors.protocol import WorkerEvent
from toolkit.params import Params


class GpuCount(BaseModel):
    """A number of GPUs; the executor chooses which."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int = Field(ge=1, description="number of GPUs")


GpuName = Annotated[str, Field(pattern=r"^([0-9]+|(GPU|MIG)-.+)$")]
GpuIndices = Annotated[list[Annotated[int, Field(ge=0)] | GpuName], Field(min_length=1)]
GpuChoice = GpuIndices | Literal["all", "none"] | GpuCount
"""A params field that says which GPUs to use: `[2, 5]`, UUIDs, `all`, `none` or `{count: 2}`."""


def gpu_request(choice: GpuChoice | None) -> str | None:
    """Write a GpuChoice as the text that `--gpu` takes."""
    if isinstance(choice, GpuCount):
        return f"count:{choice.count}"
    if isinstance(choice, list):
        return ",".join(map(str, choice))
    return choice


class WorkersHere(Params):
    """How many workers an executor starts on this machine, and what of the machine each gets."""

    workers: int = Field(
        1, ge=1, le=256, description="Number of workers; one per GPU if GPUs are named."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Compute threads of a worker; by default an equal share of the cores.",
    )
    gpus: GpuChoice | None = Field(
        None, description="Physical indices or UUIDs, `all`, `none` or `{count: N}`."
    )

    @field_validator("gpus")
    @classmethod
    def _each_gpu_once(cls, choice: GpuChoice | None) -> GpuChoice | None:
        if isinstance(choice, list) and len(set(map(str, choice))) != len(choice):
            raise ValueError("name each GPU once")
        return choice

    def threads_of_each(self) -> int:
        """The compute threads of one worker."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)


@dataclass(frozen=True, kw_only=True)
class WorkerLimits:
    """The most that one worker may take. None sets no limit."""

    memory_bytes: int | None = None
    """Memory of the process."""
    shm_bytes: int | None = None
    """The size of its /dev/shm."""


@dataclass(frozen=True, kw_only=True)
class WorkerRequest:
    """One worker that the host asks an executor to start, and everything that it may see."""

    name: str
    """The worker's name, unique in the run; its log is `folder/NAME.log`."""
    executor: str
    """The name of its executor in the spec: that of the part, or of an entry that uses it. A run
    may have several executors of one part, each with params and workers of its own.
    """
    folder: Path
    """Where executors keep the logs of workers."""
    jobs: Path
    """The folder of all job folders: the worker reads and writes it."""
    inputs: Path
    """The folder of input tables that several jobs share: read only."""
    plugins: tuple[Path, ...] = ()
    """Scratch plugin files: read only."""
    files: tuple[Path, ...] = ()
    """Files and folders named by the params of its jobs, such as a local model: read only."""
    model_cache: Path | None = None
    """The cache of the model hub: read only, unless `network`."""
    network: bool = False
    """Whether its jobs may have to download a model or SAEs."""
    gpus: tuple[Gpu, ...] | None = None
    """The GPUs that it gets, to be passed by UUID. Empty: no GPU. None: whatever is available where
    it starts.
    """
    limits: WorkerLimits = WorkerLimits()
    """Its limits, as `ExecutorPart.limits` gives them."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment values of the spec, by name. The host sends them to the worker, which keeps them
    out of its log; an executor never writes them to a file.
    """


@dataclass(frozen=True, kw_only=True)
class ClusterRequest:
    """The job that `toolkit cluster render` asks an executor to describe: a run on a cluster."""

    name: str
    """The name of the job, and of the ConfigMap that holds the spec."""
    image: str
    """The image of all pods."""
    params: Mapping[str, Any]
    """The params of each executor of the spec that uses the part, by its name."""
    command: Sequence[str]
    """The command line of the run, but for `--on`."""
    volumes: Sequence[tuple[Mapping[str, Any], str]]
    """The volumes of every pod, each with the folder where it is mounted."""


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended."""

    text: str
    """In words: `exit status 0`."""
    out_of_memory: bool = False
    """Whether it is known to have taken too much memory: its step is tried again with smaller
    batches.
    """


class Worker(Protocol):
    """One running worker, on any machine."""

    @property
    def name(self) -> str:
        """The name of its request."""
        ...

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message of `toolkit.executors.protocol`, with paths translated if the worker
        sees the same folder under another path. A worker that has already ended is not an error
        here.
        """
        ...

    def events(self) -> Iterator[WorkerEvent]:
        """Its events in order, until it ends."""
        ...

    def stop(self, *, now: bool = False) -> WorkerEnd:
        """End it, after its current job or at once, and return how it ended."""
        ...


def translate_paths(message: Any, folders: Mapping[Path, PurePosixPath]) -> Any:
    """Replace every path inside one of `folders` by the path that the worker sees."""
    if not folders:
        return message
    if isinstance(message, Mapping):
        return {name: translate_paths(value, folders) for name, value in message.items()}
    if isinstance(message, Sequence) and not isinstance(message, str):
        return [translate_paths(value, folders) for value in message]
    if isinstance(message, str) and message.startswith("/"):
        return _translated(message, folders)
    return message


def _translated(text: str, folders: Mapping[Path, PurePosixPath]) -> str:
    for outside, inside in sorted(folders.items(), key=lambda pair: -len(str(pair[0]))):
        if text == str(outside) or text.startswith(f"{outside}/"):
            return str(inside) + text[len(str(outside)) :]
    return text
