"""The part keeps its contract, and so does what it loads: a Mamba of three blocks, made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toolkit_mamba import toolkit_parts

from toolkit.errors import BadInput, DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded import check_loaded

WORDS = "one two three four five six seven eight nine ten".split()
(PART,) = toolkit_parts()


def tiny_mamba(folder: Path) -> Path:
    """The files of a Mamba with random weights and a tokeniser of ten words, as `save_pretrained`
    writes them.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = ["<unk>", "<end>", *WORDS]
    tokeniser = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>")
    )
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokeniser, unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = MambaForCausalLM(
            MambaConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=3, state_size=4)
        )
    module.save_pretrained(folder)
    return folder


def test_contract(tmp_path):
    given = {"path": str(tiny_mamba(tmp_path))}
    check_part(PART, params=given)
    check_loaded(PART, params=given)


def test_it_computes_what_transformers_does(tmp_path):
    import torch
    from transformers import MambaForCausalLM

    given = PART.params(path=str(tiny_mamba(tmp_path)))
    model, theirs = (
        PART.load(given, SilentReporter()),
        MambaForCausalLM.from_pretrained(tmp_path).eval(),
    )
    ids = list(model.encode("one two three unheard-of four").ids)
    names = [f"resid_post.{layer}" for layer in range(model.layers)]
    with torch.inference_mode():
        wanted = theirs(torch.tensor([ids]), output_hidden_states=True)
        embedded = theirs.backbone.embeddings(torch.tensor([ids]))
    found = model.run([ids], [*names, "resid_pre.0", "resid_pre.2"])
    # theirs continues with the last norm's output
    for name, stream in zip(names, wanted.hidden_states, strict=False):
        torch.testing.assert_close(found[name], stream)
    assert found["resid_pre.0"].equal(embedded)
    assert found["resid_pre.2"].equal(found["resid_post.1"])
    torch.testing.assert_close(model.next_logits([ids]), wanted.logits[:, -1])


def test_what_it_refuses(tmp_path):
    with pytest.raises(BadInput, match=r"config\.json cannot be read as JSON"):
        PART.identify(PART.params(path=str(tmp_path)))
    for config in ({"model_type": "llama"}, {"model_type": "mamba", "hidden_size": 32}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            BadInput,
            match=r"is no Mamba: wanted \*\.safetensors and a whole "
            r"config\.json "
            r"of "
            r"model_type mamba",
        ):
            PART.identify(PART.params(path=str(tmp_path)))
    model = PART.load(PART.params(path=str(tiny_mamba(tmp_path / "tiny"))), SilentReporter())
    for name in ("attn_out.0", "resid_post.3"):
        with pytest.raises(
            BadInput, match=r"tiny has resid_pre\.LAYER and resid_post\.LAYER, layers 0 to 2\."
        ):
            model.run([[1]], [name])
    with pytest.raises(
        BadInput, match=r"tiny has no chat template: it is not a chat model\. Leave `chat` out\."
    ):
        model.encode("one", chat=True)
    with pytest.raises(
        DataError, match=r"A sequence has 65537 tokens; tiny reads at most 65536\. Shorten it\."
    ):
        model.run([[0] * 65537], ["resid_post.0"])
