"""Contract checks of what a loaded model computes faster than by whole passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from toolkit.hookpoints import Hookpoint
from toolkit.models import Model, Prefix
from toolkit.models.sessions import Generated
from toolkit.statistics.randomness import generator
from toolkit.testing.promises import near as _near
from toolkit.testing.promises import require as _require

if TYPE_CHECKING:
    from torch import Tensor


REPLY_TOKENS = 6


def streams_after_blocks(model: Model) -> list[str]:
    return [str(Hookpoint("resid_post", layer)) for layer in range(model.layers)]


def some_layers(model: Model) -> list[int]:
    return sorted({0, model.layers // 2, model.layers - 1})


def different_value(value: Tensor, way: int = 1) -> Tensor:
    """A value far from the given one."""
    import torch

    wave = torch.cos(way * torch.arange(len(value), device=value.device))
    return (value + (1 + value.abs().max()) * wave).to(value.dtype)


def check_prefix(model: Model, ids: Sequence[int], tolerance: float) -> None:
    points = streams_after_blocks(model)
    prefix, result = model.prefix(ids, points), model.run([ids], points)
    _require(
        model, prefix.ids == tuple(ids), "prefix.ids are not the ids that prefix was called with"
    )
    captured = prefix.captured or {}
    for name in points:
        same = name in captured and _near(captured[name], result[name][0, -1], tolerance)
        _require(
            model,
            same,
            f"the values that prefix captures at {name} differ from those of run at the last token",
        )
    _check_suffix(
        model,
        prefix,
        {layer: result[points[layer]][0, -1] for layer in range(len(points))},
        tolerance,
    )


def _check_suffix(
    model: Model, prefix: Prefix, replaced: Mapping[int, Tensor], tolerance: float
) -> None:
    """Check suffix with rows at several layers, out of order, half of them the prompt's own."""
    import torch

    layers, rows = [], []
    for way, layer in enumerate([*reversed(some_layers(model)), *some_layers(model)]):
        layers += [layer, layer]
        rows += [different_value(replaced[layer], way + 1), replaced[layer]]
    layers_and_rows = torch.tensor(layers), torch.stack(rows)
    made = torch.zeros(len(layers), dtype=torch.long)
    got, repeated = (
        model.suffix(prefix, *layers_and_rows, made),
        model.suffix(prefix, *layers_and_rows),
    )
    _require(
        model,
        made.tolist() == [1] * len(layers),
        f"suffix wrote {made.tolist()} to `made`; expected 1 for each row",
    )
    expected = Model.suffix(model, prefix, *layers_and_rows)
    _require(
        model,
        got.shape == expected.shape,
        f"suffix returned the shape {tuple(got.shape)}; expected {tuple(expected.shape)}",
    )
    for layer, state, right in zip(layers, got, expected, strict=True):
        _require(
            model,
            _near(state, right, tolerance),
            f"the states that suffix returned for rows at layer {layer} differ from those of whole "
            "passes",
        )
    _require(
        model,
        _near(repeated, got, tolerance),
        "a second suffix of the same prefix returned other states; suffix must not change the "
        "prefix",
    )
    none = tuple(model.suffix(prefix, layers_and_rows[0][:0], layers_and_rows[1][:0]).shape)
    _require(
        model,
        none == (0, model.width),
        f"suffix of no rows returned the shape {none}; expected {(0, model.width)}",
    )


def check_unembed(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    import torch

    states = model.run(batch, [model.last_hookpoint()])[model.last_hookpoint()]
    ends = torch.stack([states[row, len(ids) - 1] for row, ids in enumerate(batch)])
    logits = model.unembed(ends)
    _require(
        model,
        logits.ndim == 2 and len(logits) == len(batch),
        f"unembed returned the shape {tuple(logits.shape)} for {len(batch)} rows; expected "
        f"({len(batch)}, vocabulary)",
    )
    _require(model, logits.isfinite().all(), "unembed returned NaN or infinity")
    named = [
        *model.end_ids,
        *([] if model.bos_id is None else [model.bos_id]),
        *(token for ids in batch for token in ids),
    ]
    inside = all(0 <= token < logits.shape[1] for token in named)
    _require(
        model,
        inside,
        f"unembed returned {logits.shape[1]} logits; token ids go up to {max(named)}",
    )
    single = torch.cat([model.unembed(end[None]) for end in ends])
    _require(
        model, _near(single, logits, tolerance), "the logits of a row depend on the other rows"
    )
    _require(
        model,
        _near(model.next_logits(batch), logits, tolerance),
        "next_logits differs from unembed of the last token's state",
    )


def check_generate(model: Model, batch: Sequence[Sequence[int]]) -> None:
    """Check that each reply equals that of whole passes, whatever the batch, except for close
    calls.
    """
    calls: list[tuple[int, int]] = []

    def draw(row: int, made: int) -> float:
        calls.append((row, made))
        return float(generator(0, "contract", row, made).random())

    until = None
    for _ in range(2):
        expected = Model.generate(model, batch, draw, max_tokens=REPLY_TOKENS, until=until)
        calls.clear()
        got = list(model.generate(batch, draw, max_tokens=REPLY_TOKENS, until=until))
        once = [(row, made) for row, reply in enumerate(got) for made in range(len(reply.ids))]
        _require(
            model,
            _same_replies(got, expected),
            f"generate returned {got}; generated token by token with whole passes, it is "
            f"{expected}",
        )
        _require(
            model,
            sorted(calls) == once,
            "generate did not call draw exactly once for each token, with its row and number",
        )
        single = [
            model.generate(
                [ids],
                partial(_as_row, draw, row),
                max_tokens=REPLY_TOKENS,
                until=until,
            )[0]
            for row, ids in enumerate(batch)
        ]
        _require(
            model, _same_replies(single, got), "a reply depends on the other prompts of its batch"
        )
        until = (got[0].text.strip() or " ")[-1]


def _as_row(draw: Callable[[int, int], float], row: int, _: int, made: int) -> float:
    return draw(row, made)


def _same_replies(left: Sequence[Generated], right: Sequence[Generated]) -> bool:
    """Whether ids, text and end agree for every reply that had no close call."""
    return len(left) == len(right) and all(
        a.close_calls or b.close_calls or (a.ids, a.text, a.finish) == (b.ids, b.text, b.finish)
        for a, b in zip(left, right, strict=True)
    )


def check_score(model: Model, ids: Sequence[int], tolerance: float) -> None:
    import torch

    def logp(sequence: Sequence[int]) -> Tensor:
        return torch.log_softmax(model.next_logits([sequence])[0].detach().cpu().double(), dim=-1)

    likely, unlikely = int(logp(ids).argmax()), int(logp(ids).argmin())
    both = float(logp(ids)[likely] + logp([*ids, likely])[unlikely])
    expected = [float(logp(ids)[likely]), float(logp(ids)[unlikely]), both]
    got = model.score(ids, [[likely], [unlikely], [likely, unlikely]])
    near = len(got) == len(expected) and _near(torch.tensor(got), torch.tensor(expected), tolerance)
    _require(
        model,
        near,
        f"score returned {got}; from next_logits, it is {expected}",
    )
