"""A reload, from the file to the plan that takes effect: reads, compares, asks the decisions, tells systemd.

One after the other. The file is read and checked by a process that is thrown away (`examination.py`), and compared with
the plan that runs (`core/reload.py`); what needs another process is for `core/reloads.py` to decide.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from streampiped.core import protocol as p
from streampiped.core.health import FORKED, own_time
from streampiped.core.processes import OVERSLEPT_S
from streampiped.core.reload import Difference, aligned, compare
from streampiped.disk import Disk
from streampiped.errors import ExitCode, RpcError
from streampiped.events import LEVELS
from streampiped.examination import TITLE
from streampiped.request import Request
from streampiped.runtime.errand import Errand, ErrandError
from streampiped.runtime.event_log import EventLog
from streampiped.runtime.notify import Notifier
from streampiped.runtime.scheduled import scheduled
from streampiped.runtime.spawn import Spawner
from streampiped.topology import Plan
from streampiped.wire import messages as m

EXAMINE_TIMEOUT_S: Final = 60.0  # as at a start; with everything preloaded it takes a tenth of a second
FORK_S: Final = 20.0  # of its own that the fork server may take for a fork of milliseconds; then another one is asked
TIME_LEFT_MIN_S: Final = 0.001  # for the decisions, which say themselves that it is over


class Put(Protocol):
    """Tell the decisions what an operator wants."""

    def __call__(self, event: Callable[[int], p.Event], late: asyncio.Future[str]) -> Request: ...


class Host(Protocol):
    """What of the supervisor is needed, and changed."""

    plan: Plan
    log: EventLog
    disk: Disk
    spawner: Spawner
    notifier: Notifier


class Reloading:
    """All reloads of one supervisor."""

    def __init__(self, host: Host, directories: tuple[str | None, str | None]) -> None:
        """`directories`: state and runtime, as the command line of the daemon had them; they win over the file."""
        self._host = host
        self._state_dir, self._runtime_dir = directories
        self._lock = asyncio.Lock()
        self._turn: asyncio.Future[str] | None = None
        """Of the reload that holds the lock: what tells its client that it is late."""
        self._next: tuple[Plan, Difference, frozenset[int]] | None = None
        self.count = 0
        """Reloads that have taken effect."""
        self.at = time.time()
        """When the plan that runs took effect, Unix time."""
        self.uids: frozenset[int] | None = None
        """The users who are operators, when a reload has looked them up."""

    def plan_for(self, *, renewed: bool) -> Plan:
        """What a process that has just been forked is told."""
        return self._next[0] if renewed and self._next is not None else self._host.plan

    def adopt(self, command: p.Adopt) -> None:
        """The new plan takes effect."""
        assert self._next is not None, command
        host, (plan, difference, self.uids) = self._host, self._next
        host.plan = plan
        host.disk.retain_epochs = plan.checkpoint.retain_epochs
        host.log.level = next(level for level in LEVELS if level == plan.logs.level)
        self.count += 1
        self.at = time.time()
        host.log.write(
            "reload_applied", stage="supervisor", file=plan.config_file, changes="; ".join(difference.changes)
        )

    async def reload(
        self, put: Put, late: asyncio.Future[str], timeout: float, who: str, *, dry_run: bool
    ) -> dict[str, Any]:
        """What has changed, as soon as it is in effect; RpcError with the reasons, a line for each, when it is refused
        as a whole. `put` takes an event to the decisions; `late` is told when `timeout` seconds are over, and the work
        goes on."""
        until = time.monotonic() + timeout
        late_at = asyncio.get_running_loop().call_later(timeout, self._say_late, late)
        if not dry_run:
            self._host.log.write("reload_requested", stage="supervisor", file=self._host.plan.config_file, who=who)
            self._host.notifier.reloading()
        try:
            async with self._lock:
                before, self._turn = self.count, late
                try:
                    plan, difference, uids = await self._judged()
                    late_at.cancel()  # from here on the decisions say so
                    if difference.changes and not dry_run:
                        self._next = plan, difference, uids
                        left = max(TIME_LEFT_MIN_S, until - time.monotonic())
                        await put(lambda ticket: p.Reload(ticket, plan, difference.replaced, left), late).ended()
                except RpcError as error:
                    if not dry_run and self.count == before:
                        self._host.log.write("reload_refused", stage="supervisor", reason=str(error))
                    raise
        finally:
            late_at.cancel()
            if not dry_run:
                self._host.notifier.reloaded()
        return {"changed": list(difference.replaced), "changes": list(difference.changes), "dry_run": dry_run}

    def _say_late(self, late: asyncio.Future[str]) -> None:
        waits = "the file is still being read" if self._turn is late else "the reload before it is not done"
        if not late.done():
            late.set_result(f"the reload has not begun: {waits}")

    async def _judged(self) -> tuple[Plan, Difference, frozenset[int]]:
        """What the file says now, and how that differs from what runs. RpcError when it cannot be had."""
        self._next = None
        plan, uids = await self._examined()
        difference = compare(self._host.plan, plan)
        if difference.refused:
            raise RpcError("\n".join(difference.refused), ExitCode.REFUSED)
        return plan, difference, uids

    async def _examined(self) -> tuple[Plan, frozenset[int]]:
        """What the file says now. RpcError when that is no configuration."""
        file = self._host.plan.config_file
        question = m.Examine(os.getpid(), file, self._state_dir, self._runtime_dir)
        errand = Errand(self._host.spawner, TITLE, question)
        watch = asyncio.create_task(self._watch_launcher(errand))
        try:
            answer = await errand.run(EXAMINE_TIMEOUT_S)
        except ErrandError as error:
            raise RpcError(f"{file}: cannot be checked: {error}", ExitCode.FAILED) from None
        finally:
            watch.cancel()
        if answer["plan"] is None:
            raise RpcError("\n".join(answer["problems"]), ExitCode.REFUSED)
        return aligned(self._host.plan, Plan.from_dict(answer["plan"])), frozenset(answer["uids"])

    async def _watch_launcher(self, errand: Errand) -> None:
        """A fork server that is stopped, or hangs, is ended; the next one is asked again. Its own time counts, as in
        `core/watch.py`, by what it had at a look before."""
        spawner, allowed = self._host.spawner, min(FORK_S, self._host.plan.supervision.start_timeout)
        while not errand.forked:
            pid = spawner.forking_pid
            before = replace(FORKED, **scheduled(pid)._asdict()) if pid else None
            begun = time.monotonic()
            await asyncio.sleep(allowed)
            if before is None or pid is None or pid != spawner.forking_pid or errand.forked:
                continue
            if time.monotonic() > begun + allowed + OVERSLEPT_S:
                continue
            after = replace(FORKED, **scheduled(pid)._asdict())
            if own_time(before, after, allowed) > allowed / 2:
                spawner.kill_launcher()
