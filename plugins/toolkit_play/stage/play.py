"""`play.games`: all games of a step go on side by side in one stream of replies.

No draw depends on what else is under way. A token draw is keyed by (game, round, attempt, token); a
win draw by (repetition, round) alone, so that games of the same repetition meet the same luck under
every condition, model and arm.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.games import (
    INVALID,
    NOT_PLAYED,
    ROUND_LIMIT,
    TRUNCATED,
    Condition,
    Environment,
    Parser,
    Reply,
    Turn,
    chance,
    judge,
)
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

from .params import Play, count_games
from .rendering import reminded, see, stop_rule
from .table import LiveGame, game_row, round_row

if TYPE_CHECKING:
    from toolkit.edits import Edit
    from toolkit.sessions import Draw, Generated, Session

    from .patched import Arm

SHOWN_REPLIES = 3
SHOWN_CHARACTERS = 80
TELL_SECONDS = 2.0


def play(work: Work, arms: Sequence[Arm] = ()) -> Rows:
    """Play this step's games to their ends, each under an intervention if there are some; every
    prompt and reply is kept whole.
    """
    import pyarrow as pa

    environment = work.params.game.make()
    games = _games_of_step(work, environment, arms)
    work.report.phase("compute")
    session = work.model.session(work.batch.get("tokens"))
    _Match(work, environment, session, games, arms).play()
    rounds = [row for game in games for row in game.rows]
    ended = [game_row(work.params, environment, game) for game in games]
    yield "rounds", pa.Table.from_pylist(rounds, schema=arrow_schema("rounds"))
    yield "games", pa.Table.from_pylist(ended, schema=arrow_schema("games"))


def _games_of_step(work: Work, environment: Environment, arms: Sequence[Arm]) -> list[LiveGame]:
    """Every condition gets its first repetition before any gets its second, and every arm its own,
    so that a limit leaves none out too early.
    """
    conditions, each = environment.conditions(), max(1, len(arms))
    total = count_games(work.params) * each
    first, last = work.units or (0, min(total, work.limit_units or total))
    games = []
    for index in range(first, last):
        repetition, place = divmod(index // each, len(conditions))
        arm = arms[index % each] if arms else None
        games.append(_open(environment, conditions[place], repetition, arm))
    return games


def _open(
    environment: Environment, condition: Condition, repetition: int, arm: Arm | None
) -> LiveGame:
    """A new game. Under an intervention it has the draws of the game without it."""
    drawn_as = f"{condition.id}-r{repetition:04d}"
    state = environment.start(condition.settings)
    if arm is None:
        return LiveGame(drawn_as, condition, repetition, state, drawn_as, condition)
    changed = replace(
        condition,
        id=f"{condition.id}-{arm.name}",
        label=f"{condition.label or condition.id} {arm.name}",
        groups={**condition.groups, "arm": arm.name},
    )
    name = f"{drawn_as}-{arm.name}"
    return LiveGame(name, changed, repetition, state, drawn_as, condition, arm=arm.name)


class _Match:
    """The games of a step and the one stream of replies that they share."""

    def __init__(
        self,
        work: Work,
        environment: Environment,
        session: Session,
        games: Sequence[LiveGame],
        arms: Sequence[Arm],
    ) -> None:
        self._work, self._environment, self._session = work, environment, session
        self._arms = {arm.name: arm for arm in arms}
        self._edits: dict[str, Sequence[Edit]] = {}
        self._params: Play = work.params
        self._parse: Parser = self._params.parser.make()
        self._games = games
        self._waiting: dict[str, LiveGame] = {}
        self._storms = _Storms(self._params, games, self._open_leader)
        self._watch = _Watch(work, session, len(games))

    def play(self) -> None:
        """Until every game has an outcome."""
        for game in self._storms.begin():
            self._ask(game)
        for generated in self._session.run():
            game = self._waiting.pop(str(generated.id))
            self._take(game, generated)
            if not game.outcome and not self._storms.has_served(game):
                self._ask(game)
            for released in self._storms.released(game):
                self._ask(released)
            for warning in self._storms.new_warnings():
                self._work.report.event("warning", **warning)
            self._watch.tell(self._games, len(self._waiting))
        self._watch.tell(self._games, 0, last=True)

    def _open_leader(self, follower: LiveGame, repetition: int) -> LiveGame:
        """A game like another one, but of an earlier repetition."""
        arm = self._arms[follower.arm] if follower.arm else None
        return _open(self._environment, follower.plain, repetition, arm)

    def _ask(self, game: LiveGame) -> None:
        params = self._params
        prompt = self._environment.prompt(game.state)
        if game.attempt > 1:
            assert params.reask is not None
            prompt = reminded(prompt, params.reask.reminder)
        game.seen = see(self._work.model, prompt, game.request, chat=params.chat)
        self._waiting[game.request] = game
        edits = self._edits_of(game)
        self._session.submit(
            game.request,
            game.seen.tokens.ids,
            self._draw(game),
            max_tokens=self._room(game, len(game.seen.tokens.ids)),
            min_tokens=params.min_new_tokens,
            temperature=params.temperature,
            until=stop_rule(prompt, chat=params.chat),
            edits=edits,
        )

    def _edits_of(self, game: LiveGame) -> Sequence[Edit]:
        """The edits of the reply that is asked for now."""
        if game.arm is None:
            return ()
        assert game.seen is not None
        edits = self._arms[game.arm].edits(len(game.seen.tokens.ids))
        self._edits[game.request] = edits
        return edits

    def _check_edits(self, game: LiveGame, generated: Generated) -> None:
        if game.arm is None:
            return
        assert game.seen is not None
        request = str(generated.id)
        tokens = len(game.seen.tokens.ids)
        edits = self._edits.pop(request)
        self._arms[game.arm].check_made(edits, request, tokens, len(generated.ids))

    def _room(self, game: LiveGame, prompt_tokens: int) -> int:
        """The longest reply that this prompt leaves room for."""
        context: int = self._work.model.context
        room = min(self._params.max_new_tokens, context - prompt_tokens + 1)
        needed = min(self._environment.min_reply_tokens, self._params.max_new_tokens)
        if room < needed:
            raise DataError(
                f"{game.request}: the prompt has {prompt_tokens} tokens and the shortest reply "
                f"{needed}; {self._work.model.identity.name} reads at most {context}. Show fewer "
                "rounds, or name a model with a longer context."
            )
        return room

    def _draw(self, game: LiveGame) -> Draw:
        name, number, attempt = game.drawn_as, game.round, game.attempt
        rng = self._work.rng
        return lambda count: float(rng("play.token", name, number, attempt, count).random())

    def _take(self, game: LiveGame, generated: Generated) -> None:
        """Read a reply, and do what it says or ask again."""
        self._check_edits(game, generated)
        verdict = self._judge(game, generated)
        if verdict.failure is not None:
            game.rows.append(round_row(self._environment, game, generated, verdict, None))
            self._failed(game, verdict)
            return
        rng = chance(self._work.seed, game.repetition, game.round)
        turn: Turn = self._environment.step(game.state, verdict, rng)
        game.rows.append(round_row(self._environment, game, generated, verdict, turn))
        game.state = turn.state
        game.outcome = self._environment.outcome(game.state) or ""
        if not game.outcome and game.round >= self._environment.max_rounds:
            game.outcome = ROUND_LIMIT
        game.round += 1
        game.attempt = 1

    def _judge(self, game: LiveGame, generated: Generated) -> Reply:
        """What the reply says."""
        assert game.seen is not None
        cut_off = generated.finish == "length"
        return judge(self._parse, generated.text, game.seen.prompt, cut_off=cut_off)

    def _failed(self, game: LiveGame, verdict: Reply) -> None:
        if game.attempt < self._params.attempts:
            game.attempt += 1
        else:
            game.outcome = TRUNCATED if verdict.failure == TRUNCATED else INVALID


class _Storms:
    """Conditions whose replies cannot be read at all. The first repetitions of a condition lead:
    the others wait until one of these has given a decision, and are not played if none does. Which
    games lead depends neither on who answers first nor on how games are cut into steps: the first
    decisions of leaders of other steps are asked for here too, one after the other, and kept
    nowhere.
    """

    def __init__(
        self,
        params: Play,
        games: Sequence[LiveGame],
        open_leader: Callable[[LiveGame, int], LiveGame],
    ) -> None:
        self._enough = -(-params.storm // params.attempts) if params.storm else 0
        self._leaders: dict[str, list[LiveGame]] = defaultdict(list)
        self._followers: dict[str, list[LiveGame]] = defaultdict(list)
        for game in games:
            leads = not params.storm or game.repetition < self._enough
            held = self._leaders if leads else self._followers
            held[game.condition.id].append(game)
        self._open_leader = open_leader
        self._scouts: set[str] = set()
        """Names of leaders of other steps."""
        self._warnings: list[dict[str, Any]] = []

    def begin(self) -> list[LiveGame]:
        """The games that begin at once."""
        led = [game for held in self._leaders.values() for game in held]
        unled = [name for name in self._followers if not self._leaders[name]]
        return [*led, *(self._scout(name) for name in unled)]

    def _scout(self, name: str) -> LiveGame:
        """The next leader that is not of this step."""
        leaders = self._leaders[name]
        known = {game.repetition for game in leaders}
        repetition = next(number for number in range(self._enough) if number not in known)
        scout = self._open_leader(self._followers[name][0], repetition)
        leaders.append(scout)
        self._scouts.add(scout.name)
        return scout

    def has_served(self, game: LiveGame) -> bool:
        """Whether this is a leader of another step that has given its first decision."""
        return game.name in self._scouts and game.round > 1

    def released(self, game: LiveGame) -> list[LiveGame]:
        """The games that may begin now that this one has answered."""
        name = game.condition.id
        if not self._followers.get(name):
            return []
        if game.rows[-1]["parse"] == "ok":
            return self._followers.pop(name)
        leaders = self._leaders[name]
        if not all(leader.outcome and leader.round == 1 for leader in leaders):
            return []
        if len(leaders) < self._enough:
            return [self._scout(name)]
        stopped = self._followers.pop(name)
        for follower in stopped:
            follower.outcome = NOT_PLAYED
        self._warnings.append(_storm_warning(name, leaders, len(stopped)))
        return []

    def new_warnings(self) -> list[dict[str, Any]]:
        """What has to be said about conditions that were stopped since this was last asked."""
        warnings, self._warnings = self._warnings, []
        return warnings


def _storm_warning(condition: str, leaders: Sequence[LiveGame], stopped: int) -> dict[str, Any]:
    in_order = sorted(leaders, key=lambda game: game.repetition)
    replies = [str(row["reply"]) for game in in_order for row in game.rows]
    shown = ", ".join(repr(reply[:SHOWN_CHARACTERS]) for reply in replies[:SHOWN_REPLIES])
    text = (
        f"condition {condition} is stopped: none of its first {len(replies)} replies could be "
        f"read, and {stopped} of its games are not played. Three of the replies: {shown}"
    )
    return {"text": text, "condition": condition, "replies": replies[:SHOWN_REPLIES]}


class _Watch:
    """Tells the host how the games go: outcomes so far, games under way, games a second."""

    def __init__(self, work: Work, session: Session, total: int) -> None:
        self._work, self._session, self._total = work, session, total
        self._started = time.monotonic()
        self._told = self._started
        self._ended = -1

    def tell(self, games: Sequence[LiveGame], live: int, *, last: bool = False) -> None:
        """Report progress when a game has ended, and more every few seconds."""
        now = time.monotonic()
        if not last and now - self._told < TELL_SECONDS and live > 1:
            return
        outcomes = Counter(game.outcome for game in games if game.outcome)
        ended = outcomes.total()
        if ended != self._ended:
            self._ended = ended
            self._work.report.progress(ended, self._total)
        if last or now - self._told >= TELL_SECONDS:
            self._told = now
            pace = ended / max(now - self._started, 1e-9)
            self._work.report.event("status", **_status(outcomes, live, pace))
        if last:
            self._work.report.event("played", **self._totals(games))

    def _totals(self, games: Sequence[LiveGame]) -> dict[str, Any]:
        """What the step has done, for the report's Methods."""
        counts = self._session.counts
        return {
            "games": len(games),
            "replies": counts.prompts,
            "prompt_tokens": counts.prompt_tokens,
            "reused_tokens": counts.reused_tokens,
            "generated_tokens": counts.generated_tokens,
            "close_draws": counts.close_calls,
            "stopped": sorted({game.condition.id for game in games if game.outcome == NOT_PLAYED}),
        }


def _status(outcomes: Counter[str], live: int, pace: float) -> dict[str, Any]:
    """How the games go, in words and as numbers."""
    ended = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
    text = f"{live} games under way, {pace:.3g} games/s; {ended or 'none has ended'}"
    return {
        "text": text,
        "live": live,
        "outcomes": dict(sorted(outcomes.items())),
        "games_per_second": round(pace, 3),
    }
