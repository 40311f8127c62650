"""An event as an entry of the systemd journal: fields, and their bytes in the native protocol. Pure.

What stands in an event comes partly from strangers, so no value can end its field and no name can be one of ours: a
value with a line end goes with its length before it, and a name is taken only when it is letters, digits and
underscores, behind the prefix. docs/specs/events.md lists the fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from streampiped.runtime.event_format import BLOCKS, PRIORITY, RESERVED, for_journal, printable

IDENTIFIER: Final = "streampipe"
PREFIX: Final = "STREAMPIPE_"
NAME_CHARS_MAX: Final = 64  # journald takes no longer ones
VALUE_CHARS_MAX: Final = 8192  # of a list or a mapping as JSON; texts are bounded by make_record

COMMAND_FIELDS: Final = frozenset(f"{PREFIX}{name}" for name in ("UID", "WHO", "METHOD", "PARAMS"))
"""Who wanted what: only the supervisor knows. In a stage's own event such a field gets an underscore behind it."""

_HEAD: Final = frozenset(f"{PREFIX}{name.upper()}" for name in RESERVED)
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_FRAME: Final = re.compile(r'^  File "([^"\n]+)", line (\d+)(?:,? in (.+))?$', re.MULTILINE)
_TRACE: Final = "Traceback (most recent call last):\n"
_STACK: Final = "(most recent call first):\n"  # faulthandler's


def entry_of(record: Mapping[str, Any], *, epoch: int | None, relayed: bool) -> bytes:
    """The entry of a record (`make_record`). `epoch`: the last committed one, for an event that names none;
    `relayed`: a stage sent it."""
    return encode(fields_of(record, epoch=epoch, relayed=relayed))


def fields_of(record: Mapping[str, Any], *, epoch: int | None, relayed: bool) -> Iterator[tuple[str, str]]:
    """Every name at most once."""
    yield "MESSAGE", for_journal(record)
    yield "PRIORITY", str(PRIORITY.get(str(record["level"]), PRIORITY["info"]))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    for key in ("stage", "event", "pid", "cause"):
        if key in record:
            yield f"{PREFIX}{key.upper()}", _text(record[key])
    if "epoch" not in record and epoch is not None:
        yield f"{PREFIX}EPOCH", str(epoch)
    yield from _place(record)
    yield from _own(record, relayed)


def _own(record: Mapping[str, Any], relayed: bool) -> Iterator[tuple[str, str]]:
    """The event's own fields, but for those whose whole text is in the message already."""
    said = {*RESERVED, *BLOCKS} | ({"line"} if record["event"] == "stage_output" else set())
    taken = set(_HEAD | COMMAND_FIELDS if relayed else _HEAD)
    for key, value in record.items():
        if key in said or value is None or not _NAME.fullmatch(key):
            continue
        name = f"{PREFIX}{key.upper()}"
        name += "_" if name in taken else ""
        if name not in taken and len(name) <= NAME_CHARS_MAX:
            taken.add(name)
            yield name, _text(value)


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """`NAME=value` and a line end; where the value has a line end, the name, a line end, the value's length in bytes
    (64 bits, little-endian), the value and a line end.

    >>> encode([("A", "b"), ("C", "d\\ne")])
    b'A=b\\nC\\n\\x03\\x00\\x00\\x00\\x00\\x00\\x00\\x00d\\ne\\n'
    """
    parts = []
    for name, value in fields:
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)


def _text(value: object) -> str:
    match value:
        case str():
            return printable(value)
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return printable(json.dumps(value, ensure_ascii=False))[:VALUE_CHARS_MAX]


def _place(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where it was raised: the last frame of the last traceback, or the first one of a stack that begins with the
    last call. An exception's own text may look like frames and is left out; where it cannot be told from them, there
    is no place."""
    if record["event"] == "stage_output":
        text = str(record.get("line"))
        own = text.rpartition("\n")[2]
    else:
        text, own = str(record.get("traceback") or "").rstrip(), str(record.get("reason") or "").rstrip(": \n")
    if _STACK in text and _TRACE not in text:
        frames = list(_FRAME.finditer(text.rpartition("Current thread")[2]))[:1]
    elif text.endswith(own):
        frames = list(_FRAME.finditer(text.removesuffix(own).rpartition(_TRACE)[2]))[-1:]
    else:
        return
    for frame in frames:
        file, line, function = frame.groups()
        yield "CODE_FILE", printable(file)
        yield "CODE_LINE", line
        if function:
            yield "CODE_FUNC", printable(function)
