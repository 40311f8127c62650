"""Executing a launcher: a fresh interpreter that takes a second to preload, so it is started as early as possible.

Lean: it is imported by a process that only wants to start things (`cli.py`) as well as by the supervisor.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from streampiped.runtime.spawn_marks import MARK


@dataclass(frozen=True, slots=True)
class Launch:
    """A launcher that was executed: its pid, our end of its control socket, what it and its children print, and the
    mark that is in the environment of all of them."""

    pid: int
    control: socket.socket
    output: int
    mark: str
    ready: bool = False
    """It has said so already."""


def execute_launcher(modules: Sequence[str], mark: str | None = None) -> Launch:
    """Execute `python -m streampiped.launcher`, which preloads `modules`; it will be our child, and die with us. `mark`
    is that of the run, made here when there is none yet."""
    mark = mark or f"{os.getpid()}-{time.monotonic_ns()}"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    files = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
    files += [(os.POSIX_SPAWN_DUP2, writer, fd) for fd in (1, 2)]
    argv = [sys.executable, "-P", "-m", "streampiped.launcher", str(os.getpid()), *modules]
    # SPT_NOENV: a process title must not be written over the environment, which carries the mark
    environment = {**os.environ, MARK: mark, "SPT_NOENV": "1"}
    environment.pop("NOTIFY_SOCKET", None)  # systemd listens to the supervisor alone
    try:
        pid = os.posix_spawn(sys.executable, argv, environment, file_actions=files, setsid=True)
    except OSError:
        ours.close()
        os.close(reader)
        raise
    finally:
        theirs.close()
        os.close(writer)
    return Launch(pid, ours, reader, mark)
