"""The control socket: a fixed table of methods, and who may call them.

The supervisor implements `Backend` (control_backend.py) and runs one `ControlServer` on its loop. Reading is for
whoever may open the socket (its mode and group); changing is for root, the daemon's own user and the configured
operators, told by SO_PEERCRED. A change runs in a task of its own: it goes on when its client vanishes.
docs/specs/control.md is the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import pwd
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streampiped import control_params as params
from streampiped.control_backend import PIPELINE, Backend, Emit, Verb
from streampiped.control_params import Params
from streampiped.control_watchers import Watchers
from streampiped.errors import ExitCode, RpcError
from streampiped.events import LEVELS
from streampiped.runtime.rpc_server import Limits, Peer, RpcServer
from streampiped.wire.rpc import MESSAGE_BYTES_MAX, PROTOCOL, Notification, encode

CHANGE_TIMEOUT_S: Final = 30.0  # start of 9 processes takes 2 s, an orderly stop up to drain_timeout, 20 s
ANSWER_GRACE_S: Final = 0.5  # the backend's own timeout speaks first: it knows what is missing
NO_WAIT_GRACE_S: Final = 0.05  # a refusal is known at once; --no-wait should still report it
ANSWER_BYTES_SPARE: Final = 1 << 10  # of a message, for what stands around the lines
REQUEST_BYTES_MAX: Final = 64 << 10  # a request here is a few names; small keeps 64 hostile clients under 4 MiB


class ControlServer:
    """The control socket at `path`, from `start` to `close`, on the supervisor's loop."""

    def __init__(self, path: str, backend: Backend, emit: Emit, limits: Limits | None = None) -> None:
        self._backend = backend
        self._emit = emit
        self._identity = backend.identity
        self._may_change = self._who_may_change()
        self._watchers = Watchers(backend, self._status, lambda task: self._failed_alone("watch", task))
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks only weakly
        self._server = RpcServer(
            path,
            self._handle,
            group=self._identity.group,
            limits=limits or Limits(request_bytes=REQUEST_BYTES_MAX),
            on_drop=self._dropped,
            on_fault=lambda method, error: emit("request_failed", method=method, **_fault(error)),
        )

    def start(self) -> None:
        """Bind the socket. StateError when another daemon is there, OSError when the directory does not let
        us."""
        self._server.start()

    def close(self) -> None:
        """Clients are told and dropped; changes that are under way are left to the backend."""
        self._server.close()

    def _dropped(self, peer: Peer | None, reason: str) -> None:
        self._emit("client_dropped", reason=reason, uid=peer.uid if peer else None)

    async def _handle(self, peer: Peer, name: str, given: Mapping[str, Any]) -> Any:
        method = METHODS.get(name)
        if method is None:
            raise RpcError(f"no method {name!r} in protocol {PROTOCOL}", ExitCode.PROTOCOL)
        if not method.changes:
            return await method.run(self, peer, params.validated(name, method.params, given))
        try:
            self._authorise(peer, name)
            return await method.run(self, peer, params.validated(name, method.params, given))
        except RpcError as error:
            if error.code != ExitCode.TIMED_OUT:
                self._emit("command_refused", method=name, uid=peer.uid, who=_user(peer.uid), reason=str(error))
            raise

    def _who_may_change(self) -> set[int]:
        uids = self._identity.uids
        return {0, os.getuid(), *(_uids(self._identity.operators) if uids is None else uids)}

    def _authorise(self, peer: Peer, verb: str) -> None:
        if self._backend.identity != self._identity:  # reloaded
            self._identity = self._backend.identity
            self._may_change = self._who_may_change()
        if peer.uid in self._may_change:
            return
        raise RpcError(
            f"{_user(peer.uid)} may look and not {verb}: that is for root, {_user(os.getuid())} and the "
            f"`operators` of the configuration ({', '.join(self._identity.operators) or 'none'})",
            ExitCode.NOT_PERMITTED,
        )

    def _known(self, names: tuple[str, ...], also: tuple[str, ...] = ()) -> None:
        there = self._backend.stage_names() + also
        for name in names:
            if name not in there:
                near = difflib.get_close_matches(name, there, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise RpcError(f"no stage {name!r}{hint}; there are {', '.join(there)}", ExitCode.NO_SUCH_STAGE)

    async def hello(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        identity = self._identity
        if given["protocol"] != PROTOCOL:
            raise RpcError(
                f"the daemon ({identity.version}) speaks protocol {PROTOCOL}, the client {given['protocol']}; "
                "they are of different releases",
                ExitCode.PROTOCOL,
            )
        return {"protocol": PROTOCOL, "version": identity.version, "pipeline": identity.pipeline}

    async def status(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        return await self._status(given["usage"])

    async def _status(self, usage: bool) -> dict[str, Any]:
        return {**await self._backend.status(usage), "protocol": PROTOCOL, "now": time.time()}

    async def report(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        return await self._backend.report()

    async def why(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        if given["stage"] not in PIPELINE:
            self._known((given["stage"],))
        return {**await self._backend.why(given["stage"]), "stage": given["stage"], "now": time.time()}

    async def health(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        if given["stage"] is not None:
            self._known((given["stage"],))
        answer = await self._backend.health(given["stage"])
        return {"pipeline": self._identity.pipeline, **answer, "now": time.time()}

    async def metrics(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": await self._backend.metrics()}

    async def change(self, verb: Verb, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        stages, timeout = given["stages"], given["timeout"]
        self._known(stages)
        what = " ".join(stages) or "all"
        force = bool(given.get("force"))
        who = self._received(verb, f"{what} by force" if force else what, peer)
        work = self._backend.change(verb, stages, timeout, who, force)
        return {"changed": []} | await self._carried_out(verb, work, given)

    def _received(self, verb: str, what: str, peer: Peer) -> str:
        """A change is about to begin; the name of who asked for it."""
        who = _user(peer.uid)
        self._emit("command_received", method=verb, params=what, uid=peer.uid, who=who)
        return who

    async def _carried_out(
        self, verb: str, work: Coroutine[Any, Any, dict[str, Any]], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Run a change in a task of its own and wait for it as long as the client wants."""
        timeout = given["timeout"]
        begun = time.monotonic()
        task = self._keep(work)
        done, _ = await asyncio.wait({task}, timeout=timeout + ANSWER_GRACE_S if given["wait"] else NO_WAIT_GRACE_S)
        if done:
            return {**task.result(), "verb": verb, "seconds": time.monotonic() - begun, "done": True}
        task.add_done_callback(lambda late: self._failed_alone(verb, late))
        if given["wait"]:
            raise RpcError(f"{verb} is not done after {timeout:g} s, still going on", ExitCode.TIMED_OUT)
        return {"verb": verb, "seconds": time.monotonic() - begun, "done": False}

    async def reload(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        dry_run = given["dry_run"]
        who = self._received("reload", "of the configuration" + (" (dry run)" if dry_run else ""), peer)
        work = self._backend.reload(dry_run, given["timeout"], who)
        return {"changed": [], "changes": [], "dry_run": dry_run} | await self._carried_out("reload", work, given)

    async def change_stage(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        stage, kind, wanted = given["stage"], given["kind"], given["params"]
        self._known((stage,))
        who = self._received(kind, " ".join([stage, *(str(value) for value in wanted.values())]), peer)
        work = self._backend.change_stage(stage, kind, wanted, given["timeout"], who)
        return {"stage": stage, "params": wanted, "epoch": None} | await self._carried_out(kind, work, given)

    async def checkpoint(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        keep = given["keep"]
        who = self._received("checkpoint", f"kept as {keep}" if keep else "unnamed", peer)
        work = self._backend.checkpoint(keep, given["timeout"], who)
        return {"epoch": None, "position": None, "keep": keep} | await self._carried_out("checkpoint", work, given)

    async def checkpoints(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"checkpoints": await self._backend.checkpoints(), "now": time.time()}

    async def forget_checkpoint(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        who = self._received("forget_checkpoint", given["name"], peer)
        return {"name": given["name"], **await self._backend.forget_checkpoint(given["name"], who)}

    async def dead_letters(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        """A page of them, and how many there are in all."""
        stage, status = given["stage"], given["status"]
        self._known((stage,) if stage is not None else ())
        counts = await self._backend.dead_letter_counts(stage)
        page = await self._backend.dead_letters(stage, status, given["after"], given["limit"], given["whole"])
        return {"letters": page, "total": counts[status] if status else sum(counts.values()), "counts": counts}

    async def dead_letter(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        """All of one; with `offset` only its record, from there on."""
        letter, offset = given["id"], given["offset"]
        backend = self._backend
        found = await (backend.dead_letter_part(letter, offset) if offset else backend.dead_letter(letter))
        if found is None:
            raise RpcError(f"no dead letter {given['id']}", ExitCode.NO_SUCH_STAGE)
        return found

    async def replay(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        letters, stage, who = self._chosen("replay", peer, given)
        work = self._backend.replay(letters, stage, given["timeout"], who)
        answer = {"letters": None, "epoch": None} | await self._carried_out("replay", work, given)
        return {**answer, "dead": await self._dead(stage)}

    async def drop(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        letters, stage, who = self._chosen("drop", peer, given)
        return {"verb": "drop", **await self._backend.drop(letters, stage, who), "dead": await self._dead(stage)}

    async def _dead(self, stage: str | None) -> int:
        return (await self._backend.dead_letter_counts(stage))["dead"]

    def _chosen(self, verb: str, peer: Peer, given: Mapping[str, Any]) -> tuple[tuple[int, ...], str | None, str]:
        """Letters (none: all dead ones), of which stage, and who asks. An empty list alone chooses nothing: a script
        whose variable is empty must not drop them all."""
        letters, stage = given["ids"], given["stage"]
        if bool(letters) == given["all"] or (letters and stage is not None):
            raise RpcError(f"{verb}: should have ids, or all (of a stage), one of them", ExitCode.USAGE)
        self._known((stage,) if stage is not None else ())
        what = " ".join(map(str, letters)) or f"all of {stage or 'every stage'}"
        return letters, stage, self._received(verb, what, peer)

    async def logs(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        stage, level = given["stage"], given["level"]
        self._known((stage,) if stage is not None else (), also=PIPELINE)
        lines, whole = self._backend.log_tail(stage, given["lines"], level, given["since"])
        if given["follow"]:
            least = LEVELS.index(level)

            def forward(record: dict[str, Any]) -> None:
                if LEVELS.index(record["level"]) >= least and stage in (None, record.get("stage")):
                    peer.notify("log", record)

            peer.on_gone(self._backend.subscribe("logs", forward))
        told = _newest_that_fit(lines)
        return {"lines": told, "complete": whole and len(told) == len(lines)}

    async def log_summary(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        """Of everything or what is not older than a moment, of all or of one name: a stage, or what else the log has
        lines of."""
        stage = given["stage"]
        answer = await self._backend.log_summary(stage, given["since"])
        if stage is not None and stage not in answer["stages"]:
            self._known((stage,), also=PIPELINE)
        return {**answer, "stage": stage, "now": time.time()}

    async def watch(self, peer: Peer, given: Mapping[str, Any]) -> dict[str, Any]:
        """The status now, and a `status` notification at every change and every second."""
        first = await self._status(True)
        self._watchers.add(peer)
        return first

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _failed_alone(self, verb: str, task: asyncio.Task[Any]) -> None:
        """A change failed when nobody waited for it any more."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emit("request_failed", method=verb, reason=str(error))


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table. A parameter is a check and a default; a check returns the value or raises
    ValueError that says what it should be."""

    run: Callable[[ControlServer, Peer, Mapping[str, Any]], Awaitable[Any]]
    params: Params
    changes: bool = False


_PATIENCE: Final[Params] = {"timeout": (params.seconds, CHANGE_TIMEOUT_S), "wait": (params.flag, True)}
_CHOICE: Final[Params] = {"ids": (params.ids, ()), "all": (params.flag, False), "stage": (params.name, None)}

_WISH: Final[Params] = {"stage": (params.one_name, None), "kind": (params.kind, None), "params": (params.given, {})}


def _change(verb: Verb, more: Params | None = None) -> Method:
    wanted = {"stages": (params.names, ()), **_PATIENCE, **(more or {})}
    return Method(lambda server, peer, given: server.change(verb, peer, given), wanted, changes=True)


METHODS: Final[Mapping[str, Method]] = {
    "hello": Method(ControlServer.hello, {"protocol": (params.integer, PROTOCOL)}),
    "status": Method(ControlServer.status, {"usage": (params.flag, True)}),
    "watch": Method(ControlServer.watch, {}),
    "report": Method(ControlServer.report, {}),
    "logs": Method(
        ControlServer.logs,
        {
            "stage": (params.name, None),
            "lines": (params.count, 10),
            "level": (params.level, "debug"),
            "since": (params.moment, 0.0),
            "follow": (params.flag, False),
        },
    ),
    "log_summary": Method(ControlServer.log_summary, {"stage": (params.name, None), "since": (params.moment, 0.0)}),
    "start": _change("start"),
    "stop": _change("stop"),
    "restart": _change("restart", {"force": (params.flag, False)}),
    "reload": Method(ControlServer.reload, {"dry_run": (params.flag, False), **_PATIENCE}, changes=True),
    "why": Method(ControlServer.why, {"stage": (params.one_name, None)}),
    "health": Method(ControlServer.health, {"stage": (params.name, None)}),
    "metrics": Method(ControlServer.metrics, {}),
    "change": Method(ControlServer.change_stage, {**_WISH, **_PATIENCE}, changes=True),
    "checkpoint": Method(ControlServer.checkpoint, {"keep": (params.keep, None), **_PATIENCE}, changes=True),
    "checkpoints": Method(ControlServer.checkpoints, {}),
    "forget_checkpoint": Method(ControlServer.forget_checkpoint, {"name": (params.kept, None)}, changes=True),
    "dead_letters": Method(
        ControlServer.dead_letters,
        {
            "stage": (params.name, None),
            "status": (params.letter_status, "dead"),
            "after": (params.number, 0),
            "limit": (params.letter_count, 100),
            "whole": (params.flag, False),
        },
    ),
    "dead_letter": Method(ControlServer.dead_letter, {"id": (params.number, None), "offset": (params.offset, 0)}),
    "replay": Method(ControlServer.replay, {**_CHOICE, **_PATIENCE}, changes=True),
    "drop": Method(ControlServer.drop, _CHOICE, changes=True),
}


def _newest_that_fit(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many of the newest as one answer holds, oldest first."""
    room = MESSAGE_BYTES_MAX - ANSWER_BYTES_SPARE
    first = len(lines)
    while first > 0 and (room := room - len(encode(Notification("log", lines[first - 1])))) >= 0:
        first -= 1
    return lines[first:]


def _uids(users: tuple[str, ...]) -> set[int]:
    """Looked up once, at the start: a name service may block. A user who is not there cannot come in."""
    found = set()
    for user in users:
        with contextlib.suppress(KeyError):
            found.add(pwd.getpwnam(user).pw_uid)
    return found


def _fault(error: BaseException) -> dict[str, str]:
    """A mistake in a handler, for the log."""
    return {
        "reason": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
