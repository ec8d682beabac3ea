"""Labels of the SAEs' features, in Neuronpedia's bulk format: the pairs of tokens at which a
feature fires most strongly, on text of the same generator drawn with a new seed.

Neither a person nor a language model wrote them, and no reply of a played game enters them.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from toolkit.features.neuronpedia import names
from toolkit_lab.training import layout_files
from toolkit_lab.training.corpus import TrainingExample, make_examples
from toolkit_lab.training.saes import residuals

MODEL = "model"
"""The name of a model is that of its folder."""
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""The decoded text of a token that holds part of a character."""
SEED = 1311
PAIRS, SHARE = 4, 0.05
"""The most pairs that a label names, and the smallest share of the feature's activation that a pair
must have.
"""


@torch.no_grad()
def write_labels(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, files: Path, count: int
) -> None:
    """Write a folder for each SAE in the Llama Scope layout: `labels/v1/MODEL/SOURCE/`."""
    examples = make_examples(tokenizer, count, seed=SEED)
    pairs = list(_pairs(tokenizer, examples))
    texts = sorted(set(pairs))
    numbers = {text: number for number, text in enumerate(texts)}
    index = torch.tensor([numbers[text] for text in pairs])
    for layer, acts in enumerate(residuals(model, examples)):
        fired = layout_files.load_llama_scope(files / "saes", layer).encode(acts)
        sums = torch.zeros(len(texts), fired.shape[1]).index_add_(0, index, fired)
        _write_source(files / "labels", layer, dict(_labels(sums, texts)))


def _pairs(tokenizer: PreTrainedTokenizerFast, examples: list[TrainingExample]) -> Iterator[str]:
    """For each row of `residuals`, in its order: the token before it and the token, as text."""
    for example in sorted(examples, key=lambda example: len(example.ids)):
        for pair in zip(example.ids, example.ids[1:], strict=False):
            text = str(tokenizer.decode(list(pair), skip_special_tokens=True))
            yield " ".join(text.split())


def _labels(sums: torch.Tensor, texts: list[str]) -> Iterator[tuple[int, str]]:
    """The label of each feature that fires: its pairs, the one with most activation first."""
    total = sums.sum(0)
    best = sums.topk(PAIRS, dim=0)
    for feature in total.nonzero().flatten().tolist():
        named = [
            texts[number]
            for number, value in zip(
                best.indices[:, feature].tolist(), best.values[:, feature].tolist(), strict=True
            )
            if value >= SHARE * total[feature] and UNREADABLE not in texts[number]
        ]
        if named:
            yield feature, "tokens: " + " | ".join(named)


def _write_source(root: Path, layer: int, labels: dict[int, str]) -> None:
    space = {"model": MODEL, "hookpoint": f"resid_post.{layer}", "sae": f"Lab-L{layer}R-4x"}
    model, source = names(space)
    rows = [
        {
            "id": f"{model}-{source}-{feature}-0000",
            "modelId": model,
            "layer": source,
            "index": str(feature),
            "description": labels[feature],
            "typeName": "token-pairs",
            "explanationModelName": None,
        }
        for feature in sorted(labels, key=str)
    ]
    path = root / "v1" / model / source / "explanations" / "batch-0.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
