"""A backend with the real interface of `control_server.Backend`, served by the real server on a real
socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from streampiped.control_backend import Backend, Identity, Subscription, Verb
from streampiped.control_server import ControlServer
from streampiped.errors import ExitCode, RpcError
from streampiped.runtime.dead_letters import DeadLetters, Status
from streampiped.runtime.rpc_server import Limits

STAGES = ("monitor", "generator", "normalizer", "trainer")
DEADLINE_S = 10.0
WELL: dict[str, Any] = {"health": "healthy", "reason": None, "cause": None, "since": 1_000.0}


def process(name: str, **changes: Any) -> dict[str, Any]:
    """A row of the status."""
    return {
        "name": name, "role": "transform", "inputs": [], "state": "ready", "since": 1_000.0, "pid": 4242, "restarts": 0,
        "last_reason": None, "next_attempt_s": None, "records_in": 1_200_000, "records_out": 1_199_000,
        "records_per_s": 48_200.0, "lag_s": 0.012, "phase": "process", "cpu_percent": 63.0,
        "rss_bytes": 120 << 20, "uss_bytes": 40 << 20, "wanted": True,
    } | changes  # fmt: skip


def status_of(*processes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole status around the processes."""
    return {
        "pipeline": "friedman", "version": "0.1.0", "protocol": 1, "pid": 4000, "state": "running",
        "reason": None, "since": 1_000.0, "uptime": 252.0, "generation": 2, "epoch": 231, "epoch_age": 0.4,
        "report": {"rows": 1_200_000, "mse": 3.05, "r2": 0.877},
        "totals": {
            "records": 1_200_000, "records_per_s": 48_200.0, "lag_s": 0.012, "total": None, "restarts": 3,
            "cpu_percent": 163.0, "rss_bytes": 512 << 20, "uss_bytes": 160 << 20,
        },
        "processes": list(processes), "now": 1_252.0,
    } | changes  # fmt: skip


def checkpoint(epoch: int, **changes: Any) -> dict[str, Any]:
    """An entry of the checkpoints."""
    return {
        "epoch": epoch, "at": 1_000.0 + epoch, "bytes": 9 << 20, "position": epoch * 5_000, "seconds": 0.042,
        "names": [], "live": False,
    } | changes  # fmt: skip


class FakeBackend:
    """Answers at once, except a change while `hold` is set: that one waits until it is released. Its dead letters are
    a real list in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.identity = Identity("friedman", "0.1.0", (), "streampipe")
        self.changes: list[tuple[str, tuple[str, ...], str]] = []
        self.finished: list[str] = []
        self.forced: list[Verb] = []
        self.epochs = [checkpoint(230), checkpoint(231, live=True)]
        self.story: list[dict[str, Any]] = []
        self.summary: dict[str, Any] | None = None
        self.letters = DeadLetters(directory)
        self.verdicts: dict[str, dict[str, Any]] = {}
        self.live = self.ready = True
        self.refusal: RpcError | None = None
        self.reported: dict[str, Any] | None = None
        self.hold: asyncio.Event | None = None
        self.processes = [process(name) for name in STAGES]
        self.records: list[dict[str, Any]] = []
        self.log_is_whole = True
        self.subscribers: dict[str, list[Callable[[dict[str, Any]], None]]] = {"logs": [], "status": []}

    async def status(self, want_usage: bool) -> dict[str, Any]:
        return status_of(*self.processes)

    async def report(self) -> dict[str, Any]:
        if self.reported is not None:
            return self.reported
        raise RpcError("nothing has been scored yet", ExitCode.REFUSED)

    async def change(
        self, verb: Verb, stages: tuple[str, ...], timeout: float, who: str, force: bool = False
    ) -> dict[str, Any]:
        self.changes.append((verb, stages, who))
        if force:
            self.forced.append(verb)
        await self._change(verb)
        return {"changed": list(stages or STAGES)}

    async def change_stage(
        self, stage: str, kind: str, params: Mapping[str, Any], timeout: float, who: str
    ) -> dict[str, Any]:
        self.changes.append((kind, (stage,), who))
        await self._change(kind)
        return {"params": dict(params), "epoch": self.epochs[-1]["epoch"] + 1}

    async def _change(self, verb: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self.hold is not None:
            await self.hold.wait()
        self.finished.append(verb)

    async def reload(self, dry_run: bool, timeout: float, who: str) -> dict[str, Any]:
        if not dry_run:
            self.changes.append(("reload", (), who))
            await self._change("reload")
        return {"changed": ["trainer"], "changes": ["stages.trainer.alpha: 1 -> 2"], "dry_run": dry_run}

    async def why(self, stage: str) -> dict[str, Any]:
        row = next(row for row in self.processes if row["name"] == stage)
        reasons = {"reason": row["last_reason"], "waits_for": None, "next_attempt_s": row["next_attempt_s"]}
        return {"state": row["state"], "since": row["since"], **reasons, "story": self.story}

    async def checkpoint(self, keep: str | None, timeout: float, who: str) -> dict[str, Any]:
        await self._change("checkpoint")
        made = checkpoint(self.epochs[-1]["epoch"] + 1, live=True, names=[keep] if keep else [])
        self.epochs = [{**row, "live": False} for row in self.epochs] + [made]
        return {"epoch": made["epoch"], "position": made["position"]}

    async def checkpoints(self) -> list[dict[str, Any]]:
        return self.epochs

    async def forget_checkpoint(self, name: str, who: str) -> dict[str, Any]:
        for row in self.epochs:
            if name in row["names"]:
                row["names"].remove(name)
                return {"epoch": row["epoch"]}
        raise RpcError(f"no checkpoint {name!r}", ExitCode.NO_SUCH_STAGE)

    async def dead_letters(
        self, stage: str | None, status: Status | None, after: int, limit: int, whole: bool
    ) -> list[dict[str, Any]]:
        return self.letters.page(stage, status, after, limit, whole)

    async def dead_letter_counts(self, stage: str | None) -> dict[Status, int]:
        return self.letters.counts(stage)

    async def dead_letter(self, letter: int) -> dict[str, Any] | None:
        return self.letters.get(letter)

    async def dead_letter_part(self, letter: int, offset: int) -> dict[str, Any] | None:
        return self.letters.part(letter, offset)

    async def replay(self, letters: Sequence[int], stage: str | None, timeout: float, who: str) -> dict[str, Any]:
        changes = self.letters.plan(letters, stage)
        await self._change("replay")
        epoch = self.epochs[-1]["epoch"] + 1
        for change in changes:
            self.letters.replayed(change, epoch)
        return {"letters": sum(len(change["letters"]) for change in changes), "epoch": epoch}

    async def drop(self, letters: Sequence[int], stage: str | None, who: str) -> dict[str, Any]:
        return {"letters": self.letters.drop(letters, stage)}

    async def log_summary(self, stage: str | None, since: float) -> dict[str, Any]:
        if self.summary is None:
            raise RpcError("there is no log_extractor", ExitCode.REFUSED)
        return self.summary if not since else self.summary | {"since": since, "garbage": None}

    async def health(self, stage: str | None) -> dict[str, Any]:
        rows = [{"name": row["name"], **self.verdicts.get(row["name"], WELL)} for row in self.processes]
        chosen = [row for row in rows if stage in (None, row["name"])]
        worst = next((row for row in chosen if row["health"] != "healthy"), WELL)
        whole = {key: worst[key] for key in WELL}
        return {**whole, "live": self.live, "ready": self.ready, "stages": chosen}

    async def metrics(self) -> str:
        return "# HELP x A figure.\n# TYPE x gauge\nx 1\n"

    def log_tail(self, stage: str | None, lines: int, level: str, since: float) -> tuple[list[dict[str, Any]], bool]:
        chosen = [record for record in self.records if stage in (None, record["stage"]) and record["ts"] >= since]
        return chosen[len(chosen) - min(lines, len(chosen)) :], self.log_is_whole

    def subscribe(self, kind: Subscription, callback: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        self.subscribers[kind].append(callback)
        return lambda: self.subscribers[kind].remove(callback)

    def stage_names(self) -> tuple[str, ...]:
        return STAGES

    def log(self, event: str, stage: str, **fields: Any) -> None:
        """An event as the supervisor would log it."""
        record = {"ts": time.time(), "level": "info", "event": event, "stage": stage, "pid": 1, **fields}
        self.records.append(record)
        for callback in tuple(self.subscribers["logs"]):
            callback(record)


class Daemon:
    """A control server on a uvloop loop in a thread, and what it emitted."""

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self.path = str(directory / "control.sock")
        self.backend = FakeBackend(directory)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._limits = limits
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self) -> None:
        self._thread.start()
        self.server = self.do(self._make)

    def stop(self) -> None:
        self.do(self.server.close)
        self.do(lambda: None)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()
        self.backend.letters.close()

    def do(self, action: Callable[[], Any]) -> Any:
        """Run the action on the loop and give its result."""

        async def run() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_S)

    def emitted(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]

    def _make(self) -> ControlServer:
        backend: Backend = self.backend
        server = ControlServer(self.path, backend, self._emit, self._limits)
        server.start()
        return server

    def _emit(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))


@contextlib.contextmanager
def running(directory: Path, limits: Limits | None = None) -> Iterator[Daemon]:
    daemon = Daemon(directory, limits)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's value once it is true; fails after the deadline, naming what did not happen."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.002)
    return value


def descriptors() -> int:
    """Open descriptors of this process, without those of sockets that tests before this one forgot to
    close."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
