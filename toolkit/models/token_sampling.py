"""Draw the next token of each reply from the model's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.errors import DataError
from toolkit.models.sessions import ReplyBuilder, SessionModel

if TYPE_CHECKING:
    from torch import Tensor


NOT_NUMBERS = (
    "the model's logits are not finite numbers. Load the model in another dtype (float32 "
    "or bfloat16)."
)


def take_tokens(model: SessionModel, replies: Sequence[ReplyBuilder], logits: Tensor) -> int:
    """Draw the next token of each reply from its row of logits, and count the close calls."""
    requests = [reply.request for reply in replies]
    _check_numbers(replies, logits)
    drawn, close = draw_tokens(
        _without_end(model, replies, logits),
        [
            None if request.draw is None else request.draw(len(reply.ids))
            for request, reply in zip(requests, replies, strict=True)
        ],
        [request.temperature for request in requests],
        model.draw_tolerance,
    )
    for reply, token, near in zip(replies, drawn, close, strict=True):
        reply.take(token, close=near)
    return sum(close)


def _without_end(model: SessionModel, replies: Sequence[ReplyBuilder], logits: Tensor) -> Tensor:
    """The logits, with the end of the text excluded for replies that are still too short."""
    short = [row for row, reply in enumerate(replies) if len(reply.ids) < reply.request.min_tokens]
    if not short or not model.end_ids:
        return logits
    masked = logits.clone()
    for token in model.end_ids:
        masked[short, token] = float("-inf")
    return masked


def _check_numbers(replies: Sequence[ReplyBuilder], logits: Tensor) -> None:
    """Refuse logits that are not numbers, naming the sequence and the token."""
    bad = (logits.isnan() | (logits == float("inf"))).any(-1)
    if bool(bad.any()):
        reply = replies[int(bad.nonzero()[0])]
        raise DataError(f"'{reply.request.id}', token {len(reply.ids)} of its reply: {NOT_NUMBERS}")


def draw_tokens(
    logits: Tensor,
    uniforms: Sequence[float | None],
    temperatures: Sequence[float],
    tolerance: float,
) -> tuple[list[int], list[bool]]:
    """The token of each row by inverse CDF in float64 (the likeliest where `uniforms` has None),
    and whether the draw lies within `tolerance` of the boundary to another token. A low temperature
    stretches differences between logits, and the tolerance with them.
    """
    import torch

    device = torch.device("cpu") if logits.device.type == "mps" else logits.device
    wide = logits.to(device, torch.float64)
    heat = torch.tensor(temperatures, dtype=torch.float64, device=device)
    shares = torch.softmax(wide / heat[:, None], dim=-1)
    if not bool(shares.isfinite().all()):
        raise DataError(NOT_NUMBERS)
    allowed = tolerance / heat.clamp(max=1.0)
    summed = shares.cumsum(-1)
    points = torch.tensor(
        [0.0 if uniform is None else uniform for uniform in uniforms],
        dtype=torch.float64,
        device=device,
    )
    points = (points * summed[:, -1])[:, None]
    last = shares.shape[-1] - 1 - (shares.flip(-1) > 0).int().argmax(-1, keepdim=True)
    drawn = torch.minimum(torch.searchsorted(summed, points, right=True), last)
    above = summed.gather(-1, drawn)
    below = above - shares.gather(-1, drawn)
    up = torch.where(drawn < last, above - points, 1.0)
    down = torch.where(below > 0, points - below, 1.0)
    close = torch.minimum(up, down)[:, 0] < allowed
    best, order = shares.topk(min(2, shares.shape[-1]), dim=-1)
    greedy = torch.tensor([uniform is None for uniform in uniforms], device=device)
    drawn = torch.where(greedy, order[:, 0], drawn[:, 0])
    close = torch.where(greedy, best[:, 0] - best[:, -1] < allowed, close)
    return drawn.tolist(), close.tolist()
