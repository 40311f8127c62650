"""Why a process was started again, in a few classes: what counters can be labelled with."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Cause(Enum):
    """Of a restart."""

    PLANNED = "planned"  # an operator's restart, or a stop that a start followed
    SIGNAL = "signal"  # a signal has ended it: a person, the kernel for memory, its own code
    EXIT = "exit"  # it has left by itself
    EXCEPTION = "exception"  # its code has raised
    HUNG = "hung"  # no progress, or too long in one state: the supervisor has ended it
    LOST = "lost"  # it has never been there, or vanished without a status


_BEGINNINGS: Final = (
    ("killed by ", Cause.SIGNAL),
    ("exit status ", Cause.EXIT),
    ("hung: ", Cause.HUNG),
    ("still ", Cause.HUNG),
    ("not loaded after ", Cause.HUNG),
    ("cannot be forked", Cause.LOST),
    ("was never forked", Cause.LOST),
    ("gone without a status", Cause.LOST),
)


def cause_of(reason: str) -> Cause:
    """The class of an unexpected death. What is in nobody else's words is in the stage's own: its exception.

    >>> cause_of("killed by SIGSEGV"), cause_of("ValueError: x")
    (<Cause.SIGNAL: 'signal'>, <Cause.EXCEPTION: 'exception'>)
    """
    return next((cause for words, cause in _BEGINNINGS if reason.startswith(words)), Cause.EXCEPTION)
