"""What a process says it does: the vocabulary between its black box and the judgement of its health."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Phase(IntEnum):
    """What a process says it does; written into its black box before it does it."""

    LOADING = 0
    WAITING = 1  # for input, for a deadline or for a message
    PROCESSING = 2  # inside the stage's `process`, `read` or `wake`
    BLOCKED = 3  # an output is full
    RESTORING = 4
    PREPARING = 5  # a sink makes an epoch durable in a thread, the data path waits
    THROTTLED = 6  # `max_rate`
    ENDED = 7
    LEAVING = 8
    ALIGNING = 9  # a barrier is there on one input and not yet on all: nothing is read from that one
    CREDITS = 11  # as many batches are under way on an output as its reader can be done with in time
    SLOTS = 12  # every slot of the memory that it shares is still held by a stage behind it
    HOLDING = 10  # asked to give nothing, or the disk refuses and the next reset is waited for


BEHIND: Final = (Phase.CREDITS, Phase.SLOTS)
"""The stage waits until one behind it has taken what was sent."""
