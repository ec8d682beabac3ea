"""Runs the programs of Slurm and reads their output."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import BadInput

TIMEOUT_SECONDS = 60
PRIVATE = re.compile("TOKEN|SECRET|PASSWORD|CREDENTIAL|API_KEY", re.IGNORECASE)
"""Environment variables that a job does not inherit."""
HOLDING_A_NODE = frozenset(
    {"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "COMPLETING", "RESIZING"}
)
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    }
)


class SlurmUnavailable(BadInput):
    """A program of Slurm failed, as happens while the controller restarts."""


@dataclass(frozen=True)
class TaskState:
    """One array task in the queue."""

    state: str
    restarts: int
    """How often it was requeued."""


def max_array_size() -> int:
    """The cluster's MaxArraySize; 0 allows no array."""
    text = _run(["scontrol", "show", "config"])
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    if match is None:
        raise BadInput("`scontrol show config` prints no MaxArraySize. Is this a Slurm cluster?")
    return int(match[1])


def chunks(tasks: int, max_size: int) -> list[int]:
    """The sizes of array jobs with this many tasks in total, each below MaxArraySize."""
    size = max(1, max_size - 1)
    full, remainder = divmod(tasks, size)
    return [size] * full + ([remainder] if remainder else [])


def submit(script: Path, tasks: int, secrets: Mapping[str, str], executor: str) -> str:
    """Submit one array job with this many tasks of an executor, and return its id. The job inherits
    the values that the spec takes from the environment; they are written nowhere else.
    """
    inherited = {name: value for name, value in os.environ.items() if not PRIVATE.search(name)}
    words = ["sbatch", "--parsable", f"--array=0-{tasks - 1}", str(script)]
    try:
        return _run(words, {**inherited, **secrets}).strip().split(";")[0]
    except SlurmUnavailable as error:
        raise BadInput(
            f"{error}. Correct `executors.{executor}` (the script is {script}), then issue the "
            "same command again."
        ) from None


def tasks_named(name: str) -> dict[str, TaskState]:
    """This user's tasks with a job name that have not ended, by `JOB_TASK`."""
    layout = "JobArrayID:64,State:32,RestartCnt:16"
    text = _run(["squeue", "--me", "--array", "--noheader", f"--name={name}", "-O", layout])
    tasks = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] not in ENDED:
            tasks[words[0]] = TaskState(words[1], int(words[2]) if words[2].isdigit() else 0)
    return tasks


def how_ended(task: str) -> str:
    """How a task ended, as far as the controller still knows: its id, state and reason."""
    try:
        text = _run(["scontrol", "show", "job", "-o", task])
    except SlurmUnavailable:
        return f"its task {task} ended"
    state = re.search(r"JobState=(\S+)", text)
    reason = re.search(r"Reason=(\S+)", text)
    words = [match[1] for match in (state, reason) if match and match[1] != "None"]
    return f"its task {task} ended" + (f": {', '.join(words)}" if words else "")


def cancel(name: str, *, pending_only: bool = False) -> None:
    """Cancel the tasks with a job name. It is no error if they have ended already."""
    words = ["scancel", "--me", f"--name={name}"]
    try:
        _run([*words, "--state=PENDING"] if pending_only else words)
    except SlurmUnavailable:
        return


def _run(words: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    try:
        result = subprocess.run(
            list(words),
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    except FileNotFoundError:
        raise BadInput(
            f"There is no `{words[0]}` on the PATH: this is not a login node of a Slurm cluster. "
            "Run there, or use `--on local`."
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmUnavailable(f"Slurm gave no answer in {TIMEOUT_SECONDS} s: {words[0]}") from None
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit status {result.returncode}"
        raise SlurmUnavailable(f"{words[0]} failed: {reason}")
    return result.stdout
