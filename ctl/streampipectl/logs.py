"""The command `streampipectl logs`: events, the next ones, or the summary of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streampipectl import render, render_logs
from streampipectl.changes import EXIT_INTERRUPTED
from streampipectl.client import Client, GoingDownError
from streampipectl.follow import Follower, Record
from streampipectl.output import colour, complain, dumped, say, width
from streampipectl.values import LOG_LEVEL, LOG_LINES, LOG_LINES_MAX, Since
from streampiped.errors import ExitCode, RpcError
from streampiped.events import describe


def logs(
    path: str,
    stage: str | None,
    follow: bool,
    lines: int | None,
    level: str,
    since: Since | None,
    summary: bool,
    as_json: bool,
) -> int:
    if summary:
        if follow or lines is not None or level != LOG_LEVEL:
            raise RpcError("logs --summary: only STAGE, --since and --json go with it", ExitCode.USAGE)
        return _summary(path, stage, since, as_json)
    client = Client(path)
    line = dumped if as_json else _event_line()
    asked: dict[str, Any] = {"stage": stage, "lines": _count(lines, since), "level": level, "follow": follow}
    if since is not None:
        asked["since"] = since.moment(time.time())
    try:
        answer = client.call("logs", asked)
        if not answer.get("complete", True):
            complain("older events may be missing: one answer looks back so far; `logs --summary` has counted them all")
        for record in answer["lines"]:
            say(line(record))
        if follow:
            _follow(client, asked, answer["lines"], lambda record: say(line(record)))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return int(ExitCode.OK)


def _follow(client: Client, asked: Mapping[str, Any], lines: Sequence[Record], show: Callable[[Record], None]) -> None:
    """Until the daemon leaves in an orderly way: from then on there is nothing to follow."""
    try:
        Follower(asked["stage"], asked["level"], show).run(client, lines)
    except GoingDownError as farewell:
        complain(str(farewell))


def _summary(path: str, stage: str | None, since: Since | None, as_json: bool) -> int:
    asked: dict[str, Any] = {"stage": stage}
    if since is not None:
        asked["since"] = since.moment(time.time())
    answer = Client(path).call("log_summary", asked)
    say(dumped(answer, indent=2) if as_json else render_logs.summary_text(answer, width(), colour()))
    return int(ExitCode.OK)


def _count(lines: int | None, since: Since | None) -> int:
    """Whoever says since when wants all from then on."""
    if lines is not None:
        return lines
    return LOG_LINES if since is None else LOG_LINES_MAX


def _event_line() -> Callable[[Mapping[str, Any]], str]:
    coloured = colour()
    return lambda record: render.event_text(record, describe(str(record.get("event")), record), coloured)
