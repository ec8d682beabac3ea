"""Playing games: the study's way, padded batches, transformers' continuous batching, and ours.

    python benchmarks/play.py [--tiny] [--games 64] [--rounds 3]
    python benchmarks/play.py --gpu [--games 512]

The lab model plays the slot machine once; its prompts and the lengths of its replies are the script
that every way then follows, game by game and round by round: a game's next prompt is not there
before its last reply. The stand-in (4 layers, width 1,024, random weights) follows a script of
reasoned replies. `study` asks one game at a time without a cache; `padded` asks all games of a
batch at once with transformers' `generate`, as long as its longest reply; `continuous` is
transformers' own manager; `ours` a session. `--gpu` measures ours alone at the shape of
Llama-3.1-8B, in bfloat16 with random weights, and says what 6,400 games would take.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from _random_model import random_llama, stand_in

from toolkit._plugins.loading import load_parts
from toolkit.randomness import generator
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_lab import model_path

BATCH = 32
STUDY_GAMES = 2
"""The study's way is timed on so many games and reported a game."""
DESIGN_GAMES = 6400


@dataclass(frozen=True)
class Ask:
    """One decision: the tokens of its prompt, and how long its reply is."""

    ids: tuple[int, ...]
    length: int


Script = Sequence[Sequence[Ask]]
"""The decisions of each game, in order."""


@dataclass(frozen=True)
class Took:
    """What one way needed."""

    seconds: float
    games: int
    tokens: int
    reused: float | None = None
    """The share of prompt tokens that were not computed."""


# --- scripts --------------------------------------------------------------------------------------


def lab_script(model: Any, games: int) -> Script:
    """What the lab model is asked and how long it answers, from games that it plays."""
    parts = load_parts()
    stage = parts.get("stage", "play.games")
    design = {"uses": "slot_machine", "with": {"design": "corrected_64", "max_rounds": 12}}
    given = {"game": design, "reps": -(-games // 64), "max_new_tokens": 48, "temperature": 1.0}
    params = stage.params.model_validate(given, context={"parts": parts})
    work = make_work(params, model=model, limit_units=games)
    rows = dict(stage.run(work))["rounds"].to_pylist()
    script: dict[str, list[Ask]] = {}
    for row in sorted(rows, key=lambda row: (row["game"], row["round"], row["attempt"])):
        ask = Ask(tuple(model.encode(row["prompt"]).ids), len(row["reply_ids"]))
        script.setdefault(row["game"], []).append(ask)
    return list(script.values())


def drawn_script(games: int, vocabulary: int, mean_length: int, longest: int) -> Script:
    """Random prompts with the shape of the game's: a common beginning, a condition, a history that
    grows to five rounds; replies of lengths with a long tail.
    """
    rng = generator(0, "benchmark.script")
    common = rng.integers(1, vocabulary, 60).tolist()
    script = []
    for _ in range(games):
        condition = rng.integers(1, vocabulary, 30).tolist()
        history = rng.integers(1, vocabulary, 12 * 12).tolist()
        rounds = 1 + int(min(rng.geometric(0.4), 12))
        asks = []
        for number in range(rounds):
            shown = history[12 * max(0, number - 5) : 12 * number]
            length = int(min(longest, max(4, rng.gamma(3.0, mean_length / 3))))
            asks.append(Ask((*common, *condition, *shown, *common[:20]), length))
        script.append(asks)
    return script


# --- ways -----------------------------------------------------------------------------------------


def study(model: Any, script: Script) -> Took:
    """One game at a time, every token from the beginning of its text."""
    module = model._module
    chosen = script[:STUDY_GAMES]
    started = time.perf_counter()
    for game in chosen:
        for ask in game:
            _generate(module, [ask], use_cache=False)
    seconds = time.perf_counter() - started
    return Took(seconds, len(chosen), _tokens(chosen))


def padded(model: Any, script: Script) -> Took:
    """All games of a batch in step; a reply is as long as the longest of its batch."""
    module = model._module
    started = time.perf_counter()
    for start in range(0, len(script), BATCH):
        games = script[start : start + BATCH]
        for number in range(max(map(len, games))):
            _generate(module, [game[number] for game in games if number < len(game)])
    return Took(time.perf_counter() - started, len(script), _tokens(script))


def continuous(model: Any, script: Script) -> Took:
    """transformers' continuous batching: a game's next prompt joins when its reply has ended."""
    from transformers import GenerationConfig

    module = model._module
    config = GenerationConfig(do_sample=True, eos_token_id=-1, pad_token_id=0)
    manager = module.init_continuous_batching(generation_config=config)
    manager.start()
    started = time.perf_counter()
    try:
        waiting = {}
        for number, game in enumerate(script):
            waiting[_request(manager, game[0])] = (number, 0)
        while waiting:
            result = manager.get_result(timeout=60)
            if result is None:
                raise RuntimeError("no reply within a minute")
            place = waiting.pop(result.request_id, None)
            if place is not None and place[1] + 1 < len(script[place[0]]):
                following = script[place[0]][place[1] + 1]
                waiting[_request(manager, following)] = (place[0], place[1] + 1)
        seconds = time.perf_counter() - started
    finally:
        manager.stop(block=True)
    return Took(seconds, len(script), _tokens(script))


def _request(manager: Any, ask: Ask) -> str:
    return str(manager.add_request(list(ask.ids), max_new_tokens=ask.length))


def ours(model: Any, script: Script) -> Took:
    """A session: rows join and leave at every token, common beginnings are read once."""
    started = time.perf_counter()
    session = model.session()

    def ask(game: int, number: int) -> None:
        decision = script[game][number]
        rng = generator(0, "benchmark.draw", game, number)
        session.submit(
            (game, number),
            decision.ids,
            lambda count: float(rng.random()),
            max_tokens=decision.length,
            min_tokens=decision.length,
        )

    for game in range(len(script)):
        ask(game, 0)
    for reply in session.run():
        game, number = reply.id
        if number + 1 < len(script[game]):
            ask(game, number + 1)
    seconds = time.perf_counter() - started
    counts = session.counts
    reused = counts.reused_tokens / max(counts.prompt_tokens, 1)
    return Took(seconds, len(script), _tokens(script), reused)


def _generate(module: Any, asks: Sequence[Ask], *, use_cache: bool = True) -> None:
    """One call of `generate`, padded on the left, as long as the longest reply."""
    width = max(len(ask.ids) for ask in asks)
    ids = torch.zeros((len(asks), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, ask in enumerate(asks):
        ids[row, width - len(ask.ids) :] = torch.tensor(ask.ids)
        mask[row, width - len(ask.ids) :] = 1
    length = max(ask.length for ask in asks)
    with torch.inference_mode():
        module.generate(
            input_ids=ids.to(module.device),
            attention_mask=mask.to(module.device),
            do_sample=True,
            min_new_tokens=length,
            max_new_tokens=length,
            use_cache=use_cache,
            pad_token_id=0,
        )


def _tokens(script: Script) -> int:
    return sum(ask.length for game in script for ask in game)


# --- what is printed ------------------------------------------------------------------------------


WAYS: dict[str, Callable[[Any, Script], Took]] = {
    "study": study,
    "padded": padded,
    "continuous": continuous,
    "ours": ours,
}


def compare(name: str, model: Any, script: Script, rounds: int) -> None:
    """Interleaved rounds of every way; medians by game."""
    asks = sum(map(len, script))
    print(f"\n{name}: {len(script)} games, {asks} decisions, {_tokens(script)} tokens of replies")
    took: dict[str, list[Took]] = {way: [] for way in WAYS}
    refused: dict[str, str] = {}
    for _ in range(rounds):
        for way, play in WAYS.items():
            if way in refused:
                continue
            try:
                took[way].append(play(model, script))
            except Exception as error:  # a way that this machine or version lacks is said so
                refused[way] = f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
    each = {
        way: statistics.median(one.seconds / one.games for one in held)
        for way, held in took.items()
        if held
    }
    own = each.get("ours", float("nan"))
    for way in WAYS:
        if way in refused:
            print(f"{way:11} not measured here: {refused[way]}")
            continue
        last = took[way][-1]
        pace = statistics.median(one.tokens / one.seconds for one in took[way])
        ratio = each[way] / own
        saved = "" if last.reused is None else f"   {last.reused:.0%} of prefill saved"
        print(
            f"{way:11} {1 / each[way]:9.2f} games/s {pace:10.1f} tokens/s   {ratio:8.2f} x the "
            f"time of ours{saved}"
        )


def on_gpu(games: int) -> None:
    """Ours at the shape of Llama-3.1-8B, terse and reasoned, and the forecast of a whole design."""
    if not torch.cuda.is_available():
        print("no GPU here: nothing was measured. `--tiny` runs the ways on the CPU.")
        return
    model = random_llama(
        device="cuda",
        dtype=torch.bfloat16,
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    )
    print(torch.cuda.get_device_name())
    for name, mean, longest in (("terse", 8, 24), ("reasoned", 150, 1024)):
        script = drawn_script(games, 128_256, mean, longest)
        ours(model, script[: min(16, games)])
        took = ours(model, script)
        minutes = took.seconds / took.games * DESIGN_GAMES / 60
        print(
            f"{name:9} {took.games / took.seconds:8.2f} games/s {took.tokens / took.seconds:10.0f} "
            f"tokens/s (best published offline rate on an H100: 16,000); {DESIGN_GAMES:,} games: "
            f"{minutes:.1f} min; {took.reused:.0%} of prefill saved"
        )


def main() -> None:
    """The lab model and the stand-in, or the GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="see that it works; says nothing")
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    if options.gpu:
        on_gpu(options.games or 512)
        return
    games = options.games or (4 if options.tiny else 64)
    rounds = 1 if options.tiny else options.rounds
    where = HuggingFace(path=str(model_path()), dtype="float32", device="cpu")
    lab = load(where, SilentReporter())
    print(f"{torch.get_num_threads()} threads; median of {rounds} interleaved rounds")
    compare("lab model", lab, lab_script(lab, games), rounds)
    layers, width = (2, 64) if options.tiny else (4, 1024)
    stand = stand_in(layers, width)
    mean, longest = (6, 8) if options.tiny else (40, 160)
    script = drawn_script(games, 1024, mean, longest)
    compare(f"stand-in of width {width}", stand, script, rounds)


if __name__ == "__main__":
    main()
