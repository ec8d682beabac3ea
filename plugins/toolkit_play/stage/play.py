"""`play.games`: plays all games of a step side by side in one stream of replies.

No draw depends on which other games are running. A token draw is keyed by (game, round, attempt,
token); a win draw by (repetition, round) alone, so that games of the same repetition meet the same
luck under every condition, model and arm.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.samples.games import (
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
    is_storm,
    judge,
    tokens_of,
    with_reminder,
)
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

from .params import Play, count_games
from .rendering import stop_rule, tokenise_prompt
from .table import LiveGame, game_row, round_row

if TYPE_CHECKING:
    from toolkit.edits import Edit
    from toolkit.models.sessions import Draw, Generated, Session

    from .arms import Arm

SHOWN_REPLIES = 3
SHOWN_CHARACTERS = 80
STATUS_SECONDS = 2.0


def play(work: Work, arms: Sequence[Arm] = ()) -> Rows:
    """Play this step's games to the end, each under one of the arms if there are any. Prompts and
    replies are stored whole.
    """
    import pyarrow as pa

    environment = work.params.game.make()
    games = _games_of_step(work, environment, arms)
    work.report.phase("compute")
    session = work.model.session(work.batch.get("tokens"))
    _Match(work, environment, session, games).play()
    round_rows = [row for game in games for row in game.rows]
    game_rows = [game_row(work.params, environment, game) for game in games]
    yield "rounds", pa.Table.from_pylist(round_rows, schema=arrow_schema("rounds"))
    yield "games", pa.Table.from_pylist(game_rows, schema=arrow_schema("games"))


def _games_of_step(work: Work, environment: Environment, arms: Sequence[Arm]) -> list[LiveGame]:
    """Order games by repetition, then condition, then arm, so that a limit still covers all
    conditions and arms.
    """
    conditions, arm_count = environment.conditions(), max(1, len(arms))
    total = count_games(work.params) * arm_count
    start, stop = work.units or (0, min(total, work.limit_units or total))
    games = []
    for index in range(start, stop):
        repetition, condition_index = divmod(index // arm_count, len(conditions))
        arm = arms[index % arm_count] if arms else None
        games.append(_new_game(environment, conditions[condition_index], repetition, arm))
    return games


def _new_game(
    environment: Environment, condition: Condition, repetition: int, arm: Arm | None
) -> LiveGame:
    """A new game. Under an arm it has the draws of the same game without the arm."""
    draw_name = f"{condition.id}-r{repetition:04d}"
    state = environment.start(condition.settings)
    if arm is None:
        return LiveGame(draw_name, condition, repetition, state, draw_name, condition)
    changed = replace(
        condition,
        id=f"{condition.id}-{arm.name}",
        label=f"{condition.label or condition.id} {arm.name}",
        groups={**condition.groups, "arm": arm.name},
    )
    name = f"{draw_name}-{arm.name}"
    return LiveGame(name, changed, repetition, state, draw_name, condition, arm=arm)


class _Match:
    """The games of a step and the stream of replies that they share."""

    def __init__(
        self,
        work: Work,
        environment: Environment,
        session: Session,
        games: Sequence[LiveGame],
    ) -> None:
        self._work, self._environment, self._session = work, environment, session
        self._edits: dict[str, Sequence[Edit]] = {}
        self._params: Play = work.params
        self._parse: Parser = self._params.parser.make()
        self._games = games
        self._waiting: dict[str, LiveGame] = {}
        self._storms = _Storms(self._params, games, self._open_leader)
        self._watch = _Watch(work, session, len(games))

    def play(self) -> None:
        """Play until every game has an outcome."""
        for game in self._storms.begin():
            self._submit(game)
        for generated in self._session.run():
            game = self._waiting.pop(str(generated.id))
            self._handle_reply(game, generated)
            if not game.outcome and not self._storms.has_served(game):
                self._submit(game)
            for released in self._storms.released(game):
                self._submit(released)
            for warning in self._storms.new_warnings():
                self._work.report.event("warning", **warning)
            self._watch.report(self._games, len(self._waiting))
        self._watch.report(self._games, 0, is_final=True)

    def _open_leader(self, follower: LiveGame, repetition: int) -> LiveGame:
        """A game of the follower's condition and arm at another repetition."""
        return _new_game(self._environment, follower.base_condition, repetition, follower.arm)

    def _submit(self, game: LiveGame) -> None:
        params = self._params
        prompt = self._environment.prompt(game.state)
        if game.attempt > 1:
            assert params.reask is not None
            prompt = with_reminder(prompt, params.reask.reminder)
        game.seen = tokenise_prompt(self._work.model, prompt, game.request, chat=params.chat)
        self._waiting[game.request] = game
        edits = self._edits_of(game)
        self._session.submit(
            game.request,
            game.seen.tokens.ids,
            self._draw(game),
            max_tokens=self._max_reply_tokens(game, len(game.seen.tokens.ids)),
            min_tokens=params.min_new_tokens,
            temperature=params.temperature,
            until=stop_rule(prompt, chat=params.chat),
            edits=edits,
        )

    def _edits_of(self, game: LiveGame) -> Sequence[Edit]:
        """The edits of the game's current request."""
        if game.arm is None:
            return ()
        assert game.seen is not None
        edits = game.arm.edits(len(game.seen.tokens.ids))
        self._edits[game.request] = edits
        return edits

    def _check_edits(self, game: LiveGame, generated: Generated) -> None:
        if game.arm is None:
            return
        assert game.seen is not None
        request = str(generated.id)
        tokens = len(game.seen.tokens.ids)
        edits = self._edits.pop(request)
        game.arm.check_made(edits, request, tokens, len(generated.ids))

    def _max_reply_tokens(self, game: LiveGame, prompt_tokens: int) -> int:
        """The longest reply that fits into the context after this prompt."""
        context: int = self._work.model.context
        max_tokens = min(self._params.reply_budget, context - prompt_tokens + 1)
        least = tokens_of(self._environment.example_reply)
        min_tokens = min(least, self._params.reply_budget)
        if max_tokens < min_tokens:
            raise DataError(
                f"{game.request}: the prompt has {prompt_tokens} tokens and the shortest reply "
                f"{min_tokens}; {self._work.model.identity.name} reads at most {context}. Show "
                "fewer rounds, or name a model with a longer context."
            )
        return max_tokens

    def _draw(self, game: LiveGame) -> Draw:
        name, number, attempt = game.draw_name, game.round, game.attempt
        rng = self._work.rng
        return lambda count: float(rng("play.token", name, number, attempt, count).random())

    def _handle_reply(self, game: LiveGame, generated: Generated) -> None:
        """Read a reply; apply its action, or record the failure."""
        self._check_edits(game, generated)
        verdict = self._judge(game, generated)
        if verdict.failure is not None:
            game.rows.append(round_row(self._environment, game, generated, verdict, None))
            self._record_failure(game, verdict)
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
        """Parse a reply."""
        assert game.seen is not None
        cut_off = generated.finish == "length"
        try:
            return judge(self._parse, generated.text, game.seen.prompt, cut_off=cut_off)
        except DataError as error:
            raise DataError(f"{game.request}: {error}") from error

    def _record_failure(self, game: LiveGame, verdict: Reply) -> None:
        if game.attempt < self._params.attempts:
            game.attempt += 1
        else:
            game.outcome = TRUNCATED if verdict.failure == TRUNCATED else INVALID


class _Storms:
    """Stops conditions whose replies are unreadable but for a few. The first repetitions of a
    condition are leaders, and their replies to the first request and its repeats are counted. The
    others, the followers, wait until enough of these can be read whatever the remaining ones say,
    and are not played if they cannot. The verdict depends neither on the order of replies nor on
    the split into steps: the first decisions of leaders of other steps are requested here too, one
    after the other, and discarded.
    """

    def __init__(
        self,
        params: Play,
        games: Sequence[LiveGame],
        open_leader: Callable[[LiveGame, int], LiveGame],
    ) -> None:
        self._attempts = params.attempts
        self._leader_count = params.leaders
        self._leaders: dict[str, list[LiveGame]] = defaultdict(list)
        self._followers: dict[str, list[LiveGame]] = defaultdict(list)
        for game in games:
            leads = not params.storm or game.repetition < self._leader_count
            group = self._leaders if leads else self._followers
            group[game.condition.id].append(game)
        self._open_leader = open_leader
        self._scouts: set[str] = set()
        """Names of leaders of other steps."""
        self._warnings: list[dict[str, Any]] = []

    def begin(self) -> list[LiveGame]:
        """The games that start at once."""
        leaders = [game for group in self._leaders.values() for game in group]
        without_leader = [name for name in self._followers if not self._leaders[name]]
        return [*leaders, *(self._scout(name) for name in without_leader)]

    def _scout(self, name: str) -> LiveGame:
        """Open the next leader that belongs to another step."""
        leaders = self._leaders[name]
        repetitions = {game.repetition for game in leaders}
        repetition = next(
            number for number in range(self._leader_count) if number not in repetitions
        )
        scout = self._open_leader(self._followers[name][0], repetition)
        leaders.append(scout)
        self._scouts.add(scout.name)
        return scout

    def has_served(self, game: LiveGame) -> bool:
        """Whether this is a leader of another step that has given its first decision."""
        return game.name in self._scouts and game.round > 1

    def released(self, game: LiveGame) -> list[LiveGame]:
        """The games that can start now that this game has a reply."""
        name = game.condition.id
        if not self._followers.get(name):
            return []
        leaders = self._leaders[name]
        judged = [leader for leader in leaders if leader.outcome or leader.round > 1]
        readable = sum(leader.round > 1 for leader in judged)
        replies = sum(len(_first_replies(leader)) for leader in judged)
        missing = self._leader_count - len(judged)
        most_unreadable = replies - readable + missing * self._attempts
        if not is_storm(most_unreadable, most_unreadable + readable):
            return self._followers.pop(name)
        if len(judged) < len(leaders):
            return []
        if missing:
            return [self._scout(name)]
        stopped = self._followers.pop(name)
        for follower in stopped:
            follower.outcome = NOT_PLAYED
        self._warnings.append(_storm_warning(name, leaders, len(stopped)))
        return []

    def new_warnings(self) -> list[dict[str, Any]]:
        """Warnings about the conditions stopped since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings


def _first_replies(game: LiveGame) -> list[dict[str, Any]]:
    """The rows of a game's first decision."""
    return [row for row in game.rows if row["round"] == 1]


def _storm_warning(condition: str, leaders: Sequence[LiveGame], stopped: int) -> dict[str, Any]:
    in_order = sorted(leaders, key=lambda game: game.repetition)
    rows = [row for game in in_order for row in _first_replies(game)]
    replies = [str(row["reply"]) for row in rows if row["parse"] != "ok"]
    shown = ", ".join(repr(reply[:SHOWN_CHARACTERS]) for reply in replies[:SHOWN_REPLIES])
    text = (
        f"condition {condition} is stopped: {len(replies)} of its first {len(rows)} replies could "
        f"not be read, and {stopped} of its games are not played. Three of them: {shown}"
    )
    return {"text": text, "condition": condition, "replies": replies[:SHOWN_REPLIES]}


class _Watch:
    """Reports progress to the host: outcomes so far, running games, games per second."""

    def __init__(self, work: Work, session: Session, total: int) -> None:
        self._work, self._session, self._total = work, session, total
        self._started = time.monotonic()
        self._last_status = self._started
        self._ended = -1

    def report(self, games: Sequence[LiveGame], running: int, *, is_final: bool = False) -> None:
        """Report progress when a game has ended, and more every few seconds."""
        now = time.monotonic()
        if not is_final and now - self._last_status < STATUS_SECONDS and running > 1:
            return
        outcomes = Counter(game.outcome for game in games if game.outcome)
        ended_games = outcomes.total()
        if ended_games != self._ended:
            self._ended = ended_games
            self._work.report.progress(ended_games, self._total)
        if is_final or now - self._last_status >= STATUS_SECONDS:
            self._last_status = now
            games_per_second = ended_games / max(now - self._started, 1e-9)
            self._work.report.event("status", **_status(outcomes, running, games_per_second))
        if is_final:
            self._work.report.event("played", **self._totals(games))

    def _totals(self, games: Sequence[LiveGame]) -> dict[str, Any]:
        """Totals of the step, for the report's Methods."""
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


def _status(outcomes: Counter[str], running: int, games_per_second: float) -> dict[str, Any]:
    """The progress as text and as numbers."""
    ended = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
    text = f"{running} games under way, {games_per_second:.3g} games/s; {ended or 'none has ended'}"
    return {
        "text": text,
        "live": running,
        "outcomes": dict(sorted(outcomes.items())),
        "games_per_second": round(games_per_second, 3),
    }
