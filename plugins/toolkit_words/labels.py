"""`words.labels`: labels of features from files, so that later stages of the run can read them.

The files are Neuronpedia's bulk data, or any in that format. Their content enters the key, the path
never does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import BadInput, DataError, nearest
from toolkit.features.addresses import neuronpedia
from toolkit.features.labels import FILES, ReadLabels, SourceName, label_files, read_labels
from toolkit.files.local import PathText, content_digest, locate
from toolkit.identity import Identity
from toolkit.parts import UNHASHED, Params

if TYPE_CHECKING:
    from toolkit.work import Rows, Work

SHOWN = 5
"""Sources that an error lists."""
EVENT = "feature labels"


class FeatureLabels(Params):
    """Where the labels are, and whose they are."""

    path: PathText | None = Field(
        None,
        description="A folder of Neuronpedia's bulk data, v1/MODEL/SOURCE or above, relative to "
        "the spec. null: there are no labels.",
        json_schema_extra=UNHASHED,
    )
    sources: dict[str, str] = Field(
        {},
        description="The address of a space (model/hookpoint/sae) by the source id that the files "
        "have for it, where that is not the space's own id.",
    )


def identify(params: FeatureLabels, folder: Path) -> Identity | None:
    """A hash of all files with labels."""
    if params.path is None:
        return None
    root = locate(params.path)
    files = label_files(root)
    if not files:
        raise BadInput(
            f"{root} holds no {FILES}. Name a folder of Neuronpedia's bulk data: "
            "v1/MODEL/SOURCE or above."
        )
    digest = content_digest({str(file.relative_to(root)): file for file in files})
    return Identity(name=root.name, revision=digest[:12], digest=digest)


def feature_labels(work: Work) -> Rows:
    """Rows of `features` with the stat `label`; none without a path."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    spaces = work.inputs.read("spaces").to_pylist()
    labels = _labels(work.params, spaces)
    features = {(row["space"], row["feature"]) for row in labels.rows}
    work.report.event(
        EVENT,
        labels=len(labels.rows),
        features=len(features),
        spaces=len({space for space, _ in features}),
        of_spaces=len(spaces),
    )
    yield "features", pa.Table.from_pylist(labels.rows, schema=arrow_schema("features"))


def summary(events: Sequence[Mapping[str, Any]]) -> str:
    """A sentence of the report's Methods."""
    last = next((event for event in reversed(events) if event["name"] == EVENT), None)
    if last is None:
        return ""
    if not last["labels"]:
        return "No labels of features were imported."
    return (
        f"{last['labels']:,} labels of {last['features']:,} features were imported, of "
        f"{last['spaces']} of {last['of_spaces']} spaces."
    )


def _labels(params: FeatureLabels, spaces: Sequence[Mapping[str, Any]]) -> ReadLabels:
    if params.path is None:
        return ReadLabels([], [])
    named = _by_source(params.sources, spaces)
    labels = read_labels(label_files(locate(params.path)), named)
    if not labels.rows:
        known = sorted("/".join(name) for name in named)
        others = labels.other_sources
        raise DataError(
            f"words.labels: {params.path} has labels of {_some(others)}; the spaces here are "
            f"{_some(known)}.{nearest(min(others, default=''), known)} If one is the other, map "
            "it: `sources: {SOURCE: ADDRESS}`."
        )
    return labels


def _by_source(
    sources: Mapping[str, str], spaces: Sequence[Mapping[str, Any]]
) -> dict[SourceName, Mapping[str, Any]]:
    """The space of each of Neuronpedia's names; two spaces of one name are refused."""
    named: dict[SourceName, Mapping[str, Any]] = {}
    renamed = {address: source for source, address in sources.items()}
    for space in spaces:
        model, source = neuronpedia(space)
        name = (model, renamed.pop(space["address"], source))
        if name in named:
            raise DataError(
                f"words.labels: {named[name]['address']} and {space['address']} are both "
                f"'{'/'.join(name)}'. Name the space of each source: `sources: {{SOURCE: "
                "ADDRESS}`."
            )
        named[name] = space
    for address in renamed:
        known = [str(space["address"]) for space in spaces]
        raise DataError(
            f"words.labels: sources: there is no space '{address}'.{nearest(address, known)} "
            f"Spaces: {_some(known)}."
        )
    return named


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
