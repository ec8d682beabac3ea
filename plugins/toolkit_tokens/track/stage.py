"""`track.tokens` and `track.attention`: one pass over the distinct texts yields the features of all
SAEs at every chosen token and the attention of every head.

Attention rows come from the model's fast path. Each layer of a batch is turned into rows and
released before the next one, so that the host holds only one layer of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.costs import TOKENS
from toolkit.errors import BadInput, DataError
from toolkit.hookpoints import hookpoint
from toolkit.models.streams import Budget, free_memory, out_of_memory
from toolkit.saes import Sae, Sparse, space_id, space_row
from toolkit.samples.selectors import SelectorText, Where, selected
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

from .layers import layer_numbers
from .params import Attention
from .rows import Owner, TrackedText, activation_rows, attention_rows

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import AttentionRows, Model

ATTENTION_NUMBERS = 1 << 28
"""The most attention weights that one pass holds: a gigabyte in float32."""
ROWS_AT_ONCE = 64
"""Rows of SAE input per call after a larger batch did not fit in memory."""


def track_tokens(work: Work) -> Rows:
    """Features of every SAE and, unless switched off, attention at the layers of the SAEs."""
    import pyarrow as pa

    model, saes = work.model, list(work.saes)
    if not saes:
        raise BadInput("track.tokens: there are no SAEs. Use track.attention for attention alone.")
    attention: Attention | None = work.params.attention
    layers = sorted({sae.layer for sae in saes}) if attention is not None else []
    texts = _texts(work, work.params.at, attention)
    yield from _run_passes(work, texts, saes, layers, None if attention is None else attention.top)
    spaces = [space_row(model.identity, sae) for sae in saes]
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


def track_attention(work: Work) -> Rows:
    """Attention of every head at the chosen layers; no SAE is opened."""
    layers = layer_numbers(work.params.layers, work.model.layers, work.model.identity.name)
    texts = _texts(work, None, work.params)
    yield from _run_passes(work, texts, [], layers, work.params.top)


def _texts(
    work: Work, feature_positions: Where | None, attention: Attention | None
) -> list[TrackedText]:
    """The distinct texts, shortest first, with what each of their samples needs."""
    columns = ["sample", "token_ids", "pieces", "spans"]
    owners: dict[tuple[int, ...], list[Owner]] = {}
    bos = work.model.bos_id
    for row in work.inputs.read("samples").select(columns).to_pylist():
        if not row["token_ids"]:
            raise DataError(
                f"sample '{row['sample']}' has no tokens: its source did not tokenise it with the "
                "model."
            )
        if len(row["token_ids"]) > work.model.context:
            raise DataError(
                f"sample '{row['sample']}' has {len(row['token_ids'])} tokens; "
                f"{work.model.identity.name} reads at most {work.model.context}. Shorten it, or "
                "leave it out."
            )
        read_sample = SelectorText.of(row)
        positions = (
            () if feature_positions is None else selected(feature_positions, read_sample, bos)
        )
        queries = () if attention is None else selected(attention.queries, read_sample, bos)
        owner = Owner(row["sample"], tuple(positions), tuple(queries))
        owners.setdefault(tuple(row["token_ids"]), []).append(owner)
    texts = [TrackedText(ids, tuple(text_owners)) for ids, text_owners in owners.items()]
    return sorted(texts, key=lambda text: (len(text.ids), text.ids))


# --- passes ---------------------------------------------------------------------------------------


def _run_passes(
    work: Work,
    texts: Sequence[TrackedText],
    saes: Sequence[Sae],
    layers: Sequence[int],
    top: int | None,
) -> Rows:
    model: Model = work.model
    _check_layers(model, saes)
    budget = Budget(_pass_tokens(work, texts, len(layers)))
    hookpoints = list(dict.fromkeys(sae.hookpoint for sae in saes))
    total = sum(len(text.owners) for text in texts)
    samples_done = start = passes = 0
    work.report.phase("compute")
    while start < len(texts):
        batch, result = _next_pass(model, texts, start, layers, hookpoints, budget)
        start, passes = start + len(batch), passes + 1
        yield from _attention(model, batch, result, top)
        yield from _features(model, batch, dict(result.captured), saes)
        samples_done += sum(len(text.owners) for text in batch)
        work.report.progress(samples_done, total)
    facts = {"texts": len(texts), "samples": total, "passes": passes, "halved": budget.halved}
    work.report.event("tracked", **facts, saes=len(saes), attention_layers=len(layers))


def _check_layers(model: Model, saes: Sequence[Sae]) -> None:
    for sae in saes:
        if hookpoint(sae.hookpoint).layer >= model.layers:
            raise BadInput(
                f"SAE {sae.name} is at {sae.hookpoint}; {model.identity.name} has the layers 0 to "
                f"{model.layers - 1}. Choose `layers` under saes.with."
            )


def _pass_tokens(work: Work, texts: Sequence[TrackedText], layers: int) -> int:
    """Padded tokens of a pass: the spec's number, or as many as keep its attention small."""
    if work.params.tokens != "auto":
        return int(work.params.tokens)
    longest = max((len(text.ids) for text in texts), default=1)
    heads = int(work.model.identity.facts.get("heads") or 32)
    return max(longest, min(TOKENS, ATTENTION_NUMBERS // max(1, longest * heads * layers)))


def _next_pass(
    model: Model,
    texts: Sequence[TrackedText],
    start: int,
    layers: Sequence[int],
    hookpoints: Sequence[str],
    budget: Budget,
) -> tuple[Sequence[TrackedText], AttentionRows]:
    """The next texts, as many as fit in memory, and the result of their pass."""
    while True:
        end = start + 1
        while end < len(texts) and len(texts[end].ids) * (end + 1 - start) <= budget.tokens:
            end += 1
        batch = texts[start:end]
        try:
            return batch, _run_pass(model, batch, layers, hookpoints)
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = type(error).__name__
        if len(batch) == 1:
            raise DataError(
                f"sample '{batch[0].owners[0].sample}': its {len(batch[0].ids)} tokens do not fit "
                f"in memory with the attention of {len(layers)} layers ({reason}). Choose fewer "
                "`queries` or layers, or a larger device."
            )
        budget.halve(len(batch) * len(batch[-1].ids))
        free_memory()


def _run_pass(
    model: Model, batch: Sequence[TrackedText], layers: Sequence[int], hookpoints: Sequence[str]
) -> AttentionRows:
    from toolkit.models import AttentionRows

    ids = [text.ids for text in batch]
    if not layers:
        return AttentionRows({}, model.run(ids, hookpoints))
    return model.attention(ids, [text.queries for text in batch], layers, capture=hookpoints)


# --- rows -----------------------------------------------------------------------------------------


def _attention(
    model: Model, batch: Sequence[TrackedText], result: AttentionRows, top: int | None
) -> Rows:
    name = model.identity.name
    weights: dict[int, Any] = dict(result.weights)
    for layer in sorted(weights):
        rows = weights.pop(layer)
        for text, text_weights in zip(batch, rows, strict=True):
            yield "attention", attention_rows(name, layer, text, text_weights, top, model.causal)


def _features(
    model: Model, batch: Sequence[TrackedText], streams: dict[str, Tensor], saes: Sequence[Sae]
) -> Rows:
    import torch

    row = torch.tensor([index for index, text in enumerate(batch) for _ in text.positions])
    position = torch.tensor([token_position for text in batch for token_position in text.positions])
    if not len(row):
        return
    for sae in saes:
        stream = streams[sae.hookpoint]
        inputs = stream[row.to(stream.device), position.to(stream.device)]
        if not bool(inputs.isfinite().all()):
            raise _not_finite(sae, batch, inputs, row, position)
        space = space_id(model.identity, sae)
        yield "activations", activation_rows(space, batch, _sparse(sae, inputs, saes))


def _sparse(sae: Sae, inputs: Tensor, saes: Sequence[Sae]) -> Sparse:
    """Active features; when memory runs out, all SAEs are released and fewer rows go in at once."""
    try:
        return sae.sparse(inputs)
    except Exception as error:
        if not out_of_memory(error):
            raise
    for other_sae in saes:
        other_sae.release_memory()
    free_memory()
    return sae.sparse(inputs, ROWS_AT_ONCE)


def _not_finite(
    sae: Sae, batch: Sequence[TrackedText], inputs: Tensor, row: Tensor, position: Tensor
) -> DataError:
    index = int((~inputs.isfinite()).any(dim=-1).nonzero()[0])
    sample = batch[int(row[index])].owners[0].sample
    return DataError(
        f"sample '{sample}': the stream at {sae.hookpoint}, position {int(position[index])}, is "
        f"not finite (NaN or infinity). The weights are damaged, or {inputs.dtype} overflows: try "
        "`dtype: float32` or `bfloat16` under model.with."
    )


def written_tables(params: Any) -> Iterator[str]:
    """The tables that `track.tokens` writes with these params."""
    yield from ("activations", "spaces")
    if params.attention is not None:
        yield "attention"
