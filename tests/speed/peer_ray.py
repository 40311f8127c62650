"""Ray: an actor per stage; batches move through its object store, which a reader of the same machine maps.

The driver hands every actor the reference that the one before it will fill, and keeps so many batches under way.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections import deque
from typing import Any

from speed import five
from speed.clock import Clock
from speed.work import Reached, Work, given, put_together, reached, stage, taken_apart

TITLE = "Ray actors"
STORE_BYTES = 512 << 20
KILLED_AT = 8  # batches
UNDER_WAY = 4 * five.DEPTH  # as many as on the links of the others together


class Actor:
    """A stage in a process of its own."""

    def __init__(self, name: str, work: Work) -> None:
        self._stage = stage(name, work)
        self._given = given(self._stage) if name == "generator" else None

    def ready(self) -> int:
        return os.getpid()

    def read(self) -> Any:
        assert self._given is not None
        batch = next(self._given, None)
        return None if batch is None else taken_apart(batch)

    def process(self, parts: Any) -> Any:
        if parts is None:
            return None
        batch = self._stage.process(put_together(*parts))
        return None if batch is None else taken_apart(batch)

    def last(self, parts: Any) -> bool:
        """As `process`, and gives only whether there is more."""
        return self.process(parts) is not None

    def reached(self) -> Reached:
        return reached(self._stage)


def run(work: Work, clock: Clock) -> Reached:
    ray = importlib.import_module("ray")
    begin(ray)
    try:
        actor = ray.remote(Actor)
        source, *chain = actors = [actor.options(num_cpus=0).remote(name, work) for name in work.stages]
        ray.get([each.ready.remote() for each in actors])
        under_way: deque[Any] = deque()
        with clock.running():
            more = True
            while more:
                while len(under_way) < UNDER_WAY:
                    found = source.read.remote()
                    for each in chain[:-1]:
                        found = each.process.remote(found)
                    under_way.append(chain[-1].last.remote(found))
                more = ray.get(under_way.popleft())
        return Reached(*ray.get(chain[-1].reached.remote()))
    finally:
        ray.shutdown()


def recover(work: Work, clock: Clock) -> Reached:
    """Kill the trainer's process under way: seconds until the next batch is through. Ray starts it again and repeats
    the calls that were under way; what it had learned is gone."""
    ray = importlib.import_module("ray")
    begin(ray)
    try:
        actor = ray.remote(Actor)
        again = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        source, *chain = actors = [actor.options(**again).remote(name, work) for name in work.stages]
        pids = ray.get([each.ready.remote() for each in actors])
        more, batches = True, 0
        while more:
            found = source.read.remote()
            for each in chain[:-1]:
                found = each.process.remote(found)
            batches += 1
            if batches == KILLED_AT:
                os.kill(pids[work.stages.index("trainer")], signal.SIGKILL)
            began = time.perf_counter()
            more = ray.get(chain[-1].last.remote(found))
            if batches == KILLED_AT:
                clock.seconds = time.perf_counter() - began
        return Reached(*ray.get(chain[-1].reached.remote()))
    finally:
        ray.shutdown()


def begin(ray: Any) -> None:
    """A cluster of this machine's own, without a dashboard and without a word home."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=STORE_BYTES,
        runtime_env={"env_vars": paths},
    )
