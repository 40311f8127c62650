"""What must reach systemd does, also when its socket had no room."""

from __future__ import annotations

import socket
from pathlib import Path

from streampiped.runtime.notify import Notifier


def received(sock: socket.socket) -> list[str]:
    """Everything that lies in the socket."""
    found = []
    while True:
        try:
            found.append(sock.recv(4096).decode())
        except BlockingIOError:
            return found


def test_readiness_waits_for_room(tmp_path: Path) -> None:
    """A manager whose socket is full hears of readiness, a reload and the end as soon as there is room, in their order;
    a line of status that did not fit is forgotten, and comes with the next one."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as filler:
            try:
                while True:
                    filler.sendto(b"x", path)
            except BlockingIOError:
                pass
        notifier.ready()
        notifier.reloading()
        notifier.status("running")
        notifier.stopping()
        assert notifier.owes
        assert set(received(manager)) == {"x"}
        notifier.catch_up()
        assert not notifier.owes
        assert [text.partition("=")[0] for text in received(manager)] == ["READY", "RELOADING", "STOPPING"]


def test_a_status_is_one_assignment(tmp_path: Path) -> None:
    """Whatever stands in a reason, systemd hears one STATUS= and nothing else."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.status("failed: boom\nWATCHDOG=trigger\r\n\udc80\x00MAINPID=1" + "x" * 5000)
        (heard,) = received(manager)
        assert heard.startswith("STATUS=failed: boom WATCHDOG=trigger \\udc80\\x00MAINPID=1xx")
        assert len(heard.splitlines()) == 1
        assert len(heard) < 500


def test_nobody_listens() -> None:
    """Without a manager, or with one that is gone, nothing is owed to anybody."""
    for environ in ({}, {"NOTIFY_SOCKET": "/nowhere"}):
        notifier = Notifier(environ)
        notifier.ready()
        assert not notifier.owes
