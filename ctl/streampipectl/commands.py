"""What each command does: ask, draw, and say by the exit code how it went."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from streampipectl import render
from streampipectl.client import Client, socket_path
from streampiped import __version__
from streampiped.errors import ExitCode, RpcError
from streampiped.wire.rpc import PROTOCOL

CHANGE_SLACK_S: Final = 3.0  # the daemon says itself that time is up; only a dead one lets us wait longer
WATCH_SILENCE_S: Final = 15.0  # a watched daemon speaks every second
SCREEN: Final = (80, 24)  # columns and lines of a terminal that does not know its size
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


class Call(NamedTuple):
    """A parsed command line: the command and its options by keyword."""

    command: str
    options: Mapping[str, Any]


def perform(call: Call) -> int:
    """Carry out a command line; the exit code of docs/specs/control.md."""
    options = dict(call.options)
    path = socket_path(options.pop("socket"), options.pop("runtime_dir"), os.environ)
    try:
        return COMMANDS[call.command](path, **options)
    except RpcError as error:
        complain(str(error))
        down = call.command == "status" and error.code in (ExitCode.UNREACHABLE, ExitCode.TIMED_OUT)
        return int(ExitCode.NOT_RUNNING if down else error.code)


def status(path: str, as_json: bool, watch: bool) -> int:
    client = Client(path)
    if not watch:
        answer = client.call("status", {"usage": True})
        say(dumped(answer, indent=2) if as_json else render.status_text(answer, _width(), _colour()))
        return _health(answer)
    answer = client.call("watch", {})
    try:
        drawn = _draw(answer, as_json, 0)
        for notification in client.notifications(WATCH_SILENCE_S):
            if notification.method == "status":
                answer = notification.params
                drawn = _draw(answer, as_json, drawn)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return _health(answer)


def _health(answer: Mapping[str, Any]) -> int:
    return int(ExitCode.OK if render.healthy(answer) else ExitCode.NOT_RUNNING)


def _draw(answer: Mapping[str, Any], as_json: bool, drawn: int) -> int:
    """Draw over the `drawn` lines of the last time on a terminal, below them elsewhere; the lines drawn
    now."""
    if as_json:
        say(dumped(answer))
        return 0
    if not sys.stdout.isatty():
        say(render.status_text(answer) + "\n")
        return 0
    columns, rows = _screen()
    # one line less than the screen: a table that scrolls can no longer be drawn over
    lines = render.status_text(answer, columns, _colour()).split("\n")[: rows - 1]
    up = f"\x1b[{drawn}F" if drawn else ""
    say(up + "\n".join(f"{line}\x1b[K" for line in lines) + "\n\x1b[J", end="")
    return len(lines)


def change(verb: str) -> Callable[..., int]:
    def run(path: str, stages: tuple[str, ...], timeout: float, wait: bool) -> int:
        client = Client(path)
        params = {"stages": list(stages), "timeout": timeout, "wait": wait}
        try:
            answer = client.call(verb, params, timeout + CHANGE_SLACK_S)
        except KeyboardInterrupt:
            complain(f"{verb} goes on; `streampipectl status` shows how far it is")
            return EXIT_INTERRUPTED
        say(render.change_text(answer, stages))
        return int(ExitCode.OK)

    return run


def report(path: str, as_json: bool) -> int:
    answer = Client(path).call("report", {})
    say(dumped(answer, indent=2) if as_json else render.report_text(answer))
    return int(ExitCode.OK)


def logs(path: str, stage: str | None, follow: bool, lines: int, level: str, as_json: bool) -> int:
    client = Client(path)
    line = dumped if as_json else _event_line()
    try:
        asked = {"stage": stage, "lines": lines, "level": level, "follow": follow}
        for record in client.call("logs", asked)["lines"]:
            say(line(record))
        for notification in client.notifications(None) if follow else ():
            if notification.method == "log":
                say(line(notification.params))
            elif notification.method == "missed":
                complain(f"{notification.params['count']} events missed, too slow a reader")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return int(ExitCode.OK)


def _event_line() -> Callable[[Mapping[str, Any]], str]:
    from streampiped.events import describe  # dataclasses below it cost 10 ms, which only this command pays

    colour = _colour()
    return lambda record: render.event_text(record, describe(str(record.get("event")), record), colour)


def version(path: str) -> int:
    say(f"streampipectl {__version__}, protocol {PROTOCOL}")
    try:
        daemon = Client(path).daemon
    except RpcError as error:
        if error.code != ExitCode.UNREACHABLE:
            raise
        say(str(error))
    else:
        about = f"protocol {daemon['protocol']}, pipeline {render.clean(daemon['pipeline'])}"
        say(f"streampiped {daemon['version']}, {about}")
    return int(ExitCode.OK)


COMMANDS: Final[Mapping[str, Callable[..., int]]] = {
    "status": status,
    "start": change("start"),
    "stop": change("stop"),
    "restart": change("restart"),
    "report": report,
    "logs": logs,
    "version": version,
}


def say(text: str, end: str = "\n") -> None:
    """To stdout at once: what reads the other end of a pipe, or a terminal, should not wait."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def complain(text: str) -> None:
    sys.stderr.write(f"streampipectl: {render.clean(text)}\n")


def dumped(value: Any, indent: int | None = None) -> str:
    """JSON by the book: NaN and infinities, which JSON does not have, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _width() -> int | None:
    return _screen()[0] if sys.stdout.isatty() else None


def _screen() -> tuple[int, int]:
    """Columns and lines of the terminal; a terminal without a size (serial line, some containers) says 0."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return size.columns or SCREEN[0], max(size.lines or SCREEN[1], 2)


def _colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
