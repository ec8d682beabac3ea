"""Overlays and `--set`: what they change, what they leave, and the text of every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit._spec.load import load_spec
from toolkit._spec.overlay import apply_set, merge, shared, shares_set
from toolkit._spec.yaml import load_yaml, placed, plain
from toolkit.errors import SpecError

RESOURCES = Path(__file__).parents[1] / "resources"
GOOD = RESOURCES / "good.yaml"
QUICK = settings(max_examples=150, deadline=None, database=None)


def merged(base: Any, overlay: Any) -> Any:
    return plain(merge(placed(base, "base"), placed(overlay, "overlay")))


def changed(text: str, base: Any = None) -> Any:
    return plain(apply_set(load_yaml(GOOD).root if base is None else placed(base, "base"), text))


def test_a_map_with_uses_replaces_the_part_and_other_maps_merge() -> None:
    base = {"model": {"uses": "toy", "with": {"a": 1, "b": {"c": 1}}}, "seed": 1}
    assert merged(base, {"model": {"with": {"b": {"d": 2}}}}) == {
        "model": {"uses": "toy", "with": {"a": 1, "b": {"c": 1, "d": 2}}},
        "seed": 1,
    }
    assert merged(base, {"model": {"uses": "other"}}) == {"model": {"uses": "other"}, "seed": 1}
    assert merged(base, {"model": None, "limit": {"units": 1}}) == {
        "model": None,
        "seed": 1,
        "limit": {"units": 1},
    }


def test_lists_replace() -> None:
    assert merged({"a": {"b": [1, 2]}}, {"a": {"b": [3]}}) == {"a": {"b": [3]}}
    assert merged({"sinks": [{"uses": "json"}]}, {"sinks": [{"uses": "csv"}]}) == {
        "sinks": [{"uses": "csv"}]
    }
    assert merged({"sinks": [{"uses": "json"}]}, {"sinks": []}) == {"sinks": []}


def test_stages_match_by_id_and_sinks_by_name() -> None:
    result = plain(merge(load_yaml(GOOD).root, load_yaml(RESOURCES / "overlay.yaml").root))
    assert [stage["id"] for stage in result["stages"]] == ["features", "groups"]
    assert result["stages"][1]["with"] == {"alpha": 0.1, "between": ["a", "b"]}
    assert result["sinks"] == [
        {"uses": "json", "name": "out", "with": {"path": "elsewhere/"}},
        {"name": "more", "uses": "csv"},
    ]
    assert result["model"] == {"uses": "other"}
    replaced = merged(
        {"stages": [{"id": "a", "uses": "x", "with": {"n": 1}}]},
        {"stages": [{"id": "a", "uses": "y"}]},
    )
    assert replaced == {"stages": [{"id": "a", "uses": "y"}]}


def test_an_overlay_changes_single_specs_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_TEST_DATA", "data")
    overlay = tmp_path / "many.yaml"
    overlay.write_text(
        "limit: {units: 7}\nonly:\n  good: {stages: [{id: groups, with: {alpha: 0.2}}]}\n"
        "  other: {stages: [{id: nowhere, with: {alpha: 0.3}}]}\n",
        encoding="utf-8",
    )
    (tmp_path / "other.yaml").write_text("name: other\n", encoding="utf-8")
    text = GOOD.read_text(encoding="utf-8")
    good, renamed = tmp_path / "good.yaml", tmp_path / "renamed.yaml"
    good.write_text(text, encoding="utf-8")
    renamed.write_text(text.replace("name: good", "name: third"), encoding="utf-8")
    spec = load_spec(good, [overlay]).spec
    assert spec.limit is not None
    assert spec.limit.units == 7
    alphas = [load_spec(path, [overlay]).spec.stages[1].with_["alpha"] for path in (good, renamed)]
    assert alphas == [0.2, 0.05]


def test_a_spec_that_is_changed_by_name_is_changed_where_another_refers_to_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that both runs find the same steps in the store."""
    monkeypatch.setenv("TOOLKIT_TEST_DATA", "data")
    overlay = tmp_path / "many.yaml"
    overlay.write_text(
        "seed: 9\nonly:\n  good: {stages: [{id: groups, with: {alpha: 0.2}}]}\n", encoding="utf-8"
    )
    spec = load_spec(GOOD, [overlay], referred=True).spec
    assert spec.stages[1].with_["alpha"] == 0.2
    assert spec.seed == 42


def test_a_misspelt_name_of_a_single_spec_is_refused_with_the_names_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_TEST_DATA", "data")
    overlay = tmp_path / "many.yaml"
    overlay.write_text("only:\n  god: {limit: {units: 7}}\n", encoding="utf-8")
    (tmp_path / "neighbour.yaml").write_text("name: neighbour\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("name: [\n", encoding="utf-8")
    with pytest.raises(SpecError) as error:
        load_spec(GOOD, [overlay])
    start, _, names = str(error.value).partition(" Specs here: ")
    assert start == (f"{overlay}:2: only.god: There is no spec of this name. Did you mean 'good'?")
    assert {"good", "neighbour", "quickstart"} <= set(names.rstrip(".").split(", "))


@pytest.mark.parametrize("name", ["neighbour", "quickstart"])
def test_an_overlay_may_have_changes_of_other_specs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one in its folder and of a shipped one, as in a copy of specs/lab.yaml."""
    monkeypatch.setenv("TOOLKIT_TEST_DATA", "data")
    overlay = tmp_path / "many.yaml"
    overlay.write_text(f"only:\n  {name}: {{limit: {{units: 7}}}}\n", encoding="utf-8")
    (tmp_path / "neighbour.yaml").write_text("name: neighbour\n", encoding="utf-8")
    assert load_spec(GOOD, [overlay]).spec == load_spec(GOOD).spec


@pytest.mark.parametrize(
    ("only", "text"),
    [("3", "only: This is not a map."), ("{good: 3}", "only.good: This is not a map.")],
)
def test_changes_of_single_specs_are_maps(tmp_path: Path, only: str, text: str) -> None:
    overlay = tmp_path / "bad.yaml"
    overlay.write_text(f"only: {only}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=text):
        load_spec(GOOD, [overlay])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "overlay_unknown_stage.yaml",
            ":2: stages.0: There is no stage 'group' to change. Did you mean 'groups'? The spec "
            "has: features, groups.",
        ),
        (
            "overlay_without_id.yaml",
            ":2: stages.0: An overlay changes stages by `id`; add the id.",
        ),
        (
            "overlay_twice.yaml",
            ":3: stages.1: 'groups' is changed twice in this overlay. Keep one of them.",
        ),
        (
            "overlay_unknown_sink.yaml",
            ":2: sinks.0: There is no sink 'ouch' to change. Did you mean 'out'? The spec has: "
            "out.",
        ),
    ],
)
def test_overlay_refusals(name: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(GOOD, [RESOURCES / name])
    assert str(caught.value) == f"{RESOURCES / name}{text}"


def test_only_parts_of_overlays_and_sets_are_shared_with_referred_specs() -> None:
    base = placed({"model": {"uses": "x"}}, "x")
    assert plain(
        shared(
            placed(
                {"seed": 1, "stages": [], "model": 1, "saes": 2, "limit": 3, "executors": 4}, "x"
            ),
            base,
        )
    ) == {
        "model": 1,
        "saes": 2,
        "limit": 3,
        "executors": 4,
    }
    sets = ["seed=1", "model.uses=x", "limit=null", "modeled=1", "limit.units=3"]
    assert [text for text in sets if shares_set(text, base)] == [
        "model.uses=x",
        "limit=null",
        "limit.units=3",
    ]


@pytest.mark.parametrize("more", [{}, {"saes": None}])
def test_the_inside_of_a_part_is_changed_only_where_the_part_is(more: dict[str, None]) -> None:
    """A spec of games has no SAEs: `--set saes.with.layers=1-4` on the one that reads them is not
    for it.
    """
    base = placed({"model": {"uses": "x"}, **more}, "x")
    change = {"model": {"with": {"dtype": "float32"}}, "saes": {"with": {"layers": 1}}}
    assert plain(shared(placed(change, "x"), base)) == {"model": {"with": {"dtype": "float32"}}}
    assert plain(shared(placed({"saes": {"uses": "s"}}, "x"), base)) == {"saes": {"uses": "s"}}
    sets = ["saes.with.layers=1-4", "model.with.dtype=float32", "saes={uses: s}", "saes.uses=s"]
    assert [text for text in sets if shares_set(text, base)] == sets[1:]


@pytest.mark.parametrize(
    ("text", "at", "value"),
    [
        ("seed=7", ["seed"], 7),
        (
            "model.uses=other",
            ["model"],
            {"uses": "other", "with": {"layers": 2, "dtype": "float32"}},
        ),
        ("model={uses: other}", ["model"], {"uses": "other"}),
        ("stages.features.with.at=all", ["stages", 0, "with", "at"], "all"),
        ("stages.1.with.between=[x, 1e-4]", ["stages", 1, "with", "between"], ["x", 1e-4]),
        ("stages.groups.with.between.0=z", ["stages", 1, "with", "between"], ["z", "b"]),
        ("sinks.out.with.path=a=b", ["sinks", 0, "with", "path"], "a=b"),
        ("limit.units=3", ["limit"], {"units": 3}),
        ("samples.with.path=", ["samples", "with", "path"], None),
        (" seed = no", ["seed"], "no"),
    ],
)
def test_set_changes_one_value(text: str, at: list[str | int], value: Any) -> None:
    result = changed(text)
    for key in at:
        result = result[key]
    assert result == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "seed",
            "Write PATH=VALUE with dots between the steps, like --set stages.features.with.at=all.",
        ),
        (
            "=1",
            "Write PATH=VALUE with dots between the steps, like --set stages.features.with.at=all.",
        ),
        (
            "a..b=1",
            "Write PATH=VALUE with dots between the steps, like --set stages.features.with.at=all.",
        ),
        (".".join("a" * 51) + "=1", "The path has more than 50 steps."),
        ("seed.x=1", f"seed is 42 ({GOOD}:3), not a map; it has no 'x'."),
        (
            "stages.feature.with=1",
            "There is no 'feature' in stages. Did you mean 'features'? The spec has: features, "
            "groups.",
        ),
        (
            "sinks.ouch.with=1",
            "There is no 'ouch' in sinks. Did you mean 'out'? The spec has: out.",
        ),
        (
            "stages.groups.with.between.2=z",
            "stages.1.with.between is a list of 2; a step into it is a number from 0, not '2'.",
        ),
        (
            "stages.groups.with.between.x=z",
            "stages.1.with.between is a list of 2; a step into it is a number from 0, not 'x'.",
        ),
        ("seed=!!int 3", "Tags (`!!int`) are not used in specs; remove it, or quote the text."),
    ],
)
def test_set_refusals(text: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        changed(text)
    assert str(caught.value) == f"--set {text}: {problem}"


def test_set_into_stages_that_are_not_there_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        changed("stages.a.with=1", {"name": "x"})
    assert (
        str(caught.value) == "--set stages.a.with=1: There is no 'a' in stages. The spec has: none."
    )


def test_an_unknown_key_set_on_the_way_is_refused_by_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOLKIT_TEST_DATA", "x")
    with pytest.raises(SpecError) as caught:
        load_spec(GOOD, sets=["modle.with.layers=1"])
    assert str(caught.value).startswith(
        "--set modle.with.layers=1: modle: unknown key 'modle' for a spec; allowed: version, "
    )


# --- properties -----------------------------------------------------------------------------------

WORD = st.sampled_from(["uses", "with", "a", "b"])
LEAF = st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"])
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=6,
)
LABELLED = {
    key: st.lists(
        st.tuples(st.sampled_from("pqr"), st.dictionaries(WORD, VALUE, max_size=2)),
        max_size=3,
        unique_by=lambda pair: pair[0],
    ).map(lambda pairs, key=key: [{key: name, **more} for name, more in pairs])  # type: ignore[misc]
    for key in ("id", "name")
}
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "stages": LABELLED["id"] | LEAF,
        "sinks": LABELLED["name"]
        | st.lists(st.dictionaries(WORD, VALUE, max_size=2), max_size=2)
        | LEAF,
        "model": VALUE,
        "x": VALUE,
    },
)


@QUICK
@given(SPEC, SPEC)
def test_merging_again_changes_nothing(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    try:
        once = merged(base, overlay)
    except SpecError as error:
        refused = str(error)
    else:
        refused = "overlay: none"
        assert merged(once, overlay) == once
    assert refused.startswith("overlay: ")
    assert merged(base, {}) == base


@QUICK
@given(st.lists(st.sampled_from(["model", "with", "limit", "a"]), min_size=1, max_size=4), VALUE)
def test_set_is_the_same_as_editing(steps: list[str], value: Any) -> None:
    base: dict[str, Any] = {"model": {"uses": "toy", "with": {"a": {}}}, "limit": None}
    edited: Any = {"model": {"uses": "toy", "with": {"a": {}}}, "limit": None}
    place = edited
    for step in steps[:-1]:
        if place.get(step) is None:
            place[step] = {}
        place = place[step]
    place[steps[-1]] = value
    text = (
        yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
    )
    assert changed(f"{'.'.join(steps)}={text}", base) == edited


@QUICK
@given(st.text(st.sampled_from("abs.=[]{}&*!0159 \n\t\0:,'\"-") | st.characters(), max_size=20))
def test_any_set_text_is_applied_or_refused(text: str) -> None:
    try:
        refused, result = "", changed(text, {"a": {"b": [1]}, "s": 1})
    except SpecError as error:
        refused, result = str(error), {}
    assert isinstance(result, dict)
    assert not refused or refused.startswith(f"--set {text}: ")
