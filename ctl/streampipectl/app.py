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
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streampipectl.changes import EXIT_INTERRUPTED
from streampipectl.commands import perform
from streampipectl.grammar import COMPLETION_VARIABLE, Call, Grammar, Option, Syntax
from streampipectl.output import complain, give_up_stdout, have_streams
from streampipectl.values import (
    CHANGE_TIMEOUT_S,
    EXPORT_FORMAT,
    INTERVAL,
    LETTERS,
    LOG_LEVEL,
    ROW_FORMAT,
    VERSIONS,
    checkpoint_name,
    duration,
    export_format,
    interval,
    letter_count,
    letter_id,
    letter_status,
    level,
    line_count,
    row_format,
    shell,
    since,
    version,
    version_count,
)
from streampiped.errors import ExitCode

WHERE: Final = {"--socket": Option("socket", str), "--runtime-dir": Option("runtime_dir", str)}
_JSON: Final = {"--json": Option("as_json", value=True)}
_PATIENT: Final = {"timeout": CHANGE_TIMEOUT_S, "wait": True}
_PATIENCE: Final = {
    "--timeout": Option("timeout", duration),
    "--wait": Option("wait", value=True),
    "--no-wait": Option("wait", value=False),
}
_CHANGE: Final = Syntax({"stages": (), **_PATIENT}, _PATIENCE, "many", "stages")
_STAGE: Final = {"--stage": Option("stage", str)}
_STATUS: Final = {"--status": Option("status", letter_status)}
_CHOSEN: Final = {"letters": (), "every": False, "stage": None}
_CHOICE: Final = {**_STAGE, "--all": Option("every", value=True)}
_OF_MODEL: Final = {"stage": None, **_PATIENT}
_OF_MEMBER: Final = Syntax(_OF_MODEL, {**_STAGE, **_PATIENCE}, "one", "member")
_FOLLOW: Final = Option("follow", value=True)

SYNTAX: Final[Mapping[str, Syntax]] = {
    "status": Syntax({"as_json": False, "watch": False}, {**_JSON, "--watch": Option("watch", value=True)}),
    "top": Syntax(
        {"interval": interval(INTERVAL), "once": False},
        {"--interval": Option("interval", interval), "--once": Option("once", value=True)},
    ),
    "start": _CHANGE,
    "stop": _CHANGE,
    "restart": Syntax(
        {**_CHANGE.defaults, "force": False},
        {**_CHANGE.options, "--force": Option("force", value=True)},
        "many",
        "stages",
    ),
    "reload": Syntax(
        {"dry_run": False, **_PATIENT},
        {"--dry-run": Option("dry_run", value=True), **_PATIENCE},
    ),
    "report": Syntax(
        {"as_json": False, "html": None, "plot": None},
        {**_JSON, "--html": Option("html", str), "--plot": Option("plot", str)},
    ),
    "logs": Syntax(
        {
            "stage": None,
            "follow": False,
            "lines": None,
            "level": LOG_LEVEL,
            "since": None,
            "summary": False,
            "as_json": False,
        },
        {
            **_JSON,
            "--follow": _FOLLOW,
            "-f": _FOLLOW,
            "--lines": Option("lines", line_count),
            "--level": Option("level", level),
            "--since": Option("since", since),
            "--summary": Option("summary", value=True),
        },
        "one",
        "stage",
    ),
    "why": Syntax({"as_json": False}, _JSON, "one", "stage"),
    "health": Syntax(
        {"stage": None, "live": False, "ready": False, "as_json": False},
        {**_JSON, "--live": Option("live", value=True), "--ready": Option("ready", value=True)},
        "one",
        "stage",
    ),
    "metrics": Syntax({"output": None}, {"--output": Option("output", str)}),
    "checkpoint": Syntax({"keep": None, **_PATIENT}, {"--keep": Option("keep", checkpoint_name), **_PATIENCE}),
    "checkpoints": Syntax({"as_json": False, "forget": None}, {**_JSON, "--forget": Option("forget", checkpoint_name)}),
    "dlq list": Syntax(
        {"stage": None, "status": "dead", "limit": LETTERS, "as_json": False},
        {**_STAGE, **_STATUS, "--limit": Option("limit", letter_count), **_JSON},
    ),
    "dlq show": Syntax({"as_json": False}, _JSON, "one", "letter", letter_id),
    "dlq export": Syntax({"stage": None, "status": "dead"}, {**_STAGE, **_STATUS}),
    "dlq replay": Syntax({**_CHOSEN, **_PATIENT}, {**_CHOICE, **_PATIENCE}, "many", "letters", letter_id),
    "dlq drop": Syntax(_CHOSEN, _CHOICE, "many", "letters", letter_id),
    "model list": Syntax(
        {"stage": None, "limit": VERSIONS, "as_json": False},
        {**_STAGE, "--limit": Option("limit", version_count), **_JSON},
    ),
    "model show": Syntax(
        {"version": None, "stage": None, "as_json": False}, {**_STAGE, **_JSON}, "one", "version", version
    ),
    "model export": Syntax(
        {"version": None, "output": None, "kind": EXPORT_FORMAT, "stage": None},
        {**_STAGE, "--output": Option("output", str), "--format": Option("kind", export_format)},
        "one",
        "version",
        version,
    ),
    "model promote": _OF_MEMBER,
    "model pin": _OF_MEMBER,
    "model unpin": Syntax(_OF_MODEL, {**_STAGE, **_PATIENCE}),
    "model rollback": Syntax(_OF_MODEL, {**_STAGE, **_PATIENCE}, "one", "version", version),
    "predict": Syntax(
        {"stage": None, "version": None, "source": ROW_FORMAT, "target": ROW_FORMAT, "as_is": False},
        {
            **_STAGE,
            "--model": Option("version", version),
            "--from": Option("source", row_format),
            "--to": Option("target", row_format),
            "--as-is": Option("as_is", value=True),
        },
    ),
    "completion": Syntax({}, {}, "one", "shell", shell),
    "version": Syntax({}, {}),
}
GROUPS: Final = {"dlq", "model"}
"""Words that a second one completes to a command."""


def parse(arguments: Sequence[str]) -> Call | None:
    """The call, or None when typer had better look at it."""
    words = list(arguments)
    values: dict[str, Any] = {"socket": None, "runtime_dir": None}
    if not _take_options(words, WHERE, values):
        return None
    command = words.pop(0) if words else ""
    if command in GROUPS and words:
        command = f"{command} {words.pop(0)}"
    syntax = SYNTAX.get(command)
    if syntax is None:
        return None
    values |= syntax.defaults
    places: list[str] = []
    while words:
        if not _take_options(words, {**WHERE, **syntax.options}, values):
            return None
        if words:
            places.append(words.pop(0))
    return Call(command, values) if _take_places(places, syntax, values) else None


def _take_places(places: list[str], syntax: Syntax, values: dict[str, Any]) -> bool:
    """Put what stands without an option's name into `values`; False when it is not plainly right."""
    try:
        found = tuple(map(syntax.convert, places))
    except ValueError:
        return False
    if syntax.places == "many":
        values[syntax.place] = found
    elif syntax.places == "one" and len(found) == 1:
        values[syntax.place] = found[0]
    else:
        return not found and (syntax.place in values or not syntax.place)
    return True


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
    have_streams()
    try:
        if COMPLETION_VARIABLE in os.environ:
            from streampipectl.complete import complete

            return complete(words, os.environ, Grammar(SYNTAX, GROUPS, WHERE))
        call = parse(words)
        if call is None:
            from streampipectl import interface

            call = interface.parse(words)
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # an ASCII terminal gets ? for …
        return perform(call)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        give_up_stdout()  # `streampipectl logs | head`: the reader has what it wanted
        return int(ExitCode.OK)
    except OSError as error:  # every other one is caught where it comes up
        give_up_stdout()
        complain(f"standard output: {error.strerror or error}")
        return int(ExitCode.REFUSED)


if __name__ == "__main__":
    sys.exit(main())
