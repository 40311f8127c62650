"""Charts as SVG in an HTML page: scales, ticks, axes, paths. Pure.

Places are percentages of the plot and texts have their own size, so a chart is as wide as its page and its letters as
large as the page's, on a phone too. A viewBox would shrink both, so only paths have one, stretched, and their strokes
keep their width. Labels of the axes stand outside the SVG's box, in the padding of the `div` around it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from streampipectl.figures import LARGE, tick
from streampipectl.markup import Child, Html, short, tag

LOG_FROM: Final = 30.0  # largest through smallest value, from which a linear axis shows the large ones alone
PAD: Final = 0.05  # of a linear axis' length, left free at both ends
SIDE: Final = 1000.0  # of a path's own coordinates

Point = tuple[float, float | None]
"""x and y; None is a gap in the line."""


class Scale(NamedTuple):
    """From values to shares of an axis, 0 to 1."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Values beyond the ends lie at them.

        >>> Scale(0, 10).share(2.5), Scale(1, 100, log=True).share(10), Scale(0, 10).share(99)
        (0.25, 0.5, 1.0)
        """
        value = min(max(value, self.low), self.high)
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)  # halved: the length may exceed a float

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values, at most `wanted` + 1 or so."""
        return _decades(self.low, self.high, wanted) if self.log else _steps(self.low, self.high, wanted)


def scale(values: Iterable[float | None], *, zero: bool = False, log: bool = False, pad: float = PAD) -> Scale:
    """An axis for these. `zero`: it shall be seen; `log`: allowed, where it helps."""
    known = [value for value in values if value is not None and abs(value) < LARGE]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    positive = [value for value in known if value > 1 / LARGE]
    if log and positive and high > LOG_FROM * min(positive) and len(positive) * 10 >= len(known) * 9:
        low = min(positive)
        margin = math.exp((math.log(high) - math.log(low)) * pad)
        return Scale(low / margin, high * margin, log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= sys.float_info.min:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
        low = 0.0 if zero and low < 0 <= high and known and min(known) >= 0 else low
    margin = (high - low) * pad
    return Scale(low if zero and low == 0 else low - margin, high if zero and high == 0 else high + margin)


def _steps(low: float, high: float, wanted: int) -> list[float]:
    rough = (high - low) / max(wanted, 1)
    if not (math.isfinite(rough) and rough > abs(high) * 1e-12):
        return [low, high]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * nice for nice in (1, 2, 2.5, 5) if power * nice >= rough * 0.999), power * 10)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [float(f"{(first + place) * step:.12g}") for place in range(count)]


def _decades(low: float, high: float, wanted: int) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    nice: Sequence[int] = (1, 2, 5) if last - first <= 3 else (1,)
    every = max(1, math.ceil((last - first) / wanted))
    found = [float(f"{digit}e{power}") for power in range(first, last + 1, every) for digit in nice]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


class Plot(NamedTuple):
    """A chart with axes. `marks` lie above the grid, within the plot."""

    name: str
    title: str
    description: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    marks: Sequence[Html]
    height: int = 260
    y_ticks: bool = True

    def html(self) -> Html:
        named = {"aria_labelledby": f"{self.name}-title {self.name}-text"}
        drawing = tag(
            "svg",
            tag("title", self.title, id=f"{self.name}-title"),
            tag("desc", self.description, id=f"{self.name}-text"),
            *self._axes(),
            *self.marks,
            role="img",
            width="100%",
            height=self.height,
            **named,
        )
        return tag("div", drawing, class_="frame" if self.y_ticks else "frame bare")

    def _axes(self) -> list[Html]:
        parts: list[Html] = []
        for value in self.y.ticks() if self.y_ticks else ():
            place = down(self.y, value)
            parts.append(line(0, place, 100, place, "grid"))
            parts.append(label(tick(value), 0, place, dx="-8", dy=".32em", anchor="end"))
        for value in self.x.ticks(4):
            place = across(self.x, value)
            parts.append(tag("line", x1=f"{short(place)}%", x2=f"{short(place)}%", y1="100%", y2="100%", class_="axis"))
            parts.append(label(tick(value), place, 100, dy="18"))
        parts.append(line(0, 100, 100, 100, "axis"))
        parts.append(label(self.x_label, 100, 100, dy="36", anchor="end", kind="name"))
        if self.y_label:
            parts.append(
                label(self.y_label, 0, 0, dx="-46" if self.y_ticks else "0", dy="-22", anchor="start", kind="name")
            )
        return parts


def across(scale: Scale, value: float) -> float:
    """Per cent from the left."""
    return 100 * scale.share(value)


def down(scale: Scale, value: float) -> float:
    """Per cent from the top."""
    return 100 - 100 * scale.share(value)


def line(x1: float, y1: float, x2: float, y2: float, kind: str, about: str | None = None) -> Html:
    ends = {"x1": f"{short(x1)}%", "y1": f"{short(y1)}%", "x2": f"{short(x2)}%", "y2": f"{short(y2)}%"}
    return tag("line", _about(about), class_=kind, **ends)


def dot(x: float, y: float, kind: str, radius: float = 2.5, about: str | None = None) -> Html:
    return tag("circle", _about(about), cx=f"{short(x)}%", cy=f"{short(y)}%", r=radius, class_=kind)


def bar(x: float, y: float, wide: float, high: str, kind: str, about: str | None = None) -> Html:
    """A rectangle, `high` in any unit of SVG."""
    place = {"x": f"{short(x)}%", "y": f"{short(y)}%", "width": f"{short(max(wide, 0.3))}%", "height": high}
    return tag("rect", _about(about), rx="2", class_=kind, **place)


def label(
    text: str, x: float, y: float, *, dx: str = "0", dy: str = "0", anchor: str = "middle", kind: str = "tick"
) -> Html:
    place = {"x": f"{short(x)}%", "y": f"{short(y)}%"}
    return tag("text", text, dx=dx, dy=dy, text_anchor=anchor, class_=kind, **place)


def curve(points: Iterable[Point], x: Scale, y: Scale, kind: str) -> Html:
    """A line through the points, broken at gaps; a point alone between gaps is a short stroke."""
    return _stretched(tag("path", d=_path(points, x, y), class_=kind))


def area(points: Sequence[Point], x: Scale, y: Scale, kind: str) -> Html:
    """The room between the line and the lower end of the axis; gaps lie at the end."""
    if not points:
        return Html("")
    floor = [(place, y.low if value is None else value) for place, value in points]
    closed = [(floor[0][0], y.low), *floor, (floor[-1][0], y.low)]
    return _stretched(tag("path", d=_path(closed, x, y) + "Z", class_=kind))


def band(points: Iterable[tuple[float, float, float]], x: Scale, y: Scale, kind: str) -> Html:
    """A thick stroke from low to high at each x."""
    strokes = "".join(f"M{_at(x, y, place, low)}V{short(SIDE - SIDE * y.share(high))}" for place, low, high in points)
    return _stretched(tag("path", d=strokes, class_=kind))


def _path(points: Iterable[Point], x: Scale, y: Scale) -> str:
    parts: list[str] = []
    known = [(place, value) for place, value in points]
    for (_, before), (place, value), (_, after) in zip(
        [(0, None), *known], known, [*known[1:], (0, None)], strict=False
    ):
        if value is None:
            continue
        where = _at(x, y, place, value)
        parts.append(f"{'M' if before is None else 'L'}{where}")
        if before is None and after is None:
            parts.append("h2")
    return "".join(parts)


def _at(x: Scale, y: Scale, place: float, value: float) -> str:
    return f"{short(SIDE * x.share(place))} {short(SIDE - SIDE * y.share(value))}"


def _stretched(path: Html) -> Html:
    box = f"0 0 {SIDE:g} {SIDE:g}"
    return tag("svg", path, viewBox=box, preserveAspectRatio="none", width="100%", height="100%")


def _about(text: str | None) -> Child:
    """Shown when the pointer rests there."""
    return None if text is None else tag("title", text)
