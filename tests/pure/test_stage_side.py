"""A stage's side of the protocol: transcripts of a source, a join and a sink, each driven by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from streampiped.core import stage_side
from streampiped.core.stage_side import (
    TABLE,
    Apply,
    Command,
    Commit,
    Drop,
    EmitBarrier,
    EmitEnd,
    Hear,
    Input,
    Report,
    Restore,
    Save,
    SayCommitDone,
    SayEnded,
    SayImpaired,
    SayJudged,
    SayReady,
    Snapshot,
    StageSide,
    State,
    mermaid,
)
from streampiped.core.tables import ImpossibleInputError

DOCS = Path(__file__).resolve().parents[2] / "docs"
CHANGE = {"kind": "replay", "stage": "join", "letters": [[1, 1]]}


class Play:
    """A stage with `inputs`, in generation 1 after go, from the state of a new pipeline."""

    def __init__(self, *inputs: str, sink: bool = False) -> None:
        self.side = StageSide(holds_back=sink)
        self.inputs = inputs
        self.generation = 0
        assert self.next_generation(None) == []

    def reset(self, epoch: int | None, changes: tuple[dict[str, object], ...] = ()) -> list[Command]:
        """The next reset; its snapshot is named for the epoch."""
        self.generation += 1
        name = f"e{epoch}" if epoch is not None else None
        return self.side.reset(self.generation, epoch, name, self.inputs, changes)

    def next_generation(self, epoch: int | None, changes: tuple[dict[str, object], ...] = ()) -> list[Command]:
        """Reset, restored, go; what go leads to."""
        self.reset(epoch, changes)
        assert self.side.restored() == [SayReady(self.generation)]
        return self.side.go(self.generation)

    def barrier(self, name: str, epoch: int) -> list[Command]:
        return self.side.barrier(next(i for i in self.side.inlets if i.name == name), epoch)

    def ask(self, epoch: int, hold: bool = False) -> list[Command]:
        return self.side.asked(self.generation, epoch, hold)

    def cut(self, epoch: int) -> list[Command]:
        """What must come at a barrier."""
        return [Snapshot(epoch), EmitBarrier(epoch), Save(self.generation, epoch)]

    def waiting(self) -> list[str]:
        return [inlet.name for inlet in self.side.inlets if inlet.waits]


def source() -> Play:
    return Play()


def join() -> Play:
    return Play("left", "right")


def sink() -> Play:
    return Play("join", sink=True)


# generations


def test_reset_drops_then_restores_then_is_ready() -> None:
    """A reset closes the links, restores, and says ready; nothing flows before go."""
    play = Play("in")
    assert play.reset(3) == [Drop(), Restore(2, 3, "e3", keep=False)]
    assert play.side.restored() == [SayReady(2)]
    assert not play.side.flows
    assert play.side.go(2) == [Hear(3)]
    assert play.side.flows


def test_reset_waits_for_a_save_that_is_under_way() -> None:
    """A rollback never races with the prepare before it: the restore comes when the last save is over, and that save
    is no news any more."""
    play = sink()
    play.barrier("join", 1)
    assert play.reset(None) == [Drop()]
    assert play.side.state is State.SETTLING
    assert play.side.saved(1) == [Restore(2, None, None, keep=False)]


def test_reset_waits_for_every_save() -> None:
    """Two epochs can be on their way to the disk, when the first was aborted: both are waited for."""
    play = source()
    play.ask(1)
    play.ask(2)
    play.reset(None)
    assert play.side.saved(1) == []
    assert play.side.saved(1) == [Restore(2, None, None, keep=False)]


def test_newer_reset_takes_the_place_of_the_older() -> None:
    """While a save is waited for another reset comes: only the newer one is done, and go for the older is dropped."""
    play = source()
    play.ask(1)
    play.reset(None)
    assert play.reset(1) == [Drop()]
    assert play.side.saved(1) == [Restore(3, 1, "e1", keep=True)]
    assert play.side.restored() == [SayReady(3)]
    assert play.side.go(2) == []
    assert not play.side.flows


def test_prepare_that_failed_is_no_hindrance_to_the_reset() -> None:
    """What a reset takes back anyway may have failed to be made durable."""
    play = sink()
    play.barrier("join", 1)
    play.reset(None)
    assert play.side.unprepared("no space") == [Restore(2, None, None, keep=False)]


@pytest.mark.parametrize("moved", [False, True])
def test_state_of_the_epoch_is_kept_if_nothing_happened_since(moved: bool) -> None:
    """A stage that was cut for an epoch and has taken nothing since is that epoch's state already."""
    play = source()
    play.side.moved = True
    play.ask(4, hold=True)
    play.side.moved = moved
    play.reset(4)
    assert play.side.saved(1) == [Restore(2, 4, "e4", keep=not moved)]


def test_state_of_another_epoch_is_not_kept() -> None:
    """Who was cut for a later epoch, one that was never committed, restores."""
    play = source()
    play.ask(5)
    play.side.saved(1)
    assert play.reset(4)[-1] == Restore(2, 4, "e4", keep=False)


def test_restored_state_is_kept_by_the_next_reset() -> None:
    """Resets that follow one another restore once, if nothing was taken between them; one that was broken off by the
    disk counts for nothing."""
    play = Play("in")
    play.next_generation(7)
    assert play.reset(7)[-1] == Restore(3, 7, "e7", keep=True)
    assert play.side.refused("no space") == [SayImpaired(3, "no space")]
    assert play.reset(7)[-1] == Restore(4, 7, "e7", keep=False)


def test_changes_come_before_any_input() -> None:
    """What the restored epoch asks for is applied between go and the flow, at every restore of that epoch."""
    play = join()
    for _ in range(2):
        assert play.next_generation(2, (CHANGE,)) == [Hear(2), Apply((CHANGE,))]
        assert play.side.state is State.APPLYING
        assert play.side.applied() == []
        assert play.side.state is State.FLOWING


# epochs


def test_source_answers_a_barrier_where_it_stands() -> None:
    """A source that is asked is cut at once, and goes on."""
    play = source()
    assert play.ask(1) == play.cut(1)
    assert play.side.flows
    assert play.side.saved(1) == [Report()]


def test_aligned_input_waits_for_the_others() -> None:
    """An input that has the barrier is not read further until all have it; then the stage is cut once."""
    play = join()
    assert play.barrier("right", 1) == []
    assert play.waiting() == ["right"]
    assert play.side.flows
    assert play.barrier("left", 1) == play.cut(1)
    assert play.waiting() == []


def test_transform_goes_on_while_it_saves() -> None:
    """Making a snapshot durable does not hold up the records behind it."""
    play = Play("in")
    play.barrier("in", 1)
    assert play.side.flows


def test_sink_takes_nothing_until_it_has_prepared() -> None:
    """Records behind the barrier must not enter the transaction that is being made durable."""
    play = sink()
    play.barrier("join", 1)
    assert not play.side.flows
    assert play.side.saved(1) == [Report()]
    assert play.side.flows


def test_two_barriers_at_once_are_a_wrong_program() -> None:
    """Inputs can never have the barriers of two epochs: every source answers every barrier, in order."""
    play = join()
    play.barrier("left", 1)
    with pytest.raises(ImpossibleInputError, match="barrier 2 on right while others have 1"):
        play.barrier("right", 2)


def test_sink_commits_and_says_so() -> None:
    """Commit makes visible, then answers; the news for all is heard by the stage."""
    play = sink()
    play.barrier("join", 1)
    play.side.saved(1)
    assert play.side.commit(1, 1) == [Commit(1), SayCommitDone(1, 1)]
    assert play.side.committed(1, 1) == [Hear(1)]


def test_commit_before_the_prepare_is_a_wrong_program() -> None:
    """No commit can come while its epoch is not durable."""
    play = sink()
    play.barrier("join", 1)
    with pytest.raises(ImpossibleInputError):
        play.side.commit(1, 1)


# holding, and the end of the stream


@pytest.mark.parametrize("how", ["pause", "barrier with hold"])
def test_holding_source_answers_barriers_and_gives_nothing(how: str) -> None:
    """A source that was paused, or asked for a barrier with hold, gives nothing until it is resumed, but barriers."""
    play = source()
    assert play.side.pause(1) == [] if how == "pause" else play.ask(1, hold=True) == play.cut(1)
    assert not play.side.flows
    assert play.ask(2) == play.cut(2)
    assert play.side.pause(1) == []
    assert not play.side.flows
    play.side.resume(1)
    assert play.side.flows


def test_ended_source_answers_barriers() -> None:
    """A source at its end says so once, reads nothing more, and is cut like others; pause and resume change nothing."""
    play = source()
    assert play.side.ended() == [EmitEnd(), SayEnded(1)]
    assert play.ask(1, hold=True) == play.cut(1)
    play.side.pause(1)
    play.side.resume(1)
    assert play.side.state is State.ENDED
    assert not play.side.flows


def test_end_goes_on_when_every_input_has_ended() -> None:
    """A join says end once, when nothing can come from any side; inputs that have ended still carry barriers."""
    play = join()
    left, right = play.side.inlets
    assert play.side.end(right) == []
    assert play.barrier("right", 1) == []
    assert play.barrier("left", 1) == play.cut(1)
    assert play.side.end(left) == [EmitEnd()]
    play.barrier("left", 2)
    assert play.barrier("right", 2) == play.cut(2)


# what the world does


@pytest.mark.parametrize("when", ["flowing", "aligning", "preparing", "applying", "restoring"])
def test_refused_stage_stands_still_until_the_next_reset(when: str) -> None:
    """A disk that refuses kills nobody: the stage says so, hears nothing of its generation any more, and the next
    reset restores."""
    play = Play("in", "other", sink=True)
    match when:
        case "aligning":
            play.barrier("in", 1)
        case "preparing":
            play.barrier("in", 1)
            play.barrier("other", 1)
        case "applying":
            play.next_generation(0, (CHANGE,))
        case "restoring":
            play.reset(0)
    refused = play.side.unprepared if when == "preparing" else play.side.refused
    assert refused("no space") == [SayImpaired(play.generation, "no space")]
    assert not play.side.flows
    for said in (play.side.commit(play.generation, 1), play.side.committed(play.generation, 1)):
        assert said == []
    assert play.reset(1)[-1] == Restore(play.generation, 1, "e1", keep=False)


def test_save_that_ends_after_the_refusal_is_still_told() -> None:
    """A snapshot that became durable is a fact, whatever the stage has met since; a prepare that failed as well is
    none."""
    play = Play("in")
    play.barrier("in", 1)
    play.side.refused("no space")
    assert play.side.saved(1) == [Report()]
    play = Play("in")
    play.barrier("in", 1)
    play.side.refused("no space")
    assert play.side.unprepared("no space") == []


@pytest.mark.parametrize("guilty", [0, 2])
def test_judged_stage_goes_on_only_if_nobody_is_guilty(guilty: int) -> None:
    """An innocent batch is processed; with guilty rows the stage waits for the reset that skips them."""
    play = Play("in")
    assert play.side.judged(guilty) == [SayJudged(1, guilty)]
    assert play.side.flows is (guilty == 0)
    play.reset(None)


STALE: dict[str, Callable[[StageSide, int], list[Command]]] = {
    "go": lambda side, g: side.go(g),
    "barrier": lambda side, g: side.asked(g, 9, True),
    "pause": lambda side, g: side.pause(g),
    "resume": lambda side, g: side.resume(g),
    "commit": lambda side, g: side.commit(g, 9),
    "committed": lambda side, g: side.committed(g, 9),
}


@pytest.mark.parametrize("say", STALE.values(), ids=STALE)
@pytest.mark.parametrize("other", [1, 3])
def test_other_generations_are_dropped(say: Callable[[StageSide, int], list[Command]], other: int) -> None:
    """Whatever is of another generation changes nothing."""
    play = source()
    play.reset(None)
    play.side.restored()
    assert say(play.side, other) == []
    assert play.side.state is State.READY
    play.side.go(2)
    assert say(play.side, other) == []
    assert play.side.state is State.FLOWING


# the table


def test_every_state_can_be_reached_and_left_by_a_reset() -> None:
    """No state of the table is dead code, every input does something, and a reset may come at any time."""
    assert {State.LOADED, *TABLE.rows.values()} == set(State)
    assert {event for _, event in TABLE.rows} == set(Input)
    assert all((state, Input.RESET) in TABLE.rows for state in State)


def test_diagram_in_the_docs_is_the_table() -> None:
    """The diagram in docs/specs/epochs.md is drawn from the table."""
    assert mermaid() in (DOCS / "specs" / "epochs.md").read_text()


def test_the_machine_knows_no_clock_and_no_disk() -> None:
    """It decides in values: nothing but the tables is imported from our own code."""
    imports = [line for line in inspect.getsource(stage_side).splitlines() if "streampiped" in line]
    assert imports == ["from streampiped.core.tables import ImpossibleInputError, Table"]
