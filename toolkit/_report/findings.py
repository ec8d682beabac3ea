"""The findings of a run: a few sentences from the report sections that state their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.parts import ReportSection
from toolkit.work import Finding, RunInputs

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts

MAX_FINDINGS = 5


def findings_of(inputs: RunInputs, parts: Parts) -> list[Finding]:
    """The findings of all report sections in ascending rank, at most five. A section that fails
    contributes none; the report shows its error.
    """
    sections = [part for part in parts.of("report") if isinstance(part, ReportSection)]
    return findings_in(inputs, sections)


def findings_in(inputs: RunInputs, sections: Sequence[ReportSection]) -> list[Finding]:
    """The findings of these sections in ascending rank, at most five."""
    return [finding for finding, _ in findings_with_sections(inputs, sections)]


def findings_with_sections(
    inputs: RunInputs, sections: Sequence[ReportSection]
) -> list[tuple[Finding, str]]:
    """The same findings, each with the name of the section that states it."""
    findings: list[tuple[Finding, str]] = []
    for section in sorted(sections, key=lambda part: (part.order, part.name)):
        if section.findings is None or not has_rows(inputs, section):
            continue
        try:
            findings += [(finding, section.name) for finding in section.findings(inputs)]
        except Exception:
            continue
    return sorted(findings, key=lambda each: each[0].rank)[:MAX_FINDINGS]


def has_rows(inputs: RunInputs, section: ReportSection) -> bool:
    """Whether any table that the section reads has rows."""
    there = set(inputs.tables())
    return not section.reads or any(
        name in there and inputs.read(name).num_rows for name in section.reads
    )
