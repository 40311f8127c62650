"""Asking for a change, and waiting for its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from streampipectl.client import Client
from streampipectl.output import complain, say
from streampiped.errors import ExitCode

CHANGE_SLACK_S: Final = 3.0  # the daemon says itself that time is up; only a dead one lets us wait longer
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


def carry_out(path: str, verb: str, params: Mapping[str, Any], text: Callable[[Mapping[str, Any]], str]) -> int:
    """Ask for a change and wait as long as `params` say; Ctrl-C ends the waiting alone. `text` says the answer."""
    client = Client(path)
    try:
        answer = client.call(verb, params, params["timeout"] + CHANGE_SLACK_S)
    except KeyboardInterrupt:
        complain(f"{verb} goes on; `streampipectl status` shows how far it is")
        return EXIT_INTERRUPTED
    say(text(answer))
    return int(ExitCode.OK)
