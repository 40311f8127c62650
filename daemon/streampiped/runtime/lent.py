"""The command line understood in a fork of the launcher, which is thrown away: `run_apart` where there is a launcher.

The launcher has imported what a check needs (scikit-learn above all, half a second of CPU); to import it a second time
in a fork of our own was most of a cold start on a busy machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

import msgpack

from streampiped.errors import FrameError, StreampipeError
from streampiped.runtime.apart import TIMEOUT_S, bring_back, framed
from streampiped.runtime.channel import receive, send
from streampiped.runtime.launch import Launch
from streampiped.wire.messages import ForkApart, Forked, LauncherReady, decode, encode


class NoLauncherError(StreampipeError):
    """The launcher is gone, deaf, or cannot fork. It says nothing about what was to be understood."""


def run_lent(launch: Launch, arguments: Sequence[str], *, timeout: float = TIMEOUT_S) -> Any:
    """What `understand(arguments)` returns in a fork of `launch`, once that has preloaded, within `timeout` seconds
    for both. Raises `ApartError` as `run_apart` does, and `NoLauncherError`."""
    ours, theirs = socket.socketpair()

    def fork() -> tuple[int, int]:
        pid = _borrow(launch.control, theirs, timeout)
        theirs.close()
        ours.settimeout(timeout)
        with contextlib.suppress(OSError):  # one that died at once; the wait for its answer finds out of what
            ours.sendall(framed(msgpack.packb([os.getpid(), list(arguments)])))
        return pid, ours.detach()

    try:
        return bring_back(fork, timeout)
    finally:
        for each in (ours, theirs):
            each.close()


def discard(launch: Launch) -> None:
    """End a launcher that is of no use, and all that it has forked; it must be our child."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launch.pid, signal.SIGKILL)
    os.waitpid(launch.pid, 0)
    launch.control.close()
    os.close(launch.output)


def _borrow(control: socket.socket, theirs: socket.socket, timeout: float) -> int:
    """The pid of the fork, which waits at the other end of `theirs`, with our standard output and error."""
    until = time.monotonic() + timeout
    try:
        send(control, encode(ForkApart(0)), [theirs.fileno(), 1, 2])
        while (left := until - time.monotonic()) > 0:
            control.settimeout(left)
            match decode(receive(control)[0]):
                case LauncherReady():
                    continue
                case Forked(_, pid, error):
                    if pid:
                        return pid
                    raise NoLauncherError(error)
        raise NoLauncherError(f"not ready within {timeout:g} s")
    except (OSError, FrameError) as error:
        raise NoLauncherError(str(error)) from error
