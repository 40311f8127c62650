"""The real daemon without epochs while it runs."""

from __future__ import annotations

from speed import peer_streampipe
from speed.clock import Clock
from speed.work import Reached, Work

TITLE = "streampipe, no epochs"


def run(work: Work, clock: Clock) -> Reached:
    return peer_streampipe.run(work, clock, peer_streampipe.NEVER)
