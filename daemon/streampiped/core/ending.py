"""How far the end has come: drain, farewell, leave."""

from __future__ import annotations

from streampiped.core import protocol as p
from streampiped.core.processes import Desk


class Ending:
    """The facts that everybody who would bring a process back must ask for first."""

    def __init__(self, desk: Desk) -> None:
        self.closing: str | None = None
        """Why we are shutting down; None: we are not. From here on nobody is forked."""
        self.leaving = False
        """Everybody has been asked out."""
        self.drain_until: float | None = None
        """While the last epoch is being made: when to wait no longer."""
        self._desk = desk
        self._farewell = False

    def drain(self, until: float) -> None:
        self._desk.emit("drain_started", reason=self.closing)
        self.drain_until = until

    def bid_farewell(self) -> None:
        """Whatever could be drained is. Somebody may still want to ask the stages something."""
        self.drain_until = None
        if not self._farewell:
            self._farewell = True
            self._desk.put(p.Farewell())

    def leave(self) -> None:
        self.leaving = True
        self.drain_until = None
