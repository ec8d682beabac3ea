"""The card of a repository that holds a run: its description, its findings, and how to get it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from toolkit._query.run import Run
    from toolkit.work import Finding

TAGS = ["sae-toolkit", "sparse-autoencoders", "interpretability"]


def card(run: Run, files: Iterable[Path], findings: Sequence[Finding], repository: str) -> str:
    """The card as Markdown; its head lets the hub show each table."""
    tables = [path.stem for path in files if path.suffix == ".parquet"]
    configs = [{"config_name": name, "data_files": f"{name}.parquet"} for name in tables]
    head = yaml.safe_dump({"tags": TAGS, "configs": configs}, sort_keys=False)
    question = (run.manifest.get("spec") or {}).get("question")
    opening = [f"{question}", ""] if question else []
    results = [f"- {finding.sentence}" for finding in findings]
    lines = [
        f"# {run.state.name}",
        "",
        *opening,
        *results,
        *([""] if results else []),
        f"Run `{run.id}` of sae-toolkit, {run.state.state}: every table, with its ledger and "
        "manifest. To have it in a store:",
        "",
        "```bash",
        f"toolkit hub pull {repository}",
        "```",
        "",
    ]
    return f"---\n{head}---\n\n" + "\n".join(lines)
