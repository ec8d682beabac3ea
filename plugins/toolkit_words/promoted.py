"""`words.tokens`: the tokens that each feature's decoder row promotes and suppresses.

Two readings. `unembedding`: the row, scaled to the root mean square 1, goes through the linear part
of the final norm (its gain, and its centring where it is a LayerNorm) and then through the
unembedding. A token's value is its logit minus the mean over the vocabulary, which softmax cannot
see. This is the direct path only: what later blocks make of the direction is left out.
`input_embedding`: the cosine of the row with each row of the input embedding, as the study
published it.

All features of an SAE are one matrix product, made a tile of features at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.errors import DataError
from toolkit.features.addresses import locate
from toolkit.hookpoints import hookpoint
from toolkit.parts import Params
from toolkit.saes import space_row

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from toolkit.models import Model
    from toolkit.saes import Sae
    from toolkit.work import Rows, Work

Method = Literal["unembedding", "input_embedding"]
STREAM_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Sites whose decoder rows are written into the stream, so that they can be unembedded."""
TILE_NUMBERS = 1 << 25
"""Products of features and tokens in memory at a time: 128 MB."""


class PromotedTokens(Params):
    """How many tokens, of which features, by which method."""

    top: int = Field(
        10, ge=1, le=1000, description="Number of promoted and of suppressed tokens to keep."
    )
    methods: tuple[Method, ...] = Field(
        ("unembedding", "input_embedding"),
        min_length=1,
        description="unembedding: through the final norm and the unembedding; input_embedding: "
        "cosine with the input embedding, as published.",
    )
    features: tuple[str, ...] = Field(
        (), description="Addresses of the features to describe; by default all."
    )
    fired_only: bool = Field(
        True,
        description="Leave out features that fired in no sample, if a needed stage has "
        "activations.",
    )
    step: int = Field(262_144, ge=1, description="Features per step.")


def feature_count(params: PromotedTokens, saes: Mapping[str, Any]) -> int:
    """The most features that the stage reads, from the facts of the SAEs."""
    return len(params.features) or int(saes.get("features", 1 << 20))


def promoted_tokens(work: Work) -> Rows:
    """Rows of `promoted_tokens` for the features of this step, and of `spaces`."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    spaces = [space_row(work.model.identity, sae) for sae in work.saes]
    for sae in work.saes:
        check_site(sae)
    chosen = [
        (sae, space, features) for sae, space, features in _of_step(work, spaces) if len(features)
    ]
    work.report.phase("compute")
    pieces = _TokenTexts(work.model)
    for method in work.params.methods:
        matrix = token_matrix(work.model, method)
        for done, (sae, space, features) in enumerate(chosen):
            rows = _rows(work, sae, features, matrix, method, pieces)
            columns = {"space": [space["space"]] * len(features), "feature": features, **rows}
            yield "promoted_tokens", pa.table(columns, schema=arrow_schema("promoted_tokens"))
            work.report.progress(done + 1, len(chosen))
        del matrix
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


# --- which features -------------------------------------------------------------------------------


def check_site(sae: Sae) -> None:
    """Refuse an SAE whose decoder does not write into the stream."""
    site = hookpoint(sae.output_hookpoint).site
    if site not in STREAM_SITES:
        raise DataError(
            f"words.tokens: SAE {sae.name} writes at {sae.output_hookpoint}, and the unembedding "
            f"reads the stream alone. Sites that can be read: {', '.join(STREAM_SITES)}. Leave "
            "this SAE out of `saes`."
        )


def _of_step(
    work: Work, spaces: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Sae, Mapping[str, Any], list[int]]]:
    """The features of this step: a range of all features in order of SAEs, or of the named ones."""
    first, last = work.features or (0, None)
    named = _named(work, spaces)[first:last]
    fired = _fired(work) if work.params.fired_only and not work.params.features else None
    if fired is not None and not any(fired.values()):
        raise DataError(
            "words.tokens: no feature is active in the activations of the needed stages, so there "
            "is nothing to read. Give them samples, or read all features: fired_only: false."
        )
    start = 0
    for sae, space in zip(work.saes, spaces, strict=True):
        if work.params.features:
            features = [feature for id, feature in named if id == space["space"]]
        else:
            begin, end = max(first, start), min(start + sae.width, last or start + sae.width)
            features = list(range(begin - start, max(begin, end) - start))
        if fired is not None:
            active = fired.get(str(space["space"]), set())
            features = [feature for feature in features if feature in active]
        start += sae.width
        yield sae, space, features


def _named(work: Work, spaces: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    located = [locate(address, spaces) for address in work.params.features]
    return list(dict.fromkeys((str(space["space"]), index) for space, index in located))


def _fired(work: Work) -> dict[str, set[int]] | None:
    """By space, the features that fired somewhere; None without activations."""
    import pyarrow.compute as pc

    from toolkit.activations.rows import BySpace

    if "activations" not in work.inputs.tables():
        return None
    by_space = BySpace(work.inputs.read("activations"))
    return {
        space: set(pc.unique(pc.list_flatten(by_space.of(space)["features"])).to_pylist())
        for space in by_space.spaces
    }


# --- the product ----------------------------------------------------------------------------------


def token_matrix(model: Model, method: str) -> Tensor:
    """A row for each token of the vocabulary: of the unembedding, or of the input embedding with
    length 1.
    """
    size = model.identity.facts.get("vocabulary")
    if not size:
        raise DataError(
            f"words.tokens: the loader of {model.identity.name} does not say how large its "
            "vocabulary is: fact `vocabulary` of `identify`. Use a loader that does, such as "
            "`huggingface`."
        )
    if method == "unembedding":
        return model.unembedding_rows(range(int(size)))
    rows = model.embedding_rows(range(int(size)))
    scaled: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return scaled


def directions(model: Model, sae: Sae, features: Sequence[int], method: str) -> Tensor:
    """The left factor of the product with `token_matrix`: the decoder rows after the final norm, or
    with length 1.
    """
    rows = sae.decoder_rows(features).float()
    lengths = rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    if method == "unembedding":
        return model.fold_final_norm(rows / lengths * rows.shape[1] ** 0.5)
    scaled: Tensor = rows / lengths
    return scaled


def token_values(
    model: Model, sae: Sae, features: Sequence[int], matrix: Tensor, method: str
) -> Tensor:
    """(features, vocabulary): logits less their mean, or cosines."""
    values: Tensor = directions(model, sae, features, method).to(matrix.device) @ matrix.T
    return values - values.mean(1, keepdim=True) if method == "unembedding" else values


def _rows(
    work: Work,
    sae: Sae,
    features: Sequence[int],
    matrix: Tensor,
    method: str,
    pieces: _TokenTexts,
) -> dict[str, pa.Array]:
    """The columns of the table after space and feature."""
    top = min(work.params.top, len(matrix))
    tile = max(1, TILE_NUMBERS // len(matrix))
    columns: dict[str, list[Any]] = {"promoted": [], "suppressed": []}
    values: dict[str, list[Any]] = {"promoted": [], "suppressed": []}
    for start in range(0, len(features), tile):
        part = token_values(work.model, sae, features[start : start + tile], matrix, method)
        for name, largest in (("promoted", True), ("suppressed", False)):
            best = part.topk(top, dim=1, largest=largest)
            columns[name] += best.indices.cpu().tolist()
            values[name] += best.values.cpu().tolist()
    return {
        "method": [method] * len(features),
        "promoted": columns["promoted"],
        "promoted_pieces": [pieces.of(tokens) for tokens in columns["promoted"]],
        "promoted_values": values["promoted"],
        "suppressed": columns["suppressed"],
        "suppressed_pieces": [pieces.of(tokens) for tokens in columns["suppressed"]],
        "suppressed_values": values["suppressed"],
    }


class _TokenTexts:
    """The texts of tokens, each decoded once. A special token has no text and is shown by its
    id.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[int, str] = {}

    def of(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token."""
        for token in tokens:
            if token not in self._known:
                self._known[token] = self._model.decode([token]) or f"<{token}>"
        return [self._known[token] for token in tokens]
