"""Which workers a run may start: for each executor that the plan names, its requests, with GPUs by
UUID.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._plan.versions import versions
from toolkit._run.downloads import missing_downloads
from toolkit._run.events import RunEvent
from toolkit._run.run_folder import run_folder, store_folder
from toolkit._run.workers import Inbox, WorkerPool, worker_requests
from toolkit.errors import BadInput
from toolkit.executors.gpus import Gpu, choose_gpus, installed_gpus, unresolved_gpus
from toolkit.executors.interface import WorkerLimits, WorkerRequest
from toolkit.files import hub
from toolkit.secrets import Secrets

if TYPE_CHECKING:
    from toolkit._plan.plan import Executor, Plan, Stage
    from toolkit._plugins.registry import Parts
    from toolkit._run.options import RunOptions


@dataclass(frozen=True)
class PoolPlan:
    """The workers that one executor may be asked to start."""

    executor: Executor
    requests: Sequence[WorkerRequest]

    def record(self) -> dict[str, Any]:
        """What the manifest records about it."""
        gpus = [gpu for request in self.requests for gpu in request.gpus or ()]
        return {
            "name": self.executor.name,
            "executor": self.executor.part.name,
            "workers": len(self.requests),
            "gpus": [_identity(gpu) for gpu in dict.fromkeys(gpus)],
            "limits": asdict(self.requests[0].limits),
            **self.executor.part.record(self.executor.params, self.requests[0]),
        }

    def commands(self, folder: Path) -> Iterator[str]:
        """The command line of each worker of a run's folder, or the script that starts them all, if
        the executor states one.
        """
        part, params = self.executor.part, self.executor.params
        if part.script is not None:
            yield part.script(params, [in_folder(request, folder) for request in self.requests])
        command = part.command
        for request in self.requests if command else ():
            assert command is not None
            yield command(self.executor.params, in_folder(request, folder))


@dataclass(frozen=True)
class Pools:
    """The pools of a run."""

    plans: Mapping[str, PoolPlan]
    """The plan of each executor, by its name."""
    versions: Mapping[str, str]
    """The versions that every worker must have."""

    def record(self) -> list[dict[str, Any]]:
        """What the manifest records about them."""
        return [plan.record() for plan in self.plans.values()]

    def build(
        self, folder: Path, emit: Callable[[RunEvent], None]
    ) -> tuple[Inbox, dict[str, WorkerPool]]:
        """The pools of a run's folder, with the inbox that they share. Starts nothing."""
        inbox: Inbox = queue.Queue()
        pools = {}
        for name, plan in self.plans.items():
            requests = [in_folder(request, folder) for request in plan.requests]
            pools[name] = WorkerPool(plan.executor, requests, self.versions, inbox, emit)
        return inbox, pools


def make_pools(plan: Plan, parts: Parts, options: RunOptions, *, rendering: bool = False) -> Pools:
    """Choose the workers of every executor that a stage names. Refuses a missing GPU, except for
    `rendering` command lines on a machine without any, such as a login node.
    """
    executors = [plan.executors[name] for name in plan.stages_on()]
    on_cpu = _on_cpu(executors)
    plans = {}
    for executor in executors:
        name = executor.name
        stages = [stage for stage in plan.stages if stage.on == name]
        template = _template(executor, stages, options, plan.secrets)
        option = None if name in on_cpu else options.gpu
        gpus = _gpus(executor, option, rendering)
        workers = executor.part.workers(executor.params)
        plans[name] = PoolPlan(executor, worker_requests(template, gpus, workers))
    return Pools(plans, versions(parts))


def in_folder(request: WorkerRequest, folder: Path) -> WorkerRequest:
    """A request with the folders of a run."""
    return replace(
        request,
        folder=folder / "workers",
        jobs=(folder / "jobs").absolute(),
        inputs=(folder / "inputs").absolute(),
    )


def _template(
    executor: Executor, stages: Sequence[Stage], options: RunOptions, secrets: Secrets
) -> WorkerRequest:
    return WorkerRequest(
        name=executor.name,
        executor=executor.name,
        folder=Path("workers"),
        jobs=Path("jobs"),
        inputs=Path("inputs"),
        plugins=tuple(path.resolve() for path in options.plugins),
        files=tuple(dict.fromkeys(_files(stages))),
        model_cache=hub.cache_folder(),
        network=any(map(_may_download, stages)),
        limits=executor.part.limits(executor.params) or WorkerLimits(),
        secrets=secrets.values,
    )


def worker_commands(plan: Plan, parts: Parts, options: RunOptions) -> Sequence[str]:
    """The command lines that would start the workers of a plan, with a comment above those of each
    executor if there are several. Starts nothing.
    """
    pools = make_pools(plan, parts, options, rendering=True)
    folder = run_folder(store_folder(options.store), plan.run)
    lines: list[str] = []
    for name, pool in pools.plans.items():
        if len(pools.plans) > 1:
            stages = ", ".join(plan.stages_on()[name])
            lines.append(f"# {pool.executor.describe()}: {stages}")
        lines += pool.commands(folder)
    return lines


def _on_cpu(executors: Sequence[Executor]) -> set[str]:
    """The executors whose params say `gpus: none` where others may have GPUs: `--gpu` applies to
    the others, or to all if all say so.
    """
    without = {pool.name for pool in executors if pool.part.gpus(pool.params) == "none"}
    return without if len(without) < len(executors) else set()


def _gpus(executor: Executor, option: str | None, rendering: bool) -> list[Gpu] | None:
    """The GPUs of an executor's workers: `--gpu`, else its params; None leaves the choice open."""
    request = executor.part.gpus(executor.params) if option is None else option
    if request is None:
        return None
    if not executor.part.local_gpus:
        if option is not None:
            raise BadInput(
                f"--gpu {option} means a GPU of this machine, and the workers of executor "
                f"'{executor.name}' run elsewhere. Name its GPUs under executors.{executor.name}."
            )
        return None
    installed = installed_gpus()
    if rendering and not installed:
        return unresolved_gpus(request)
    return choose_gpus(request, installed, os.environ)


def _files(stages: Iterable[Stage]) -> Iterator[Path]:
    """Files and folders that params name; `PathText` has made their paths absolute."""
    for stage in stages:
        for owner in (stage, stage.model, stage.saes):
            if owner is not None:
                for text in _texts(owner.params.model_dump(mode="json")):
                    if text.startswith("/") and os.path.exists(text):
                        yield Path(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _may_download(stage: Stage) -> bool:
    """Whether a stage loads something of which the hub's cache lacks files."""
    return not hub.offline() and any(missing_downloads(stage))


def _identity(gpu: Gpu) -> dict[str, Any]:
    return {name: value for name, value in asdict(gpu).items() if name != "free_bytes"}
