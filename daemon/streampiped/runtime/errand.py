"""A process that is forked for one question, answers it and is gone: what the supervisor must not do itself.

The launcher has numpy and scikit-learn already, so that such a process is at work in milliseconds; it is watched,
ended with all its children and reaped like every other one, and what it prints is in the log.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Final

import msgpack

from streampiped.errors import StreampipeError
from streampiped.runtime.spawn import Child, Spawner
from streampiped.wire import messages as m

_NUMBERS: Final = count(1)  # of all errands of this supervisor; none is confused with one before


class ErrandError(StreampipeError):
    """The process died, could not be forked or did not answer in time. The message is for people."""


class Errand:
    """One such process; a `spawn.Orderer`."""

    def __init__(self, spawner: Spawner, name: str, question: m.Message) -> None:
        """`name`: its title, which no process of a plan may have."""
        self._spawner = spawner
        self._name = name
        self._question = question
        self._number = next(_NUMBERS)
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._parts: list[bytes] = []
        self._over = False
        self.forked = False
        """The fork server has done its part."""

    async def run(self, seconds: float) -> Any:
        """What it answers; the process is ended after `seconds`, and when nobody waits any more."""
        self._spawner.fork(self._name, self._number, self)
        try:
            return msgpack.unpackb(await asyncio.wait_for(self._answer, seconds), strict_map_key=False)
        except TimeoutError:
            raise ErrandError(f"no answer within {seconds:g} s") from None
        finally:
            self._over = True
            child = self._spawner.child(self._name, self._number)
            if child is not None:
                child.kill()

    # spawn.Orderer

    def on_forked(self, child: Child) -> None:
        self.forked = True
        if self._over:
            child.kill()
        else:
            child.channel.send(self._question)

    def on_fork_failed(self, name: str, incarnation: int, reason: str) -> None:
        self._fail(f"it cannot be forked: {reason}")

    def on_message(self, child: Child, message: m.Message) -> None:
        if not isinstance(message, m.Reply):
            child.kill()
            return
        self._parts.append(message.data)
        if not message.more and not self._answer.done():
            self._answer.set_result(b"".join(self._parts))

    def on_died(self, child: Child, reason: str) -> None:
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(ErrandError(reason))
