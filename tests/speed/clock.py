"""The two moments between which everybody is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from speed import usage


@dataclass(slots=True)
class Clock:
    """A contestant fills it: from 'everything is there, records may flow' to 'the last one has left the last stage'."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds on the CPU of every process that takes part."""
    parts: dict[str, float] = field(default_factory=dict)
    """Of them, by process or stage, where that can be told."""
    began_ns: int = 0
    """CLOCK_MONOTONIC, when what is measured was started; 0: with this process."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """For those whose processes are all below this one."""
        before, began = usage.cpu(os.getpid()), time.perf_counter()
        yield
        self.seconds = time.perf_counter() - began
        self.cpu = usage.cpu(os.getpid()) - before
