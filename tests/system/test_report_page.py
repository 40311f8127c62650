"""The report's page in a real browser: it asks for nothing, fits every screen, and no label covers another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streampipectl.html_report import page
from streampipectl.html_style import DARK, LIGHT
from support.browser import Browser, browser
from support.report_answer import HOSTILE, answer

pytestmark = pytest.mark.system

PHONE, DESK = 360, 1200
BEYOND = """
[...document.body.querySelectorAll("*")].filter(one => {
    const box = one.getBoundingClientRect();
    return !one.closest(".scroll") && box.width && (box.right > WIDTH + 0.5 || box.left < -0.5);
}).map(one => `${one.tagName} ${one.getAttribute("class")} ${one.textContent.slice(0, 40)}`)
"""
"""What sticks out of the window, but for wide tables, which scroll by themselves."""
OVERLAPS = """
[...document.querySelectorAll("svg")].flatMap(drawing => {
    const texts = [...drawing.querySelectorAll(":scope > text")];
    const boxes = texts.map(one => [one.textContent, one.getBoundingClientRect()]);
    return boxes.flatMap(([one, a], place) => boxes.slice(place + 1).filter(([, b]) =>
        a.left < b.right && b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2
    ).map(([other]) => `${one} / ${other}`));
})
"""
"""Pairs of labels of one chart that cover each other; their boxes have 2 px of air above and below the letters."""


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    texts = {"plain": page(answer(), {"pipeline": "p"}, 1.7e9), "hostile": page(answer(True)), "empty": page({})}
    for name, text in texts.items():
        (directory / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: directory / f"{name}.html" for name in texts}


@pytest.mark.parametrize("name", ["plain", "hostile", "empty"])
def test_page_asks_for_nothing_and_complains_of_nothing(tab: Browser, pages: dict[str, Path], name: str) -> None:
    """The browser requests the file alone, has nothing to say on its console, and finds no script."""
    tab.events.clear()
    tab.show(pages[name], DESK)
    asked = [event["request"]["url"] for event in tab.named("Network.requestWillBeSent")]
    assert asked == [pages[name].as_uri()]
    assert tab.named("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert tab.value("document.scripts.length") == 0


def test_strangers_names_are_read(tab: Browser, pages: dict[str, Path]) -> None:
    """A name that would be markup is read on the page as it is, and nothing comes behind the page's end."""
    tab.show(pages["hostile"], DESK)
    assert HOSTILE in tab.value("document.body.innerText")
    assert tab.value("document.body.lastElementChild.tagName") == "FOOTER"


@pytest.mark.parametrize("width", [320, PHONE, 700, DESK])
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_page_fits(tab: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    """At every width, with all details open, nothing but a wide table has to be scrolled sideways, and that within
    itself; no label of a chart covers another."""
    tab.show(pages[name], width)
    tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.value("document.documentElement.scrollWidth") <= width  # innerWidth grows with what is too wide
    assert tab.value(BEYOND.replace("WIDTH", str(width))) == []
    assert tab.value(OVERLAPS) == []


@pytest.mark.parametrize(("scheme", "palette"), [("light", LIGHT), ("dark", DARK)])
def test_page_has_the_readers_scheme(
    tab: Browser, pages: dict[str, Path], scheme: str, palette: dict[str, str]
) -> None:
    """Ground, ink and lines are those of the scheme that the reader prefers."""
    tab.show(pages["plain"], DESK, scheme=scheme)
    colours = {
        "ground": "getComputedStyle(document.body).backgroundColor",
        "ink": "getComputedStyle(document.querySelector('h1')).color",
        "soft": "getComputedStyle(document.querySelector('text.tick')).fill",
        "blue": "getComputedStyle(document.querySelector('path.blue')).stroke",
        "panel": "getComputedStyle(document.querySelector('#operations')).backgroundColor",
    }
    assert {name: tab.value(code) for name, code in colours.items()} == {name: _rgb(palette[name]) for name in colours}


def _rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))})"


def test_print_is_light(tab: Browser, pages: dict[str, Path]) -> None:
    """On paper the page is light, and has no folded tables, which nobody could open."""
    tab.show(pages["plain"], DESK, scheme="dark", media="print")
    assert tab.value("getComputedStyle(document.querySelector('h1')).color") == _rgb(LIGHT["ink"])
    assert tab.value("getComputedStyle(document.querySelector('details')).display") == "none"
    assert tab.value("getComputedStyle(document.querySelector('.part svg')).display") == "block"
