"""An event as a record, as a JSON line, as a line for a terminal and as a line for the journal. Pure.

What stands in an event comes partly from strangers (a client's method name, a stage's standard output), so every
size is bounded here, and no control character reaches a terminal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from streampiped.events import CATALOGUE, LEVELS, Level, describe

FIELD_CHARS_MAX: Final = 8192  # of one text; a Python traceback of 60 frames has about 6000
TRACE_CHARS_MAX: Final = 16384  # of a traceback, stack or output: a dump of several threads is more than one line
FIELDS_MAX: Final = 32  # of one event; the largest of the catalogue has 5
ITEMS_MAX: Final = 64  # of one list or mapping inside a field
DEPTH_MAX: Final = 4  # of lists and mappings inside a field
LINE_BYTES_MAX: Final = 32 << 10  # of one JSON line; a reader may take 64 KiB as 'surely a whole line'
INT_BITS_MAX: Final = 64  # beyond, other languages' JSON readers lose digits; written as text

RESERVED: Final = ("ts", "level", "event", "stage", "pid", "cause")
"""Fields of every event; an emitter's own field of such a name gets an underscore behind it."""
BLOCKS: Final = ("traceback", "stack")
"""Fields that are text of several lines, shown indented below the event."""

PRIORITY: Final[Mapping[str, int]] = {name: 7 - i for i, name in enumerate(LEVELS)}
"""syslog's numbers (RFC 5424, table 2)."""

_COLOURS: Final = {"debug": "2", "info": "32", "notice": "36", "warning": "33", "error": "31", "critical": "1;31"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_C1 = re.compile(r"[\x7f-\x9f]")  # what JSON leaves alone and a terminal obeys


def make_record(
    event: str, stage: str, level: Level, ts: float, pid: int, cause: str | None, fields: Mapping[str, object]
) -> dict[str, Any]:
    """The event with bounded fields, in the order in which it is written: `head_of` relies on it."""
    record: dict[str, Any] = {
        "ts": ts,
        "level": level,
        "event": _clip(event, 128),
        "stage": _clip(stage, 128),
        "pid": pid,
    }
    if cause is not None:
        record["cause"] = _clip(str(cause), 128)
    for number, (name, value) in enumerate(fields.items()):
        if number == FIELDS_MAX:
            record["fields_left_out"] = len(fields) - FIELDS_MAX
            break
        key = _clip(str(name), 128)
        record[key + "_" if key in RESERVED else key] = _bounded(value, _room(key), DEPTH_MAX)
    return record


def to_json(record: Mapping[str, Any]) -> bytes:
    """One line with its newline, at most LINE_BYTES_MAX: texts are cut harder until it fits, else left out."""
    line = _dump(record)
    for room in (2048, 512, 128):
        if len(line) <= LINE_BYTES_MAX:
            return line
        record = {key: value if key in RESERVED else _bounded(value, room, 1) for key, value in record.items()}
        line = _dump(record)
    if len(line) <= LINE_BYTES_MAX:
        return line
    head = {key: value for key, value in record.items() if key in RESERVED}
    return _dump({**head, "fields_left_out": len(record) - len(head)})


def readable(record: Mapping[str, Any], *, colour: bool) -> str:
    """For a terminal: time, level, stage, text; further lines indented. Ends with a newline."""
    time = datetime.fromtimestamp(record["ts"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = str(record["level"])
    shown = f"{level.upper():<8}"
    if colour:
        time, shown = f"\x1b[2m{time}\x1b[0m", f"\x1b[{_COLOURS.get(level, '0')}m{shown}\x1b[0m"
    first, *rest = _text_lines(record)
    cause = f" [{printable(str(record['cause']))}]" if "cause" in record else ""
    head = f"{time} {shown} {printable(str(record['stage'])):<14} {first}{cause}\n"
    return head + "".join(f"    {line}\n" for line in rest)


def for_journal(record: Mapping[str, Any]) -> str:
    """The message of a journal entry: stage, text, further lines below. No time and no level, which the journal has
    itself."""
    return f"{printable(str(record['stage']))}: " + "\n".join(_text_lines(record))


def with_priority(record: Mapping[str, Any]) -> str:
    """The same for a standard error that systemd reads: every line with its `<N>` priority (sd-daemon(3)). Ends with
    a newline."""
    prefix = f"<{PRIORITY.get(str(record['level']), 6)}>"
    first, *rest = for_journal(record).split("\n")
    return f"{prefix}{first}\n" + "".join(f"{prefix}    {line}\n" for line in rest)


def printable(text: str) -> str:
    """`text` without anything a terminal would obey; line ends and tabs stay.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _text_lines(record: Mapping[str, Any]) -> list[str]:
    """What the event says, then its tracebacks. An event that no template knows shows its fields."""
    text = describe(str(record["event"]), record)
    if record["event"] not in CATALOGUE:
        own = {k: v for k, v in record.items() if k not in RESERVED and k not in BLOCKS}
        text += "".join(f" {k}={v}" for k, v in own.items())
    blocks = [str(record[name]) for name in BLOCKS if record.get(name)]
    lines = [line for part in (text, *blocks) for line in printable(part.rstrip()).split("\n")]
    return lines or [""]


def _room(key: str) -> int:
    return TRACE_CHARS_MAX if key in (*BLOCKS, "line") else FIELD_CHARS_MAX


def _bounded(value: object, room: int, depth: int) -> Any:
    """`value` as JSON can carry it, no text longer than `room` characters."""
    match value:
        case None | bool():
            return value
        case str():
            return _clip(value, room)
        case int():
            return value if value.bit_length() < INT_BITS_MAX else _clip(hex(value), room)
        case float():
            return value if math.isfinite(value) else repr(value)  # NaN is no JSON
        case list() | tuple() if depth > 0:
            return [_bounded(item, room, depth - 1) for item in value[:ITEMS_MAX]]
        case Mapping() if depth > 0:
            pairs = list(value.items())[:ITEMS_MAX]
            return {_clip(str(k), 128): _bounded(v, room, depth - 1) for k, v in pairs}
        case _:
            return _clip(repr(value), room)


def _clip(text: str, room: int) -> str:
    """`text`, or its beginning and its end, which in a traceback says what happened."""
    if len(text) <= room:
        return text
    tail = room // 4
    return f"{text[: room - tail]} ... {len(text) - room} characters left out ... {text[len(text) - tail :]}"


def _dump(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), check_circular=False)
    text = _C1.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # a lone surrogate becomes its JSON escape
