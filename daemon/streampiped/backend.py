"""What the control server asks of the supervisor: status, report, logs, changes. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from streampiped import __version__
from streampiped.control_backend import Identity, Subscription, Verb
from streampiped.core import protocol as p
from streampiped.core.lifecycle import State
from streampiped.errors import ExitCode, RpcError, StateError, StorageError, StreampipeError
from streampiped.metrics import page
from streampiped.reloading import Reloading
from streampiped.reporting import Reporting
from streampiped.request import Request
from streampiped.runtime.dead_letters import Status
from streampiped.runtime.event_log import EventLog
from streampiped.status_view import MONITOR, USAGE_TIMEOUT_S, StatusView, Watched
from streampiped.topology import Plan

SUMMARY_TIMEOUT_S: Final = 3.0  # less than the client waits
SIGHUP_TIMEOUT_S: Final = 3600.0  # nobody waits
LOG_EXTRACTOR: Final = "log_extractor"
FEED_S: Final = 2.0  # between two observations for the monitor: its own default interval
FEED_IDLE_S: Final = 10.0  # the same while no stage does anything; its minutes have six such samples
FEED_TIMEOUT_S: Final = 5.0  # a monitor that waits for the disk gets the next one later

T = TypeVar("T")


class Host(Watched, Protocol):
    """What of the supervisor is looked at, and how it is told what operators want."""

    log: EventLog
    reloading: Reloading

    def dispatch(self, event: p.Event) -> None: ...


class SupervisorBackend:
    """The `control_backend.Backend` of the real supervisor."""

    def __init__(self, supervisor: Host) -> None:
        self._supervisor = supervisor
        self.view = StatusView(supervisor)
        self._reporting = Reporting(supervisor, self.view, self.log_summary)
        self._status_callbacks: list[Callable[[dict[str, Any]], None]] = []
        self._requests: dict[int, Request] = {}
        self._ticket = 0
        self._replaying = asyncio.Lock()
        self._promised: set[str] = set()
        self._feed_at = 0.0
        self._fed_at = float("-inf")
        self._told: tuple[Any, ...] = ()
        self._working: set[asyncio.Task[Any]] = set()

    @property
    def _plan(self) -> Plan:
        return self._supervisor.plan

    @property
    def identity(self) -> Identity:
        control = self._plan.control
        uids = self._supervisor.reloading.uids
        return Identity(self._plan.pipeline, __version__, control.operators, control.group, uids)

    def stage_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._plan.processes)

    def roster(self) -> dict[str, int]:
        """The pids of all living processes by name, supervisor and launcher included."""
        found = {child.name: child.pid for child in self._supervisor.spawner.all() if child.name == "launcher"}
        found |= {q.name: q.pid for q in self._supervisor.supervision.processes.values() if q.pid}
        return {"supervisor": os.getpid(), **found}

    # looking

    async def status(self, want_usage: bool) -> dict[str, Any]:
        return await self.view.status(want_usage)

    async def why(self, stage: str) -> dict[str, Any]:
        return self.view.why(stage)

    async def health(self, stage: str | None) -> dict[str, Any]:
        return self.view.health(stage)

    async def metrics(self) -> str:
        usage: dict[str, Any] = {}
        with contextlib.suppress(RpcError, KeyError):  # without it, what the monitor alone knows is missing
            usage = await self._supervisor.query(MONITOR, "sample", {}, USAGE_TIMEOUT_S)
        return page(await self._observed(), usage, time.time())

    async def feed_monitor(self, now: float) -> None:
        """Tell the service monitor, which keeps the history, what is to be seen from here."""
        monitor = self._supervisor.supervision.processes.get(MONITOR)
        if monitor is None or monitor.state is not State.RUNNING or now < self._feed_at:
            return
        if now < self._fed_at + FEED_IDLE_S and self._told == self._tellable():
            return
        self._told, self._fed_at = self._tellable(), now
        self._feed_at = float("inf")
        try:
            await self._supervisor.query(MONITOR, "observe", await self._observed(), FEED_TIMEOUT_S)
        except StreampipeError:  # it is about to be replaced, or its disk is slow: the next one tells as much
            pass
        finally:
            self._feed_at = now + FEED_S

    def _tellable(self) -> tuple[Any, ...]:
        """Another value when the monitor would learn something new."""
        seen, supervision = self._supervisor.observation, self._supervisor.supervision
        states = ((q.state, q.incarnation) for q in supervision.processes.values())
        healths = (verdict.health for verdict in seen.verdicts.values())
        return (seen.moved_at, supervision.epochs.committed, seen.whole.health, *states, *healths)

    async def _observed(self) -> dict[str, Any]:
        status = await self.view.status(want_usage=False, want_summary=False)
        return {"at": time.time(), "status": status, "figures": self._supervisor.observation.figures()}

    # changes

    async def change(
        self, verb: Verb, stages: tuple[str, ...], timeout: float, who: str, force: bool = False
    ) -> dict[str, Any]:
        request = self._put(lambda ticket: p.Operate(ticket, verb, stages, timeout, force))
        text = await self._while_patient(verb, request.ended(), request.late)
        return {"changed": list(stages or self.stage_names()), "text": text, "who": who}

    async def change_stage(
        self, stage: str, kind: str, params: Mapping[str, Any], timeout: float, who: str
    ) -> dict[str, Any]:
        late: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await self._while_patient(kind, self._changed_stage(stage, kind, params, timeout, late), late)

    async def _changed_stage(
        self, stage: str, kind: str, params: Mapping[str, Any], timeout: float, late: asyncio.Future[str]
    ) -> dict[str, Any]:
        """The stage says what is to be recorded, as it knows what can be had; from then on it has to take it."""
        asked = {"kind": kind, "params": dict(params)}
        planned = await self._supervisor.query(stage, "plan", asked, SUMMARY_TIMEOUT_S)
        if planned["refused"] is not None:
            raise RpcError(str(planned["refused"]), planned.get("code", ExitCode.REFUSED))
        change = {"kind": kind, "stage": stage, "params": planned["params"]}
        request = self._put(lambda ticket: p.Propose(ticket, change, timeout), late)
        return {"params": planned["params"], "epoch": int(await request.ended())}

    def _put(self, event: Callable[[int], p.Event], late: asyncio.Future[str] | None = None) -> Request:
        """Tell the decisions what an operator wants."""
        loop = asyncio.get_running_loop()
        self._ticket += 1
        request = self._requests[self._ticket] = Request(late or loop.create_future(), loop.create_future())
        self._supervisor.dispatch(event(self._ticket))
        return request

    async def _while_patient(self, method: str, work: Coroutine[Any, Any, T], late: asyncio.Future[str]) -> T:
        """What `work` returns; RpcError TIMED_OUT as soon as it is told that it takes longer, and it goes on."""
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        either: set[asyncio.Future[Any]] = {task, late}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.add_done_callback(lambda ended: self._failed_alone(method, ended))
        raise RpcError(late.result(), ExitCode.TIMED_OUT)

    def _failed_alone(self, method: str, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._supervisor.log.write("request_failed", stage="supervisor", method=method, reason=str(error))

    def answer(self, ticket: int, code: int, text: str) -> None:
        """What the decisions answer."""
        if code == ExitCode.TIMED_OUT:
            if not (late := self._requests[ticket].late).done():
                late.set_result(text)
            return
        self._requests.pop(ticket).answer.set_result((code, text))

    async def reload(self, dry_run: bool, timeout: float, who: str) -> dict[str, Any]:
        late: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        work = self._supervisor.reloading.reload(self._put, late, timeout, who, dry_run=dry_run)
        return await self._while_patient("reload", work, late)

    async def reload_alone(self, who: str) -> None:
        """Nobody waits for it; the log tells how it ended."""
        with contextlib.suppress(RpcError):
            await self.reload(False, SIGHUP_TIMEOUT_S, who)

    # epochs

    async def checkpoint(self, keep: str | None, timeout: float, who: str) -> dict[str, Any]:
        late: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await self._while_patient("checkpoint", self._made(keep, timeout, late), late)

    async def _made(self, keep: str | None, timeout: float, late: asyncio.Future[str]) -> dict[str, Any]:
        with self._reserved(keep):
            if keep is not None and any(keep in row["names"] for row in await self.checkpoints()):
                raise RpcError(f"{keep!r} names another epoch; forget it first", ExitCode.REFUSED)
            request = self._put(lambda ticket: p.Checkpoint(ticket, timeout), late)
            epoch = int(await request.ended())
            if keep is not None:
                with _refusals():
                    await self._supervisor.disk.keep(keep, epoch)
        made = [row for row in await self.checkpoints() if row["epoch"] == epoch]
        return {"epoch": epoch, "position": made[0]["position"] if made else None}

    @contextlib.contextmanager
    def _reserved(self, name: str | None) -> Iterator[None]:
        """Nobody else gives this name to an epoch meanwhile."""
        if name in self._promised:
            raise RpcError(f"{name!r} is to name an epoch that is being made", ExitCode.REFUSED)
        names = {name} if name is not None else set()
        self._promised |= names
        try:
            yield
        finally:
            self._promised -= names

    async def checkpoints(self) -> list[dict[str, Any]]:
        with _refusals():
            rows = await self._supervisor.disk.checkpoints()
        return [{**row, "position": sum(row["positions"].values()) or None} for row in reversed(rows)]

    async def forget_checkpoint(self, name: str, who: str) -> dict[str, Any]:
        named = [row["epoch"] for row in await self.checkpoints() if name in row["names"]]
        if not named:
            raise RpcError(f"no epoch is kept under {name!r}", ExitCode.NO_SUCH_STAGE)
        with _refusals():
            await self._supervisor.disk.forget(name)
        return {"epoch": named[0]}

    # dead letters

    async def dead_letters(
        self, stage: str | None, status: Status | None, after: int, limit: int, whole: bool
    ) -> list[dict[str, Any]]:
        disk = self._supervisor.disk
        with _refusals():
            return await disk.do(disk.letters.page, stage, status, after, limit, whole)

    async def dead_letter_counts(self, stage: str | None) -> dict[Status, int]:
        disk = self._supervisor.disk
        with _refusals():
            return await disk.do(disk.letters.counts, stage)

    async def dead_letter(self, letter: int) -> dict[str, Any] | None:
        disk = self._supervisor.disk
        with _refusals():
            return await disk.do(disk.letters.get, letter)

    async def dead_letter_part(self, letter: int, offset: int) -> dict[str, Any] | None:
        disk = self._supervisor.disk
        with _refusals():
            return await disk.do(disk.letters.part, letter, offset)

    async def replay(self, letters: Sequence[int], stage: str | None, timeout: float, who: str) -> dict[str, Any]:
        late: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await self._while_patient("replay", self._replayed(letters, stage, timeout, late), late)

    async def _replayed(
        self, letters: Sequence[int], stage: str | None, timeout: float, late: asyncio.Future[str]
    ) -> dict[str, Any]:
        """One after the other, however long each takes: what is on its way must not be put on it again."""
        until = time.monotonic() + timeout
        async with self._turn_to_replay(timeout, late):
            with _refusals():
                changes = await self._supervisor.disk.plan_replay(letters, stage)
            epoch = 0
            try:
                for change in changes:
                    left = max(0.001, until - time.monotonic())
                    request = self._put(lambda ticket, c=change, t=left: p.Propose(ticket, c, t), late)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                    epoch = int(await request.ended())
            finally:
                await self._supervisor.disk.end_replay()
        return {"letters": sum(len(change["letters"]) for change in changes), "epoch": epoch or None}

    @contextlib.asynccontextmanager
    async def _turn_to_replay(self, timeout: float, late: asyncio.Future[str]) -> AsyncIterator[None]:
        """Behind every replay that was asked for before; `late` is told when that takes longer than `timeout`."""

        def say() -> None:
            if not late.done():
                late.set_result(f"still going on after {timeout:g} s: it comes behind another replay")

        patience = asyncio.get_running_loop().call_later(timeout, say)
        try:
            async with self._replaying:
                patience.cancel()
                yield
        finally:
            patience.cancel()

    async def drop(self, letters: Sequence[int], stage: str | None, who: str) -> dict[str, Any]:
        with _refusals():
            return {"letters": await self._supervisor.disk.drop_letters(letters, stage)}

    # logs and subscriptions

    def log_tail(self, stage: str | None, lines: int, level: str, since: float) -> tuple[list[dict[str, Any]], bool]:
        return self._supervisor.log.look_back(stage, lines, level, since)

    async def log_summary(self, stage: str | None, since: float) -> dict[str, Any]:
        if not any(spec.name == LOG_EXTRACTOR for spec in self._plan.services):
            raise RpcError(f"there is no {LOG_EXTRACTOR}: [{LOG_EXTRACTOR}] enabled is false", ExitCode.REFUSED)
        answer = await self._supervisor.query(
            LOG_EXTRACTOR, "summary", {"stage": stage, "since": since}, SUMMARY_TIMEOUT_S
        )
        return dict(answer)

    def subscribe(self, kind: Subscription, callback: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        if kind == "logs":
            return self._supervisor.log.subscribe(lambda record: callback(dict(record)))
        self._status_callbacks.append(callback)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._status_callbacks.remove(callback)

        return unsubscribe

    def changed(self) -> None:
        """A process or the pipeline changed its state."""
        for callback in tuple(self._status_callbacks):
            callback({})

    async def report(self) -> dict[str, Any]:
        return await self._reporting.report()


@contextlib.contextmanager
def _refusals() -> Any:
    """What the disk refuses, or a damaged file, as an answer."""
    try:
        yield
    except (StorageError, StateError, OSError) as error:
        raise RpcError(str(error), ExitCode.FAILED) from error
