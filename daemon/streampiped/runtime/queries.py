"""Questions to processes over their control channels, and the answers that come back in parts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgpack

from streampiped.errors import ExitCode, RpcError
from streampiped.runtime.channel import Channel
from streampiped.wire.messages import Query, Reply


@dataclass(slots=True)
class _Pending:
    name: str
    future: asyncio.Future[Any]
    parts: list[bytes] = field(default_factory=list)


class Queries:
    """All questions under way. One that nobody answers ends with its deadline, or with the death of the asked."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._number = 0

    async def ask(self, name: str, channel: Channel, method: str, params: dict[str, Any], timeout: float) -> Any:
        """The answer; RpcError when the process does not know, has no room for the question, dies, or takes longer
        than `timeout` seconds."""
        self._number += 1
        number = self._number
        pending = self._pending[number] = _Pending(name, asyncio.get_running_loop().create_future())
        try:
            if not channel.send(Query(number, method, params), droppable=True):
                raise RpcError(f"{name} does not read its control socket")
            return await asyncio.wait_for(pending.future, timeout)
        except TimeoutError:
            raise RpcError(f"{name} does not answer within {timeout:g} s", ExitCode.TIMED_OUT) from None
        finally:
            del self._pending[number]

    def answered(self, reply: Reply) -> None:
        """A part of an answer; one that nobody waits for any more is dropped."""
        pending = self._pending.get(reply.request)
        if pending is None or pending.future.done():
            return
        if reply.error:
            pending.future.set_exception(RpcError(reply.error))
            return
        pending.parts.append(reply.data)
        if not reply.more:
            pending.future.set_result(msgpack.unpackb(b"".join(pending.parts), strict_map_key=False))

    def died(self, name: str) -> None:
        """The process will not answer any more."""
        for pending in self._pending.values():
            if pending.name == name and not pending.future.done():
                pending.future.set_exception(RpcError(f"{name} died"))
