"""`toolkit play`: work on the games of a run without the model."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import columns, json_option, store_option
from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._cli._reparse import Judging, Rejudged
    from toolkit._plugins.registry import Parts
    from toolkit.ledger import StepRow
    from toolkit.samples.games import Parser
    from toolkit_store import Store

SHOWN_GAMES = 20


@click.group("play")
def command() -> None:
    """Work on the games of a run, without the model."""


@command.command("reparse")
@click.argument("run")
@click.option("--parser", "name", required=True, help="The parser part that reads the replies.")
@click.option("--stage", help="Only this play stage. Default: all of the run.")
@click.option(
    "--plugin",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also load a scratch plugin from this file, such as a parser.",
)
@click.option(
    "--limit",
    default=SHOWN_GAMES,
    show_default=True,
    help="The number of games and of conditions to list.",
)
@json_option
@store_option
def reparse(
    run: str,
    name: str,
    stage: str | None,
    files: tuple[Path, ...],
    limit: int,
    as_json: bool,
    store: str | None,
) -> None:
    """Parse the stored replies of RUN again with another parser: which decisions flip, how outcomes
    change, and at which round each game would have taken another course.
    """
    from toolkit._cli._reparse import FirstReplies, Rejudged, rejudge
    from toolkit._plugins.loading import load_parts
    from toolkit._run.run_folder import find_run, store_folder
    from toolkit_store import open_store

    folder = store_folder(store)
    opened = open_store(folder, read_only=True)
    steps = _play_steps(opened, find_run(folder, run), stage)
    judgings = list(_judgings(load_parts(files), steps, name))
    first_replies: dict[str, FirstReplies] = defaultdict(FirstReplies)
    for step, judging in judgings:
        first_replies[step.stage].add(judging, *_tables(opened, step))
    result = Rejudged()
    for step, judging in judgings:
        rejudge(judging, *_tables(opened, step), result, first_replies[step.stage])
    echo(json.dumps(_facts(result), indent=1) if as_json else _text(result, name, limit))


def _tables(store: Store, step: StepRow) -> tuple[list[Any], list[Any]]:
    """The games and the replies of a step."""
    games, rounds = (store.read(name, [step.key]).to_pylist() for name in ("games", "rounds"))
    return games, rounds


def _play_steps(store: Store, run: str, stage: str | None) -> list[StepRow]:
    """The committed steps of the run that wrote games."""
    from toolkit.errors import BadInput, choices, nearest

    keys = sorted({key for row in store.run_states(run) for key in row.steps})
    steps = [step for step in store.steps(keys) if {"games", "rounds"} <= set(step.tables)]
    names = sorted({step.stage for step in steps})
    if not steps:
        raise BadInput(f"Run {run} has played no games yet. See: toolkit show {run}")
    if stage is not None and stage not in names:
        raise BadInput(
            f"Run {run} has no play stage '{stage}'.{nearest(stage, names)} Stages: "
            f"{choices(names)}."
        )
    chosen = [step for step in steps if stage in (None, step.stage)]
    return sorted(chosen, key=lambda step: (step.stage, step.index))


def _judgings(
    parts: Parts, steps: Sequence[StepRow], name: str
) -> Iterator[tuple[StepRow, Judging]]:
    """Each step with its game and the new parser."""
    from pydantic import ValidationError

    from toolkit._cli._reparse import Judging
    from toolkit.errors import BadInput
    from toolkit.parts import StagePart

    parse = _parser(parts, name)
    context = {"parts": parts, "any_version_of": ("parser",)}  # the parser of the run is not used
    for step in steps:
        material = json.loads(step.material)
        part = parts.get("stage", step.part)
        try:
            params = part.params.model_validate(material["params"], context=context)
        except ValidationError as error:
            reasons = "; ".join(str(line["msg"]) for line in error.errors())
            raise BadInput(
                f"stage '{step.stage}' was played with parts that are not here: {reasons}. If they "
                "are in a scratch file, name it with --plugin FILE."
            ) from error
        if not isinstance(part, StagePart) or part.plays is None:
            raise BadInput(
                f"stage '{step.stage}' ({step.part}) does not say which environment it "
                f"played, so its replies cannot be parsed again. Choose another one with --stage."
            )
        played = part.plays(params)
        yield (
            step,
            Judging(
                played.game.make(),
                parse,
                played.attempts,
                int(material["seed"]),
                played.reminder,
                played.leaders,
            ),
        )


def _parser(parts: Parts, name: str) -> Parser:
    """The parser of that name, with its default params."""
    from pydantic import ValidationError

    from toolkit.errors import BadInput
    from toolkit.parts import ParserPart

    part = parts.get("parser", name)
    assert isinstance(part, ParserPart)
    try:
        return part.make(part.params())
    except ValidationError as error:
        missing = ", ".join(str(line["loc"][0]) for line in error.errors() if line["loc"])
        raise BadInput(
            f"parser '{name}' has params without a default ({missing}), and reparse sets none. "
            "Give them a default in its plugin, or name another parser."
        ) from error


def _facts(result: Rejudged) -> dict[str, Any]:
    return {
        "replies": result.replies,
        "flips": [vars(flip) for flip in result.flips],
        "outcomes": {
            condition: {"before": dict(before), "after": dict(result.after[condition])}
            for condition, before in result.before.items()
        },
    }


def _text(result: Rejudged, name: str, limit: int) -> str:
    blocks = [_summary(result, name), _outcomes(result, limit)]
    if result.flips:
        blocks += [_kinds(result), _games(result, limit)]
    return "\n\n".join(block for block in blocks if block)


def _summary(result: Rejudged, name: str) -> str:
    games = sum(sum(counts.values()) for counts in result.before.values())
    return (
        f"{name}: {len(result.flips)} of {result.replies} replies are read differently; "
        f"{len(result.turns)} of {games} games would have taken another course."
    )


def _outcomes(result: Rejudged, limit: int) -> str:
    """The outcome table as played and as read now, for each group of conditions that changed."""
    total_before: Counter[str] = sum(result.before.values(), Counter())
    total_after: Counter[str] = sum(result.after.values(), Counter())
    rows = [
        _outcome_row("all games", "as played", total_before, result.outcomes),
        _outcome_row("", "read again", total_after, result.outcomes),
    ]
    changed = [name for name in sorted(result.before) if result.before[name] != result.after[name]]
    for condition in changed[:limit]:
        before, after = result.before[condition], result.after[condition]
        rows.append(_outcome_row(condition, "as played", before, result.outcomes))
        rows.append(_outcome_row("", "read again", after, result.outcomes))
    heads = ["CONDITION", "", *(name.upper() for name in result.outcomes)]
    notes = []
    if len(changed) > limit:
        notes.append(f"{len(changed) - limit} more conditions change; --limit shows them.")
    if "open" in result.outcomes:
        notes.append("open: the game would have continued with replies that do not exist.")
    return "\n".join([columns(heads, rows, right=heads[2:]), *notes])


def _outcome_row(
    condition: str, reading: str, counts: Mapping[str, int], outcomes: Sequence[str]
) -> list[str]:
    from toolkit._cli._reparse import rates

    shares = rates(counts)
    cells = []
    for name in outcomes:
        share = f" ({shares[name]:.1%})" if name in shares else ""
        cells.append(f"{counts.get(name, 0)}{share}")
    return [condition, reading, *cells]


def _kinds(result: Rejudged) -> str:
    rows = [[before, after, str(count)] for (before, after), count in result.kinds.most_common()]
    return columns(["READ AS", "NOW", "REPLIES"], rows, right=["REPLIES"])


def _games(result: Rejudged, limit: int) -> str:
    turns = result.turns
    if not turns:
        return ""
    rows = [
        [flip.game, str(flip.round), flip.before, flip.after, _short(flip.reply)]
        for flip in turns[:limit]
    ]
    table = columns(["GAME", "ROUND", "READ AS", "NOW", "REPLY"], rows, right=["ROUND"])
    left = len(turns) - limit
    return table + (f"\n{left} more games; --limit shows them." if left > 0 else "")


def _short(reply: str) -> str:
    text = " ".join(reply.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
