"""Bytes into a pipe that has no room for all of them."""

from __future__ import annotations

import asyncio
import fcntl
import os

import numpy as np
import pytest

from streampiped.runtime.pipes import IOV_MAX, PipeWriter

PIPE_BYTES = 8192  # above PIPE_BUF a write may be taken in part
DEADLINE_S = 60.0


@pytest.mark.parametrize("room", [0, 1, 100, PIPE_BYTES])
@pytest.mark.parametrize("more", [0, 1, 3 * PIPE_BYTES, IOV_MAX])
def test_all_of_it_in_order(room: int, more: int) -> None:
    """With any room in the pipe, and whatever is queued behind: every byte comes out once and in order, the writer is
    idle when all is written, and says so if it was not before."""
    buffers = [b"abc", np.arange(1024.0), b"", memoryview(b"defg")]
    late = [b"xy"] * more if more == IOV_MAX else [bytes(more)]
    every = b"".join(bytes(each) for each in (*buffers, *late))

    async def run() -> tuple[bytes, int]:
        reader, fd = os.pipe2(os.O_NONBLOCK)
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.write(fd, bytes(PIPE_BYTES - room))
        told = asyncio.Event()
        writer = PipeWriter(fd, asyncio.get_running_loop(), told.set)
        writer.write(buffers)
        writer.write(late)
        was_idle, found, whole = writer.idle, bytearray(), asyncio.Event()

        def readable() -> None:
            found.extend(os.read(reader, 1000))
            if len(found) == PIPE_BYTES - room + len(every):
                whole.set()

        asyncio.get_running_loop().add_reader(reader, readable)
        await whole.wait()
        asyncio.get_running_loop().remove_reader(reader)
        if not was_idle:
            await told.wait()
        assert writer.idle
        assert told.is_set() != was_idle
        writer.close()
        os.close(reader)
        return bytes(found), PIPE_BYTES - room

    found, before = asyncio.run(asyncio.wait_for(run(), DEADLINE_S))
    assert found[before:] == every
