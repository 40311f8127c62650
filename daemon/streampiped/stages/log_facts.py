"""What a log line says, as facts that can be added up. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from streampiped.events import CATALOGUE, LEVELS, describe
from streampiped.stages.log_templates import TEXT_CHARS_MAX, Miner, Template, template_of

EXAMPLE_CHARS_MAX: Final = 400
NAME_CHARS_MAX: Final = 128  # of a stage or event
OTHER: Final = "(other)"
"""Where the counts of forgotten templates and of stages beyond the limit go."""
STAGES_MAX: Final = 64  # names besides the pipeline's own: they come out of log lines, which anybody may have written
PIPELINE: Final = ("supervisor", "launcher")
"""Processes of every plan."""

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
DEATH: Final = "stage_died"
MINUTE_S: Final = 60  # of the events' own time: what can be asked from a moment on is exact to this
ERROR_LEVELS: Final = frozenset({"error", "critical"})

FREE: Final = frozenset({"stage_output", "stage_raised", "stage_failed"})
"""Events whose text is a stranger's, as is that of every event that is not in the catalogue. Of the others the
catalogue's text is the template."""
SLOW_EPOCH: Final = "epoch_delayed"
SLOW_EPOCHS_OVER: Final = "epochs_settled"
"""Its `count` are slow epochs of which no `epoch_delayed` told."""
ALL: Final = "(all)"
"""What an operator restarts without naming a stage."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One event, as far as it is counted. `free`: its text is to be mined."""

    ts: float
    level: str
    event: str
    stage: str
    text: str
    reason: str
    cause: str
    count: int
    free: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """All that it carries; of strangers, and not cleaned."""


def fact_of(line: bytes) -> Fact | None:
    """What a line of the event file says; None when it is no event (torn by a kill, or written by somebody else)."""
    try:
        record = json.loads(line)
        ts = float(record["ts"])
        level, event, stage = record["level"], record["event"], record["stage"]
        if not (level in LEVELS and isinstance(event, str) and isinstance(stage, str)):
            return None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return make_fact(ts, level, event, stage, _text(event, record), record)


def make_fact(ts: float, level: str, event: str, stage: str, text: str, fields: Mapping[str, Any]) -> Fact | None:
    """Everything bounded, whoever wrote it; None when the time is none."""
    if not 0 <= ts < 1e11:
        return None
    return Fact(
        ts=ts,
        level=level,
        event=_clean(event, NAME_CHARS_MAX),
        stage=_clean(stage, NAME_CHARS_MAX),
        text=_clean(text, TEXT_CHARS_MAX),
        reason=_clean(str(fields.get("reason", "")), EXAMPLE_CHARS_MAX),
        cause=_clean(str(fields.get("cause", "")), NAME_CHARS_MAX),
        count=_count(fields.get("count")),
        free=event in FREE or event not in CATALOGUE,
        fields=fields,
    )


class Memory:
    """What counting the next line depends on, besides the line. All of it is in the database too."""

    def __init__(self, miner: Miner, stages: Iterable[str] = (), own: Iterable[str] = ()) -> None:
        """`stages` that count already; `own`: names of the pipeline's processes, which have their place whatever
        strangers write."""
        self.miner = miner
        self._own = {*PIPELINE, *own}
        self._strangers = set(stages) - self._own

    def stage(self, name: str) -> str:
        """The name under which a stage counts: its own if it is the pipeline's, or of the first STAGES_MAX others;
        else OTHER."""
        if name in self._own or name in self._strangers:
            return name
        if len(self._strangers) < STAGES_MAX:
            self._strangers.add(name)
            return name
        return OTHER


@dataclass(slots=True)
class Span:
    """How often something was seen, and when."""

    count: int
    first: float
    last: float

    def add(self, ts: float, count: int = 1) -> None:
        self.count += count
        self.first, self.last = min(self.first, ts), max(self.last, ts)


@dataclass(slots=True)
class Sight:
    """A template as it is now, and what these lines add to it. `example`: the first of them."""

    template: Template
    level: str
    span: Span
    example: str


@dataclass(frozen=True, slots=True)
class Restart:
    """`stage` began anew. `kind`: the reason without what varies; deaths of one kind are counted together."""

    stage: str
    kind: str
    ts: float
    reason: str


@dataclass(frozen=True, slots=True)
class SlowEpoch:
    """Seconds, its own and the median of those before it. `part`: what took longest."""

    ts: float
    epoch: int
    seconds: float
    median: float
    part: str


@dataclass(slots=True)
class Tally:
    """The facts of some lines, added up."""

    events: int = 0
    garbage: int = 0
    """Lines that are no events."""
    counts: dict[tuple[str, str], Span] = field(default_factory=dict)
    """(stage, level)"""
    templates: dict[int, Sight] = field(default_factory=dict)
    """The longest unseen first."""
    forgotten: list[int] = field(default_factory=list)
    """Templates that had to make room for others."""
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stage, event): how much was dropped"""
    incidents: list[Fact] = field(default_factory=list)
    errors: list[Fact] = field(default_factory=list)
    restarts: list[Restart] = field(default_factory=list)
    slow_epochs: list[SlowEpoch] = field(default_factory=list)
    slow_untold: int = 0
    """Slow epochs that were only counted."""
    minutes: dict[tuple[int, str, str], Span] = field(default_factory=dict)
    """(minute of the events' time, stage, what): `what` is a level, one of DROPS, DEATH or SLOW_EPOCH"""

    @classmethod
    def of(cls, lines: Iterable[bytes], memory: Memory, read: Callable[[bytes], Fact | None] = fact_of) -> Tally:
        tally = cls()
        for line in lines:
            fact = read(line)
            if fact is None:
                tally.garbage += 1
            else:
                tally.add(fact, memory)
        return tally

    def add(self, fact: Fact, memory: Memory) -> None:
        if (stage := memory.stage(fact.stage)) != fact.stage:
            fact = replace(fact, stage=stage)
        self.events += 1
        span = self.counts.get((stage, fact.level))
        if span is None:
            self.counts[stage, fact.level] = Span(1, fact.ts, fact.ts)
        else:
            span.add(fact.ts)
        self._see(fact, memory.miner)
        self._date(fact, fact.level, 1)
        if fact.event in DROPS:
            self.drops[stage, fact.event] += fact.count
            self._date(fact, fact.event, fact.count)
        if fact.event == DEATH:
            self._date(fact, DEATH, 1)
        if fact.event in INCIDENTS:
            self.incidents.append(fact)
        if fact.level in ERROR_LEVELS:
            self.errors.append(fact)
        self.restarts += _restarts(fact, memory)
        if fact.event == SLOW_EPOCH and (slow := _slow_epoch(fact)) is not None:
            self.slow_epochs.append(slow)
            self._date(fact, SLOW_EPOCH, 1)
        if fact.event == SLOW_EPOCHS_OVER:
            self.slow_untold += fact.count
            self._date(fact, SLOW_EPOCH, fact.count)

    def _date(self, fact: Fact, what: str, count: int) -> None:
        span = self.minutes.get(key := (int(fact.ts // MINUTE_S), fact.stage, what))
        if span is None:
            self.minutes[key] = Span(count, fact.ts, fact.ts)
        else:
            span.add(fact.ts, count)

    def _see(self, fact: Fact, miner: Miner) -> None:
        template, gone = miner.see(fact.stage, fact.event, fact.text, free=fact.free)
        self.forgotten += [each.id for each in gone]
        sight = self.templates.pop(template.id, None)
        if sight is None:
            sight = Sight(template, fact.level, Span(1, fact.ts, fact.ts), fact.text[:EXAMPLE_CHARS_MAX])
        else:
            sight.level = fact.level
            sight.span.add(fact.ts)
        self.templates[template.id] = sight


def _restarts(fact: Fact, memory: Memory) -> list[Restart]:
    """What begins anew because of it: a stage that died, those that an operator wants restarted, the daemon itself."""
    match fact.event:
        case "stage_died" | "launcher_died":
            return [Restart(fact.stage, template_of(fact.reason), fact.ts, fact.reason)]
        case "command_received" if fact.fields.get("method") == "restart":
            reason = _clean(f"asked for by {fact.fields.get('who') or 'an operator'}", NAME_CHARS_MAX)
            names = str(fact.fields.get("params", "")).removesuffix(" by force").split()
            return [
                Restart(memory.stage(_clean(name, NAME_CHARS_MAX)) if name != "all" else ALL, reason, fact.ts, reason)
                for name in names[:STAGES_MAX]
            ]
        case "pipeline_started":
            return [Restart(fact.stage, "the daemon started", fact.ts, "the daemon started")]
    return []


def _slow_epoch(fact: Fact) -> SlowEpoch | None:
    try:
        epoch, seconds, median = (float(fact.fields[name]) for name in ("epoch", "seconds", "median"))
    except (KeyError, ValueError, TypeError):
        return None
    if not (0 <= epoch < 1 << 53 and 0 <= seconds < 1e9 and 0 <= median < 1e9):
        return None
    return SlowEpoch(fact.ts, int(epoch), seconds, median, _clean(str(fact.fields.get("part", "")), NAME_CHARS_MAX))


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
            return ErrorWindow(times, Burst(min(times), max(times), threshold))
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
    """A count somebody wrote, the journal's as text; absurd ones would overflow the sums."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        value = int(value)
    return value if isinstance(value, int) and 0 < value < 1 << 40 else 1
