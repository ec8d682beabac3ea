"""`uses: auto` finds the layout, says so, and refuses what is of two layouts or of none;
`sae_lens_id` says what it needs.
"""

from __future__ import annotations

import pickle
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import BadInput
from toolkit.testing import sae_files as write
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter
from toolkit_saes import toolkit_parts
from toolkit_saes.layouts import auto as _auto
from toolkit_saes.layouts import sae_lens_id as _sae_lens_id
from toolkit_saes.layouts.auto import Auto
from toolkit_saes.layouts.sae_lens_id import SaeLensId

PARTS = {part.name: part for part in toolkit_parts()}


def written(root: Path, layout: str) -> Path:
    """A folder with one SAE of layer 3."""
    if layout == "llama_scope":
        write.llama(root / "Llama3_1-8B-Base-L3R-8x")
    elif layout == "openmoss":
        write.openmoss(root / "mixture" / "L3R")
    elif layout == "gemma_scope":
        write.gemma(root / "layer_3" / "width_16k" / "average_l0_71" / "params.npz")
    else:
        write.saelens(root / "blocks.3.hook_resid_post")
    return root


@pytest.mark.parametrize(
    ("layout", "result"),
    [
        ("llama_scope", "llama_scope (Llama Scope, original layout), layers 3"),
        ("openmoss", "llama_scope (OpenMOSS, 2025 or 2026 layout), layers 3"),
        ("gemma_scope", "gemma_scope (Gemma Scope 1 layout), layers 3"),
        ("saelens", "saelens (SAELens layout), layers 3"),
    ],
)
def test_every_layout_is_found_from_its_root_and_from_the_saes_own_folder(
    tmp_path: Path, layout: str, result: str
) -> None:
    root = written(tmp_path / "saes", layout)
    identity = _auto.identify(Auto(path=str(root)))
    assert identity.facts["found"] == result
    assert identity.facts["adapter"] == result.split()[0]
    (sae,) = _auto.load(Auto(path=str(root)), SilentReporter())
    params = next(
        path
        for path in sorted(root.rglob("*"))
        if path.is_dir() and any(child.is_file() for child in path.iterdir())
    )
    (alone,) = _auto.load(Auto(path=str(params)), SilentReporter())
    assert (
        (sae.hookpoint, sae.digest)
        == (alone.hookpoint, alone.digest)
        == ("resid_post.3", sae.digest)
    )
    check_part(PARTS["auto"], params={"path": str(root)})


def test_auto_gives_what_the_adapter_gives(tmp_path: Path) -> None:
    path = str(written(tmp_path / "saes", "llama_scope"))
    part: Any = PARTS["llama_scope"]
    assert _auto.identify(Auto(path=path)).digest == part.identify(part.params(path=path)).digest


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        _auto.identify(Auto(path=str(path)))
    return str(caught.value)


def test_a_folder_of_two_layouts_at_once(tmp_path: Path) -> None:
    write.llama(tmp_path / "L3R")
    write.saelens(tmp_path / "L3R")
    assert refused(tmp_path) == (
        f"saes.with.path: {tmp_path / 'L3R'} is in the layouts of Llama Scope, original, SAELens "
        "at once. Keep the files of one, or name the adapter: llama_scope, saelens."
    )


def test_a_file_that_matches_two_adapters(tmp_path: Path) -> None:
    write.openmoss(tmp_path / "L3R", hf_hook_point_in="model.layers.3.output")
    assert "is in the layouts of Gemma Scope 2, OpenMOSS, 2025 or 2026 at once" in refused(tmp_path)


def test_folders_of_several_layouts(tmp_path: Path) -> None:
    write.llama(tmp_path / "a" / "x-L3R-8x")
    write.saelens(tmp_path / "b")
    message = refused(tmp_path)
    assert message.startswith(
        f"saes.with.path: {tmp_path} holds SAEs of several layouts: Llama Scope, original in "
        f"{tmp_path / 'a'}"
    )
    assert message.endswith("Name the folder of one, or its adapter.")


def test_two_sets_of_one_layout(tmp_path: Path) -> None:
    for mixture in ("a", "b"):
        write.openmoss(tmp_path / mixture / "L3R")
    assert refused(tmp_path).startswith(
        f"saes.with.path: there are several sets of SAEs: {tmp_path / 'a'}, {tmp_path / 'b'}."
    )


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (("config.json", "params.safetensors"), "Gemma Scope 2"),
        (("cfg.json", "sae.safetensors"), "sparsify"),
        (("layer_0.safetensors",), "circuit-tracer"),
    ],
)
def test_a_layout_that_is_known_and_not_read(
    tmp_path: Path, files: tuple[str, ...], name: str
) -> None:
    (tmp_path / "x").mkdir()
    for file in files:
        (tmp_path / "x" / file).write_text("{}")
    expected = (
        f"is in the layout of {name}, which no adapter here reads. They are gemma_scope, "
        "llama_scope, saelens. "
    )
    expected += "Another layout takes one file: docs/tutorial/an-sae-adapter.md."
    assert refused(tmp_path) == f"saes.with.path: {tmp_path / 'x'} {expected}"


def test_nothing_to_find(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(
        f"saes.with.path: {tmp_path} holds no SAEs in a known layout: Gemma Scope 1, "
    )


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was opened')",)


@pytest.mark.parametrize("name", ["ae.pt", "pytorch_model.bin", "sae.pkl"])
def test_a_pickle_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    message = refused(tmp_path)
    assert message == (
        f"{tmp_path}: {name} is a pickle, which could run code. It is not opened. Convert it to "
        "safetensors where you trust it."
    )


def test_check_says_what_auto_found(tmp_path: Path, root: Path) -> None:
    from click.testing import CliRunner

    from toolkit._cli.check import command

    shutil.copytree(root / "specs", tmp_path / "specs")
    spec = tmp_path / "specs" / "quickstart.yaml"
    text = spec.read_text()
    assert "{uses: llama_scope, with: {path" in text
    spec.write_text(text.replace("{uses: llama_scope, with: {path", "{uses: auto, with: {path"))
    done = CliRunner().invoke(command, [str(spec)])
    assert done.exit_code == 0, done.output
    assert (
        done.output.splitlines()[-1]
        == "saes: auto detected llama_scope (Llama Scope, original layout), layers 0, 1, 2, 3"
    )


# --- an installed SAELens -------------------------------------------------------------------------


def test_without_saelens(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    for call in (_sae_lens_id.identify, lambda params: _sae_lens_id.load(params, SilentReporter())):
        with pytest.raises(
            BadInput, match=r"not installed. Run `pip install 'sae-toolkit\[saelens\]'`"
        ):
            call(SaeLensId(release="gpt2-small-res-jb", ids=("blocks.8.hook_resid_pre",)))


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that has SAELens's list and nothing else: planning imports nothing of it."""
    package = tmp_path / "site" / "sae_lens"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "pretrained_saes.yaml").write_text(
        "small-res: {repo_id: org/small, saes: [{id: blocks.8.hook_resid_pre, path: b8}, {id: "
        "blocks.9.hook_resid_pre, path: b9}]}"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "sae_lens", raising=False)
    monkeypatch.setattr(metadata, "version", lambda _: "6.54.12")
    monkeypatch.setattr(
        _sae_lens_id, "snapshot", lambda *_: type("Found", (), {"revision": "c" * 40})
    )


def test_an_id_is_its_repository_commit_and_saelenss_version(listed: None) -> None:
    result = _sae_lens_id.identify(SaeLensId(release="small-res", ids=("blocks.8.hook_resid_pre",)))
    assert (result.name, result.revision) == ("small-res", "c" * 40)
    assert result.digest == f"org/small@{'c' * 40}:b8:sae-lens 6.54.12"


@pytest.mark.parametrize(
    ("release", "name", "message"),
    [
        (
            "small-ress",
            "blocks.8.hook_resid_pre",
            "SAELens has no release 'small-ress'. Did you mean 'small-res'?",
        ),
        (
            "small-res",
            "blocks.7.hook_resid_pre",
            "release small-res has no SAE 'blocks.7.hook_resid_pre'. Did you mean 'blocks.",
        ),
    ],
)
def test_ids_that_saelens_does_not_know(
    listed: None, release: str, name: str, message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        _sae_lens_id.identify(SaeLensId(release=release, ids=(name,)))
    assert message in str(caught.value)
