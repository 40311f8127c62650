"""The launcher: a fork server. It preloads what stages need once (numpy, scikit-learn) and forks them in milliseconds
(`fork_server.py`).

Always executed afresh (`python -m streampiped.launcher SUPERVISOR_PID MODULE...`), its control socket as descriptor 0.
A fork out of the supervisor itself would leak its descriptors and share its epoll; a fresh interpreter per stage
would cost a second each.

When the supervisor is gone, launcher and stages die by PDEATHSIG; their own children would live on. So the launcher
forks a *warden* first of all, before any heavy import: it waits for the supervisor's end and then ends whatever carries
the run's mark in its environment.
"""

from __future__ import annotations

import os

# before numpy is imported: OpenBLAS and OpenMP would start threads, and a fork of a process with threads is unsafe
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
# and before pyarrow, whose allocator has a thread, should it be imported after all (`runtime/deferred.py`)
os.environ.update(JE_ARROW_MALLOC_CONF="background_thread:false")

import contextlib
import gc
import select
import signal
import sys
from collections.abc import Sequence
from typing import Final

import setproctitle

from streampiped.runtime.linux import (
    die_with_parent,
    environment_has,
    keep_freed_memory,
    let_go_of_files,
    set_comm,
    threads,
)
from streampiped.runtime.spawn_marks import MARK, WARDEN

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
    let_go_of_files()
    control = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    from streampiped.fork_server import serve  # not at the top: the warden would have all that it imports as well

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
    from streampiped.runtime.deferred import import_lean
    from streampiped.runtime.preload import LEFT_OUT

    gc.disable()  # looking for garbage that imports hardly make is an eighth of a start
    for name in modules:
        import_lean(name, LEFT_OUT.get(name.partition(".")[0], ()))
        if threads() != 1:
            raise RuntimeError(
                f"importing {name} started {threads() - 1} threads; a process with threads cannot fork safely"
            )
    gc.freeze()  # so that the collector of a child does not touch, and thereby copy, every shared page
    gc.enable()


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
