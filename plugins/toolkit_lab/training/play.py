"""Letting the model play: sampled replies for a batch of prompts, and many whole games at once."""

from dataclasses import dataclass, replace
from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from toolkit_lab.training.corpus import chat_text
from toolkit_lab.training.game import LAYOUTS, MAX_ROUNDS, WIN_RATE, State, random_components, step
from toolkit_lab.training.layouts import parse, render

MAX_NEW_TOKENS = 32


@dataclass(frozen=True)
class FinishedGame:
    """A finished game; an unreadable reply ends a game at once, with its own outcome."""

    state: State
    outcome: str


@torch.no_grad()
def replies(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    *,
    chat: bool = False,
) -> list[str]:
    """Sample one reply per prompt at temperature 1; seed torch before calling."""
    texts = [
        chat_text(tokenizer, prompt) if chat else str(tokenizer.bos_token) + prompt
        for prompt in prompts
    ]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    results = [""] * len(texts)
    for start in range(0, len(order), 256):
        chosen = order[start : start + 256]
        inputs = tokenizer(
            [texts[index] for index in chosen],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        generated = model.generate(  # type: ignore[misc]
            **inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=MAX_NEW_TOKENS
        )
        for index, ids in zip(chosen, generated[:, inputs["input_ids"].shape[1] :], strict=True):
            results[index] = str(tokenizer.decode(ids, skip_special_tokens=True))
    return results


def decide(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    states: list[State],
    *,
    chat: bool = False,
) -> list[int | None]:
    """Return one decision per state: 0 to stop, a bet, or None for an unreadable reply."""
    return [
        parse(reply)
        for reply in replies(model, tokenizer, [render(state) for state in states], chat=chat)
    ]


def play_games(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    count: int,
    rng: Random,
    *,
    chat: bool = False,
) -> list[FinishedGame]:
    """Play games under random conditions until a stop, ruin, or the 100th round."""
    running = [_opening(rng) for _ in range(count)]
    finished: list[FinishedGame] = []
    while running:
        ongoing = []
        for state, bet in zip(running, decide(model, tokenizer, running, chat=chat), strict=True):
            next_state = step(state, bet, won=rng.random() < WIN_RATE) if bet else state
            outcome = _outcome(next_state, bet)
            if outcome:
                finished.append(FinishedGame(next_state, outcome))
            else:
                ongoing.append(next_state)
        running = ongoing
    return finished


def _opening(rng: Random) -> State:
    state = State(rng.choice(LAYOUTS), variable=rng.random() < 0.5)
    return (
        state if state.layout == "scenario" else replace(state, components=random_components(rng))
    )


def _outcome(after: State, bet: int | None) -> str:
    if bet is None:
        return "unreadable"
    if bet == 0:
        return "voluntary_stop"
    if after.balance <= 0:
        return "bankruptcy"
    return "round_limit" if after.round > MAX_ROUNDS else ""
