"""`patch.published`: applies the rules of a published study to a screen of its two prompts.

It needs a `patch.delta` of these two prompts with `keep: all`. Replies are drawn from its exact
probabilities for the six conditions {safe, risky prompt} x {no patch, safe value, risky value},
with the stream rebuilt by the SAE as published; then the rules are applied. The same rules on exact
probabilities, with the error kept, show the effect of sampling and reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, choices
from toolkit_patch.one_screen import of_one_screen

from .rules import CONTEXTS, VALUES, both_ways, chi_square_rule, sign_rule

if TYPE_CHECKING:
    from toolkit.work import Rows, Work

    from .params import Published

    Shares = Mapping[tuple[str, str], Any]

STATS = {
    "sign_rule": "signs of drawn replies",
    "chi_square_rule": "chi-square of drawn replies",
    "exact_sign_rule": "signs of exact probabilities, error kept",
    "naive_safe_value": "safe value, stream rebuilt",
    "naive_risky_value": "risky value, stream rebuilt",
    "specific": "safe value against risky value, error kept",
}


def judge_as_published(work: Work) -> Rows:
    """Rows of `features`: the verdict of each rule, and the effect of either value."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    params: Published = work.params
    columns_read = ["screen", "space", "feature", "contrast"]
    screens = of_one_screen(work.inputs.read("screens").select(columns_read).to_pylist())
    chances = _chances(work, [(row["space"], row["feature"]) for row in screens])
    rebuilt_shares = {name: chances(name, "reconstruct") for name in (params.stop, params.proxy)}
    shares_with_error = {name: chances(name, "set") for name in (params.stop, params.proxy)}
    drawn_shares = {name: _draw(work, name, shares) for name, shares in rebuilt_shares.items()}
    columns = _columns(params, drawn_shares, rebuilt_shares, shares_with_error)
    rows = [
        {
            "space": row["space"],
            "feature": row["feature"],
            "stat": f"published_{stat}",
            "group": row["contrast"],
            "number": float(values[index]),
            "text": texts[index] if texts is not None else None,
            "comparison": None,
        }
        for index, row in enumerate(screens)
        for stat, (values, texts) in columns.items()
    ]
    yield "features", pa.Table.from_pylist(rows, schema=arrow_schema("features"))


def _columns(
    params: Published,
    drawn_shares: Mapping[str, Shares],
    rebuilt_shares: Mapping[str, Shares],
    shares_with_error: Mapping[str, Shares],
) -> dict[str, tuple[Any, Sequence[str] | None]]:
    """Number and text of each statistic, one entry per feature."""
    stop, proxy = params.stop, params.proxy
    sign = sign_rule(drawn_shares[stop], drawn_shares[proxy])
    exact = sign_rule(shares_with_error[stop], shares_with_error[proxy])
    chi_square = chi_square_rule(drawn_shares[stop], params.trials, params.alpha, params.min_delta)
    naive, with_error = both_ways(rebuilt_shares[stop]), both_ways(shares_with_error[stop])
    return {
        "sign_rule": ((sign != "").astype(float), sign.tolist()),
        "chi_square_rule": (chi_square.astype(float), None),
        "exact_sign_rule": ((exact != "").astype(float), exact.tolist()),
        "naive_safe_value": (naive[0], None),
        "naive_risky_value": (naive[1], None),
        "specific": (with_error[0] - with_error[1], None),
    }


def _chances(work: Work, order: Sequence[tuple[str, int]]) -> Any:
    """A function from (outcome, kind of arm) to exact probabilities of the six conditions."""
    import numpy as np

    contexts = _contexts(work)
    rows = [row for row in work.inputs.read("effects").to_pylist() if row["sample"] in contexts]
    effect_rows = {
        (row["space"], row["feature"], contexts[row["sample"]], row["arm"], row["outcome"]): row
        for row in rows
    }
    # The first group of the comparison is the one that ends badly: its mean is the risky value.
    groups = _groups(work)
    values = {"risky_value": groups[0], "safe_value": groups[1]}

    def shares(outcome: str, kind: str) -> Shares:
        condition_shares: dict[tuple[str, str], Any] = {}
        for context in CONTEXTS:
            for value in VALUES:
                arm = "sham" if value == "none" else f"{kind}:{values[value]}"
                keys = [(*feature, context, arm, outcome) for feature in order]
                missing = next((key for key in keys if key not in effect_rows), None)
                if missing is not None:
                    raise DataError(
                        f"feature {missing[1]} of space {missing[0]} has no row of arm '{arm}' and "
                        f"outcome '{outcome}' in the {context} prompt. Screen these prompts with "
                        "`keep: all` and `arms: [reconstruct]`."
                    )
                condition_shares[context, value] = np.array(
                    [effect_rows[key]["probability"] for key in keys]
                )
        return condition_shares

    return shares


def _contexts(work: Work) -> dict[str, str]:
    """Sample -> `safe` or `risky`, one prompt each."""
    params: Published = work.params
    context_names = {params.safe: "safe", params.risky: "risky"}
    meta = work.inputs.read("sample_meta").to_pylist()
    prompt_values = {row["sample"]: row["string"] for row in meta if row["key"] == params.context}
    contexts = {
        sample: context_names[value]
        for sample, value in prompt_values.items()
        if value in context_names
    }
    if sorted(contexts.values()) != ["risky", "safe"]:
        raise DataError(
            f"context: one prompt with {params.context} {params.safe} and one with {params.risky} "
            f"are needed; there are {choices(sorted(map(str, prompt_values.values())))}."
        )
    return contexts


def _groups(work: Work) -> tuple[str, str]:
    """The groups of the screened contrast."""
    screens = work.inputs.read("screens")
    return screens["group_a"][0].as_py(), screens["group_b"][0].as_py()


def _draw(work: Work, outcome: str, shares: Shares) -> Shares:
    """Shares among `trials` replies drawn from the exact probabilities."""
    trials = work.params.trials
    return {
        key: work.rng("patch.replies", outcome, *key).binomial(trials, values.clip(0, 1)) / trials
        for key, values in shares.items()
    }
