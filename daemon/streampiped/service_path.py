"""How a service lives on its loop: woken by deadlines, a descriptor or news of the processes."""

from __future__ import annotations

import asyncio
import time

from streampiped.host import Host
from streampiped.metrics_endpoint import serve_metrics
from streampiped.phases import Phase
from streampiped.stages.base import Service


class ServicePath:
    """Calls the service when it wants to be called."""

    def __init__(self, process: Host, service: Service) -> None:
        self._process = process
        self._service = service
        self._timer: asyncio.TimerHandle | None = None
        self._watched: int | None = None
        self._endpoint = serve_metrics(process, service)
        process.loop.call_soon(self._wake)

    def roster(self, processes: dict[str, int]) -> None:
        self._service.roster(processes)
        self._wake()

    def close(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._watched is not None:
            self._process.loop.remove_reader(self._watched)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._process.blackbox.enter(Phase.PROCESSING)
        try:
            now = time.monotonic()
            due = self._service.wake(now)
        except Exception as error:  # noqa: BLE001  whatever it raises is the service's failure
            self._process.fail("wake", error)
        self._process.blackbox.enter(Phase.WAITING)
        if due is not None:
            self._timer = self._process.loop.call_later(max(0.0, due - time.monotonic()), self._wake)
        fd = self._service.wake_fd()
        if fd != self._watched:
            if self._watched is not None:
                self._process.loop.remove_reader(self._watched)
            if fd is not None:
                self._process.loop.add_reader(fd, self._wake)
            self._watched = fd
