"""Running a service beside the data path without its process."""

from __future__ import annotations

import time
from typing import Any

from streampiped.stages.base import Service

STEPS_MAX = 100_000  # a service that always wants to be woken at once would never end


def settle(service: Service, now: float = 0.0) -> float:
    """Wake the service whenever it wants to be, on a clock that jumps there, until it waits for its descriptor.
    The last time on that clock."""
    for _ in range(STEPS_MAX):
        due = service.wake(now)
        if due is None:
            return now
        now = max(now, due)
    raise AssertionError("the service never came to rest")


class Emitted:
    """An `emit` that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Return as soon as `condition()` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.005)
