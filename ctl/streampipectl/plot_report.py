"""The report's main charts as one PNG, for those who have matplotlib (the extra "plot")."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

from streampipectl.figures import entries, mapping, number, part
from streampipectl.html_charts import LINES, drifts
from streampipectl.html_results import verdict
from streampipectl.html_style import LIGHT
from streampipectl.svg_chart import scale

SIZE: Final = (11.0, 8.5)  # inches
DOTS: Final = 150  # per inch
STYLES: Final = {"blue": "-", "orange": "--", "grey": ":"}


class NoMatplotlibError(Exception):
    """It is not installed."""


def picture(answer: Mapping[str, Any]) -> bytes:
    """PNG: error over time, predicted against actual, calibration, coverage; what is missing is said in its place."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoMatplotlibError(
            "--plot needs matplotlib, which is not there: pip install 'streampipe-daemon[plot]'; --html needs nothing"
        ) from error
    results = mapping(answer, "results")
    figure = Figure(figsize=SIZE, layout="constrained")
    figure.suptitle(_plain(verdict(results)), fontsize=11, fontweight="bold", wrap=True)
    grid = figure.add_gridspec(3, 2, height_ratios=(3, 3.2, 1.8))
    for place, title, draw in (
        (grid[0, :], "error over time", _error),
        (grid[1, 0], "predicted against actual", _scatter),
        (grid[1, 1], "calibration", _calibration),
        (grid[2, :], "interval coverage", _coverage),
    ):
        axes = figure.add_subplot(place)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        if not draw(axes, results):
            axes.set_axis_off()
            axes.text(0, 0.5, "The report has no data for this.", color=LIGHT["soft"])
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=DOTS)
    return target.getvalue()


def _error(axes: Any, results: Mapping[str, Any]) -> bool:
    bins = entries(results, "curve", "bins")
    drawn = []
    for name, colour, text in LINES:
        points = _points(bins, name)
        if points:
            drawn += [value for _, value in points]
            axes.plot(*zip(*points, strict=True), color=LIGHT[colour], linestyle=STYLES[colour], label=text)
    if drawn and scale(drawn, log=True).log:
        axes.set_yscale("log")
    return _finished(axes, results, bool(drawn))


def _coverage(axes: Any, results: Mapping[str, Any]) -> bool:
    points = _points(entries(results, "curve", "bins"), "covered")
    if points:
        axes.plot(*zip(*points, strict=True), color=LIGHT["blue"], label="covered")
    target = number(results, "coverage", "target")
    if target is not None:
        axes.axhline(target, color=LIGHT["soft"], linestyle="--", label="aim")
    return _finished(axes, results, bool(points))


def _finished(axes: Any, results: Mapping[str, Any], there: bool) -> bool:
    if there:
        for each in drifts(results):
            axes.axvline(each.row, color=LIGHT["red"], linestyle="--", linewidth=1)
        axes.set_xlabel("rows")
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return there


def _scatter(axes: Any, results: Mapping[str, Any]) -> bool:
    sample = part(results, "sample")
    rows = [[number(v) for v in row] for row in sample or () if isinstance(row, list | tuple) and len(row) == 4]
    known = [(p, a) for p, a, _, _ in rows if p is not None and a is not None]
    spans = [(p, low, high) for p, a, low, high in rows if None not in (p, a, low, high)]
    if spans:
        axes.vlines(*zip(*spans, strict=True), color=LIGHT["blue"], alpha=0.15, linewidth=4)
    if known:
        axes.plot(*zip(*known, strict=True), ".", color=LIGHT["blue"], markersize=4)
        axes.set(xlabel="predicted", ylabel="actual")
        axes.axline((known[0][0], known[0][0]), slope=1, color=LIGHT["soft"], linestyle="--", linewidth=1)
    return bool(known)


def _calibration(axes: Any, results: Mapping[str, Any]) -> bool:
    pairs = [(number(b, "predicted"), number(b, "actual")) for b in entries(results, "calibration")]
    known = sorted((p, a) for p, a in pairs if p is not None and a is not None)
    if known:
        axes.plot(*zip(*known, strict=True), "o-", color=LIGHT["blue"], markersize=4)
        axes.set(xlabel="predicted, mean of a bin", ylabel="actual, mean")
        axes.axline((known[0][0], known[0][0]), slope=1, color=LIGHT["soft"], linestyle="--", linewidth=1)
    return bool(known)


def _points(bins: list[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    found = [(number(b, "from"), number(b, "rows") or 0.0, number(b, name)) for b in bins]
    return [(start + rows / 2, value) for start, rows, value in found if start is not None and value is not None]


def _plain(text: str) -> str:
    """$ would begin a formula."""
    return text.replace("$", r"\$")
