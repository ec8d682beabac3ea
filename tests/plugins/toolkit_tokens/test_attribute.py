"""Attribution: parts that add up, exact patching to compare them with, and the planted cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.plugins.toolkit_tokens.conftest import SCENARIOS, run, samples_of
from toolkit.errors import BadInput, DataError
from toolkit_tokens.attribute.pairs import aligned

BETS = {"plus": ["1"], "minus": ["2"]}
CHANGES = [{"of": "Initial_100_first_round", "set": {"balance": 10}}]


@pytest.fixture(scope="session")
def attributed(lab: Any, lab_saes: Any) -> dict[str, Any]:
    """$100 against $10, every method, on the lab model."""
    params = {**SCENARIOS, "pick": ["Initial_100_first_round"], "changes": CHANGES}
    tables = run("source", "scenarios", params, model=lab)
    settings = {**BETS, "steps": 16, "importance": {"2/7": 2.0}, "exact_features": 12, "keep": 30}
    return tables | run("stage", "attribute.tokens", settings, tables, model=lab, saes=lab_saes)


def checks(result: Any, **where: Any) -> list[dict[str, Any]]:
    return [
        row
        for row in result["attribution_checks"].to_pylist()
        if all(row[key] == value for key, value in where.items())
    ]


def parts(result: Any, **where: Any) -> list[dict[str, Any]]:
    return [
        row
        for row in result["attributions"].to_pylist()
        if all(row[key] == value for key, value in where.items())
    ]


def test_every_method_is_there(attributed: Any) -> None:
    methods = {row["method"] for row in checks(attributed)}
    assert methods == {
        "attention_magnitude",
        "attention_magnitude_by_head",
        "attention_activation_importance",
        "rollout",
        "direct",
        "gradient_activation",
        "attribution_patching",
        "integrated_gradients",
        "relp",
    }
    assert len(attributed["spaces"]) == 4


def test_every_method_is_compared_with_exact_patching(attributed: Any) -> None:
    """Whatever its parts: tokens, heads and MLPs, or features. `r` is that of these very rows."""
    for kind in {(row["method"], row["part"]) for row in checks(attributed)}:
        rows = checks(attributed, method=kind[0], part=kind[1])
        assert all(row["compared"] >= 3 for row in rows), kind
        assert any(row["r"] is not None and row["rank_r"] is not None for row in rows), kind
        assert {row["against"] for row in rows} == {"Initial_100_first_round:balance=10"}
    (check,) = checks(attributed, method="gradient_activation", part="token", layer=2)
    rows = parts(attributed, method="gradient_activation", part="token", layer=2)
    sizes = np.abs([[row["value"], row["exact"]] for row in rows])
    assert check["r"] == pytest.approx(np.corrcoef(sizes.T)[0, 1])
    assert check["same_sign"] is None, "the outcome's parts and the change's have no common sign"


def test_parts_of_one_prompt_stand_beside_the_same_patches(attributed: Any) -> None:
    def exact(method: str, part: str, *place: str) -> dict[tuple[Any, ...], Any]:
        rows = parts(attributed, method=method, part=part, layer=2)
        return {tuple(row[name] for name in place): row["exact"] for row in rows}

    tokens = exact("integrated_gradients", "token", "position")
    assert exact("attention_magnitude", "token", "position") == tokens
    assert exact("gradient_activation", "token", "position") == tokens
    by_head = exact("attention_magnitude_by_head", "token_by_head", "position", "head")
    assert {key: tokens[key[:1]] for key in by_head} == by_head
    heads = exact("attribution_patching", "head", "layer", "head")
    assert exact("direct", "head", "layer", "head") == heads
    blocks = exact("attribution_patching", "mlp_out", "layer")
    assert exact("direct", "mlp", "layer") == blocks
    features = exact("attribution_patching", "feature", "position", "feature")
    named = exact("attention_activation_importance", "feature", "position", "feature")
    assert all(features[key] in (value, None) for key, value in named.items() if key in features)
    assert 0.0 in named.values(), "a feature that is equal in both prompts has no effect"


def test_rollout_is_compared_with_input_tokens(attributed: Any, lab: Any) -> None:
    """Only tokens that differ have an effect: that of the token itself, from a whole pass."""
    rows = {row["sample"]: row for row in attributed["samples"].to_pylist()}
    clean, changed = rows["Initial_100_first_round"], rows["Initial_100_first_round:balance=10"]
    pair = aligned(clean, changed)
    other = [changed["token_ids"][position] for position in pair.positions]
    one, two = (lab.encode(clean["text"] + text).ids[-1] for text in ("1", "2"))

    def outcome(ids: Any) -> float:
        logits = lab.next_logits([ids])[0]
        return float(logits[one] - logits[two])

    for row in parts(attributed, method="rollout"):
        position = row["position"]
        ids = list(clean["token_ids"])
        ids[position] = other[position]
        assert row["exact"] == pytest.approx(outcome(ids) - outcome(clean["token_ids"]), abs=2e-4)
    assert any(row["exact"] for row in parts(attributed, method="rollout"))


def test_the_heads_of_a_layer_have_their_joint_change(attributed: Any, lab: Any) -> None:
    """All heads of a layer patched together, by an edit of a whole pass."""
    from toolkit.edits import Edit, OnStream, Set, tokens

    rows = {row["sample"]: row for row in attributed["samples"].to_pylist()}
    clean, changed = rows["Initial_100_first_round"], rows["Initial_100_first_round:balance=10"]
    pair = aligned(clean, changed)
    one, two = (lab.encode(clean["text"] + text).ids[-1] for text in ("1", "2"))
    for check in checks(attributed, method="attribution_patching", part="head"):
        name = f"attn_z.{check['layer']}"
        patched = lab.run([changed["token_ids"]], [name])[name][0][list(pair.positions)]
        targets = tokens([0] * len(patched), range(len(patched)))
        results = [
            lab.next_logits([clean["token_ids"]], edits)[0]
            for edits in ([], [Edit(name, OnStream(Set(patched)), targets)])
        ]
        before, after = (float(logits[one] - logits[two]) for logits in results)
        assert check["measured"] == pytest.approx(after - before, abs=2e-4)
        assert check["total"] == pytest.approx(check["measured"], abs=0.5)


def test_one_prompt_alone_has_no_exact_patching(lab: Any, lab_saes: Any) -> None:
    tables = samples_of(lab, {"a": "Choose:\nChoice: "})
    params = {**BETS, "methods": ["published", "direct"]}
    results = run("stage", "attribute.tokens", params, tables, model=lab, saes=lab_saes)
    assert {row["against"] for row in parts(results)} == {""}
    assert {row["exact"] for row in parts(results)} == {None}
    assert {row["compared"] for row in checks(results)} == {0}


def test_direct_attribution_is_the_outcome_itself(attributed: Any) -> None:
    rows = checks(attributed, method="direct")
    assert {row["part"] for row in rows} == {"head", "feature"}
    for row in rows:
        assert row["total"] == pytest.approx(row["measured"], abs=2e-4)
    kinds = {row["part"] for row in parts(attributed, method="direct")}
    assert kinds >= {"embedding", "head", "mlp", "error", "later_blocks", "constant"}


def test_tokens_and_features_with_the_error_add_up_alike(attributed: Any) -> None:
    """What the SAE does not explain is a term of its own, so both sums are the same."""
    for method in ("attribution_patching", "integrated_gradients", "relp", "gradient_activation"):
        for layer in range(4):
            by = {row["part"]: row for row in checks(attributed, method=method, layer=layer)}
            assert by["token"]["total"] == pytest.approx(by["feature"]["total"], abs=1e-4)
            assert by["token"]["measured"] == by["feature"]["measured"]
    errors = parts(attributed, method="attribution_patching", part="error", layer=2)
    assert any(abs(row["value"]) > 1e-4 for row in errors)


def test_integrated_gradients_add_up_to_the_measured_change(attributed: Any) -> None:
    for row in checks(attributed, method="integrated_gradients", part="token"):
        assert row["total"] == pytest.approx(
            row["measured"], abs=0.05 + 0.05 * abs(row["measured"])
        )


@pytest.mark.slow
def test_exact_patching_of_the_last_layer_is_what_a_whole_pass_gives(
    attributed: Any, lab: Any
) -> None:
    """Each token alone, by an edit of a whole pass."""
    from toolkit.edits import Edit, OnStream, Set, tokens

    rows = {row["sample"]: row for row in attributed["samples"].to_pylist()}
    clean, changed = rows["Initial_100_first_round"], rows["Initial_100_first_round:balance=10"]
    pair = aligned(clean, changed)
    name = "resid_post.1"
    other = lab.run([changed["token_ids"]], [name])[name][0][list(pair.positions)]
    first_digit, second_digit = (lab.encode(clean["text"] + text).ids[-1] for text in ("1", "2"))

    def outcome(edits: Any) -> float:
        logits = lab.next_logits([clean["token_ids"]], edits)[0]
        return float(logits[first_digit] - logits[second_digit])

    expected = []
    for position in range(len(clean["token_ids"])):
        edit = Edit(name, OnStream(Set(other[position])), tokens([0], [position]))
        expected.append(outcome([edit]) - outcome([]))
    mine = parts(attributed, method="attribution_patching", part="token", layer=1)
    mine.sort(key=lambda row: row["position"])
    np.testing.assert_allclose([row["exact"] for row in mine], expected, atol=2e-4)


def test_features_are_patched_one_by_one(attributed: Any) -> None:
    rows = [
        row
        for row in parts(attributed, method="attribution_patching", part="feature", layer=2)
        if row["exact"] is not None
    ]
    assert 3 <= len(rows) <= 12
    assert all(row["space"] and row["position"] is not None for row in rows)
    last = parts(attributed, method="attribution_patching", part="feature", layer=3)
    assert any(row["exact"] is not None for row in last)


def test_heads_and_blocks_are_patched_one_by_one(attributed: Any) -> None:
    heads = parts(attributed, method="attribution_patching", part="head")
    assert {(row["layer"], row["head"]) for row in heads} == {
        (layer, head) for layer in range(4) for head in range(4)
    }
    blocks = [
        row
        for site in ("attn_out", "mlp_out")
        for row in parts(attributed, method="attribution_patching", part=site)
    ]
    assert len(blocks) == 8
    assert all(row["exact"] is not None for row in heads + blocks)
    for row in checks(attributed, method="attribution_patching", part="mlp_out"):
        assert row["measured"] is None
        assert row["compared"] == 4


def test_heads_of_all_layers_are_taken_where_one_has_an_sae(
    attributed: Any, lab: Any, lab_saes: Any
) -> None:
    """With the values and effects that they have where every layer has an SAE."""
    samples = {name: attributed[name] for name in ("samples", "sample_meta")}
    one_sae = [sae for sae in lab_saes if sae.layer == 2]
    layers, rows = {}, {}
    for heads in ("saes", "all"):
        params = {
            **BETS, "methods": ["attribution_patching", "direct"], "heads": heads,
            "exact_features": 0,
        }  # fmt: skip
        result = run("stage", "attribute.tokens", params, samples, model=lab, saes=one_sae)
        rows[heads] = parts(result, method="attribution_patching", part="head")
        layers[heads] = {row["layer"] for row in rows[heads]}
        direct = parts(result, method="direct", part="head")
        assert {row["layer"] for row in direct if row["exact"] is not None} == layers[heads]
    assert layers == {"saes": {2}, "all": {0, 1, 2, 3}}
    wanted = parts(attributed, method="attribution_patching", part="head")
    for row, other in zip(rows["all"], wanted, strict=True):
        assert (row["layer"], row["head"]) == (other["layer"], other["head"])
        assert row["value"] == pytest.approx(other["value"], abs=1e-6)
        assert row["exact"] == pytest.approx(other["exact"], abs=1e-6)


def test_heads_at_their_default_change_no_content_key() -> None:
    from toolkit_tokens.attribute.params import Attribute

    assert "heads" not in Attribute(**BETS).model_dump(mode="json")
    assert Attribute(**BETS, heads="all").model_dump(mode="json")["heads"] == "all"


def test_the_published_formula_as_it_was_written(attributed: Any, lab: Any, lab_saes: Any) -> None:
    """importance = A[last] * |f|, normalised; from independent passes."""
    sample = attributed["samples"].to_pylist()[0]
    ids = sample["token_ids"]
    captured = lab.run([ids], ["attn_probs.2", "resid_post.2"])
    sae = next(sae for sae in lab_saes if sae.layer == 2)
    features = sae.encode(captured["resid_post.2"][0])
    features[0] = 0  # BOS
    expected = captured["attn_probs.2"][0, :, -1].mean(dim=0) * features.norm(dim=1)
    expected = expected / expected.sum()
    mine = parts(attributed, method="attention_magnitude", layer=2, sample=sample["sample"])
    np.testing.assert_allclose([row["value"] for row in mine], expected, atol=1e-5)
    assert sum(row["value"] for row in mine) == pytest.approx(1)
    for row in checks(attributed, method="attention_magnitude"):
        assert row["measured"] is None, "it is no share of any change"
    named = parts(attributed, method="attention_activation_importance")
    weights = captured["attn_probs.2"][0, :, -1].mean(dim=0)
    values = [row["value"] for row in named if row["layer"] == 2 and row["feature"] == 7]
    np.testing.assert_allclose(values, 2.0 * weights * features[:, 7], atol=1e-5)


def test_rollout_is_a_distribution(attributed: Any) -> None:
    rows = parts(attributed, method="rollout")
    assert sum(row["value"] for row in rows) == pytest.approx(1, abs=1e-3)
    assert all(row["value"] >= 0 for row in rows)


# --- the planted cause ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted_found(planted: Any, small: Any, small_saes: Any) -> Any:
    words = "the a you losing have balance goal round choose"
    other = words.replace("losing", "calm")
    position = words.index("losing")
    texts = {
        "clean": (words, [("cause", position, position + 6)]),
        "twin": (other, [("cause", position, position + 4)]),
    }
    tables = samples_of(small, texts, changed_from={"twin": "clean"})
    params = {"plus": [" stop"], "minus": [" bet"], "steps": 8}
    return run("stage", "attribute.tokens", params, tables, model=small, saes=small_saes)


def test_the_planted_cause_carries_the_whole_change(planted: Any, planted_found: Any) -> None:
    """From block 2 on the decision is linear in w, so every sound method gives the effect itself,
    and gives it to w at the last token.
    """
    truth = planted.truth.sae("wide", 2)
    w = truth.named("w").index
    for method in ("attribution_patching", "integrated_gradients", "relp"):
        (check,) = [row for row in checks(planted_found, method=method, layer=2, part="feature")]
        assert check["measured"] == pytest.approx(-planted.truth.effect, rel=0.02)
        assert check["total"] == pytest.approx(check["measured"], rel=0.02)
        rows = parts(planted_found, method=method, layer=2, part="feature", feature=w)
        (at_last,) = [row for row in rows if abs(row["value"]) > 0.1]
        assert at_last["position"] == 9
        assert at_last["value"] == pytest.approx(-planted.truth.effect, rel=0.05)
        assert at_last["exact"] == pytest.approx(at_last["value"], rel=0.05)


def test_what_only_goes_along_with_the_cause_gets_nothing(planted: Any, planted_found: Any) -> None:
    truth = planted.truth.sae("wide", 1)
    shadow, v = truth.named("shadow").index, truth.named("v").index
    rows = parts(planted_found, method="integrated_gradients", layer=1, part="feature")
    by_feature: dict[int, float] = {}
    for row in rows:
        by_feature[row["feature"]] = by_feature.get(row["feature"], 0.0) + row["value"]
    assert by_feature[v] == pytest.approx(-planted.truth.effect, rel=0.1)
    assert abs(by_feature.get(shadow, 0.0)) < 0.01


def test_the_fused_error_is_never_dropped(planted: Any, small: Any) -> None:
    """The lossy SAE knows nothing of w's neighbours; what it leaves out is in the error term."""
    from tests.plugins.toolkit_tokens.conftest import saes_of

    words, twin = "the a losing have choose", "the a 10 have choose"
    spans = ([("word", 6, 12)], [("word", 6, 8)])
    texts = {"clean": (words, spans[0]), "twin": (twin, spans[1])}
    tables = samples_of(small, texts, changed_from={"twin": "clean"})
    params = {"plus": [" stop"], "minus": [" bet"], "methods": ["attribution_patching"]}
    saes = saes_of(planted.lossy)
    results = run("stage", "attribute.tokens", params, tables, model=small, saes=saes)
    (token,) = checks(results, part="token")
    (feature,) = checks(results, part="feature")
    assert token["total"] == pytest.approx(feature["total"], abs=1e-4)
    assert len(parts(results, part="error")) == 6


# --- alignment ------------------------------------------------------------------------------------


def row_of(name: str, pieces: list[str], *spans: tuple[str, int, int]) -> dict[str, Any]:
    ids = [sum(map(ord, piece)) for piece in pieces]
    marked = [dict(zip(("name", "start", "end"), span, strict=True)) for span in spans]
    return {"sample": name, "pieces": pieces, "token_ids": ids, "spans": marked}


def test_spans_of_other_lengths_are_matched_from_the_end() -> None:
    clean = row_of("a", ["Bal", "$", "1", "0", "0", " go"], ("balance", 1, 5))
    changed = row_of("b", ["Bal", "$", "9", " go"], ("balance", 1, 3))
    assert aligned(clean, changed).positions == (0, 1, 1, 1, 2, 3)
    assert aligned(changed, clean).positions == (0, 3, 4, 5)
    assert aligned(clean, changed).spans == ("balance",)


def test_texts_that_part_outside_of_spans_are_shown() -> None:
    clean = row_of("a", ["Bal", "$", "100", " round", " 1"], ("balance", 1, 3))
    changed = row_of("b", ["Bal", "$", "10", " round", " 2"], ("balance", 1, 3))
    with pytest.raises(
        DataError, match=r"cannot be aligned(.|\n)*a: .*>>> 1<<<(.|\n)*b: .*>>> 2<<<"
    ):
        aligned(clean, changed)


def test_a_clean_prompt_that_is_not_there(lab: Any, lab_saes: Any) -> None:
    tables = samples_of(lab, {"b": "Bet $10"}, changed_from={"b": "a"})
    with pytest.raises(DataError, match="names the sample 'a', which is not among"):
        run("stage", "attribute.tokens", BETS, tables, model=lab, saes=lab_saes)


def test_methods_of_pairs_without_a_pair(lab: Any, lab_saes: Any) -> None:
    tables = samples_of(lab, {"a": "Bet $10"})
    params = {**BETS, "methods": ["relp"]}
    with pytest.raises(DataError, match="every method asked for compares two prompts"):
        run("stage", "attribute.tokens", params, tables, model=lab, saes=lab_saes)


def test_sides_that_begin_with_one_token(lab: Any, lab_saes: Any) -> None:
    tables = samples_of(lab, {"a": "Choose:\nChoice: "})
    params = {"plus": ["1"], "minus": ["1"]}
    with pytest.raises(DataError, match="begin with the same token"):
        run("stage", "attribute.tokens", params, tables, model=lab, saes=lab_saes)


def test_a_continuation_that_has_no_token_of_its_own(small: Any, small_saes: Any) -> None:
    tables = samples_of(small, {"a": "the a"})
    params = {"plus": [" stop"], "minus": ["you"]}
    with pytest.raises(DataError, match="does not begin with a token of its own"):
        run("stage", "attribute.tokens", params, tables, model=small, saes=small_saes)


def test_saes_of_other_places_are_refused(lab: Any, lab_saes: Any) -> None:
    import copy

    sae = copy.copy(lab_saes[0])
    sae.hookpoint = "mlp_in.1"
    tables = samples_of(lab, {"a": "Bet $10"})
    with pytest.raises(BadInput, match="takes SAEs of the stream after a block"):
        run("stage", "attribute.tokens", BETS, tables, model=lab, saes=[sae])


def test_no_two_parts_are_one_row(attributed: Any) -> None:
    from toolkit.tables import table

    for name in ("attributions", "attribution_checks"):
        rows = attributed[name].select(list(table(name).key)).to_pylist()
        keys = [tuple(row.values()) for row in rows]
        assert len(set(keys)) == len(keys)


def test_nothing_asks_for_gradients_afterwards(lab: Any) -> None:
    assert not any(parameter.requires_grad for parameter in lab._module.parameters())
    assert torch.is_grad_enabled()
