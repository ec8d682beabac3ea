"""Records of a plan: stages with everything bound, and the steps that they expand into. Pure: no
torch, no store, no network.

A *stage* is known before a run. Its *steps* are known when its inputs have committed, since a
step's key depends on the content that it works on: the rows of its sample range, or the keys of the
steps before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from toolkit._plan.keys import canonical
from toolkit._plan.resolve import Loadable
from toolkit._spec.load import LoadedSpec
from toolkit.identity import Identity
from toolkit.parts import (
    UNHASHED,
    ExecutorPart,
    ModelPart,
    SaePart,
    SinkParams,
    SinkPart,
    SourcePart,
    StagePart,
)
from toolkit.secrets import NONE, Secrets, keyed_hash

if TYPE_CHECKING:
    from pydantic import BaseModel

SAMPLES = "samples"


@dataclass(frozen=True)
class Stage:
    """One stage with its part, params, inputs and loadables. `id` is `samples` for the source, and
    `spec/id` for a stage of another experiment.

    `after` lists stages that have to be done first but give nothing that enters a key. `gate` says
    what happens when this stage finds SAEs that do not fit (`stop` or `warn`). `model_replaced`: a
    table of the needed stages replaces the model, so none is loaded. `hidden` has the params that
    hold environment values, as the spec refers to them.
    """

    id: str
    experiment: str
    part: SourcePart | StagePart
    params: BaseModel
    needs: tuple[str, ...]
    seed: int
    limit: int | None = None
    model: Loadable[ModelPart] | None = None
    saes: Loadable[SaePart] | None = None
    files: Identity | None = None
    after: tuple[str, ...] = ()
    gate: str | None = None
    model_replaced: bool = False
    on: str = ""
    """The executor whose workers compute it; enters no key."""
    hidden: Mapping[str, Any] = field(default_factory=dict)

    def writes(self) -> tuple[str, ...]:
        """The tables that it writes with its params."""
        return self.part.tables(self.params)

    def split_size(self) -> int | None:
        """Samples (or units) of one step, or None when the stage is a single step."""
        size = self.part.steps.size
        return int(getattr(self.params, size)) if size else None

    def units(self) -> int | None:
        """How many units the stage makes by itself, as far as the limit allows; None when it works
        on samples.
        """
        count = self.part.steps.units
        made = int(count(self.params)) if count else None
        return made if made is None or self.limit is None else min(made, self.limit)

    def features(self) -> int | None:
        """The most features that the stage works on, if it is split by features."""
        count = self.part.steps.features
        if count is None:
            return None
        return int(count(self.params, self.saes.identity.facts if self.saes else {}))

    def over_samples(self) -> bool:
        """Whether its steps are made of ranges of samples."""
        if self.units() is not None or self.features() is not None:
            return False
        return self.part.steps.sample_limit is not None or self.split_size() is not None

    @cached_property
    def loaded_key(self) -> str:
        """Equal for stages that can share a worker's loaded model and SAEs."""
        loaded = None if self.model_replaced else self.model
        return canonical({"model": loaded and loaded.job(), "saes": self.saes and self.saes.job()})

    def material(self) -> dict[str, Any]:
        """All that can change this stage's results except its inputs. The number of samples per
        step is not part of it.
        """
        return {
            "kind": self.part.kind,
            "part": self.part.name,
            "version": self.part.version,
            "params": self._hashed_params(),
            "seed": self.seed,
            "limit": None if self.units() is not None else self.limit,
            "model": self.model and self.model.material(),
            "saes": self.saes and self.saes.material(),
            "files": self.files and self.files.digest,
        }

    def recorded_params(self) -> dict[str, Any]:
        """The params as they may be written down: environment values as the spec refers to them."""
        return {**self.params.model_dump(mode="json"), **self.hidden}

    def _hashed_params(self) -> dict[str, Any]:
        """The params without the step size and without fields that a part marked as unable to
        change results; environment values as a keyed hash.
        """
        fields = type(self.params).model_fields
        unhashed = {name for name, field in fields.items() if field.json_schema_extra == UNHASHED}
        unhashed.add(self.part.steps.size or "")
        return {
            name: keyed_hash(canonical({name: value})) if name in self.hidden else value
            for name, value in self.params.model_dump(mode="json").items()
            if name not in unhashed
        }


@dataclass(frozen=True)
class Sink:
    """An export, bound to its params, and the folder that its paths are relative to."""

    name: str
    part: SinkPart
    params: SinkParams


@dataclass(frozen=True)
class Executor:
    """An executor under the name by which stages run `on` it, bound to its params."""

    name: str
    part: ExecutorPart
    params: BaseModel

    def describe(self) -> str:
        """Its name, and its part if that has a different name."""
        return self.name if self.name == self.part.name else f"{self.name} ({self.part.name})"


@dataclass(frozen=True)
class Plan:
    """Stages in order: each follows those that it needs."""

    loaded: LoadedSpec
    run: str
    stages: tuple[Stage, ...]
    sinks: tuple[Sink, ...]
    secrets: Secrets = NONE
    executors: Mapping[str, Executor] = field(default_factory=dict)
    """By name: the executors that the spec's `executors`, a stage's `on` or `--on` give."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.loaded.spec.name

    def stage(self, id: str) -> Stage:
        """The stage of that id."""
        return next(stage for stage in self.stages if stage.id == id)

    def stages_on(self) -> dict[str, list[str]]:
        """The stages that run on each executor, by its name."""
        stages: dict[str, list[str]] = {}
        for stage in self.stages:
            stages.setdefault(stage.on, []).append(stage.id)
        return stages


@dataclass(frozen=True)
class Step:
    """A schedulable, committable piece of a stage."""

    stage: Stage
    index: int
    key: str
    material: str
    first: int | None = None
    last: int | None = None


def is_source(id: str) -> bool:
    """Whether a stage id names a source of samples."""
    return id.rpartition("/")[2].rpartition(".")[2] == SAMPLES
