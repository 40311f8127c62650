"""Transcripts of what keeps a restart, a change, a full disk and a poisonous record from costing anything."""

from __future__ import annotations

import pytest

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import AskBarrier, AskResume, WriteManifest
from streampiped.core.generations import IMPAIRED_BACKOFF_FIRST_S, IMPAIRED_BACKOFF_MAX_S
from streampiped.core.lifecycle import State
from streampiped.core.poison import Poison
from support.transcript import CHAIN, Play

CHANGE = {"kind": "replay", "stage": "middle"}
ROWS = (("", "source", 100, 10),)


def loaded_successor(play: Play, *, force: bool = False) -> int:
    """A restart of `middle` is under way, and its successor has loaded; its incarnation."""
    play.say(p.Operate(1, "restart", ("middle",), 30.0, force))
    number: int = play.of(p.Fork)[0].incarnation
    play.born("middle", number)
    return number


# the held epoch


def test_slow_barrier_is_waited_for() -> None:
    """A restart whose barrier takes an hour is answered with 8 in time, kills nobody, and comes about in the end."""
    play = Play().up()
    number = loaded_successor(play)
    play.wait(3600.0)
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(1, 8)]
    assert not [c for c in play.history if isinstance(c, p.Kill)]
    play.hold()
    play.died("middle")
    play.all_ready()
    assert play.incarnation("middle") == number
    assert play.machine.running


def test_forced_restart_waits_for_no_barrier() -> None:
    """With force the old process leaves as soon as its successor has loaded; all go back to the last epoch."""
    play = Play().up()
    loaded_successor(play, force=True)
    assert [a.name for a in play.of(p.AskLeave)] == ["middle"]
    play.died("middle")
    assert {r.epoch for r in play.of(p.SendReset)} == {0}


@pytest.mark.parametrize("late", [False, True])
def test_force_hurries_a_restart_under_way(late: bool) -> None:
    """A second, forced restart of a stage that waits for a barrier ends the wait, also when the first one has not timed
    out; the stage is restarted once, and both are answered."""
    play = Play().up()
    number = loaded_successor(play)
    assert not play.of(p.AskLeave)
    play.wait(31.0 if late else 1.0)
    play.say(p.Operate(2, "restart", ("middle",), 30.0, force=True))
    assert [a.name for a in play.of(p.AskLeave)] == ["middle"]
    play.died("middle")
    play.all_ready()
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(1, 0), (2, 0)]
    assert play.incarnation("middle") == number


def test_sources_go_on_when_nobody_needs_the_hold() -> None:
    """If the restart that asked for it is gone when the sources hold, they are let go at once."""
    play = Play().up()
    number = loaded_successor(play)
    play.commit(1)
    play.died("middle", number)
    play.commit(2)
    assert play.of(AskResume) == [AskResume("source", 1)]
    assert not play.machine.epochs.held


def test_restart_while_nothing_runs_is_immediate() -> None:
    """With another stage stopped there is no barrier to wait for: the successor takes over as soon as it has loaded."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("sink",), 30.0))
    play.died("sink")
    play.ready("source")
    play.ready("middle")
    loaded_successor(play)
    assert [a.name for a in play.of(p.AskLeave)] == ["middle"]


def test_crash_on_the_way_to_the_hold() -> None:
    """A death of another stage while a restart waits for its barrier resets all, and the restart goes with it."""
    play = Play().up()
    number = loaded_successor(play)
    play.died("sink")
    assert [a.name for a in play.of(p.AskLeave)] == ["middle"]
    play.died("middle")
    play.born("sink")
    play.all_ready()
    assert play.incarnation("middle") == number
    assert play.machine.running


# what is asked of a running pipeline


def test_checkpoint_is_answered_when_its_epoch_is_visible() -> None:
    """The answer names the epoch, which was asked for after the call, and comes when every sink has confirmed."""
    play = Play().up()
    play.say(p.Checkpoint(5, 30.0))
    assert play.of(AskBarrier) == [AskBarrier("source", 1, 1, hold=False)]
    play.snapshots(1)
    play.say(p.ManifestWritten(1, 1))
    assert not play.of(p.Answer)
    play.say(p.CommitDone("sink", 1, 1))
    assert play.of(p.Answer) == [p.Answer(5, 0, "1")]


def test_checkpoint_behind_an_epoch_in_flight() -> None:
    """An epoch that was asked for before the call does not answer it."""
    play = Play().up()
    play.emitted = 1
    play.wait(1.0)
    play.say(p.Checkpoint(5, 30.0))
    play.commit(1)
    assert not play.of(p.Answer)
    play.commit(2)
    assert play.of(p.Answer) == [p.Answer(5, 0, "2")]


@pytest.mark.parametrize("wish", [p.Checkpoint(5, 30.0), p.Propose(5, CHANGE, 30.0)])
def test_nothing_can_be_asked_of_a_pipeline_that_does_not_run(wish: p.Event) -> None:
    """While a stage is stopped or failed, what needs an epoch is refused with its name."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("sink",), 30.0))
    play.died("sink")
    (answer,) = [c for c in play.say(wish) if isinstance(c, p.Answer)]
    assert (answer.code, answer.text) == (7, "refused: sink is stopped")


@pytest.mark.parametrize("wish", [p.Checkpoint(5, 30.0), p.Propose(5, CHANGE, 30.0)])
def test_stop_beats_what_waits_for_an_epoch(wish: p.Event) -> None:
    """A checkpoint or change under way is refused at once when a stage is stopped, and does not hold up the stop; the
    change is not recorded by a later epoch."""
    play = Play().up()
    play.say(wish)
    play.say(p.Operate(6, "stop", ("sink",), 30.0))
    assert play.of(p.Answer) == [p.Answer(5, 7, "overtaken by stop sink")]
    assert [a.name for a in play.of(p.AskLeave)] == ["sink"]
    play.died("sink")
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(6, 0)]
    assert not play.machine.epochs.proposed


def test_stop_of_a_service_beats_no_epoch() -> None:
    """The monitor has no part in epochs: what waits for one goes on."""
    play = Play().up()
    play.say(p.Checkpoint(5, 30.0))
    play.say(p.Operate(6, "stop", ("monitor",), 30.0))
    play.commit(1)
    assert play.of(p.Answer) == [p.Answer(5, 0, "1")]


def test_change_on_its_way_says_so() -> None:
    """A stop while the manifest that records a change is being written cannot take it back, and the answer tells."""
    play = Play().up()
    play.say(p.Propose(5, CHANGE, 30.0))
    while True:
        barrier = [c for c in play.history if isinstance(c, AskBarrier)][-1]
        play.snapshots(barrier.epoch)
        if barrier.hold:
            break
        play.say(p.ManifestWritten(1, barrier.epoch))
        play.say(p.CommitDone("sink", 1, barrier.epoch))
    play.say(p.Operate(6, "stop", ("sink",), 30.0))
    (answer,) = play.of(p.Answer)
    assert (answer.ticket, answer.code) == (5, 7)
    assert "is under way, and holds if it is committed" in answer.text


@pytest.mark.parametrize("wish", [p.Checkpoint(5, 30.0), p.Propose(5, CHANGE, 30.0)])
def test_failure_ends_what_waits_for_an_epoch(wish: p.Event) -> None:
    """When a stage is given up, a checkpoint or change under way is refused with its name, and is not recorded."""
    play = Play(max_restarts=0).up()
    play.say(wish)
    play.died("middle")
    assert play.of(p.Answer) == [p.Answer(5, 7, "refused: middle is failed")]
    assert not play.machine.epochs.proposed


def test_shutdown_takes_a_change_back() -> None:
    """What is refused because we are leaving is not recorded by the last epoch."""
    play = Play().up()
    play.say(p.Operate(4, "restart", ("monitor",), 30.0))
    play.say(p.Propose(5, CHANGE, 30.0))
    play.say(p.Shutdown("SIGTERM"))
    assert [a.ticket for a in play.of(p.Answer)] == [4, 5]
    play.hold()
    assert not [c for c in play.history if isinstance(c, WriteManifest) and c.changes]


def test_checkpoint_between_a_leaver_and_its_successor_waits() -> None:
    """While a planned restart replaces a process nobody is stopped: an epoch that is asked for comes behind it."""
    play = Play().up()
    loaded_successor(play)
    play.hold()
    play.died("middle")
    play.say(p.Checkpoint(5, 30.0))
    assert not [a for a in play.of(p.Answer) if a.ticket == 5]


def test_every_wait_has_a_story() -> None:
    """Whoever is told that it takes longer is told why: what goes first, who is not there, what the disk refuses."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 0.5))
    play.say(p.Checkpoint(2, 0.4))
    play.wait(0.6)
    told = {a.ticket: a.text for a in play.of(p.Answer)}
    assert told[2] == "still going on after 0.4 s: what was asked for before is not done"
    assert told[1].startswith("still going on after 0.5 s: middle is running, its successor still imports")
    play = Play().up()
    play.died("middle")
    play.say(p.Checkpoint(3, 0.5))
    play.wait(0.6)
    assert play.of(p.Answer)[0].text == (
        "still going on after 0.5 s: the pipeline is not running: "
        "source is resetting, middle is starting, sink is resetting"
    )
    play = Play().up()
    play.say(p.Checkpoint(4, 0.3))
    play.say(p.SnapshotFailed("sink", 1, 1, "no space"))
    play.wait(0.4)
    assert [a.text for a in play.of(p.Answer)] == [
        "still going on after 0.3 s: no epoch can be committed: no space",
    ]


def test_the_pipelines_story_is_told_once() -> None:
    """What concerns everybody stands once in the story of the pipeline, and in that of each stage."""
    play = Play().up()
    for name in ("", "middle"):
        lines = [what for _, what in play.machine.story(name)]
        assert lines.count("the fork server is ready") == 1, name


def test_what_is_asked_during_a_recovery_waits_for_it() -> None:
    """A checkpoint or a change that is wanted while everybody restores comes about when the pipeline runs again."""
    play = Play().up()
    play.died("middle")
    play.say(p.Checkpoint(5, 30.0))
    play.say(p.Propose(6, CHANGE, 30.0))
    assert not play.of(p.Answer)
    play.born("middle")
    play.all_ready()
    play.wait(1.0)
    play.commit(1)
    assert play.of(p.Answer) == [p.Answer(5, 0, "1")]
    play.hold()
    assert [a.ticket for a in play.of(p.Answer)] == [6]
    assert [r.changes for r in play.of(p.SendReset) if r.name == "middle"] == [(CHANGE,)]


def test_change_is_applied_behind_a_barrier() -> None:
    """A change is in the manifest of a held epoch, answered when that is visible, and handed to its stage alone with
    the reset to that epoch; a crash before the next epoch hands it out again, one after it does not."""
    play = Play().up()
    play.say(p.Propose(5, CHANGE, 30.0))
    play.hold()
    assert play.of(p.Answer) == [p.Answer(5, 0, "2")]
    assert {r.name: r.changes for r in play.of(p.SendReset)} == {"source": (), "middle": (CHANGE,), "sink": ()}
    play.all_ready()
    assert play.machine.running
    play.died("source")
    assert [r.changes for r in play.of(p.SendReset) if r.name == "middle"] == [(CHANGE,)]
    play.born("source")
    play.all_ready()
    play.wait(1.0)
    play.commit(3)
    play.died("source")
    assert [r.changes for r in play.of(p.SendReset) if r.name == "middle"] == [()]


def test_next_change_waits_until_the_last_is_applied() -> None:
    """A change that is wanted while the epoch of another is on its way is recorded behind the reset that applies the
    first: a manifest that named the second alone would have lost it."""
    play = Play().up()
    other = {**CHANGE, "letters": [[9, 1]]}
    play.say(p.Propose(5, CHANGE, 0.1))
    play.commit(1)
    play.wait(0.2)
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(5, 8)]
    play.say(p.Propose(6, other, 30.0))
    play.commit(2)
    assert [r.changes for r in play.of(p.SendReset) if r.name == "middle"] == [(CHANGE,)]
    play.all_ready()
    play.wait(1.0)
    play.hold()
    assert [r.changes for r in play.of(p.SendReset) if r.name == "middle"] == [(other,)]
    assert play.of(p.Answer) == [p.Answer(6, 0, str(play.machine.epochs.told))]


def test_change_waits_for_a_restart() -> None:
    """A change that is wanted while a restart is under way is begun behind it, and applied by the successor."""
    play = Play().up()
    number = loaded_successor(play)
    play.say(p.Propose(5, CHANGE, 30.0))
    play.hold()
    play.died("middle")
    play.all_ready()
    play.hold()
    assert [(r.incarnation, r.changes) for r in play.of(p.SendReset) if r.name == "middle"] == [(number, (CHANGE,))]


def test_stop_is_remembered_and_start_forgets_it() -> None:
    """Who is stopped on purpose is made durable, and is not forked at the next start of the daemon."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("middle",), 30.0))
    assert play.of(p.RememberStopped) == [p.RememberStopped(("middle",))]
    play.died("middle")
    play.say(p.Operate(2, "start", ("middle",), 30.0))
    assert play.of(p.RememberStopped) == [p.RememberStopped(())]
    again = Play(stopped=("middle",))
    again.say(p.LauncherReady())
    assert [f.name for f in again.of(p.Fork)] == ["monitor", "source", "sink"]
    for name in ("monitor", "source", "sink"):
        again.born(name)
    again.ready("source")
    assert not again.machine.settled
    again.ready("sink")
    assert again.machine.settled
    assert not again.machine.running


def test_stop_is_answered_when_it_is_remembered() -> None:
    """The answer to a stop or a start waits until the disk knows it; one that comes too late says what it waits for."""
    play = Play().up()
    play.remembers = False
    play.say(p.Operate(1, "stop", ("middle",), 30.0))
    play.died("middle")
    play.say(p.StopsKept(("middle",), "no space"))
    play.wait(29.0)
    assert not [c for c in play.history if isinstance(c, p.Answer)]
    assert play.machine.forgetful == "no space"
    play.wait(2.0)
    (late,) = play.of(p.Answer)
    assert (late.code, late.text) == (
        8,
        "still going on after 30 s: middle is stopped, the disk refuses to remember who is stopped: no space",
    )
    play.say(p.Operate(2, "stop", ("sink",), 30.0))
    play.died("sink")
    play.say(p.StopsKept(("middle",)))  # of the attempt before
    assert not play.of(p.Answer)
    play.say(p.StopsKept(("middle", "sink")))
    assert play.of(p.Answer) == [p.Answer(2, 0, "done"), p.Answer(1, 0, "done")]
    assert play.machine.forgetful is None


def test_shutdown_is_no_stop_on_purpose() -> None:
    """That everybody leaves with the daemon is nothing to remember."""
    play = Play().up()
    play.say(p.Shutdown("SIGTERM"))
    play.say(p.FarewellSaid())
    assert not [c for c in play.history if isinstance(c, p.RememberStopped)]


# a disk that refuses


def test_impaired_stage_is_reset_and_not_restarted() -> None:
    """Nobody is killed or forked; all go back to the committed epoch after a delay that grows, until an epoch is
    committed again."""
    play = Play().up()
    waits = []
    for _ in range(7):
        play.say(p.Impaired("sink", play.incarnation("sink"), play.machine.generation, "no space"))
        assert "sink: no space" in (play.machine.trouble or "")
        assert not play.of(p.SendReset)
        began = play.now
        while not play.of(p.SendReset):
            play.wait(0.5)
        assert [r.name for r in play.of(p.SendReset)] == list(CHAIN)
        waits.append(play.now - began)
        play.all_ready()
    first, most = IMPAIRED_BACKOFF_FIRST_S, IMPAIRED_BACKOFF_MAX_S
    assert waits == pytest.approx([first, 2 * first, 4 * first, 8 * first, 16 * first, most, most])
    assert not [c for c in play.history if isinstance(c, p.Kill)]
    assert [q.restarts for q in play.machine.processes.values()] == [0] * 4
    play.emitted = 1
    play.wait(1.0)
    play.commit(1)
    assert play.machine.trouble is None


def test_links_that_cannot_be_made_restart_nobody() -> None:
    """A generation without links is given up for another one, after a delay that grows; nobody is killed for being
    late, or forked again. What an older one lacked is no news."""
    play = Play().up()
    play.died("middle")
    play.born("middle")
    waits = []
    for _ in range(3):
        play.say(p.LinksFailed(play.machine.generation - 1, "too many open files"))
        generation = play.machine.generation
        play.say(p.LinksFailed(generation, "too many open files"))
        assert play.logged() == ["links_failed"]
        assert "too many open files" in (play.machine.trouble or "")
        began = play.now
        while not play.of(p.MakeLinks):
            play.wait(0.5)
        assert play.of(p.MakeLinks) == [p.MakeLinks(generation + 1)]
        waits.append(play.now - began)
    first = IMPAIRED_BACKOFF_FIRST_S
    assert waits == pytest.approx([first, 2 * first, 4 * first])
    assert not [c for c in play.history if isinstance(c, p.Kill)]
    assert [q.restarts for q in play.machine.processes.values()] == [0, 0, 1, 0]
    play.all_ready()
    assert play.machine.running


def test_stage_that_cannot_restore_waits_for_the_disk() -> None:
    """A stage that is impaired while it restores is not killed for being late, however long the disk refuses."""
    play = Play().up()
    play.died("middle")
    play.born("middle")
    play.say(p.Impaired("sink", play.incarnation("sink"), 2, "no space"))
    play.wait(0.4)
    assert play.machine.processes["sink"].deadline is None
    play.wait(0.1)
    assert {r.generation for r in play.of(p.SendReset)} == {3}


def test_reset_that_waits_for_a_manifest_keeps_nobody_awake() -> None:
    """When the time of the next attempt comes while a manifest may still become the commit, its answer is waited for,
    and no deadline lies in the past."""
    play = Play().up()
    play.emitted = 1
    play.wait(1.0)
    play.snapshots(1)
    play.say(p.Impaired("sink", play.incarnation("sink"), 1, "no space"))
    play.now += IMPAIRED_BACKOFF_MAX_S
    play.say(p.Tick(1))
    assert not play.of(p.SendReset)
    assert (play.machine.deadline() or play.now + 1.0) > play.now
    play.say(p.ManifestWritten(1, 1))
    assert [r.epoch for r in play.of(p.SendReset)] == [1, 1, 1]


def test_impaired_in_the_past_is_no_news() -> None:
    """What an older generation or a former process could not do changes nothing."""
    play = Play().up()
    number = play.incarnation("sink")
    play.died("middle")
    play.born("middle")
    play.all_ready()
    play.say(p.Impaired("sink", number, 1, "no space"))
    play.say(p.Impaired("sink", number - 1, 2, "no space"))
    assert play.machine.running
    assert play.machine.trouble is None


# poison


def die_inside(play: Play, *, killed: bool = False) -> None:
    """`middle` dies with ROWS in its hands, and comes back."""
    play.say(p.Died("middle", play.incarnation("middle"), "killed by SIGSEGV", ROWS, killed))
    if play.state("middle") is State.BACKOFF:
        play.wait((play.machine.processes["middle"].deadline or 0.0) - play.now)
    play.born("middle")


def suspects(play: Play) -> p.Spans:
    """What `middle` was told to try at its last reset."""
    resets = [c for c in play.history if isinstance(c, p.SendReset) and c.name == "middle"]
    return resets[-1].suspects


def test_same_records_twice_are_suspects() -> None:
    """After two deaths with the same records in its hands a stage is told to try them; others are told nothing."""
    play = Play().up()
    die_inside(play)
    assert suspects(play) == ()
    play.all_ready()
    die_inside(play)
    assert suspects(play) == ROWS
    assert not [c for c in play.history if isinstance(c, p.SendReset) and c.name != "middle" and c.suspects]


def test_verdict_costs_no_restart_and_resets_once() -> None:
    """Guilty rows bring one reset, and the deaths before count no more against the stage. The others that were there
    are tried once more, until a trial finds nobody."""
    play = Play(max_restarts=2).up()
    for _ in range(3):
        for _ in range(2):
            die_inside(play)
            play.all_ready()
        generation = play.machine.generation
        play.say(p.Judged("middle", play.incarnation("middle"), generation, 1))
        assert play.machine.generation == generation + 1
        assert suspects(play) == ROWS
        play.all_ready()
        play.say(p.Judged("middle", play.incarnation("middle"), generation + 1, 0))
        assert play.machine.generation == generation + 1
    assert play.machine.running


@pytest.mark.parametrize("kept", [True, False])
def test_no_generation_before_a_verdict_is_durable(kept: bool) -> None:
    """Whoever dies while a verdict is on its way to the disk, its own stage too: the next generation is opened when it
    is there or never will be, for the stages read then what is left out."""
    for dead in ("middle", "source"):
        play = Play().up()
        for _ in range(2):
            die_inside(play)
            play.all_ready()
        generation, incarnation = play.machine.generation, play.incarnation("middle")
        play.say(p.Judging("middle", incarnation))
        play.died(dead)
        if play.state(dead) is State.BACKOFF:
            play.wait((play.machine.processes[dead].deadline or 0.0) - play.now)
        play.born(dead)
        assert play.machine.generation == generation
        play.say(p.Judged("middle", incarnation, generation, 1 if kept else None))
        assert play.machine.generation == generation + 1
        play.all_ready()
        assert play.machine.running
        assert suspects(play) == ROWS


def test_innocent_records_bring_no_reset() -> None:
    """When no fork has died the stage goes on where it is, and the count begins anew."""
    play = Play().up()
    for _ in range(2):
        die_inside(play)
        play.all_ready()
    generation = play.machine.generation
    play.say(p.Judged("middle", play.incarnation("middle"), generation, 0))
    assert play.machine.generation == generation
    die_inside(play)
    assert suspects(play) == ()


def test_bare_kills_count_a_third() -> None:
    """Two deaths' worth of SIGKILL are six."""
    play = Play(max_restarts=100).up()
    for _ in range(5):
        die_inside(play, killed=True)
        assert suspects(play) == ()
        play.all_ready()
    die_inside(play, killed=True)
    assert suspects(play) == ROWS


def test_kill_of_our_own_counts_whole() -> None:
    """A stage that we have killed because it hung died of what it had in its hands."""
    play = Play().up()
    for _ in range(2):
        play.hang("middle")
        die_inside(play, killed=True)
        play.all_ready()
    assert suspects(play) == ROWS


def test_death_on_purpose_is_nobodys_fault() -> None:
    """A process that was asked to leave and was killed in the middle of a batch accuses no record."""
    play = Play().up()
    for _ in range(4):
        play.say(p.Operate(1, "stop", ("middle",), 30.0))
        play.say(p.Died("middle", play.incarnation("middle"), "killed by SIGKILL", ROWS, False))
        play.say(p.Operate(2, "start", ("middle",), 30.0))
        play.born("middle")
        play.all_ready()
    assert suspects(play) == ()


def test_common_records_of_batches_cut_differently() -> None:
    """Where batches are cut in time, only what was in both batches is suspected."""
    poison = Poison(2)
    assert not poison.died("s", (("", "a", 0, 10),), killed=False)
    assert not poison.died("s", (("", "b", 0, 10),), killed=False)
    assert poison.died("s", (("", "a", 5, 10), ("", "b", 90, 5)), killed=False)
    assert poison.suspects("s") == (("", "a", 5, 5),)
    assert poison.suspects("other") == ()


def test_many_random_kills_suspect_nobody() -> None:
    """Deaths of different records never add up, however many there are."""
    poison = Poison(1)
    for position in range(1000):
        assert not poison.died("s", (("", "a", 10 * position, 10),), killed=True)
    assert poison.suspects("s") == ()


# the story


def test_story_tells_why_a_stage_is_down() -> None:
    """The last lines of a failed stage's story say what it died of and what was decided."""
    play = Play(max_restarts=0).up()
    play.died("middle")
    lines = [text for _, text in play.machine.story("middle")]
    assert lines[-2:] == [
        "died: killed by SIGKILL",
        "-> stage given up: reason died 1 times in a row, last: killed by SIGKILL",
    ]
    assert "-> go, generation 1" in lines
    assert [when for when, _ in play.machine.story("middle")] == sorted(w for w, _ in play.machine.story("middle"))


def test_story_is_bounded() -> None:
    """However long a pipeline runs, a story has its last lines only."""
    play = Play(max_restarts=10**6).up()
    for _ in range(100):
        die_inside(play)
        play.all_ready()
    assert len(play.machine.story("middle")) == 60


# records that come over two branches


def test_only_the_ways_of_the_deaths_are_suspected() -> None:
    """A record that kills over one branch is not suspected over the other: it would be tried there, and let go."""
    poison = Poison(2)
    left = (("left", "a", 0, 10),)
    assert not poison.died("s", left, killed=False)
    assert poison.died("s", left, killed=False)
    assert poison.suspects("s") == left


def test_deaths_over_two_branches_are_added_up() -> None:
    """A record that kills over both branches is a suspect over both after as many deaths as over one."""
    poison = Poison(2)
    assert not poison.died("s", (("left", "a", 0, 10),), killed=False)
    assert not poison.died("s", (("right", "a", 20, 10),), killed=False)
    assert poison.died("s", (("right", "a", 5, 10),), killed=False)
    assert poison.suspects("s") == (("left", "a", 5, 5), ("right", "a", 5, 5))


def test_both_ways_in_one_batch() -> None:
    """A batch that has a record twice, as a replay of both its letters gives it, is one case, however often."""
    poison = Poison(3)
    both = (("left", "a", 7, 1), ("right", "a", 7, 1))
    assert [poison.died("s", both, killed=True) for _ in range(9)] == [False] * 8 + [True]
    assert poison.suspects("s") == both
