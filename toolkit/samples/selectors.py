"""Select tokens of a text: `last`, `all`, or a selector. Extraction, patching and attention use the
same syntax.

    at: {span: balance}                                  every token of the balance
    at: {phase: generation, take: first}                 the first generated token
    at: {window: [-20, null], exclude: {span: history}}  those of the last twenty tokens outside the
    history

All conditions must hold; then `exclude` removes tokens, then `take` chooses among the rest. A list
of selectors is their union.

Positions count from 0 in the ids without padding, BOS counted. A negative one counts from the end,
as in Python: -1 is the last token. A text that is too short for a position has no such token and
gives no row. BOS itself is left out of results, unless `exclude: {bos: false}` asks for it or the
text is nothing else. Windows and spans are half open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from toolkit.errors import DataError, choices, nearest
from toolkit.params import Params

GENERATION = "generation"
"""The span of the tokens that the model wrote itself."""
SPANS = ("balance", "goal", "win_rate", "payout", "history", "options", "decision")
"""Standard names of spans in prompts. A prompt may lack some; a text without a span gives no row
for it.
"""

_WORDS = {
    "last": "last",
    "all": "all",
    "first": "{take: first}",
    "prompt": "{phase: prompt}",
    GENERATION: "{phase: generation}",
    **{span: f"{{span: {span}}}" for span in SPANS},
}
"""Short forms of selectors."""

Window = tuple[int | None, int | None]


class Places(Params):
    """Conditions on position and token. All given conditions must hold."""

    span: str | None = Field(
        None,
        min_length=1,
        description="Tokens of the spans of this name (balance, history, decision ...).",
    )
    positions: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="Positions, from 0 with BOS counted; negative ones from the end.",
    )
    window: Window | None = Field(
        None,
        description="Positions from the first number up to before the second; null: open, "
        "negative: from the end.",
    )
    tokens: tuple[int | str, ...] | None = Field(
        None,
        min_length=1,
        description="Token ids, or the text of tokens, ignoring blanks around it; a text of "
        "blanks only must match exactly.",
    )

    @field_validator("window", mode="before")
    @classmethod
    def _two(cls, window: Any) -> Any:
        if window is not None and not (isinstance(window, list | tuple) and len(window) == 2):
            raise ValueError(
                "must be two numbers (the first position, and the first left out; null: no "
                f"end), not {window}"
            )
        return window

    @field_validator("window")
    @classmethod
    def _something(cls, window: Window | None) -> Window | None:
        first, last = window or (None, None)
        if first is not None and last is not None and (first < 0) == (last < 0) and first >= last:
            raise ValueError(
                f"the window [{first}, {last}] is empty: the second number is the first position "
                "left out"
            )
        return window

    def named(self) -> bool:
        """Whether any condition is given."""
        return any(
            getattr(self, name) is not None for name in ("span", "positions", "window", "tokens")
        )


class Excluded(Places):
    """Tokens that are left out. BOS is, by default: its activations are far from anything an SAE
    was trained on.
    """

    bos: bool = Field(True, description="Leave out BOS, the token that begins every text.")


class Selector(Places):
    """Tokens of a text: by phase, span, positions, window and token, without what is excluded; then
    first, last or all.
    """

    phase: Literal["prompt", "generation"] | None = Field(
        None,
        description="prompt: what the model read; generation: what it wrote, in samples that "
        "hold replies.",
    )
    take: Literal["first", "last", "all"] = Field(
        "all", description="Which of the matching tokens."
    )
    exclude: Excluded = Field(
        default_factory=lambda: Excluded.model_validate({}),
        description="Tokens removed before `take`.",
    )


Where = Literal["last", "all"] | Selector | tuple[Selector, ...]
"""Which tokens, as written in a spec."""


class At(Params):
    """Base of the params of parts that select tokens."""

    at: Where = Field(
        "last",
        description="last: the last token; all: every token but BOS; or a selector, or a list of "
        "them: their union.",
    )

    @field_validator("at", mode="before")
    @classmethod
    def _known(cls, selector: Any) -> Any:
        if isinstance(selector, str) and selector not in ("last", "all"):
            near = [
                f" Did you mean `{_WORDS[word]}`?"
                for word in get_close_matches(selector, _WORDS, n=1, cutoff=0.5)
            ]
            raise ValueError(
                "must be `last`, `all`, a selector or a list of selectors, not the text "
                f"'{selector}'.{''.join(near)}"
            )
        return selector

    @model_validator(mode="after")
    def _some_selector(self) -> At:
        if self.at == ():
            raise ValueError(
                "at: the list of selectors is empty; write `last`, `all`, or at least one selector"
            )
        return self


@dataclass(frozen=True)
class SelectorText:
    """The text that a selector is applied to; `spans` are ranges of tokens."""

    sample: str
    ids: Sequence[int]
    pieces: Sequence[str] = ()
    spans: Sequence[tuple[str, int, int]] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> SelectorText:
        """From a row of table `samples`."""
        spans = [(span["name"], span["start"], span["end"]) for span in row.get("spans") or ()]
        return cls(row["sample"], row["token_ids"], row.get("pieces") or (), spans)


def selected(
    at: str | Selector | Sequence[Selector], text: SelectorText, bos: int | None
) -> tuple[int, ...]:
    """The positions that `at` chooses in a text, in order, each once. `bos` is the model's, if it
    has one.
    """
    if at == "last":
        return tuple(range(len(text.ids)))[-1:]
    selectors = (
        [Selector.model_validate({})]
        if at == "all"
        else [at]
        if isinstance(at, Selector)
        else list(at)
    )
    chosen = {
        position
        for selector in selectors
        if isinstance(selector, Selector)
        for position in _of(selector, text, bos)
    }
    return tuple(sorted(chosen))


def _of(selector: Selector, text: SelectorText, bos: int | None) -> Sequence[int]:
    positions = _phase(selector, text) & _places(selector, text)
    out = selector.exclude
    if out.bos and len(text.ids) > 1 and text.ids[0] == bos:
        positions -= {0}
    if out.named():
        positions -= _places(out, text)
    ordered = sorted(positions)
    return {"first": ordered[:1], "last": ordered[-1:], "all": ordered}[selector.take]


def _phase(selector: Selector, text: SelectorText) -> set[int]:
    written = _inside(text, GENERATION)
    if selector.phase == "generation" and not written:
        raise DataError(
            f"sample '{text.sample}' has no generated tokens, and the selector asks for `phase: "
            "generation`. Use samples that hold replies, such as those of source `games` with "
            "`with_reply: true`."
        )
    everything = set(range(len(text.ids)))
    return (
        written
        if selector.phase == "generation"
        else everything - written
        if selector.phase == "prompt"
        else everything
    )


def _places(places: Places, text: SelectorText) -> set[int]:
    """The positions at which all conditions hold."""
    length = len(text.ids)
    results = set(range(length))
    if places.span is not None:
        _check_span(places.span, text)
        results &= _inside(text, places.span)
    if places.positions is not None:
        results &= {
            position + length if position < 0 else position for position in places.positions
        }
    if places.window is not None:
        results &= set(range(length)[slice(*places.window)])
    if places.tokens is not None:
        results &= _tokens(places.tokens, text)
    return results


def _inside(text: SelectorText, name: str) -> set[int]:
    return {
        position
        for span, start, end in text.spans
        if span == name
        for position in range(start, min(end, len(text.ids)))
    }


def _check_span(name: str, text: SelectorText) -> None:
    """A span name that is not a fixed one must exist in every sample; otherwise a typo would select
    nothing.
    """
    there = {span for span, _, _ in text.spans}
    if name not in there and name not in SPANS:
        known = there | set(SPANS)
        raise DataError(
            f"sample '{text.sample}' has no span '{name}'.{nearest(name, known)} Its spans: "
            f"{', '.join(sorted(there)) or 'none'}. Names that a sample may lack: {choices(SPANS)}."
        )


def _tokens(tokens: Sequence[int | str], text: SelectorText) -> set[int]:
    ids = {item for item in tokens if isinstance(item, int)}
    words = {item.strip() or item for item in tokens if isinstance(item, str)}
    results = {index for index, token in enumerate(text.ids) if token in ids}
    return results | {
        index
        for index, piece in enumerate(text.pieces)
        if words and (piece.strip() or piece) in words
    }
