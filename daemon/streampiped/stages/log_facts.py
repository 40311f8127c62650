"""What a log line says, as facts that can be added up. Pure.

A *template* is a line's text with what varies masked: numbers, hexadecimal, paths, quoted text. Lines of one template
say the same thing about different objects, so a log of a million lines is a list of a few dozen.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from streampiped.events import CATALOGUE, LEVELS, describe

TEXT_CHARS_MAX: Final = 1000  # of a line looked at for its template; what comes later rarely tells lines apart
TEMPLATE_CHARS_MAX: Final = 200
EXAMPLE_CHARS_MAX: Final = 400
NAME_CHARS_MAX: Final = 128  # of a stage or event

INCIDENTS: Final = frozenset(
    {
        "stage_died",
        "stage_failed",
        "stage_stalled",
        "stage_starved",
        "stage_hung",
        "stage_given_up",
        "stage_restart_scheduled",
        "launcher_died",
    }
    | {"generation_reset", "pipeline_started"}
)
"""Events kept one by one with their reason: the answer to 'what happened to the trainer last night?'"""
DROPS: Final = frozenset({"output_dropped", "log_lines_dropped", "records_rejected"})
"""Events whose `count` says how much is missing."""
ERROR_LEVELS: Final = frozenset({"error", "critical"})

_VARYING = re.compile(
    r"""(?P<text>"[^"\n]*"|(?<!\w)'[^'\n]*'(?!\w))"""
    r"|(?P<path>(?<![\w.])~?(?:/[\w.@+-]+)+/?)"
    r"|(?P<hex>\b0[xX][0-9a-fA-F]+\b|\b(?=[a-fA-F-]*\d)(?=[\d-]*[a-fA-F])[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*\b)"
    r"|(?P<n>(?<![A-Za-z_])[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?)"
)


def template_of(text: str) -> str:
    """The text with its varying parts masked.

    >>> template_of("restart in 0.20 s (3 in the last 60 s)")
    'restart in <n> s (<n> in the last <n> s)'
    >>> template_of('cannot open "/var/lib/x": errno 28 at 0x7f3a')
    'cannot open <text>: errno <n> at <hex>'
    """
    masked = _VARYING.sub(lambda found: f"<{found.lastgroup}>", text[:TEXT_CHARS_MAX])
    return masked[:TEMPLATE_CHARS_MAX]


@dataclass(frozen=True, slots=True)
class Fact:
    """One event, as far as it is counted."""

    ts: float
    level: str
    event: str
    stage: str
    text: str
    reason: str
    cause: str
    count: int


def fact_of(line: bytes) -> Fact | None:
    """What the line says; None when it is no event (torn by a kill, or written by somebody else)."""
    try:
        record = json.loads(line)
        ts = float(record["ts"])
        level, event, stage = record["level"], record["event"], record["stage"]
        if not (0 <= ts < 1e11 and level in LEVELS and isinstance(event, str) and isinstance(stage, str)):
            return None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return Fact(
        ts=ts,
        level=level,
        event=_clean(event, NAME_CHARS_MAX),
        stage=_clean(stage, NAME_CHARS_MAX),
        text=_clean(_text(event, record), TEXT_CHARS_MAX),
        reason=_clean(str(record.get("reason", "")), EXAMPLE_CHARS_MAX),
        cause=_clean(str(record.get("cause", "")), NAME_CHARS_MAX),
        count=_count(record.get("count")),
    )


@dataclass(slots=True)
class Sight:
    """How often a template was seen, when, and what it looked like the last time."""

    level: str
    count: int
    first: float
    last: float
    example: str


@dataclass(slots=True)
class Tally:
    """The facts of some lines, added up."""

    events: int = 0
    garbage: int = 0
    """Lines that are no events."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stage, level)"""
    templates: dict[tuple[str, str, str], Sight] = field(default_factory=dict)
    """(stage, event, template)"""
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stage, event): how much was dropped"""
    incidents: list[Fact] = field(default_factory=list)
    errors: list[Fact] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> Tally:
        tally = cls()
        for line in lines:
            fact = fact_of(line)
            if fact is None:
                tally.garbage += 1
            else:
                tally.add(fact)
        return tally

    def add(self, fact: Fact) -> None:
        self.events += 1
        self.counts[fact.stage, fact.level] += 1
        self._see(fact)
        if fact.event in DROPS:
            self.drops[fact.stage, fact.event] += fact.count
        if fact.event in INCIDENTS:
            self.incidents.append(fact)
        if fact.level in ERROR_LEVELS:
            self.errors.append(fact)

    def _see(self, fact: Fact) -> None:
        key = (fact.stage, fact.event, template_of(fact.text))
        sight = self.templates.get(key)
        if sight is None:
            example = fact.text[:EXAMPLE_CHARS_MAX]
            self.templates[key] = Sight(fact.level, 1, fact.ts, fact.ts, example)
            return
        sight.count += 1
        sight.level = fact.level
        sight.first, sight.last = min(sight.first, fact.ts), max(sight.last, fact.ts)


@dataclass(frozen=True, slots=True)
class Burst:
    """`errors` errors of one stage from `started` to `ended` (seconds since the epoch), never fewer than the
    threshold within the window."""

    started: float
    ended: float
    errors: int


@dataclass(frozen=True, slots=True)
class ErrorWindow:
    """The newest errors of a stage, and the burst they are part of, if any."""

    times: tuple[float, ...] = ()
    burst: Burst | None = None

    def add(self, ts: float, *, window: float, threshold: int) -> ErrorWindow:
        """After one more error at `ts`: a burst is on while the last `threshold` errors lie within `window` seconds.

        At most `threshold` times are kept, whatever the rate. A clock that was set back shortens no window."""
        times = (*self.times, ts)[-threshold:]
        times = tuple(t for t in times if ts - t <= window)
        if len(times) < threshold:
            return ErrorWindow(times)
        if self.burst is None:
            return ErrorWindow(times, Burst(times[0], ts, threshold))
        return ErrorWindow(times, Burst(self.burst.started, max(self.burst.ended, ts), self.burst.errors + 1))


def _text(event: str, record: dict[str, Any]) -> str:
    """What the catalogue's text says, or the event's name and its fields."""
    if event in CATALOGUE:
        return describe(event, record)
    own = {k: v for k, v in record.items() if k not in ("ts", "level", "event", "stage", "pid", "cause")}
    return event + "".join(f" {k}={v}" for k, v in own.items())


def _clean(text: str, room: int) -> str:
    """Bounded, and encodable: JSON can carry lone surrogates, which SQLite refuses."""
    return text[:room].encode("utf-8", "replace").decode()


def _count(value: object) -> int:
    """A count somebody wrote; absurd ones would overflow the sums."""
    return value if isinstance(value, int) and 0 < value < 1 << 40 else 1
