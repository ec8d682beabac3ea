"""Running a plan: expand a stage when its needs have committed, reuse what the ledger has, hand the
rest to workers, commit.

Only this process commits. A step exists from the moment its ledger row is written, so this program
may be killed at any point: the same command finds what is committed, takes over finished job
folders that were not committed yet, and does the rest.
"""

from __future__ import annotations

import queue
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._plan.costs import check_disk, cost_of, rows_of
from toolkit._plan.plan import Plan, Stage, Step, expand
from toolkit._plan.texts import workload
from toolkit._run.batch_plans import BatchPlans, memory_of
from toolkit._run.events import EventLog, now
from toolkit._run.history import foretold, reason
from toolkit._run.inputs import InputFiles, StoreInputs
from toolkit._run.interrupts import Interrupts
from toolkit._run.job_folder import collect
from toolkit._run.run_folder import REPORT, again
from toolkit._run.sinks import write_sinks
from toolkit._run.watchdog import Watchdog
from toolkit._run.workers import Pool, Seat
from toolkit.costs import Cost
from toolkit.errors import Interrupted, Refused, StepFailed, ToolkitError
from toolkit.ledger import StepRow

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store import Store

ATTEMPTS = 3
TICK_SECONDS = 0.1


@dataclass
class Result:
    """What a run did."""

    computed: int = 0
    reused: int = 0
    rows: dict[str, list[StepRow]] = field(default_factory=dict)

    def keys(self) -> list[str]:
        """The run is the list of its steps."""
        return [row.key for rows in self.rows.values() for row in rows]


class Runner:
    """One attempt at a plan. `go` is the whole story; everything else is a sentence of it."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        pool_of: Callable[[Path, Callable[..., None]], Pool],
        log: EventLog,
        folder: Path,
    ) -> None:
        self._plan, self._store, self._log, self._folder = plan, store, log, folder
        self._pool = pool_of(folder / "workers", log.emit)
        self._batches = BatchPlans(
            folder, lambda on_cpu: memory_of(self._pool.devices, on_cpu=on_cpu)
        )
        self._left: dict[str, Cost] = {}
        self._whole: dict[str, Cost] = {}
        self._watch = Watchdog(self._pool, log.emit)
        self._inputs = InputFiles(store, folder / "inputs")
        self._result = Result()
        self._waiting = list(plan.stages)
        self._steps: dict[str, list[Step]] = {}
        self._todo: deque[tuple[Step, str]] = deque()
        self._flying: dict[str, Step] = {}
        self._attempts: dict[str, int] = {}
        self._failures: list[str] = []
        self._passed: set[str] = set()
        self._foretold: set[str] = set()
        self._sharing: dict[str, list[Step]] = {}
        self._started = time.monotonic()
        self._was_done = False

    def go(self, interrupts: Interrupts) -> Result:
        """Run until every step is committed, one has failed, or the user stops it."""
        states = self._store.run_states(self._plan.run)
        self._was_done = bool(states) and states[-1].state == "done"
        self._note("running", "")
        try:
            self._loop(interrupts)
            self._finish()
        except Interrupted as error:
            self._note("interrupted", str(error))
            raise
        except (ToolkitError, OSError) as error:
            self._fail(error)
            raise
        finally:
            self._pool.stop(now=bool(self._flying))
        return self._result

    # --- the loop ---

    def _loop(self, interrupts: Interrupts) -> None:
        told = False
        while True:
            stopping = bool(interrupts.count) or bool(self._failures)
            if not stopping:
                self._advance()
                self._dispatch()
            if interrupts.count and not told:
                told = True
                self._log.emit("interrupting", running=len(self._flying))
            if not self._flying and (stopping or not (self._todo or self._waiting)):
                break
            if interrupts.count > 1:
                break
            self._listen()
        self._settle(interrupts)

    def _settle(self, interrupts: Interrupts) -> None:
        if self._failures:
            raise StepFailed("\n".join(self._failures))
        if interrupts.count:
            command = again(self._plan.run, self._store.folder)
            done, total = self._counts()
            self._log.emit(
                "run_interrupted", done=done, total=total or "an unknown number of", command=command
            )
            raise Interrupted(
                f"{done} step{'s'[: done != 1]} {'is' if done == 1 else 'are'} safe. Continue "
                f"with: {command}"
            )

    def _advance(self) -> None:
        """Expand every stage whose needs have committed; reuse and take over what there is."""
        for stage in [
            stage
            for stage in self._waiting
            if all(map(self._complete, (*stage.needs, *stage.after)))
        ]:
            self._pass_gates(stage)
            self._waiting.remove(stage)
            self._open(stage)

    def _pass_gates(self, stage: Stage) -> None:
        """Before a stage uses SAEs, see what their examination found."""
        for gate in (self._plan.stage(id) for id in stage.after if id not in self._passed):
            self._passed.add(gate.id)
            keys = [row.key for row in self._result.rows[gate.id]]
            misfits = [
                row["message"]
                for row in self._store.read("saes", keys).to_pylist()
                if row["message"]
            ]
            for message in misfits:
                self._log.emit("sae_does_not_fit", stage=gate.id, message=message)
            if misfits and gate.gate == "stop":
                told = "\n".join(misfits)
                raise Refused(
                    f"{told}\n"
                    "Nothing that uses these SAEs was run. `--set examine=warn` goes on all the "
                    "same."
                )

    def _complete(self, stage: str) -> bool:
        return stage in self._steps and len(self._result.rows.get(stage, [])) == len(
            self._steps[stage]
        )

    def _open(self, stage: Stage) -> None:
        needs = {need: self._result.rows[need] for need in stage.needs}
        samples = self._inputs.samples(stage, needs) if stage.over_samples() else None
        steps = expand(stage, needs, samples)
        self._steps[stage.id], self._result.rows[stage.id] = steps, []
        committed = {row.key: row for row in self._store.steps([step.key for step in steps])}
        todo = [step for step in steps if step.key not in committed]
        if samples is not None:
            self._weigh(stage, samples, todo)
        reused = len(steps) - len(todo)
        self._log.emit(
            "stage_ready",
            stage=stage.id,
            part=stage.part.name,
            steps=len(steps),
            reused=reused,
            todo=len(todo),
        )
        for step in steps:
            if step.key in committed:
                self._reuse(step, committed[step.key])
        earlier = self._store.steps(experiment=stage.experiment, stage=stage.id) if todo else []
        self._foretell(stage, foretold(len(todo), earlier, stage), "earlier runs")
        self._todo.extend(
            (step, reason(step, earlier))
            for step in todo
            if not self._take_over(step) and not self._joins(step)
        )

    def _weigh(self, stage: Stage, samples: pa.Table, todo: Sequence[Step]) -> None:
        """Refuse what the disk has no room for; choose the stage's batch plan before its first
        step, and record it.
        """
        load = workload(samples, stage.model, stage.saes)
        left = (
            cost_of(stage, workload(rows_of(todo, samples), stage.model, stage.saes))
            if todo
            else Cost()
        )
        if (cost := cost_of(stage, load)) and left:
            self._left[stage.id], self._whole[stage.id] = left, cost
            unwritten = [cost for id, cost in self._left.items() if not self._complete(id)]
            check_disk(self._plan, unwritten, self._whole.values(), self._store.folder)
        if fixed := self._batches.fix(stage, load):
            self._log.emit("batch_plan", stage=stage.id, **fixed)

    def _foretell(self, stage: Stage, seconds: float | None, basis: str) -> None:
        """Say once how long a stage's steps will take; the report compares the actual time."""
        if seconds is not None and stage.id not in self._foretold:
            self._foretold.add(stage.id)
            self._log.emit("stage_foretold", stage=stage.id, seconds=seconds, basis=basis)

    def _reuse(self, step: Step, row: StepRow) -> None:
        self._result.reused += 1
        self._result.rows[step.stage.id].append(row)
        self._log.emit("step_reused", key=step.key, stage=step.stage.id, index=step.index)

    def _take_over(self, step: Step) -> bool:
        """Commit a step that a worker finished before the last stop and that nobody committed."""
        if collect(self._job_folder(step)) is None:
            return False
        self._commit(step, "an earlier worker")
        self._log.emit("step_found", key=step.key, stage=step.stage.id, index=step.index)
        return True

    def _joins(self, step: Step) -> bool:
        """Whether another stage of this run is computing the same content: it is computed once, for
        both.
        """
        joined = step.key in self._sharing
        self._sharing.setdefault(step.key, []).append(step)
        return joined

    # --- workers ---

    def _dispatch(self) -> None:
        self._pool.start(len(self._todo) + len(self._flying))
        while self._todo:
            step, why = self._todo[0]
            warmth = step.stage.warmth()
            seat = self._pool.idle(warmth)
            if seat is None:
                return
            self._todo.popleft()
            self._flying[step.key] = step
            self._pool.give(seat, self._job(step), warmth)
            facts = {"key": step.key, "stage": step.stage.id, "index": step.index}
            self._log.emit("step_started", **facts, worker=seat.worker.name, reason=why)

    def _job(self, step: Step) -> dict[str, Any]:
        stage, folder = step.stage, self._job_folder(step)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return {
            "job": step.key,
            "folder": str(folder),
            "kind": stage.part.kind,
            "part": stage.part.name,
            "params": stage.params.model_dump(mode="json"),
            "seed": stage.seed,
            "limit": stage.limit,
            "batch": dict(self._batches.of(stage)),
            "units": [step.first, step.last] if stage.units() is not None else None,
            "features": [step.first, step.last] if stage.features() is not None else None,
            "model": stage.model.job() if stage.model and not stage.unloaded else None,
            "identity": stage.model and asdict(stage.model.identity),
            "saes": stage.saes and stage.saes.job(),
            "inputs": self._inputs.files(
                step, {need: self._result.rows[need] for need in stage.needs}, folder / "in"
            ),
        }

    def _job_folder(self, step: Step) -> Path:
        return self._folder / "jobs" / step.key

    def _listen(self) -> None:
        """Take what workers say for a moment, and look after silent ones."""
        try:
            seat, event = self._pool.inbox.get(timeout=TICK_SECONDS)
        except queue.Empty:
            self._watch.look(self._describe)
            self._log.emit("alive")
            return
        if event is None:
            self._buried(seat)
        else:
            self._heard(seat, event)

    def _describe(self, job: str | None) -> tuple[str, int]:
        """Stage and index of a job, for the watchdog; a worker without one is starting."""
        return (
            (self._flying[job].stage.id, self._flying[job].index)
            if job
            else ("the worker's start", 0)
        )

    def _heard(self, seat: Seat, event: Mapping[str, Any]) -> None:
        name = event["event"]
        self._watch.heard(seat, name, event.get("phase"))
        if name == "hello":
            self._pool.welcome(seat, event)
        elif name == "done":
            self._done(seat, event)
        elif name == "failed":
            self._failed(seat, event)
        elif name == "told":
            step = self._flying[event["job"]]
            facts = {
                "stage": step.stage.id,
                "index": step.index,
                "key": step.key,
                "worker": seat.worker.name,
            }
            self._log.emit(event["name"], **event["facts"], **facts)
        elif name != "stack":
            self._log.emit(
                name,
                **{k: v for k, v in event.items() if k not in ("event", "at")},
                worker=seat.worker.name,
            )

    def _done(self, seat: Seat, event: Mapping[str, Any]) -> None:
        step = self._flying[event["job"]]
        row = self._commit(step, seat.worker.name)
        del self._flying[step.key]
        seat.job = None
        self._watch.took(event["seconds"])
        left = sum(
            other.stage.id == step.stage.id
            for other in (*self._flying.values(), *(todo for todo, _ in self._todo))
        )
        self._foretell(
            step.stage, event["seconds"] * (1 + left) if left else None, "its first step"
        )
        facts = {
            "key": step.key,
            "stage": step.stage.id,
            "index": step.index,
            "worker": seat.worker.name,
        }
        memory = {"host_bytes": event["host_bytes"], "device_bytes": event["device_bytes"]}
        self._log.emit(
            "step_done", **facts, seconds=event["seconds"], rows=dict(row.tables), **memory
        )

    def _failed(self, seat: Seat, event: Mapping[str, Any]) -> None:
        if event["job"] is None:
            raise self._pool.refused(seat, event)
        step = self._flying.pop(event["job"])
        seat.job = None
        at = (
            f"stage '{step.stage.id}', step {step.index} "
            f"({step.stage.part.name}): "
            f"{event['message']}"
        )
        self._failures.append(at)
        facts = {
            "key": step.key,
            "stage": step.stage.id,
            "index": step.index,
            "worker": seat.worker.name,
        }
        self._log.emit("step_failed", **facts, error=event["message"], traceback=event["traceback"])

    def _buried(self, seat: Seat) -> None:
        """A worker ended. Its step goes to a fresh one, a few times; a worker that dies again and
        again is the step's fault.
        """
        seat.ended = True
        how = self._pool.replace(seat)
        if seat.job is None:
            return
        step = self._flying.pop(seat.job)
        tried = self._attempts[step.key] = self._attempts.get(step.key, 1) + 1
        facts = {
            "key": step.key,
            "stage": step.stage.id,
            "index": step.index,
            "worker": seat.worker.name,
        }
        if tried > ATTEMPTS:
            error = (
                f"its worker died {ATTEMPTS} times ({how}); the last words: "
                f"{self._folder / 'workers'}/{seat.worker.name}.log"
            )
            self._failures.append(f"stage '{step.stage.id}', step {step.index}: {error}")
            self._log.emit("step_failed", **facts, error=error, traceback="")
            return
        self._log.emit("step_retried", **facts, how=how, attempt=tried, attempts=ATTEMPTS)
        self._todo.appendleft((step, "its worker died"))

    # --- committing ---

    def _commit(self, step: Step, worker: str) -> StepRow:
        folder = self._job_folder(step)
        found = collect(folder)
        if found is None:
            at = f"stage '{step.stage.id}', step {step.index}"
            raise StepFailed(
                f"{at}: the files in {folder} are not those the worker wrote. Examine the disk, "
                "then run again."
            )
        done, tables = found
        row = self._row(
            step, worker, done["seconds"], {name: len(rows) for name, rows in tables.items()}
        )
        self._store.commit(row, tables)
        self._result.computed += 1
        self._result.rows[step.stage.id].append(row)
        for other in self._sharing.pop(step.key, [])[1:]:
            self._reuse(other, row)
        del tables, found
        shutil.rmtree(folder, ignore_errors=True)
        return row

    def _row(self, step: Step, worker: str, seconds: float, tables: Mapping[str, int]) -> StepRow:
        return StepRow(
            key=step.key,
            experiment=step.stage.experiment,
            stage=step.stage.id,
            part=step.stage.part.name,
            part_version=step.stage.part.version,
            run=self._plan.run,
            index=step.index,
            material=step.material,
            tables=tables,
            worker=worker,
            seconds=seconds,
            committed_at=now(),
            first=step.first,
            last=step.last,
        )

    # --- the end ---

    def _finish(self) -> None:
        self._store.index(self._result.keys(), run=self._plan.run)
        inputs = StoreInputs(self._store, self._result.rows, self._folder / "inputs")
        for name, folder, files in write_sinks(self._plan, inputs):
            self._log.emit(
                "sink_written", sink=name, folder=str(folder), files=len(files), hashes=files
            )
        for leftover in ("jobs", "inputs"):
            shutil.rmtree(self._folder / leftover, ignore_errors=True)
        # A report made while the run was under way must not pass for that of a run that is done.
        if self._result.computed or not self._was_done:
            (self._folder / REPORT).unlink(missing_ok=True)
        seconds = time.monotonic() - self._started
        self._log.emit(
            "run_done", computed=self._result.computed, reused=self._result.reused, seconds=seconds
        )
        self._note("done", "")

    def _fail(self, error: Exception) -> None:
        """Record a failure. Where even that fails (a full disk), the error itself still reaches the
        user.
        """
        try:
            self._log.emit("run_failed", error=str(error))
            self._note("failed", str(error).splitlines()[0][:500])
        except (ToolkitError, OSError):
            return

    def _note(self, state: str, note: str) -> None:
        done, total = self._counts()
        with self._store.writer():
            keys = dict.fromkeys([*self._result.keys(), *self._imported()])
            self._store.record_run(
                run=self._plan.run,
                name=self._plan.name,
                state=state,
                done=done,
                total=total,
                note=note,
                steps=list(keys),
            )

    def _imported(self) -> list[str]:
        """Steps that imports have added to the run, before or meanwhile: no stage makes them, and
        the run keeps them.
        """
        there = [key for row in self._store.run_states(self._plan.run) for key in row.steps]
        return [row.key for row in self._store.steps(there) if row.imported]

    def _counts(self) -> tuple[int, int | None]:
        """Committed steps, and how many there are once every stage has expanded."""
        done = sum(len(rows) for rows in self._result.rows.values())
        return done, None if self._waiting else sum(len(steps) for steps in self._steps.values())
