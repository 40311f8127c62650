"""Forks on request: what the launcher does when it has imported what the stages need.

Not part of `launcher.py`, so that the warden, which is forked before this is imported, stays small. It forks twice, so
that a stage is a child of the supervisor (which is a subreaper). The order matters: the intermediate is reaped *before*
the pid is answered, because only then is the supervisor the stage's parent.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from functools import partial

import setproctitle

from streampiped.runtime.apart import answer_apart
from streampiped.runtime.channel import receive, send
from streampiped.runtime.linux import set_comm, threads
from streampiped.wire.messages import Fork, ForkApart, Forked, LauncherReady, decode, encode


def serve(descriptor: int) -> None:
    """Say that we are ready, then answer requests until the supervisor closes its end."""
    control = socket.socket(fileno=descriptor)
    send(control, encode(LauncherReady(threads())), [])
    while True:
        try:
            data, descriptors = receive(control)
        except ConnectionResetError:
            return
        if not data:
            return
        request = decode(data)
        assert isinstance(request, Fork | ForkApart), request
        try:
            answer = Forked(request.request, fork_twice(partial(_live, request, descriptors), control), "")
        except OSError as error:
            answer = Forked(request.request, 0, f"fork: {error.strerror}")
        for fd in descriptors:
            os.close(fd)
        try:
            send(control, encode(answer), [])
        except (BrokenPipeError, ConnectionResetError):
            return


def _live(request: Fork | ForkApart, descriptors: list[int]) -> None:
    """In the fork: be what was asked for."""
    if isinstance(request, ForkApart):
        setproctitle.setproctitle("streampipe: check")
        set_comm("check")
        from streampiped.cli import understand

        answer_apart(understand, *descriptors)
    from streampiped.stage_process import run  # preloaded, with what it needs

    run(request.title, *descriptors)


def fork_twice(live: Callable[[], None], control: socket.socket) -> int:
    """The pid of a new process that `live`s and whose parent is the supervisor already. OSError when there can be
    none."""
    reader, writer = os.pipe()
    intermediate = os.fork()
    if intermediate == 0:
        _intermediate(live, control, writer)
    os.close(writer)
    os.waitpid(intermediate, 0)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    pid, error = struct.unpack("ii", answer) if len(answer) == 8 else (0, errno.EAGAIN)
    if not pid:
        raise OSError(error, os.strerror(error))
    return int(pid)


def _intermediate(live: Callable[[], None], control: socket.socket, writer: int) -> None:
    """Fork, say the pid, leave. Never returns."""
    try:
        pid = os.fork()
    except OSError as error:
        os.write(writer, struct.pack("ii", 0, error.errno))
        os._exit(1)
    if pid:
        os.write(writer, struct.pack("ii", pid, 0))
        os._exit(0)
    os.close(writer)
    control.close()
    live()
    os._exit(0)
