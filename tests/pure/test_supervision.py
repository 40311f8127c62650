"""Transcripts of the supervision: what happens, what is done about it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import AskBarrier, Part, TellCommitted, WriteManifest
from streampiped.core.lifecycle import State, is_alive
from streampiped.core.processes import OVERSLEPT_MAX, STOP_STARVED_MAX, Successor
from streampiped.phases import Phase
from support.transcript import CHAIN, LIMITS, Play

LATE_FOR_S = 3600.0  # a machine that is overloaded


def test_start_in_order_and_go_from_the_end() -> None:
    """Processes are forked in the order of the plan, and go reaches the last stage first."""
    play = Play()
    assert play.kinds() == ["StartLauncher"]
    play.say(p.LauncherReady())
    assert [fork.name for fork in play.of(p.Fork)] == ["monitor", *CHAIN]
    for name in ("monitor", *CHAIN):
        play.born(name)
    assert play.state("monitor") is State.RUNNING
    play.ready("source")
    play.ready("middle")
    assert not play.of(p.SendGo)
    play.ready("sink")
    assert [go.name for go in play.of(p.SendGo)] == ["sink", "middle", "source"]
    assert play.kinds()[0] == "CloseOldLinks"


def test_no_go_before_every_stage_is_ready() -> None:
    """A stage that has loaded and not restored holds everybody."""
    play = Play()
    play.say(p.LauncherReady())
    for name in CHAIN:
        play.born(name)
    play.ready("source")
    play.ready("sink")
    assert not play.machine.running
    assert "SendGo" not in [type(c).__name__ for c in play.history]


def test_death_opens_a_generation_and_replaces_only_the_dead() -> None:
    """After a death the living are reset at once, only the dead one is forked, go waits for all."""
    play = Play().up()
    play.died("middle")
    assert [f.name for f in play.of(p.Fork)] == ["middle"]
    assert [r.name for r in play.of(p.SendReset)] == ["source", "sink"]
    assert play.of(p.MakeLinks) == [p.MakeLinks(2)]
    assert not play.of(p.Kill)
    play.born("middle")
    assert [(r.name, r.generation) for r in play.of(p.SendReset)] == [("middle", 2)]
    play.all_ready()
    assert [go.generation for go in play.of(p.SendGo)] == [2, 2, 2]


def test_old_links_close_only_when_all_are_ready() -> None:
    """The pipes of the old generation stay open until the new one goes."""
    play = Play().up()
    play.died("sink")
    play.born("sink")
    play.ready("source")
    play.ready("middle")
    assert not play.of(p.CloseOldLinks)
    play.ready("sink")
    assert play.of(p.CloseOldLinks) == [p.CloseOldLinks(2)]


def test_death_during_a_reset_begins_again() -> None:
    """Who dies while a generation is being made starts the next one; a late 'ready' of the old counts for nothing."""
    play = Play().up()
    play.died("middle")
    play.died("sink")
    assert play.machine.generation == 3
    play.say(p.Ready("source", play.incarnation("source"), 2))
    assert play.state("source") is State.RESETTING


def test_not_ready_in_time_is_killed() -> None:
    """A stage that does not restore within `reset_timeout` is killed, and its death begins the next generation."""
    play = Play().up()
    play.died("middle")
    play.born("middle")
    play.ready("source")
    play.ready("middle")
    play.wait(10.0)
    assert [k.name for k in play.of(p.Kill)] == ["sink"]
    play.died("sink")
    assert play.machine.generation == 3


def test_message_of_a_former_process_is_dropped() -> None:
    """'Ready' and 'loaded' of an incarnation that is gone change nothing."""
    play = Play().up()
    old = play.incarnation("middle")
    play.died("middle")
    before = play.state("middle")
    play.say(p.Loaded("middle", old))
    play.say(p.Ready("middle", old, 2))
    assert play.state("middle") is before


def test_restart_intensity_ends_in_failed() -> None:
    """The first restart is immediate, later ones wait longer and longer, too many within the window give up."""
    play = Play(max_restarts=3).up()
    delays = []
    for _ in range(3):
        play.died("middle")
        began = play.now
        if play.state("middle") is State.BACKOFF:
            play.wait((play.machine.processes["middle"].deadline or 0.0) - play.now)
        delays.append(play.now - began)
        play.born("middle")
    assert delays == [0.0, 1.0, 2.0]
    play.died("middle")
    assert play.state("middle") is State.FAILED
    assert "stage_given_up" in play.logged()
    assert not play.of(p.Fork)


def test_operator_starts_a_failed_stage() -> None:
    """After 'failed' an operator's start forks again, is answered at go, and the count begins anew."""
    play = Play(max_restarts=0).up()
    play.died("middle")
    assert play.state("middle") is State.FAILED
    play.say(p.Operate(1, "start", ("middle",), 30.0))
    assert [f.name for f in play.of(p.Fork)] == ["middle"]
    play.born("middle")
    play.all_ready()
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(1, 0)]


def test_planned_restart_imports_first() -> None:
    """While the successor loads an epoch is made, and another one behind which the sources hold; then the old stage
    leaves, and one reset to that epoch brings all back."""
    play = Play().up()
    old = play.incarnation("middle")
    play.say(p.Operate(1, "restart", ("middle",), 30.0))
    fork = play.of(p.Fork)[0]
    assert play.of(AskBarrier) == [AskBarrier("source", 1, 1, hold=False)]
    assert play.state("middle") is State.RUNNING
    play.born("middle", fork.incarnation)
    assert not play.of(p.AskLeave)
    play.commit(1)
    assert play.of(AskBarrier) == [AskBarrier("source", 1, 2, hold=True)]
    play.commit(2)
    assert play.of(p.AskLeave) == [p.AskLeave("middle", old)]
    play.died("middle", old)
    assert {r.epoch for r in play.of(p.SendReset)} == {2}
    assert play.incarnation("middle") == fork.incarnation
    assert {r.name for r in play.of(p.SendReset)} == set(CHAIN)
    play.all_ready()
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(1, 0)]
    assert play.machine.generation == 2


def test_successor_that_cannot_load_leaves_the_old_one() -> None:
    """When the successor dies while it imports, the restart is answered with its reason and the old stage stays."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 30.0))
    number = play.of(p.Fork)[0].incarnation
    play.forked("middle", number)
    play.say(p.Failed("middle", number, "construction", "ImportError: nope"))
    play.died("middle", number)
    answer = play.of(p.Answer)[0]
    assert (answer.ticket, answer.code) == (1, 1)
    assert "ImportError: nope" in answer.text
    assert play.machine.running
    assert play.machine.generation == 1


def test_reasons_of_a_dropped_successor_are_forgotten() -> None:
    """What a successor said that a stop has ended does not explain the end of a later one."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 30.0))
    number = play.of(p.Fork)[0].incarnation
    play.say(p.Failed("middle", number, "construction", "ImportError: nope"))
    play.say(p.Operate(2, "stop", ("middle",), 30.0))
    play.died("middle")
    play.say(p.Operate(3, "start", ("middle",), 30.0))
    play.born("middle")
    play.all_ready()
    play.say(p.Operate(4, "restart", ("middle",), 30.0))
    play.died("middle", play.of(p.Fork)[0].incarnation)
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(4, 1)]
    assert "killed by SIGKILL" in play.of(p.Answer)[0].text


def test_crash_while_the_successor_imports_hands_over() -> None:
    """If the old stage dies meanwhile, its successor takes its place and nobody else is forked."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 30.0))
    number = play.of(p.Fork)[0].incarnation
    play.died("middle")
    assert not play.of(p.Fork)
    play.born("middle", number)
    play.all_ready()
    assert play.incarnation("middle") == number
    assert play.machine.running


def test_stop_holds_the_pipeline_and_start_releases_it() -> None:
    """A stopped stage is not restarted, the others wait ready, start brings everything back."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("middle",), 30.0))
    assert play.of(p.AskLeave)[0].name == "middle"
    play.died("middle")
    assert play.of(p.Answer)[0].code == 0
    assert not play.of(p.Fork)
    play.ready("source")
    play.ready("sink")
    assert not play.machine.running
    play.say(p.Operate(2, "start", ("middle",), 30.0))
    play.born("middle")
    play.all_ready()
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(2, 0)]
    assert play.machine.running


def test_stop_beats_restart() -> None:
    """A stop that names a stage whose restart is under way ends that restart, answers it, and kills the successor."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 30.0))
    number = play.of(p.Fork)[0].incarnation
    play.say(p.Operate(2, "stop", ("middle",), 30.0))
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(1, 7)]
    assert p.Kill("middle", number) in play.out
    play.died("middle")
    assert play.state("middle") is State.STOPPED


def test_who_was_told_that_it_takes_longer_is_told_the_end() -> None:
    """A restart that waits in the queue and has timed out is beaten by a stop, which is its last answer."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 30.0))
    play.say(p.Operate(2, "restart", ("sink",), 0.1))
    play.wait(0.2)
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(2, 8)]
    play.say(p.Operate(3, "stop", ("sink",), 30.0))
    assert play.of(p.Answer) == [p.Answer(2, 7, "overtaken by stop sink")]


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_start_of_one_that_still_leaves(verb: p.Verb) -> None:
    """A stop that takes long is answered, and what is wanted next is not lost: the process that is still on its way out
    is followed by another."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("middle",), 0.1))
    play.wait(0.2)
    play.say(p.Operate(2, verb, ("middle",), 30.0))
    play.died("middle")
    numbers = [c.incarnation for c in play.history if isinstance(c, p.Fork) and c.name == "middle"]
    play.born("middle", numbers[-1])
    play.all_ready()
    assert play.machine.running
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(2, 0)]


def test_wish_that_cannot_come_about_holds_up_nobody() -> None:
    """A change that timed out in the queue, behind a stop, waits for a pipeline that stands; a start comes through."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("source",), 30.0))
    play.say(p.Propose(2, {"kind": "replay", "stage": "middle"}, 0.1))
    play.wait(0.2)
    play.say(p.Operate(3, "stop", ("source",), 30.0))
    play.died("source")
    assert play.of(p.Answer) == [p.Answer(3, 0, "done")]
    play.say(p.Operate(4, "start", ("source",), 30.0))
    assert [f.name for f in play.of(p.Fork)] == ["source"]


def test_start_leaves_the_work_to_a_successor_that_loads() -> None:
    """A stage that dies while its successor loads is not forked a second time by an operator's start: the successor
    takes over, and everything runs."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 0.1))
    number = play.of(p.Fork)[0].incarnation
    play.died("middle")
    play.wait(0.2)
    play.say(p.Operate(2, "start", ("middle",), 30.0))
    assert not play.of(p.Fork)
    play.born("middle", number)
    play.all_ready()
    assert play.machine.running
    assert play.incarnation("middle") == number
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(2, 0), (1, 0)]


def test_commands_are_worked_on_one_at_a_time() -> None:
    """A second restart begins when the first is done."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 30.0))
    first = play.of(p.Fork)[0].incarnation
    play.say(p.Operate(2, "restart", ("sink",), 30.0))
    assert not play.of(p.Fork)
    play.born("middle", first)
    play.hold()
    play.died("middle")
    play.all_ready()
    assert [f.name for f in play.of(p.Fork)] == ["sink"]


def test_timed_out_command_goes_on() -> None:
    """A restart that takes longer than its operator waits is answered with 8 once, still comes about, and its end is
    the last answer."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 2.0))
    number = play.of(p.Fork)[0].incarnation
    play.wait(3.0)
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(1, 8)]
    play.born("middle", number)
    play.hold()
    play.died("middle")
    play.all_ready()
    assert play.incarnation("middle") == number
    assert play.of(p.Answer) == [p.Answer(1, 0, "done")]


def test_deaf_process_is_killed_after_the_stop_timeout() -> None:
    """Who does not leave when asked is killed."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("middle",), 30.0))
    play.wait(5.0)
    assert [k.name for k in play.of(p.Kill)] == ["middle"]
    play.died("middle")
    assert play.of(p.Answer)[0].code == 0


def test_launcher_death_leaves_the_stages() -> None:
    """Stages go on without a launcher; forks that were asked for are asked for again of the next one."""
    play = Play().up()
    play.say(p.LauncherDied("killed by SIGKILL"))
    play.wait(0.0)
    assert play.kinds() == ["StartLauncher"]
    assert play.machine.running
    play.died("middle")
    assert not play.of(p.Fork)
    play.say(p.LauncherReady())
    assert [f.name for f in play.of(p.Fork)] == ["middle"]


def test_launcher_that_is_stopped_is_killed() -> None:
    """A fork that does not come about in `start_timeout` ends the launcher that owes it; the next one delivers."""
    play = Play().up()
    play.died("middle")
    play.wait(60.0)
    assert [k.name for k in play.of(p.KillLauncher)] == ["middle"]
    play.say(p.LauncherDied("killed by SIGKILL"))
    play.wait(0.0)
    assert play.of(p.StartLauncher)
    play.say(p.LauncherReady())
    assert "middle" in [fork.name for fork in play.of(p.Fork)]


def test_stopped_launcher_does_not_hold_up_the_end() -> None:
    """With a fork outstanding and a launcher that does nothing, a shutdown still comes to its end."""
    play = Play().up()
    play.died("middle")
    play.say(p.Shutdown("SIGTERM"))
    play.say(p.FarewellSaid())
    for name in ("sink", "source"):
        play.died(name)
    play.wait(5.0)
    assert [k.name for k in play.of(p.KillLauncher)] == ["middle"]
    play.say(p.LauncherDied("killed by SIGKILL"))
    assert [a.name for a in play.of(p.AskLeave)] == ["monitor"]
    play.died("monitor")
    assert play.of(p.Quit)


def test_timed_out_command_holds_up_nobody() -> None:
    """After a restart that cannot come about has been answered with 8, the next command is begun."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 2.0))
    play.wait(3.0)
    play.say(p.Operate(2, "stop", ("sink",), 30.0))
    assert [a.name for a in play.of(p.AskLeave)] == ["sink"]


def test_launcher_that_never_comes_up_ends_the_start() -> None:
    """When one launcher after the other dies before anything has run, later and later, we say so and leave."""
    play = Play()
    for _ in range(3):
        play.say(p.LauncherDied("exit status 1"))
        assert not play.of(p.Farewell)
        play.wait(10.0)
        assert play.of(p.StartLauncher)
    play.say(p.LauncherDied("exit status 1"))
    assert "launcher_given_up" in play.logged()
    assert play.of(p.Farewell)


def test_ready_is_about_the_stages() -> None:
    """A service that loads holds up the end of a start, one that dies again and again does not; whatever becomes of it,
    the stages are ready. A stage that is not there makes both false."""
    play = Play()
    play.say(p.LauncherReady())
    for name in CHAIN:
        play.born(name)
    play.all_ready()
    assert (play.machine.ready, play.machine.settled) == (True, False)
    for _ in range(2):  # the first successor comes at once, the next one is waited for
        play.forked("monitor")
        play.died("monitor")
    assert play.state("monitor") is State.BACKOFF
    assert (play.machine.ready, play.machine.settled) == (True, True)
    play.died("middle")
    assert (play.machine.ready, play.machine.settled) == (False, False)


def test_service_death_does_not_touch_the_generation() -> None:
    """A service that dies is forked again; the data path does not notice."""
    play = Play().up()
    play.died("monitor")
    assert [f.name for f in play.of(p.Fork)] == ["monitor"]
    assert play.machine.generation == 1
    assert play.machine.running


def test_restart_of_a_service_that_is_being_killed() -> None:
    """Who wants a service restarted while it is killed gets the next one; nobody is asked to leave who cannot."""
    play = Play().up()
    play.hang("monitor")
    assert play.state("monitor") is State.KILLING
    play.say(p.Operate(1, "restart", ("monitor",), 30.0))
    assert not play.of(p.AskLeave)
    play.died("monitor")
    assert [f.name for f in play.of(p.Fork)] == ["monitor"]
    play.born("monitor")
    assert [(a.ticket, a.code) for a in play.of(p.Answer)] == [(1, 0)]


def test_hang_is_dumped_and_killed() -> None:
    """A process with work and no pulse for half of `hang_timeout` has its stack dumped; after all of it once more, and
    is killed; the reason says what the kernel knows of it."""
    play = Play().up()
    play.stall("middle", 3)
    assert not play.dumps
    play.stall("middle", 4)
    assert len(play.dumps) == 1, "once for each stall"
    play.stall("middle", 1, kernel="D")
    assert len(play.dumps) == 2
    play.wait(0.5)
    assert [k.name for k in play.of(p.Kill)] == ["middle"]
    play.died("middle")
    reason = play.machine.processes["middle"].last_reason or ""
    assert "hung" in reason
    assert "uninterruptible" in reason


def test_late_is_told_once_for_each_stall() -> None:
    """Progress ends a stall: the next one is told again, and its time begins anew."""
    play = Play().up()
    for stall in (1, 2):
        play.stall("middle", 7)
        assert len(play.dumps) == stall
        play.sample("middle", 6)
    assert not [c for c in play.history if isinstance(c, p.Kill)]


@pytest.mark.parametrize(
    ("told", "hung"),
    [
        (
            {"kernel": "R", "cpu": 0.0, "queued": 0.0},
            False,
        ),  # waits for a turn, which is not counted yet
        ({"kernel": "R", "cpu": 0.01, "queued": 0.99}, False),
        ({"kernel": "S", "cpu": 0.01, "queued": 0.99}, False),  # sleeps in the moment of the look
        ({"kernel": "R", "cpu": 1.0, "queued": 0.0}, True),
        ({"kernel": "R", "cpu": 0.5, "queued": 0.5}, True),  # an endless loop that shares its CPU: later, but surely
        ({"kernel": "S"}, True),
        ({"kernel": "T"}, True),
    ],
)
def test_starved_is_not_hung(told: dict[str, Any], hung: bool) -> None:
    """Only time that a process had, or did not want, counts against it; that one is starved is said, once."""
    play = Play().up()
    play.stall("middle", 17, **told)
    play.wait(0.5)
    killed = [c for c in play.history if isinstance(c, p.Kill)]
    assert bool(killed) is hung
    starved = [c for c in play.history if isinstance(c, p.Log) and c.event == "stage_starved"]
    assert len(starved) == (0 if hung else 1)
    assert len(play.dumps) == (2 if hung else 1), "its stack as well, once"


@pytest.mark.parametrize(("queued", "killed"), [(0.0, True), (9.5, False)])
def test_starved_restore_has_the_time_it_did_not_get(queued: float, killed: bool) -> None:
    """A stage that is still restoring at `reset_timeout` is looked at: only time of its own counts, and one that was
    starved has the rest of it; then it is killed all the same."""
    play = Play().up()
    play.died("sink")
    play.born("sink")
    assert play.state("middle") is State.RESETTING
    play.sample("middle", 5, Phase.RESTORING)
    for name in ("source", "sink"):
        play.ready(name)
    play.wait(10.0)
    play.sample("middle", 5, Phase.RESTORING, queued=queued)
    assert (play.state("middle") is State.KILLING) is killed
    play.wait(10.0)
    play.sample("middle", 5, Phase.RESTORING, queued=queued)
    assert play.state("middle") is State.KILLING


def _stops(play: Play, starved: float) -> float:
    """`middle` is asked to leave and does not, and of each second it waits so much for a CPU; how long it lives."""
    play.say(p.Operate(1, "stop", ("middle",), 60.0))
    begun = play.now
    while play.state("middle") is State.STOPPING and play.now < begun + 100.0:
        play.sample("middle", 5, Phase.LEAVING, queued=starved * (play.now - begun))
        play.wait(0.5)
    return play.now - begun


def test_starved_process_has_longer_to_leave() -> None:
    """Only its own time counts against a process that was asked to leave: twice the CPU taken, half of it its own. But
    a stop ends, at `STOP_STARVED_MAX` times `stop_timeout` of wall time."""
    assert _stops(Play().up(), 0.0) == pytest.approx(5.0, abs=1.0)
    assert _stops(Play().up(), 0.5) == pytest.approx(10.0, abs=1.0)
    assert _stops(Play().up(), 1.0) == pytest.approx(STOP_STARVED_MAX * 5.0, abs=1.0)


@pytest.mark.parametrize(("queued", "killed"), [(0.0, True), (59.0, False)])
def test_starved_launcher_is_left_alone(queued: float, killed: bool) -> None:
    """A fork that does not come about ends the launcher only after `start_timeout` of the launcher's own time; who was
    forked so late has all of its own."""
    play = Play().up()
    play.died("middle")
    play.sample("middle", 0, Phase.LOADING)
    play.wait(60.0)
    play.sample("middle", 0, Phase.LOADING, queued=queued)
    assert bool(play.of(p.KillLauncher)) is killed
    if not killed:
        play.forked("middle")
        play.wait(59.0)
        assert play.state("middle") is State.LOADING


def _heir(play: Play) -> Successor:
    heir = play.machine.processes["middle"].successor
    assert heir is not None
    return heir


@pytest.mark.parametrize(("queued", "killed"), [(0.0, True), (59.0, False)])
def test_launcher_that_does_not_fork_a_successor(queued: float, killed: bool) -> None:
    """A successor that is not forked within `start_timeout` of the launcher's own time ends the launcher, and the next
    one is asked for it; a launcher that was starved is left alone. The process that works stays."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 600.0))
    play.look(_heir(play))
    play.wait(60.0)
    play.look(_heir(play), queued=queued)
    assert bool(play.of(p.KillLauncher)) is killed
    if not killed:
        play.wait(59.0)
        play.look(_heir(play), queued=queued)
        assert play.of(p.KillLauncher), "its time is over all the same"
    play.say(p.LauncherDied("killed by SIGKILL"))
    play.say(p.LauncherReady())
    assert play.of(p.Fork) == [p.Fork("middle", _heir(play).incarnation)]
    play.forked("middle", _heir(play).incarnation)
    play.wait(59.0)
    assert not [c for c in play.history if isinstance(c, p.Kill)]
    assert play.state("middle") is State.RUNNING
    play.say(p.Loaded("middle", _heir(play).incarnation))
    assert _heir(play).loaded


@pytest.mark.parametrize("state", [State.STARTING, State.LOADING, State.RESETTING])
def test_deadline_that_was_slept_through_begins_anew(state: State) -> None:
    """When nobody looked for long behind a deadline (a frozen machine), the process has all of its time once more, and
    no more than that."""
    play = Play().up()
    play.died("middle")
    if state is State.LOADING:
        play.forked("middle")
    elif state is State.RESETTING:
        play.born("middle")
    assert play.state("middle") is state
    limit = LIMITS.reset_timeout if state is State.RESETTING else LIMITS.start_timeout
    for name in ("source", "sink"):
        play.ready(name)
    play.sample("middle", 0, Phase.LOADING)
    play.now += 3600.0
    play.say(p.Tick(0))
    play.sample("middle", 0, Phase.LOADING)
    play.wait(limit - 0.5)
    play.sample("middle", 0, Phase.LOADING)
    assert play.state("middle") is state
    play.wait(0.5)
    play.sample("middle", 0, Phase.LOADING)
    assert play.state("middle") is State.KILLING


def test_successor_is_not_killed_for_a_frozen_machine() -> None:
    """Nor is a successor whose deadline was slept through: it has all of `start_timeout` once more."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 6000.0))
    play.forked("middle", _heir(play).incarnation)
    play.now += 3600.0
    play.say(p.Tick(0))
    play.look(_heir(play))
    play.wait(59.5)
    assert not [c for c in play.history if isinstance(c, p.Kill)]
    play.wait(0.5)
    play.look(_heir(play))
    assert [kill.incarnation for kill in play.of(p.Kill)] == [_heir(play).incarnation]


def _late_watch(play: Play, deadline: Callable[[], float | None], look: Callable[[float], object]) -> float:
    """Every tick at `deadline` comes 2 s late, as on a machine that has too much to do, and every look that is asked
    for is had at once (`look`, with the seconds since the beginning). How long until there is no deadline, or a lot."""
    begun = play.now
    while (due := deadline()) is not None and play.now < begun + LATE_FOR_S:
        play.now = max(play.now, due) + 2.0
        for _ in range(2):  # the second at once: what the first has put down to be done now
            play.say(p.Tick(0))
            if play.of(p.Look):
                look(play.now - begun)
    return play.now - begun


@pytest.mark.parametrize("starved", [False, True])
@pytest.mark.parametrize("state", [State.STARTING, State.LOADING, State.RESETTING, State.STOPPING])
def test_supervisor_that_is_always_late_finds_the_hung(state: State, starved: bool) -> None:
    """However late each look is, a process that hangs is ended after OVERSLEPT_MAX times its time more, and a look or
    two; one that has had no CPU of its own in all of it lives, but for one that was asked to leave."""
    play = Play().up()
    if state is State.STOPPING:
        play.say(p.Operate(1, "stop", ("middle",), 60.0))
    else:
        play.died("middle")
        if state is State.LOADING:
            play.forked("middle")
        elif state is State.RESETTING:
            play.born("middle")
        for name in ("source", "sink"):
            play.ready(name)
    assert play.state("middle") is state
    limits = {State.RESETTING: LIMITS.reset_timeout, State.STOPPING: LIMITS.stop_timeout}
    limit = limits.get(state, LIMITS.start_timeout)

    def look(seconds: float) -> None:
        if play.state("middle") is state:
            play.sample("middle", 0, Phase.LOADING, queued=seconds if starved else 0.0)

    middle = play.machine.processes["middle"]
    lived = _late_watch(play, lambda: middle.deadline if middle.state is state else None, look)
    if state is State.STOPPING:
        assert lived <= STOP_STARVED_MAX * limit + 2.0
    else:
        assert (lived >= LATE_FOR_S) is starved
        assert starved or limit < lived <= (OVERSLEPT_MAX + 1) * (limit + 2.0) + 5.0


@pytest.mark.parametrize("starved", [False, True])
def test_supervisor_that_is_always_late_finds_a_hung_successor(starved: bool) -> None:
    """Nor does a successor load for ever; the process that works stays."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 6000.0))
    play.forked("middle", _heir(play).incarnation)
    heir, limit = _heir(play), LIMITS.start_timeout

    def look(seconds: float) -> None:
        for name in ("monitor", *CHAIN):
            play.sample(name, int(seconds * 1000))
        play.look(heir, queued=seconds if starved else 0.0)

    killed = p.Kill("middle", heir.incarnation)
    lived = _late_watch(play, lambda: None if killed in play.history else heir.deadline, look)
    assert (lived >= LATE_FOR_S) is starved
    assert starved or limit < lived <= (OVERSLEPT_MAX + 1) * (limit + 2.0) + 5.0
    assert play.state("middle") is State.RUNNING


def test_looks_that_are_always_late_find_the_hung() -> None:
    """Of the time between two looks at a running process at most half of `hang_timeout` counts, but that counts each
    time: with looks 20 s apart it is found at the third."""
    play = Play().up()
    found = []
    for _ in range(3):
        play.sample("middle", 5)
        found.append("stage_hung" in play.logged())
        play.now += 20.0
    assert found == [False, False, True]


def test_stop_ends_on_a_machine_that_was_frozen() -> None:
    """Who was asked to leave before the machine stood still is killed once its bound has passed."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("middle",), 60.0))
    play.now += 3600.0
    play.say(p.Tick(0))
    play.sample("middle", 5, Phase.LEAVING)
    play.wait(1.0)
    assert play.state("middle") is State.KILLING


def test_no_readiness_at_the_end() -> None:
    """A shutdown in the middle of a start makes nobody ready, though nobody is wanted any more."""
    play = Play()
    play.say(p.LauncherReady())
    for name in ("monitor", *CHAIN):
        play.forked(name)
    for event in (p.Shutdown("SIGTERM"), p.FarewellSaid()):
        play.say(event)
        assert not play.machine.settled
    for name in (*CHAIN, "monitor"):
        play.died(name)
        assert not play.machine.settled
    assert play.of(p.Quit)


def test_time_that_nobody_looked_does_not_count() -> None:
    """When the supervisor itself stood still (a frozen machine), the others are not to blame for it."""
    play = Play().up()
    play.sample("middle", 5)
    play.now += 3600.0
    play.sample("middle", 5)
    play.wait(0.5)
    assert not [c for c in play.history if isinstance(c, p.Kill)]


@pytest.mark.parametrize(
    ("phase", "flags", "hung"),
    [
        (Phase.PROCESSING, {}, True),
        (Phase.RESTORING, {}, True),
        (Phase.PREPARING, {}, True),
        (Phase.WAITING, {}, False),
        (Phase.WAITING, {"waiting_input": True}, True),
        (Phase.WAITING, {"waiting_control": True}, True),
        (Phase.BLOCKED, {"blocked_output": True}, False),
        (Phase.BLOCKED, {"blocked_output": False}, True),
        (Phase.THROTTLED, {"waiting_input": True}, False),
        (Phase.THROTTLED, {"waiting_control": True}, True),
        (Phase.ENDED, {}, False),
        (Phase.ENDED, {"kernel": "T"}, True),
        (Phase.ALIGNING, {"kernel": "t"}, True),
    ],
)
def test_slow_is_not_hung(phase: Phase, flags: dict[str, Any], hung: bool) -> None:
    """Only a process that has something to do and is held up by nobody else counts as hung."""
    play = Play().up()
    play.stall("middle", 9, phase=phase, **flags)
    play.wait(0.5)
    assert bool([c for c in play.history if isinstance(c, p.Kill)]) is hung


@pytest.mark.parametrize("waits", [Phase.CREDITS, Phase.SLOTS])
@pytest.mark.parametrize(
    ("sink", "found", "stuck"),
    [
        (Phase.WAITING, {}, True),
        (Phase.WAITING, {"waiting_input": True}, False),  # it has work: hung, if anything
        (Phase.PROCESSING, {}, False),
        (Phase.HOLDING, {}, False),
    ],
)
def test_credits_that_nobody_will_give_back(waits: Phase, sink: Phase, found: dict[str, Any], stuck: bool) -> None:
    """A writer that waits for credits, or slots, above readers that all wait for input, for `hang_timeout`: one new
    generation, and nobody is killed for it. As long as one of them has work, or holds, it is not so."""
    play = Play().up()
    for second in range(9):
        assert play.machine.generation == 1, f"not before hang_timeout, but after {second} s"
        play.sample("sink", 3, sink, **found)
        play.sample("middle", 3, Phase.WAITING)
        play.sample("source", 3, waits, blocked_output=True)
        play.now += 1.0
    assert (play.machine.generation == 2) is stuck
    assert not [c for c in play.history if isinstance(c, p.Kill)]


def test_credits_are_not_missed_in_a_drain_or_while_pulses_move() -> None:
    """A pulse that moves ends the wait; the end of a drain that is stuck is `drain_timeout`, not a generation."""
    for closing in (False, True):
        play = Play().up()
        if closing:
            play.say(p.Shutdown("SIGTERM"))
        for second in range(15):
            play.sample("sink", 3 if closing else second, Phase.WAITING)
            play.sample("middle", 3, Phase.WAITING)
            play.sample("source", 3, Phase.CREDITS, blocked_output=True)
            play.now += 1.0
        assert play.machine.generation == 1


def test_epoch_from_barrier_to_commit() -> None:
    """Barriers to the sources, the manifest when all snapshots are durable, commit to the sinks, then the news."""
    play = Play().up()
    play.emitted = 10
    assert [c for c in play.wait(1.0) if isinstance(c, AskBarrier)] == [AskBarrier("source", 1, 1, False)]
    play.snapshots(1)
    assert [(w.epoch, [part.stage for part in w.parts]) for w in play.of(WriteManifest)] == [(1, list(CHAIN))]
    play.say(p.ManifestWritten(1, 1))
    assert play.kinds() == ["AskCommit"]
    play.say(p.CommitDone("sink", 1, 1))
    assert [t.epoch for t in play.of(TellCommitted)] == [1]


def test_no_epoch_without_new_records() -> None:
    """A pipeline that nothing has come into makes no epochs."""
    play = Play().up()
    play.emitted = 10
    play.wait(1.0)
    play.commit(1)
    assert not [c for c in play.wait(5.0) if isinstance(c, AskBarrier)]


def test_reset_waits_for_a_manifest_under_way() -> None:
    """While a manifest may still become the commit, nobody is told which epoch to restore."""
    play = Play().up()
    play.emitted = 10
    play.wait(1.0)
    play.snapshots(1)
    play.died("middle")
    assert not play.of(p.SendReset)
    play.say(p.ManifestWritten(1, 1))
    assert {r.epoch for r in play.of(p.SendReset)} == {1}


def test_snapshot_of_an_old_generation_is_dropped() -> None:
    """What a former generation says about its epoch does not count in the new one."""
    play = Play().up()
    play.emitted = 10
    play.wait(1.0)
    play.died("middle")
    play.born("middle")
    play.all_ready()
    play.wait(1.0)
    for name in CHAIN:
        play.say(p.SnapshotDone(1, 1, Part(name, "old", 1, 1)))
    assert not play.of(WriteManifest)


def test_aborted_epoch_burns_its_number() -> None:
    """A failed write aborts the epoch; the next attempt comes later and has another number."""
    play = Play().up()
    play.emitted = 10
    play.wait(1.0)
    play.say(p.SnapshotFailed("middle", 1, 1, "no space"))
    assert "epoch_aborted" in play.logged()
    assert play.machine.epochs.failure == "no space"
    barriers = [c for c in play.wait(0.5) if isinstance(c, AskBarrier)]
    assert [b.epoch for b in barriers] == [2]


def test_end_of_stream_is_committed() -> None:
    """When every source has ended a final epoch is made, and 'finished' is said when the sinks have it."""
    play = Play().up()
    play.say(p.SourceEnded("source", 1, 0))
    assert play.kinds() == ["AskBarrier"]
    play.snapshots(1)
    assert play.of(WriteManifest)[0].finished
    play.say(p.ManifestWritten(1, 1))
    assert not play.of(p.Finished)
    play.say(p.CommitDone("sink", 1, 1))
    assert play.of(p.Finished) == [p.Finished(1)]


def test_restored_end_of_stream_makes_no_epoch() -> None:
    """A finished pipeline that is started again is finished as soon as its sources have ended again."""
    play = Play(finished=True, committed=7).up()
    assert not play.of(p.Finished)
    play.say(p.SourceEnded("source", 1, 0))
    assert play.of(p.Finished) == [p.Finished(7)]
    assert not play.of(AskBarrier)
    assert not [c for c in play.wait(5.0) if isinstance(c, AskBarrier)]


def test_shutdown_drains_then_leaves_in_reverse() -> None:
    """On shutdown one held epoch is committed, then stages leave from the end, then the services, then we quit."""
    play = Play().up()
    play.emitted = 5
    play.say(p.Shutdown("SIGTERM"))
    assert play.of(AskBarrier) == [AskBarrier("source", 1, 1, True)]
    play.commit(1)
    assert play.of(p.Farewell)
    play.say(p.FarewellSaid())
    assert [a.name for a in play.of(p.AskLeave)] == ["sink", "middle", "source"]
    for name in CHAIN:
        play.died(name)
    assert [a.name for a in play.of(p.AskLeave)] == ["monitor"]
    play.died("monitor")
    assert play.of(p.Quit)


def test_drain_has_a_deadline() -> None:
    """A drain that cannot finish ends at `drain_timeout`; the next start repeats from the committed epoch."""
    play = Play().up()
    play.say(p.Shutdown("SIGTERM"))
    play.wait(20.0)
    assert "drain_timed_out" in play.logged()
    assert play.of(p.Farewell)


def test_second_shutdown_skips_the_drain() -> None:
    """An impatient operator is obeyed."""
    play = Play().up()
    play.say(p.Shutdown("SIGINT"))
    play.say(p.Shutdown("SIGINT"))
    assert [a.name for a in play.of(p.AskLeave)] == ["sink", "middle", "source"]


def test_death_during_the_drain_does_not_restart() -> None:
    """A stage that dies while we drain is not forked again."""
    play = Play().up()
    play.say(p.Shutdown("SIGTERM"))
    play.died("middle")
    assert not play.of(p.Fork)
    assert play.of(p.Farewell)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("seed", range(200))
def test_random_schedules_come_back(seed: int) -> None:
    """Whatever dies in whatever order, and whoever asks for what, a patient world has the pipeline running again,
    with one living process per name; no event is impossible on the way."""
    rng = random.Random(seed)
    play = Play(max_restarts=10**6).up()
    world = World(play, rng)
    for _ in range(60):
        world.step()
    world.settle()
    assert play.machine.running
    assert all(is_alive(q.state) for q in play.machine.processes.values())
    assert all(q.successor is None for q in play.machine.processes.values())


class World:
    """Answers commands in random order, late, and kills at random."""

    def __init__(self, play: Play, rng: random.Random) -> None:
        self.play = play
        self.rng = rng
        self.seen = len(play.history)
        self.alive = {(n, q.incarnation) for n, q in play.machine.processes.items()}
        self.launcher = True
        self.todo: list[p.Event] = []
        self.ticket = 0

    def step(self) -> None:
        self._absorb()
        choice = self.rng.random()
        if choice < 0.15 and self.alive:
            self._end(self.rng.choice(sorted(self.alive)))
        elif choice < 0.2 and self.launcher:
            self.launcher = False
            self.todo = [e for e in self.todo if not isinstance(e, p.Forked | p.LauncherReady)]
            self.play.say(p.LauncherDied("killed"))
        elif choice < 0.35:
            self.ticket += 1
            verb = self.rng.choice(["start", "stop", "restart"])
            names = tuple(self.rng.sample(["monitor", *CHAIN], self.rng.randint(0, 2)))
            self.play.say(p.Operate(self.ticket, verb, names, 30.0))  # type: ignore[arg-type]  # one of the three verbs
        elif choice < 0.45:
            self.play.emitted += 1
            self.play.wait(self.rng.choice([0.0, 0.1, 2.0]))
        elif self.todo:
            self._deliver(self.todo.pop(self.rng.randrange(len(self.todo))))

    def settle(self) -> None:
        """Nobody dies any more; everything that is stopped is started."""
        self.play.say(p.Operate(10**6, "start", (), 10**6))
        for _ in range(400):
            self._absorb()
            if self.todo:
                self._deliver(self.todo.pop(0))
            else:
                self.play.wait(1.0)

    def _deliver(self, event: p.Event) -> None:
        if isinstance(event, p.Forked):
            self.alive.add((event.name, event.incarnation))
        elif isinstance(event, p.Loaded | p.Ready) and (event.name, event.incarnation) not in self.alive:
            return
        self.play.say(event)

    def _end(self, key: tuple[str, int]) -> None:
        self.alive.discard(key)
        self.play.say(p.Died(*key, "killed by SIGKILL"))

    def _absorb(self) -> None:
        while self.seen < len(self.play.history):
            command = self.play.history[self.seen]
            self.seen += 1
            match command:
                case p.StartLauncher():
                    self.launcher = True
                    self.todo.append(p.LauncherReady())
                case p.Fork(name, incarnation):
                    self.todo += [p.Forked(name, incarnation, 9), p.Loaded(name, incarnation)]
                case p.SendReset(name, incarnation, generation, _):
                    self.todo.append(p.Ready(name, incarnation, generation))
                case p.AskLeave(name, incarnation) | p.Kill(name, incarnation):
                    pending = [e for e in self.todo if isinstance(e, p.Forked) and e.incarnation == incarnation]
                    if (name, incarnation) in self.alive:
                        self._end((name, incarnation))
                    elif not pending:
                        self.play.say(p.Died(name, incarnation, "was never forked"))
                case p.KillLauncher(name, incarnation) if not self.launcher:
                    self.play.say(p.Died(name, incarnation, "was never forked"))
                case p.KillLauncher():
                    self.launcher = False
                    self.todo = [e for e in self.todo if not isinstance(e, p.Forked | p.LauncherReady)]
                    self.play.say(p.LauncherDied("killed"))
                case AskBarrier(_, generation, epoch, _):
                    self.todo += [p.SnapshotDone(generation, epoch, Part(n, "f", 1, 1)) for n in CHAIN]
                case WriteManifest(generation, epoch, _, _):
                    self.todo.append(p.ManifestWritten(generation, epoch))
                case p.AskCommit(stage, generation, epoch):
                    self.todo.append(p.CommitDone(stage, generation, epoch))
