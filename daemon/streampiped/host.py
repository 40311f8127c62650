"""What the two kinds of path (data, service) may use of the process that they run in."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, Protocol

from streampiped.credentials import Credentials
from streampiped.runtime.blackbox import BlackBox
from streampiped.runtime.channel import Channel
from streampiped.topology import Plan, StageSpec


class Host(Protocol):
    """A stage's process."""

    plan: Plan
    spec: StageSpec
    loop: asyncio.AbstractEventLoop
    blackbox: BlackBox
    channel: Channel
    credentials: Credentials

    def tick(self) -> None:
        """Say 'not hung' from inside of something that takes long on purpose."""
        ...

    def emit(self, event: str, /, **fields: Any) -> None:
        """Log an event of the catalogue."""
        ...

    def fail(self, phase: str, error: BaseException) -> NoReturn:
        """Say why, and die."""
        ...
