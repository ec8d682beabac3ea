"""Playing games: the study's way, padded batches, transformers' continuous batching, and ours.

    python benchmarks/play.py [--only restart corrected stand_in] [--games 128] [--rounds 3]
    python benchmarks/play.py --tiny
    python benchmarks/gpu.py play [--tiny]

The lab model plays the slot machine once, in each layout: its prompts and the lengths of its
replies are the script that every way then follows, game by game and round by round: a game's next
prompt depends on its last reply. Each way samples its own tokens, but the script fixes how many, so
that all do equal work. As in a step of the design, the games are repetitions of a few conditions.
The stand-in (4 layers, width 1,024, random weights) follows the corrected layout's prompts with
replies as long as reasoned ones.

`study` asks one game at a time without a cache; `padded` asks all games of a batch of 32 at once
with transformers' `generate`, as long as its longest reply, and `padded_all` all games in one
batch; `continuous` is transformers' own manager, its pages in as much memory as ours has, started
and warm before it is timed; `ours` is a session with room for all games. The table also has
processor seconds, which other programs do not affect.

The last line of a table is the limit: each shared prefix computed once, each token of a reply once,
and no padding. The number of tokens that the study's way and padded batches compute, divided by
that limit, is the largest speed-up over them at equal speed per token.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from _random_model import stand_in

from toolkit._plugins.loading import load_parts
from toolkit.statistics.randomness import generator
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_hf.engine import CausalModel
from toolkit_lab import model_path

BATCH = 32
STUDY_GAMES = 2
"""The study's way is timed on this many games, evenly spread, and reported per game."""
COMPONENTS = ("", "GMHWP")
PARTS = ["restart", "corrected", "stand_in"]
PAGE = 32
"""Tokens of a page of transformers' continuous batching."""


@dataclass(frozen=True)
class Ask:
    """One decision: the tokens of its prompt, and how long its reply is."""

    ids: tuple[int, ...]
    length: int


Script = Sequence[Sequence[Ask]]
"""The decisions of each game, in order."""


@dataclass(frozen=True)
class Took:
    """The time and tokens that one way needed."""

    seconds: float
    processor: float
    """Processor seconds."""
    games: int
    tokens: int
    reused: float | None = None
    """The share of prompt tokens that were not computed."""


def lab() -> CausalModel:
    """The lab model, on the CPU."""
    where = HuggingFace(path=str(model_path()), dtype="float32", device="cpu")
    return cast(CausalModel, load(where, SilentReporter()))


# --- scripts --------------------------------------------------------------------------------------


def lab_script(model: Any, games: int, design: str) -> Script:
    """The prompts of the lab model and the lengths of its replies, from games that it plays."""
    parts = load_parts()
    stage = parts.get("stage", "play.games")
    game = {
        "uses": "slot_machine",
        "with": {"design": design, "components": list(COMPONENTS), "max_rounds": 12},
    }
    conditions = len(COMPONENTS) * (4 if design == "restart_128" else 2)
    given = {"game": game, "reps": -(-games // conditions), "max_new_tokens": 48}
    params = stage.params.model_validate(given, context={"parts": parts})
    work = make_work(params, model=model, limit_units=games)
    rows = dict(stage.run(work))["rounds"].to_pylist()
    script: dict[str, list[Ask]] = {}
    for row in sorted(rows, key=lambda row: (row["game"], row["round"], row["attempt"])):
        ask = Ask(tuple(model.encode(row["prompt"]).ids), len(row["reply_ids"]))
        script.setdefault(row["game"], []).append(ask)
    return list(script.values())


def reasoned(script: Script, mean: int, longest: int) -> Script:
    """The same prompts with longer replies: gamma-distributed lengths, as explanations have."""
    rng = generator(0, "benchmark.lengths")
    return [
        [Ask(ask.ids, int(min(longest, max(4, rng.gamma(3.0, mean / 3))))) for ask in game]
        for game in script
    ]


# --- ways -----------------------------------------------------------------------------------------


def study(model: Any, script: Script) -> Took:
    """One game at a time; every token recomputes the whole text."""
    module = model._module
    chosen = script[:: max(1, len(script) // STUDY_GAMES)][:STUDY_GAMES]
    started = _now()
    for game in chosen:
        for ask in game:
            _generate(module, [ask], use_cache=False)
    return _took(started, chosen)


def padded(model: Any, script: Script, batch: int = BATCH) -> Took:
    """All games of a batch in step; a reply is as long as the longest of its batch."""
    module = model._module
    started = _now()
    for start in range(0, len(script), batch):
        games = script[start : start + batch]
        for number in range(max(map(len, games))):
            _generate(module, [game[number] for game in games if number < len(game)])
    return _took(started, script)


def padded_all(model: Any, script: Script) -> Took:
    """All games in one batch."""
    return padded(model, script, len(script))


def continuous(model: Any, script: Script) -> Took:
    """transformers' continuous batching: a game's next prompt joins when its reply has ended."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    module = model._module
    manager = module.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=True, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=-(-_room(script) // PAGE), max_batch_tokens=1024
        ),
    )
    manager.start()
    try:
        _request(manager, script[0][0])
        if manager.get_result(timeout=60) is None:
            raise RuntimeError("no reply within a minute")
        started = _now()
        waiting = {_request(manager, game[0]): (at, 0) for at, game in enumerate(script)}
        while waiting:
            result = manager.get_result(timeout=300)
            if result is None:
                raise RuntimeError("no reply within five minutes")
            at, number = waiting.pop(result.request_id)
            if number + 1 < len(script[at]):
                waiting[_request(manager, script[at][number + 1])] = (at, number + 1)
        return _took(started, script)
    finally:
        manager.stop(block=True)


def _request(manager: Any, ask: Ask) -> str:
    return str(manager.add_request(list(ask.ids), max_new_tokens=ask.length))


def ours(model: Any, script: Script) -> Took:
    """A session: rows join and leave at every token, shared prefixes are computed once."""
    started = _now()
    session = model.session(_room(script))

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
    counts = session.counts
    return _took(started, script, counts.reused_tokens / max(counts.prompt_tokens, 1))


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


def _room(script: Script) -> int:
    """Tokens of all games side by side, each as long as the longest."""
    return len(script) * max(len(ask.ids) + ask.length for game in script for ask in game)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _took(started: tuple[float, float], script: Script, reused: float | None = None) -> Took:
    seconds, processor = (now - then for now, then in zip(_now(), started, strict=True))
    return Took(seconds, processor, len(script), _tokens(script), reused)


# --- what is printed ------------------------------------------------------------------------------


WAYS: dict[str, Callable[[Any, Script], Took]] = {
    "study": study,
    "padded": padded,
    "padded_all": padded_all,
    "continuous": continuous,
    "ours": ours,
}


def limit(script: Script) -> str:
    """The tokens that must be computed, and the ratio of other ways' tokens to them."""
    asks = [ask for game in script for ask in game]
    beginnings = {beginning for ask in asks for beginning in _beginnings(ask.ids)}
    needed = len(beginnings) + sum(ask.length for ask in asks)
    study_way = sum(ask.length * len(ask.ids) + ask.length * (ask.length - 1) // 2 for ask in asks)
    rounds = [
        [game[number] for game in script if number < len(game)]
        for number in range(max(map(len, script)))
    ]
    in_padding = sum(
        len(turn) * (max(len(ask.ids) for ask in turn) + max(ask.length for ask in turn))
        for turn in rounds
    )
    return (
        f"limit       {needed:,} tokens must be computed; study computes "
        f"{study_way / needed:.2f} x as many, padded_all {in_padding / needed:.2f} x"
    )


def _beginnings(ids: Sequence[int]) -> Iterator[int]:
    """A hash of each prefix of a prompt."""
    last = 0
    for token in ids:
        last = hash((last, token))
        yield last


def compare(name: str, model: Any, script: Script, rounds: int) -> None:
    """Interleaved rounds of every way; medians by game."""
    asks = [ask for game in script for ask in game]
    print(
        f"\n{name}: {len(script)} games, {len(asks)} decisions; prompts of "
        f"{statistics.mean(len(ask.ids) for ask in asks):.0f} tokens, replies of "
        f"{statistics.mean(ask.length for ask in asks):.0f}, at most "
        f"{max(ask.length for ask in asks)}"
    )
    took: dict[str, list[Took]] = {way: [] for way in WAYS}
    refused: dict[str, str] = {}
    ours(model, script[:2])
    for _ in range(rounds):
        for way, play in WAYS.items():
            if way in refused:
                continue
            try:
                took[way].append(play(model, script))
            except Exception as error:  # a way that this machine or version lacks is said so
                refused[way] = f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
    for way in WAYS:
        if way in refused:
            print(f"{way:11} not measured here: {refused[way]}")
        else:
            print(f"{way:11} {_line(took[way], took['ours'])}")
    print(limit(script))


def _line(way: Sequence[Took], own: Sequence[Took]) -> str:
    """Medians of one way, and ours."""
    game = statistics.median(one.seconds / one.games for one in way)
    processor = statistics.median(one.processor / one.games for one in way)
    rate = statistics.median(one.tokens / one.seconds for one in way)
    ratio = game / statistics.median(one.seconds / one.games for one in own)
    busy = processor / statistics.median(one.processor / one.games for one in own)
    reused = way[-1].reused
    saved = "" if reused is None else f"   {reused:.0%} of prefill saved"
    return (
        f"{1 / game:9.2f} games/s {rate:9.1f} tokens/s   {ratio:7.2f} x the time of ours, "
        f"{busy:7.2f} x its processor time{saved}"
    )


def main() -> None:
    """The lab model and the stand-in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--games", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="see that it works; says nothing")
    options = parser.parse_args()
    games = options.games or (4 if options.tiny else 128)
    rounds = 1 if options.tiny else options.rounds
    small = lab()
    print(f"{torch.get_num_threads()} threads; median of {rounds} interleaved rounds")
    if "restart" in options.only:
        script = lab_script(small, games, "restart_128")
        compare("lab model, layout restart", small, script, rounds)
    script = lab_script(small, games, "corrected_64")
    if "corrected" in options.only:
        compare("lab model, layout corrected", small, script, rounds)
    if "stand_in" not in options.only:
        return
    layers, width = (2, 64) if options.tiny else (4, 1024)
    mean, longest = (6, 8) if options.tiny else (40, 160)
    stand = stand_in(layers, width, vocabulary=2048)
    compare(f"stand-in of width {width}", stand, reasoned(script, mean, longest), rounds)


if __name__ == "__main__":
    main()
