"""The console script. A plain, correct command line is parsed here, everything else by typer
(`interface.py`).

Through typer `streampipectl status` takes 190 ms, parsed here 52 (docs/components/streampipectl.md): typer
imports inspect and, for every value it converts, pydantic. So the parser below knows the same commands and
options, accepts only what it is sure of and says None to the rest: help, completion, mistakes, unusual
spellings. A test holds that whatever it accepts is exactly what typer would have made of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from streampipectl.commands import EXIT_INTERRUPTED, Call, perform
from streampipectl.values import CHANGE_TIMEOUT_S, LOG_LEVEL, LOG_LINES, duration, level, line_count
from streampiped.errors import ExitCode

COMPLETION_VARIABLE: Final = "_STREAMPIPECTL_COMPLETE"


class Option(NamedTuple):
    """`convert` is None for a flag, which then means `value`."""

    key: str
    convert: Callable[[str], Any] | None = None
    value: Any = None


class Syntax(NamedTuple):
    defaults: Mapping[str, Any]
    options: Mapping[str, Option]
    places: Literal["none", "one", "many"] = "none"
    place: str = ""


_WHERE: Final = {"--socket": Option("socket", str), "--runtime-dir": Option("runtime_dir", str)}
_JSON: Final = {"--json": Option("as_json", value=True)}
_CHANGE: Final = Syntax(
    {"stages": (), "timeout": CHANGE_TIMEOUT_S, "wait": True},
    {
        "--timeout": Option("timeout", duration),
        "--wait": Option("wait", value=True),
        "--no-wait": Option("wait", value=False),
    },
    "many",
    "stages",
)
_FOLLOW: Final = Option("follow", value=True)

SYNTAX: Final[Mapping[str, Syntax]] = {
    "status": Syntax({"as_json": False, "watch": False}, {**_JSON, "--watch": Option("watch", value=True)}),
    "start": _CHANGE,
    "stop": _CHANGE,
    "restart": _CHANGE,
    "report": Syntax({"as_json": False}, _JSON),
    "logs": Syntax(
        {"stage": None, "follow": False, "lines": LOG_LINES, "level": LOG_LEVEL, "as_json": False},
        {
            **_JSON,
            "--follow": _FOLLOW,
            "-f": _FOLLOW,
            "--lines": Option("lines", line_count),
            "--level": Option("level", level),
        },
        "one",
        "stage",
    ),
    "version": Syntax({}, {}),
}


def parse(arguments: Sequence[str]) -> Call | None:
    """The call, or None when typer had better look at it."""
    words = list(arguments)
    values: dict[str, Any] = {"socket": None, "runtime_dir": None}
    if not _take_options(words, _WHERE, values):
        return None
    syntax = SYNTAX.get(words.pop(0)) if words else None
    if syntax is None:
        return None
    command = arguments[len(arguments) - len(words) - 1]
    values |= syntax.defaults
    places: list[str] = []
    while words:
        if not _take_options(words, {**_WHERE, **syntax.options}, values):
            return None
        if words:
            places.append(words.pop(0))
    if syntax.places == "many":
        values[syntax.place] = tuple(places)
    elif syntax.places == "one" and len(places) == 1:
        values[syntax.place] = places[0]
    elif places:
        return None
    return Call(command, values)


def _take_options(words: list[str], options: Mapping[str, Option], values: dict[str, Any]) -> bool:
    """Move options from the front of `words` into `values`; False at one that is not plainly right."""
    while words and words[0].startswith("-"):
        name, equals, text = words.pop(0).partition("=")
        option = options.get(name)
        if option is None:
            return False
        if option.convert is None:
            if equals:
                return False
            values[option.key] = option.value
            continue
        if not equals:
            text = words.pop(0) if words else ""
        if not text or text.startswith("-"):
            return False
        try:
            values[option.key] = option.convert(text)
        except ValueError:
            return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script's entry; the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        call = None if COMPLETION_VARIABLE in os.environ else parse(words)
        if call is None:
            from streampipectl import interface

            call = interface.parse(words)
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # an ASCII terminal gets ? for …
        return perform(call)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `streampipectl logs | head`: the reader has what it wanted. The interpreter flushes stdout once more at its
        # end, so that must not meet the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
