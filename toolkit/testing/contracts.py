"""Contract checks of every kind of part, for the tests of plugins.

    @pytest.mark.parametrize("part", list(toolkit_parts()), ids=lambda part: part.name)
    def test_contract(part):
        check_part(part)

`check_part` checks the record and its params, then runs the part on small synthetic tables; give it
a `work` if the part needs a model, SAEs or realistic tables. `toolkit.testing.loaded` checks what a
model or SAE part loads. A violation raises `Broken` with a message that names it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from toolkit._plugins.loading import load_parts
from toolkit._plugins.part_checks import problem_of
from toolkit.files.hub import Download
from toolkit.identity import Identity
from toolkit.parts import (
    EnvironmentPart,
    ExecutorPart,
    ModelPart,
    ParserPart,
    Part,
    ReportSection,
    SaePart,
    SinkPart,
    SourcePart,
    StagePart,
)
from toolkit.testing.fakes import make_tables, make_work
from toolkit.testing.game_contracts import check_environment, check_parser
from toolkit.testing.output_contracts import check_executor, check_report, check_sink
from toolkit.testing.promises import Broken, as_json_data, must
from toolkit.testing.table_contracts import check_source, check_stage
from toolkit.work import Work

HELP_LENGTH = 100
HEAVY = ("torch", "lancedb")


def check_part(
    part: Part,
    *,
    params: Mapping[str, Any] | None = None,
    work: Work | None = None,
    tolerance: float = 0.0,
) -> None:
    """Check any part. `params` as in a spec; `work` for sources and stages.

    `tolerance` is relative, for stages that compute on a device whose sums depend on the batch.
    """
    loaded = check_params(part, params or {})
    done = replace(work, params=loaded) if work else None
    match part:
        case ModelPart() | SaePart():
            check_identity(part, loaded)
        case SourcePart():
            check_source(part, done or make_work(loaded, make_tables(part.reads)))
        case StagePart():
            check_stage(
                part, done or make_work(loaded, make_tables(part.reads)), tolerance=tolerance
            )
        case EnvironmentPart():
            check_environment(part, loaded)
        case ParserPart():
            check_parser(part, loaded)
        case SinkPart():
            check_sink(part, loaded, work.inputs if work else None)
        case ExecutorPart():
            check_executor(part, loaded)
        case ReportSection():
            check_report(part, work.inputs if work else None)


def check_params(part: Part, params: Mapping[str, Any]) -> Any:
    """Check that the record loads, its help fits a line, and its params are strict, described and
    unchanged by JSON. Returns the params.
    """
    if problem := problem_of(part):
        raise Broken(problem)
    must(
        len(part.help) <= HELP_LENGTH,
        part,
        f"its help has {len(part.help)} characters; at most {HELP_LENGTH} are allowed",
    )
    must(
        part.params.model_config.get("extra") == "forbid",
        part,
        "its params accept unknown keys; derive them from Params",
    )
    must(
        part.params.model_config.get("frozen"),
        part,
        "its params can be changed; derive them from Params",
    )
    for name, field in part.params.model_fields.items():
        must(field.description, part, f"params field '{name}' has no description")
    json.dumps(part.params.model_json_schema())
    context = {"parts": load_parts()}
    loaded = part.params.model_validate(dict(params), context=context)
    written = json.loads(loaded.model_dump_json(by_alias=True))
    try:
        reread = part.params.model_validate(written, context=context)
    except ValidationError as error:
        raise Broken(
            f"{part.kind} part '{part.name}': its params cannot be read back from JSON: {error}"
        ) from error
    must(
        loaded == reread,
        part,
        f"its params change in a round trip through JSON: {loaded!r} became {reread!r}",
    )
    return loaded


def check_identity(part: ModelPart | SaePart, params: Any) -> None:
    """Check that `identify` returns the same plain data twice and imports no torch: it runs when a
    spec is only planned.
    """
    before = set(sys.modules)
    first, second = part.identify(params), part.identify(params)
    loaded = [name for name in HEAVY if name in sys.modules and name not in before]
    must(not loaded, part, f"identify imported {', '.join(loaded)}; import that in load instead")
    must(
        isinstance(first, Identity),
        part,
        f"identify returned {type(first).__name__} instead of an Identity",
    )
    must(
        first == second,
        part,
        f"identify returned a different result the second time: {first!r}, {second!r}",
    )
    must(
        first.name and first.revision and first.digest,
        part,
        "identify left the name, revision or digest empty",
    )
    must(
        as_json_data(first.facts) == dict(first.facts),
        part,
        "the facts of its Identity are not plain JSON data",
    )
    downloads = list(part.downloads(params)) if part.downloads else []
    must(
        all(isinstance(download, Download) and download.patterns for download in downloads),
        part,
        "downloads returned items that are not a Download with patterns",
    )
