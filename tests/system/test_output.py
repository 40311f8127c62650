"""What a process prints comes out of its pipe as texts: no line is held back, a traceback is one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from streampiped.runtime.output import LINES_BURST, OutputReader

pytestmark = pytest.mark.system

TRACE = 'Traceback (most recent call last):\n  File "a", line 1, in f\nValueError: 1'
DEADLINE_S = 10.0


Act = Callable[[int, OutputReader, list[str]], Awaitable[None]]


def read(act: Act) -> list[str]:
    """The texts that came out while `act(writer, reader, texts)` ran; dropped lines are `-N` among them."""

    async def run() -> list[str]:
        found: list[str] = []
        ours, theirs = os.pipe()
        reader = OutputReader(ours, asyncio.get_running_loop(), found.append, lambda count: found.append(f"-{count}"))
        try:
            await asyncio.wait_for(act(theirs, reader, found), DEADLINE_S)
        finally:
            os.close(theirs)
        return found

    return asyncio.run(run())


def test_a_traceback_waits_for_its_rest_and_no_longer() -> None:
    """A traceback that is the last thing a living process prints comes out by itself, in one."""

    async def live(fd: int, _: OutputReader, found: list[str]) -> None:
        os.write(fd, f"before\n{TRACE}\n".encode())
        while len(found) < 2:
            await asyncio.sleep(0.01)

    assert read(live) == ["before", TRACE]


def test_last_words() -> None:
    """What a process printed before it died is given when its pipe is closed, an unfinished traceback and line too."""

    async def die(fd: int, reader: OutputReader, _: list[str]) -> None:
        os.write(fd, TRACE.encode())
        reader.close()

    assert read(die) == [TRACE]


def test_losses_stand_where_they_are() -> None:
    """A traceback in the middle of which lines were too many is two texts, with their number in between."""

    async def flood(fd: int, _: OutputReader, found: list[str]) -> None:
        os.write(fd, (f"{TRACE.splitlines()[0]}\n" + "  x\n" * int(LINES_BURST * 2)).encode())
        while len(found) < 3:  # until there is room for a line again, and time for it to come out
            os.write(fd, b"  y\n")
            await asyncio.sleep(0.01)

    begun, lost, rest = read(flood)[:3]
    assert begun.startswith(f"{TRACE.splitlines()[0]}\n  x\n")
    assert int(lost) <= -LINES_BURST / 2
    assert rest == "  y"
