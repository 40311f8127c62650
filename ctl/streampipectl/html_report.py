"""The report as one static page: no script, no network, no font of its own. Pure: an answer in, a page out.

The answer is the daemon's to `report` (docs/specs/report.md). What it lacks is left out with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streampipectl import html_operations, html_results
from streampipectl.figures import mapping, word
from streampipectl.html_style import sheet
from streampipectl.markup import Html, joined, tag

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Said to the browser as well: whatever came into the page by mistake loads and runs nothing."""
PAIRED: Final = ("predicted", "means")
"""Sections that stand side by side where there is room."""

Sections = Sequence[tuple[str, str, str, Callable[[Mapping[str, Any]], Html | None]]]


def page(answer: Mapping[str, Any], about: Mapping[str, Any] | None = None, now: float | None = None) -> str:
    """`about`: what the daemon says of itself, `now`: seconds since the epoch, both for the half "operations" only."""
    results, operations, about = mapping(answer, "results"), mapping(answer, "operations"), about or {}
    name = word(about, "pipeline") if about.get("pipeline") else "streampipe"
    sentence = html_results.verdict(results)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", f"{name}: report"),
        tag("style", Html(sheet())),
    )
    top = tag("header", tag("p", f"{name}, report", class_="over"), html_results.badge(results), tag("h1", sentence))
    halves = tag("main", _results(results), _operations(operations))
    body = tag("body", top, halves, html_operations.made(now, about))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _results(results: Mapping[str, Any]) -> Html:
    says = "They follow from the records alone: the same in every run over them, whatever was killed on the way."
    return _half("results", "Results", says, html_results.tiles(results), results, html_results.SECTIONS)


def _operations(operations: Mapping[str, Any]) -> Html:
    says = "How this run went on this machine: different in every run, and without influence on the results."
    return _half(
        "operations", "Operations", says, html_operations.tiles(operations), operations, html_operations.SECTIONS
    )


def _half(name: str, title: str, says: str, tiles: Html | None, values: Mapping[str, Any], sections: Sections) -> Html:
    parts = [(each[0], _section(values, *each)) for each in sections]
    apart = [section for other, section in parts if other not in PAIRED]
    if pair := [section for other, section in parts if other in PAIRED]:
        place = next(index for index, (other, _) in enumerate(parts) if other in PAIRED)
        apart.insert(place, tag("div", *pair, class_="pair"))
    head = tag("header", tag("h2", title, id=f"{name}-title"), tag("p", says))
    return tag("section", head, tiles, *apart, id=name, aria_labelledby=f"{name}-title")


def _section(
    values: Mapping[str, Any], name: str, title: str, says: str, draw: Callable[[Mapping[str, Any]], Html | None]
) -> Html:
    body = draw(values)
    missing = tag("p", "The report has no data for this.", class_="aside") if body is None else None
    head = joined((tag("h3", title), None if body is None else tag("p", says, class_="aside")))
    return tag("section", head, body, missing, class_="part", id=name)
