"""Patching: change features at a decision and measure the exact effect."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from toolkit import hookimpl
from toolkit.parts import Estimates, Part, ReportSection, StagePart, Steps

from . import costs
from .attribution import section as attribution_section
from .attribution.stage import Attribution, attribute
from .doses import section as doses_section
from .doses.params import Doses
from .doses.stage import dose
from .games import section as games_section
from .games.stage import PairedGames, compare_games
from .joint import section as joint_section
from .joint.params import Joint
from .joint.stage import joint
from .published import section as published_section
from .published.params import Published
from .published.stage import judge_as_published
from .screen import stage
from .screen.params import Delta, Verdicts, family_size, written_tables
from .steer import section as steering_section
from .steer.params import Steering
from .steer.stage import steer
from .verdicts import section as verdicts_section
from .verdicts.stage import judge


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Yield every part of this plugin."""
    yield from _interventions()
    yield from _directions()
    yield from _judgements()
    yield from _sections()
    yield from _dose_sections()


def _interventions() -> Iterator[Part]:
    """Stages that run the model with changed features."""
    yield StagePart(
        name="patch.delta",
        help="Sets features to group values, error term kept, with sham, random and "
        "reconstruction arms.",
        params=Delta,
        version="3",
        run=stage.patch,
        steps=Steps(size="step", features=family_size),
        estimates=Estimates(cost=costs.screening, expected=costs.expected_screening),
        reads=("samples", "features", "comparisons", "spaces"),
        optional=("activations", "sample_meta"),
        writes=("screens", "effects", "control_screens"),
        writes_for=written_tables,
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="patch.attribution",
        help="Predicts the effects of a screen by gradients (AtP, RelP), next to the exact ones.",
        params=Attribution,
        run=attribute,
        estimates=Estimates(cost=costs.attributing),
        reads=("samples", "features", "comparisons", "spaces", "screens"),
        writes=("gradient_effects",),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="patch.joint",
        help="Changes screened features together, against the sum of their parts and random sets.",
        params=Joint,
        run=joint,
        estimates=Estimates(cost=costs.joining),
        reads=("samples", "features", "comparisons", "spaces", "verdicts"),
        writes=("joint_effects",),
        uses_model=True,
        uses_saes=True,
    )


def _directions() -> Iterator[Part]:
    """Stages that set features to doses or steer the stream."""
    yield StagePart(
        name="patch.doses",
        help="Sets features with a verdict to doses, at decisions that the screen did not see.",
        params=Doses,
        run=dose,
        estimates=Estimates(cost=costs.dosing),
        reads=("samples", "features", "comparisons", "spaces", "verdicts"),
        optional=("activations", "sample_meta"),
        writes=("feature_doses", "feature_dose_tests"),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="patch.steer",
        help="Moves the stream along a difference of means by doses, next to random directions.",
        params=Steering,
        version="2",
        run=steer,
        estimates=Estimates(cost=costs.steering),
        reads=("samples", "sample_meta"),
        writes=("doses", "dose_tests"),
        uses_model=True,
    )


def _judgements() -> Iterator[Part]:
    """Stages that read what the others measured."""
    yield StagePart(
        name="patch.verdicts",
        help="Says which screened features are causal, corrected over all that were screened.",
        params=Verdicts,
        run=judge,
        estimates=Estimates(cost=costs.judging),
        reads=("screens",),
        optional=("control_screens",),
        writes=("verdicts", "control_verdicts"),
    )
    yield StagePart(
        name="patch.published",
        help="Applies a published study's rules to a screen of its two prompts.",
        params=Published,
        run=judge_as_published,
        estimates=Estimates(cost=costs.applying_rules),
        reads=("sample_meta", "screens", "effects"),
        writes=("features",),
    )
    yield StagePart(
        name="patch.games",
        help="Compares games under patches with the same games without, pair by pair.",
        params=PairedGames,
        version="2",
        run=compare_games,
        estimates=Estimates(cost=costs.pairing),
        reads=("games",),
        writes=("paired_games",),
    )


def _sections() -> Iterator[Part]:
    """Report sections of screens and of the stages that follow them."""
    yield _section(
        "patch-effects",
        "Patch effects against their controls",
        "What setting a feature does to the decision, and what random directions of equal "
        "length do.",
        verdicts_section,
        reads=("verdicts", "screens", "spaces"),
        order=18,
    )
    yield _section(
        "patch-published",
        "The same features, judged as published",
        "What a published study's rules call causal, compared with controls and correction.",
        published_section,
        reads=("features", "verdicts"),
        order=31,
    )
    yield _section(
        "patch-attribution",
        "Gradients against exact effects",
        "How far a cheap pre-screen may be trusted, layer by layer.",
        attribution_section,
        reads=("gradient_effects", "spaces"),
        order=33,
    )
    yield _section(
        "patch-joint",
        "Features changed together",
        "What a set of features does together, and what each does alone.",
        joint_section,
        reads=("joint_effects",),
        order=32,
    )


def _dose_sections() -> Iterator[Part]:
    """What doses do, and whole games under a patch."""
    yield _section(
        "patch-feature-doses",
        "Doses of features",
        "What doses of each causal feature do, at decisions that the screen did not see.",
        doses_section,
        reads=("feature_doses", "feature_dose_tests", "spaces"),
        order=32,
    )
    yield _section(
        "patch-doses",
        "Steering by doses",
        "What moving the stream along an axis does, and what random directions do.",
        steering_section,
        reads=("doses", "dose_tests"),
        order=32,
    )
    yield _section(
        "patch-games",
        "Games under a persistent patch",
        "How often games end in each way, against the same games without the patch.",
        games_section,
        reads=("paired_games",),
        order=34,
    )


def _section(
    name: str, title: str, help: str, module: ModuleType, *, reads: tuple[str, ...], order: int
) -> ReportSection:
    """A report section whose module has `figures` and `findings`."""
    return ReportSection(
        name=name,
        title=title,
        help=help,
        reads=reads,
        run=module.figures,
        findings=module.findings,
        order=order,
    )
