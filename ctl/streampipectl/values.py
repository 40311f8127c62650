"""Values on the command line: defaults, and text to value with a ValueError that says what would be right.

`streampiped.units` knows durations too, with pydantic below it, whose import takes longer than `status` may.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

CHANGE_TIMEOUT_S: Final = 30.0  # a start takes about 2 s, an orderly stop up to the drain timeout, 20 s
CHANGE_TIMEOUT_MAX_S: Final = 3600.0  # the daemon's own limit
LOG_LINES: Final = 50
LOG_LINES_MAX: Final = 10_000  # the daemon's own limit
LOG_LEVEL: Final = "info"
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical")
"""Those of `streampiped.events`, whose import costs 10 ms; a test holds them equal."""

LETTERS: Final = 50
LETTERS_MAX: Final = 100_000  # listed by one command; each is a line
LETTER_ID_MAX: Final = 2**63 - 1  # the daemon's own limit
LETTER_STATUSES: Final = ("dead", "replayed", "dropped", "all")
CHECKPOINT_NAME: Final = "[A-Za-z][A-Za-z0-9._-]{0,63}"  # the daemon's own rule

SINCE_MAX_S: Final = 1e10  # three centuries
INTERVAL: Final = "1s"  # of `top`: the daemon's own rhythm
INTERVAL_MIN_S: Final = 0.2  # the daemon notifies no faster
SHELLS: Final = ("bash", "zsh", "fish")

VERSIONS: Final = 50
VERSIONS_MAX: Final = 10_000  # listed by one command; each is a line
VERSION_MAX: Final = 2**63 - 1
EXPORT_FORMAT: Final = "json"
EXPORT_FORMATS: Final = ("json", "npz", "skops", "onnx")
ROW_FORMAT: Final = "auto"
ROW_FORMATS: Final = ("csv", "jsonl", "auto")

_UNITS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds from "500ms", "30s", "2m", "1h"; a bare number means seconds.

    >>> duration("500ms"), duration("2m"), duration("30")
    (0.5, 120.0, 30.0)
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :] or "s"
    if unit in _UNITS and number.replace(".", "", 1).isdecimal():
        seconds = float(number) * _UNITS[unit]
        if 0 < seconds <= CHANGE_TIMEOUT_MAX_S:
            return seconds
    raise ValueError(f"{text!r} should be a time such as 500ms, 30s or 2m, at most {CHANGE_TIMEOUT_MAX_S:g}s")


class Since(NamedTuple):
    """A moment as it was given: so many seconds ago, or at a time (seconds since the epoch)."""

    ago: float | None = None
    at: float | None = None

    def moment(self, now: float) -> float:
        return max(0.0, now - self.ago) if self.ago is not None else self.at or 0.0


def since(text: str) -> Since:
    """A time ago with its unit, or an ISO 8601 date or time; without a zone local time.

    >>> since("10m"), since("1970-01-02T00:00Z")
    (Since(ago=600.0, at=None), Since(ago=None, at=86400.0))
    """
    found = re.fullmatch(r"([0-9]{1,10}(?:\.[0-9]{1,9})?)([a-z]+)", text)
    seconds = float(found[1]) * {**_UNITS, "d": 86400.0, "w": 604800.0}.get(found[2], 0.0) if found else 0.0
    if 0 < seconds <= SINCE_MAX_S:
        return Since(ago=seconds)
    from datetime import datetime  # 3 ms, which only who gives a date pays

    try:
        at = datetime.fromisoformat(text).timestamp() if "-" in text else -1.0
    except (ValueError, OverflowError):
        at = -1.0
    if at >= 0:
        return Since(at=at)
    raise ValueError(
        f"{text!r} should be how long ago, such as 30s, 10m, 2h or 1d, or a time such as 2024-05-31 or 2024-05-31T14:30"
    )


def interval(text: str) -> float:
    """As `duration`, for frames."""
    seconds = duration(text)
    if seconds < INTERVAL_MIN_S:
        raise ValueError(f"{text!r} should be a time such as 500ms or 2s, at least {INTERVAL_MIN_S * 1e3:g}ms")
    return seconds


def shell(text: str) -> str:
    if text in SHELLS:
        return text
    raise ValueError(f"{text!r} should be one of {', '.join(SHELLS)}")


def line_count(text: str) -> int:
    if text.isdecimal() and int(text) <= LOG_LINES_MAX:
        return int(text)
    raise ValueError(f"{text!r} should be a number of lines, 0 to {LOG_LINES_MAX}")


def level(text: str) -> str:
    if text in LEVELS:
        return text
    raise ValueError(f"{text!r} should be one of {', '.join(LEVELS)}")


def letter_id(text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) <= LETTER_ID_MAX:
        return int(text)
    raise ValueError(f"{text!r} should be the number of a dead letter, as `dlq list` shows it")


def letter_count(text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) <= LETTERS_MAX:
        return int(text)
    raise ValueError(f"{text!r} should be a number of letters, 1 to {LETTERS_MAX}")


def letter_status(text: str) -> str:
    if text in LETTER_STATUSES:
        return text
    raise ValueError(f"{text!r} should be one of {', '.join(LETTER_STATUSES)}")


def checkpoint_name(text: str) -> str:
    if re.fullmatch(CHECKPOINT_NAME, text):
        return text
    raise ValueError(f"{text!r} should be a name: a letter, then at most 63 letters, digits and any of . _ -")


def version(text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) <= VERSION_MAX:
        return int(text)
    raise ValueError(f"{text!r} should be the number of a version, as `model list` shows it")


def version_count(text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) <= VERSIONS_MAX:
        return int(text)
    raise ValueError(f"{text!r} should be a number of versions, 1 to {VERSIONS_MAX}")


def export_format(text: str) -> str:
    if text in EXPORT_FORMATS:
        return text
    raise ValueError(f"{text!r} should be one of {', '.join(EXPORT_FORMATS)}")


def row_format(text: str) -> str:
    if text in ROW_FORMATS:
        return text
    raise ValueError(f"{text!r} should be one of {', '.join(ROW_FORMATS)}")
