"""The real daemon: a process per stage under a supervisor, exactly once unless it is told otherwise."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from speed import usage
from speed.clock import Clock
from speed.work import Reached, Work, of_report, of_tally
from streampiped.wire.state import unpack
from support.daemon import Daemon, running, wait_for
from support.law import newest

TITLE = "streampipe"
EVERY: Final = "1s"  # the default
NEVER: Final = "1h"
"""An interval of epochs that no run reaches: only the final one is made. There is no switch that leaves it out."""
HEAD: Final = '[checkpoint]\ninterval = "{}"\n'
ALONE: Final = "[log_extractor]\nenabled = false\n[service_monitor]\nenabled = false\n"
"""What reads the events and the processes' files is not a part of what the others do."""
LOOK_S: Final = 0.05  # between two looks at the log of events, which costs the daemon nothing
DEADLINE_S: Final = 600.0


def config(work: Work, interval: str = EVERY) -> str:
    """TOML; a table of options inline."""
    text = HEAD.format(interval) + ("" if work.services else ALONE)
    for place, name in enumerate(work.stages):
        text += f'[stages.{name}]\nclass = "{work.kind(name)}"\n'
        text += f'input = "{work.stages[place - 1]}"\n' if place else ""
        text += "".join(f"{key} = {toml(value)}\n" for key, value in work.options(name).items())
    return text


def toml(value: Any) -> str:
    """
    >>> toml({"type": "none", "n": [1, 2]})
    '{ type = "none", n = [1, 2] }'
    """
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def run(work: Work, clock: Clock, interval: str = EVERY) -> Reached:
    """From 'every stage is ready' to 'finished', the last epoch on the disk included. The time on the CPU is that from
    a look right behind the start to the end, for the records between both."""
    clock.began_ns = time.monotonic_ns()
    with running(config(work, interval)) as daemon:
        pids = daemon.pids() | {"supervisor": daemon.process.pid, "launcher": daemon.launcher_pid()}
        first = {name: usage.own_cpu(pid) for name, pid in pids.items()}
        total, before = usage.cpu(daemon.process.pid), done(daemon)
        wait_for(lambda: daemon.events("pipeline_finished"), "it ends", DEADLINE_S, LOOK_S)
        share = work.records / max(work.records - before, 1)
        clock.cpu = (usage.cpu(daemon.process.pid) - total) * share
        clock.parts = {name: (usage.own_cpu(pid) - first[name]) * share for name, pid in pids.items()}
        ready, ended = (float(daemon.wait_event(name)["ts"]) for name in ("pipeline_ready", "pipeline_finished"))
        clock.seconds = ended - ready
        if work.passes:
            last = work.stages[-1]
            return of_tally(unpack(newest(daemon.state / "epochs")[last], work.kind(last)))
        return of_report(json.loads(daemon.ctl("report", "--json").stdout)["results"])


def done(daemon: Daemon) -> int:
    """Records that the last stage has had."""
    return int(daemon.status()["processes"][-1]["records_in"] or 0)
