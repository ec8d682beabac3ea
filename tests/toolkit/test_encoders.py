"""A model that reads both ways: it is extracted from and compared like a decoder, and refuses by
name what needs a next token.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertConfig, BertModel, BertTokenizerFast

from tests.toolkit import tiny_bert
from toolkit.errors import BadInput
from toolkit.models import Encoded
from toolkit.testing import sae_files
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded import check_loaded
from toolkit.testing.loaded_models import check_model
from toolkit.testing.promises import Broken

(PART,) = tiny_bert.toolkit_parts()
WIDTH = sae_files.INPUTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three blocks with random weights."""
    folder = tmp_path_factory.mktemp("bert")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    known = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    tokeniser = BertTokenizerFast(vocab={piece: index for index, piece in enumerate(known)})
    tokeniser.save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(known),
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    module = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    module.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(folder: Path) -> Any:
    return PART.load(PART.params(path=str(folder)), SilentReporter())


def test_the_contract(folder: Path) -> None:
    check_part(PART, params={"path": str(folder)})
    check_loaded(PART, params={"path": str(folder)})


def test_hookpoints_are_what_hooks_see(bert: Any, folder: Path) -> None:
    """In a batch, so that padding would show."""
    plain = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    seen: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(plain.encoder.layer):
        block.register_forward_hook(
            lambda _module, _args, out, layer=layer: seen.update(
                {layer: out[0] if isinstance(out, tuple) else out}
            )
        )
    batch = [list(bert.encode(text).ids) for text in ("ab", "one two three")]
    results = bert.run(batch, ["resid_post.0", "resid_post.2"])
    for row, ids in enumerate(batch):
        with torch.inference_mode():
            plain(torch.tensor([ids]))
        for layer in (0, 2):
            torch.testing.assert_close(
                results[f"resid_post.{layer}"][row, : len(ids)],
                seen[layer].reshape(-1, len(ids), WIDTH)[0],
                rtol=1e-4,
                atol=1e-5,
            )


NEED_A_NEXT_TOKEN = (
    "unembed",
    "prefix",
    "suffix",
    "edited_states",
    "next_logits",
    "readout",
    "session",
    "generate",
    "score",
)


@pytest.mark.parametrize("method", NEED_A_NEXT_TOKEN)
def test_what_needs_a_next_token_is_refused(bert: Any, method: str) -> None:
    with pytest.raises(BadInput) as caught:
        getattr(bert, method)([2, 5, 3], [])
    assert str(caught.value) == (
        f"{method}: {bert.identity.name} is an encoder, which reads a text from both sides and "
        "predicts no next token. Extraction and comparison work with it; playing, patching and "
        "scoring need a decoder."
    )


class _Backwards(tiny_bert.Bert):
    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        result = super().encode(text, chat=chat)
        return Encoded(result.text, result.ids, (*result.offsets[:-1], (0, 0)))


class _Unmasked(tiny_bert.Bert):
    def run(self, batch: Any, capture: Any, edits: Any = ()) -> dict[str, torch.Tensor]:
        longest = max(map(len, batch))
        return super().run([[*row, *[0] * (longest - len(row))] for row in batch], capture, edits)


class _Decoder(tiny_bert.Bert):
    causal = True


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            _Backwards,
            r"go backwards for 'one': \(2, 3\), then \(0, 0\)\. A token .* before it: \(3, 3\)",
        ),
        (_Unmasked, "of a text depends on the other texts of its batch or on the padding"),
        (_Decoder, "a causal model was expected. An encoder is a toolkit.models.encoders.Encoder"),
    ],
)
def test_what_authors_get_wrong(bert: Any, kind: type[tiny_bert.Bert], message: str) -> None:
    with pytest.raises(Broken, match=message):
        check_model(kind(bert.identity, bert._module, bert._tokeniser), ("one", "two three four"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_features_of_an_encoder_are_extracted_and_compared(folder: Path, tmp_path: Path) -> None:
    """A whole run: an SAE at its second block, and a difference between two groups of texts."""
    sae_files.llama(tmp_path / "saes" / "x-L1R-8x", "blocks.1.hook_resid_post")
    rows = [f"{word * (1 + index % 3)},{word}" for index in range(12) for word in ("ab", "xy")]
    (tmp_path / "texts.csv").write_text("text,kind\n" + "\n".join(rows) + "\n")
    spec = {
        "version": 1,
        "name": "encoder",
        "examine": "off",
        "model": {"uses": "bert", "with": {"path": str(folder)}},
        "saes": {"uses": "llama_scope", "with": {"path": "saes"}},
        "samples": {"uses": "csv", "with": {"path": "texts.csv"}},
        "stages": [
            {"id": "features", "uses": "extract.activations", "with": {"at": "all"}},
            {
                "id": "groups",
                "uses": "compare.welch",
                "needs": ["features"],
                "with": {"by": "kind", "between": ["ab", "xy"]},
            },
        ],
        "sinks": [{"uses": "json", "with": {"path": "out", "tables": ["activations", "features"]}}],
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    plugin = Path(tiny_bert.__file__)
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "run", "spec.yaml", "--plugin", str(plugin)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "features.jsonl").read_text().splitlines()
    assert {json.loads(line)["stat"] for line in lines} >= {"d", "p"}
    activations = (tmp_path / "out" / "activations.jsonl").read_text().splitlines()
    assert {json.loads(line)["sample"] for line in activations} == {
        f"{index:06d}" for index in range(len(rows))
    }
