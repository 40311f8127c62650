"""A configuration file is read and checked for a running daemon, in a process that is thrown away.

Runs in a fork of the launcher (`stage_process.run`), and loads what the supervisor must not: pydantic, numpy, user
code. docs/decisions/configuration-apart.md says why.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import sys
import traceback
from typing import Any, Final

import msgpack

from streampiped.runtime.channel import send
from streampiped.wire import messages as m

TITLE: Final = "config check"
"""Of the process; no stage can have this name."""


def answer(request: m.Examine, sock: socket.socket) -> None:
    """Examine, and say what was found; `sock` blocks."""
    data: bytes = msgpack.packb(examine(request))
    sys.stdout.flush()
    sys.stderr.flush()
    for start in range(0, len(data), m.CHUNK_BYTES):
        more = start + m.CHUNK_BYTES < len(data)
        send(sock, m.encode(m.Reply(0, more, data[start : start + m.CHUNK_BYTES], "")), [])


def examine(request: m.Examine) -> dict[str, Any]:
    """`plan` (`Plan.to_dict`) and `uids`, of its operators, or None and `problems`, a line for each."""
    from streampiped.config import ConfigProblems, load  # pydantic, which the launcher does not preload

    try:
        plan = load(request.file, state_dir=request.state_dir, runtime_dir=request.runtime_dir, keep_directories=False)
    except ConfigProblems as found:
        return {"plan": None, "problems": [str(problem) for problem in found.problems]}
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever user code does is an answer
        traceback.print_exc()
        return {"plan": None, "problems": [f"{request.file}: cannot be checked: {type(error).__name__}: {error}"]}
    return {"plan": plan.to_dict(), "uids": uids_of(plan.control.operators), "problems": []}


def uids_of(users: tuple[str, ...]) -> list[int]:
    """Looked up here because a name service may block. A user who is not there cannot come in either."""
    found = []
    for user in users:
        with contextlib.suppress(KeyError):
            found.append(pwd.getpwnam(user).pw_uid)
    return found


def run(request: m.Examine, sock: socket.socket) -> None:
    """The life of such a process."""
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    answer(request, sock)
