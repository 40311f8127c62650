"""What could stand where the cursor is: the answer to a shell's TAB.

`shells.py` has the other end. The commands and options are those of `app.SYNTAX`; what a pipeline has (stages,
checkpoints, dead letters) is asked of the daemon, which gets a moment for it, and is left out when it does not answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from streampipectl.client import Client, socket_path
from streampipectl.grammar import Grammar, Option, Syntax
from streampipectl.output import say
from streampipectl.render import clean
from streampipectl.values import EXPORT_FORMATS, LETTER_STATUSES, LEVELS, ROW_FORMATS, SHELLS
from streampiped.errors import ExitCode, RpcError, StreampipeError

PATIENCE_S: Final = 0.15  # for each of two answers
LETTERS: Final = 200  # numbers that are offered; more cannot be chosen from
HELP: Final = ("--help",)

Choice = tuple[str, str]
"""A word, and what it is (may be empty)."""
Ask = Callable[[str, Mapping[str, Any]], Any]


class Place(NamedTuple):
    """Where the cursor is. `kind` is what belongs there: "command", "option", or the key of a value in `app.SYNTAX`;
    `before` stands in front of each choice (`--level=`), `given` is there already."""

    kind: str
    command: str
    where: Mapping[str, str]
    before: str = ""
    given: Sequence[str] = ()


FILES: Final = {"socket": "files", "runtime_dir": "directories", "output": "files", "html": "files", "plot": "files"}
"""Values for which the shell completes names of files."""
FIXED: Final[Mapping[str, Sequence[str]]] = {
    "level": LEVELS,
    "status": LETTER_STATUSES,
    "shell": SHELLS,
    "kind": EXPORT_FORMATS,
    "source": ROW_FORMATS,
    "target": ROW_FORMATS,
}
BESIDES: Final = ("supervisor", "launcher")
"""What `logs` and `why` know besides the stages."""


def complete(words: Sequence[str], environment: Mapping[str, str], grammar: Grammar) -> int:
    """Print what is to be done (`words`, `files` or `directories`), then a line with each choice, a tab, what it is. A
    daemon that cannot be reached is no mistake."""
    place = placed(words, grammar)
    current = words[-1] if words else ""
    if place.before:
        current = current.removeprefix(place.before)
    say(FILES.get(place.kind, "words"))
    if place.kind in FILES:
        return int(ExitCode.OK)
    path = socket_path(place.where.get("socket"), place.where.get("runtime_dir"), environment)
    for word, about in choices(place, grammar, lambda method, params: _ask(path, method, params)):
        if word.startswith("" if current == "=" else current):
            say(f"{place.before}{clean(word)}\t{clean(about)}")
    return int(ExitCode.OK)


def placed(words: Sequence[str], grammar: Grammar) -> Place:
    """Where the last word is. bash makes three words of `--level=err`."""
    *before, current = words or [""]
    option = before[-1] if current == "=" and before else before[-2] if before[-1:] == ["="] and before[1:] else None
    if option is not None:
        before = before[: before.index(option)]
    command, options, places, where, waiting = _read(before, grammar)
    syntax = grammar.syntax.get(command)
    known = {**grammar.where, **(syntax.options if syntax else {})}
    if option is not None:
        waiting = known.get(option)
    if waiting is not None:
        return Place(waiting.key if waiting.convert else "nothing", command, where)
    name, equals, _ = current.partition("=")
    if current.startswith("-") and equals:
        return Place(known[name].key if name in known else "nothing", command, where, f"{name}=")
    if current.startswith("-"):
        return Place("option", command, where, given=options)
    if syntax is None:
        return Place("command", command, where)
    return Place(_next(syntax, places), command, where, given=places)


def _next(syntax: Syntax, places: Sequence[str]) -> str:
    return syntax.place if syntax.places == "many" or (syntax.places == "one" and not places) else "option"


def _read(words: Sequence[str], grammar: Grammar) -> tuple[str, list[str], list[str], dict[str, str], Option | None]:
    """Command, options, places and where the daemon is; last the option that waits for its value."""
    command, waiting = "", None
    options: list[str] = []
    places: list[str] = []
    where: dict[str, str] = {}
    for word in words:
        syntax = grammar.syntax.get(command)
        known = {**grammar.where, **(syntax.options if syntax else {})}
        if waiting is not None:
            if waiting.key in FILES:
                where[waiting.key] = word
            waiting = None
        elif word.startswith("-"):
            name, equals, value = word.partition("=")
            options.append(name)
            option = known.get(name)
            if option is not None and option.convert is not None and not equals:
                waiting = option
            elif option is not None and option.key in FILES:
                where[option.key] = value
        elif syntax is None:
            command = f"{command} {word}".strip()
        else:
            places.append(word)
    return command, options, places, where, waiting


def choices(place: Place, grammar: Grammar, ask: Ask) -> Iterator[Choice]:
    """Every choice of this kind, in the order in which they should be shown."""
    match place.kind:
        case "command":
            yield from ((word, "") for word in _commands(place.command, grammar))
        case "option":
            known = grammar.syntax[place.command].options if place.command in grammar.syntax else {}
            yield from ((name, "") for name in (*known, *grammar.where, *HELP) if name not in place.given)
        case "stage" | "stages":
            yield from ((n, s) for n, s in _stages(place.command, ask) if n not in place.given)
        case "forget":
            for entry in ask("checkpoints", {}).get("checkpoints", ()):
                yield from ((name, f"epoch {entry['epoch']}") for name in entry.get("names") or ())
        case "letter" | "letters":
            asked = {"limit": LETTERS, "status": None if place.kind == "letter" else "dead"}
            for letter in ask("dead_letters", asked).get("letters", ()):
                if str(letter["id"]) not in place.given:
                    yield str(letter["id"]), f"{letter['stage']}: {letter['reason']}"
        case kind:
            yield from ((word, "") for word in FIXED.get(kind, ()))


def _commands(begun: str, grammar: Grammar) -> list[str]:
    """Words that go on from those of the command so far."""
    if not begun:
        return list(dict.fromkeys(name.split()[0] for name in grammar.syntax))
    return [name.split()[1] for name in grammar.syntax if begun in grammar.groups and name.startswith(f"{begun} ")]


def _stages(command: str, ask: Ask) -> Iterator[Choice]:
    for process in ask("status", {"usage": False}).get("processes", ()):
        yield str(process["name"]), str(process["state"])
    if command in ("logs", "why"):
        yield from ((name, "") for name in BESIDES)


def _ask(path: str, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    with contextlib.suppress(RpcError, StreampipeError, OSError):
        client = Client(path, PATIENCE_S)
        try:
            found: Mapping[str, Any] = client.call(method, params)
        finally:
            client.close()
        return found
    return {}
