"""The half of the page that tells how this run went: processes, restarts, epochs, the log. Pure, but for the zone of
its times, which is the reader's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streampipectl.cells import shorten
from streampipectl.figures import entries, figure, mapping, number, part, word
from streampipectl.markup import Html, details, facts, joined, named, table, tag
from streampipectl.render import MISSING, duration, size
from streampipectl.svg_chart import Point, Scale, area, curve

SPARK: Final = 44  # pixels
LEVELS: Final = ("critical", "error", "warning", "notice", "info", "debug")
KNOWN: Final = {"generation", "epoch", "uptime", "restarts", "log_drops", "log", "processes", "crosscheck"}
REASON: Final = 200  # letters of what somebody said
DEPTH_MAX: Final = 4  # of what a stage says about its operations


def tiles(operations: Mapping[str, Any]) -> Html | None:
    restarts = [n for n in map(number, mapping(operations, "restarts").values()) if n is not None]
    pairs = [
        ("up", duration(number(operations, "uptime"))),
        ("epoch", figure(number(operations, "epoch"))),
        ("generation", figure(number(operations, "generation"))),
        ("restarts", figure(sum(restarts)) if restarts else MISSING),
    ]
    there = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value != MISSING]
    return tag("dl", *there, class_="tiles") if there else None


def processes(operations: Mapping[str, Any]) -> Html | None:
    """CPU and memory of each: small charts that share their axes, so that they can be compared."""
    history = {name: _points(rows) for name, rows in mapping(operations, "processes", "history").items()}
    history = {name: rows for name, rows in history.items() if rows}
    if not history:
        return None
    every = [row for rows in history.values() for row in rows]
    x = Scale(min(row[0] for row in every), max(max(row[0] for row in every), min(row[0] for row in every) + 1))
    tops = [max((row[place] or 0.0 for row in every), default=0.0) or 1.0 for place in (1, 2, 3)]
    own = any(row[3] is not None for row in every)
    column, top = (3, tops[2]) if own else (2, tops[1])
    memory = "of its own (USS)" if own else "resident (RSS)"
    cards = []
    for place, (name, rows) in enumerate(history.items()):
        used = _spark(f"cpu-{place}", f"CPU of {name}", rows, 1, x, Scale(0, tops[0]), "fill", "blue")
        kept = _spark(f"memory-{place}", f"Memory of {name}", rows, column, x, Scale(0, top), "fill warm", "orange")
        cpu = [row[1] for row in rows if row[1] is not None]
        says = [f"CPU {_per(cpu[-1])}, peak {_per(max(cpu))}" if cpu else "CPU unknown", _memory(rows, column)]
        cards.append(
            tag("div", tag("h4", named(name)), used, kept, *(tag("p", each) for each in says), class_="process")
        )
    text = (
        f"From {_moment(x.low)} to {_moment(x.high)}. CPU in per cent of one core, up to {_per(tops[0])}; "
        f"memory {memory}, up to {size(top)}. All charts have the same axes."
    )
    shown = [[n, *_row(rows)] for n, rows in history.items()]
    head = ["process", "CPU, mean", "CPU, most", "own memory, most", "resident, most"]
    data = [details("The same as a table", table(head, shown, "CPU and memory of the processes"))]
    return joined((tag("p", text, class_="aside"), tag("div", *cards, class_="processes"), *data))


def _points(rows: Any) -> list[tuple[float, float | None, float | None, float | None]]:
    found = []
    for row in rows if isinstance(rows, list | tuple) else ():
        values = [*map(number, row), None, None, None] if isinstance(row, list | tuple) else [None]
        if values[0] is not None:
            found.append((values[0], values[1], values[2], values[3]))
    return found


def _spark(name: str, title: str, rows: Sequence[Any], place: int, x: Scale, y: Scale, below: str, kind: str) -> Html:
    points: list[Point] = [(row[0], row[place]) for row in rows]
    known = [value for _, value in points if value is not None]
    written = size if place > 1 else _per
    says = f"From {written(min(known))} to {written(max(known))}." if known else "Unknown."
    drawing = tag(
        "svg", tag("title", title, id=f"{name}-title"), tag("desc", says, id=f"{name}-text"),
        area(points, x, y, below), curve(points, x, y, kind),
        role="img", width="100%", height=SPARK, aria_labelledby=f"{name}-title {name}-text",
    )  # fmt: skip
    return tag("div", drawing, class_="spark")


def _row(rows: Sequence[Any]) -> list[str]:
    cpu, rss, own = ([row[place] for row in rows if row[place] is not None] for place in (1, 2, 3))
    mean = _per(sum(cpu) / len(cpu)) if cpu else MISSING
    return [mean, _per(max(cpu)) if cpu else MISSING, *(size(max(m)) if m else MISSING for m in (own, rss))]


def _memory(rows: Sequence[Any], column: int) -> str:
    known = [row[column] for row in rows if row[column] is not None]
    return f"memory {size(known[-1])}, peak {size(max(known))}" if known else "memory unknown"


def _per(value: float) -> str:
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %"


def restarts(operations: Mapping[str, Any]) -> Html | None:
    by_stage = {name: n for name, n in mapping(operations, "restarts").items() if number(n) is not None}
    if not by_stage:
        return None
    kinds = [
        [
            word(each, "stage"),
            shorten(word(each, "reason"), REASON),
            figure(number(each, "count")),
            _moment(number(each, "last_seen")),
        ]
        for each in entries(operations, "log", "restarts")
    ]
    sum_ = facts((name, figure(number(n))) for name, n in by_stage.items())
    return joined((sum_, table(["process", "reason", "times", "last"], kinds, "Restarts", 2) if kinds else None))


def log(operations: Mapping[str, Any]) -> Html | None:
    said = mapping(operations, "log")
    if not said:
        return None
    pairs = [("events", figure(number(said, "events"))), ("since", _moment(number(said, "since")))]
    pairs += [(level, figure(number(said, "levels", level))) for level in LEVELS if number(said, "levels", level)]
    names = {"bursts": "bursts of errors", "slow_epochs": "slow epochs", "garbage": "torn lines", "gaps": "gaps"}
    pairs += [(text, figure(number(said, name))) for name, text in names.items() if number(said, name) is not None]
    pairs += [(f"dropped by {name}", figure(number(n))) for name, n in mapping(said, "drops").items()]
    return facts(pairs)


def crosscheck(operations: Mapping[str, Any]) -> Html | None:
    """Whether the model that is served is the one that was measured."""
    check = mapping(operations, "crosscheck")
    if not mapping(check, "served"):
        return tag("p", f"It failed: {check['error']}.") if check.get("error") else None
    return facts(
        [
            ("epoch", figure(number(check, "epoch"))),
            ("held-out rows", figure(number(check, "rows"))),
            ("MSE through the API", figure(number(check, "served", "mse"))),
            ("MSE in the stream", figure(number(check, "in_band", "mse"))),
            ("answered", figure(number(check, "answered"))),
        ]
    )


def others(operations: Mapping[str, Any]) -> Html | None:
    """What the stages say of their own operations."""
    found = [(name, list(_flat(each, ""))) for name, each in operations.items() if name not in KNOWN]
    shown = [joined((tag("h4", named(name)), facts(pairs))) for name, pairs in found if pairs]
    return joined(shown) if shown else None


def _flat(value: Any, name: str, depth: int = 0) -> Any:
    """(name, text) of all that lies in nested mappings."""
    if isinstance(value, Mapping) and depth < DEPTH_MAX:
        for key, each in value.items():
            yield from _flat(each, f"{name} {key}".strip().replace("_", " "), depth + 1)
    elif value is not None:
        known = number(value)
        yield name or "value", figure(known) if known is not None else shorten(str(value), REASON)


def _moment(ts: float | None) -> str:
    if ts is None or not 0 <= ts < 1e11:
        return MISSING
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ts))


def made(now: float | None, about: Mapping[str, Any]) -> Html:
    """Who made the page, and when."""
    when = "" if now is None else f", {time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(now))}"
    version = part(about, "version")
    return tag("footer", f"Made by streampipectl report{when}{f', streampiped {version}' if version else ''}.")


SECTIONS: Final[Sequence[tuple[str, str, str, Callable[[Mapping[str, Any]], Html | None]]]] = (
    (
        "processes",
        "CPU and memory",
        "Of every process, as the service monitor saw it since the daemon started.",
        processes,
    ),
    ("restarts", "Restarts", "Of each process since the daemon started, and why.", restarts),
    ("crosscheck", "Cross-check", "The served model, asked about held-out rows through the trainer's API.", crosscheck),
    ("log", "Log", "What the log says in short; streampipectl logs --summary says more.", log),
    ("others", "Stages", "What they say of their own operations.", others),
)
"""In the page's order."""
