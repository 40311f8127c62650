"""The life of one process as a table. Everything that changes a process's state is in this file.

docs/components/supervisor.md shows the diagram that `mermaid()` draws from the table; a test holds both together.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from streampiped.core.tables import Table


class State(Enum):
    """What a process is doing, as far as the supervisor knows."""

    STOPPED = "stopped"  # nobody wants it to run
    STARTING = "starting"  # the launcher was asked to fork
    LOADING = "loading"  # imports and constructs
    LOADED = "loaded"  # waits for its links
    RESETTING = "resetting"  # restores the epoch of a generation
    READY = "ready"  # restored, waits for go
    RUNNING = "running"
    STOPPING = "stopping"  # asked to leave
    KILLING = "killing"  # sent SIGKILL
    BACKOFF = "backoff"  # died, next attempt is scheduled
    FAILED = "failed"  # given up until an operator says start


class Input(Enum):
    """What can happen to a process."""

    FORK = "fork"
    FORKED = "forked"
    LOADED = "loaded"
    RESET = "reset"
    READY = "ready"
    GO = "go"
    ASK = "ask to leave"
    KILL = "kill"
    DIED = "died"
    RETRY = "schedule a retry"
    STAY_DOWN = "stay down"
    GIVE_UP = "give up"


_DEAD: Final = (State.STOPPED, State.BACKOFF, State.FAILED)
_ALIVE: Final = tuple(s for s in State if s not in _DEAD)

TABLE: Final = Table[State, Input](
    {
        (State.STOPPED, Input.FORK): State.STARTING,
        (State.BACKOFF, Input.FORK): State.STARTING,
        (State.FAILED, Input.FORK): State.STARTING,
        (State.STARTING, Input.FORKED): State.LOADING,
        (State.LOADING, Input.LOADED): State.LOADED,
        (State.LOADED, Input.RESET): State.RESETTING,
        (State.RESETTING, Input.RESET): State.RESETTING,
        (State.READY, Input.RESET): State.RESETTING,
        (State.RUNNING, Input.RESET): State.RESETTING,
        (State.RESETTING, Input.READY): State.READY,
        (State.READY, Input.GO): State.RUNNING,
        (State.LOADED, Input.GO): State.RUNNING,  # services have no links and no generation
        (State.STOPPED, Input.STAY_DOWN): State.STOPPED,
        (State.BACKOFF, Input.STAY_DOWN): State.STOPPED,
        (State.FAILED, Input.STAY_DOWN): State.STOPPED,
        (State.STOPPED, Input.RETRY): State.BACKOFF,
        (State.STOPPED, Input.GIVE_UP): State.FAILED,
        **{(s, Input.ASK): State.STOPPING for s in _ALIVE if s is not State.KILLING},
        **{(s, Input.KILL): State.KILLING for s in _ALIVE},
        **{(s, Input.DIED): State.STOPPED for s in _ALIVE},
    }
)


def is_alive(state: State) -> bool:
    """Whether a process with a pid (or one about to get it) exists in this state."""
    return state not in _DEAD


def mermaid() -> str:
    """The table as a Mermaid state diagram. Inputs that lead to the same state from every living one are drawn once
    each; without colons or semicolons in the note, at which Mermaid's lexer would end it."""
    once = {Input.ASK: State.RUNNING, Input.KILL: State.STOPPING, Input.DIED: State.KILLING}
    note = [
        "    note right of running",
        "        From every living state, ask to leave leads to stopping,",
        "        kill to killing and died to stopped",
        "    end note",
    ]
    return "\n".join([TABLE.mermaid(State.STOPPED, once), *note])
