"""`--gpu` counts physical cards; an existing CUDA_VISIBLE_DEVICES is honoured; both numbers are
kept.
"""

from __future__ import annotations

import pytest

from toolkit._run.devices import pick
from toolkit.errors import BadInput


def test_without_a_wish_the_environment_stays_as_it_is():
    assert pick(None, {}, 2) == [
        {"worker": "worker-0", "physical": None, "visible": None, "cuda": None},
        {"worker": "worker-1", "physical": None, "visible": None, "cuda": None},
    ]


def test_none_hides_every_gpu():
    assert [entry["cuda"] for entry in pick("none", {"CUDA_VISIBLE_DEVICES": "3"}, 1)] == [""]


@pytest.mark.parametrize(
    ("gpu", "visible_devices", "expected"),
    [
        ("5", None, [(5, 5)]),
        ("2,5", None, [(2, 2), (5, 5)]),
        ("5", "4,5,6", [(5, 1)]),
        ("6,4", "4,5,6", [(6, 2), (4, 0)]),
    ],
)
def test_physical_and_visible_numbers(gpu, visible_devices, expected):
    environ = {} if visible_devices is None else {"CUDA_VISIBLE_DEVICES": visible_devices}
    found = pick(gpu, environ, 1)
    assert [(entry["physical"], entry["visible"]) for entry in found] == expected
    assert [entry["cuda"] for entry in found] == [str(physical) for physical, _ in expected]


@pytest.mark.parametrize(
    ("gpu", "environ", "message"),
    [
        ("all", {}, "write physical indices, such as `--gpu 5`"),
        ("1,1", {}, "each index once"),
        ("-1", {}, "counted from 0"),
        ("2", {"CUDA_VISIBLE_DEVICES": "4,5"}, "CUDA_VISIBLE_DEVICES='4,5' allows only 4, 5"),
        ("2", {"CUDA_VISIBLE_DEVICES": ""}, "allows only no GPU"),
    ],
)
def test_what_cannot_be_is_refused(gpu, environ, message):
    with pytest.raises(BadInput, match="gpu") as error:
        pick(gpu, environ, 1)
    assert message in str(error.value)
