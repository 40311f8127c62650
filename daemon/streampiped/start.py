"""The start of a daemon: takes the state directory, finds what is restored, and hands over to the supervisor."""

from __future__ import annotations

import asyncio
import faulthandler
from pathlib import Path

import uvloop

from streampiped.decisions import check_shape, decisions_for
from streampiped.disk import Disk
from streampiped.errors import ExitCode, StateBusyError, StorageError, StreampipeError
from streampiped.runtime import stopped
from streampiped.runtime.event_log import complain
from streampiped.runtime.launch import Launch
from streampiped.runtime.limits import raise_descriptor_limit, shortage
from streampiped.runtime.linux import become_subreaper, set_comm
from streampiped.runtime.snapshots import StateDirectory
from streampiped.supervisor import Supervisor
from streampiped.topology import Plan


def run(
    plan: Plan,
    *,
    fresh: bool,
    until_finished: bool,
    early: Launch | None = None,
    directories: tuple[str | None, str | None] = (None, None),
) -> int:
    """Run the pipeline until it is told to stop (or, `until_finished`, its bounded stream has ended). `fresh`
    discards the state of former runs; `early` is a launcher on its way; `directories` of state and of the runtime were
    given beside the file. Returns an exit code."""
    faulthandler.enable()
    raise_descriptor_limit()
    if (short := shortage(plan.descriptors(), max(plan.owners().values(), default=0))) is not None:
        complain(f"streampiped: {short}")
        return ExitCode.CONFIG
    try:
        if fresh:
            StateDirectory.discard(Path(plan.paths.state))
        state = StateDirectory(Path(plan.paths.state), plan.pipeline)
        found = state.newest()
        check_shape(plan, found.manifest)
        state.put_aside(found.damaged)
        disk = Disk(plan, state, found.manifest)
        disk.reconcile()
        held = stopped.load(Path(plan.paths.state))
    except (StreampipeError, OSError) as error:
        complain(f"streampiped: {error}")
        return ExitCode.FAILED if isinstance(error, StateBusyError | StorageError | OSError) else ExitCode.CONFIG
    become_subreaper()
    set_comm("streampiped")
    supervision = decisions_for(plan, state.highest(), found.manifest)
    supervisor = Supervisor(plan, disk, supervision, found.damaged, held, until_finished, early, directories)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(supervisor.main())
