"""What a model is, read from its files without loading it: the digest, the facts, and every kind of
unusable file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from toolkit.errors import BadInput
from toolkit.files.hub import Snapshot
from toolkit.identity import Identity
from toolkit.models.families import Family
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.planted import Planted
from toolkit_hf import toolkit_parts
from toolkit_hf._identity import HuggingFace, downloads, identify, repository
from toolkit_hf._load import load

LAB = "package:toolkit_lab/files/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copied(planted: Planted, tmp_path: Path) -> Path:
    """The planted model's files, to be changed."""
    return Path(shutil.copytree(planted.model, tmp_path / "copied" / "model"))


@pytest.fixture
def config(copied: Path) -> Callable[..., None]:
    """Changes config.json; None leaves a key out."""

    def change(**values: Any) -> None:
        file = copied / "config.json"
        known = {**json.loads(file.read_text()), **values}
        file.write_text(
            json.dumps({name: value for name, value in known.items() if value is not None})
        )

    return change


def identity(folder: Path | str, **params: Any) -> Identity:
    return identify(HuggingFace(path=str(folder), **params))


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", list(toolkit_parts()), ids=lambda part: part.name)
def test_contract(part: Any) -> None:
    check_part(part, params={"path": LAB, "dtype": "float32"})


def test_identify_imports_nothing_heavy(planted: Planted) -> None:
    code = (
        "import sys; from toolkit_hf import toolkit_parts; part = next(toolkit_parts())\n"
        f"for path in ({str(planted.model)!r}, {LAB!r}): part.identify(part.params(path=path))\n"
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'numpy', 'pyarrow') if "
        "name in sys.modules])"
    )
    results = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert results.stdout.strip() == "[]"


# --- the digest and the facts ---------------------------------------------------------------------


def test_the_digest_does_not_depend_on_the_place(planted: Planted, copied: Path) -> None:
    here, there = identity(copied), identity(planted.model)
    assert (here.digest, here.facts) == (there.digest, there.facts)
    assert identity(copied, device="cuda:1") == here


def test_the_digest_depends_on_what_it_computes_in(planted: Planted) -> None:
    kinds = ("auto", "float32", "bfloat16", "float16")
    assert len({identity(planted.model, dtype=dtype).digest for dtype in kinds}) == 4


def test_the_digest_depends_on_the_weights(planted: Planted, copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["lm_head.weight"][5, 3] += 0.25
    save_file(
        {name: np.ascontiguousarray(weight) for name, weight in weights.items()},
        copied / "model.safetensors",
    )
    assert identity(copied).digest != identity(planted.model).digest
    assert identity(copied).facts == identity(planted.model).facts


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
def test_the_digest_depends_on_every_file_that_is_read(
    planted: Planted, copied: Path, name: str
) -> None:
    file = copied / name
    file.write_text(
        (file.read_text(encoding="utf-8") if file.exists() else "") + "\n", encoding="utf-8"
    )
    assert identity(copied).digest != identity(planted.model).digest


def test_the_digest_does_not_depend_on_other_files(planted: Planted, copied: Path) -> None:
    (copied / "README.md").write_text("A model.")
    assert identity(copied).digest == identity(planted.model).digest


def test_the_facts_are_those_of_the_loaded_model(planted: Planted) -> None:
    for path in (str(planted.model), LAB):
        facts, model = (
            identity(path).facts,
            load(HuggingFace(path=path, device="cpu"), SilentReporter()),
        )
        assert model.identity == identity(path)
        assert (facts["layers"], facts["width"], facts["context"]) == (
            model.layers,
            model.width,
            model.context,
        )
        assert facts["parameters"] == sum(weight.numel() for weight in model._module.parameters())
        assert (facts["architecture"], facts["vocabulary"]) == (
            "llama",
            model._module.config.vocab_size,
        )


def test_dtype_is_what_it_computes_in(planted: Planted) -> None:
    model = load(
        HuggingFace(path=str(planted.model), dtype="bfloat16", device="cpu"), SilentReporter()
    )
    assert str(model.prefix([1, 5, 6]).captured[model.last_hookpoint()].dtype) == "torch.bfloat16"
    assert str(model.next_logits([[1, 5, 6]]).dtype) == "torch.float32"


def test_names_for_people(copied: Path) -> None:
    assert identity(LAB).name == "toolkit_lab/model"
    assert identity(copied).name == "copied/model"
    assert identity(copied.rename(copied.parent / "llama-small")).name == "llama-small"
    assert identity(LAB).revision == "local"


# --- params ---------------------------------------------------------------------------------------


def test_a_model_is_named_by_either_an_id_or_a_path() -> None:
    with pytest.raises(
        ValidationError,
        match=r"give either id \(a repository on the hub\) or path \(a folder\), not both",
    ):
        HuggingFace(id="org/model", path="model")
    with pytest.raises(ValidationError, match=r"name the model: give id \(a repository .* or path"):
        HuggingFace()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", ""])
def test_a_device_that_nobody_has(device: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        HuggingFace(path="model", device=device)


# --- files that are no model ----------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        identity(folder)
    return str(caught.value)


def test_a_folder_without_a_config(copied: Path) -> None:
    (copied / "config.json").unlink()
    message = (
        f"{copied} is not a model: it has no config.json. Name the folder that holds "
        "config.json and "
        "*.safetensors."
    )
    assert refused(copied) == message


def test_a_folder_without_weights(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    assert refused(copied) == (
        f"{copied} has no model.safetensors and no model.safetensors.index.json. Convert the "
        "weights to safetensors, or copy them there."
    )


def test_other_weights_are_not_loaded_instead(copied: Path) -> None:
    """transformers would load the pickle, which no digest has seen."""
    (copied / "model.safetensors").rename(copied / "model_x.safetensors")
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    message = refused(copied)
    assert "model_x.safetensors, pytorch_model.bin are not opened. Convert the weights" in message
    with pytest.raises(BadInput, match="are not opened"):
        load(HuggingFace(path=str(copied), device="cpu"), SilentReporter())


def test_a_pickle_beside_the_weights_is_not_read(copied: Path) -> None:
    before = identity(copied)
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    assert identity(copied) == before
    assert load(HuggingFace(path=str(copied), device="cpu"), SilentReporter()).layers


def test_weights_of_two_kinds(copied: Path) -> None:
    (copied / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert refused(copied) == (
        f"{copied} holds both model.safetensors and model.safetensors.index.json: which weights "
        "are meant is not known. Remove one."
    )


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/tmp/x.safetensors", "x.bin", "a/b.safetensors", ""]
)
def test_an_index_that_leads_elsewhere(copied: Path, name: str) -> None:
    (copied / "model.safetensors").unlink()
    index = copied / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    assert refused(copied) == (
        f"{index} names {name!r}, which is not a safetensors file of the folder itself."
    )


@pytest.mark.parametrize("known", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_an_index_without_names(copied: Path, known: Any) -> None:
    (copied / "model.safetensors").unlink()
    index = copied / "model.safetensors.index.json"
    index.write_text(json.dumps(known))
    assert refused(copied) == f"{index} has no weight_map of file names. Copy it again."


def test_an_adapter_or_another_file_of_weights(copied: Path, config: Callable[..., None]) -> None:
    (copied / "adapter_config.json").write_text("{}")
    assert "would load the adapter and its base model from elsewhere" in refused(copied)
    (copied / "adapter_config.json").unlink()
    config(transformers_weights="model_x.safetensors")
    assert "transformers_weights is 'model_x.safetensors'; weights are read" in refused(copied)


def test_weights_that_are_a_pipe(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    os.mkfifo(copied / "model.safetensors")
    assert "is a named pipe, not a file" in refused(copied)


def test_code_of_a_repository_is_never_run(
    copied: Path, config: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is asked whether it may be."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    names = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    config(model_type="own", auto_map=names)
    (copied / "code.py").write_text("raise SystemExit('run')")
    family = Family(blocks="b", embedding="e", norm="n", attention="a", attention_end="o", mlp="m")
    for params in ({}, {"family": family}):
        with pytest.raises(BadInput) as caught:
            identity(copied, **params)
        assert "auto_map asks to run the code of the model's repository" in str(caught.value)


def test_code_of_a_tokeniser_is_never_run(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    known = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", None]}}
    (copied / "tokenizer_config.json").write_text(json.dumps(known))
    (copied / "code.py").write_text("raise SystemExit('run')")
    with pytest.raises(BadInput) as caught:
        load(HuggingFace(path=str(copied), device="cpu"), SilentReporter())
    assert str(caught.value).startswith(
        f"{copied}: transformers does not load it: it asks to run code of the model's repository, "
        "which is never run. Save the tokeniser and config in transformers' own classes"
    )


def test_weights_that_are_cut_off(copied: Path) -> None:
    file = copied / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size - 1234)
    assert refused(copied) == (
        f"{file} is cut off: its header promises {size:,} bytes, it has {size - 1234:,}. Copy or "
        "download it again."
    )


def test_an_architecture_that_is_not_loaded(copied: Path, config: Callable[..., None]) -> None:
    config(model_type="mamba")
    assert refused(copied) == (
        f"{copied}/config.json: architecture 'mamba' is not among those that `huggingface` loads: "
        "gemma2, gemma3_text, gpt2, gpt_neox, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, "
        "smollm3. For another decoder name its modules under model.with.family; anything else "
        "takes one file: docs/tutorial/a-model-loader.md."
    )


def test_a_config_without_a_size(copied: Path, config: Callable[..., None]) -> None:
    config(hidden_size=None)
    assert (
        refused(copied)
        == f"{copied}/config.json has no 'hidden_size': it is not a complete llama config."
    )


def test_a_config_that_is_no_json(copied: Path) -> None:
    (copied / "config.json").write_text("{")
    assert refused(copied).startswith(f"{copied}/config.json cannot be read as JSON: ")


# --- the hub's cache ------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: Planted) -> Path:
    """A cache that has the planted model as org/small, its branch `main` at COMMIT."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--org--small"
    shutil.copytree(planted.model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_a_cached_model_is_found_by_branch_and_by_commit(cache: Path, planted: Planted) -> None:
    by_branch, by_commit = (
        identify(HuggingFace(id="org/small", revision=revision)) for revision in ("main", COMMIT)
    )
    assert by_branch == by_commit
    assert (by_branch.name, by_branch.revision) == ("org/small", COMMIT)
    assert by_branch.facts == identity(planted.model).facts
    assert by_branch.digest != identify(HuggingFace(id="org/small", dtype="float16")).digest


def test_a_cached_model_loads_without_the_network(cache: Path) -> None:
    reporter = SilentReporter()
    assert load(HuggingFace(id="org/small", device="cpu"), reporter).layers == 4
    assert reporter.phases == ["load"]


def test_a_model_that_is_not_cached_offline(cache: Path) -> None:
    with pytest.raises(BadInput) as caught:
        identify(HuggingFace(id="org/small", revision="v2"))
    assert str(caught.value) == (
        f"'org/small' at revision 'v2' is not in the Hugging Face cache ({cache.parent}), and "
        "HF_HUB_OFFLINE disables downloads. Unset HF_HUB_OFFLINE, name a cached revision, or a "
        "folder with `path:`."
    )


def test_a_cached_config_alone_is_no_model(cache: Path) -> None:
    """Other tools fetch configs and tokenisers by themselves."""
    (cache / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="is not in the Hugging Face cache"):
        identify(HuggingFace(id="org/small"))


# --- a cache that has a part of the files ---------------------------------------------------------


@pytest.fixture
def sharded(cache: Path) -> Path:
    """The same in two files, of which the cache has the first."""
    folder = cache / "snapshots" / COMMIT
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file(
        {name: np.ascontiguousarray(weight) for name, weight in weights.items()}, folder / names[0]
    )
    index = {"weight_map": {**dict.fromkeys(weights, names[0]), "extra.weight": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_part_of_a_model_offline(sharded: Path) -> None:
    with pytest.raises(BadInput) as caught:
        identify(HuggingFace(id="org/small"))
    assert str(caught.value) == (
        f"'org/small' is in the Hugging Face cache in part: {sharded} lacks 1 of its files, first "
        "model-00002-of-00002.safetensors, and HF_HUB_OFFLINE forbids fetching them. Unset it and "
        "run `toolkit fetch SPEC`."
    )


def test_part_of_a_model_is_fetched_again(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert repository(HuggingFace(id="org/small")) == Snapshot("org/small", COMMIT, None)
    assert identify(HuggingFace(id="org/small")).facts == {}


def test_a_folder_with_part_of_a_model(sharded: Path) -> None:
    assert refused(sharded) == (
        f"{sharded} lacks 1 of the files that model.safetensors.index.json names, first "
        "model-00002-of-00002.safetensors. Copy or download it again."
    )


def test_what_is_fetched_is_what_is_read(cache: Path) -> None:
    (result,) = downloads(HuggingFace(id="org/small"))
    assert result.snapshot == Snapshot("org/small", COMMIT, cache / "snapshots" / COMMIT)
    read = {
        "config.json",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
    }
    names = [
        *read,
        "consolidated.safetensors",
        "pytorch_model.bin",
        "original/params.json",
        "README.md",
        "tf_model.h5",
    ]
    assert {
        name for name in names if any(fnmatch(name, pattern) for pattern in result.patterns)
    } == read
    assert list(downloads(HuggingFace(path="/somewhere"))) == []
