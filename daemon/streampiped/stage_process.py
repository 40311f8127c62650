"""A stage's process: from the fork to the last breath.

Nothing of the user's runs before the supervisor watches us (`Begin`). Then: die with the supervisor, load the class,
and serve the control socket and the data path on one uvloop loop of our own until asked to leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import msgpack
import setproctitle
import uvloop

from streampiped import examination
from streampiped.credentials import Credentials
from streampiped.data_path import DataPath
from streampiped.errors import StreampipeError
from streampiped.phases import Phase
from streampiped.runtime import throwaway
from streampiped.runtime.blackbox import PULSE, BlackBox
from streampiped.runtime.channel import Channel, receive
from streampiped.runtime.epoch_store import EpochStore
from streampiped.runtime.linux import die_with_parent, set_comm
from streampiped.service_path import ServicePath
from streampiped.stages.base import Service, SinkStage, Stage, StageContext
from streampiped.topology import Plan, StageSpec
from streampiped.wire import messages as m
from streampiped.wire import state as wire_state

STACK_DUMP_SIGNAL: Final = signal.SIGUSR2
FLUSH_S: Final = 0.5  # for the last messages to a supervisor that is busy


def run(title: str, control: int, blackbox: int, output: int) -> NoReturn:
    """The first code in a fork of the launcher: wait for `Begin`, then be the stage; or for `Examine`, and be gone
    behind the answer. Never returns."""
    os.setsid()  # Ctrl-C in a terminal must not reach us, and our children form a group to be killed with us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    setproctitle.setproctitle(f"streampipe: {title}")
    set_comm(title)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sock = socket.socket(fileno=control)
    sock.setblocking(True)
    with contextlib.suppress(ConnectionResetError):
        data, _ = receive(sock)
        if data:
            begin = m.decode(data)
            assert isinstance(begin, m.Begin | m.Examine), begin
            if not die_with_parent(signal.SIGKILL, begin.supervisor):
                os._exit(0)
            if isinstance(begin, m.Begin):
                StageProcess(begin, sock, BlackBox(blackbox)).main()
            examination.run(begin, sock)
    os._exit(0)  # the supervisor is gone


class StageProcess:
    """The control side, common to stages and services."""

    def __init__(self, begin: m.Begin, sock: socket.socket, blackbox: BlackBox) -> None:
        self.plan = Plan.from_dict(begin.plan)
        self.spec = self.plan.spec(begin.name)
        self.blackbox = blackbox
        self.credentials = Credentials(self.plan.config_file)
        self._sock = sock
        self._rehearsal = begin.rehearse
        self._leaving = False

    def main(self) -> NoReturn:
        faulthandler.enable(2)
        faulthandler.register(STACK_DUMP_SIGNAL, 2, all_threads=True)
        sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        gc.enable()
        self.loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.channel = Channel(self._sock, self.loop, self._on_message, self._on_supervisor_gone)
        self.loop.add_signal_handler(signal.SIGTERM, self.leave)
        self.loop.set_exception_handler(self._on_loop_error)
        self._guard("construction", self._load)
        self._guard("restore", self._rehearse)
        self.channel.send(m.Loaded())
        self.blackbox.enter(Phase.WAITING)
        self.loop.run_forever()
        os._exit(0)

    def _load(self) -> None:
        subject = load(self.plan, self.spec, self.credentials, self.emit, self.tick)
        path = ServicePath if isinstance(subject, Service) else DataPath
        self.path: DataPath | ServicePath = path(self, subject)  # type: ignore[arg-type]  # told by the line above
        self.subject = subject

    def _rehearse(self) -> None:
        """Whether the state of our predecessor can be ours, seen while it is still there to stay. A sink is not asked:
        its `rollback` would take back what the other has written. Nor is a snapshot that retention has removed."""
        if self._rehearsal is None or isinstance(self.subject, SinkStage | Service):
            return
        path = Path(self.plan.paths.state, "epochs", self._rehearsal)
        with contextlib.suppress(FileNotFoundError):
            self.subject.restore(wire_state.unpack(path.read_bytes(), self.spec.klass))

    # what the stage and its path may call

    def emit(self, event: str, /, **fields: Any) -> None:
        """Log an event; dropped when the supervisor does not keep up."""
        with contextlib.suppress(TypeError, ValueError, OverflowError, StreampipeError):  # what cannot be encoded
            self.channel.send(m.Event(event, self.credentials.masked_fields(fields)), droppable=True)

    def tick(self) -> None:
        self.blackbox.words[PULSE] += 1
        throwaway.alive()

    def fail(self, phase: str, error: BaseException) -> NoReturn:
        """Say why, and die, whatever comes: who lived on would let the next barrier pass, behind a batch that is lost.
        The supervisor decides what comes next."""
        try:
            self.channel.send(self._failure(phase, error))
        except Exception as unsaid:  # noqa: BLE001  an exception's text is user code as well
            reason = f"{type(error).__name__}, of which nothing can be told: {type(unsaid).__name__}"
            self.channel.send(m.Failed(phase, reason, ""))
        finally:
            self._exit(1)

    def _failure(self, phase: str, error: BaseException) -> m.Failed:
        text = self.credentials.masked("".join(traceback.format_exception(error)))[-32_000:]
        return m.Failed(phase, self.credentials.masked(f"{type(error).__name__}: {error}")[:2000], text)

    def _guard(self, phase: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self.fail(phase, error)
        except SystemExit as error:
            self.fail(phase, error)

    def _on_loop_error(self, _loop: Any, context: dict[str, Any]) -> None:
        self.fail("the event loop", context.get("exception") or RuntimeError(context["message"]))

    # the control socket

    def _on_message(self, message: m.Message, descriptors: list[int]) -> None:
        self.tick()
        match message:
            case m.Query():
                self._answer(message)
            case m.Roster() if isinstance(self.path, ServicePath):
                self._guard("roster", lambda: self.path.roster(message.processes))  # type: ignore[union-attr]  # above
            case m.Reset() | m.Go() | m.Barrier() | m.Pause() | m.Resume() | m.Commit() | m.Committed() if isinstance(
                self.path, DataPath
            ):
                self.path.handle(message, descriptors)
            case _:
                for fd in descriptors:
                    os.close(fd)

    def _answer(self, query: m.Query) -> None:
        error, data = "", b""
        try:
            data = msgpack.packb(self.subject.query(query.method, query.params))
        except KeyError:
            error = f"{self.spec.name} does not answer {query.method!r}"
        except Exception as failure:  # noqa: BLE001  a question must not end a stage
            error = self.credentials.masked(f"{type(failure).__name__}: {failure}")[:2000]
        for start in range(0, max(len(data), 1), m.CHUNK_BYTES):
            more = start + m.CHUNK_BYTES < len(data)
            self.channel.send(m.Reply(query.request, more, data[start : start + m.CHUNK_BYTES], error))

    def _on_supervisor_gone(self) -> None:
        os._exit(0)

    # leaving

    def leave(self) -> None:
        """Finish the batch at hand (we are between two), let go of everything, go."""
        if self._leaving:
            return
        self._leaving = True
        self.blackbox.enter(Phase.LEAVING)
        self.path.close()
        self._guard("close", self.subject.close)
        self._exit(0)

    def _exit(self, code: int) -> NoReturn:
        try:
            self.blackbox.enter(Phase.LEAVING)
            self.channel.flush(FLUSH_S)
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
        finally:
            os._exit(code)


def load(
    plan: Plan, spec: StageSpec, credentials: Credentials, emit: Callable[..., None], tick: Callable[[], None]
) -> Stage | Service:
    """Import the class and construct it with its validated options, secrets among them."""
    for entry in reversed(plan.python_path):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    module, _, name = spec.klass.partition(":")
    kind = getattr(importlib.import_module(module), name)
    directory = Path(plan.paths.state, "stages", spec.name)
    directory.mkdir(parents=True, exist_ok=True)
    context = StageContext(
        name=spec.name,
        seed=zlib.crc32(f"{plan.seed}:{spec.name}".encode()),
        pipeline_seed=plan.seed,
        directory=directory,
        emit=emit,
        now=time.monotonic,
        tick=tick,
        retain_epochs=plan.checkpoint.retain_epochs,
        processes=tuple(each.name for each in plan.processes),
        resuming=EpochStore(Path(plan.paths.state, "epochs")).is_begun(),
    )
    subject: Stage | Service = kind(credentials.options(kind.Options, spec.options), context)
    return subject
