"""Experiments from Python: load a spec, check it, plan it, run it, as the command line does.

experiment = toolkit.load("specs/quickstart.yaml", sets=["stages.play.with.reps=8"])
experiment.plan().total.memory
outcome = experiment.run()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._spec.defaults import DEFAULT_EXECUTOR

if TYPE_CHECKING:
    from toolkit._flow import Outcome, Planned
    from toolkit._run.options import RunOptions
    from toolkit._run.target import SpecData
    from toolkit.costs import Cost


@dataclass(frozen=True)
class ExperimentPlan:
    """What a run would do, as `toolkit plan` prints it."""

    run: str
    """The id that the run would have."""
    stages: Sequence[Mapping[str, Any]]
    """One row per stage: its part, needs, steps, why they are computed, and their cost."""
    total: Cost
    """The most that all stages together can cost."""
    expected: Cost
    """The expected cost of all stages together."""


@dataclass(frozen=True)
class Experiment:
    """A spec, or a recorded run, with the options that change it."""

    target: str | SpecData
    options: RunOptions

    def check(self) -> str:
        """Check keys, parts, values, tables and labels, and return the id that the run would have.
        A mistake is a `toolkit.errors.BadInput` that says where it is and what is allowed.
        """
        return self._planned().plan.run

    def plan(self) -> ExperimentPlan:
        """Say what would run and what it costs. Nothing is run."""
        from toolkit._plan.costs import total_of
        from toolkit._run.forecast import annotate
        from toolkit._run.run_folder import store_folder

        plan = self._planned().plan
        rows = annotate(plan, store_folder(self.options.store))
        bound, expected = (total_of(row[of] for row in rows) for of in ("cost", "expected"))
        return ExperimentPlan(plan.run, rows, bound, expected)

    def run(self, *, quiet: bool = False) -> Outcome:
        """Run it, or continue it; returns its id, findings and the path of its report. Progress
        goes to stderr unless `quiet`.
        """
        from toolkit import _flow
        from toolkit._run.display import NORMAL, QUIET, display

        with display(verbosity=QUIET if quiet else NORMAL) as show:
            return _flow.run(self._planned(), show)

    def _planned(self) -> Planned:
        from toolkit import _flow

        return _flow.plan(self.target, self.options)


@dataclass(frozen=True, init=False)
class Uses:
    """A part and its params: `Uses("count", n=24)` is `{uses: count, with: {n: 24}}`. Pass params
    whose names are not Python names as `**{"name": value}`.
    """

    uses: str
    params: Mapping[str, Any]
    origin: Mapping[str, str]
    """For samples that come from a stage: `stage`, and `spec` if it is a stage of another file."""

    def __init__(self, uses: str, /, **params: Any) -> None:
        object.__setattr__(self, "uses", uses)
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "origin", {})

    def of_stage(self, stage: str, spec: str | Path | None = None) -> Uses:
        """This source, reading the tables of a stage of this experiment or of a spec file."""
        part = Uses(self.uses, **self.params)
        origin = {"stage": stage} | ({} if spec is None else {"spec": str(spec)})
        object.__setattr__(part, "origin", origin)
        return part

    def entry(self, **more: Any) -> dict[str, Any]:
        """The part as a spec file writes it."""
        settings = {"with": dict(self.params), "from": dict(self.origin), **more}
        return {"uses": self.uses} | {
            name: value for name, value in settings.items() if value or value == 0
        }


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """One stage: its id, its part, the stages that it needs (ids, or `{"spec": FILE, "stage": ID}`
    for one of another spec), and optionally a model, SAEs, samples or a seed that replace the
    spec's.
    """

    id: str
    part: Uses
    needs: Sequence[str | Mapping[str, str]] = ()
    seed: int | None = None
    on: str | None = None
    model: Uses | None = None
    saes: Uses | None = None
    samples: Uses | None = None

    def entry(self) -> dict[str, Any]:
        """The stage as a spec file writes it."""
        others = {
            name: part.entry()
            for name, part in (
                ("model", self.model),
                ("saes", self.saes),
                ("samples", self.samples),
            )
            if part is not None
        }
        return {
            "id": self.id,
            **self.part.entry(needs=list(self.needs), seed=self.seed, on=self.on),
            **others,
        }


def build(
    name: str,
    *,
    stages: Sequence[StageEntry],
    model: Uses | None = None,
    saes: Uses | None = None,
    samples: Uses | None = None,
    seed: int = 0,
    question: str | None = None,
    folder: str | Path = ".",
    more: Mapping[str, Any] | None = None,
    sets: str | Sequence[str] = (),
    plugins: str | Path | Sequence[str | Path] = (),
    on: str = DEFAULT_EXECUTOR,
    gpu: str | None = None,
    store: str | Path | None = None,
) -> Experiment:
    """An experiment built from objects, without a file. It is checked like a spec file, and the
    same contents give the same keys: what a spec file has computed is not computed again.

    `more` holds other entries of a spec (`limit`, `sinks`, `examine` ...). Paths among the params
    are relative to `folder`.
    """
    from toolkit._run.target import SpecData

    data: dict[str, Any] = {"version": 1, "name": name, "seed": seed}
    data |= {} if question is None else {"question": question}
    for field, part in (("model", model), ("saes", saes), ("samples", samples)):
        if part is not None:
            data[field] = part.entry()
    data["stages"] = [stage.entry() for stage in stages]
    data |= dict(more or {})
    target = SpecData(_plain(data, ""), Path(folder).absolute() / f"{name} (built in Python)")
    return Experiment(target, _options((), sets, plugins, on, gpu, store))


def _plain(value: Any, path: str) -> Any:
    """Convert a value to what YAML can hold. Anything else is refused, with its path."""
    from toolkit.errors import BadInput

    if isinstance(value, Mapping):
        return {str(key): _plain(child, f"{path}.{key}") for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child, f"{path}.{index}") for index, child in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BadInput(
        f"{path.lstrip('.')}: a {type(value).__name__} cannot be written in a spec. Give text, "
        "numbers, true or false, lists, mappings or paths."
    )


def load(
    target: str | Path,
    *,
    overlay: str | Path | Sequence[str | Path] = (),
    sets: str | Sequence[str] = (),
    plugins: str | Path | Sequence[str | Path] = (),
    on: str = DEFAULT_EXECUTOR,
    gpu: str | None = None,
    store: str | Path | None = None,
) -> Experiment:
    """An experiment from a spec file or a run's id. The options are those of the command line;
    nothing is read before `check`, `plan` or `run`.
    """
    return Experiment(str(target), _options(overlay, sets, plugins, on, gpu, store))


def _paths(paths: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return tuple(map(Path, [paths] if isinstance(paths, (str, Path)) else paths))


def _options(
    overlays: str | Path | Sequence[str | Path],
    sets: str | Sequence[str],
    plugins: str | Path | Sequence[str | Path],
    on: str,
    gpu: str | None,
    store: str | Path | None,
) -> RunOptions:
    from toolkit._run.options import RunOptions

    return RunOptions(
        sets=tuple([sets] if isinstance(sets, str) else sets),
        overlays=_paths(overlays),
        plugins=_paths(plugins),
        on=on,
        gpu=gpu,
        store=None if store is None else str(store),
    )
