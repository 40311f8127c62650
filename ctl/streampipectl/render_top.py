"""One frame of `streampipectl top`. Pure: what is known, and a size, in; lines out.

Lines are made of spans, which are text and a tone. Text of strangers is cleaned where a span becomes what is written
(`written`), and nowhere else, so that no way leads past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from streampipectl import flow
from streampipectl.cells import cells, shorten
from streampipectl.render import (
    GOOD,
    LEVEL_TONES,
    clean,
    clock,
    count,
    duration,
    epoch_parts,
    figure,
    kept,
    paint,
    percent,
    reason_text,
    since,
    size,
    tone,
    totals,
)
from streampipectl.table import Column, table

SORTS: Final = ("flow", "cpu", "rate", "lag", "name")
KEYS: Final = (
    ("q", "quit"),
    ("p", "pause, and go on with the present"),
    ("s", "sort by flow, cpu, rate, lag, name"),
    ("j, k, arrows", "scroll; also page up and down"),
    ("g, G", "to the top, to the end"),
    ("^L", "draw anew"),
    ("?", "this help, and back"),
)
SPARKS: Final = "▁▂▃▄▅▆▇█"
TROUBLES_MAX: Final = 2  # reasons below the table; all of them are in `status`
EVENTS_LEAST: Final = 3
TABLE_LEAST: Final = 4  # a heading and three stages
FLOW_SHARE: Final = 4  # at most one in so many lines of the screen
BESIDE_NAME: Final = 44  # columns that what stands beside a long name needs
NAME_LEAST: Final = 8
ASCII: Final = str.maketrans("→│├└─…·↑↓" + SPARKS, ">||`-.-^v" + "__..--^^")
"""For terminals that have no other characters."""


class Span(NamedTuple):
    """`tone` is a key of `render.paint`, or empty."""

    text: str
    tone: str = ""


Line: TypeAlias = Sequence[Span]


class Event(NamedTuple):
    ts: float
    level: str
    stage: str
    text: str


class View(NamedTuple):
    """What there is to show. `epochs`: what the last ones took, seconds, oldest first. `trouble`: why the daemon is not
    heard; the rest is what it said last."""

    status: Mapping[str, Any]
    events: Sequence[Event] = ()
    epochs: Sequence[float] = ()
    trouble: str | None = None
    sort: str = "flow"
    scroll: int = 0
    paused: bool = False
    helping: bool = False


def frame(view: View, columns: int, rows: int | None) -> list[Line]:
    """Exactly `rows` lines, to be cut at `columns`; None: as many as it takes, without the keys' line."""
    parts = _parts(view, columns)
    head, stream, stages, troubles, events = parts
    if rows is None:
        return [*head, *([[], *stream] if stream else ()), [], *stages, *troubles, *([[], *events] if events else ())]
    if view.helping:
        helped: list[Line] = [[], *([Span(f"  {key:<14}", "bold"), Span(what)] for key, what in KEYS)]
        return _filled([*head, *helped], _foot(view, ""), rows)
    shares = _shares(parts, rows)
    shown, most = _shown(parts, shares)
    troubles = troubles[: shares.stages - shown]
    scroll = min(view.scroll, most)
    gap: list[Line] = [[]] if shares.gaps else []
    lines = [*head[: rows - 1], *(gap if stream else ()), *stream[: shares.stream]]
    lines += [*gap, *stages[: min(1, shown)], *stages[1 + scroll : max(1, scroll + shown)], *troubles]
    lines += [*(gap if events else ()), *events[len(events) - shares.events :]]
    hidden = f"{scroll + 1}-{scroll + shown - 1} of {len(stages) - 1}" if most and shown > 1 else ""
    return _filled(lines, _foot(view, hidden), rows)


def scroll_max(view: View, columns: int, rows: int) -> int:
    """How far one can scroll: until the last stage is seen."""
    parts = _parts(view, columns)
    return _shown(parts, _shares(parts, rows))[1]


class Parts(NamedTuple):
    """Everything there is to show; `stages` with its heading."""

    head: list[Line]
    stream: list[Line]
    stages: list[Line]
    troubles: list[Line]
    events: list[Line]


def _parts(view: View, columns: int) -> Parts:
    stream: list[Line] = [[Span(line)] for line in flow.drawn(_nodes(view.status), columns)]
    events = list(map(_event, view.events))
    return Parts(_head(view, columns), stream, _table(view, columns), _troubles(view), events)


def _shares(parts: Parts, rows: int) -> Shares:
    room = max(0, rows - len(parts.head) - 1)
    return share(room, len(parts.stream), len(parts.stages) + len(parts.troubles), len(parts.events))


def _shown(parts: Parts, shares: Shares) -> tuple[int, int]:
    """Lines of the table, and how far it can be scrolled; what is left of its share is for the troubles."""
    least = max(TABLE_LEAST, shares.stages - len(parts.troubles))
    shown = min(len(parts.stages), shares.stages, least)
    return shown, len(parts.stages) - max(2, shown) if len(parts.stages) > 2 else 0


class Shares(NamedTuple):
    """Lines for each part; `gaps`: there is room for empty lines between them."""

    stream: int
    stages: int
    events: int
    gaps: bool


def share(room: int, stream: int, stages: int, events: int) -> Shares:
    """Divide `room` lines between what wants so many: everyone gets its least, then air, then the stages what they
    want, then the events."""
    got_stages = min(stages, TABLE_LEAST, room)
    got_events = min(events, EVENTS_LEAST, room - got_stages)
    got_stream = min(stream, 1, room - got_stages - got_events)
    rest = room - got_stages - got_events - got_stream
    gaps = rest >= 3
    rest -= 3 if gaps else 0
    more = min(stream - got_stream, rest, room // FLOW_SHARE)
    got_stream, rest = got_stream + more, rest - more
    more = min(stages - got_stages, rest)
    got_stages, rest = got_stages + more, rest - more
    return Shares(got_stream, got_stages, got_events + min(events - got_events, rest), gaps)


def written(line: Line, columns: int, colour: bool, ascii_only: bool = False) -> str:
    """A line as it goes to the terminal, at most `columns` wide."""
    parts: list[str] = []
    for text, chosen in line:
        text = shorten(clean(text), columns)
        columns -= cells(text)
        text = text.translate(ASCII) if ascii_only else text
        parts.append(paint(text, chosen) if colour and chosen and text else text)
        if columns <= 0:
            break
    return "".join(parts)


def _filled(lines: list[Line], foot: Line, rows: int) -> list[Line]:
    lines = lines[: max(0, rows - 1)]
    return [*lines, *([[]] * (rows - 1 - len(lines))), foot]


def _head(view: View, columns: int) -> list[Line]:
    status = view.status
    state = status["state"]
    first = [Span(f"{status['pipeline']}", "bold"), Span(" ")]
    first.append(Span(view.trouble, "bad") if view.trouble else Span(state, tone(state)))
    told = [] if status.get("uptime") is None else [f"up {duration(status['uptime'])}"]
    told.append(f"generation {status.get('generation', '-')}")
    if view.paused:
        first.insert(1, Span(" paused", "other"))
    first.append(Span(f"  {' · '.join(told)}"))
    if status.get("reason"):
        first.append(Span(f"  {status['reason']}", "" if state in GOOD else tone(state)))
    lines: list[Line] = [first, [Span(_joined(totals(status), columns))], _epochs(view, columns)]
    if parts := status.get("epoch_parts"):
        lines.append([Span(_joined([f"took {duration(parts.get('total'))}", *epoch_parts(parts)], columns))])
    report = status.get("report") or {}
    scored = [f"{name} {figure(report[key])}" for name, key in (("MSE", "mse"), ("R2", "r2")) if report.get(key)]
    if rest := [*scored, *kept(status)]:
        lines.append([Span(_joined(rest, columns))])
    return lines


def _epochs(view: View, columns: int) -> Line:
    epoch, age = view.status.get("epoch"), view.status.get("epoch_age")
    text = "no epoch yet" if epoch is None else f"epoch {epoch}"
    if age is not None:
        text += f" · {duration(age)} ago"
    if not view.epochs:
        return [Span(text)]
    room = columns - cells(text) - len("    59m59s to 59m59s")
    values = list(view.epochs)[-max(0, room) :] if room > 0 else []
    if not values:
        return [Span(text)]
    span = f"{duration(min(values))} to {duration(max(values))}"
    return [Span(f"{text}  "), Span(spark(values), "good"), Span(f"  {span}")]


def spark(values: Sequence[float]) -> str:
    """A bar for each value, the greatest the highest.

    >>> spark([1, 4, 8])
    '▁▄█'
    """
    top = max(values, default=0.0) or 1.0
    return "".join(SPARKS[min(7, max(0, round(value / top * 8) - 1))] for value in values)


def _joined(parts: Sequence[str], columns: int) -> str:
    """As many of them as fit, whole; the first in any case."""
    text = parts[0]
    for part in parts[1:]:
        if cells(text) + 3 + cells(part) > columns:
            break
        text += f" · {part}"
    return text


def _nodes(status: Mapping[str, Any]) -> list[flow.Node]:
    """A daemon that does not tell the inputs has none to draw."""
    stages = [p for p in status["processes"] if p.get("role") != "service" and "inputs" in p]
    return [flow.Node(clean(p["name"]), _label(p), [clean(name) for name in p["inputs"]]) for p in stages]


def _label(process: Mapping[str, Any]) -> str:
    name, state = clean(process["name"]), clean(process["state"])
    return f"{name} {count(process.get('records_per_s'))}/s" if state in GOOD else f"{name} {state}"


_BY: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "flow": lambda p: p.get("role") == "service",
    "cpu": lambda p: -(p.get("cpu_percent") or 0.0),
    "rate": lambda p: -(p.get("records_per_s") or 0.0),
    "lag": lambda p: -(p.get("lag_s") or 0.0),
    "name": lambda p: clean(p["name"]),
}


def _table(view: View, columns: int) -> list[Line]:
    """A heading and a line for each process."""
    status = view.status
    room = max(NAME_LEAST, columns - BESIDE_NAME)
    entries = [{**p, "name": shorten(clean(p["name"]), room)} for p in sorted(status["processes"], key=_BY[view.sort])]
    heading, *rows = table(COLUMNS, entries, status.get("now"), columns)
    lines: list[Line] = [[Span(heading, "bold")]]
    for row, entry in zip(rows, entries, strict=True):
        state = clean(entry["state"])
        before, found, after = row.partition(f" {state}")
        lines.append([Span(f"{before} "), Span(state, tone(state)), Span(after)] if found else [Span(row)])
    return lines


def _troubles(view: View) -> list[Line]:
    """Why processes are not what is wanted."""
    bad = (p for p in view.status["processes"] if p["state"] not in GOOD and p.get("wanted") and p.get("last_reason"))
    return [[Span(reason_text(process), "bad")] for process, _ in zip(bad, range(TROUBLES_MAX), strict=False)]


def _event(event: Event) -> Line:
    chosen = LEVEL_TONES.get(event.level, "")
    return [
        Span(f"{clock(event.ts)[:8]} ", "dim"),
        Span(f"{event.level:<8} ", chosen),
        Span(f"{event.stage}: "),
        Span(event.text, chosen),
    ]


def _foot(view: View, hidden: str) -> Line:
    def keys() -> Iterator[str]:
        yield "q quit"
        yield "p go on" if view.paused else "p pause"
        yield f"s sort: {view.sort}"
        yield "? help"
        if hidden:
            yield f"↑↓ {hidden}"

    return [Span("  ".join(keys()), "dim")]


COLUMNS: Final = (
    Column("NAME", lambda p, _: p["name"], left=True),
    Column("STATE", lambda p, _: clean(p["state"]), left=True),
    Column("REC/S", lambda p, _: count(p.get("records_per_s"))),
    Column("LAG", lambda p, _: duration(p.get("lag_s")), rank=2),
    Column("CPU", lambda p, _: percent(p.get("cpu_percent")), rank=1),
    Column("RSS", lambda p, _: size(p.get("rss_bytes")), rank=4),
    Column("USS", lambda p, _: size(p.get("uss_bytes")), rank=6),
    Column("RST", lambda p, _: count(p.get("restarts")), rank=3),
    Column("SINCE", since, rank=5),
    Column("PID", lambda p, _: str(p.get("pid") or "-"), rank=7),
    Column("IN", lambda p, _: count(p.get("records_in")), rank=8),
    Column("OUT", lambda p, _: count(p.get("records_out")), rank=9),
    Column("PHASE", lambda p, _: clean(p.get("phase") or "-"), rank=10, left=True),
)
