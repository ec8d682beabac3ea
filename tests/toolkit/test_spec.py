"""Specs: what they load to, where each value came from, and the whole text of every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from toolkit._plan.make_plan import make_plan
from toolkit._plan.resolve import resolve
from toolkit._plugins.loading import load_parts
from toolkit._spec.load import LoadedSpec, load_spec, load_spec_data, validate_params
from toolkit._spec.spec import From, Spec
from toolkit.errors import SpecError
from toolkit.parts import Params
from toolkit.samples.selectors import At

RESOURCES = Path(__file__).parents[1] / "resources"
GOOD = RESOURCES / "good.yaml"
QUICK = settings(max_examples=100, deadline=None, database=None)


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_TEST_DATA", "a-secret")


def refusal(path: Path, **more: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, **more)
    return str(caught.value)


REFUSED = {
    "unknown_key.yaml": [
        ":3: sede: unknown key 'sede' for a spec; allowed: version, name, question, "
        "description, seed, model, saes, samples, stages, sinks, executors, limit, examine, "
        "preregister, sweep. Did you mean 'seed'?"
    ],
    "many_problems.yaml": [
        ":1: version: must be 1, not 2.",
        ":2: name: must be text that matches ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$, not the text 'a "
        "b'.",
        ":3: seed: must be a whole number, not true.",
        ":5: stages.0.id: must be text that matches ^[a-z][a-z0-9_-]*$, not the text 'Features'.",
        ":5: stages.0.wth: unknown key 'wth'; allowed: id, uses, with, needs, seed, on, model, "
        "saes, samples. Did you mean 'with'?",
        ":6: stages.1.uses: missing; stages.1 needs 'uses' (the part's name, as `toolkit plugins` "
        "lists it).",
        ":6: stages.1.needs: must be a list, not the text 'features'.",
        ":7: limit.units: must be at least 1, not 0.",
    ],
    "unknown_need.yaml": [
        ":5: stages.1.needs.0: There is no stage 'feature'. Did you mean 'features'? Stages: "
        "features, groups.",
    ],
    "circle.yaml": [
        ":4: stages.0.needs: Stages need each other in a circle: one -> three -> two -> one. "
        "Remove one of these `needs`."
    ],
    "double_stage.yaml": [
        ":5: stages.1.id: There already is a stage 'one' ({file}:4); give each stage its own id."
    ],
    "reserved_stage.yaml": [
        ":4: stages.0.id: 'samples' is reserved for the samples of `samples:`; choose another id."
    ],
    "double_sink.yaml": [
        ":5: sinks.1.name: There already is a sink 's' ({file}:4); give each its own name."
    ],
    "misplaced.yaml": [
        ":3: model.from: Only `samples` can come from a stage; remove it here.",
        ":3: model.name: Only sinks have a name; remove it here.",
    ],
    "from_unknown_key.yaml": [
        ":3: samples.from.stage: missing; samples.from needs 'stage'.",
        ":3: samples.from.stge: unknown key 'stge'; allowed: spec, stage. Did you mean 'stage'?",
    ],
    "from_missing_file.yaml": [
        ":5: samples.from.spec: There is no file '{folder}/goood.yaml'. Did you mean 'good.yaml'?",
    ],
    "from_unknown_stage.yaml": [
        ":5: samples.from.stage: good.yaml has no stage 'feature'. Did you mean 'features'? Its "
        "stages: features, groups.",
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_file_line_field_and_what_is_allowed(name: str) -> None:
    path = RESOURCES / name
    lines = [
        f"{path}{line.replace('{file}', str(path)).replace('{folder}', str(RESOURCES))}"
        for line in REFUSED[name]
    ]
    assert refusal(path).split("\n") == lines


def test_a_loop_of_specs_is_refused() -> None:
    assert refusal(RESOURCES / "loop_a.yaml") == (
        f"{RESOURCES / 'loop_b.yaml'}:6: stages.0.samples.from.spec: The specs refer to each "
        "other in a circle: loop_a.yaml -> loop_b.yaml -> loop_a.yaml. Remove one of the "
        "references."
    )


def test_a_spec_loads_frozen_with_its_data_as_written() -> None:
    loaded = load_spec(GOOD)
    assert loaded.path == GOOD.absolute()
    assert loaded.files == (GOOD.absolute(),)
    assert loaded.spec.samples
    assert loaded.spec.samples.with_ == {"n": 10, "path": "a-secret/x"}
    assert loaded.data["samples"]["with"]["path"] == "${env:TOOLKIT_TEST_DATA}/x"
    assert loaded.spec.stages[1].needs == ["features", "samples"]
    with pytest.raises(ValueError, match="frozen"):
        loaded.spec.seed = 1  # type: ignore[misc]


def test_from_is_resolved_against_the_spec_not_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "first.yaml").write_text("version: 1\nname: a\nstages: [{id: play, uses: x}]\n")
    text = "version: 1\nname: b\nsamples: {uses: games, from: {spec: ../first.yaml, stage: play}}\n"
    (tmp_path / "sub" / "second.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    spec = load_spec(Path("sub/second.yaml")).spec
    assert spec.samples
    assert spec.samples.from_ == From(spec=tmp_path / "first.yaml", stage="play")


def test_two_stages_may_read_the_same_other_spec(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("version: 1\nname: a\nstages: [{id: play, uses: x}]\n")
    stage = (
        "  - {{id: {}, uses: x, samples: {{uses: games, from: {{spec: first.yaml, stage: "
        "play}}}}}}\n"
    )
    (tmp_path / "b.yaml").write_text(
        "version: 1\nname: b\nstages:\n" + stage.format("one") + stage.format("two")
    )
    assert len(load_spec(tmp_path / "b.yaml").spec.stages) == 2


NEEDS = (
    "version: 1\nname: b\nstages:\n"
    "  - {id: one, uses: x}\n"
    "  - {id: two, uses: x, needs: [one, NEED]}\n"
)


def needing(tmp_path: Path, need: str) -> Path:
    """A spec whose second stage has this need, next to another spec."""
    (tmp_path / "first.yaml").write_text("version: 1\nname: a\nstages: [{id: play, uses: x}]\n")
    path = tmp_path / "b.yaml"
    path.write_text(NEEDS.replace("NEED", need))
    return path


def test_a_stage_may_need_a_stage_of_another_spec(tmp_path: Path) -> None:
    spec = load_spec(needing(tmp_path, "{spec: first.yaml, stage: play}")).spec
    assert spec.stages[1].needs == ["one", From(spec=tmp_path / "first.yaml", stage="play")]


@pytest.mark.parametrize(
    ("need", "message"),
    [
        ("{spec: first.yaml, stage: plya}", r"needs.1.stage: first.yaml has no stage 'plya'. Did"),
        ("{spec: gone.yaml, stage: play}", r"stages.1.needs.1.spec: .*gone.yaml"),
        ("{spec: b.yaml, stage: one}", r"refer to each other in a circle: b.yaml -> b.yaml"),
        ("{stage: one}", r"needs.1: Refer to a stage of this spec by its id: write 'one'"),
        ("{spec: first.yaml}", r"needs.1.stage: missing"),
        ("3", r"needs.1: must be text or a map, not 3"),
    ],
)
def test_needs_of_other_specs_that_do_not_work(tmp_path: Path, need: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_spec(needing(tmp_path, need))


def test_overlays_and_sets_keep_the_location_of_each_value() -> None:
    overlay = RESOURCES / "overlay.yaml"
    loaded = load_spec(GOOD, [overlay], ["stages.features.with.at=all", "seed=7"])
    places = {
        ("name",): f"{GOOD}:2",
        ("seed",): "--set seed=7",
        ("model", "uses"): f"{overlay}:1",
        ("stages", 0, "with", "at"): "--set stages.features.with.at=all",
        ("stages", 1, "with", "alpha"): f"{overlay}:4",
        ("stages", 1, "with", "between", 1): f"{GOOD}:15",
        ("stages", 1, "with", "no such"): f"{GOOD}:13",
        ("limit", "units"): f"{overlay}:8",
        (): f"{GOOD}:1",
    }
    assert {at: loaded.where(at) for at in places} == places
    assert loaded.files == (GOOD, overlay)


def test_a_wrong_overlay_value_is_reported_at_the_overlay() -> None:
    overlay = RESOURCES / "overlay_bad_value.yaml"
    assert refusal(GOOD, overlays=[overlay], sets=["seed=many"]).split("\n") == [
        "--set seed=many: seed: must be a whole number, not the text 'many'.",
        f"{overlay}:2: limit.units: missing; limit needs 'units' (at most this many units).",
        f"{overlay}:3: limit.unit: unknown key 'unit'; allowed: units. Did you mean 'units'?",
    ]


def test_a_referred_spec_takes_model_saes_limit_and_executors_only() -> None:
    sets = ["seed=7", "stages.play.with.n=1", "limit.units=4"]
    loaded = load_spec(
        GOOD,
        [RESOURCES / "overlay.yaml", RESOURCES / "overlay_unknown_stage.yaml"],
        sets,
        referred=True,
    )
    assert loaded.spec.limit
    assert loaded.spec.limit.units == 4
    assert loaded.spec.model
    assert loaded.spec.model.uses == "other"
    assert loaded.spec.seed == 42
    assert loaded.spec.stages[1].with_["alpha"] == 0.05


def test_recorded_data_loads_again_to_the_same_spec() -> None:
    first = load_spec(GOOD, [RESOURCES / "overlay.yaml"])
    again = load_spec_data(first.data, GOOD)
    assert (again.spec, again.data) == (first.spec, first.data)
    assert again.where(("seed",)) == str(GOOD)
    assert load_spec_data(first.data, GOOD, sets=["seed=7"]).spec.seed == 7


def test_a_missing_environment_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLKIT_TEST_DATA")
    assert refusal(GOOD).startswith(
        f"{GOOD}:7: The environment variable TOOLKIT_TEST_DATA is not set."
    )


# --- params ---------------------------------------------------------------------------------------


class Span(Params):
    span: str
    take: Literal["first", "last"] = "last"


class Phase(Params):
    phase: Literal["prompt", "generation"]


class Welch(Params):
    by: str = Field(description="the metadata key to group by")
    alpha: float = 0.05
    at: Literal["last", "all"] | Span | Phase = "last"
    sizes: Annotated[list[int], Field(max_length=2)] | None = None
    exact: bool = False
    width: int | list[int] = 1
    spans: dict[str, Span] = Field(default={})


def params_of(text: str, params: type[Params] = Welch) -> Params:
    loaded = load_spec(GOOD, sets=[f"stages.groups.with={text}"])
    options = loaded.spec.stages[1].with_
    at = ("stages", 1, "with")
    return validate_params(loaded, params, options, at, "compare.welch", NoParts())


class NoParts:
    """Params that name no parts look none up."""

    def get(self, kind: str, name: str) -> Any:
        raise AssertionError(f"{kind} {name} was looked up")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("{}", ["with.by: missing; compare.welch needs 'by' (the metadata key to group by)."]),
        (
            "{by: x, alhpa: 1}",
            [
                "with.alhpa: unknown key 'alhpa' for compare.welch; allowed: by, alpha, at, sizes, "
                "exact, width, spans. Did you mean 'alpha'?"
            ],
        ),
        ("{by: x, alpha: much}", ["with.alpha: must be a number, not the text 'much'."]),
        ("{by: null}", ["with.by: must be text, not null."]),
        ("{by: [a]}", ["with.by: must be text, not a list of 1."]),
        ("{by: x, exact: maybe}", ["with.exact: must be true or false, not the text 'maybe'."]),
        (
            "{by: x, at: lst}",
            ["with.at: must be 'last' or 'all' or a map, not the text 'lst'. Did you mean 'last'?"],
        ),
        (
            "{by: x, at: {phase: promt}}",
            [
                "with.at.phase: must be 'prompt' or 'generation', not the text 'promt'. Did you "
                "mean 'prompt'?"
            ],
        ),
        (
            "{by: x, at: {span: s, tke: last}}",
            ["with.at.tke: unknown key 'tke'; allowed: span, take, phase. Did you mean 'take'?"],
        ),
        ("{by: x, sizes: [1, b]}", ["with.sizes.1: must be a whole number, not the text 'b'."]),
        (
            "{by: x, sizes: [1, 2, 3]}",
            ["with.sizes: must be a list of at most 2, not a list of 3."],
        ),
        (
            "{by: x, width: wide}",
            ["with.width: must be a whole number or a list, not the text 'wide'."],
        ),
        (
            "{by: x, width: [1, wide]}",
            ["with.width.1: must be a whole number, not the text 'wide'."],
        ),
        (
            "{by: x, spans: {a: {}}}",
            ["with.spans.a.span: missing; stages.1.with.spans.a needs 'span'."],
        ),
        (
            "{alpha: [], exact: 3}",
            [
                "with.by: missing; compare.welch needs 'by' (the metadata key to group by).",
                "with.alpha: must be a number, not a list of 0.",
                "with.exact: must be true or false, not 3.",
            ],
        ),
    ],
)
def test_params_refusals(text: str, lines: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        params_of(text)
    assert str(caught.value).split("\n") == [
        f"--set stages.groups.with={text}: stages.1.{line}" for line in lines
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "{at: frist}",
            "with.at: must be `last`, `all`, a selector or a list of selectors, not the text "
            "'frist'. Did you mean `{take: first}`?",
        ),
        (
            "{at: [{window: [1]}]}",
            "with.at.0.window: must be two numbers (the first position, and the first left out; "
            "null: no end), not [1].",
        ),
        (
            "{at: {window: [3, 1]}}",
            "with.at.window: the window [3, 1] is empty: the second number is the first "
            "position left out.",
        ),
    ],
)
def test_what_a_part_says_of_its_params_stands_as_it_is(text: str, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        params_of(text, At)
    assert str(caught.value) == f"--set stages.groups.with={text}: stages.1.{line}"


def test_good_params_are_returned_as_the_model() -> None:
    assert params_of("{by: x, at: {phase: prompt}, sizes: [1]}") == Welch(
        by="x", at=Phase(phase="prompt"), sizes=[1]
    )


def test_environment_values_are_not_shown_in_refusals() -> None:
    with pytest.raises(SpecError) as caught:
        params_of("{by: x, alpha: '${env:TOOLKIT_TEST_DATA}'}")
    assert "not the text '${env:TOOLKIT_TEST_DATA}'" in str(caught.value)
    assert "a-secret" not in str(caught.value)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-1, 1)
    | st.sampled_from(["samples", "one", "x", "1", "${env:A"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *Spec.model_fields,
                    "uses",
                    "with",
                    "from",
                    "id",
                    "needs",
                    "spec",
                    "stage",
                    "units",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@QUICK
@given(st.dictionaries(st.sampled_from([*Spec.model_fields, "x"]), ANYTHING))
def test_any_data_loads_or_is_refused_with_its_location(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    try:
        refused, result = "", load_spec_data({"version": 1, "name": "a", **data}, path)
    except SpecError as error:
        refused, result = str(error), None
    assert isinstance(result, LoadedSpec) or all(
        line.startswith(f"{path}: ") for line in refused.split("\n")
    )


@pytest.mark.parametrize("text", ["010", "1_000", '"010"', '"5"', "0o17"])
def test_a_number_is_written_as_a_number_everywhere(tmp_path: Path, text: str) -> None:
    class Sizes(Params):
        size: int = Field(1, description="A size.")
        share: float = Field(1.0, description="A share.")

    path = tmp_path / "a.yaml"
    for line in (f"seed: {text}", f"limit: {{units: {text}}}"):
        path.write_text(f"version: 1\nname: a\n{line}\n")
        with pytest.raises(SpecError, match=r"a\.yaml:3: .*: must be a .*, not the text "):
            load_spec(path)
    values = f"{{size: {text}, share: {text}}}"
    path.write_text(f"version: 1\nname: a\nmodel: {{uses: x, with: {values}}}")
    loaded = load_spec(path)
    with pytest.raises(SpecError) as caught:
        validate_params(
            loaded, Sizes, loaded.spec.model.with_, ("model", "with"), "part x", NoParts()
        )
    lines = str(caught.value).split("\n")
    assert [line.split(": ")[1] for line in lines] == ["model.with.size", "model.with.share"]
    with pytest.raises(SpecError, match="seed"):
        load_spec(path, sets=[f"seed={text}"])


@pytest.mark.parametrize("text", ["yes", '"true"', "1", '"0"'])
def test_a_truth_value_is_true_or_false(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"version: 1\nname: a\npreregister: {text}\n")
    with pytest.raises(SpecError, match=r"a\.yaml:3: preregister: must be true or false, not .*\."):
        load_spec(path)


def test_what_the_environment_gives_may_be_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_TEST_UNITS", "12")
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\nname: a\nlimit: {units: '${env:TOOLKIT_TEST_UNITS}'}\n")
    assert load_spec(path).spec.limit.units == 12


def test_question_and_description_are_kept_and_change_no_run(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\nname: a\nquestion: Why?\ndescription: Because.\n")
    loaded = load_spec(path)
    assert (loaded.spec.question, loaded.spec.description) == ("Why?", "Because.")
    parts = load_parts(())
    plain = load_spec_data({"version": 1, "name": "a"}, path)
    runs = {make_plan(resolve(spec, parts), parts).run for spec in (loaded, plain)}
    assert len(runs) == 1
