"""What the host gives to sinks, and how it asks for what they need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import toolkit as library
from toolkit.errors import BadInput

PLUGIN = """
from toolkit import hookimpl
from toolkit.parts import Part, ReportSection, SinkPart
from toolkit.work import Figure, Finding
import json, os


def write(work):
    report = work.report()
    facts = {
        "run": work.run,
        "seed": work.record["seed"],
        "question": work.record["spec"].get("question"),
        "findings": [finding.sentence for finding in report.findings],
        "files": sorted(report.files),
    }
    yield "facts.json", json.dumps(facts).encode()


def missing(params):
    return os.environ.get("SINK_LACKS")


@hookimpl
def toolkit_parts():
    yield SinkPart(name="facts", help="Facts.", run=write, check=missing)
    yield ReportSection(
        name="say",
        help="A chart.",
        title="Chart",
        reads=("features",),
        run=lambda inputs: [Figure("A chart", '<svg viewBox="0 0 9 9"></svg>')],
        findings=lambda inputs: [Finding(sentence="They differ.")],
    )
"""


@pytest.fixture
def experiment(toy, tmp_path: Path) -> library.Experiment:
    (tmp_path / "facts.py").write_text(PLUGIN)
    path = toy(n=6)
    spec = yaml.safe_load(path.read_text()) | {
        "question": "Do they differ?",
        "sinks": [{"uses": "facts", "name": "mine", "with": {"path": "out"}}],
    }
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return library.load(path, store=tmp_path / "store", plugins=[tmp_path / "facts.py"])


@pytest.mark.slow
def test_a_sink_gets_record_findings_and_figures(
    experiment: library.Experiment, tmp_path: Path
) -> None:
    outcome = experiment.run(quiet=True)
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    assert facts["run"] == outcome.run
    assert facts["seed"] == 7
    assert facts["question"] == "Do they differ?"
    assert facts["findings"] == [finding.sentence for finding in outcome.findings]
    assert "They differ." in facts["findings"]
    assert any(name.endswith("-say-a-chart.svg") for name in facts["files"])


def test_what_a_sink_lacks_is_said_before_anything_runs(
    experiment: library.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINK_LACKS", "thing is not installed. Install it: pip install thing.")
    with pytest.raises(BadInput) as caught:
        experiment.run(quiet=True)
    assert str(caught.value) == (
        "sink 'mine': thing is not installed. Install it: pip install thing."
    )
    assert not (tmp_path / "store").exists()
