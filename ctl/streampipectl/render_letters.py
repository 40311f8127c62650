"""Dead letters as text for people. Pure, as render.py."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streampipectl.cells import shorten
from streampipectl.render import clean
from streampipectl.table import Column, table

REASON_CHARS: Final = 60  # in a list into a pipe; a terminal cuts at its width, `dlq show` has all of it
VALUE_CHARS: Final = 2000  # of a text on a screen: twenty lines
WIDE: Final = 100  # with less columns than that the way takes the time's place, which `dlq show` has


def list_text(letters: Sequence[Mapping[str, Any]], total: int, width: int | None = None) -> str:
    """A line per letter, and how many are not shown; by which way a row had come only where there are several."""
    if not letters:
        return "no dead letters"
    left_out = {"VIA"}
    if any(letter.get("via") for letter in letters):
        left_out = {"LAST"} if width is not None and width < WIDE else set()
    lines = table([column for column in COLUMNS if column.title not in left_out], letters, None, None)
    if total > len(letters):
        lines.append(f"{len(letters)} of {total}; --limit shows more")
    return "\n".join(line if width is None else shorten(line, width) for line in lines)


def letter_text(letter: Mapping[str, Any]) -> str:
    """All of one letter: where it stood, what happened, the record, the traceback."""
    lines = [
        f"letter {letter['id']}: {_state(letter)}",
        f"stage: {clean(letter['stage'])}, generation {letter['generation']}",
        f"record: {clean(letter['source'])} {letter['position']}{_via(letter)}",
        f"first: {_date(letter['first_at'])}, last: {_date(letter['last_at'])}",
        f"reason: {clean(letter['manner'])}: {clean(letter['reason'])}",
    ]
    record = letter.get("record")
    if record is None:
        lines += ["", "  the record cannot be read"]
    else:
        lines += ["", *(f"  {clean(name)}: {_value(value)}" for name, value in record.items())]
    if letter.get("traceback"):
        lines += ["", *(f"  {clean_line(line)}" for line in letter["traceback"].splitlines())]
    return "\n".join(lines)


def clean_line(line: str) -> str:
    """As `clean`; what indents a traceback stays."""
    return clean(line.expandtabs(4))


def decided_text(answer: Mapping[str, Any]) -> str:
    """One line about letters that were replayed or dropped."""
    if not answer.get("done", True):
        return f"{answer['verb']}: accepted, going on"
    letters = answer["letters"]
    parts = [f"{answer['verb']}: {letters} letter{'' if letters == 1 else 's'}"]
    if answer.get("epoch") is not None:
        parts.append(f"epoch {answer['epoch']}, {answer['seconds']:.2f} s")
    if answer["dead"]:
        parts.append(f"{answer['dead']} still dead")
    return ", ".join(parts)


def _via(letter: Mapping[str, Any]) -> str:
    """By which way the row had come, where there are several."""
    return f" via {clean(letter['via'])}" if letter.get("via") else ""


def _state(letter: Mapping[str, Any]) -> str:
    attempt = letter["attempt"]
    state = str(letter["status"])
    if state == "replayed":
        return f"replayed in epoch {letter['replay_epoch']}, attempt {attempt}"
    return f"{state}, in the stream" if not attempt else f"{state}, in replay {attempt}"


def _value(value: Any) -> str:
    """As JSON, so that the text "1" is not the number 1; of a long text the beginning."""
    if isinstance(value, str) and len(value) > VALUE_CHARS:
        return f"{_value(value[:VALUE_CHARS])}... ({len(value)} characters; --json shows all)"
    return clean(value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False))


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


COLUMNS: Final = (
    Column("ID", lambda e, _: str(e["id"])),
    Column("STATUS", lambda e, _: str(e["status"]), left=True),
    Column("STAGE", lambda e, _: clean(e["stage"]), left=True),
    Column("SOURCE", lambda e, _: clean(e["source"]), left=True),
    Column("POSITION", lambda e, _: str(e["position"])),
    Column("VIA", lambda e, _: clean(e.get("via") or "-"), left=True),
    Column("TRY", lambda e, _: str(e["attempt"])),
    Column("LAST", lambda e, _: _date(e["last_at"]), left=True),
    Column("REASON", lambda e, _: shorten(clean(e["reason"]), REASON_CHARS), left=True),
)
