"""What an extraction says of its passes in the report."""

from __future__ import annotations

from toolkit_saes.extract.summary import summary

FACTS = {
    "name": "extracted",
    "samples": 6400,
    "texts": 1500,
    "batches": 20,
    "passes": 1,
    "halved": 0,
    "ways": [],
    "saes_together": 31,
}


def test_texts_and_passes() -> None:
    assert summary([FACTS]) == (
        "6,400 samples were computed as 1,500 distinct texts, in one pass over the model (20 "
        "batches)."
    )


def test_steps_are_added_up_and_lack_of_memory_is_said() -> None:
    short = {**FACTS, "halved": 1, "ways": ["rerun"], "passes": 3, "saes_together": 11}
    assert summary([FACTS, short]) == (
        "12,800 samples were computed as 3,000 distinct texts, in up to 3 passes over the model "
        "(40 batches). Memory ran out 1 time, and batches were halved. Not all SAEs fitted in "
        "memory together: at most 11 were held, and the model was run once for each group of SAEs."
    )


def test_other_events_are_left_out() -> None:
    assert summary([{"name": "other"}]) == ""
