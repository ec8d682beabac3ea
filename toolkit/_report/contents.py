"""What a run's report shows, for sinks that pass it on to other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit._report.figures import figure_files
from toolkit._report.findings import findings_of
from toolkit._report.page import sections_in
from toolkit.work import ReportContents, RunInputs

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts


def contents_of(inputs: RunInputs, parts: Parts) -> ReportContents:
    """The findings of a run, and its charts and tables as files."""
    files = {file.name: file.content for file in figure_files(sections_in(inputs, parts))}
    return ReportContents(findings_of(inputs, parts), files)
