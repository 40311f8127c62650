"""What `status` says of time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from streampiped.status_view import StatusView


@pytest.mark.parametrize("jump", [400 * 86400.0, -400 * 86400.0])
def test_uptime_is_of_no_clock_that_can_be_set(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """A clock that jumps makes nobody older or younger, and the start is told by the clock as it is now; as long as it
    is kept in step the start is the same moment in every answer."""
    nobody: Any = None
    view, wall = StatusView(nobody), time.time
    before = view.started
    monkeypatch.setattr(time, "time", lambda: wall() + 0.5)
    assert view.started == before
    monkeypatch.setattr(time, "time", lambda: wall() + jump)
    assert 0 <= view.uptime < 60
    assert view.started == pytest.approx(before + jump, abs=60)
