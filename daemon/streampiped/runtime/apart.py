"""Run a function in a forked process that is thrown away, and bring back what it returned.

The supervisor must stay small and never import pydantic, numpy or user code, and still needs what they say
about a configuration. So they are imported in a child; what comes back is plain data. Rejected: a new interpreter
(it starts from nothing, arguments become text) and multiprocessing (it pickles what user code hands it).

Call it before any thread or event loop exists: the child is a plain fork. Where a launcher has been executed, it makes
the fork instead (`runtime/lent.py`), and has imported already what a check needs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import msgpack

from streampiped.errors import StreampipeError
from streampiped.runtime.linux import become_subreaper, children, die_with_parent

TIMEOUT_S = 60.0  # scikit-learn alone imports for 1.4 s; still, a class that hangs must not look like work
RESULT_BYTES_MAX = 16 << 20  # a stage of a plan has some hundred bytes; more than this is a mistake
_LENGTH_BYTES = 8
_READ_BYTES = 1 << 16


class ApartError(StreampipeError):
    """The function raised, its process died or did not end in time. The message is for people."""

    def __init__(self, message: str, trace: str = "", *, passing: bool = False) -> None:
        super().__init__(message)
        self.trace = trace
        """The traceback in the child, if it raised."""
        self.passing = passing
        """It may be otherwise the next time: somebody else (the OOM killer) has ended the child, or time was short."""


def run_apart(
    function: Callable[..., Any], /, *args: Any, timeout: float = TIMEOUT_S, keep_stdout: bool = False
) -> Any:
    """`function(*args)` in a child; its result must be msgpack-able (tuples come back as lists).

    What the function prints to stdout goes to stderr unless `keep_stdout`. The child and all its descendants are gone
    when this returns or raises, those in sessions of their own too: this process becomes a subreaper for it. The
    kernel kills the child when this process dies first.
    """
    parent = os.getpid()

    def fork() -> tuple[int, int]:
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(parent, writer, function, args, keep_stdout)
        os.close(writer)
        return pid, reader

    return bring_back(fork, timeout)


def bring_back(fork: Callable[[], tuple[int, int]], timeout: float) -> Any:
    """What a process answers that `fork` has made: its pid, and where its answer comes. It must be a child of ours. As
    for the rest `run_apart` says what is promised; `timeout` counts from here, the time that `fork` takes included."""
    until = time.monotonic() + timeout
    become_subreaper()
    before = children()
    pid = status = 0
    payload = None
    try:
        pid, reader = fork()
        try:
            payload = _receive(reader, pid, until, timeout)
        finally:
            os.close(reader)
    finally:
        if pid:
            status = _end(pid)
        _end_orphans(before)
        become_subreaper(False)
    if payload is None:
        passing = os.waitstatus_to_exitcode(status) in (-signal.SIGKILL, -signal.SIGTERM)
        raise ApartError(_fate(status), passing=passing)
    raised, value, trace = msgpack.unpackb(payload)
    if raised:
        raise ApartError(value, trace)
    return value


def answer_apart(function: Callable[..., Any], answer: int, out: int, err: int) -> NoReturn:
    """The life of a process that a launcher has forked: `run_lent` tells over the socket `answer` who asks, and the
    arguments. That it does so means that the asker is our parent by now."""
    try:
        for fd, standard in ((out, 1), (err, 2)):
            os.dup2(fd, standard)
            os.close(fd)
        request = bytearray()
        while (whole := _whole(request)) is None:
            chunk = os.read(answer, _READ_BYTES)
            if not chunk:
                os._exit(0)  # the asker is gone
            request += chunk
        parent, *args = msgpack.unpackb(whole)
        _child(parent, answer, function, tuple(args), keep_stdout=True)
    finally:
        os._exit(0)


def _child(
    parent: int, writer: int, function: Callable[..., Any], args: tuple[Any, ...], keep_stdout: bool
) -> NoReturn:
    """The life of the child: never returns into the caller's frames, runs no exit handler of the parent."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a background group may write to its terminal (stty tostop)
        if not die_with_parent(signal.SIGKILL, parent):
            os._exit(1)
        if not keep_stdout:
            os.dup2(2, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a read from the terminal would stop a background group
        answer = _call(function, args)
        sys.stdout.flush()
        sys.stderr.flush()
        _send(writer, answer)
    finally:
        os._exit(0)


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    try:
        return bytes(msgpack.packb((False, function(*args), "")))
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a user's module is an answer as well
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return bytes(msgpack.packb((True, text, traceback.format_exc())))


def framed(payload: bytes) -> bytes:
    """The length goes first: the end of the answer must not need EOF, which a grandchild could withhold."""
    return len(payload).to_bytes(_LENGTH_BYTES, "little") + payload


def _send(writer: int, payload: bytes) -> None:
    data = memoryview(framed(payload))
    while data:
        data = data[os.write(writer, data) :]


def _receive(reader: int, pid: int, until: float, timeout: float) -> bytes | None:
    """The answer, or None when the child died without a whole one. Raises `ApartError` when `timeout` seconds
    are over, at `until`."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    pidfd = os.pidfd_open(pid)
    poll.register(pidfd, select.POLLIN)
    data = bytearray()
    try:
        while (left := until - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            if reader in ready:
                try:
                    chunk = os.read(reader, _READ_BYTES)
                except ConnectionResetError:  # a socket, and the child died before it had read what we wrote
                    chunk = b""
                data += chunk
                if (answer := _whole(data)) is not None:
                    return answer
                if not chunk:  # closed before it died: wait for the death itself, which says why
                    poll.unregister(reader)
            elif pidfd in ready:
                return None
        raise ApartError(f"no answer within {timeout:g} s", passing=True)
    finally:
        os.close(pidfd)


def _whole(data: bytearray) -> bytes | None:
    if len(data) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if size > RESULT_BYTES_MAX:
        raise ApartError(f"the answer has {size} bytes, at most {RESULT_BYTES_MAX}")
    return bytes(data[_LENGTH_BYTES:]) if len(data) >= _LENGTH_BYTES + size else None


def _fate(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"the process ended with exit code {code} and no answer"
    return f"the process was killed by {signal.Signals(-code).name}"


def _end(pid: int) -> int:
    """Kill the child's group while its leader is not reaped (later the number may be someone else's), then reap
    it and return its wait status."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # not its own leader yet
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _end_orphans(before: set[int]) -> None:
    """Kill and reap what the child left to us, generation by generation, until nobody new is there."""
    while orphans := children() - before:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
