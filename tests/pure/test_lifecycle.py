"""The table of a process's life, restart intensity, and the diagram in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from streampiped.core.intensity import GiveUp, Intensity, Retry
from streampiped.core.lifecycle import TABLE, Input, State, is_alive, mermaid
from streampiped.core.tables import ImpossibleInputError

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_living_state_can_die_and_be_killed() -> None:
    """Death and SIGKILL can come at any time in the life of a process."""
    for state in State:
        assert ((state, Input.DIED) in TABLE.rows) is is_alive(state)
        assert ((state, Input.KILL) in TABLE.rows) is is_alive(state)


def test_impossible_input_names_state_and_input() -> None:
    """A wrong program is told which state and which input."""
    with pytest.raises(ImpossibleInputError, match=r"'go' .* 'stopped'"):
        TABLE.advance(State.STOPPED, Input.GO)


def test_every_state_can_be_reached() -> None:
    """No state of the table is dead code."""
    assert {State.STOPPED, *TABLE.rows.values()} == set(State)


def test_diagram_in_the_docs_is_the_table() -> None:
    """The diagram in docs/components/supervisor.md is drawn from the table."""
    assert mermaid() in (DOCS / "components" / "supervisor.md").read_text()


def intensity(max_restarts: int = 3) -> Intensity:
    return Intensity(max_restarts, 10.0, 0.1, 1.0, 30.0, lambda: 1.0)


def test_back_off_doubles_up_to_its_cap() -> None:
    """The first restart is immediate, then the delay doubles up to `backoff_max`."""
    machine = intensity(100)
    delays = [machine.died(0.0) for _ in range(7)]
    assert [round(d.at, 3) for d in delays if isinstance(d, Retry)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_window_slides() -> None:
    """Deaths older than the window do not count; more than `max_restarts` within it give up."""
    machine = intensity(2)
    assert isinstance(machine.died(0.0), Retry)
    assert isinstance(machine.died(9.0), Retry)
    assert isinstance(machine.died(10.5), Retry)
    assert machine.died(11.0) == GiveUp(3)


def test_quiet_time_resets_the_back_off() -> None:
    """After `stable_after` seconds without a death the next restart is immediate again."""
    machine = intensity(100)
    machine.died(0.0)
    machine.died(0.0)
    assert machine.died(30.0) == Retry(30.0, 1)


def test_control_specification_lists_the_states() -> None:
    """The states that docs/specs/control.md promises to programs are those of the table."""
    line = next(x for x in (DOCS / "specs" / "control.md").read_text().splitlines() if "`state` of a process: " in x)
    assert set(line.split(": ")[1].rstrip(".").split(", ")) == {state.value for state in State}
