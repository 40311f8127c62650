"""Transcripts of the epoch coordinator alone: two sources and two sinks, driven by hand; then schedules by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streampiped.core.epoch_commands import (
    Aborted,
    AskBarrier,
    AskCommit,
    AskPause,
    AskResume,
    EpochCommand,
    Part,
    TellCommitted,
    WriteManifest,
)
from streampiped.core.epochs import ABORT_BACKOFF_FIRST_S, ABORT_BACKOFF_MAX_S, Coordinator, Step, mermaid

SOURCES = ("north", "south")
SINKS = ("table", "file")
STAGES = (*SOURCES, "join", *SINKS)
INTERVAL = 2.0


class Line:
    """A coordinator whose generation runs, on a fake clock."""

    def __init__(
        self, committed: int | None = 0, highest: int = 0, finished: bool = False, sinks: tuple[str, ...] = SINKS
    ) -> None:
        self.epochs = Coordinator(STAGES, SOURCES, sinks, INTERVAL, committed, highest, finished)
        self.now = 100.0
        self.generation = 0
        self.emitted = 0
        self.go()

    def go(self) -> list[EpochCommand]:
        self.generation += 1
        return self.epochs.go(self.generation, self.now)

    def due(self) -> list[EpochCommand]:
        """Time passes until the coordinator wants to be woken; something has come in meanwhile."""
        self.emitted += 1
        return self.quiet()

    def quiet(self) -> list[EpochCommand]:
        """The same, and nothing has come in."""
        deadline = self.epochs.deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        return self.epochs.tick(self.now, self.emitted)

    def snapshot(self, stage: str, epoch: int) -> list[EpochCommand]:
        return self.epochs.snapshot_done(part(stage, epoch), self.generation, epoch, self.now)

    def snapshots(self, epoch: int) -> list[EpochCommand]:
        """Of every stage; what the last one leads to."""
        return [command for stage in STAGES for command in self.snapshot(stage, epoch)]

    def written(self, epoch: int) -> list[EpochCommand]:
        return self.epochs.manifest_written(self.generation, epoch, self.now)

    def confirm(self, sink: str, epoch: int) -> list[EpochCommand]:
        return self.epochs.commit_done(sink, self.generation, epoch, self.now)

    def commit(self, epoch: int) -> list[EpochCommand]:
        """From the barrier to the last answer."""
        self.snapshots(epoch)
        self.written(epoch)
        return [command for sink in SINKS for command in self.confirm(sink, epoch)]

    def ended(self, source: str, records: int = 0) -> list[EpochCommand]:
        return self.epochs.source_ended(source, self.generation, records, self.now)

    def no_space(self, epoch: int) -> list[EpochCommand]:
        return self.epochs.snapshot_failed(self.generation, epoch, "no space", self.now)


def part(stage: str, epoch: int) -> Part:
    return Part(stage, f"{stage}.{epoch}", 10, 7)


def barriers(commands: list[EpochCommand]) -> list[tuple[str, int, bool]]:
    return [(c.stage, c.epoch, c.hold) for c in commands if isinstance(c, AskBarrier)]


def told(commands: list[EpochCommand]) -> list[tuple[int, int, bool]]:
    """Generation, epoch and finality of every commit that all hear of."""
    return [(c.generation, c.epoch, c.final) for c in commands if isinstance(c, TellCommitted)]


def asked(epoch: int, hold: bool = False) -> list[tuple[str, int, bool]]:
    """Barrier `epoch` of every source."""
    return [(source, epoch, hold) for source in SOURCES]


# one epoch


def test_barriers_go_to_every_source_alone() -> None:
    """An epoch is asked of all sources, in the order of the plan, and of nobody else."""
    assert Line().due() == [AskBarrier("north", 1, 1, False), AskBarrier("south", 1, 1, False)]


def test_manifest_when_the_last_snapshot_is_there() -> None:
    """The manifest is written when every stage has told, once, with the parts in the order of the plan."""
    line = Line()
    line.due()
    for stage in ("file", "south", "join", "north", "join"):
        assert line.snapshot(stage, 1) == []
    parts = tuple(part(stage, 1) for stage in STAGES)
    assert line.snapshot("table", 1) == [WriteManifest(1, 1, parts, finished=False)]
    assert line.snapshot("table", 1) == []


def test_commit_is_told_when_every_sink_has_answered() -> None:
    """Sinks are asked after the manifest; the news waits for the last of them, however often one answers."""
    line = Line()
    line.due()
    line.snapshots(1)
    assert line.epochs.committed == 0
    assert line.written(1) == [AskCommit("table", 1, 1), AskCommit("file", 1, 1)]
    assert line.epochs.committed == 1
    line.now += 0.25
    assert line.confirm("table", 1) == line.confirm("table", 1) == []
    (news,) = line.confirm("file", 1)
    assert isinstance(news, TellCommitted)
    assert (news.generation, news.epoch, news.final) == (1, 1, False)
    assert (news.times.sink_commit, news.times.total) == (0.25, 0.25)
    assert line.confirm("file", 1) == []


def test_without_sinks_the_manifest_is_the_news() -> None:
    """Where nothing has to be made visible, the epoch is complete with its manifest."""
    line = Line(sinks=())
    line.due()
    line.snapshots(1)
    assert told(line.written(1)) == [(1, 1, False)]


# when


def test_interval_counts_from_the_request() -> None:
    """The next epoch is due one interval after the last was asked for, at once if that one took longer."""
    line = Line()
    line.due()
    began = line.now
    assert line.epochs.deadline() is None
    line.now += 0.5
    line.commit(1)
    assert line.epochs.deadline() == began + INTERVAL
    line.due()
    line.now += 9.0
    line.commit(2)
    assert line.epochs.deadline() == line.now


def test_a_new_pipeline_commits_where_it_begins() -> None:
    """The first generation of all asks for an epoch at once, records or not; one that starts from an epoch does not."""
    new = Line(committed=None)
    assert new.epochs.step is Step.ALIGNING
    new.commit(1)
    assert new.epochs.committed == 1
    new.epochs.down()
    assert new.go() == []


def test_deaths_more_often_than_the_interval_do_not_keep_epochs_from_being_made() -> None:
    """Each generation that is over without an epoch halves the time until the next one asks for one; a commit ends
    that, and so does quiet, by doubling."""
    line = Line()
    waits = []
    for _ in range(4):
        line.epochs.down()
        line.go()
        due = line.epochs.deadline()
        assert due is not None
        waits.append(due - line.now)
    assert waits == [INTERVAL / 2, INTERVAL / 4, INTERVAL / 8, INTERVAL / 16]
    line.quiet()
    assert line.epochs.deadline() == line.now + INTERVAL / 8
    line.due()
    line.commit(1)
    line.epochs.down()
    line.go()
    assert line.epochs.deadline() == line.now + INTERVAL


def test_early_tick_asks_for_nothing() -> None:
    """A tick that another deadline has caused makes no epoch."""
    line = Line()
    assert line.epochs.tick(line.now + INTERVAL - 0.01, 5) == []


def test_no_epoch_without_new_records() -> None:
    """Nothing given in this generation, or since the last barrier: no epoch, and the next look one interval on."""
    line = Line(committed=4, highest=4)
    assert line.quiet() == []
    line.due()
    line.commit(5)
    assert line.quiet() == []
    assert line.epochs.deadline() == line.now + INTERVAL
    assert barriers(line.due()) == asked(6)


@pytest.mark.parametrize("step", [Step.ALIGNING, Step.WRITING, Step.COMMITTING])
def test_one_epoch_at_a_time(step: Step) -> None:
    """Whatever asks for an epoch while one is in flight gets it behind that one, in one."""
    line = Line()
    line.due()
    if step is not Step.ALIGNING:
        line.snapshots(1)
    if step is Step.COMMITTING:
        line.written(1)
    assert line.epochs.step is step
    assert line.epochs.tick(line.now + 60.0, 99) == []
    assert line.epochs.hold(line.now) == []
    assert [line.ended(source) for source in SOURCES] == [[], []]
    if step is Step.ALIGNING:
        line.snapshots(1)
    if step is not Step.COMMITTING:
        line.written(1)
    line.confirm("table", 1)
    news, *following = line.confirm("file", 1)
    assert told([news]) == [(1, 1, False)]
    assert barriers(following) == asked(2, hold=True)


# hold and end


def test_hold_is_asked_for_at_once() -> None:
    """Without an epoch in flight a hold begins one, new records or not; the sources hold when it is committed."""
    line = Line()
    assert barriers(line.epochs.hold(line.now)) == asked(1, hold=True)
    assert not line.epochs.held
    assert told(line.commit(1)) == [(1, 1, True)]
    assert line.epochs.held
    assert not line.epochs.finished


def test_hold_ends_with_its_generation() -> None:
    """A stage that dies while we hold undoes the hold: the next generation's epochs are ordinary ones."""
    line = Line()
    line.epochs.hold(line.now)
    line.epochs.down()
    line.go()
    assert barriers(line.due()) == asked(2, hold=False)


def test_the_last_source_to_end_asks_for_the_final_epoch() -> None:
    """One ended source of two changes nothing; when the second has ended a final epoch is made at once. The stream has
    finished when its last sink has confirmed that."""
    line = Line()
    assert line.ended("north") == line.ended("north") == []
    assert barriers(line.due()) == asked(1)
    assert [c.finished for c in line.snapshots(1) if isinstance(c, WriteManifest)] == [False]
    line.written(1)
    for sink in SINKS:
        line.confirm(sink, 1)
    assert barriers(line.ended("south")) == asked(2)
    assert [c.finished for c in line.snapshots(2) if isinstance(c, WriteManifest)] == [True]
    line.written(2)
    line.confirm("table", 2)
    assert not line.epochs.finished
    assert told(line.confirm("file", 2)) == [(1, 2, True)]
    assert line.epochs.finished
    assert line.due() == []  # whatever came between the last epoch by the clock and the end is in the final one


def test_ends_during_an_epoch_are_committed_behind_it() -> None:
    """An epoch that was asked for before the last source ended is not the final one; that follows at once."""
    line = Line()
    line.due()
    for source in SOURCES:
        line.ended(source)
    assert [c.finished for c in line.snapshots(1) if isinstance(c, WriteManifest)] == [False]
    line.written(1)
    line.confirm("table", 1)
    assert barriers(line.confirm("file", 1)) == asked(2)
    assert [c.finished for c in line.snapshots(2) if isinstance(c, WriteManifest)] == [True]


def test_ends_belong_to_a_generation() -> None:
    """After a restore every source says again that it has ended; what it said before does not count."""
    line = Line()
    line.ended("north")
    line.epochs.down()
    line.go()
    assert line.ended("south") == []
    assert barriers(line.ended("north")) == asked(1)


def test_a_finished_stream_makes_no_epoch() -> None:
    """Who restores the final epoch has nothing to commit, and nothing comes with time either."""
    line = Line(committed=7, highest=7, finished=True)
    assert [line.ended(source) for source in SOURCES] == [[], []]
    assert [line.quiet() for _ in range(3)] == [[], [], []]


def test_a_continued_stream_is_committed_again() -> None:
    """When a finished stream gives more before it ends again, another final epoch is made."""
    line = Line(committed=7, highest=7, finished=True)
    line.ended("north", records=5)
    assert not line.epochs.finished
    assert barriers(line.ended("south")) == asked(8)


# failure


def test_abort_backs_off_and_burns_the_number() -> None:
    """Attempts come later and later up to a limit, each with a number of its own, until one is committed."""
    line = Line()
    line.due()
    waits = []
    for epoch in range(1, 8):
        assert line.no_space(epoch)[0] == Aborted(epoch, "no space")
        assert line.epochs.failure == "no space"
        failed_at = line.now
        assert barriers(line.quiet()) == asked(epoch + 1)  # without a new record: the last ones are not committed
        waits.append(line.now - failed_at)
    first, most = ABORT_BACKOFF_FIRST_S, ABORT_BACKOFF_MAX_S
    assert waits == [first, 2 * first, 4 * first, 8 * first, 16 * first, most, most]
    line.commit(8)
    assert line.epochs.failure is None
    line.due()
    line.no_space(9)
    assert line.epochs.deadline() == line.now + first


def test_manifest_that_cannot_be_written_aborts() -> None:
    """A failed manifest commits nothing; its epoch is aborted like one whose snapshot failed."""
    line = Line(committed=3, highest=3)
    line.due()
    line.snapshots(4)
    assert line.epochs.manifest_failed(1, 4, "EIO", line.now)[0] == Aborted(4, "EIO")
    assert line.epochs.committed == 3
    assert barriers(line.quiet()) == asked(5)


def test_aborted_hold_is_tried_again() -> None:
    """A drain that meets a full disk goes on trying to hold."""
    line = Line()
    line.epochs.hold(line.now)
    line.no_space(1)
    assert barriers(line.quiet()) == asked(2, hold=True)


def test_aborted_end_is_tried_again() -> None:
    """The final epoch that could not be written is made later."""
    line = Line()
    for source in SOURCES:
        line.ended(source)
    line.no_space(1)
    assert barriers(line.quiet()) == asked(2)
    assert [c.finished for c in line.snapshots(2) if isinstance(c, WriteManifest)] == [True]


def test_snapshot_cannot_be_taken_back() -> None:
    """When all snapshots are there, a stage that says now that its own failed does not stop the manifest."""
    line = Line()
    line.due()
    line.snapshots(1)
    assert line.no_space(1) == []
    assert len(line.written(1)) == len(SINKS)


def test_sources_pause_until_an_epoch_is_committed_again() -> None:
    """After an abort the sources give nothing: told once, however many attempts fail, and let go by the next commit."""
    line = Line()
    line.due()
    assert line.no_space(1)[1:] == [AskPause("north", 1), AskPause("south", 1)]
    assert line.epochs.step is Step.PAUSED
    line.quiet()
    assert line.no_space(2)[1:] == []
    line.quiet()
    assert line.commit(3)[1:] == [AskResume("north", 1), AskResume("south", 1)]


# hold and go on


def test_hold_with_an_epoch_ahead() -> None:
    """An ordinary epoch goes first, the one with which the sources stand still right behind it."""
    line = Line()
    assert barriers(line.epochs.hold(line.now, ahead=True)) == asked(1)
    assert barriers(line.commit(1)) == asked(2, hold=True)
    line.commit(2)
    assert line.epochs.held


def test_release_lets_the_sources_go_on() -> None:
    """Who holds is told to go on; the next epoch comes with time."""
    line = Line()
    line.epochs.hold(line.now)
    line.commit(1)
    assert line.epochs.release(line.now) == [AskResume("north", 1), AskResume("south", 1)]
    assert not line.epochs.held
    assert line.epochs.release(line.now) == []
    assert barriers(line.due()) == asked(2)


def test_release_on_the_way_to_a_hold() -> None:
    """A hold that nobody wants any more ends with its epoch: the sources, which stand already, are let go."""
    line = Line()
    line.epochs.hold(line.now)
    assert line.epochs.release(line.now) == []
    assert line.commit(1)[1:] == [AskResume("north", 1), AskResume("south", 1)]
    assert line.epochs.step is Step.IDLE


def test_demand_names_the_epoch() -> None:
    """A demanded epoch is asked for at once, or right behind the one in flight, with nothing new as well."""
    line = Line()
    number, commands = line.epochs.demand(line.now)
    assert (number, barriers(commands)) == (1, asked(1))
    assert line.epochs.demand(line.now) == (2, [])
    assert barriers(line.commit(1)) == asked(2)
    line.commit(2)
    assert line.epochs.told == 2


def test_demand_outlives_its_generation() -> None:
    """An epoch that was demanded and went with its generation is made by the next one, though nothing new was given."""
    line = Line()
    wanted, _ = line.epochs.demand(line.now)
    line.epochs.down()
    line.go()
    assert line.quiet() == [AskBarrier(source, 2, wanted + 1, hold=False) for source in SOURCES]
    line.commit(wanted + 1)
    assert line.quiet() == []


def test_demand_while_held_is_met() -> None:
    """While the sources hold, the last epoch has everything."""
    line = Line()
    line.epochs.hold(line.now)
    line.commit(1)
    assert line.epochs.demand(line.now) == (1, [])


# changes

CHANGE = {"kind": "replay", "stage": "join"}


def test_change_is_recorded_with_a_hold() -> None:
    """A change is in no ordinary epoch; the one behind which the sources hold carries it, a generation applies it."""
    line = Line()
    line.due()
    line.epochs.propose(CHANGE)
    assert [c.changes for c in line.snapshots(1) if isinstance(c, WriteManifest)] == [()]
    line.written(1)
    line.epochs.hold(line.now)
    line.confirm("table", 1)
    line.confirm("file", 1)
    assert [c.changes for c in line.snapshots(2) if isinstance(c, WriteManifest)] == [(CHANGE,)]
    assert line.epochs.proposed == (CHANGE,)
    line.written(2)
    assert line.epochs.proposed == ()
    assert line.epochs.unapplied
    line.epochs.down()
    assert line.epochs.changes == (CHANGE,)
    line.go()
    assert not line.epochs.unapplied


def test_what_a_change_did_is_worth_an_epoch() -> None:
    """After a change has been applied an epoch is made although no record comes; it carries no change."""
    line = Line()
    line.epochs.propose(CHANGE)
    line.epochs.hold(line.now)
    line.commit(1)
    line.epochs.down()
    line.go()
    assert barriers(line.quiet()) == asked(2)
    assert [c.changes for c in line.snapshots(2) if isinstance(c, WriteManifest)] == [()]
    line.written(2)
    assert line.epochs.changes == ()


def test_change_in_a_finished_stream() -> None:
    """A finished stream makes one more epoch for a change and another for what it did; only then it is finished."""
    line = Line(committed=7, highest=7, finished=True)
    for source in SOURCES:
        line.ended(source)
    assert line.epochs.finished
    line.epochs.propose(CHANGE)
    assert barriers(line.epochs.hold(line.now, ahead=True)) == asked(8, hold=True)
    line.commit(8)
    assert not line.epochs.finished
    line.epochs.down()
    line.go()
    assert line.ended("north") == []
    assert barriers(line.ended("south")) == asked(9)
    line.commit(9)
    assert line.epochs.finished


def test_change_that_a_death_interrupts_stays_wanted() -> None:
    """If its epoch is burned, the change is recorded by a later one."""
    line = Line()
    line.epochs.propose(CHANGE)
    line.epochs.hold(line.now)
    line.epochs.down()
    line.go()
    assert line.epochs.proposed == (CHANGE,)
    line.epochs.hold(line.now)
    assert [c.changes for c in line.snapshots(2) if isinstance(c, WriteManifest)] == [(CHANGE,)]


def test_diagram_in_the_docs_is_the_table() -> None:
    """The diagram in docs/specs/epochs.md is drawn from the table."""
    assert mermaid() in (Path(__file__).resolve().parents[2] / "docs" / "specs" / "epochs.md").read_text()


# what is not current

Answer = Callable[[Coordinator, int, int], list[EpochCommand]]
ANSWERS: dict[str, Answer] = {
    "snapshot": lambda c, generation, epoch: c.snapshot_done(part("table", epoch), generation, epoch, 200.0),
    "snapshot failed": lambda c, generation, epoch: c.snapshot_failed(generation, epoch, "late", 200.0),
    "manifest failed": lambda c, generation, epoch: c.manifest_failed(generation, epoch, "late", 200.0),
    "sink": lambda c, generation, epoch: c.commit_done("file", generation, epoch, 200.0),
}
ONE_SHORT: dict[str, Callable[[Line], None]] = {
    # the place at which the answer would count
    "snapshot": lambda line: [line.snapshot(s, 2) for s in STAGES if s != "table"].clear(),
    "snapshot failed": lambda line: None,
    "manifest failed": lambda line: line.snapshots(2).clear(),
    "sink": lambda line: [line.snapshots(2), line.written(2), line.confirm("table", 2)].clear(),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(("generation", "epoch"), [(1, 2), (2, 1), (1, 1), (3, 2), (2, 3)])
def test_stale_answers_are_dropped(kind: str, generation: int, epoch: int) -> None:
    """An answer of another generation or about another epoch changes nothing, where the current one counts."""
    line = Line()
    line.due()
    line.epochs.down()
    line.go()
    line.due()
    ONE_SHORT[kind](line)
    step = line.epochs.step
    assert ANSWERS[kind](line.epochs, generation, epoch) == []
    assert line.epochs.step is step
    assert ANSWERS[kind](line.epochs, 2, 2) != []


def test_answers_at_the_wrong_step_are_dropped() -> None:
    """A sink that confirms what was not asked, and a source that ended before go, change nothing."""
    line = Line()
    line.due()
    assert [line.confirm(sink, 1) for sink in SINKS] == [[], []]
    assert line.epochs.committed == 0
    line.epochs.down()
    assert [line.ended(source) for source in SOURCES] == [[], []]
    assert line.epochs.step is Step.DOWN


# the end of a generation


@pytest.mark.parametrize("snapshots", [0, 3])
def test_down_forgets_what_is_in_flight(snapshots: int) -> None:
    """An epoch whose generation ends before its manifest is burned; no later answer brings it back."""
    line = Line(committed=3, highest=3)
    line.due()
    for stage in STAGES[:snapshots]:
        line.snapshot(stage, 4)
    line.epochs.down()
    assert not line.epochs.writing
    assert line.epochs.deadline() is None
    assert line.snapshots(4) == []
    line.go()
    assert line.snapshots(4) == []
    assert line.epochs.committed == 3
    assert barriers(line.due()) == asked(5)


def test_down_while_the_manifest_is_written_waits_for_it() -> None:
    """The manifest of a generation that is over still commits: known when it is there, no sink is asked."""
    line = Line(committed=3, highest=3)
    line.due()
    line.snapshots(4)
    line.epochs.down()
    assert line.epochs.writing
    assert line.epochs.committed == 3
    assert line.written(4) == []
    assert not line.epochs.writing
    assert line.epochs.committed == 4
    line.go()
    assert barriers(line.due()) == asked(5)


def test_down_twice_still_waits_for_the_manifest() -> None:
    """A second death while the manifest is on its way does not forget it."""
    line = Line()
    line.due()
    line.snapshots(1)
    line.epochs.down()
    line.epochs.down()
    assert line.epochs.writing
    line.written(1)
    assert line.epochs.committed == 1


def test_manifest_of_the_past_that_fails_is_over() -> None:
    """If it cannot be written the epoch before stays the one to restore; a snapshot's failure says nothing of it."""
    line = Line(committed=3, highest=3)
    line.due()
    line.snapshots(4)
    line.epochs.down()
    assert line.no_space(4) == []
    assert line.epochs.writing
    assert line.epochs.manifest_failed(1, 4, "EIO", line.now) == []
    assert not line.epochs.writing
    assert line.epochs.committed == 3


def test_final_manifest_of_the_past_finishes() -> None:
    """A final epoch whose generation ends while its manifest is written is the final one all the same."""
    line = Line()
    for source in SOURCES:
        line.ended(source)
    line.snapshots(1)
    line.epochs.down()
    line.written(1)
    assert line.epochs.finished
    line.go()
    assert [line.ended(source) for source in SOURCES] == [[], []]


def test_down_while_committing_keeps_the_commit() -> None:
    """The rename is the commit: a death before the last sink's answer does not take it back."""
    line = Line()
    line.due()
    line.snapshots(1)
    line.written(1)
    line.epochs.down()
    assert [line.confirm(sink, 1) for sink in SINKS] == [[], []]
    assert line.epochs.committed == 1


def test_numbers_go_on_from_the_largest_ever_seen() -> None:
    """An epoch that was begun before the restart and not committed leaves its number unused."""
    assert barriers(Line(committed=3, highest=9).due()) == asked(10)


# schedules by chance


@pytest.mark.parametrize("seed", range(200))
def test_random_schedules_keep_the_protocol(seed: int) -> None:
    """In whatever order answers come, repeat themselves and fail, and whenever a generation ends: every rule of
    `Rules` holds, and a world that calms down has its stream finished."""
    world = World(seed)
    for _ in range(150):
        world.step()
    world.settle()
    assert world.line.epochs.finished
    assert world.rules.flight is None


def test_random_schedules_go_everywhere() -> None:
    """The schedules reach every command, and manifests that outlive their generation both written and failed."""
    seen: set[str] = set()
    for seed in range(40):
        world = World(seed)
        for _ in range(150):
            world.step()
        seen |= world.seen
    assert seen >= {kind.__name__ for kind in (AskBarrier, WriteManifest, AskCommit, TellCommitted, Aborted)}
    assert seen >= {"outlived and written", "outlived and failed"}


class Rules:
    """Watches what goes in and what comes out, and knows nothing of the coordinator's inside."""

    def __init__(self) -> None:
        self.flight: int | None = None
        self.highest = 0
        self.durable: set[tuple[int, int, str]] = set()
        self.manifests: set[tuple[int, int]] = set()
        self.confirmed: set[tuple[int, int, str]] = set()
        self.committed = 0

    def over(self) -> None:
        """The generation is over, and with it what is in flight."""
        self.flight = None

    def came(self, answer: tuple[Any, ...]) -> None:
        match answer:
            case ("snapshot", generation, epoch, stage):
                self.durable.add((generation, epoch, stage))
            case ("written", generation, epoch):
                self.manifests.add((generation, epoch))
            case ("confirmed", generation, epoch, sink):
                self.confirmed.add((generation, epoch, sink))

    def check(self, commands: list[EpochCommand], committed: int | None) -> None:
        self._check_barriers(commands)
        for command in commands:
            match command:
                case WriteManifest(generation, epoch, parts):
                    assert [p.stage for p in parts] == list(STAGES)
                    assert {(generation, epoch, stage) for stage in STAGES} <= self.durable
                case AskCommit(_, generation, epoch):
                    assert (generation, epoch) in self.manifests
                    assert epoch == self.flight
                case TellCommitted(generation, epoch):
                    assert {(generation, epoch, sink) for sink in SINKS} <= self.confirmed
        if committed is not None and committed != self.committed:
            assert committed > self.committed
            assert committed in {epoch for _, epoch in self.manifests}
            self.committed = committed

    def _check_barriers(self, commands: list[EpochCommand]) -> None:
        """At most one epoch is in flight, its number is larger than any before, every source is asked."""
        sources: list[str] = []
        for command in commands:
            if isinstance(command, TellCommitted | Aborted):
                assert command.epoch == self.flight
                self.flight = None
            elif isinstance(command, AskBarrier):
                if not sources:
                    assert self.flight is None
                    assert command.epoch > self.highest
                    self.flight = self.highest = command.epoch
                assert command.epoch == self.flight
                sources.append(command.stage)
        assert sources in ([], list(SOURCES))


class World:
    """Performs commands late and in any order, lets writes fail and generations end."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.line = Line()
        self.rules = Rules()
        self.answers: list[tuple[Any, ...]] = []
        self.seen: set[str] = set()
        self.trouble = True

    def step(self) -> None:
        choice = self.rng.random()
        if choice < 0.06:
            self._reset()
        elif choice < 0.09:
            self._take(self.line.ended(self.rng.choice(SOURCES)))
        elif choice < 0.11:
            self._take(self.line.epochs.hold(self.line.now))
        elif choice < 0.3:
            self._tick()
        elif self.answers:
            self._deliver(self.rng.randrange(len(self.answers)))

    def settle(self) -> None:
        """Nothing fails any more, and every source has ended."""
        self.trouble = False
        while self.answers:
            self._deliver(0)
        self._reset()
        for source in SOURCES:
            self._take(self.line.ended(source))
        while self.answers:
            self._deliver(0)
            if not self.answers and self.rules.flight is None and not self.line.epochs.finished:
                self._tick()

    def _reset(self) -> None:
        """A generation ends; the next one goes when no manifest is on its way, as core/generations.py has it."""
        self.line.epochs.down()
        self.rules.over()
        if not self.line.epochs.writing:
            self._take(self.line.go())

    def _tick(self) -> None:
        self.line.now += self.rng.choice([0.1, INTERVAL])
        self.line.emitted += self.rng.randint(0, 1)
        self._take(self.line.epochs.tick(self.line.now, self.line.emitted))

    def _deliver(self, index: int) -> None:
        answer = self.answers[index]
        once = answer[0] in ("written", "not written")
        if once or not self.trouble or self.rng.random() < 0.8:
            del self.answers[index]  # else it comes again later
        outlived = self.line.epochs.writing
        self.rules.came(answer)
        self._take(self._say(answer))
        if once and outlived:
            self.seen.add("outlived and written" if answer[0] == "written" else "outlived and failed")
            self._take(self.line.go())

    def _say(self, answer: tuple[Any, ...]) -> list[EpochCommand]:
        epochs, now = self.line.epochs, self.line.now
        match answer:
            case ("snapshot", generation, epoch, stage):
                return epochs.snapshot_done(part(stage, epoch), generation, epoch, now)
            case ("no snapshot", generation, epoch):
                return epochs.snapshot_failed(generation, epoch, "no space", now)
            case ("written", generation, epoch):
                return epochs.manifest_written(generation, epoch, now)
            case ("not written", generation, epoch):
                return epochs.manifest_failed(generation, epoch, "EIO", now)
            case (_, generation, epoch, sink):
                return epochs.commit_done(sink, generation, epoch, now)
        raise AssertionError(answer)

    def _take(self, commands: list[EpochCommand]) -> None:
        self.rules.check(commands, self.line.epochs.committed)
        for command in commands:
            self.seen.add(type(command).__name__)
            match command:
                case AskBarrier(stage, generation, epoch, _) if stage == SOURCES[0]:
                    self.answers += [("snapshot", generation, epoch, name) for name in STAGES]
                    if self._fails():
                        self.answers.append(("no snapshot", generation, epoch))
                case WriteManifest(generation, epoch):
                    self.answers.append(("not written" if self._fails() else "written", generation, epoch))
                case AskCommit(sink, generation, epoch):
                    self.answers.append(("confirmed", generation, epoch, sink))

    def _fails(self) -> bool:
        return self.trouble and self.rng.random() < 0.2
