"""The control socket: a fixed table of methods, who may call them, and what the supervisor must offer for it.

The supervisor implements `Backend` and runs one `ControlServer` on its loop. Reading is for whoever may open
the socket (its mode and group); changing is for root, the daemon's own user and the configured operators,
told by SO_PEERCRED. A change runs in a task of its own: it goes on when its client vanishes.
docs/specs/control.md is the contract. """

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from streampiped.errors import ExitCode, RpcError
from streampiped.events import LEVELS
from streampiped.runtime.rpc_server import Limits, Peer, RpcServer
from streampiped.wire.rpc import PROTOCOL

Verb: TypeAlias = Literal["start", "stop", "restart"]
Subscription: TypeAlias = Literal["logs", "status"]

TIMEOUT_MAX_S = 3600.0  # of one change; longer is a forgotten client, and the change goes on anyway
ANSWER_GRACE_S = 0.5  # the backend's own timeout speaks first: it knows what is missing
NO_WAIT_GRACE_S = 0.05  # a refusal is known at once; --no-wait should still report it
LOG_LINES_MAX = 10_000  # of one tail; what does not fit into one message is cut at the old end
WATCH_FASTEST_S = 0.2  # a burst of state changes is one redraw
WATCH_SLOWEST_S = 1.0  # counters move without any event; only while somebody watches
REQUEST_BYTES_MAX = 64 << 10  # a request here is a few names; small keeps 64 hostile clients under 4 MiB


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers on this socket."""

    pipeline: str
    version: str
    operators: tuple[str, ...] = ()
    """User names that may change things, beside root and the daemon's own user."""
    group: str = "streampipe"
    """The group of the socket: whoever is in it may read."""


class Backend(Protocol):
    """What the control server needs of the supervisor. All calls come on the supervisor's loop."""

    @property
    def identity(self) -> Identity: ...

    async def status(self, want_usage: bool) -> dict[str, Any]:
        """The status of docs/specs/control.md. Without `want_usage` CPU and memory may be null or old."""
        ...

    async def report(self) -> dict[str, Any]:
        """`{"text": str, "results": {...}, "operations": {...}}`. RpcError REFUSED when there is none yet."""
        ...

    async def change(self, verb: Verb, stages: tuple[str, ...], timeout: float, who: str) -> dict[str, Any]:
        """Do it and wait for its end; `()` means the whole pipeline. The names exist (`stage_names`).

        Returns at least `{"changed": [names]}`. Raises RpcError REFUSED (the state forbids it), FAILED (it
        was tried and failed) or TIMED_OUT (not there after `timeout` seconds, still going on). Not cancelled
        when the client leaves or the server stops waiting. Ordering concurrent changes is the backend's
        business. """
        ...

    def log_tail(self, stage: str | None, lines: int, level: str) -> list[dict[str, Any]]:
        """The last events (fields of `events.py`, msgpack-able), oldest first, at or above `level`, of one
        process or of all."""
        ...

    def subscribe(self, kind: Subscription, callback: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call `callback` for every log event ("logs"), or whenever a process or the pipeline changed its
        state ("status": the argument only says that something changed and may be empty; the server then asks
        `status`, at most every 0.2 s). The callback does not block or raise. Returns what ends the
        subscription."""
        ...

    def stage_names(self) -> tuple[str, ...]:
        """Every process that a change may name, in the plan's order, services included."""
        ...


class Emit(Protocol):
    """Log an event of the catalogue (`streampiped.events`)."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...
