"""A function run apart brings back its result or a clear error, and leaves no process behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streampiped.runtime.apart import RESULT_BYTES_MAX, ApartError, bring_back, run_apart

pytestmark = pytest.mark.system


def _echo(*args: Any) -> list[Any]:
    return [args, os.getpid()]


def test_result_comes_back() -> None:
    """Arguments go in by fork, plain data comes back, from another process."""
    args, pid = run_apart(_echo, 1, "a", b"\0", {"key": None})
    assert args == [1, "a", b"\0", {"key": None}]
    assert pid != os.getpid()


def test_large_result_comes_back_whole() -> None:
    """An answer much larger than a pipe arrives in pieces and is whole."""
    assert run_apart(lambda: b"x" * (8 << 20)) == b"x" * (8 << 20)


def _raise() -> None:
    raise ValueError("what was wrong")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_raise, "ValueError: what was wrong"),
        (lambda: sys.exit("no"), "SystemExit: no"),
        (object, "TypeError: can not serialize 'object' object"),
        (lambda: os._exit(3), "the process ended with exit code 3 and no answer"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process was killed by SIGKILL"),
        (lambda: b"x" * RESULT_BYTES_MAX, f"at most {RESULT_BYTES_MAX}"),
    ],
)
def test_failure_is_named(function: Callable[[], Any], message: str) -> None:
    """Whatever ends the function is told in words."""
    with pytest.raises(ApartError, match=message):
        run_apart(function)


def test_traceback_comes_back() -> None:
    """An exception brings the traceback of the child."""
    with pytest.raises(ApartError) as caught:
        run_apart(_raise)
    assert "in _raise" in caught.value.trace


def test_time_is_bounded() -> None:
    """A function that hangs ends at the timeout, killed."""
    started = time.monotonic()
    with pytest.raises(ApartError, match=r"no answer within 0.2 s"):
        run_apart(signal.pause, timeout=0.2)
    assert time.monotonic() - started < 5


def _next(reader: int) -> bytes | None:
    """What can be read within the deadline; None: nothing."""
    return os.read(reader, 1) if select.select([reader], [], [], 5)[0] else None


def _leave_grandchild(writer: int) -> int:
    if (pid := os.fork()) == 0:
        signal.pause()  # it holds `writer`; the end of the file says that it is gone
    return pid


def test_child_that_dies_before_it_has_read() -> None:
    """Where the answer comes over a socket, a child that was killed with something unread is the death that it is, and
    may be otherwise the next time."""

    def fork() -> tuple[int, int]:
        ours, theirs = socket.socketpair()
        ours.sendall(b"a question")
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        theirs.close()
        return pid, ours.detach()

    with pytest.raises(ApartError, match="killed by SIGKILL") as caught:
        bring_back(fork, 10.0)
    assert caught.value.passing


def test_grandchild_is_ended() -> None:
    """A process that the function left behind, which holds the answer's pipe open, is killed with its group."""
    reader, writer = os.pipe()
    pid = run_apart(_leave_grandchild, writer)
    os.close(writer)
    try:
        assert _next(reader) == b"", "the last holder of the other end should have ended"
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(reader)


def test_no_zombie_and_no_descriptor_is_left() -> None:
    """Good and bad ends alike leave neither a child nor an open descriptor."""
    before = os.listdir("/proc/self/fd")
    run_apart(int)
    for function in (_raise, lambda: os._exit(1)):
        with pytest.raises(ApartError):
            run_apart(function)
    assert os.listdir("/proc/self/fd") == before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    assert not children.strip()


def test_output_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """What user code prints cannot be taken for output of the command."""
    run_apart(os.write, 1, b"from a user's module")
    out, err = capfd.readouterr()
    assert out == ""
    assert "from a user's module" in err


PARENT = """
import os, sys, signal
from streampiped.runtime.apart import run_apart
def hang(writer):
    os.write(writer, b'%d ' % os.getpid())
    signal.pause()
run_apart(hang, int(sys.argv[1]))
"""


def test_child_dies_with_its_parent() -> None:
    """When the process that asked is killed, the child does not live on."""
    reader, writer = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(writer)], pass_fds=[writer])
    os.close(writer)
    assert select.select([reader], [], [], 20)[0]
    pid = int(os.read(reader, 100))
    pidfd = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    died = bool(select.select([pidfd], [], [], 5)[0])
    if not died:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    os.close(reader)
    assert died


def _leave_an_escaped_child() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True).pid


def test_escaped_descendant_is_ended() -> None:
    """A process that the function started in a session of its own is gone when the answer is there."""
    pid = run_apart(_leave_an_escaped_child)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
