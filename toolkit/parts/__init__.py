"""What a part is: the frozen records that plugins return from the hooks of `toolkit.hookspecs`.

A part names itself as a spec names it (`extract.activations`), and has a pydantic model for its
`with:` block and a function that does the work. What that function gets is in `toolkit.work`.
"""

from toolkit.params import UNHASHED, NoParams, Params
from toolkit.parts.params import (
    SinkParams,
    UsedEnvironment,
    UsedParser,
    UsedPart,
)
from toolkit.parts.records import (
    EnvironmentPart,
    Estimates,
    ExecutorPart,
    LabelKeys,
    Labels,
    LabelUse,
    ModelPart,
    ParserPart,
    Part,
    ReportSection,
    SaePart,
    SinkPart,
    SourcePart,
    StagedGame,
    StagePart,
    Steps,
    TablePart,
)

__all__ = [
    "UNHASHED",
    "EnvironmentPart",
    "Estimates",
    "ExecutorPart",
    "LabelKeys",
    "LabelUse",
    "Labels",
    "ModelPart",
    "NoParams",
    "Params",
    "ParserPart",
    "Part",
    "ReportSection",
    "SaePart",
    "SinkParams",
    "SinkPart",
    "SourcePart",
    "StagePart",
    "StagedGame",
    "Steps",
    "TablePart",
    "UsedEnvironment",
    "UsedParser",
    "UsedPart",
]
