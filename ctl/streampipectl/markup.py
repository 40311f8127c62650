"""HTML and SVG as values: whatever is not `Html` already is escaped where it enters. Pure.

Names of columns and stages are what users wrote, so there is no other way for text to come into a page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from streampipectl.render import clean

VOID: Final = {"meta", "br"}
"""Elements without an end."""

NAME_MAX: Final = 80  # letters of a name that are shown


class Html(str):
    """Markup; every other string is text."""

    __slots__ = ()


Child = str | None


def tag(name: str, *children: Child, **attributes: str | float | None) -> Html:
    """An element. In names of attributes a last `_` goes and every other becomes `-`; None leaves out.

    >>> tag("td", "a < b", class_="num", data_row=3)
    '<td class="num" data-row="3">a &lt; b</td>'
    """
    given = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{escaped(value if isinstance(value, str) else short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{name}{given}>{joined(children)}{end}")


def joined(children: Iterable[Child]) -> Html:
    return Html(
        "".join(child if isinstance(child, Html) else escaped(child) for child in children if child is not None)
    )


def escaped(text: str) -> str:
    """As text or as an attribute's value, on one line and without control characters; no line begins with a %."""
    return html.escape(clean(text)).replace(" %", "&nbsp;%")


def named(name: Child) -> Child:
    """A name that may be long and has no spaces: it breaks behind its underscores.

    >>> named("a_b")
    'a_<wbr>b'
    """
    if name is None or isinstance(name, Html):
        return name
    shown = name if len(name) <= NAME_MAX else f"{name[: NAME_MAX - 1]}…"
    return Html(escaped(shown).replace("_", "_<wbr>"))


def short(number: float) -> str:
    """A coordinate: two decimals place a point within a hundredth of a pixel's share.

    >>> short(12.0), short(3.14159)
    ('12', '3.14')
    """
    return f"{number:.2f}".rstrip("0").rstrip(".")


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], caption: str, left: int = 1) -> Html:
    """A table whose first column names its rows; the first `left` columns are words, the others figures."""
    kinds = [None if place < left else "num" for place in range(len(head))]
    top = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)))
    body = [
        tag(
            "tr",
            tag("th", named(row[0]), scope="row"),
            *(tag("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
        )
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body))
    return tag("div", whole, class_="scroll", role="region", aria_label=caption, tabindex="0")


def details(summary: str, *children: Child) -> Html:
    return tag("details", tag("summary", summary), *children)


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names with values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts")
