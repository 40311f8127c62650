"""The terminal as a screen to draw on, given back as it was whatever happens: at an exception, at SIGINT, SIGTERM and
SIGHUP, and while the program is stopped.

Signals that only say something (SIGWINCH, SIGTSTP, SIGCONT) are bytes on `Terminal.signals`, for `select`. Those that
end raise: SIGINT KeyboardInterrupt, SIGTERM and SIGHUP `Ended`, also out of a write to a terminal that takes nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the other screen, no cursor, and no line that wraps
LEAVE: Final = "\x1b[?2026l\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN: Final = "\x1b[?2026h"  # a synchronized update: terminals that know it show it at once, others ignore it
END: Final = "\x1b[?2026l"
TOLD: Final = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Ended(BaseException):
    """A signal asks the program to go. No Exception: nothing on the way may take it for an ordinary failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def update(old: Sequence[str] | None, new: Sequence[str]) -> str:
    """What makes a screen that shows `old` show `new`: the lines that differ. None: nobody knows what it shows. Empty
    when there is nothing to do. Both have one line for each row."""
    same = old is not None and len(old) == len(new)
    lines = [
        f"\x1b[{row};1H\x1b[2K{line}"
        for row, line in enumerate(new, 1)
        if not (same and old is not None and old[row - 1] == line)
    ]
    return BEGIN + "".join(lines) + END if lines else ""


class Terminal:
    """`keyboard` is None where there is none: then only signals end the program."""

    def __init__(self, screen: int, keyboard: int | None) -> None:
        self.screen = screen
        self.keyboard = keyboard
        self.signals, self._told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: list[Any] | None = None
        self._shown: list[str] | None = None
        self._entered = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Between entering and leaving the screen."""
        handlers = {number: signal.signal(number, _nothing) for number in TOLD}
        handlers |= {number: signal.signal(number, _end) for number in ENDING}
        woken = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        try:
            self.enter()
            yield
        finally:
            # a second Ctrl-C must not come between the parts of giving back; one from just before may be raised here
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *TOLD, *ENDING))
            finally:
                self.leave()
                signal.set_wakeup_fd(woken)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                os.close(self.signals)
                os.close(self._told)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, *TOLD, *ENDING))

    def enter(self) -> None:
        """Also after SIGCONT, when the shell may have set everything differently. In the background this stops us
        again (SIGTTOU), as it should."""
        self._entered, self._shown = True, None
        if self.keyboard is not None:
            if self._before is None:
                self._before = termios.tcgetattr(self.keyboard)
            tty.setcbreak(self.keyboard, termios.TCSANOW)
        self._write(ENTER)

    def leave(self) -> None:
        if not self._entered:
            return
        self._entered = False
        with contextlib.suppress(OSError, termios.error):  # it is gone, and there is nothing to give back
            if self._in_background():
                return  # there the terminal is the shell's, and as the shell wants it
            termios.tcflow(self.screen, termios.TCOON)  # Ctrl-S would keep us here for ever
            if self.keyboard is not None and self._before is not None:
                termios.tcsetattr(self.keyboard, termios.TCSANOW, self._before)
            self._write(LEAVE)

    def _in_background(self) -> bool:
        try:
            return os.tcgetpgrp(self.screen) != os.getpgrp()
        except OSError:  # not our controlling terminal, so nobody else manages it
            return False

    def stop(self) -> None:
        """What SIGTSTP asks for: give the screen back, stop, and take it again when continued."""
        self.leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _nothing)
        self.enter()

    def heard(self) -> set[int]:
        """The signals since the last call."""
        try:
            return set(os.read(self.signals, 4096))
        except BlockingIOError:
            return set()

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, one for each row."""
        text = update(self._shown, lines)
        self._shown = list(lines)
        if text:
            self._write(text)

    def forget(self) -> None:
        """What is shown is not known any more: the next drawing is a whole one."""
        self._shown = None

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self.screen, data) :]


def _nothing(number: int, where: FrameType | None) -> None:
    """The byte on the wake-up descriptor says it."""


def _end(number: int, where: FrameType | None) -> None:
    raise Ended(number)
