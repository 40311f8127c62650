"""The report as a page: whole, safe, legible, and made of whatever the answer has."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipectl import html_results
from streampipectl.html_report import page
from streampipectl.html_style import DARK, GROUNDS, LIGHT, sheet
from streampipectl.markup import VOID, tag
from streampipectl.svg_chart import Scale, scale
from support.report_answer import DRIFT_ROW, HOSTILE, answer

ABOUT = {"pipeline": "friedman", "version": "0.1.0"}
NOW = 1_700_003_600.0
NO_DATA = "The report has no data for this."
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer", "h1", "h2", "h3", "h4",
    "p", "div", "span", "dl", "dt", "dd", "ul", "li", "small", "wbr", "figure", "details", "summary", "table",
    "caption", "thead", "tbody", "tr", "th", "td", "svg", "g", "path", "line", "circle", "rect", "text", "desc",
}  # fmt: skip


class Reader(HTMLParser):
    """Elements, attributes and text of a page, and that every element ends where it should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID | {"wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def section(text: str, name: str) -> str:
    """What lies between the begin and the end of a section without sections in it."""
    return next(part for part in text.split("<section") if f'id="{name}"' in part.split(">", 1)[0])


@pytest.mark.parametrize("hostile", [False, True])
def test_page_is_whole_and_static(hostile: bool) -> None:
    """Every element is one that does nothing and ends where it should; nothing refers to anything outside, no
    attribute runs anything, and names are unique."""
    reader = Reader(page(answer(hostile), ABOUT, NOW))
    assert {name for name, _ in reader.elements} <= ELEMENTS
    attributes = {name for _, about in reader.elements for name in about}
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "action", "xlink:href")}
    names = [about["id"] for _, about in reader.elements if "id" in about]
    assert len(names) == len(set(names))
    labels = {name for _, about in reader.elements for name in (about.get("aria-labelledby") or "").split()}
    assert labels <= set(names)
    assert "url(" not in sheet()
    assert "@import" not in sheet()


def test_strangers_names_are_text() -> None:
    """Names of columns, members, stages and reasons that would be markup are shown as they are, and are not markup."""
    text = page(answer(hostile=True), {"pipeline": HOSTILE}, NOW)
    assert "<script" not in text
    assert "".join(Reader(text).text).count(HOSTILE) >= 6


def test_every_section_is_there() -> None:
    """With a whole answer no section says that it has no data, and every chart has a title and a description."""
    text = page(answer(), ABOUT, NOW)
    assert NO_DATA not in text
    drawings = re.findall(r'<svg role="img".*?</desc>', text)
    assert len(drawings) == 5 + 2 * 9
    assert all(re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", each) for each in drawings)


def test_results_do_not_depend_on_the_run() -> None:
    """The half "results" is the same to the letter whatever operations, time and daemon were."""
    one = page(answer(), ABOUT, NOW)
    other = page({**answer(), "operations": {"uptime": 7.0}}, {**ABOUT, "version": "9"}, NOW + 1)
    assert one != other
    assert one.split('id="operations"')[0] == other.split('id="operations"')[0]


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all parts of an answer; of long lists to the first and the last entries."""
    if way:
        yield way
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*way, key))
    elif isinstance(value, list):
        for place in sorted({0, len(value) - 1} & set(range(len(value)))):
            yield from places(value[place], (*way, place))


def small() -> dict[str, Any]:
    """An answer with everything once or twice."""
    found = answer()
    results = found["results"]
    results["curve"]["bins"] = results["curve"]["bins"][:2]
    results["sample"], results["calibration"] = results["sample"][:2], results["calibration"][:2]
    results["model"]["members"] = results["model"]["members"][:2]
    results["gate"]["columns"] = {name: results["gate"]["columns"][name] for name in ("x0", "x3")}
    history = found["operations"]["processes"]["history"]
    found["operations"]["processes"]["history"] = {name: history[name][:2] for name in ("trainer", "launcher")}
    return found


STRANGE = (None, "x", -1, 10**400, float("nan"), 1e308, [], {}, [None], {"x": None}, True)


def test_anything_may_be_missing() -> None:
    """Whatever part of an answer is left out or null, the page is made, and is whole."""
    whole = small()
    for way in places(whole):
        for leave_out in (True, False):
            changed = copy.deepcopy(whole)
            target: Any = changed
            for key in way[:-1]:
                target = target[key]
            if leave_out:
                del target[way[-1]]
            else:
                target[way[-1]] = None
            Reader(page(changed, ABOUT, NOW))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(places(small()), key=str)), st.sampled_from(STRANGE)), max_size=4))
def test_anything_may_be_strange(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Nor does a page mind values of other kinds or beyond all bounds; it never shows nan or inf."""
    changed = small()
    for way, value in changes:
        target: Any = changed
        try:
            for key in way[:-1]:
                target = target[key]
            target[way[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    text = page(changed, ABOUT, NOW)
    Reader(text)
    assert not re.search(r'="(nan|inf)|\b(nan|inf)%', text)


@pytest.mark.parametrize("name", ["curve", "sample", "calibration", "model", "gate", "coverage"])
def test_what_is_missing_is_said(name: str) -> None:
    """A part that the answer lacks leaves out its section with a sentence."""
    found = answer()
    del found["results"][name]
    where = {"curve": ("error-over-time", "covered"), "sample": ("predicted",), "calibration": ("means",),
             "model": ("members", "served"), "gate": ("defects",), "coverage": ()}  # fmt: skip
    text = page(found, ABOUT, NOW)
    assert text.count(NO_DATA) == len(where[name])
    assert all(NO_DATA in section(text, each) for each in where[name])


def test_empty_answer() -> None:
    """A page of nothing says so in every section."""
    text = page({}, None, None)
    Reader(text)
    assert text.count(NO_DATA) == 9 + 5
    assert "<h1>The report has no verdict.</h1>" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "Good: over the last 1,000 rows the error is 95.7 % below that of the best guess, the running mean."),
        ({"verdict": "not_better", "skill": {"running_mean": {"last": 0.2}, "last_value": {"last": -0.1}}},
         "Not better than guessing: over the last 1,000 rows guessing the last value is at least as good."),
        ({"verdict": "not_enough_data", "last": {"rows": 12}}, "Not enough data: 12 rows could be scored so far."),
        ({"verdict": "odd"}, "The report has no verdict."),
    ],
)  # fmt: skip
def test_verdict_in_a_sentence(change: dict[str, Any], sentence: str) -> None:
    """The page begins with one sentence for each verdict, the only heading of its rank."""
    found = answer()
    found["results"] |= change
    assert html_results.verdict(found["results"]) == sentence
    assert page(found, ABOUT, NOW).count("<h1>") == 1


def test_marks_lie_where_the_stream_changed() -> None:
    """A drift's mark stands at its share of the stream, in the error's chart and in the others."""
    text = page(answer(), ABOUT, NOW)
    place = f"{100 * DRIFT_ROW / 100_000:g}%"
    for name in ("error-over-time", "covered", "served"):
        assert f'<line class="red" x1="{place}" y1="0%" x2="{place}" y2="100%">' in section(text, name)


def test_many_marks_hide_nothing() -> None:
    """Of very many marks the newest are drawn, and the table has all."""
    found = answer()
    found["results"]["model"]["drifts"] = [{"row": 100 * n, "kind": "drift", "member": "m"} for n in range(500)]
    text = section(page(found), "error-over-time")
    assert text.count('<line class="red"') == 40
    assert 'x1="49.9%"' in text
    assert "The marks (500, the newest 40 are drawn)" in text
    assert text.count("<tr>") == 1 + 100 + 1 + 500


def test_data_is_also_a_table() -> None:
    """What a chart draws can be read as numbers: a row for each bin, row of the sample, span and process."""
    text = page(answer(), ABOUT, NOW)
    rows = {name: section(text, name).count("<tr>") for name in ("error-over-time", "predicted", "served", "processes")}
    assert rows == {"error-over-time": 1 + 100 + 1 + 3, "predicted": 1 + 256, "served": 1 + 5, "processes": 1 + 9}


def test_bars_are_shares_of_the_worst() -> None:
    """In the table of defects the bar of the largest count is as wide as its cell, others in proportion."""
    widths = re.findall(r">([0-9,]+)<span class=\"bar\" style=\"width:([0-9.]+)%\"", section(page(answer()), "defects"))
    assert ("2,230", "100.0") in widths
    assert ("812", "36.4") in widths


def test_a_member_that_learns_no_more_is_told() -> None:
    """One that has grown to its limit has a sign beside its name and a sentence that explains it; no other has."""
    found = answer()
    assert "limit" not in section(page(found), "members")
    for place, full in ((3, True), (4, False), (5, None)):
        found["results"]["model"]["members"][place]["full"] = full
    text = section(page(found), "members")
    assert 'sgd <span class="tag bad">full</span>' in text
    assert text.count("full</span>") == 1
    assert "Grown to the limit: sgd. A full member answers on, and learns no more until begun anew." in text


def luminance(colour: str) -> float:
    """Relative, as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_contrast(palette: dict[str, str]) -> None:
    """Every ink has a contrast of 4.5 on every ground of its scheme."""
    for ground in GROUNDS:
        for name, ink in palette.items():
            dark, light = sorted((luminance(palette[ground]), luminance(ink)))
            assert name in GROUNDS or (light + 0.05) / (dark + 0.05) >= 4.5, f"{name} on {ground}"


def test_colours_are_those_of_the_palette() -> None:
    """The style sheet has no colour beside those that the contrast was computed for."""
    used = set(re.findall(r"var\(--([a-z]+)\)", sheet()))
    assert used <= {*LIGHT, "rule"}
    assert set(LIGHT) == set(DARK)


VALUES = st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=6)


@given(VALUES, st.booleans(), st.booleans())
def test_scales(values: list[float | None], zero: bool, log: bool) -> None:
    """An axis holds all values short of 1e300, from left to right, and its ticks lie on it, not too many."""
    axis = scale(values, zero=zero, log=log)
    known = sorted(value for value in values if value is not None and abs(value) < 1e300)
    shares = [axis.share(value) for value in known]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    if not axis.log:
        assert all(axis.low <= value <= axis.high for value in known)
    ticks = axis.ticks()
    assert len(ticks) <= 16
    assert all(axis.low - 1e-9 * abs(axis.low) <= t + abs(t) / 1000 + 1e-9 for t in ticks[:1])


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Scale(0, 100_000), [0, 20_000, 40_000, 60_000, 80_000, 100_000]),
        (Scale(0.7, 1.0), [0.7, 0.8, 0.9, 1.0]),
        (Scale(0.9, 60, log=True), [1, 2, 5, 10, 20, 50]),
        (Scale(1e-6, 1e6, log=True), [1e-6, 1e-3, 1, 1e3, 1e6]),
    ],
)
def test_ticks(axis: Scale, ticks: list[float]) -> None:
    """Ticks are round numbers."""
    assert axis.ticks() == pytest.approx(ticks)


def test_log_scale_where_it_helps() -> None:
    """An axis is logarithmic when the largest value would flatten the small ones, and only when that is allowed."""
    assert scale([1.0, 2.0, 1000.0], log=True).log
    assert not scale([1.0, 2.0, 3.0], log=True).log
    assert not scale([1.0, 2.0, 1000.0]).log


def test_text_is_escaped_once() -> None:
    """Text that enters is escaped, markup that was made is not escaped again, and control characters are gone."""
    assert tag("p", tag("b", "<&>"), "\x1b[31m\u202e", title='"') == '<p title="&quot;"><b>&lt;&amp;&gt;</b>?[31m?</p>'
