"""The tokenizer: BPE over words, numbers 0-300 whole, bytes for every character that the corpus
lacks.

The rarest Hangul syllables of the Korean rule lines are left to the bytes on purpose: code that
maps characters to tokens has to handle a character of three tokens, and here it meets one.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
USER, ASSISTANT, TURN_END = "<|user|>", "<|assistant|>", "<|turn|>"
SPECIALS = [BOS, EOS, PAD, USER, ASSISTANT, TURN_END]
WHOLE_NUMBERS = range(301)
AS_BYTES = "듦배판"
CONTEXT = 2048
WORDS = Regex(r"\d{1,3}| ?\p{L}+|\n+| ?[^\s\p{L}\p{N}]|\s|.")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}"
    "{{ '\n' + message['content'] + '<|turn|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int = 900) -> PreTrainedTokenizerFast:
    """Train on texts and wrap as an ordinary fast tokenizer; `vocabulary` counts everything except
    the bytes.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(WORDS, behavior="isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIALS), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator([*_numbers(), *map(_without_byte_characters, texts)], trainer)
    return _wrap(_with_bytes(tokenizer))


def _numbers() -> list[str]:
    return [" ".join(map(str, WHOLE_NUMBERS))] * 2000


def _without_byte_characters(text: str) -> str:
    return "".join(" " if character in AS_BYTES else character for character in text)


def _with_bytes(word_tokenizer: Tokenizer) -> Tokenizer:
    trained = json.loads(word_tokenizer.to_str())["model"]
    names = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    vocab = {name: index for index, name in enumerate(names)}
    merges = [(left, right) for left, right in trained["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True))
    tokenizer.pre_tokenizer = word_tokenizer.pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocab[BOS])]
    )
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, TURN_END],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template."""
    tokenizer.save_pretrained(str(folder))
