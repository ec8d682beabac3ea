"""`sweep:` in a spec: lists of values by path, and one run for all their combinations.

    sweep:
      stages.features.with.active: [2, 3]
      seed: [1, 2]

Each combination is a point. A stage that two points share is one stage; a stage that differs
appears once per variant, as `features-1`, `features-2`. Values of `model`, `saes`, `samples` or
`seed` at a point are written into the stages of that point.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit._spec.overlay import apply_value
from toolkit._spec.yaml import Node, placed, plain
from toolkit.errors import SpecError

MAX_POINTS = 1000
SWEPT = ("model", "saes", "samples", "seed", "stages")
"""The fields of a spec in which a path may begin."""
INHERITED = ("model", "saes", "samples", "seed")
"""Top-level fields of the spec that stages inherit."""


@dataclass(frozen=True)
class SweepPoint:
    """One combination of values."""

    values: Mapping[str, Any]
    """The values by path."""
    stages: Mapping[str, str]
    """The id in the run of each stage of the spec."""


@dataclass
class _Variants:
    """The variants of one stage, in the order of the points."""

    contents: dict[str, dict[str, Node]] = field(default_factory=dict)

    def number(self, content: dict[str, Node]) -> int:
        """The number of a variant, from 1."""
        text = json.dumps({key: plain(node) for key, node in content.items()}, sort_keys=True)
        self.contents.setdefault(text, content)
        return list(self.contents).index(text) + 1


def swept(root: Node) -> Node:
    """The spec with the stages of all points. A spec without a sweep, or with an invalid one, is
    unchanged.
    """
    return _expand(root)[0]


def sweep_points(spec: Mapping[str, Any]) -> list[SweepPoint]:
    """The points of a recorded spec."""
    return _expand(placed(dict(spec), "the record"))[1]


def _expand(root: Node) -> tuple[Node, list[SweepPoint]]:
    combinations = list(_combinations(root))
    if not combinations or not isinstance(root.value.get("stages", Node([], "")).value, list):
        return root, []
    edited = [_at_combination(root, combination) for combination in combinations]
    base, variants = edited[0], dict[str, _Variants]()
    numbers = [_Numbering(base, point, variants).all() for point in edited]
    points = [
        SweepPoint(
            {path: plain(value) for path, value in combination},
            {id: _name(id, number, variants) for id, number in of_point.items()},
        )
        for combination, of_point in zip(combinations, numbers, strict=True)
    ]
    _check_names(root, variants)
    stages = [
        _named(content, id, number, variants)
        for id, those in variants.items()
        for number, content in enumerate(those.contents.values(), 1)
    ]
    listed = replace(root.value["stages"], value=stages)
    return replace(root, value={**base.value, "stages": listed}), points


def _combinations(root: Node) -> Iterator[list[tuple[str, Node]]]:
    """Every combination of values, as pairs of path and value."""
    sweep = root.value.get("sweep") if isinstance(root.value, dict) else None
    if sweep is None or not isinstance(sweep.value, dict) or not sweep.value:
        return
    axes, count = [], 1
    for path, values in sweep.value.items():
        if not isinstance(values.value, list):
            return
        if str(path).split(".")[0] not in SWEPT:
            raise SpecError(
                f"{values.location}: sweep.{path}: A sweep changes {', '.join(SWEPT)}; "
                "write a path such as stages.features.with.at."
            )
        count *= len(values.value)
        axes.append(
            [
                (str(path), replace(value, written_at=f"sweep.{path}.{number}"))
                for number, value in enumerate(values.value)
            ]
        )
    if count > MAX_POINTS:
        raise SpecError(
            f"{sweep.location}: sweep: These lists have {count:,} combinations; at most "
            f"{MAX_POINTS:,} are allowed."
        )
    yield from map(list, itertools.product(*axes))


def _at_combination(root: Node, combination: Sequence[tuple[str, Node]]) -> Node:
    for path, value in combination:
        root = apply_value(root, path, value)
    return root


class _Numbering:
    """Numbers the stages of one point, each after the stages that it needs."""

    def __init__(self, base: Node, point: Node, variants: dict[str, _Variants]) -> None:
        self._base, self._point, self._variants = base, point, variants
        self._stages = {
            str(plain(stage.value.get("id", Node(None, "")))): stage
            for stage in point.value["stages"].value
            if isinstance(stage.value, dict)
        }
        self._numbers: dict[str, int] = {}

    def all(self) -> dict[str, int]:
        """The number of each stage of the point."""
        for id in self._stages:
            self._number(id, ())
        return self._numbers

    def _number(self, id: str, trail: tuple[str, ...]) -> int:
        if id in self._numbers:
            return self._numbers[id]
        content = self._inheriting(self._stages[id].value)
        needs = content.get("needs")
        if needs is not None and isinstance(needs.value, list):
            items = [self._renamed(need, (*trail, id)) for need in needs.value]
            content["needs"] = replace(needs, value=items)
        samples = content.get("samples")
        if samples is not None:
            content["samples"] = self._with_renamed_source(samples, (*trail, id))
        self._numbers[id] = self._variants.setdefault(id, _Variants()).number(content)
        return self._numbers[id]

    def _inheriting(self, stage: Mapping[str, Node]) -> dict[str, Node]:
        """A stage with the top-level values of this point written into it where they differ from
        the spec's. Another seed draws other samples.
        """
        differs = {key for key in INHERITED if _plain(self._point, key) != _plain(self._base, key)}
        if "seed" in differs:
            differs.add("samples")
        inherited = {
            key: self._point.value[key]
            for key in INHERITED
            if key in differs & set(self._point.value)
        }
        return {**inherited, **stage}

    def _renamed(self, need: Node, trail: tuple[str, ...]) -> Node:
        """A need of a stage, as ID@NUMBER until all variants are known."""
        id = need.value
        if not isinstance(id, str) or id not in self._stages or id in trail:
            return need
        return replace(need, value=f"{id}@{self._number(id, trail)}")

    def _with_renamed_source(self, samples: Node, trail: tuple[str, ...]) -> Node:
        source = samples.value.get("from") if isinstance(samples.value, dict) else None
        if source is None or not isinstance(source.value, dict) or "spec" in source.value:
            return samples
        stage = self._renamed(source.value.get("stage", Node(None, "")), trail)
        renamed = replace(source, value={**source.value, "stage": stage})
        return replace(samples, value={**samples.value, "from": renamed})


def _plain(root: Node, key: str) -> Any:
    return plain(root.value[key]) if key in root.value else None


def _check_names(root: Node, variants: Mapping[str, _Variants]) -> None:
    """Refuse a spec that has a stage of the name that a variant of another gets."""
    for id, those in variants.items():
        for number in range(1, len(those.contents) + 1):
            if (name := _name(id, number, variants)) != id and name in variants:
                raise SpecError(
                    f"{root.value['sweep'].location}: sweep: The variants of stage '{id}' get the "
                    f"names {id}-1 to {id}-{len(those.contents)}, and the spec has a stage "
                    f"'{name}'. Give that one another id."
                )


def _name(id: str, number: int, variants: Mapping[str, _Variants]) -> str:
    return id if len(variants[id].contents) == 1 else f"{id}-{number}"


def _named(
    content: Mapping[str, Node], id: str, number: int, variants: Mapping[str, _Variants]
) -> Node:
    """A stage with its id in the run, and those of its needs."""
    results = dict(content)
    location = content["id"] if "id" in content else next(iter(content.values()))
    if "id" in content:
        results["id"] = Node(_name(id, number, variants), location.file, location.line)

    def final(node: Node) -> Node:
        if not isinstance(node.value, str):
            return node
        name, mark, digits = str(node.value).rpartition("@")
        if not mark or name not in variants or not digits.isdigit():
            return node
        return replace(node, value=_name(name, int(digits), variants))

    needs = content.get("needs")
    if needs is not None and isinstance(needs.value, list):
        results["needs"] = replace(needs, value=[final(need) for need in needs.value])
    samples = content.get("samples")
    source = samples.value.get("from") if samples and isinstance(samples.value, dict) else None
    if (
        samples
        and source is not None
        and isinstance(source.value, dict)
        and "stage" in source.value
    ):
        inner = replace(source, value={**source.value, "stage": final(source.value["stage"])})
        results["samples"] = replace(samples, value={**samples.value, "from": inner})
    return Node(results, location.file, location.line)
