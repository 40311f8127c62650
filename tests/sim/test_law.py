"""The law under some thousand random schedules; `make law` runs a hundred thousand."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from sim.disk import Disk, Fuse
from sim.pipes import Pipe
from sim.run import Tally, attempt, replay_command
from sim.schedule import Schedule, undisturbed
from sim.stages import TOPOLOGIES, save
from sim.world import ETERNAL, World
from streampiped.core import epochs, stage_side
from streampiped.core.tables import Table

SCHEDULES = 2000
CHUNK = 500
STARTS = range(1_000_000, 1_000_000 + SCHEDULES, CHUNK)
UNREACHED = {
    # (state, input): why none of some thousand schedules may come there
    ("applying", "the disk refuses"): "a sink would have to be given back a row while it refuses: too rare",
    ("aligning", "the disk refuses"): "too rare",
    ("aligning", "rows are to be skipped"): "too rare",
    ("held", "go on"): "a restart would have to be given up at one instant: too rare",
    ("held", "ask for barriers"): "a change would have to be wanted at one instant: too rare",
}
EVERYWHERE = ("reset", "a stage died")
"""Inputs that may come in every state."""


class Visits(dict[Any, Any]):
    """The rows of a table, and which of them were asked for."""

    def __init__(self, rows: Mapping[Any, Any]) -> None:
        super().__init__(rows)
        self.seen: set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)


@cache
def law(first: int) -> tuple[Tally, frozenset[tuple[str, str]]]:
    """What some schedules came to, and the rows of the protocol's two tables that they have been to."""
    tables: list[Table[Any, Any]] = [stage_side.TABLE, epochs.TABLE]
    before: list[dict[Any, Any]] = [table.rows for table in tables]
    watched = [Visits(rows) for rows in before]
    for table, rows in zip(tables, watched, strict=True):
        table.rows = rows
    try:
        tally = attempt(range(first, first + CHUNK))
    finally:
        for table, original in zip(tables, before, strict=True):
            table.rows = original
    return tally, frozenset((state.value, event.value) for rows in watched for state, event in rows.seen)


@pytest.mark.parametrize("first", STARTS)
def test_law_holds(first: int) -> None:
    """Whatever is killed, stopped, refused, wanted or lost at any step: every record is there once and in order, at
    every instant only committed epochs are visible, states and rows are those of an undisturbed run, and the stream
    comes to its end."""
    tally, _ = law(first)
    assert not tally.failures, "\n".join(f"{reason}\n  {replay_command(seed)}" for seed, reason in tally.failures)
    assert tally.schedules == CHUNK
    assert tally.faults > CHUNK


def test_schedules_reach_every_row_of_the_tables() -> None:
    """The schedules above have been in every state and have seen every input there, but for those with a reason."""
    seen = frozenset[tuple[str, str]]().union(*(law(first)[1] for first in STARTS))
    rows = [(a.value, b.value) for table in (stage_side.TABLE, epochs.TABLE) for a, b in table.rows]
    assert {row for row in rows if row[1] not in EVERYWHERE} - seen <= set(UNREACHED)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_same_seed_same_story(topology: str) -> None:
    """A seed replays: the same steps, in the same order, with the same words."""
    seed = next(s for s in range(1000) if Schedule(s).topology == topology)
    stories = []
    for _ in range(2):
        schedule = Schedule(seed, told=True)
        schedule.run()
        stories.append(schedule.story)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 100


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_undisturbed_stream_needs_one_generation(topology: str) -> None:
    """Where nothing goes wrong every record goes through once, and several epochs are committed on the way."""
    outcome = undisturbed(topology, 12)
    assert outcome.faults == 0
    assert len(outcome.what["sink"]) == {"chain": 12, "diamond": 18, "join": 16}[topology]


# the world itself: a world that forgives would let everything pass


def lost(steps: int) -> set[bytes | None]:
    """What is left of a file, by chance, when the power goes after so many steps of saving it over an older one."""
    found = set()
    for seed in range(200):
        disk, fuse = Disk(random.Random(seed)), Fuse()
        for _ in save(disk, fuse, "d/file", b"older"):
            pass
        for _, _step in zip(range(steps), save(disk, fuse, "d/file", b"newer"), strict=False):
            pass
        disk.power_loss()
        found.add(disk.read("d/file"))
    return found


@pytest.mark.parametrize(
    ("steps", "left"), [(0, {b"older"}), (1, {b"older"}), (2, {b"older"}), (3, {b"older", b"newer"}), (9, {b"newer"})]
)
def test_power_loss_keeps_what_was_made_durable(steps: int, left: set[bytes | None]) -> None:
    """A file that is saved durably is the old one or the new one whole, and the new one for certain at the end."""
    assert lost(steps) == left


def test_power_loss_takes_what_was_not() -> None:
    """Written and renamed without fsync, a file is there, or cut off, or empty, or not at all."""
    found = set()
    for seed in range(200):
        disk, fuse = Disk(random.Random(seed)), Fuse()
        disk.write(fuse, "d/file.tmp", b"content!")
        disk.rename(fuse, "d/file.tmp", "d/file")
        disk.power_loss()
        found.add(disk.read("d/file"))
    assert found == {None, b"", b"cont", b"content!"}


def test_second_fsync_lies() -> None:
    """After an fsync that failed, one that succeeds has made nothing durable."""
    found = set()
    for seed in range(50):
        disk, fuse = Disk(random.Random(seed)), Fuse()
        disk.write(fuse, "d/file", b"content!")
        disk.sync(fuse, "d")
        disk.refuse(1, 1.0)
        with pytest.raises(OSError, match="Input/output error"):
            disk.fsync(fuse, "d/file")
        disk.fsync(fuse, "d/file")
        disk.power_loss()
        found.add(disk.read("d/file"))
    assert found == {b"", b"cont", b"content!"}


def test_pipe_gives_every_byte_in_order_and_no_more_than_it_holds() -> None:
    """However a pipe tears what is written, the reader gets the same bytes, and the writer waits when it is full."""
    world = World(3)
    pipe = Pipe(world, 64, 0.7)
    idle: list[int] = []
    pipe.writer = (ETERNAL, lambda: idle.append(world.steps))
    sent = bytes(range(256)) * 3
    pipe.write(sent)
    assert not pipe.idle
    got = bytearray()

    def readable(pipe: Pipe) -> None:
        room = bytearray(100)
        count = pipe.read_into(memoryview(room))
        assert count <= 64
        got.extend(room[:count])
        pipe.listen(ETERNAL, readable)

    pipe.listen(ETERNAL, readable)
    while world.step():
        pass
    assert bytes(got) == sent
    assert len(idle) == 1
