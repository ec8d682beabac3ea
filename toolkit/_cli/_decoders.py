"""Find the decoder of a space: in the SAE files that the run's spec names, or in a folder that the
user names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.errors import BadInput
from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts
    from toolkit._query.run import Run
    from toolkit.parts import SaePart
    from toolkit.saes import Decoder


class NoDecoder(BadInput):
    """No candidate has the decoder: the reason, and what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason = reason


class Candidate(NamedTuple):
    """A part that may read the decoder."""

    part: SaePart
    params: Mapping[str, Any]
    """The params to try with it."""
    folder: Path
    """The folder that their paths are relative to."""


def find_rows(space: Mapping[str, Any], run: Run, folder: Path | None) -> Any:
    """The decoder's rows; if its files are missing and no folder is given, the projections in the
    store, with a note.
    """
    try:
        return find_decoder(space, run.manifest, folder).rows
    except BadInput as error:
        projections = None if folder else run.view.projections(space["space"])
        if projections is None:
            raise BadInput(f"{error} {_ELSEWHERE}") from None
        reason = error.reason if isinstance(error, NoDecoder) else error
        near = 1 / projections.shape[1] ** 0.5
        echo(
            f"computed from projections with {projections.shape[1]} numbers per feature, so "
            f"cosines are accurate to about {near:.2f}: the SAE files are missing "
            f"({reason})",
            err=True,
        )
        return projections


def find_decoder(
    space: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path | None
) -> Decoder:
    """The decoder of a space, from the files that the run used; else an error with what was tried
    and what to do.
    """
    from toolkit._plugins.loading import load_parts

    if space["sae"] is None:
        raise BadInput(
            f"{space['address']} is a raw residual stream: its features are its own "
            "dimensions, and it has no decoder."
        )
    parts = load_parts()
    candidates = list(_of_folder(parts, folder) if folder else _of_spec(parts, manifest))
    tried = []
    for candidate in candidates:
        decoder = _try(candidate, space)
        if not isinstance(decoder, str):
            return decoder
        tried.append(f"{candidate.part.name}: {decoder}")
    reason = (
        " ".join(dict.fromkeys(tried))
        or "The run's spec names no SAEs whose decoder can be read without torch."
    )
    known = sorted(part.name for part in _parts(parts))
    raise NoDecoder(
        f"The decoder of {space['address']} cannot be read here. {reason}",
        "Name the folder that holds the SAEs: --saes FOLDER. Layouts that can be read: "
        f"{', '.join(known) or '(none installed)'}.",
    )


_ELSEWHERE = (
    "Where the files are, toolkit store project keeps projections of them in the store, for "
    "machines without the files."
)


def _of_folder(parts: Parts, folder: Path) -> Iterator[Candidate]:
    """Candidates for a folder: every layout, since only the files show which one it is."""
    for part in _parts(parts):
        yield Candidate(part, {"path": str(folder.absolute())}, folder)


def _of_spec(parts: Parts, manifest: Mapping[str, Any]) -> Iterator[Candidate]:
    """Candidates from the spec's `saes`, at the top and in its stages."""
    spec = manifest.get("spec") or {}
    known = {part.name: part for part in _parts(parts)}
    places = [spec, *(stage for stage in spec.get("stages") or () if isinstance(stage, Mapping))]
    for path in places:
        named = path.get("saes")
        if isinstance(named, Mapping) and named.get("uses") in known:
            yield Candidate(
                known[named["uses"]],
                named.get("with") or {},
                Path(str(manifest.get("spec_path") or ".")).parent,
            )


def _parts(parts: Parts) -> list[SaePart]:
    """The installed SAE parts that read decoders without torch."""
    from toolkit.parts import SaePart

    return [
        part for part in parts.of("sae") if isinstance(part, SaePart) and part.decoder is not None
    ]


def _try(candidate: Candidate, space: Mapping[str, Any]) -> Decoder | str:
    """The decoder, or the reason why the candidate does not fit."""
    from pydantic import ValidationError

    part = candidate.part
    assert part.decoder is not None
    try:
        params = part.params.model_validate(
            dict(candidate.params), context={"folder": candidate.folder}
        )
        decoder = part.decoder(params, str(space["sae"]))
    except ValidationError:
        return "its params in the spec are not valid."
    except (BadInput, OSError) as error:
        return str(error)
    if decoder.digest != space["sae_hash"] or decoder.width != space["width"]:
        return f"the files of {space['sae']} are not those that the run used: their hash differs."
    return decoder
