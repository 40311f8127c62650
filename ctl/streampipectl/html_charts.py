"""The report's charts: each from the results to a figure with its legend and its data as a table; None where there is
nothing to draw. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from streampipectl.figures import entries, figure, number, part, percent, word
from streampipectl.markup import Html, details, tag
from streampipectl.markup import table as make_table
from streampipectl.svg_chart import Plot, Scale, across, band, bar, curve, dot, down, label, line, scale

LANE: Final = 44  # pixels of a member in the timeline
MARKS_MAX: Final = 40  # drawn, the newest; more would hide the lines, and the table has all
LINES: Final = (
    ("mse", "blue", "model"),
    ("running_mean", "orange", "running mean"),
    ("last_value", "grey", "last value"),
)
KINDS: Final = {
    "drift": ("M-5 0L5 0L0 8Z", "drift of the error"),
    "shift": ("M0 -1L5 4L0 9L-5 4Z", "a column's lasting shift"),
    "label_shift": ("M-4 0H4V8H-4Z", "the label's lasting shift"),
}
"""Of marks: a shape and its meaning."""


class Drift(NamedTuple):
    row: float
    kind: str
    member: str


def drifts(results: Mapping[str, Any]) -> list[Drift]:
    found = []
    for each in entries(results, "model", "drifts"):
        row = number(each, "row")
        if row is not None:
            found.append(Drift(row, word(each, "kind"), word(each, "member")))
    return found


def error(results: Mapping[str, Any]) -> Html | None:
    """The model's error and those of guessing, over the stream."""
    bins = _bins(results)
    values = [number(each, name) for each in bins for name, _, _ in LINES]
    if all(value is None for value in values):
        return None
    found = drifts(results)
    x, y = _stream(bins, results), scale(values, zero=True, log=True)
    lines = [line_ for line_ in LINES if any(number(each, line_[0]) is not None for each in bins)]
    drawn = [curve(_points(bins, name), x, y, kind) for name, kind, _ in reversed(lines)]
    name = "squared error" if part(results, "task") != "classification" else "error"
    plot = Plot(
        "error",
        "Error over time",
        f"Mean {name} of the model and of guessing, for every {_width(results)} rows of the stream, with "
        f"{len(found)} marks where the stream changed.",
        x,
        y,
        "rows",
        f"mean {name}{', logarithmic' if y.log else ''}",
        [*_marks(found, x), *drawn],
        300,
    )
    keys = [_key(kind, text) for _, kind, text in lines] + _kinds(found)
    rows = [
        [figure(number(b, "from")), *(figure(number(b, n)) for n in ("rows", *(n for n, _, _ in lines)))] for b in bins
    ]
    head = ["from row", "rows", *(text for _, _, text in lines)]
    data = [details("The same as a table", make_table(head, rows, "Error over time"))]
    if found:
        drawn_of = f", the newest {MARKS_MAX} are drawn" if len(found) > MARKS_MAX else ""
        told = [[figure(d.row), _meaning(d.kind), d.member] for d in found]
        data.append(
            details(f"The marks ({len(found)}{drawn_of})", make_table(["row", "what", "member"], told, "Marks", 3))
        )
    return tag("figure", _legend(keys), plot.html(), *data)


def scatter(results: Mapping[str, Any]) -> Html | None:
    """What was predicted for the newest held-out rows, with intervals, against what came."""
    found = part(results, "sample")
    sample = [row for row in map(_quadruple, found if isinstance(found, list | tuple) else ()) if row is not None]
    if not sample:
        return None
    axis = scale([value for row in sample for value in row[:2]])
    bands = [(p, low, high) for p, _, low, high in sample if low is not None and high is not None]
    outside = [not low <= a <= high if low is not None and high is not None else False for _, a, low, high in sample]
    dots = [
        dot(across(axis, p), down(axis, a), "out" if out else "dot", 3 if out else 2.2)
        for (p, a, _, _), out in sorted(zip(sample, outside, strict=True), key=lambda each: each[1])
    ]
    says = f"{sum(outside)} of {len(sample)} rows lie outside of their interval." if bands else "Without intervals."
    plot = Plot(
        "scatter", "Predicted against actual", f"The newest {len(sample)} held-out rows. {says}", axis, axis,
        "predicted", "actual", [band(bands, axis, axis, "interval"), line(0, 100, 100, 0, "aim"), *dots], 320,
    )  # fmt: skip
    keys = [_dot_key("dot", "a row")]
    if bands:
        keys += [_key("interval", "interval", "M1 6H25"), _dot_key("out", "outside of it")]
    rows = [[figure(value) for value in row] for row in sample]
    table = make_table(["predicted", "actual", "low", "high"], rows, "Predicted against actual", 0)
    return tag("figure", _legend([*keys, _key("aim", "equal")]), plot.html(), details("The same as a table", table))


def calibration(results: Mapping[str, Any]) -> Html | None:
    """Whether what is predicted comes, on average."""
    bins = [b for b in entries(results, "calibration") if None not in (number(b, "predicted"), number(b, "actual"))]
    if not bins:
        return None
    pairs = [(number(b, "predicted") or 0.0, number(b, "actual") or 0.0) for b in bins]
    axis = scale([value for pair in pairs for value in pair])
    dots = [dot(across(axis, p), down(axis, a), "mean", 4.5, f"{figure(p)}: {figure(a)}") for p, a in pairs]
    marks = [line(0, 100, 100, 0, "aim"), curve(sorted(pairs), axis, axis, "blue"), *dots]
    plot = Plot(
        "calibration", "Calibration", f"The mean of what came for each of {len(bins)} bins of predictions.", axis, axis,
        "predicted, mean of a bin", "actual, mean", marks, 320,
    )  # fmt: skip
    names = ("low", "high", "rows", "predicted", "actual")
    rows = [[figure(number(b, name)) for name in names] for b in bins]
    table = make_table(names, rows, "Calibration", 0)
    keys = [_dot_key("mean", "a bin of predictions"), _key("aim", "equal")]
    return tag("figure", _legend(keys), plot.html(), details("The same as a table", table))


def coverage(results: Mapping[str, Any]) -> Html | None:
    """The share of rows that their interval held, over the stream."""
    bins = _bins(results)
    shares = [number(each, "covered") for each in bins]
    known = [share for share in shares if share is not None]
    if not known:
        return None
    target = number(results, "coverage", "target")
    x, low = _stream(bins, results), min([*known, *([] if target is None else [target])])
    y = Scale(max(0.0, min(0.75, low - 0.05)), 1.0)
    found = drifts(results)
    marks = [*_marks(found, x), curve(_points(bins, "covered"), x, y, "blue")]
    if target is not None:
        marks.insert(0, line(0, down(y, target), 100, down(y, target), "aim"))
    says = f"Between {percent(min(known))} and {percent(max(known))}; the aim is {percent(target)}."
    plot = Plot("coverage", "Interval coverage over time", says, x, y, "rows", "share of rows covered", marks, 180)
    keys = [_key("blue", "covered"), *([_key("aim", f"aim, {percent(target, 0)}")] if target is not None else [])]
    rows = [[figure(number(b, "from")), figure(number(b, "rows")), percent(number(b, "covered"))] for b in bins]
    table = make_table(["from row", "rows", "covered"], rows, "Interval coverage", 0)
    return tag("figure", _legend([*keys, *_kinds(found)]), plot.html(), details("The same as a table", table))


def champions(results: Mapping[str, Any]) -> Html | None:
    """Who served from when to when: a lane for each member."""
    spans = [each for each in entries(results, "model", "timeline") if number(each, "from") is not None]
    if not spans:
        return None
    trivial = {word(m, "name") for m in entries(results, "model", "members") if part(m, "trivial") is True}
    found = drifts(results)
    edges = [number(each, name) or 0.0 for each in spans for name in ("from", "to")]
    end = max(
        [*edges, *(d.row for d in found), number(results, "model", "rows_seen") or number(results, "rows") or 0.0]
    )
    x = Scale(min(0.0, *edges), end or 1.0)
    names = list(dict.fromkeys(word(each, "member") for each in spans))
    marks = _marks(found, x)
    for lane, name in enumerate(names):
        top = 100 * lane / len(names)
        place = {"y": f"{top:.2f}%"}
        marks.append(
            tag("rect", x="0", width="100%", height="12", rx="2", class_="lane", transform="translate(0 22)", **place)
        )
        marks.append(label(name if len(name) <= 40 else f"{name[:39]}…", 0, top, dy="15", anchor="start", kind="who"))
    for each in spans:
        name = word(each, "member")
        begin, to = number(each, "from") or 0.0, number(each, "to")
        about = f"{name}: from row {figure(begin)} {'on' if to is None else f'to {figure(to)}'}. {word(each, 'reason')}"
        left, right = across(x, begin), across(x, end if to is None else to)
        kind = "fallback" if name in trivial else "champion"
        block = bar(left, 100 * names.index(name) / len(names), right - left, "12", kind, about)
        marks.append(tag("g", block, transform="translate(0 22)"))
    says = f"{len(spans)} spans of {len(names)} members; the last is {names and word(spans[-1], 'member')}."
    plot = Plot("champions", "Champion timeline", says, x, Scale(0, 1), "rows", "", marks, LANE * len(names), False)
    keys = [
        _block_key("champion", "serves"),
        *([_block_key("fallback", "serves, and is a guess")] if trivial & set(names) else []),
    ]
    rows = [
        [
            word(s, "member"),
            word(s, "reason"),
            figure(number(s, "from")),
            figure(number(s, "to")) if number(s, "to") is not None else "now",
        ]
        for s in spans
    ]
    table = make_table(["member", "reason", "from row", "to row"], rows, "Who served, and why", 2)
    return tag("figure", _legend([*keys, *_kinds(found)]), plot.html(), details("The same as a table", table))


def _bins(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in entries(results, "curve", "bins") if number(each, "from") is not None]


def _width(results: Mapping[str, Any]) -> str:
    return figure(number(results, "curve", "rows_per_bin"))


def _stream(bins: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> Scale:
    """The axis of the stream's rows: to its end."""
    starts = [number(each, "from") or 0.0 for each in bins]
    last = starts[-1] + (number(results, "curve", "rows_per_bin") or 0.0)
    return Scale(min(0.0, *starts), max(1.0, min(last, number(results, "rows") or last), *starts))


def _points(bins: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float | None]]:
    """Each value at the middle of its bin."""
    return [((number(b, "from") or 0.0) + (number(b, "rows") or 0.0) / 2, number(b, name)) for b in bins]


def _quadruple(row: Any) -> tuple[float, float, float | None, float | None] | None:
    if not isinstance(row, list | tuple) or len(row) != 4:
        return None
    predicted, actual, low, high = map(number, row)
    return None if predicted is None or actual is None else (predicted, actual, low, high)


def _marks(found: Sequence[Drift], x: Scale) -> list[Html]:
    marks = []
    for each in found[-MARKS_MAX:]:
        place, about = across(x, each.row), f"row {figure(each.row)}: {_meaning(each.kind)} ({each.member})"
        shape = tag("path", tag("title", about), d=KINDS.get(each.kind, KINDS["drift"])[0], class_="mark")
        marks.append(line(place, 0, place, 100, "red", about))
        marks.append(tag("svg", shape, x=f"{place:.2f}%", y="-12", width="1", height="1", overflow="visible"))
    return marks


def _meaning(kind: str) -> str:
    return KINDS[kind][1] if kind in KINDS else kind


def _kinds(found: Sequence[Drift]) -> list[Html]:
    there = [kind for kind in KINDS if any(each.kind == kind for each in found)]
    return [
        _item(tag("path", d=KINDS[kind][0], transform="translate(13 2)", class_="mark"), KINDS[kind][1])
        for kind in there
    ]


def _legend(keys: Sequence[Html]) -> Html:
    return tag("ul", *keys, class_="legend")


def _item(sign: Html, text: str) -> Html:
    return tag("li", tag("svg", sign, viewBox="0 0 26 12", aria_hidden="true"), text)


def _key(kind: str, text: str, path: str = "M1 6H25") -> Html:
    return _item(tag("path", d=path, class_=kind), text)


def _dot_key(kind: str, text: str) -> Html:
    return _item(tag("circle", cx="13", cy="6", r="4", class_=kind), text)


def _block_key(kind: str, text: str) -> Html:
    return _item(tag("rect", x="1", width="24", height="12", rx="2", class_=kind), text)
