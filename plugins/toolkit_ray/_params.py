"""The params of `executors: {ray: {...}}`. The cluster's address is not one of them: it comes from
RAY_ADDRESS and is never recorded.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from toolkit.parts import Params

OWN_PARAMS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}
"""Resources that a param of their own names."""


WORD = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
KEY, VALUE = re.compile(rf"([a-z0-9.-]+/)?{WORD}"), re.compile(rf"({WORD})?")
"""Labels as Ray takes them."""


def _custom(resources: dict[str, float]) -> dict[str, float]:
    for name in resources:
        if name in OWN_PARAMS:
            raise ValueError(
                f"write '{OWN_PARAMS[name]}' beside 'resources', not '{name}' in it: these are the "
                "custom resources of a node"
            )
    return resources


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not KEY.fullmatch(key) or not VALUE.fullmatch(value):
            raise ValueError(
                f"'{key}: {value}' is no label: Ray takes up to 63 letters, digits, '-', '_' and "
                "'.', with a letter or a digit at both ends; a key may begin with a domain and '/'"
            )
    return labels


def _gpus(gpus: float) -> float:
    if gpus > 1 and gpus % 1:
        raise ValueError(f"must be a whole number or a fraction of one GPU, not {gpus:g}")
    return gpus


class RayParams(Params):
    """The number of actors, what each requests of its node, and how tables travel."""

    workers: int = Field(1, ge=1, le=100_000, description="Actors; each holds one worker.")
    gpus: Annotated[float, AfterValidator(_gpus)] = Field(
        0, ge=0, description="GPUs of an actor; 0.5 lets two actors share one GPU."
    )
    cpus: float | None = Field(
        None,
        ge=0,
        description="Cores that an actor reserves; by default 1, or none if it has GPUs.",
    )
    threads: int = Field(1, ge=1, description="Compute threads of a worker.")
    memory: int | None = Field(None, ge=1, description="Bytes of memory that an actor reserves.")
    resources: Annotated[dict[str, Annotated[float, Field(ge=0)]], AfterValidator(_custom)] = Field(
        default_factory=dict, description="Custom resources of an actor's node, such as `spot: 1`."
    )
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(
        default_factory=dict, description="Labels that an actor's node must have."
    )
    runtime_env: dict[str, Any] = Field(
        default_factory=dict, description="Ray's runtime environment of the actors."
    )
    where: Literal["object_store", "shared"] = Field(
        "object_store",
        description="How job inputs and results travel: through Ray's object store, or in the "
        "run's folder, which every node sees under the same path.",
    )

    def reserved(self) -> dict[str, float]:
        """The resources that an actor reserves, by Ray's names for them."""
        cpus = self.cpus if self.cpus is not None else (0 if self.gpus else 1)
        named = {"CPU": cpus, "GPU": self.gpus, "memory": float(self.memory or 0)}
        return {name: value for name, value in {**named, **self.resources}.items() if value}
