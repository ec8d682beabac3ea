"""The corpus: token ids with, at each free choice, the policy's exact probabilities as the target.

Learning from the probabilities rather than from one drawn reply is the same target with less noise,
so a few thousand steps suffice. A quarter of the prompts goes through the chat template; the rest
is raw text after BOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from transformers import PreTrainedTokenizerFast

from toolkit_lab.training import policy, sentences
from toolkit_lab.training.game import State, random_state
from toolkit_lab.training.layouts import render
from toolkit_lab.training.tokenizer import EOS

SENTENCE_SHARE = 0.15
CHAT_SHARE = 0.25


@dataclass(frozen=True)
class Choice:
    """A position whose next token is free: the candidates and their probabilities."""

    position: int
    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class TrainingExample:
    """One training text: its ids, where the reply starts, and its free choices."""

    ids: tuple[int, ...]
    reply_start: int
    choices: tuple[Choice, ...] = ()


@dataclass
class _ReplyPieces:
    """A reply under construction. Pieces end where a token ends, so each can be encoded alone."""

    pieces: list[str]
    free: dict[int, dict[str, float]] = field(default_factory=dict)

    def draw(self, options: dict[str, float], rng: Random) -> str:
        self.free[len(self.pieces)] = options
        self.pieces.append(rng.choices(list(options), list(options.values()))[0])
        return self.pieces[-1]


def draw_reply(state: State, rng: Random, lead: str) -> _ReplyPieces:
    """Draw a reply from the policy; `lead` is the text between the prompt and a reasoning line."""
    corrected = state.layout == "corrected"
    reply = _ReplyPieces(
        [lead + policy.reason(state, rng), "\nFinal Decision:"] if corrected else []
    )
    stop, bet = (" Stop", " Bet") if corrected else ("2", "1")
    chance = policy.stop_probability(state)
    if reply.draw({stop: chance, bet: 1 - chance}, rng) == stop:
        reply.pieces += [] if corrected else [") Stop"]
        return reply
    reply.pieces += [" $"] if corrected else [") Bet", " $"]
    reply.draw(
        {str(amount): share for amount, share in policy.bet_probabilities(state).items()}, rng
    )
    return reply


def chat_text(tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """Return the chat form of a prompt, BOS included."""
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def make_examples(
    tokenizer: PreTrainedTokenizerFast, count: int, seed: int
) -> list[TrainingExample]:
    """Draw `count` examples: transcripts in all layouts, raw and chat, and labelled sentences."""
    rng = Random(seed)
    known, _ = sentences.split()
    texts: list[str] = []
    replies: list[_ReplyPieces] = []
    for _ in range(count):
        text, reply = (
            _sentence(rng, known) if rng.random() < SENTENCE_SHARE else _decision(tokenizer, rng)
        )
        texts.append(text)
        replies.append(reply)
    return [
        _example(tokenizer, ids, reply)
        for ids, reply in zip(_encode(tokenizer, texts), replies, strict=True)
    ]


def _decision(tokenizer: PreTrainedTokenizerFast, rng: Random) -> tuple[str, _ReplyPieces]:
    state, chat = random_state(rng), rng.random() < CHAT_SHARE
    text = chat_text(tokenizer, render(state)) if chat else str(tokenizer.bos_token) + render(state)
    return text, draw_reply(state, rng, "" if chat else "\n")


def _sentence(rng: Random, known: Sequence[tuple[str, int]]) -> tuple[str, _ReplyPieces]:
    sentence, level = rng.choice(known)
    return f"<|begin|>{sentence}{sentences.LABEL}", _ReplyPieces([str(level)])


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids]


def _example(
    tokenizer: PreTrainedTokenizerFast, prompt: list[int], reply: _ReplyPieces
) -> TrainingExample:
    ids, choices = list(prompt), []
    for index, piece in enumerate(reply.pieces):
        if index in reply.free:
            choices.append(_choice(tokenizer, len(ids), reply.free[index]))
        ids += tokenizer.encode(piece, add_special_tokens=False)
    ids += tokenizer.encode(EOS, add_special_tokens=False)
    return TrainingExample(tuple(ids), len(prompt), tuple(choices))


def _choice(tokenizer: PreTrainedTokenizerFast, position: int, options: dict[str, float]) -> Choice:
    tokens = tuple(tokenizer.encode(text, add_special_tokens=False)[0] for text in options)
    return Choice(position, tokens, tuple(options.values()))


def tokenizer_texts(seed: int, count: int = 4000) -> list[str]:
    """Return raw text that shows the tokenizer every wording of the corpus."""
    rng = Random(seed)
    states = [random_state(rng) for _ in range(count)]
    plays = [render(state) + "".join(draw_reply(state, rng, "\n").pieces) for state in states]
    return plays + [
        f"{sentence}{sentences.LABEL}{level}" for sentence, level in sentences.split()[0]
    ]
