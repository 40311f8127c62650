"""`streampipectl top`: what the daemon tells, drawn again and again.

One connection has both subscriptions, `watch` and `logs`; the daemon's word and a key wake the loop, nothing is polled
(but for intervals that are shorter than the daemon's own second). A daemon that goes is said so, and tried again.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from streampipectl.changes import EXIT_INTERRUPTED
from streampipectl.client import Client
from streampipectl.output import SCREEN, colour, say, screen
from streampipectl.render_top import SORTS, Event, View, frame, scroll_max, written
from streampipectl.terminal import Ended, Terminal
from streampiped.errors import ExitCode, RpcError
from streampiped.events import describe
from streampiped.wire.rpc import Response

PATIENCE_S: Final = 1.0  # with a daemon that does not answer; keys wait for it
RETRY_S: Final = 1.0  # between two attempts to reach a daemon that went
SILENCE_S: Final = 3.0  # without a word of a daemon that speaks every second: say so
WATCH_S: Final = 1.0  # the daemon's own rhythm; a shorter interval has to ask
EARLY: Final = 0.9  # of an interval: the daemon's word, which comes every second, is not for the frame after the next
EVENTS: Final = 200  # kept; the tallest screens have fewer lines
EVENTS_ONCE: Final = 10
EPOCHS: Final = 300  # in the sparkline, five minutes of them
TEXT_MAX: Final = 500  # characters of an event; no terminal is wider
PAGE: Final = 10  # stages by which page up and down scroll

_KEY: Final = re.compile(rb"\x1b[\[O]([A-Z]|\d+~)|\x1b|([^\x1b])")
_NAMED: Final = {b"A": "k", b"B": "j", b"5~": "page up", b"6~": "page down", b"H": "g", b"F": "G"}
_SCROLLS: Final = {"j": 1, "k": -1, "page down": PAGE, "page up": -PAGE, "g": -(10**6), "G": 10**6}


def top(path: str, interval: float, once: bool) -> int:
    """Live on a terminal; elsewhere, and with `once`, one frame without control sequences."""
    if once or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return _once(path)
    told = Told(path)
    terminal = Terminal(sys.stdout.fileno(), sys.stdin.fileno() if sys.stdin.isatty() else None)
    try:
        with terminal.held():
            Live(told, terminal, interval).run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Ended as ended:
        signal.signal(ended.number, signal.SIG_DFL)  # who sent it shall see that we went by it
        os.kill(os.getpid(), ended.number)
    except OSError as error:
        raise RpcError(f"the terminal is gone: {error.strerror}", ExitCode.FAILED) from None
    return int(ExitCode.OK)


def _once(path: str) -> int:
    told = Told(path, EVENTS_ONCE)
    given = os.environ.get("COLUMNS", "")
    columns = screen()[0] if sys.stdout.isatty() else int(given) if given.isdecimal() and int(given) else SCREEN[0]
    for line in frame(told.view(), columns, None):
        say(written(line, columns, colour=False))
    return int(ExitCode.OK)


class Told:
    """What the daemon has told, over connections that may break. `client` is None between two."""

    def __init__(self, path: str, events: int = EVENTS) -> None:
        """RpcError when there is no daemon to begin with."""
        self._path = path
        self._events: deque[Event] = deque(maxlen=events)
        self._epochs: deque[float] = deque(maxlen=EPOCHS)
        self._epoch: int | None = None
        self._question: int | None = None
        self.status: Mapping[str, Any] = {}
        self.client: Client | None = None
        self.trouble: str | None = None
        self.heard_at = 0.0
        self.tried_at = 0.0
        self._connect()

    def view(self) -> View:
        return View(self.status, tuple(self._events), tuple(self._epochs), self.trouble)

    def take(self) -> None:
        """Whatever has come; a connection that broke becomes a trouble."""
        if self.client is None:
            return
        try:
            for message in self.client.arrived():
                if isinstance(message, Response):
                    self._question = None
                    if message.error is None:
                        self._look(message.result)
                elif message.method == "status":
                    self._look(message.params)
                elif message.method == "log":
                    self._events.append(_event(message.params))
        except RpcError as error:
            self._lost(error)

    def ask(self) -> None:
        """For a status now, unless that was asked already."""
        if self.client is not None and self._question is None:
            try:
                self._question = self.client.ask("status", {"usage": True})
            except (RpcError, OSError) as error:
                self._lost(error)

    def retry(self) -> None:
        """Reach for a daemon that went."""
        try:
            self._connect()
        except RpcError as error:
            self._lost(error)

    def listen(self, now: float) -> None:
        """A daemon that hangs keeps its connections."""
        if self.client is not None:
            silent = now - self.heard_at
            self.trouble = f"silent for {silent:.0f}s" if silent > SILENCE_S else None

    def _connect(self) -> None:
        self.tried_at = time.monotonic()
        self._question = None
        client = Client(self._path, PATIENCE_S)
        try:
            self._look(client.call("watch", {}))
            asked = {"lines": self._events.maxlen, "level": "info", "follow": True}
            lines = client.call("logs", asked)["lines"]
        except BaseException:
            client.close()
            raise
        self._events.clear()  # the daemon's log knows them, those before the break included
        self._events.extend(map(_event, lines))
        self.client, self.trouble = client, None
        self.take()

    def _lost(self, error: Exception) -> None:
        if self.client is not None:
            self.client.close()
        self.client = None
        self.tried_at = time.monotonic()
        self.trouble = f"trying again: {error}"

    def _look(self, status: Mapping[str, Any]) -> None:
        self.status, self.heard_at = status, time.monotonic()
        took = (status.get("epoch_parts") or {}).get("total")
        if took is not None and status.get("epoch") != self._epoch:
            self._epochs.append(took)
        self._epoch = status.get("epoch")


def _event(record: Mapping[str, Any]) -> Event:
    """Its first line: a traceback is for `logs`."""
    text = describe(str(record.get("event")), record)
    level, stage = str(record.get("level", "-")), str(record.get("stage") or "-")
    return Event(float(record.get("ts") or 0.0), level, stage, text.partition("\n")[0][:TEXT_MAX])


class Live:
    """The loop: wait, take, draw."""

    def __init__(self, told: Told, terminal: Terminal, interval: float) -> None:
        self._told = told
        self._terminal = terminal
        self._interval = interval
        self._frozen: View | None = None
        self._sort = SORTS[0]
        self._scroll = 0
        self._helping = False
        self._colour = colour()
        self._ascii = "utf" not in (sys.stdout.encoding or "").lower()
        self._drawn_at = 0.0
        self._news = False

    def run(self) -> None:
        """Until q, or an exception."""
        self._draw()
        while True:
            now = time.monotonic()
            keyboard, client = self._terminal.keyboard, self._told.client
            wanted: list[Any] = [self._terminal.signals]
            wanted += [each for each in (keyboard, client) if each is not None]
            ready, _, _ = select.select(wanted, [], [], self._pause(now))
            hurried = self._terminal.signals in ready and self._signalled()
            if keyboard in ready:
                keys = self._pressed()
                if "q" in keys:
                    return
                hurried = hurried or bool(keys)
            if client in ready:
                self._told.take()
                self._news = True
            self._attend(time.monotonic(), hurried)

    def _pause(self, now: float) -> float:
        """Until something is due by itself."""
        due = self._due()
        if self._told.client is None:
            due = min(due, self._told.tried_at + RETRY_S)
        return max(0.0, due - now)

    def _due(self) -> float:
        """When the next frame is. Without news the daemon's word is waited for, unless it stays away."""
        if self._interval < WATCH_S:
            return self._drawn_at + self._interval
        return self._drawn_at + self._interval * (EARLY if self._news else 2.0)

    def _attend(self, now: float, hurried: bool) -> None:
        """What is due: a new connection, a question, a frame."""
        told = self._told
        if told.client is None and now >= told.tried_at + RETRY_S:
            told.retry()
        due = now >= self._due()
        if due and self._interval < WATCH_S:
            told.ask()
        told.listen(now)
        if due or hurried:
            self._draw()

    def _draw(self) -> None:
        columns, rows = screen()
        lines = frame(self._view(), columns, rows)
        self._terminal.draw([written(line, columns, self._colour, self._ascii) for line in lines])
        self._drawn_at = time.monotonic()
        self._news = False

    def _view(self) -> View:
        """What was told, or stood when the picture was stopped, as the keys want it."""
        return (self._frozen or self._told.view())._replace(
            trouble=self._told.trouble, sort=self._sort, scroll=self._scroll,
            paused=self._frozen is not None, helping=self._helping,
        )  # fmt: skip

    def _signalled(self) -> bool:
        heard = self._terminal.heard()
        if signal.SIGTSTP in heard:
            self._terminal.stop()
        elif signal.SIGCONT in heard:
            self._terminal.enter()
        elif signal.SIGWINCH in heard:
            self._terminal.forget()
        return bool(heard)

    def _pressed(self) -> list[str]:
        """The keys, and what they change; a keyboard that is gone is the end."""
        keyboard = self._terminal.keyboard
        assert keyboard is not None
        pressed = keys(os.read(keyboard, 1024))
        for key in pressed:
            if key in _SCROLLS:
                most = scroll_max(self._view(), *screen())
                self._scroll = max(0, min(most, self._scroll + _SCROLLS[key]))
            elif key == "s":
                self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
            elif key == "p":
                self._frozen = self._told.view() if self._frozen is None else None
            elif key == "?":
                self._helping = not self._helping
            elif key == "\x0c":
                self._terminal.forget()
        return pressed


def keys(data: bytes) -> list[str]:
    """Keys by name. A terminal that has gone reads as an empty string, and that as `q`.

    >>> keys(b"s\\x1b[A\\x1b[6~?")
    ['s', 'k', 'page down', '?']
    """
    if not data:
        return ["q"]
    found = []
    for sequence, plain in _KEY.findall(data):
        name = _NAMED.get(sequence, "") if sequence else plain.decode("latin-1")
        if name:
            found.append(name)
    return found
