"""The params of `executors: {slurm: {...}}`."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from toolkit.files.local import PathText
from toolkit.parts import Params

RESERVED = {
    "array",
    "error",
    "export",
    "job-name",
    "no-requeue",
    "ntasks",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "wrap",
}
"""Options of sbatch that the executor sets itself."""
PARAMS = {
    "account": "account",
    "cpus-per-task": "cpus",
    "gpus-per-task": "gpus",
    "mem": "memory",
    "partition": "partition",
    "time": "time",
}
"""Options of sbatch that a param sets."""
OPTION = re.compile(r"[a-z][a-z0-9-]+")
PartOfALine = Annotated[str, Field(min_length=1, pattern=r"^[^\r\n]*$")]


def _options(options: dict[str, str]) -> dict[str, str]:
    for name, value in options.items():
        if name in PARAMS:
            raise ValueError(f"write '{PARAMS[name]}' beside 'sbatch', not '{name}' in it")
        if name in RESERVED or not OPTION.fullmatch(name):
            raise ValueError(
                "write sbatch options by their long names, without dashes before them, and not "
                f"{', '.join(sorted(RESERVED))}: '{name}'"
            )
        if "\n" in value or "\r" in value:
            raise ValueError(f"an sbatch option is one line: '{name}'")
    return options


def _seconds(time: str) -> int:
    """A time limit in seconds. 0 means no limit."""
    days, dash, rest = time.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if dash:  # days-hours, days-hours:minutes, days-hours:minutes:seconds
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(numbers) < 3:  # minutes, minutes:seconds
        numbers = [0, *numbers]
    hours, minutes, seconds = (*numbers, 0)[:3]
    return (hours * 60 + minutes) * 60 + seconds


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
    partition: PartOfALine | None = Field(None, description="The partition.")
    account: PartOfALine | None = Field(None, description="The account.")
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

    @model_validator(mode="after")
    def _leaves_in_time(self) -> Self:
        """Refuse a task that would leave as soon as it starts."""
        if 0 < (limit := _seconds(self.time)) <= self.leave:
            raise ValueError(
                f"'leave' is {self.leave} s and 'time' is {limit} s, so that a task would take no "
                "step; make 'time' longer"
            )
        return self
