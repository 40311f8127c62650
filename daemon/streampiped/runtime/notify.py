"""sd_notify: what systemd wants to hear. The protocol is one datagram, documented as stable in sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from streampiped.runtime.event_format import printable

STATUS_CHARS_MAX: Final = 400  # of one line; more is read in the log


class Notifier:
    """Tells systemd about readiness and state; does nothing where there is no systemd."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take what systemd said out of `environ`: children must not have it."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watched, period = environ.pop("WATCHDOG_PID", str(os.getpid())), environ.pop("WATCHDOG_USEC", "0")
        for_us = address and watched == str(os.getpid()) and period.isdigit()
        self.ping_every = int(period) / 2e6 if for_us else 0.0
        """Seconds between two pings, half of what systemd waits for one; 0: no watchdog."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._last = ""
        self._owed: list[str] = []
        self._is_ready = False

    @property
    def listening(self) -> bool:
        """Whether anybody wants to hear anything."""
        return bool(self._address)

    def ready(self) -> None:
        self._is_ready = True
        self._tell("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again, until `reloaded`. While we start there is nothing to tell: that end
        would be taken for readiness."""
        if self._is_ready:
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Applied or refused: we are as ready as before."""
        if self._is_ready:
            self._tell("READY=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Stopping takes up to this much longer."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def ping(self) -> None:
        """We are alive: only from where that follows from the call."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same is not sent twice. A text may be a stranger's: a line end in it
        would begin another assignment, and could say that we hang."""
        text = printable(" ".join(text.split()))[:STATUS_CHARS_MAX]
        if text != self._last:
            self._last = text
            self._send(f"STATUS={text}")

    @property
    def owes(self) -> bool:
        """Something that must be heard is not said yet, because there was no room."""
        return bool(self._owed)

    def catch_up(self) -> None:
        """Say what is owed, in its order, as far as there is room."""
        while self._owed and self._send(self._owed[0]):
            del self._owed[0]

    def _tell(self, state: str) -> None:
        """What nobody says again: a lost READY=1 would be a start that failed."""
        self._owed.append(state)
        self.catch_up()

    def _send(self, state: str) -> bool:
        """False: there is no room at the moment."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode("utf-8", "backslashreplace"), self._address)
        except BlockingIOError:
            return False
        except OSError:  # a manager that does not listen must not stop the pipeline
            os.environ.pop("NOTIFY_SOCKET", None)
        return True
