"""The number that an attribution explains: the mean logit of some tokens minus that of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.edits import Edit
from toolkit.errors import DataError
from toolkit.models import LOGITS, Model, Prefix

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DecisionOutcome:
    """Token ids of the two sides."""

    name: str
    plus: tuple[int, ...]
    minus: tuple[int, ...]

    @property
    def tokens(self) -> list[int]:
        """Both sides, plus first."""
        return [*self.plus, *self.minus]

    def of(self, logits: Tensor) -> Tensor:
        """(n, vocabulary) -> (n,)."""
        return logits[:, list(self.plus)].mean(dim=1) - logits[:, list(self.minus)].mean(dim=1)

    def objective(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """For `Model.gradients`."""
        return self.of(outputs[LOGITS])

    def of_states(self, model: Model, states: Tensor) -> Tensor:
        """(n, width) -> (n,), float64 on the CPU, without the logits of the whole vocabulary."""
        logits = model.readout(states, self.tokens).logits.double().cpu()
        count = len(self.plus)
        return logits[:, :count].mean(dim=1) - logits[:, count:].mean(dim=1)

    def direction(self, model: Model) -> tuple[Tensor, float]:
        """The direction that the outcome reads after the final norm, (width,), and its constant."""
        rows = model.unembedding_rows(self.tokens).double()
        offsets = model.unembedding_offsets(self.tokens).double()
        count = len(self.plus)
        direction = rows[:count].mean(dim=0) - rows[count:].mean(dim=0)
        return direction, float(offsets[:count].mean() - offsets[count:].mean())


def outcome_of(model: Model, params: Any, sample: Mapping[str, Any]) -> DecisionOutcome:
    """The outcome of a sample: continuations are tokenised after its own text."""
    plus = tuple(_first_token(model, sample, text) for text in params.plus)
    minus = tuple(_first_token(model, sample, text) for text in params.minus)
    if shared := set(plus) & set(minus):
        raise DataError(
            f"sample '{sample['sample']}': a continuation of `plus` and one of `minus` begin with "
            f"the same token, {model.decode([min(shared)])!r}. Name words that differ from their "
            "first token on."
        )
    return DecisionOutcome(f"{'|'.join(params.plus)} - {'|'.join(params.minus)}", plus, minus)


def _first_token(model: Model, sample: Mapping[str, Any], text: str) -> int:
    ids = tuple(sample["token_ids"])
    extended_ids = model.encode(sample["text"] + text).ids
    if extended_ids[: len(ids)] != ids or len(extended_ids) == len(ids):
        raise DataError(
            f"sample '{sample['sample']}': after this prompt, {text!r} does not begin with a "
            "token of its own, so that it has no logit. Begin it with a space, or leave out the "
            "space that ends the prompt."
        )
    return extended_ids[len(ids)]


class Patching:
    """One clean prompt under many edits: positions before the first edit are computed once."""

    def __init__(self, model: Model, ids: Sequence[int], outcome: DecisionOutcome) -> None:
        self.model, self.ids, self.outcome = model, tuple(ids), outcome
        self._prefix: Prefix = model.prefix(self.ids)
        self.clean = float(self.values([], 1)[0])

    def values(self, edits: Sequence[Edit], count: int) -> Tensor:
        """The outcome of `count` copies; the rows of an edit are the copies."""
        states = self.model.edited_states(self._prefix, edits, count)
        return self.outcome.of_states(self.model, states)

    def change(self, edits: Sequence[Edit]) -> float:
        """The joint effect of edits of one copy."""
        return float(self.values(edits, 1)[0]) - self.clean
