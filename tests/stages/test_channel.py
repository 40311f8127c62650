"""Messages with descriptors to a peer that has no room, between real sockets."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from streampiped.runtime.channel import Channel, make_pair
from streampiped.wire import messages as m

GIVEN = 4


@pytest.mark.parametrize("spare", range(GIVEN))
def test_copies_that_cannot_be_made_leave_none_open(spare: int) -> None:
    """A message that has to wait, and for whose descriptors there are not enough left to copy, is refused:
    nothing stays open, and nothing of it is sent later."""
    loop = asyncio.new_event_loop()
    ours, theirs = make_pair()
    channel = Channel(ours, loop, lambda message, descriptors: None, lambda: None)
    with theirs:
        while not channel.queued:
            channel.send(m.Go(1))
        opened = {int(fd) for fd in os.listdir("/proc/self/fd") if Path("/proc/self/fd", fd).exists()}
        limit = next(n for n in range(3, 4096) if n - sum(fd < n for fd in opened) == spare)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                channel.send(m.Go(2), [theirs.fileno()] * GIVEN)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert {int(fd) for fd in os.listdir("/proc/self/fd") if Path("/proc/self/fd", fd).exists()} == opened
        assert channel.queued == 1
        channel.close()
    loop.close()
