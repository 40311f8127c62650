"""What a process writes to its standard output and error: lines, read without letting anybody flood the log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from streampiped.runtime.traces import Traces

READ_BYTES: Final = 64 << 10
LINE_BYTES_MAX: Final = 8 << 10  # longer lines are cut into pieces of this size
LINES_PER_SECOND: Final = 200.0  # that a person could want; a stack dump of many threads has about 100
LINES_BURST: Final = 400.0
TRACE_WAIT_S: Final = 0.1  # for the rest of a traceback that is being written


class OutputReader:
    """Reads one pipe on the loop. `on_text` gets lines without their end, and a traceback as one text of several lines;
    `on_dropped` how many lines were too many, told before the next that is not."""

    def __init__(
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        on_text: Callable[[str], None],
        on_dropped: Callable[[int], None],
    ) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = loop
        self._on_text = on_text
        self._traces = Traces()
        self._waiting: asyncio.TimerHandle | None = None
        self._on_dropped = on_dropped
        self._rest = b""
        self._dropped = 0
        self._budget = LINES_BURST
        self._at = loop.time()
        self._watched = True
        loop.add_reader(fd, self._readable)

    def close(self) -> None:
        """Read what is there, say the last incomplete line, let go. A grandchild may keep the other end open."""
        for _ in range(16):  # a pipe holds 64 KiB; somebody may still be writing into it
            if not self._read():
                break
        if self._rest:
            self._line(self._rest)
        self._give_trace()
        if self._dropped:
            self._on_dropped(self._dropped)
        self._unwatch()
        os.close(self._fd)

    def _readable(self) -> None:
        if self._read() is False:
            self._unwatch()  # every writer has closed it: a stage may do without an output

    def _read(self) -> bool | None:
        """Whether there was something; False at the end of the pipe, None when there is nothing now."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        while len(self._rest) > LINE_BYTES_MAX:
            self._line(self._rest[:LINE_BYTES_MAX])
            self._rest = self._rest[LINE_BYTES_MAX:]
        return True

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._fd)

    def _line(self, line: bytes) -> None:
        now = self._loop.time()
        self._budget = min(LINES_BURST, self._budget + (now - self._at) * LINES_PER_SECOND)
        self._at = now
        if self._budget < 1.0:
            self._dropped += 1
            return
        self._budget -= 1.0
        if self._dropped:
            self._give_trace()
            self._on_dropped(self._dropped)
            self._dropped = 0
        for text in self._traces.feed(line[:LINE_BYTES_MAX].decode(errors="backslashreplace")):
            self._on_text(text)
        if self._traces.gathering and self._waiting is None:
            self._waiting = self._loop.call_later(TRACE_WAIT_S, self._give_trace)

    def _give_trace(self) -> None:
        """As much of a traceback as there is."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        for text in self._traces.flush():
            self._on_text(text)
