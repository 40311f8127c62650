"""The clients that watch the status: all of them are told at once, at every change and every second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from streampiped.control_backend import Backend
from streampiped.runtime.rpc_server import Peer

WATCH_FASTEST_S: Final = 0.2  # a burst of state changes is one redraw
WATCH_SLOWEST_S: Final = 1.0  # counters move without any event; only while somebody watches


class Watchers:
    """Those who are there; one task tells them, while there are any."""

    def __init__(
        self,
        backend: Backend,
        status: Callable[[bool], Awaitable[dict[str, Any]]],
        on_end: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """`status(usage)` is what they are told. `on_end(task)`: nobody is told any more, for want of watchers or
        because of an error."""
        self._backend = backend
        self._status = status
        self._on_end = on_end
        self._peers: dict[Peer, None] = {}
        self._changed = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def add(self, peer: Peer) -> None:
        """It is told from now on, until it goes."""
        self._peers[peer] = None
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())
            self._telling.add_done_callback(self._on_end)
        peer.on_gone(lambda: self._remove(peer))

    def _remove(self, peer: Peer) -> None:
        self._peers.pop(peer, None)
        self._changed.set()

    async def _tell(self) -> None:
        unsubscribe = self._backend.subscribe("status", lambda _: self._changed.set())
        try:
            while True:
                await asyncio.sleep(WATCH_FASTEST_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), WATCH_SLOWEST_S - WATCH_FASTEST_S)
                self._changed.clear()
                if not self._peers:
                    return
                status = await self._status(True)
                for peer in tuple(self._peers):
                    peer.notify("status", status)
        finally:
            unsubscribe()
