"""Every page of the explorer: what it says, that its tables can be taken away, and that no text
becomes HTML.
"""

from __future__ import annotations

import html
import io
import re
import tempfile
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import polars as pl
import pytest

from tests.toolkit.view.conftest import Get, asked
from tests.toolkit.view.seen import EVIL, SAMPLES, commit
from toolkit._view import app, charts, grid
from toolkit._view.app import PAGES, make_app
from toolkit._view.library import Library
from toolkit._view.pages import feature, games, sample
from toolkit._view.pages.sample import samples
from toolkit._view.request import Query
from toolkit_store import database, open_store

RUN = "/run/full-1"
ADDRESSES = {
    "/": "/",
    "/search": "/search?q=money",
    "/compare": "/compare?a=other-1&b=full-1",
    "/run/{name}": RUN,
    "/run/{name}/findings": f"{RUN}/findings",
    "/run/{name}/features": f"{RUN}/features",
    "/run/{name}/ranking": f"{RUN}/ranking",
    "/run/{name}/feature": f"{RUN}/feature?address=2/5",
    "/run/{name}/neighbours": f"{RUN}/neighbours?address=2/5",
    "/run/{name}/samples": f"{RUN}/samples",
    "/run/{name}/sample": f"{RUN}/sample?sample=a1&position=4",
    "/run/{name}/games": f"{RUN}/games",
    "/run/{name}/game": f"{RUN}/game?game=g1",
    "/run/{name}/comparison": f"{RUN}/comparison?comparison=c1",
    "/run/{name}/tested": f"{RUN}/tested?comparison=c1",
}
SAYS = {
    "/": ["full-1", "part-1", "other-1", "read-only"],
    "/search": ["2/5", "money and balances", "label"],
    "/compare": ["other-1", "full-1", "rate_a"],
    "/run/{name}": ["What moves it?", "compare.welch", "activations", "toolkit run full-1"],
    "/run/{name}/features": [
        *("2/7", "2/5", "-1.25", "lost vs won", "stopping early", "Download:"),
    ],
    "/run/{name}/ranking": ["2/7", "2/5", "-1.25", "stopping early", "Download:"],
    "/run/{name}/feature": [
        *("Feature 2/5", "money and balances", "set:lost", "sham", "jackpot", "dollars", "causal"),
        *("Values", "Texts with the strongest activations", "m/gpt/resid_post.2/sparse"),
        "/neighbours?address=2%2F5",
    ],
    "/run/{name}/neighbours": ["Fires together with", "2/7", "Nearest decoder directions"],
    "/run/{name}/findings": ["What was found in"],
    "/run/{name}/samples": ["a1", "a2", "a/3?x=1&amp;y", "Download:"],
    "/run/{name}/sample": ["balance", "thin", "sparse", "2/5", "Attention", "gradient"],
    "/run/{name}/games": ["g1", "voluntary_stop", "fixed"],
    "/run/{name}/game": ["Round 1", "Bet $10", "120", "voluntary_stop"],
    "/run/{name}/comparison": [
        "lost vs won",
        "2/7",
        "3 features are drawn",
        "Volcano",
        "over 3 features",
    ],
    "/run/{name}/tested": ["2/7", "3 features are drawn", "Volcano"],
}


def test_a_part_without_a_feature_has_no_address(get: Get) -> None:
    page = get(f"{RUN}/sample?sample=a1&position=3").text
    assert "Parts that move the outcome" in page
    assert "None" not in page


@pytest.fixture
def get_first(seen_store: Path) -> Get:
    """Asks an explorer that has just started."""
    started = make_app(Library(seen_store))
    return lambda path, method="GET", **headers: asked(started, path, method, **headers)


def test_features_that_are_not_ranked_yet_come_after_their_page(
    get_first: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit._view.pages.run_facts.MANY_STATISTICS", 0)
    path = f"{RUN}/features?layer=2&significant=1"
    page = get_first(path).text
    later = f"{RUN}/ranking?layer=2&significant=1"
    assert f'data-fetch="{html.escape(later)}"' in page
    assert "grid-features" not in page
    part = get_first(later).text
    assert "2/7" in part
    ranked = get_first(path).text
    assert "data-fetch" not in ranked
    table = part[part.index("<table>") : part.index("</table>")]
    assert table in ranked


def test_a_file_of_features_that_are_not_ranked_yet_is_whole(
    get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{RUN}/features?table=features&as=csv"
    whole = get(path).text
    monkeypatch.setattr("toolkit._view.pages.run_facts.MANY_STATISTICS", 0)
    monkeypatch.setattr("toolkit._view.library.Library.is_ranked", lambda *names: False)
    assert get(path).text == whole
    assert "2/7" in whole


def test_a_comparison_that_was_not_asked_for_yet_comes_after_its_page(
    get_first: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit._view.pages.run_facts.MANY_STATISTICS", 0)
    path = f"{RUN}/comparison?comparison=c1&low=-2.0"
    page = get_first(path).text
    later = f"{RUN}/tested?comparison=c1&low=-2.0"
    assert f'data-fetch="{html.escape(later)}"' in page
    assert "grid-features" not in page
    part = get_first(later).text
    assert "Volcano" in part
    whole = get_first(path).text
    assert "data-fetch" not in whole
    for first, last in (("<svg", "</svg>"), ("<table", "</table>")):
        assert part[part.index(first) : part.index(last)] in whole


def test_every_page_has_an_address_here() -> None:
    assert ADDRESSES.keys() == PAGES.keys()


@pytest.mark.parametrize("page", ADDRESSES)
def test_a_page_says_what_is_in_the_store(get: Get, page: str) -> None:
    answer = get(ADDRESSES[page])
    assert answer.status == 200, answer.text
    missing = [words for words in SAYS.get(page, []) if words not in answer.text]
    assert missing == []


class Outline(HTMLParser):
    """The tags of a page, and what could run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            outside = name in ("src", "href", "action") and not re.match(
                r"[/#?]|data:,", value or ""
            )
            if name.startswith("on") or name in ("style", "srcdoc") or outside:
                self.bad.append(f"<{tag} {name}={value}>")


@pytest.mark.parametrize("page", ADDRESSES)
def test_no_text_becomes_html_and_nothing_is_inline(get: Get, page: str) -> None:
    text = get(ADDRESSES[page]).text
    assert EVIL not in text
    assert not re.search("[\x1b\u202e]", text)
    outline = Outline()
    outline.feed(text)
    assert outline.bad == []
    assert "style" not in outline.tags
    assert outline.tags.count("script") == 1


def test_the_hostile_texts_are_shown_as_they_are(get: Get) -> None:
    for page in ("/run/{name}/feature", "/run/{name}/sample", "/run/{name}/game"):
        assert EVIL in html.unescape(get(ADDRESSES[page]).text)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in ADDRESSES if not page.endswith("findings")])
def test_every_table_can_be_taken_away(get: Get, page: str) -> None:
    text = get(ADDRESSES[page]).text
    links = [
        html.unescape(link) for link in re.findall(r'href="([^"]*as=(?:csv|parquet)[^"]*)"', text)
    ]
    assert links
    for link in links:
        answer = get(link)
        assert answer.status == 200
        assert "attachment" in answer.headers["content-disposition"]
        frame = (
            pl.read_parquet(io.BytesIO(answer.body))
            if "as=parquet" in link
            else pl.read_csv(io.BytesIO(answer.body))
        )
        assert frame.height


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_download_of_samples_has_all_of_them_and_reads_a_few_at_a_time(
    get: Get, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file_format: str
) -> None:
    sizes: list[int] = []
    write = grid.WRITERS[file_format]

    def watched(parts: Iterable[pl.DataFrame], path: Path) -> None:
        write((sizes.append(part.height) or part for part in parts), path)

    monkeypatch.setattr(grid, "WRITERS", {file_format: watched})
    monkeypatch.setattr(app, "WRITERS", {file_format: watched})
    monkeypatch.setattr(database, "_BATCH_ROWS", 2)
    monkeypatch.setattr(sample, "PAGE_ROWS", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer = get(f"{RUN}/samples?table=samples&as={file_format}")
    read = pl.read_csv if file_format == "csv" else pl.read_parquet
    frame = read(io.BytesIO(answer.body))
    assert frame.columns == ["sample", "unit", "tokens", "text"]
    assert {"a1", "a2", "a/3?x=1&y"} <= set(frame["sample"])
    assert len(sizes) > 2
    assert sum(sizes) == frame.height
    assert max(sizes) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "chart", "titles"),
    [
        ("/run/{name}/comparison", "volcano", ["2/7: d -1.25", "2/5: d 0.75", "2/8: d 0.1"]),
        ("/run/{name}/feature", "histogram", ["0 to 0.167: 0 tokens", "4.83 to 5: 1 tokens"]),
        ("/run/{name}/feature", "forest", ["stop: set, lost: 0.25, interval 0.1 to 0.4"]),
    ],
)
def test_a_chart_can_be_taken_away_with_its_values(
    get: Get, page: str, chart: str, titles: list[str]
) -> None:
    """As a file that stands alone: it is XML, has colours of its own, and says each value."""
    text = get(ADDRESSES[page]).text
    (link,) = re.findall(rf'href="([^"]*table={chart}&amp;as=svg)"', text)
    answer = get(html.unescape(link))
    assert answer.headers["content-disposition"] == f'attachment; filename="{chart}.svg"'
    drawing = ElementTree.fromstring(answer.text)
    assert "var(" not in answer.text
    assert not {element.tag.rpartition("}")[2] for element in drawing.iter()} & {"script", "a"}
    names = [element.text or "" for element in drawing.iter() if element.tag.endswith("}title")]
    assert [any(name.startswith(title) for name in names) for title in titles] == [True] * len(
        titles
    )
    assert all(html.escape(title) in text for title in titles)


def test_arms_that_are_not_drawn_are_counted(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature, "ARMS", 2)
    text = get(ADDRESSES["/run/{name}/feature"]).text
    assert "1 more arms are in the table of effects." in text
    monkeypatch.undo()
    assert "more arms" not in get(ADDRESSES["/run/{name}/feature"]).text


@pytest.mark.parametrize(
    ("query", "names"), [("", ["g1", "g2", "g3"]), ("?outcome=voluntary_stop", ["g1", "g3"])]
)
def test_games_are_listed_a_page_at_a_time(
    get: Get, monkeypatch: pytest.MonkeyPatch, query: str, names: list[str]
) -> None:
    monkeypatch.setattr(games, "PAGE_ROWS", 1)
    listed, path = [], f"{RUN}/games{query}"
    whole = get(f"{path}{'&' if query else '?'}table=games&as=csv").text.splitlines()[1:]
    assert [line.partition(",")[0] for line in whole] == names
    while path:
        text = get(path).text
        listed += re.findall(r'game\?game=([^"]+)"', text)
        onward = re.findall('href="([^"]+)">The next hundred', text)
        path = html.unescape(onward[0]) if onward else ""
    assert listed == names


def links_of(text: str) -> set[str]:
    return {html.unescape(link) for link in re.findall(r'href="(/[^"#]*)', text)}


@pytest.mark.slow
def test_every_link_leads_to_a_page(get: Get) -> None:
    """From the first page, as far as links go; nothing is left that no link leads to but search,
    comparisons of runs and pieces of pages.
    """
    seen: set[str] = set()
    todo = {"/"}
    while todo:
        path = todo.pop()
        seen.add(path)
        answer = get(path)
        assert answer.status == 200, (path, answer.text[-400:])
        if answer.headers["content-type"].startswith("text/html"):
            todo |= {link for link in links_of(answer.text) if "as=" not in link} - seen
    pages = {re.sub(r"^/run/[^/]+", "/run/{name}", path.partition("?")[0]) for path in seen}
    assert pages >= PAGES.keys() - {
        "/search",
        "/compare",
        *("/run/{name}/ranking", "/run/{name}/tested"),
    }


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (f"{RUN}/samples?offset=999", "Fewer than 1,000 rows: leave offset out of the address."),
        (f"{RUN}/games?offset=999", "Fewer than 1,000 rows: leave offset out of the address."),
        (f"{RUN}/features?stage=play", "stage 'play' does not write it"),
        (f"{RUN}/features?layer=9", "has no rows in these spaces"),
        ("/search?q=Bet $10", "No feature has 'Bet $10' in its address, label, words or promoted"),
    ],
)
def test_an_empty_list_says_why(get: Get, path: str, why: str) -> None:
    answer = get(path.replace(" ", "%20"))
    assert answer.status == 200
    assert why in html.unescape(answer.text)


def test_features_show_the_statistic_that_sorts_them(get: Get) -> None:
    assert ">density" not in get(f"{RUN}/features").text
    page = get(f"{RUN}/features?by=density").text
    assert "Features by density" in page
    assert re.search(r'<input name="by"[^>]* value="density">', page)
    assert ">density" in page


def test_every_bound_of_a_volcano_can_be_seen_and_changed(get: Get) -> None:
    page = get(f"{RUN}/comparison?comparison=c1&low=0&q=0.05&q_low=0.001").text
    form = page[page.index('id="bounds"') :]
    shown = dict(
        re.findall(r'<input name="(\w+)" inputmode="decimal" size="8" value="([^"]*)"', form)
    )
    assert shown == {"low": "0.0", "high": "", "q_low": "0.001", "q": "0.05"}


def test_the_search_box_has_what_was_searched_for_and_no_bound(get: Get) -> None:
    for path, value in (
        ("/search?q=money", "money"),
        (f"{RUN}/comparison?comparison=c1&q=0.05", ""),
    ):
        box = re.search(r'<input id="q"[^>]*', get(path).text)
        assert box is not None
        assert f'value="{value}"' in box[0]


def test_odd_names_of_samples_are_reached(get: Get) -> None:
    answer = get(f"{RUN}/sample?sample={quote('a/3?x=1&y', safe='')}")
    assert "odd name" in answer.text
    assert answer.text.count("2/5") >= 1


def test_a_token_gives_what_is_active_there(get: Get) -> None:
    table = get(f"{RUN}/sample?sample=a1&position=4&table=active&as=csv").text.splitlines()
    assert table == [
        "address,position,token,value",
        "2/5,4, $10,5.0",
        "2/7,4, $10,0.5",
        "9/6,4, $10,0.25",
    ]
    only = get(f"{RUN}/sample?sample=a1&position=4&space=s2&table=active&as=csv").text
    assert only.splitlines()[1:] == ["9/6,4, $10,0.25"]


def test_a_part_of_a_volcano_is_its_table(get: Get) -> None:
    whole = get(f"{RUN}/comparison?comparison=c1&table=features&as=csv").text.splitlines()
    assert [line.split(",")[0] for line in whole] == ["address", "2/7", "2/5", "2/8"]
    part = get(f"{RUN}/comparison?comparison=c1&low=0&q=0.05&table=features&as=csv").text
    assert [line.split(",")[0] for line in part.splitlines()] == ["address", "2/5"]


def test_a_large_volcano_has_every_point_in_a_few_shapes() -> None:
    """Those with the lowest q have names; of the others, each place is drawn once."""
    points = [
        charts.VolcanoPoint(f"1/{number}", number / 100 - 3, 1e-3 * (number + 1), number < 500)
        for number in range(600)
    ]
    drawn = charts.volcano([*points, points[-1]], 0.5, "d").html
    named = re.findall("<title>1/([0-9]+): d", drawn)
    assert sorted(map(int, named)) == list(range(charts.NAMED_POINTS))
    shapes = dict(re.findall('<path class="([a-z]+)" d="([^"]+)"', drawn))
    assert {kind: shape.count("M") for kind, shape in shapes.items()} == {"more": 100, "rest": 100}


def test_statistics_of_a_feature_come_from_every_run(get: Get) -> None:
    text = get("/run/other-1/feature?address=2/5&table=statistics&as=csv").text
    assert text.splitlines()[1].startswith("full-1,groups,")


def test_two_runs_say_why_they_cannot_be_compared(get: Get) -> None:
    assert (
        "Left out" in get("/compare?a=part-1&b=full-1").text
        or "Change from" in get("/compare?a=part-1&b=full-1").text
    )


def test_the_progress_of_a_run_is_told_to_the_script(get: Get) -> None:
    import json

    facts = json.loads(get("/run/full-1/progress.json").text)
    assert (facts["state"], facts["percent"], facts["running"]) == ("done", 100, False)
    running = json.loads(get("/run/part-1/progress.json").text)
    assert running["state"] == "running"
    assert 'data-progress="/run/part-1/progress.json"' in get("/run/part-1").text
    assert get("/run/nix/progress.json").status == 404


def test_what_was_found_does_not_hold_up_other_pages(
    seen_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Findings wait for each other only: a page comes while they are being read."""
    import threading

    from toolkit._report import findings as module

    begun, go_on = threading.Event(), threading.Event()

    def slow(inputs: object, parts: object) -> list[object]:
        begun.set()
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(module, "findings_of", slow)
    fresh = make_app(Library(seen_store))
    reading = threading.Thread(target=asked, args=(fresh, "/run/other-1/findings"))
    reading.start()
    assert begun.wait(60)
    assert asked(fresh, "/run/other-1").status == 200
    go_on.set()
    reading.join(60)
    assert not reading.is_alive()


def test_the_report_is_an_origin_of_its_own(get: Get) -> None:
    answer = get("/run/full-1/report")
    assert "report of full-1" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox ")
    assert "allow-same-origin" not in policy


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nix", "no such page"),
        ("/run/nix", "There is no run"),
        ("/run/..%2F..%2Fetc", "no such page"),
        (f"{RUN}/feature?address=2/5000", "there is no feature 5000"),
        (f"{RUN}/feature?address=x' OR 1=1", "is not a feature address"),
        (f"{RUN}/feature", "needs ?address="),
        (f"{RUN}/sample?sample=x' OR '1'='1", "has no sample"),
        (f"{RUN}/sample?sample=a1&position=5", "has 5 tokens"),
        (f"{RUN}/sample?sample=a1&position=-1", "whole number"),
        (f"{RUN}/sample?sample=a1&position=٣", "whole number"),
        (f"{RUN}/sample?sample=a1&space=s9' OR 1=1 --", "has no space"),
        (f"{RUN}/sample?sample={'x' * 501}", "at most 500 characters"),
        (f"{RUN}/features?layer=77", "no space at layer 77"),
        (f"{RUN}/features?stage=x' OR 1=1", "has no stage"),
        (f"{RUN}/features?by=nix", "has the statistic"),
        (f"{RUN}/samples?offset={'0' * 11}{'9' * 40}", "a whole number from 0 to 1,000,000,000"),
        (f"{RUN}/games?outcome=nix", "No game of run full-1 ended in 'nix'. Outcomes: "),
        (f"{RUN}/game?game=g1' OR '1'='1", "has no game"),
        (f"{RUN}/comparison?comparison=c1' OR 1=1", "has no comparison"),
        (f"{RUN}/comparison?comparison=c1&low=nan", "write a number"),
        (f"{RUN}?table=../x&as=csv", "Download a table with"),
        (f"{RUN}?table=stages&as=exe", "Download a table with"),
        ("/compare?a=full-1", "needs ?b="),
        ("/?top=abc", "top: this page does not read it"),
        (f"{RUN}/features?layr=2", "Did you mean 'layer'"),
        (f"{RUN}/features?top=abc", "The page reads: layer, stage, by, significant."),
        (f"{RUN}/features?layer=abc", "layer=abc: write a whole number"),
        (f"{RUN}/feature?address=2/5&<b>=1", "<b>: this page does not read it"),
        ("/run/full-2", "Choose one from the first page"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_else_is_read(
    get: Get, path: str, message: str
) -> None:
    place, mark, query = path.partition("?")
    answer = get(place + mark + quote(query, safe="=&+"))
    assert answer.status == 404
    assert message in html.unescape(answer.text)


def test_a_failure_is_a_page_too(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Library) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr(Library, "states", broken)
    with pytest.raises(RuntimeError):  # the server prints it; the answer was sent before
        get("/")


def test_a_sample_that_several_stages_wrote_is_listed_once(tmp_path: Path) -> None:
    store = open_store(tmp_path, create=True)
    with store.writer():
        commit(store, "k1", "prompts", "twice-1", {"samples": SAMPLES})
        commit(store, "k2", "more", "twice-1", {"samples": SAMPLES[:2]})
        store.record_run(run="twice-1", name="twice", state="done", steps=["k1", "k2"])
    (grid,) = samples(Library(tmp_path), Query({}), "twice-1").grids
    assert grid.frame["sample"].to_list() == ["a1", "a2", "a/3?x=1&y"]
    assert grid.parts is not None
    assert pl.concat(list(grid.parts()))["sample"].to_list() == ["a1", "a2", "a/3?x=1&y"]
