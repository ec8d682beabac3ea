"""The params of `executors: {slurm: {...}}`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.files.local import PathText
from toolkit.parts import Params

RESERVED = {"array", "job-name", "output", "error", "signal", "requeue", "no-requeue", "export"}
"""Options of sbatch that the executor sets itself."""


def _options(options: dict[str, str]) -> dict[str, str]:
    for name, value in options.items():
        if name.startswith("-") or name in RESERVED:
            raise ValueError(
                f"write sbatch options without dashes, and not {', '.join(sorted(RESERVED))}: "
                f"'{name}'"
            )
        if "\n" in name + value:
            raise ValueError(f"an sbatch option is one line: '{name}'")
    return options


class Slurm(Params):
    """The number of tasks, what each task requests, and what runs before its worker starts."""

    workers: int = Field(1, ge=1, le=100_000, description="Tasks; each runs one worker.")
    time: str = Field(
        "01:00:00",
        pattern=r"^(\d+-)?\d+(:\d\d){0,2}$",
        description="The time limit of a task, as sbatch reads it. A task that reaches it is "
        "replaced by another.",
    )
    leave: int = Field(
        120,
        ge=1,
        le=65_535,
        description="A task takes no further step this many seconds before its time limit.",
    )
    gpus: int = Field(0, ge=0, description="GPUs of a task.")
    cpus: int = Field(1, ge=1, description="Cores of a task, and compute threads of its worker.")
    memory: str | None = Field(
        None, pattern=r"^\d+[KMGT]?$", description="Memory of a task, such as 64G."
    )
    partition: str | None = Field(None, description="The partition.")
    account: str | None = Field(None, description="The account.")
    sbatch: Annotated[dict[str, str], AfterValidator(_options)] = Field(
        default_factory=dict,
        description="Further options of sbatch, such as `constraint: a100`; an option without a "
        "value has an empty text.",
    )
    setup: tuple[str, ...] = Field(
        (), description="Shell lines before the worker starts, such as `module load cuda`."
    )
    sif: PathText | None = Field(
        None, description="An Apptainer image file, in which the worker then runs."
    )
    poll: float = Field(
        10.0, gt=0, le=600, description="Seconds between two checks of the batch system's queue."
    )
    wait: float = Field(
        600.0,
        gt=0,
        description="Seconds that a task without a step waits for a silent host.",
    )
