"""Any SAE that an installed SAELens knows by release and id, opened by SAELens itself and run by
this toolkit's arithmetic.

SAELens converts some layouts in ways that differ from their authors' code (Llama Scope's threshold
lacks the decoder norm): where an adapter of its own reads a layout, prefer that one.
"""

from __future__ import annotations

from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pydantic import Field

from toolkit.errors import BadInput, choices, nearest
from toolkit.files.hub import snapshot
from toolkit.identity import Identity
from toolkit.parts import Params
from toolkit.work import Reporter
from toolkit_saes.encode.canonical import CanonicalSae
from toolkit_saes.encode.weights import Weights
from toolkit_saes.layouts.saelens import convert
from toolkit_saes.layouts.saelens_config import describe, up_to_date

INSTALL = "pip install 'sae-toolkit[saelens]'"
LIST = "pretrained_saes.yaml"


class SaeLensId(Params):
    """Which SAEs, by SAELens's names."""

    release: str = Field(
        description="A release of SAELens's list, for example gpt2-small-res-jb, or a repository "
        "of the hub."
    )
    ids: tuple[str, ...] = Field(
        min_length=1,
        description="Ids of SAEs in the release, for example [blocks.8.hook_resid_pre].",
    )


def identify(params: SaeLensId) -> Identity:
    """The repository's commit, the ids and SAELens's version, which decides how they are converted.
    Imports nothing of SAELens.
    """
    version = _version()
    listed = _listed(params.release)
    paths = (
        {id["id"]: str(id["path"]) for id in listed["saes"]}
        if listed
        else {id: id for id in params.ids}
    )
    missing = [id for id in params.ids if id not in paths]
    if missing:
        shown = choices(list(paths)[:5])
        raise BadInput(
            f"saes.with.ids: release {params.release} has no SAE "
            f"'{missing[0]}'.{nearest(missing[0], paths)} It has {len(paths)}, for example {shown}."
        )
    repository = str(listed["repo_id"]) if listed else params.release
    commit = snapshot(repository, "main", "*").revision
    paths_text = ",".join(paths[id] for id in params.ids)
    return Identity(
        params.release,
        commit,
        f"{repository}@{commit}:{paths_text}:sae-lens {version}",
        {"sae_lens": version},
    )


def load(params: SaeLensId, report: Reporter) -> list[CanonicalSae]:
    """The SAEs, opened one by one; SAELens downloads what the cache lacks."""
    version = _version()
    report.phase("load")
    return [_sae(params.release, id, version) for id in params.ids]


def _sae(release: str, name: str, version: str) -> CanonicalSae:
    """One SAE: config and shapes now, weights when they are needed."""
    known, raw = _opened(release, name)
    shapes = {key: tuple(tensor.shape) for key, tensor in raw.items()}
    more = f"converted by sae-lens {version}"
    return CanonicalSae(
        describe(known, shapes, Path(f"{release}/{name}"), (release, name), _hash(raw), more),
        partial(_weights, release, name),
    )


def _weights(release: str, name: str) -> Weights:
    return convert(*_opened(release, name))


def _opened(release: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """SAELens's config and tensors, float32, after whatever it folds in."""
    from sae_lens import SAE

    try:
        sae: Any = SAE.from_pretrained(release, name, device="cpu")
    except Exception as error:
        reason = (str(error).splitlines() or ["it gives no reason"])[0]
        raise BadInput(
            f"SAELens cannot open '{name}' of {release} ({type(error).__name__}: {reason})."
        ) from None
    known = up_to_date(
        sae.cfg.to_dict() | {"metadata": {"sae_lens_version": "6", **sae.cfg.metadata.to_dict()}},
        Path(f"{release}/{name}"),
    )
    return known, {key: tensor.detach().float().cpu() for key, tensor in sae.state_dict().items()}


def _hash(raw: dict[str, Any]) -> str:
    import hashlib

    seen = hashlib.sha256()
    for key in sorted(raw):
        seen.update(
            key.encode()
            + str(tuple(raw[key].shape)).encode()
            + raw[key].contiguous().numpy().tobytes()
        )
    return seen.hexdigest()


def _version() -> str:
    try:
        return metadata.version("sae-lens")
    except metadata.PackageNotFoundError:
        raise BadInput(
            f"`sae_lens_id` opens SAEs with SAELens, which is not installed. Run `{INSTALL}`; "
            "SAELens's own files are read without it by `uses: saelens`."
        ) from None


def _listed(release: str) -> dict[str, Any] | None:
    """SAELens's record of a release; None for a repository of the hub that it does not list."""
    import yaml

    package = util.find_spec("sae_lens")
    folder = next(iter(package.submodule_search_locations or ()), None) if package else None
    if folder is None:
        raise BadInput(f"SAELens is installed, but its files are not found. Run `{INSTALL}`.")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    listed: dict[str, Any] = yaml.load(
        (Path(folder) / LIST).read_text(encoding="utf-8"), Loader=loader
    )
    if release not in listed and "/" not in release:
        raise BadInput(
            f"saes.with.release: SAELens has no release '{release}'.{nearest(release, listed)} It "
            f"lists {len(listed)}."
        )
    return listed.get(release)
