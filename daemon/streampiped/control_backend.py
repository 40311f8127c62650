"""What the control server needs of the supervisor, and nothing else of it. All calls come on the supervisor's loop.

What changes something takes `who`, the user who asked, and raises RpcError REFUSED (the state forbids it), FAILED (it
was tried and failed) or TIMED_OUT (not there after `timeout` seconds, still going on). It is not cancelled when the
client leaves or the server stops waiting; to put concurrent changes in an order is the backend's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from streampiped.runtime.dead_letters import Status

Verb: TypeAlias = Literal["start", "stop", "restart"]
Subscription: TypeAlias = Literal["logs", "status"]
PIPELINE: Final = ("supervisor", "launcher")
"""Names of processes that are no stages: `why` tells of the pipeline as a whole."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers on this socket."""

    pipeline: str
    version: str
    operators: tuple[str, ...] = ()
    """User names that may change things, beside root and the daemon's own user."""
    group: str = "streampipe"
    """The group of the socket: whoever is in it may read."""
    uids: frozenset[int] | None = None
    """Of the operators; None: they are still to be looked up."""


class Backend(Protocol):
    """Dictionaries are msgpack-able, with the fields of docs/specs/control.md."""

    @property
    def identity(self) -> Identity: ...

    def stage_names(self) -> tuple[str, ...]:
        """Every process that a change may name, in the plan's order, services included."""
        ...

    async def status(self, want_usage: bool) -> dict[str, Any]:
        """The status. Without `want_usage` CPU and memory may be null or old."""
        ...

    async def report(self) -> dict[str, Any]:
        """`{"text": str, "results": {...}, "operations": {...}}`. RpcError REFUSED when there is none yet."""
        ...

    async def why(self, stage: str) -> dict[str, Any]:
        """`state`, `since`, `reason`, `waits_for`, `next_attempt_s` and `story`, the last events and decisions that
        led there, oldest first: `{"ts", "what", "cause"}` each. The stage exists."""
        ...

    async def health(self, stage: str | None) -> dict[str, Any]:
        """Of a process that exists, or of the pipeline: `health`, `reason`, `cause`, `since`, `live`, `ready`, and
        `stages` with the first four of each."""
        ...

    async def metrics(self) -> str:
        """The page of docs/specs/metrics.md."""
        ...

    def log_tail(self, stage: str | None, lines: int, level: str, since: float) -> tuple[list[dict[str, Any]], bool]:
        """The last events (fields of `events.py`, msgpack-able), oldest first, at or above `level`, of one
        process or of all, not older than `since` (seconds since the epoch); False: older ones that were asked for may
        be missing."""
        ...

    async def log_summary(self, stage: str | None, since: float) -> dict[str, Any]:
        """The facts of the log extractor, of one name in the log or of all, and from `since` on (0: of the whole log;
        else the answer says from when it counts). RpcError REFUSED when there is none to
        ask."""
        ...

    def subscribe(self, kind: Subscription, callback: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call `callback` for every log event ("logs"), or whenever a process or the pipeline changed its
        state ("status": the argument only says that something changed and may be empty; the server then asks
        `status`, at most every 0.2 s). The callback does not block or raise. Returns what ends the
        subscription."""
        ...

    async def change(
        self, verb: Verb, stages: tuple[str, ...], timeout: float, who: str, force: bool = False
    ) -> dict[str, Any]:
        """Do it and wait for its end; `()` means the whole pipeline. The names exist (`stage_names`). `force`, of a
        restart: wait for no barrier, the stage goes back to the last epoch as after a crash. Returns at least
        `{"changed": [names]}`."""
        ...

    async def change_stage(
        self, stage: str, kind: str, params: Mapping[str, Any], timeout: float, who: str
    ) -> dict[str, Any]:
        """Change a stage's state as it knows how (`Stage.change`). The stage exists. Returns when the manifest that
        records it is committed: `{"params": as recorded, "epoch"}`. REFUSED when the stage says that it cannot be."""
        ...

    async def reload(self, dry_run: bool, timeout: float, who: str) -> dict[str, Any]:
        """Returns when what the configuration file says now is in effect (`dry_run`: could be): `{"changed": [names of
        processes that are others for it], "changes": [a line for each setting], "dry_run"}`. REFUSED as a whole, with a
        line for each reason."""
        ...

    # epochs

    async def checkpoint(self, keep: str | None, timeout: float, who: str) -> dict[str, Any]:
        """Returns when an epoch is committed that was asked for after this call: `{"epoch", "position"}`. `keep`: the
        name under which it stays; one that is in use is REFUSED."""
        ...

    async def checkpoints(self) -> list[dict[str, Any]]:
        """What is there to go back to, oldest first: `epoch`, `at` (seconds since the epoch), `bytes`, `position`,
        `seconds` (from the request to the commit), `names`, `live`."""
        ...

    async def forget_checkpoint(self, name: str, who: str) -> dict[str, Any]:
        """Its epoch is removed like any other, soon. `{"epoch"}`. NO_SUCH_STAGE when nothing has that name."""
        ...

    # dead letters

    async def dead_letters(
        self, stage: str | None, status: Status | None, after: int, limit: int, whole: bool
    ) -> list[dict[str, Any]]:
        """`DeadLetters.page`."""
        ...

    async def dead_letter_counts(self, stage: str | None) -> dict[Status, int]:
        """`DeadLetters.counts`."""
        ...

    async def dead_letter(self, letter: int) -> dict[str, Any] | None:
        """`DeadLetters.get`."""
        ...

    async def dead_letter_part(self, letter: int, offset: int) -> dict[str, Any] | None:
        """`DeadLetters.part`."""
        ...

    async def replay(self, letters: Sequence[int], stage: str | None, timeout: float, who: str) -> dict[str, Any]:
        """Returns when the manifest that records the replay is committed: `{"letters": how many, "epoch"}`. `()`: all
        dead ones (of the stage), as many as one change takes. NO_SUCH_STAGE or REFUSED for what is not dead."""
        ...

    async def drop(self, letters: Sequence[int], stage: str | None, who: str) -> dict[str, Any]:
        """`{"letters": how many}`. `()`: all dead ones (of the stage)."""
        ...


class Emit(Protocol):
    """Log an event of the catalogue (`streampiped.events`)."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...
