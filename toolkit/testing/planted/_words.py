"""The planted model's words, tokenizer files and labelled prompts.

Each word is one token, marked at its front like the words of a Llama tokenizer, so " stop" and "
bet" are the two decision tokens. A cause word and its neutral twin differ in nothing but the cause,
which makes every other feature an exact null between prompts that hold the one or the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.statistics.randomness import generator

if TYPE_CHECKING:
    from toolkit.testing.planted._truth import Planted

UNK, BOS, EOS, PAD = "<unk>", "<bos>", "<eos>", "<pad>"
SPECIAL = (UNK, BOS, EOS, PAD)
STOP, BET = "stop", "bet"
CAUSE, CALM = "losing", "calm"
SHIELD, PLAIN = "winning", "plain"
LAST = "choose"
FILLERS = (
    "the a you have balance goal round low high streak game slot machine rate payout history "
    "options and or is was in of to your now then with after before last next money risk target "
    "cost chance roll spin table hand card 10 20 30 40 50 60 70 80 90 100"
).split()
WORDS = (STOP, BET, CAUSE, CALM, SHIELD, PLAIN, LAST, *FILLERS)
VOCAB = {token: index for index, token in enumerate((*SPECIAL, *("▁" + word for word in WORDS)))}


def word_id(word: str) -> int:
    """The token id of a word."""
    return VOCAB["▁" + word]


@dataclass(frozen=True)
class PlantedPrompt:
    """One prompt and what it holds: the cause raises stop over bet, the shield lowers it."""

    text: str
    cause: bool
    shield: bool

    @property
    def ids(self) -> list[int]:
        """Token ids, BOS included, as the tokenizer files give them."""
        return [VOCAB[BOS], *(word_id(word) for word in self.text.split(" "))]


def prompts(planted: Planted, n: int, seed: int = 0) -> list[PlantedPrompt]:
    """Draw labelled prompts with random filler text of varying length. Any four consecutive prompts
    have the four combinations of cause and shield.
    """
    return draw_prompts(n, (planted.truth.seed, seed))


def draw_prompts(n: int, seed: tuple[int, int]) -> list[PlantedPrompt]:
    """Draw prompts from a seed alone, for use before the planted model exists."""
    return [_draw(index, seed) for index in range(n)]


def _draw(index: int, seed: tuple[int, int]) -> PlantedPrompt:
    rng = generator(seed[0], "prompt", seed[1], index)
    cause, shield = index % 2 == 0, index // 2 % 2 == 0
    words = [FILLERS[i] for i in rng.integers(len(FILLERS), size=int(rng.integers(10, 36)))]
    for word in (CAUSE if cause else CALM, SHIELD if shield else PLAIN):
        words.insert(int(rng.integers(len(words) + 1)), word)
    return PlantedPrompt(" ".join([*words, LAST]), cause, shield)


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json by hand: a word-level vocabulary, with
    BOS before each text.
    """
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": VOCAB[token], "content": token, **flags} for token in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": space,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, second],
            "special_tokens": {BOS: {"id": BOS, "ids": [VOCAB[BOS]], "tokens": [BOS]}},
        },
        "decoder": space,
        "model": {"type": "WordLevel", "vocab": VOCAB, "unk_token": UNK},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        (folder / name).write_text(
            json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
