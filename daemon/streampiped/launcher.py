"""The launcher: a fork server. It preloads what stages need once (numpy, scikit-learn) and forks them in milliseconds.

Always executed afresh (`python -m streampiped.launcher SUPERVISOR_PID MODULE...`), its control socket as descriptor 0.
A fork out of the supervisor itself would leak its descriptors and share its epoll; a fresh interpreter per stage
would cost a second each.

It forks twice, so that a stage is a child of the supervisor (which is a subreaper). The order matters: the
intermediate is reaped *before* the pid is answered, because only then is the supervisor the stage's parent.

When the supervisor is gone, launcher and stages die by PDEATHSIG; their own children would live on. So the launcher
forks a *warden* first of all, before any heavy import: it waits for the supervisor's end and then ends whatever carries
the run's mark in its environment.
"""

from __future__ import annotations

import os

# before numpy is imported: OpenBLAS and OpenMP would start threads, and a fork of a process with threads is unsafe
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
# and before pyarrow, whose allocator has a thread: scikit-learn imports pandas where it is installed, and that pyarrow
os.environ.update(JE_ARROW_MALLOC_CONF="background_thread:false")

import contextlib
import errno
import gc
import importlib
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import setproctitle

from streampiped.runtime.apart import answer_apart
from streampiped.runtime.channel import receive, send
from streampiped.runtime.linux import die_with_parent, environment_has, keep_freed_memory, set_comm, threads
from streampiped.runtime.spawn_marks import MARK, WARDEN
from streampiped.wire.messages import Fork, ForkApart, Forked, LauncherReady, decode, encode

SWEEPS_MAX: Final = 50  # a fork bomb could outrun any number; each sweep takes about a millisecond


def main() -> None:
    """Preload, say ready, fork on request until the supervisor is gone."""
    supervisor = int(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fork_warden(supervisor)
    if not die_with_parent(signal.SIGKILL, supervisor):
        os._exit(0)
    setproctitle.setproctitle("streampipe: launcher")
    set_comm("launcher")
    keep_freed_memory()
    preload(sys.argv[2:])
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    send(control, encode(LauncherReady(threads())), [])
    serve(control)
    os._exit(0)


def fork_warden(supervisor: int) -> None:
    """A process that does nothing until the supervisor is gone. It holds no descriptor but the supervisor's pidfd, and
    ends with the launcher as well: an orphan of ours becomes the supervisor's child, which knows it not."""
    if os.fork():
        return
    os.setsid()
    setproctitle.setproctitle(f"streampipe: {WARDEN}")
    set_comm(WARDEN)
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(supervisor)
        os.closerange(0, pidfd)
        os.closerange(pidfd + 1, 256)
        select.select([pidfd], [], [])
    sweep()
    os._exit(0)


def preload(modules: Sequence[str]) -> None:
    """Import what stages need and make sure that forking is safe."""
    gc.disable()  # looking for garbage that imports hardly make is an eighth of a start
    for name in modules:
        importlib.import_module(name)
        if threads() != 1:
            raise RuntimeError(
                f"importing {name} started {threads() - 1} threads; a process with threads cannot fork safely"
            )
    gc.freeze()  # so that the collector of a child does not touch, and thereby copy, every shared page
    gc.enable()


def serve(control: socket.socket) -> None:
    """Answer requests until the supervisor closes its end."""
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
    from streampiped.stage_process import run  # preloaded; not at the top, so that the mark and the threads come first

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


def sweep() -> None:
    """End every process of this run but ourselves: those that carry our mark. Repeated until none is left, because
    one that is being forked may be missed once."""
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    for _ in range(SWEEPS_MAX):
        found = [pid for pid in _pids() if pid != os.getpid() and environment_has(pid, mark)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


if __name__ == "__main__":
    main()
