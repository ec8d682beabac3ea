"""Exports: tables as JSON lines, activations as NumPy archives, a comparison in a study's JSON; and
runs for the experiment trackers Weights & Biases and MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Part, SinkPart

from . import _exp1_json, _json_lines, _npz
from .trackers import mlflow_run, wandb_run


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield SinkPart(
        name="json",
        help="Tables as JSON lines.",
        params=_json_lines.Json,
        run=_json_lines.write_json,
    )
    yield SinkPart(
        name="npz",
        help="Activations as NumPy archives, one per space: sparse, or dense when asked.",
        params=_npz.Npz,
        run=_npz.write_npz,
        reads=("activations", "attention", "spaces", "samples", "sample_meta", "saes"),
        disk=_npz.disk,
        disk_advice="Leave out `dense`, or name a folder on a larger disk.",
    )
    yield SinkPart(
        name="exp1_json",
        help="A comparison of two groups by layer, in the JSON that the study of SAE layers 1 to "
        "31 published.",
        params=_exp1_json.Exp1Json,
        run=_exp1_json.write_exp1_json,
        reads=("features", "comparisons", "spaces"),
    )
    yield SinkPart(
        name="wandb",
        help="The run for Weights & Biases (extra `sae-toolkit[wandb]`): spec, findings, tables, "
        "measures and charts.",
        params=wandb_run.Wandb,
        run=wandb_run.write_wandb,
        check=wandb_run.check,
    )
    yield SinkPart(
        name="mlflow",
        help="The run in an MLflow tracking store (extra `sae-toolkit[mlflow]`): spec, findings, "
        "tables, measures and charts.",
        params=mlflow_run.Mlflow,
        run=mlflow_run.write_mlflow,
        check=mlflow_run.check,
    )
