"""The metadata keys of played games, known from the environment before anything is played."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.samples.games import HOST_OUTCOMES

if TYPE_CHECKING:
    from toolkit.parts import Labels

    from .stage.params import Play

DECISION_KEYS = ("round", "state", "action", "bet")
"""Keys of every decision, whatever the game."""


def labels(params: Play) -> Labels:
    """Metadata keys of these games' decisions. Outcomes, conditions and groups list their values;
    numbers have too many to list.
    """
    environment = params.game.make()
    conditions = environment.conditions()
    numbers = environment.numbers(environment.start(conditions[0].settings))
    switches = {name for condition in conditions for name in condition.switches}
    groups: dict[str, list[str]] = {}
    for condition in conditions:
        for name, value in condition.groups.items():
            groups.setdefault(name, []).append(value)
    return {
        **dict.fromkeys((*DECISION_KEYS, *sorted(switches), *numbers)),
        **{name: sorted(set(values)) for name, values in groups.items()},
        "condition": [condition.id for condition in conditions],
        "outcome": [*environment.outcomes, *HOST_OUTCOMES],
    }
