"""Contract checks of a loaded decoder beyond plain passes: operations at any position, sessions,
readouts and, if it has them, attention, gradients and matrices. `check_model` runs all of it.

Optional methods may refuse with `BadInput`; those that are implemented must be correct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from toolkit.edits import Add, Edit, OnStream, Scale, Set, from_position, tokens
from toolkit.errors import BadInput
from toolkit.models import LOGITS, Model
from toolkit.models.sessions import Generated
from toolkit.models.whole_pass_sessions import WholePassSession
from toolkit.statistics.randomness import generator
from toolkit.testing.promises import near, require

if TYPE_CHECKING:
    from torch import Tensor

REPLY_TOKENS = 4
SLOPE = 0.05
"""How much a gradient may differ from the slope of two passes, as a share of its length."""


def check_decoder(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    """Run all checks of this module. The sequences of `batch` differ in length."""
    longest = max(batch, key=len)
    check_operations(model, longest, tolerance)
    check_sessions(model, batch)
    check_readout(model, batch, tolerance)
    check_attention(model, batch, tolerance)
    check_gradients(model, longest)
    check_matrices(model, batch, tolerance)


# --- edits ----------------------------------------------------------------------------------------


def _edits(model: Model, ids: Sequence[int], streams: Any) -> list[Edit]:
    """Edits at two layers and several positions, with different values for each of three rows."""
    import torch

    low, high = "resid_post.0", f"resid_post.{max(0, model.layers - 2)}"
    size = float(streams[low].float().abs().max())
    vectors = size * torch.cos(torch.arange(3 * model.width).reshape(3, -1) + 1.0)
    middle, last = len(ids) // 2, len(ids) - 1
    return [
        Edit(low, OnStream(Add(vectors)), tokens([0, 1, 2], [middle, last, 0])),
        Edit(high, OnStream(Scale(0.5)), from_position(middle, [0, 2])),
    ]


def check_operations(model: Model, ids: Sequence[int], tolerance: float) -> None:
    """Check that an operation sees the stream that earlier ones left, and that every edit is
    counted.
    """
    low, high = "resid_post.0", f"resid_post.{max(0, model.layers - 2)}"
    end, batch = model.last_hookpoint(), [ids] * 3
    plain = model.run(batch, [low])
    edits = _edits(model, ids, plain)
    result = model.run(batch, [low, end], edits)
    steps = model.run(batch, [low, end], _as_values(model, batch, edits))
    require(
        model,
        near(result[low], steps[low], tolerance) and near(result[end], steps[end], tolerance),
        "edits that add and scale give other values than setting the same values; apply each "
        f"edit to the stream that earlier edits left ({low}, then {high})",
    )
    middle = len(ids) // 2
    counts = [edit.tally.total() for edit in edits]
    expected = [3, 2 * (len(ids) - middle)]
    require(
        model,
        counts == expected,
        f"the tallies count {counts} edits; {expected} were requested",
    )
    fast = _edits(model, ids, plain)
    states = model.edited_states(model.prefix(ids), fast, 3)
    require(
        model,
        near(states, result[end][:, -1], tolerance),
        "edited_states differs from run with the same edits",
    )
    for ours, theirs in zip(fast, edits, strict=True):
        require(
            model,
            ours.tally.counts == theirs.tally.counts,
            f"edited_states counted the edits {dict(ours.tally.counts)}; run counted "
            f"{dict(theirs.tally.counts)}",
        )


def _as_values(model: Model, batch: Sequence[Sequence[int]], edits: Sequence[Edit]) -> list[Edit]:
    """The same edits as fixed values, each computed from a pass with the edits before it."""
    import torch

    made: list[Edit] = []
    for edit in edits:
        stream = model.run(batch, [edit.hookpoint], made)[edit.hookpoint]
        targets_of_edit = [
            (row, position, int(index))
            for row, start, stop, index in zip(
                *(getattr(edit.targets, name).tolist() for name in ("rows", "starts", "stops")),
                edit.targets.index,
                strict=True,
            )
            for position in range(start, min(stop, len(batch[row])))
        ]
        before = torch.stack(
            [stream[row, position].float() for row, position, _ in targets_of_edit]
        )
        index = torch.tensor([path for _, _, path in targets_of_edit])
        values = edit.operation.apply(before, before, index)
        targets = tokens(
            [row for row, _, _ in targets_of_edit],
            [position for _, position, _ in targets_of_edit],
        )
        made.append(Edit(edit.hookpoint, OnStream(Set(values)), targets))
    return made


# --- sessions -------------------------------------------------------------------------------------


def _number(name: str, step: int) -> float:
    return float(generator(0, "session contract", name, step).random())


def _play(session: Any, batch: Sequence[Sequence[int]], edit: Edit | None) -> dict[Any, Generated]:
    """Run a session in which a sequence joins whenever one ends; every second one is edited."""
    waiting = [
        (f"{index}", ids, (edit,) if edit and index % 2 else ()) for index, ids in enumerate(batch)
    ]
    results: dict[Any, Generated] = {}

    def submit() -> None:
        name, ids, edits = waiting.pop(0)
        draw = partial(_number, name)
        session.submit(name, ids, draw, max_tokens=REPLY_TOKENS, edits=edits)

    for _ in range(2):
        submit()
    for reply in session.run():
        results[reply.id] = reply
        if waiting:
            submit()
    return results


def check_sessions(model: Model, batch: Sequence[Sequence[int]]) -> None:
    """Check that sequences that join and leave a session, some equal and some edited, get the
    replies and the edit counts of whole passes.
    """
    import torch

    many = [*batch, batch[-1], batch[-1], batch[0]]
    wave = torch.cos(torch.arange(model.width) + 1.0)
    ours, theirs = (Edit("resid_post.0", OnStream(Add(wave)), from_position(1)) for _ in range(2))
    session = model.session()
    result = _play(session, many, ours)
    expected = _play(WholePassSession(model), many, theirs)
    require(
        model,
        set(result) == set(expected),
        f"a session returned replies for {sorted(result)}; expected {sorted(expected)}",
    )
    clean = [
        name for name in result if not (result[name].close_calls or expected[name].close_calls)
    ]
    for name in clean:
        require(
            model,
            result[name].ids == expected[name].ids and result[name].finish == expected[name].finish,
            f"a session returned {result[name]}; generated token by token with whole passes, it is "
            f"{expected[name]}",
        )
    if len(clean) == len(result):
        require(
            model,
            ours.tally.counts == theirs.tally.counts,
            f"a session counted these edits: {dict(ours.tally.counts)}; whole passes make "
            f"{dict(theirs.tally.counts)}",
        )
    counts = session.counts
    require(
        model,
        counts.prompt_tokens == sum(map(len, many)) and 0 <= counts.reused_tokens,
        "the prompt tokens that a session counts are not as many as it was given",
    )


# --- readouts -------------------------------------------------------------------------------------


def _last_states(model: Model, batch: Sequence[Sequence[int]]) -> Tensor:
    import torch

    end = model.last_hookpoint()
    states = model.run(batch, [end])[end]
    return torch.stack([states[row, len(ids) - 1] for row, ids in enumerate(batch)])


def check_readout(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    """Check that logits, normalisers and divergences are those of whole rows of logits."""
    states = _last_states(model, batch)
    logits = model.unembed(states).double()
    chosen = sorted({0, logits.shape[1] // 2, logits.shape[1] - 1})
    result = model.readout(states, chosen, states[0])
    logp = logits.log_softmax(-1)
    kl = (logp[0].exp() * (logp[0] - logp)).sum(-1)
    right = (
        near(result.logits, logits[:, chosen], tolerance)
        and near(result.normaliser, logits.logsumexp(-1), tolerance)
        and result.kl is not None
        and float((result.kl - kl).abs().max()) <= tolerance * (1 + float(kl.abs().max()))
    )
    require(model, right, "readout differs from what unembed gives for the same states")


# --- optional methods of a loader -----------------------------------------------------------------


def _offered(ask: Callable[[], Any]) -> Any:
    """Return the result of a method, or None if the loader refuses it."""
    try:
        return ask()
    except BadInput:
        return None


def check_attention(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    """Check that each query's weights belong to its own text and earlier tokens, and add up to 1;
    and that captures are those of `run`.
    """
    queries = [[len(ids) - 1, len(ids) // 2] for ids in batch]
    layers, end = sorted({0, model.layers - 1}), model.last_hookpoint()
    result = _offered(lambda: model.attention(batch, queries, layers, capture=[end]))
    if result is None:
        return
    streams = model.run(batch, [end])[end]
    for layer in layers:
        for row, (ids, positions) in enumerate(zip(batch, queries, strict=True)):
            weights = result.weights[layer][row]
            right = weights.ndim == 3 and (len(weights), weights.shape[2]) == (2, len(ids))
            require(
                model,
                right,
                f"attention returned the shape {tuple(weights.shape)} for two queries of "
                f"{len(ids)} tokens; expected (2, heads, tokens)",
            )
            ahead = [weights[index, :, position + 1 :] for index, position in enumerate(positions)]
            require(
                model,
                not any(bool(part.any()) for part in ahead),
                f"attention of layer {layer} has weights at tokens after the query",
            )
            whole = near(weights.sum(-1), weights.new_ones(weights.shape[:2]), tolerance)
            require(model, whole, f"attention weights of layer {layer} do not add up to 1")
            single = model.attention([ids], [positions], [layer]).weights[layer][0]
            require(
                model,
                near(single, weights, tolerance),
                f"attention of layer {layer} depends on the other texts of its batch",
            )
    for row, ids in enumerate(batch):
        same = near(result.captured[end][row, : len(ids)], streams[row, : len(ids)], tolerance)
        require(model, same, f"attention captures values at {end} that differ from those of run")


def check_gradients(model: Model, ids: Sequence[int]) -> None:
    """Check that a gradient is the slope between two edited passes, and that no tensor requires
    gradients afterwards.
    """
    import torch

    name, position, end = "resid_post.0", len(ids) // 2, model.last_hookpoint()
    count = model.unembed(_last_states(model, [ids])).shape[1]

    def objective(streams: Any) -> Tensor:
        logits: Tensor = streams[LOGITS]
        return logits[:, count // 2] - logits[:, count // 3]

    result = _offered(lambda: model.gradients([ids], [name], objective))
    if result is None:
        return
    slope, stream = result.gradients[name][0, position], result.streams[name][0, position]
    direction = torch.cos(torch.arange(model.width, device=slope.device) + 1.0)
    step = 1e-3 * float(stream.norm() / direction.norm())
    sides = []
    for sign in (1, -1):
        change = OnStream(Add(sign * step * direction))
        states = model.run([ids], [end], [Edit(name, change, tokens([0], [position]))])[end][:, -1]
        sides.append(float(objective({LOGITS: model.unembed(states).double()})))
    expected = (sides[0] - sides[1]) / (2 * step)
    got, length = float(slope @ direction), float(slope.norm() * direction.norm())
    require(
        model,
        abs(got - expected) <= SLOPE * length + 1e-3,
        f"the gradient at {name} has the slope {got:.4g} along a direction; two edited passes give "
        f"{expected:.4g}",
    )
    leaks = [*result.gradients.values(), *result.streams.values(), result.objectives]
    leaks.append(model.run([ids], [end])[end])
    require(
        model,
        not any(value.requires_grad for value in leaks),
        "gradients leaves tensors that require gradients",
    )


def check_matrices(model: Model, batch: Sequence[Sequence[int]], tolerance: float) -> None:
    """Check that folded states times rows of the unembedding rank tokens as logits do, and that
    parts add up.
    """
    states = _last_states(model, batch)
    folded = _offered(lambda: model.fold_final_norm(states))
    if folded is None:
        return
    logits = model.unembed(states).double()
    chosen = list(range(0, logits.shape[1], max(1, logits.shape[1] // 50)))
    rows = model.unembedding_rows(chosen)
    made = (folded @ rows.T + model.unembedding_offsets(chosen)).double()
    same = bool((made.argsort(-1)[:, -1] == logits[:, chosen].argsort(-1)[:, -1]).all())
    require(model, same, "unembedding_rows ranks tokens in another order than unembed")
    half = model.fold_final_norm(states * 0.25, states) + model.fold_final_norm(
        states * 0.75, states
    )
    require(
        model,
        near(half, folded, tolerance),
        "fold_final_norm of two parts of a state does not add up to that of the state",
    )
    embedded = _offered(lambda: model.embedding_rows([batch[0][0]]))
    if embedded is not None:
        require(
            model,
            tuple(embedded.shape) == (1, model.width),
            f"embedding_rows returned the shape {tuple(embedded.shape)}; expected "
            f"(1, {model.width})",
        )
