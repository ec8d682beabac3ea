"""A small Llama-architecture model with SAEs in which every feature's role is known by
construction.
"""

from toolkit.testing.planted._build import build_planted
from toolkit.testing.planted._forward import Edit, ReferenceModel, Trace
from toolkit.testing.planted._truth import (
    Duplicate,
    FeatureTruth,
    Planted,
    PlantedTruth,
    Role,
    SaeTruth,
)
from toolkit.testing.planted._words import PlantedPrompt, prompts

__all__ = [
    "Duplicate",
    "Edit",
    "FeatureTruth",
    "Planted",
    "PlantedPrompt",
    "PlantedTruth",
    "ReferenceModel",
    "Role",
    "SaeTruth",
    "Trace",
    "build_planted",
    "prompts",
]
