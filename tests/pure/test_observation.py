"""What the supervisor's looks add up to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from streampiped.core.epoch_commands import EpochTimes
from streampiped.core.judgement import Health
from streampiped.observation import Observation, Watched
from streampiped.topology import Thresholds

TIMES = cast(
    "EpochTimes", SimpleNamespace(total=0.1, align=0.0, snapshot=0.0, fsync=0.1, manifest=0.0, sink_commit=0.0)
)


def watched(**changes: Any) -> Any:
    """A pipeline without processes, whose epochs are due every second."""
    epochs = SimpleNamespace(finished=False, failure=None)
    return SimpleNamespace(
        plan=SimpleNamespace(
            stages=(), services=(), health=Thresholds(epoch_after=10.0), checkpoint=SimpleNamespace(interval=1.0)
        ),
        supervision=SimpleNamespace(running=True, closing=None, epochs=epochs, trouble=None, processes={}),
        disk=SimpleNamespace(trouble=None),
        **changes,
    )


def test_an_epoch_is_late_when_it_was_due() -> None:
    """Time in which nothing ran, as after a stage was given up, makes no epoch late; time in which it was due does, and
    a commit ends it."""
    pipeline = watched()
    observation = Observation(cast("Watched", pipeline))
    now = observation.look_at

    def looked(seconds: int) -> Health:
        nonlocal now
        for _ in range(seconds):
            now += 1.0
            observation.look(now)
        return observation.whole.health

    assert looked(5) is Health.HEALTHY
    pipeline.supervision.running = False
    assert looked(60) is Health.HEALTHY
    pipeline.supervision.running = True
    assert looked(5) is Health.HEALTHY
    assert looked(3) is Health.LAGGING
    observation.committed(TIMES)
    assert looked(10) is Health.HEALTHY


def test_a_supervisor_that_stood_still_blames_nobody() -> None:
    """Where nobody looked for a minute, as on a machine that was frozen, it is not the epochs that were late."""
    observation = Observation(cast("Watched", watched()))
    observation.look(observation.look_at + 60.0)
    assert observation.whole.health is Health.HEALTHY
