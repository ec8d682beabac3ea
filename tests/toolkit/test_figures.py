"""Numbers and tables of figures: as many digits as mean something, and captions that are not cut
with their table.
"""

from __future__ import annotations

import re

import pytest

from toolkit import figures as draw
from toolkit_stats.baselines import section as baselines
from toolkit_stats.pathway import section as pathway

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ((0.0578, 0.0822), "0.0578"),
        ((8.0,), "8.00"),
        ((10.04,), "10.0"),
        ((-1.2,), f"{MINUS}1.20"),
        ((1234.6,), "1,235"),
        ((0.0,), "0"),
        ((-0.001, 5.0), "0.00"),
        ((3e-7,), f"3.00e{MINUS}7"),
    ],
)
def test_a_number_has_three_digits_and_its_zeros(values: tuple[float, ...], written: str) -> None:
    assert draw.fixed(values[0], draw.decimals(*values)) == written


def test_ends_of_an_interval_have_the_decimals_of_its_mean() -> None:
    assert (
        pathway._mean({"value": 0.0578, "low": -0.0243, "high": 0.14})
        == f"0.0578 [{MINUS}0.0243, 0.1400]"
    )
    assert pathway._mean({"value": 25.02, "low": 24.2, "high": 25.9}) == "25.0 [24.2, 25.9]"
    assert pathway._mean({"value": 0.0, "low": 0.0, "high": 0.0}) == "0 [0, 0]"


@pytest.mark.parametrize(
    ("row", "written"),
    [
        ({"r": 0.9998, "low": 0.9996, "high": 0.9999}, ("+0.9998", "+0.9996 to +0.9999")),
        ({"r": 0.99, "low": 0.98, "high": 0.997}, ("+0.9900", "+0.9800 to +0.9970")),
        ({"r": -0.5, "low": -0.7, "high": 0.1}, (f"{MINUS}0.50", f"{MINUS}0.70 to +0.10")),
    ],
)
def test_a_correlation_near_one_is_told_from_one(
    row: dict[str, float], written: tuple[str, str]
) -> None:
    assert pathway._correlations(row) == written


def test_a_caption_stands_outside_of_what_scrolls_and_words_may_wrap() -> None:
    made = draw.table("What it is", ("a", "b", "how"), [("1", "2", "many words")], words=True)
    assert made.startswith('<p class="caption">What it is</p><div class="scroll"')
    assert made.endswith(
        '<th scope="row">1</th><td class="number">2</td><td class="words">many words</td>'
        "</tr></tbody></table></div>"
    )
    assert draw.table("x", ("a", "b"), [("1", "2")]).count('class="number"') == 1


def baseline(name: str, text: str | None = None) -> dict[str, object]:
    return {
        "kind": "metadata",
        "name": name,
        "metric": "auroc",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "chance": 0.5,
        "folds": 5,
        "groups": "a: 3 samples",
        "text": text,
    }


def test_what_is_said_of_all_baselines_is_said_once_above() -> None:
    made = baselines._table([baseline("x"), baseline("y", "chosen: 7")])
    assert made.startswith('<p class="faint">5 folds by unit and prompt; a: 3 samples.</p>')
    assert made.count("5 folds") == 1
    assert re.findall(r'<td class="words"><span class="faint">(.*?)</span></td>', made) == [
        "",
        "chosen: 7",
    ]


def test_baselines_of_which_all_is_said_above_have_no_column_for_it() -> None:
    made = baselines._table([baseline("x"), baseline("y")])
    assert "how" not in made
    assert "words" not in made


def forest(name: str) -> str:
    row = {"space": "s", "feature": 1, "value": 0.5, "low": 0.2, "high": 0.8, "q": 0.01}
    spaces = {"s": {"space": "s", "hookpoint": "", "address": name, "sae": "x"}}
    return pathway._forest(
        [row, {**row, "value": -0.5, "low": -0.8, "high": -0.2}], spaces, ("ruin", "<stop>")
    )


def test_the_path_names_its_axis_and_colours() -> None:
    made = forest("m/x")
    assert '<i style="background:var(--computed)"></i>higher in ruin' in made
    assert '<i style="background:var(--failed)"></i>higher in &lt;stop&gt;' in made
    assert ">Cohen&#x27;s d</text>" in made
    assert "stroke:var(--computed)" in made
    assert "stroke:var(--failed)" in made


@pytest.mark.parametrize("name", ["m", "a/very/long/address/of/some/space"])
def test_the_path_with_its_q_fits_a_narrow_page(name: str) -> None:
    """A page 600 wide leaves 560 for a figure, which may be shrunk to its `min-width`."""
    made = forest(name)
    width, least = (
        float(re.findall(r'viewBox="0 0 (\S+) ', made)[0]),
        float(re.findall(r"min-width:min\(40rem,(\S+)px\)", made)[0]),
    )
    assert least <= 560
    ends = [
        float(x) + 7 * len(words)
        for x, words in re.findall(
            r'<text x="(\S+)" y="\S+" text-anchor="start">(d .*?)</text>', made
        )
    ]
    assert len(ends) == 2
    assert max(ends) <= width
