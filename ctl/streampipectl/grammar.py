"""What a command line is made of: the form in which `app.py` declares the commands, and what comes of parsing one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

COMPLETION_VARIABLE: Final = "_STREAMPIPECTL_COMPLETE"
"""Set by what `streampipectl completion` prints: the arguments are words to be completed."""


class Call(NamedTuple):
    """A parsed command line: the command and its options by keyword."""

    command: str
    options: Mapping[str, Any]


class Option(NamedTuple):
    """`convert` is None for a flag, which then means `value`."""

    key: str
    convert: Callable[[str], Any] | None = None
    value: Any = None


class Syntax(NamedTuple):
    """`place`: the key of what stands without an option's name. One that has no default must be given."""

    defaults: Mapping[str, Any]
    options: Mapping[str, Option]
    places: Literal["none", "one", "many"] = "none"
    place: str = ""
    convert: Callable[[str], Any] = str


class Grammar(NamedTuple):
    """All commands, the words that a second one completes to a command, and the options that stand with every one."""

    syntax: Mapping[str, Syntax]
    groups: Collection[str]
    where: Mapping[str, Option]
