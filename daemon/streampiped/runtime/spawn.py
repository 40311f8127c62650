"""Processes: the fork server, the children, their deaths. Knows how, never why.

Deaths are seen through pidfds: uvloop refuses SIGCHLD handlers, and a stray waitpid(-1) would steal the status of
somebody else's child. A dead leader is left a zombie until its process group has been killed, so that its pid cannot
have become another group's meanwhile. Because the supervisor is a subreaper, what a stage leaves behind becomes our
child; it is found in /proc after each death, ended and reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from streampiped.runtime.blackbox import BlackBox, Reading
from streampiped.runtime.channel import Channel, make_pair
from streampiped.runtime.launch import Launch, execute_launcher
from streampiped.runtime.limits import told
from streampiped.runtime.linux import children, comm_of
from streampiped.runtime.output import OutputReader
from streampiped.runtime.spawn_marks import WARDEN
from streampiped.wire import messages as m


class Orderer(Protocol):
    """Who has ordered a process. All calls come on the loop."""

    def on_forked(self, child: Child) -> None: ...
    def on_fork_failed(self, name: str, incarnation: int, reason: str) -> None: ...
    def on_message(self, child: Child, message: m.Message) -> None: ...
    def on_died(self, child: Child, reason: str) -> None: ...


class Listener(Orderer, Protocol):
    """Who orders the processes of the plan, and wants to know of everything else as well."""

    def on_launcher_ready(self, pid: int) -> None: ...
    def on_launcher_died(self, reason: str) -> None: ...
    def on_output(self, name: str, text: str) -> None: ...
    def on_output_dropped(self, name: str, count: int) -> None: ...
    def on_orphan(self, pid: int) -> None: ...


@dataclass(slots=True)
class Child:
    """One process that we watch."""

    name: str
    incarnation: int
    pid: int
    pidfd: int
    channel: Channel
    blackbox: BlackBox
    output: OutputReader
    orderer: Orderer
    last: Reading | None = None
    """What its black box said when it was dead."""

    def signal(self, *signals: signal.Signals) -> None:
        for signum in signals:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signum)

    def kill(self) -> None:
        """SIGKILL, to everything in its group as well. It is not reaped yet, so the pid is its own."""
        self.signal(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@dataclass(slots=True)
class _Order:
    """A fork that the launcher has been asked for."""

    name: str
    incarnation: int
    control: socket.socket
    blackbox: BlackBox
    output: int
    orderer: Orderer

    def drop(self) -> None:
        """Whoever was forked for it finds its control socket closed and leaves."""
        self.control.close()
        self.blackbox.close()
        os.close(self.output)


class Spawner:
    """Starts the launcher, has it fork, watches everybody."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        modules: Sequence[str],
        early: Launch | None = None,
    ) -> None:
        """Launchers preload `modules`. `early` is one that has been executed already: the first that is wanted."""
        self._modules = modules
        self._loop = loop
        self._listener = listener
        self._children: dict[tuple[str, int], Child] = {}
        self._orders: dict[int, _Order] = {}
        self._waiting: list[tuple[str, int, Orderer]] = []
        """What the next launcher is asked for as soon as it is there."""
        self._requests = 0
        self._launcher: Child | None = None
        self._launcher_ready = False
        self._orphans: set[int] = set()
        self._alone = asyncio.Event()
        """Set whenever somebody was reaped; see `shutdown`."""
        self._early = early
        self._mark = early.mark if early is not None else None

    # the launcher

    def start_launcher(self) -> None:
        """Execute a fresh launcher; `on_launcher_ready` when it can fork, about a second later."""
        launch, self._early = self._early or execute_launcher(self._modules, self._mark), None
        try:
            box = BlackBox(BlackBox.make("launcher"))
            self._launcher = self._watch("launcher", 0, launch.pid, launch.control, box, launch.output, self._listener)
        except OSError:  # who finds its control socket closed leaves
            launch.control.close()
            os.close(launch.output)
            raise
        self._launcher_ready = launch.ready
        if launch.ready:
            self._loop.call_soon(self._listener.on_launcher_ready, launch.pid)
        waiting, self._waiting = self._waiting, []
        for name, incarnation, orderer in waiting:
            self.fork(name, incarnation, orderer)

    async def shutdown(self, seconds: float) -> None:
        """End the launcher, its warden and whatever else is still ours, and wait for it, `seconds` at most."""
        if self._launcher is not None:
            self._launcher.kill()
        self._sweep()
        until = self._loop.time() + seconds
        while self._launcher is not None or self._orphans:
            self._alone = asyncio.Event()
            try:
                await asyncio.wait_for(self._alone.wait(), until - self._loop.time())
            except TimeoutError:
                return

    @property
    def launcher_pid(self) -> int | None:
        """Of the one that is alive; not reaped, so the number is its own."""
        return self._launcher.pid if self._launcher is not None else None

    @property
    def forking_pid(self) -> int | None:
        """Of the launcher, when it has imported everything: a fork is now a matter of milliseconds."""
        return self.launcher_pid if self._launcher_ready else None

    def kill_launcher(self) -> bool:
        """End a launcher that does not do what it is asked. False when there is none."""
        if self._launcher is not None:
            self._launcher.kill()
        return self._launcher is not None

    def reap(self) -> None:
        """Bury strangers that are dead already: what a stage started and left. Those that live are ended at the next
        death."""
        if self._orders:
            return
        for pid in children() - {child.pid for child in self.all()} - self._orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    def fork(self, name: str, incarnation: int, orderer: Orderer | None = None) -> None:
        """Ask for a process; answered by `on_forked` or `on_fork_failed`, or by `on_launcher_died`. An `orderer` other
        than the listener asks for one that is not of the plan, and need not know of launchers: the next one is asked
        again. OSError, and nothing stays open, when we are short of descriptors."""
        if self._launcher is None:
            if orderer is not None:
                self._waiting.append((name, incarnation, orderer))
            return
        with contextlib.ExitStack() as given, contextlib.ExitStack() as kept:
            ours, theirs = make_pair()
            kept.callback(ours.close)
            given.callback(theirs.close)
            reader, writer = os.pipe2(os.O_CLOEXEC)
            kept.callback(os.close, reader)
            given.callback(os.close, writer)
            blackbox = BlackBox.make(name)
            given.callback(os.close, blackbox)
            box = BlackBox(os.dup(blackbox))
            kept.callback(box.close)
            self._launcher.channel.send(m.Fork(self._requests + 1, name), [theirs.fileno(), blackbox, writer])
            kept.pop_all()
        self._requests += 1
        self._orders[self._requests] = _Order(name, incarnation, ours, box, reader, orderer or self._listener)

    # the children

    def child(self, name: str, incarnation: int) -> Child | None:
        return self._children.get((name, incarnation))

    def all(self) -> list[Child]:
        launcher = [self._launcher] if self._launcher is not None else []
        return launcher + list(self._children.values())

    def is_ordered(self, name: str, incarnation: int) -> bool:
        """Whether a fork is under way."""
        return any((o.name, o.incarnation) == (name, incarnation) for o in self._orders.values())

    def _watch(
        self,
        name: str,
        incarnation: int,
        pid: int,
        control: socket.socket,
        blackbox: BlackBox,
        output: int,
        orderer: Orderer,
    ) -> Child:
        pidfd = os.pidfd_open(pid)
        child: Child

        def on_end() -> None:
            if child.name != "launcher" or child is self._launcher:
                child.kill()  # a process that closed its control socket, or spoke garbage, cannot be led

        def on_message(message: m.Message, descriptors: list[int]) -> None:
            for fd in descriptors:
                os.close(fd)
            self._on_message(child, message)

        child = Child(
            name,
            incarnation,
            pid,
            pidfd,
            Channel(control, self._loop, on_message, on_end),
            blackbox,
            OutputReader(
                output,
                self._loop,
                lambda text: self._listener.on_output(name, text),
                lambda count: self._listener.on_output_dropped(name, count),
            ),
            orderer,
        )
        self._loop.add_reader(pidfd, self._on_dead, child)
        return child

    def _on_message(self, child: Child, message: m.Message) -> None:
        match message:
            case m.LauncherReady() if child is self._launcher:
                self._launcher_ready = True
                self._listener.on_launcher_ready(child.pid)
            case m.Forked(request, pid, error) if child is self._launcher:
                self._on_forked(self._orders.pop(request), pid, error)
            case _:
                child.orderer.on_message(child, message)

    def _on_forked(self, order: _Order, pid: int, error: str) -> None:
        if not pid:
            order.drop()
            order.orderer.on_fork_failed(order.name, order.incarnation, error)
            return
        try:
            child = self._watch(
                order.name, order.incarnation, pid, order.control, order.blackbox, order.output, order.orderer
            )
        except OSError as failure:  # no pidfd: whoever cannot be watched is not led
            order.drop()
            order.orderer.on_fork_failed(order.name, order.incarnation, told(failure))
            return
        self._children[order.name, order.incarnation] = child
        order.orderer.on_forked(child)
        self._sweep()

    # death

    def _on_dead(self, child: Child) -> None:
        try:
            status = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            status = None  # reaped by nobody we know; the pidfd still says that it is gone
        else:
            if status is None:
                return
        child.channel.drain()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        self._loop.remove_reader(child.pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG)
        self._release(child)
        reason = describe(status)
        if child is self._launcher:
            self._launcher = None
            orders, self._orders = self._orders, {}
            for order in orders.values():
                order.drop()
                if order.orderer is not self._listener:
                    self._waiting.append((order.name, order.incarnation, order.orderer))
            self._sweep()
            self._alone.set()
            self._listener.on_launcher_died(reason)
            return
        self._children.pop((child.name, child.incarnation), None)
        self._sweep()
        child.orderer.on_died(child, reason)

    def _release(self, child: Child) -> None:
        child.last = child.blackbox.read()
        os.close(child.pidfd)
        child.channel.close()
        child.output.close()
        child.blackbox.close()

    def _sweep(self) -> None:
        """End and reap children that nobody knows. Not while a fork is under way: its pid is not known yet."""
        if self._orders:
            return
        known = {child.pid for child in self.all()} | self._orphans
        for pid in children() - known:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                self._orphans.add(pid)
                self._loop.add_reader(pidfd, self._reap_orphan, pid, pidfd)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                if comm_of(pid) != WARDEN:  # a launcher's own, which ends with it
                    self._listener.on_orphan(pid)

    def _reap_orphan(self, pid: int, pidfd: int) -> None:
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is None:
                return
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self._orphans.discard(pid)
        self._sweep()  # its own children are ours now
        self._alone.set()


BARE_KILL: Final = "killed by SIGKILL"
"""How `describe` tells a death by SIGKILL, whoever sent it."""


def describe(status: Any) -> str:
    """How a process ended, for people: `status` is of waitid."""
    if status is None:
        return "gone without a status"
    if status.si_code == os.CLD_EXITED:
        return f"exit status {status.si_status}"
    try:
        name = signal.Signals(status.si_status).name
    except ValueError:
        name = f"signal {status.si_status}"
    return f"killed by {name}"
