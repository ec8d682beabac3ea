"""Sessions: one transcript however sequences are batched, prompts read once, edits that persist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.plugins.toolkit_hf.families import FAMILIES, build
from toolkit.edits import Add, Edit, OnStream, Scale, Set, from_position, tokens
from toolkit.errors import BadInput, DataError
from toolkit.models import Model
from toolkit.models.sessions import Generated
from toolkit.models.whole_pass_sessions import WholePassSession
from toolkit.statistics.randomness import generator
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_lab import model_path

WIDTH = 32


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    models: dict[tuple[str, str], Any] = {}

    def get(name: str, dtype: str = "float32") -> Any:
        if (name, dtype) not in models:
            folder = build(FAMILIES[name], tmp_path_factory.mktemp("session") / name)
            params = HuggingFace(path=str(folder), device="cpu", dtype=dtype)
            models[name, dtype] = load(params, SilentReporter())
        return models[name, dtype]

    return get


def drawn(name: object, step: int) -> float:
    return float(generator(0, "session", str(name), step).random())


def prompts(count: int, shared: int = 12) -> list[list[int]]:
    """Prompts that begin alike, some of them equal."""
    draw = torch.Generator().manual_seed(5)
    first = torch.randint(3, 250, (shared,), generator=draw).tolist()
    tails = [
        torch.randint(3, 250, (1 + index % 7,), generator=draw).tolist() for index in range(count)
    ]
    return [[*first, *(tails[index] if index % 5 else tails[0])] for index in range(count)]


def play(
    model: Model, batch: Sequence[Sequence[int]], at_once: int, **options: Any
) -> dict[Any, Generated]:
    """So many live at a time: a new one joins when one leaves."""
    session = model.session(options.pop("budget", None))
    waiting = list(enumerate(batch))
    result: dict[Any, Generated] = {}

    def submit() -> None:
        name, ids = waiting.pop(0)
        length = 2 + name % 4
        session.submit(name, ids, partial(drawn, name), max_tokens=length, **options)

    for _ in range(min(at_once, len(waiting))):
        submit()
    for reply in session.run():
        result[reply.id] = reply
        if waiting:
            submit()
    return result


# --- one transcript -------------------------------------------------------------------------------


def check_transcripts(model: Model, batch: Sequence[Sequence[int]], least: int) -> None:
    """The same ids and ends with 1, 2, 7 and 64 live at a time, and with hardly any room."""
    runs = [play(model, batch, at_once) for at_once in (1, 2, 7, 64)]
    runs.append(play(model, batch, 64, budget=64))
    clean = [index for index in range(64) if not any(run[index].close_calls for run in runs)]
    assert len(clean) >= least
    for index in clean:
        assert {(run[index].ids, run[index].finish) for run in runs} == {
            (runs[0][index].ids, runs[0][index].finish)
        }


@pytest.mark.slow
def test_a_reply_without_close_calls_is_the_same_in_any_batch(loaded: Callable[..., Any]) -> None:
    check_transcripts(loaded("gemma2"), prompts(64), 58)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "least"), [("float32", 62), ("bfloat16", 30)])
def test_the_lab_model_plays_the_same_in_any_batch(dtype: str, least: int) -> None:
    params = HuggingFace(path=str(model_path()), device="cpu", dtype=dtype)
    model = load(params, SilentReporter())
    texts = [f"Balance: ${10 * index}. Choice: " for index in range(1, 65)]
    check_transcripts(model, [list(model.encode(text).ids) for text in texts], least)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "qwen3", "gpt2", "pythia"])
def test_kept_keys_give_what_whole_passes_give(loaded: Callable[..., Any], name: str) -> None:
    model, batch = loaded(name), prompts(12)
    result = play(model, batch, 5)
    session = WholePassSession(model)
    for index, ids in enumerate(batch):
        session.submit(index, ids, partial(drawn, index), max_tokens=2 + index % 4)
    expected = {reply.id: reply for reply in session.run()}
    clean = [
        index for index in result if not (result[index].close_calls or expected[index].close_calls)
    ]
    assert len(clean) >= 8
    assert all(result[index].ids == expected[index].ids for index in clean)


def test_a_draw_near_a_border_is_counted(loaded: Callable[..., Any]) -> None:
    model, ids = loaded("llama"), prompts(1)[0]
    summed = torch.softmax(model.next_logits([ids])[0].double(), -1).cumsum(-1)
    for offset, close in ((1e-6, 1), (-1e-6, 1), (None, 0)):
        token = int((summed.diff() > 1e-2).nonzero()[0]) + 1
        middle = float(summed[token - 1] + summed[token]) / 2
        number = middle if offset is None else float(summed[token]) + offset
        (reply,) = model.generate([ids], lambda row, step, at=number: at, max_tokens=1)
        assert reply.close_calls == close


# --- what is read once ----------------------------------------------------------------------------


def test_equal_prompts_are_read_once(loaded: Callable[..., Any]) -> None:
    model, ids = loaded("llama"), prompts(1)[0]
    session = model.session()
    for index in range(20):
        session.submit(index, ids, partial(drawn, index), max_tokens=4)
    replies = list(session.run())
    assert len({reply.ids for reply in replies}) > 5
    assert session.counts.prompt_tokens == 20 * len(ids)
    assert session.counts.computed_tokens == len(ids)
    assert session.counts.reused_tokens == 19 * len(ids)


def test_what_prompts_begin_with_is_computed_once(loaded: Callable[..., Any]) -> None:
    model, batch = loaded("llama"), prompts(16, shared=40)
    batch = [ids for index, ids in enumerate(batch) if index % 5]
    session = model.session()
    for index, ids in enumerate(batch):
        session.submit(index, ids, partial(drawn, index), max_tokens=4)
    list(session.run())
    alone = sum(len(ids) - 40 for ids in batch)
    assert session.counts.computed_tokens == 40 + alone


def test_a_next_round_goes_on_from_the_last(loaded: Callable[..., Any]) -> None:
    model, ids = loaded("llama"), prompts(1, shared=30)[0]
    session = model.session()
    session.submit("first", ids, partial(drawn, 1), max_tokens=5)
    replies = []
    for reply in session.run():
        replies.append(reply)
        if reply.id == "first":
            longer = [*ids, *reply.ids, 9, 9]
            session.submit("second", longer, partial(drawn, 2), max_tokens=5)
    assert [reply.id for reply in replies] == ["first", "second"]
    fed = len(ids) + len(replies[0].ids) - 1  # the last token was drawn, and never read
    assert session.counts.computed_tokens == len(ids) + len(ids) + len(replies[0].ids) + 2 - fed
    expected = model.generate([longer], lambda _, step: drawn(2, step), max_tokens=5)[0]
    assert replies[1].close_calls or replies[1].ids == expected.ids


def test_keys_stay_within_the_budget(loaded: Callable[..., Any]) -> None:
    model, batch = loaded("llama"), prompts(40)
    session = model.session(budget=512)
    for index, ids in enumerate(batch):
        session.submit(index, ids, partial(drawn, index), max_tokens=9)
    replies = list(session.run())
    assert sorted(reply.id for reply in replies) == list(range(40))
    assert 0 < session.counts.most_kept <= 512
    keys = session._slots.keys[0]
    assert keys.shape[0] * keys.shape[2] <= 512


def test_little_is_padding(loaded: Callable[..., Any]) -> None:
    model = loaded("llama")
    draw = torch.Generator().manual_seed(1)
    session = model.session()
    for index in range(30):
        ids = torch.randint(3, 250, (1 + 2 * index,), generator=draw).tolist()
        session.submit(index, ids, partial(drawn, index), max_tokens=1)
    list(session.run())
    assert session.counts.padded_tokens < 0.5 * session.counts.computed_tokens


# --- edits that persist ---------------------------------------------------------------------------


def edits() -> list[Edit]:
    """On the prompt, on what is generated, and on both."""
    draw = torch.Generator().manual_seed(9)
    vectors = torch.randn((3, WIDTH), generator=draw)
    return [
        Edit("resid_post.0", OnStream(Add(vectors[0])), from_position(4)),
        Edit("mlp_out.2", OnStream(Scale(0.3)), from_position(14)),
        Edit("resid_post.1", OnStream(Set(vectors[1:])), tokens([1, 3], [5, 16])),
    ]


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_edits_persist_with_and_without_kept_keys(loaded: Callable[..., Any], name: str) -> None:
    """A token after an edited one reads what the edit left, whether from keys or anew."""
    model, batch = loaded(name), prompts(6)
    fast, plain = edits(), edits()

    def draw(row: int, step: int) -> float:
        return drawn(row, step)

    result = model.generate(batch, draw, max_tokens=7, edits=fast)
    expected = Model.generate(Whole(model), batch, draw, max_tokens=7, edits=plain)
    bare = model.generate(batch, draw, max_tokens=7)
    clean = [
        index
        for index in range(6)
        if not (result[index].close_calls or expected[index].close_calls)
    ]
    assert len(clean) >= 3
    assert all(result[index].ids == expected[index].ids for index in clean)
    assert [reply.ids for reply in result] != [reply.ids for reply in bare]
    if len(clean) == 6:
        for ours, theirs in zip(fast, plain, strict=True):
            assert ours.tally.counts == theirs.tally.counts
    assert fast[0].tally.total(0, "prompt") == len(batch[0]) - 4
    assert fast[0].tally.total(0, "generation") == len(result[0].ids) - 1
    assert fast[2].tally.total() == 1 + (len(batch[3]) + len(result[3].ids) - 1 > 16)


class Whole(Model):
    """A model that has whole passes only."""

    def __init__(self, model: Model) -> None:
        self._model = model
        for name in ("identity", "layers", "width", "context", "end_ids", "editable"):
            setattr(self, name, getattr(model, name))

    def encode(self, text: str, *, chat: bool = False) -> Any:
        return self._model.encode(text, chat=chat)

    def decode(self, ids: Sequence[int]) -> str:
        return self._model.decode(ids)

    def run(self, batch: Any, capture: Any, edits: Any = ()) -> Any:
        return self._model.run(batch, capture, edits)

    def unembed(self, states: Any) -> Any:
        return self._model.unembed(states)


def test_keys_of_edited_tokens_are_not_taken_over_by_others(loaded: Callable[..., Any]) -> None:
    """Equal prompts under other edits share what stands before the first edit, and no more."""
    model, ids = loaded("llama"), prompts(1, shared=40)[0]
    edit = Edit("resid_post.0", OnStream(Add(5.0)), from_position(30))
    session = model.session()
    for index in range(4):
        edits = (edit,) if index % 2 else ()
        session.submit(index, ids, partial(drawn, 0), max_tokens=6, edits=edits)
    results = {reply.id: reply.ids for reply in session.run()}
    assert results[0] == results[2] != results[1] == results[3]
    assert session.counts.computed_tokens == len(ids) + len(ids) - 30
    assert edit.tally.total(1, "prompt") == edit.tally.total(3, "prompt") == len(ids) - 30


# --- what cannot be asked -------------------------------------------------------------------------


def test_what_a_session_refuses(loaded: Callable[..., Any], tmp_path: Path) -> None:
    session = loaded("llama").session()
    with pytest.raises(DataError, match=r"'a' has no tokens"):
        session.submit("a", [], max_tokens=3)
    with pytest.raises(BadInput, match="max_tokens is at least 1"):
        session.submit("a", [1], max_tokens=0)
    with pytest.raises(DataError, match=r"'a' has 60 tokens and may get 9 more; .* at most 64"):
        session.submit("a", [1] * 60, max_tokens=9)
    assert list(session.run()) == []


def test_logits_that_are_no_numbers_name_the_sequence_and_the_token(
    loaded: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, calls = loaded("llama").session(), [0]
    right = session._unembed

    def broken(states: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        logits: torch.Tensor = right(states)
        return logits / 0 if calls[0] == 3 else logits

    monkeypatch.setattr(session, "_unembed", broken)
    session.submit("game-7/2", prompts(1)[0], partial(drawn, 0), max_tokens=5)
    with pytest.raises(
        DataError, match=r"'game-7/2', token 2 of its reply: the model's logits are"
    ):
        list(session.run())
