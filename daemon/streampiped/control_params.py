"""The parameters of control methods: checks that return the value or raise ValueError saying what it should
be.

Pure, and without pydantic, which would cost the supervisor 5 MiB (measured) for a dozen kinds of parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from streampiped.core.epoch_commands import REPLAY
from streampiped.errors import ExitCode, RpcError
from streampiped.events import LEVELS
from streampiped.runtime.dead_letters import REPLAY_LETTERS_MAX, STATUSES, Status

Params: TypeAlias = Mapping[str, tuple[Callable[[Any], Any], Any]]
"""Name to check and default; the default passes through the check too."""

TIMEOUT_MAX_S: Final = 3600.0  # of one change; longer is a forgotten client, and the change goes on anyway
LOG_LINES_MAX: Final = 10_000  # of one tail; what does not fit into one message is cut at the old end
PAGE_LETTERS_MAX: Final = 1000  # of one answer; 300 bytes each without record and traceback
LETTER_ID_MAX: Final = 2**63 - 1  # SQLite's
OFFSET_MAX: Final = 2**31 - 1  # no value in SQLite is longer
CHANGE_KIND: Final = "[a-z][a-z_]{0,31}"
CHECKPOINT_NAME: Final = "[A-Za-z][A-Za-z0-9._-]{0,63}"
"""Begins with a letter: `streampiped restore --from` takes an epoch's number or a name."""


def validated(method: str, wanted: Params, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, checked and completed; RpcError USAGE names what is wrong and what would be right."""
    for name in given:
        if name not in wanted:
            raise RpcError(f"{method}: no parameter {name!r}; there are {', '.join(wanted)}", ExitCode.USAGE)
    values = {}
    for name, (check, default) in wanted.items():
        try:
            values[name] = check(given.get(name, default))
        except ValueError as error:
            raise RpcError(f"{method}: {name} {error}", ExitCode.USAGE) from None
    return values


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("should be true or false")


def seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= TIMEOUT_MAX_S:
        return float(value)
    raise ValueError(f"should be seconds, more than 0 and at most {TIMEOUT_MAX_S:g}")


def count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LOG_LINES_MAX:
        return value
    raise ValueError(f"should be a number of lines, 0 to {LOG_LINES_MAX}")


def moment(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11:
        return float(value)
    raise ValueError("should be seconds since 1970 (UTC)")


def integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("should be an integer")


def name(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError("should be the name of a stage, or null for all")


def names(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(dict.fromkeys(value))
    raise ValueError("should be a list of names of stages; empty means all")


def level(value: Any) -> str:
    if value in LEVELS:
        return str(value)
    raise ValueError(f"should be one of {', '.join(LEVELS)}")


def one_name(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("should be the name of a stage")


def kind(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(CHANGE_KIND, value, re.ASCII) and value != REPLAY:
        return value
    raise ValueError("should be a word: what the stage is to do")


def given(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and all(isinstance(each, str | int | float | bool | None) for each in value.values()):
        return value
    raise ValueError("should be a map of names to plain values")


def number(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LETTER_ID_MAX:
        return value
    raise ValueError("should be the number of a letter")


def offset(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= OFFSET_MAX:
        return value
    raise ValueError("should be a place in a record, in bytes")


def ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, list | tuple) and len(value) <= REPLAY_LETTERS_MAX:
        return tuple(dict.fromkeys(map(number, value)))
    raise ValueError(f"should be a list of at most {REPLAY_LETTERS_MAX} numbers of letters")


def letter_count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= PAGE_LETTERS_MAX:
        return value
    raise ValueError(f"should be a number of letters, 1 to {PAGE_LETTERS_MAX}")


def letter_status(value: Any) -> Status | None:
    for status in STATUSES:
        if value == status:
            return status
    if value is None:
        return None
    raise ValueError(f"should be one of {', '.join(STATUSES)}, or null for all")


def kept(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(CHECKPOINT_NAME, value, re.ASCII):
        return value
    raise ValueError("should be a name: a letter, then at most 63 letters, digits, dots, dashes and underscores")


def keep(value: Any) -> str | None:
    return None if value is None else kept(value)
