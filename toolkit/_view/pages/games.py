"""The games of a run."""

from __future__ import annotations

from toolkit._query import answers
from toolkit._view.grid import Grid
from toolkit._view.library import PAGE_ROWS, Library
from toolkit._view.page import Page
from toolkit._view.pages.links import run_href
from toolkit._view.pages.run_facts import past_the_end, why_empty
from toolkit._view.request import Query, href
from toolkit.errors import BadInput, choices


def games(library: Library, query: Query, name: str) -> Page:
    """The games of a run, a hundred at a time; a download has all of them."""
    import polars as pl

    opened = library.run(name)
    outcome, offset = query.text("outcome"), query.integer("offset") or 0
    columns = ("game", "condition", "outcome", "rounds", "total_bet", "final_balance")
    rows = pl.DataFrame(opened.read_stages("games", None, None, columns)).select(columns)
    outcomes = rows["outcome"].unique().sort().to_list()
    if outcome is not None:
        if outcome not in outcomes:
            raise BadInput(
                f"No game of run {name} ended in '{outcome}'. Outcomes: {choices(outcomes)}."
            )
        rows = rows.filter(pl.col("outcome") == outcome)
    links = {"game": lambda row: run_href(name, "game", game=row["game"])}
    shown, after = rows.slice(offset, PAGE_ROWS), offset + PAGE_ROWS
    why = past_the_end(offset) or why_empty(opened, "games", rows)
    grid = Grid("games", "Games", shown, links, why, lambda: iter([rows]))
    more = href(f"/run/{name}/games", outcome=outcome, offset=after)
    facts = {
        "outcomes": outcomes,
        "outcome": outcome,
        "count": rows.height,
        "more": more if rows.height > after else None,
    }
    return Page("games.html", f"Games of {name}", facts, [grid], name)


def game(library: Library, query: Query, name: str) -> Page:
    """One game: what the model read, what it replied, and how the game ended."""
    opened, game_id = library.run(name), query.required("game")
    rows = opened.read_stages("games", None, {"game": [game_id]}).to_pylist()
    if not rows:
        raise BadInput(f"Run {name} has no game '{game_id}'. Choose one from Games.")
    turns = opened.read_stages("rounds", None, {"game": [game_id]}).to_pylist()
    turns.sort(key=lambda row: (row["round"], row["attempt"]))
    columns = (
        *("round", "attempt", "action", "asked", "bet", "won", "parse", "finish"),
        *("balance_before", "balance_after", "reply"),
    )
    grid = Grid("rounds", "Rounds", answers.frame(turns, columns))
    return Page("game.html", f"Game {game_id}", {"game": rows[0], "turns": turns}, [grid], name)
