"""What a simulated process may tell the supervisor, and the law."""

from __future__ import annotations

from typing import Protocol, TypeVar

from streampiped.wire import messages as m

P = TypeVar("P", contravariant=True)


class Host(Protocol[P]):
    """The supervisor's end."""

    def said(self, process: P, message: m.Message) -> None: ...
    def gone(self, process: P, reason: str) -> None: ...
    def heard(self, process: P, epoch: int) -> None:
        """A stage has been told that `epoch` is visible."""

    def restored(self, process: P, epoch: int | None) -> None:
        """A stage has become what it was at `epoch`."""
