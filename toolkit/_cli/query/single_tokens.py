"""`toolkit query feature`, `attention` and `attribution`: what a run stored about single tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import MAX_NUMBER
from toolkit._cli.query.answers import Answer, QueryOptions, answered, answered_in_full, open_run
from toolkit._query.run import Run, listing
from toolkit._query.text import Row

if TYPE_CHECKING:
    from toolkit.samples.selectors import Selector

WORDS = {"decision": "last"}
"""Aliases of positions."""
PUBLISHED = "attention_magnitude"
"""The attribution of the published study: attention times the norm of features."""
OF_TOKENS = ("token", "token_by_head")
"""Parts that are tokens."""


@click.command("feature")
@click.argument("address")
@click.option(
    "--across",
    type=click.Choice(["layers"]),
    help="Show the feature of the same index at every layer.",
)
@click.option(
    "--at",
    metavar="TOKENS",
    default="last",
    help="The tokens: last, all, or a span name. Default: last.",
)
@click.option("--sample", metavar="SAMPLE", help="Only this sample.")
@answered
def feature(
    options: QueryOptions, address: str, across: str | None, at: str, sample: str | None
) -> Answer:
    """Show the activation of the feature at ADDRESS in each sample, here or across layers.

    Features of different layers share only their number: `--across layers` shows each with its own
    address.
    """
    run = open_run(options)
    heads = ("sample", "address", "layer", "position", "token", "value")
    if missing := next((name for name in ("activations", "spaces") if not run.stages(name)), None):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    chosen = [space] if across is None else [str(row["space"]) for row in run.spaces]
    rows = _values(run, chosen, index, at, sample)
    why = f"No sample of run {run.id} has kept activations at '{at}'."
    return Answer(heads, rows[: options.k], len(rows), why)


def _values(run: Run, spaces: Sequence[str], index: int, at: str, sample: str | None) -> list[Row]:
    from toolkit.features.addresses import layer_of

    layers = {str(row["space"]): layer_of(row) for row in run.spaces}
    positions = _positions(run, at, sample)
    where: dict[str, Sequence[Any]] = {"space": spaces, "sample": list(positions)}
    rows = []
    for row in run.read_stages("activations", None, where).to_pylist():
        if row["position"] not in positions[row["sample"]]:
            continue
        values = dict(zip(row["features"], row["values"], strict=True))
        rows.append(
            {
                "sample": row["sample"],
                "address": run.label(row["space"], index),
                "layer": layers[row["space"]],
                "position": row["position"],
                "token": positions[row["sample"]][row["position"]],
                "value": float(values.get(index, 0.0)),
            }
        )
    return sorted(rows, key=lambda row: (row["sample"], row["layer"] or 0, row["position"]))


@click.command("attention")
@click.option(
    "--from",
    "source",
    metavar="TOKENS",
    default="decision",
    help="The query: decision, or a span name.",
)
@click.option(
    "--to", "target", metavar="TOKENS", required=True, help="The keys: last, all, or a span name."
)
@click.option(
    "--by",
    default="layer,head",
    help="What to group by: layer, head or sample, with commas between them.",
)
@click.option("--sample", metavar="SAMPLE", help="Only this sample.")
@answered
def attention(
    options: QueryOptions, source: str, target: str, by: str, sample: str | None
) -> Answer:
    """Show the share of attention from one position or span of the texts to another."""
    from toolkit.errors import BadInput

    run = open_run(options)
    keys = tuple(part.strip() for part in by.split(",") if part.strip())
    if not keys or not set(keys) <= {"layer", "head", "sample"}:
        raise BadInput(f"--by '{by}': write layer, head or sample, with commas between them.")
    heads = (*keys, "share", "rows")
    if not run.stages("attention"):
        return Answer(heads, [], 0, run.why("attention"))
    queries, tokens = _positions(run, source, sample), _positions(run, target, sample)
    names = [name for name in queries if tokens.get(name)]
    sums: dict[tuple[Any, ...], list[float]] = {}
    for row in run.read_stages("attention", None, {"sample": names}).to_pylist():
        if row["query"] in queries[row["sample"]]:
            key = tuple(row[name] for name in keys)
            sums.setdefault(key, []).append(_mass(row, tokens[row["sample"]]))
    rows = [
        {
            **dict(zip(keys, key, strict=True)),
            "share": sum(of_key) / len(of_key),
            "rows": len(of_key),
        }
        for key, of_key in sums.items()
    ]
    rows.sort(key=lambda row: -float(row["share"]))
    why = f"Run {run.id} has stored no attention from '{source}' to '{target}'."
    return Answer(heads, rows[: options.k], len(rows), why)


def _mass(row: Mapping[str, Any], tokens: Iterable[int]) -> float:
    keys = range(len(row["weights"])) if row["keys"] is None else row["keys"]
    weight_of = dict(zip(keys, row["weights"], strict=True))
    return sum(float(weight_of.get(token, 0.0)) for token in tokens)


@click.command("attribution")
@click.argument("name", metavar="[RUN]", required=False)
@click.option("--sample", metavar="SAMPLE", required=True, help="The sample.")
@click.option("--layer", type=click.IntRange(0, MAX_NUMBER), help="Only this layer.")
@click.option("--method", metavar="METHOD", help="Only this method.")
@click.option(
    "--part",
    default="token",
    help="The kind of part: token, feature, head, error ... Default: token.",
)
@click.option(
    "--top",
    type=click.IntRange(1, MAX_NUMBER),
    default=10,
    help="The number of parts to show for each method.",
)
@answered_in_full
def attribution(
    options: QueryOptions,
    name: str | None,
    sample: str,
    layer: int | None,
    method: str | None,
    part: str,
    top: int,
) -> Answer:
    """Show the parts that move the outcome of a sample most; of each method, the largest first.

    `importance` is what a method gives a part. For tokens, `attention` is what the last token pays
    to it at that layer (the mean of its heads) and `norm` the norm of its features there.
    """
    run = open_run(options, name)
    heads = (
        "method", "rank", "layer", "position", "token", "importance", "attention", "norm", "head",
        "feature", "exact", "against",
    )  # fmt: skip
    if not run.stages("attributions"):
        return Answer(heads, [], 0, run.why("attributions"))
    pieces = run.sample(sample)["pieces"]
    where: dict[str, Sequence[Any]] = {"sample": [sample], "part": [part]}
    if layer is not None:
        where["layer"] = [layer]
    if method is not None:
        where["method"] = [method]
    factors = _factors(run, sample)
    by_method: dict[tuple[str, str], list[Row]] = {}
    attributed = run.read_stages("attributions", None, where).to_pylist()
    for row in sorted(attributed, key=lambda row: -abs(row["value"])):
        of_method = by_method.setdefault((row["method"], row["against"]), [])
        if len(of_method) < top:
            position = row["position"]
            token = None if position is None else pieces[position]
            of_part = factors.get((row["layer"], position), {}) if part in OF_TOKENS else {}
            more = {"rank": len(of_method) + 1, "token": token, "importance": row["value"]}
            of_method.append({**row, **more, **of_part})
    ordered = sorted(by_method, key=lambda key: key[0] != PUBLISHED)
    rows = [row for key in ordered for row in by_method[key]]
    why = (
        f"Run {run.id} has no attribution to parts of kind '{part}' for sample '{sample}' with "
        "these options."
    )
    shared = ("method", "layer", "against")
    return Answer(heads, rows[: options.k], len(rows), why, shared)


def _factors(run: Run, sample: str) -> dict[tuple[int, int], Row]:
    """By layer and position, the two factors of the published attribution."""
    where = {"sample": [sample], "method": [PUBLISHED]}
    columns = ("layer", "position", "attention", "norm")
    return {
        (row["layer"], row["position"]): {"attention": row["attention"], "norm": row["norm"]}
        for row in run.read_stages("attributions", None, where, columns).to_pylist()
    }


# --- positions ------------------------------------------------------------------------------------


def _positions(run: Run, at: str, sample: str | None) -> dict[str, dict[int, str]]:
    """By sample, the positions that `last`, `all`, `decision` or a span name selects, with
    their tokens.
    """
    from toolkit.errors import BadInput, nearest
    from toolkit.samples.selectors import SelectorText, selected

    if sample is not None:
        texts = [run.sample(sample)]
    else:
        names = [
            name
            for batch in run.batches("samples", ("sample",))
            for name in batch["sample"].to_pylist()
        ]
        texts = run.texts(names)
    known = {span["name"] for text in texts for span in text["spans"]}
    word = WORDS.get(at, at) if at not in known or at == "decision" else at
    if word not in ("last", "all") and word not in known:
        raise BadInput(
            f"The samples have no position or span '{at}'.{nearest(at, known)} Positions: "
            f"last, all, decision; spans: {listing(sorted(known))}."
        )
    tokens_of = {}
    for text in texts:
        chosen: Sequence[int] = ()
        if word in ("last", "all"):
            chosen = selected(word, SelectorText.of(text), None)
        elif any(span["name"] == word for span in text["spans"]):
            chosen = selected(_span(word), SelectorText.of(text), None)
        pieces = text["pieces"]
        tokens_of[text["sample"]] = {position: pieces[position] for position in chosen}
    return tokens_of


def _span(name: str) -> Selector:
    from toolkit.samples.selectors import Selector

    return Selector.model_validate({"span": name})
