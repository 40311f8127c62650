"""What systemd hears of a daemon, as it hears it: datagrams on a socket."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from support.daemon import Daemon, environ, simple, wait_for

pytestmark = [pytest.mark.system]

Heard = list[tuple[float, str]]


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Every datagram, with its time, while NOTIFY_SOCKET is in the environment."""
    path = str(tmp_path / "notify.sock")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    lines: Heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)

        def listen() -> None:
            while text := sock.recv(4096).decode():
                lines.append((time.monotonic(), text))

        listener = threading.Thread(target=listen)
        listener.start()
        yield lines
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", path)
        listener.join(10.0)


def _status(heard: Heard, begin: str) -> list[str]:
    return [text for _, text in heard if text.startswith(f"STATUS={begin}")]


def test_systemd_hears_what_goes_on(heard: Heard) -> None:
    """From the start to the end a line says what is going on: at most one in a second, never the same twice, and one
    more just before readiness, so that who looks then reads of no start; a start and a stop that go on ask for time;
    and no process but the main one has the socket's address."""
    daemon = Daemon(simple(rate="5k/s"))
    try:
        daemon.wait_running()
        wait_for(lambda: [t for _, t in heard if t == "READY=1"], "ready is told")
        wait_for(lambda: len(_status(heard, "running: ")) >= 3, "the flow is told")
        assert "records/s, epoch" in _status(heard, "running: ")[-1]
        others = daemon.family() - {daemon.process.pid}
        assert len(others) >= 4
        assert not [pid for pid in others if b"NOTIFY_SOCKET" in environ(pid)]
        os.kill(daemon.pids()["middle"], signal.SIGSTOP)  # the drain cannot end
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda: _status(heard, "draining: SIGTERM, "), "the drain is told")
        os.kill(daemon.pids()["middle"], signal.SIGCONT)
        assert daemon.wait() == 0
    finally:
        daemon.close()
    assert _status(heard, "starting: waiting for ")
    texts = [text for _, text in heard]
    assert [t for t in texts[: texts.index("READY=1")] if t.startswith("EXTEND_TIMEOUT_USEC=")]
    assert texts[texts.index("STOPPING=1") + 1].startswith("EXTEND_TIMEOUT_USEC=30")
    assert texts[texts.index("READY=1") - 1].startswith("STATUS=running: ")
    lines = [(at, text) for at, text in heard if text.startswith("STATUS=")]
    for (before, one), (after, other) in pairwise(lines):
        assert one != other
        ready = texts[texts.index(other) + 1] == "READY=1"
        assert ready or after - before > 0.8, (one, other)  # told a second apart, heard by a thread that may be late


def test_start_without_progress_asks_for_no_more_time(heard: Heard, tmp_path: Path) -> None:
    """While a stage hangs in its construction, systemd is told whom the start waits for, and no time is asked for."""
    flag = tmp_path / "flag"
    flag.touch()
    middle = f'mischief = "sleep_in_restore"\nflag = "{flag}"'
    daemon = Daemon(simple(middle=middle))
    try:
        wait_for(lambda: _status(heard, "starting: waiting for middle"), "who is waited for")
        wait_for(lambda: heard and time.monotonic() - heard[-1][0] > 3.0, "silence, for there is no news")
        assert not [text for _, text in heard if text == "READY=1"]
    finally:
        daemon.close()
