"""A reload: what differs, what is refused, and how the new plan takes effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import AskBarrier
from streampiped.core.health import Sample
from streampiped.core.lifecycle import State
from streampiped.core.reload import LIVE, Difference, aligned, compare
from streampiped.errors import ExitCode
from streampiped.phases import Phase
from streampiped.topology import (
    Checkpoint,
    Control,
    Links,
    Logs,
    Metrics,
    Paths,
    Plan,
    StageSpec,
    Supervision,
    Thresholds,
)
from support.transcript import CHAIN, Play

PLAN = Plan(
    "proof", 0, "/etc/streampipe.toml", Paths("/state", "/run", "/log"),
    (
        StageSpec("source", "a:Source", "source", options={"rate": 10}),
        StageSpec("middle", "a:Middle", "transform", ("source",), {"limit": 1.0, "names": ["x"]}),
        StageSpec("sink", "a:Sink", "sink", ("middle",)),
    ),
    (
        StageSpec("monitor", "a:Monitor", "service", options={"period": 1.0}),
        StageSpec("service_monitor", "a:B", "service"),
    ),
)  # fmt: skip


def with_stage(name: str, **values: Any) -> Plan:
    """The plan with one process changed."""
    change = tuple(replace(spec, **values) if spec.name == name else spec for spec in PLAN.stages)
    services = tuple(replace(spec, **values) if spec.name == name else spec for spec in PLAN.services)
    return replace(PLAN, stages=change, services=services)


NOTHING = Difference()
OTHER_STATE = "the kept state is of other stages: needs another state directory, or --fresh"


@pytest.mark.parametrize(
    ("new", "changes", "replaced"),
    [
        (PLAN, (), ()),
        (with_stage("middle", options={"limit": 2.0, "names": ["x"]}),
         ("stages.middle.limit: 1.0 -> 2.0",), ("middle",)),
        (with_stage("middle", options={"names": ["x", "y"]}),
         ("stages.middle.limit: 1.0 -> unset", "stages.middle.names: ['x'] -> ['x', 'y']"), ("middle",)),
        (with_stage("sink", options={"path": "x"}), ("stages.sink.path: unset -> 'x'",), ("sink",)),
        (with_stage("source", max_rate=5.0), ("stages.source.max_rate: unset -> 5.0",), ("source",)),
        (with_stage("source", hang_timeout=5.0), ("stages.source.hang_timeout: 30.0 -> 5.0",), ()),
        (with_stage("monitor", options={"period": 2.0}), ("monitor.period: 1.0 -> 2.0",), ("monitor",)),
        (replace(PLAN, checkpoint=Checkpoint(0.5)), ("checkpoint.interval: 1.0 -> 0.5",), ()),
        (replace(PLAN, checkpoint=Checkpoint(1.0, 7)), ("checkpoint.retain_epochs: 3 -> 7",), ("sink",)),
        (replace(PLAN, supervision=Supervision(max_restarts=9)), ("supervision.max_restarts: 5 -> 9",), ()),
        (replace(PLAN, control=Control(operators=("ann",))), ("control.operators: [] -> ['ann']",), ()),
        (replace(PLAN, logs=Logs("debug")), ("logs.level: 'info' -> 'debug'",), ()),
        (replace(PLAN, health=Thresholds(stalled_after=3.0)), ("health.stalled_after: 10.0 -> 3.0",), ()),
        (replace(PLAN, metrics=Metrics("127.0.0.1:9")),
         ("metrics.listen: unset -> '127.0.0.1:9'",), ("service_monitor",)),
    ],
)  # fmt: skip
def test_what_can_be_had(new: Plan, changes: tuple[str, ...], replaced: tuple[str, ...]) -> None:
    """Every setting that differs is named with both values; others are the processes that were told of it, and they
    alone. A sink is told how far it may have to go back."""
    assert compare(PLAN, new) == Difference(changes, replaced)


@pytest.mark.parametrize(
    ("new", "refused"),
    [
        (replace(PLAN, pipeline="other"), "pipeline.name: 'proof' -> 'other'"),
        (replace(PLAN, seed=1), "pipeline.seed: 0 -> 1"),
        (replace(PLAN, python_path=("/x",)), "pipeline.python_path: [] -> ['/x']"),
        (replace(PLAN, paths=Paths("/new", "/run", "/log")), "paths.state: '/state' -> '/new'"),
        (replace(PLAN, links=Links(pipe_bytes=4096)), "links.pipe_bytes: 1048576 -> 4096"),
        (replace(PLAN, control=Control("wheel")), "control.group: 'streampipe' -> 'wheel'"),
        (replace(PLAN, logs=Logs(files_kept=9)), "logs.files_kept: 2 -> 9"),
        (replace(PLAN, supervision=Supervision(probe_timeout=2.0)), "supervision.probe_timeout: 1.0 -> 2.0"),
        (replace(PLAN, services=PLAN.services[1:]), "monitor: removed"),
        (with_stage("sink", inputs=("source",)), "stages.sink.input: ['middle'] -> ['source']"),
    ],
)  # fmt: skip
def test_what_needs_a_restart(new: Plan, refused: str) -> None:
    """What is in the daemon's sockets, pipes and directories, or in every process, is refused by its name."""
    assert compare(PLAN, new).refused == (f"{refused}: needs a restart of the daemon (systemctl restart)",)


@pytest.mark.parametrize(
    ("new", "refused"),
    [
        (with_stage("middle", klass="b:Middle"), "stages.middle.class: a:Middle -> b:Middle"),
        (replace(PLAN, stages=PLAN.stages[:2]), "stages.sink: removed"),
        (replace(PLAN, stages=(*PLAN.stages, StageSpec("more", "a:B", "sink", ("middle",)))), "stages.more: added"),
    ],
)
def test_what_the_state_does_not_allow(new: Plan, refused: str) -> None:
    """Other stages, or another class of one, are refused as a start with the same state directory would be."""
    assert compare(PLAN, new).refused == (f"{refused}: {OTHER_STATE}",)


def test_one_refusal_among_changes() -> None:
    """A change that can be had is told beside one that cannot, and only the latter is a reason."""
    found = compare(PLAN, replace(with_stage("sink", options={"path": "x"}), seed=1))
    assert found.changes == ("pipeline.seed: 0 -> 1", "stages.sink.path: unset -> 'x'")
    assert len(found.refused) == 1


def test_every_setting_is_judged() -> None:
    """Each setting that can be had while the daemon runs is one that there is."""
    assert {key for key in LIVE if not hasattr(getattr(PLAN, key.split(".")[0]), key.split(".")[1])} == set()


def test_order_of_tables_is_no_change() -> None:
    """Tables that were moved in the file leave every stage at its place of the plan."""
    moved = replace(PLAN, stages=(PLAN.stages[0], PLAN.stages[2], PLAN.stages[1]))
    assert aligned(PLAN, moved) == PLAN
    other = replace(moved, stages=moved.stages[:2])
    assert aligned(PLAN, other) == other


# transcripts


def reload(play: Play, *names: str, ticket: int = 1, plan: Plan = PLAN, timeout: float = 30.0) -> list[p.Command]:
    return play.say(p.Reload(ticket, plan, names, timeout))


def answers(play: Play) -> list[tuple[int, int]]:
    return [(a.ticket, a.code) for a in play.history if isinstance(a, p.Answer)]


def heirs(play: Play, *names: str) -> dict[str, int]:
    found = {name: play.machine.processes[name].successor for name in names}
    return {name: heir.incarnation for name, heir in found.items() if heir is not None}


def test_changed_stages_are_replaced_behind_a_held_epoch() -> None:
    """Successors of all changed stages import first; behind one held epoch they take over together, in the moment in
    which the plan takes effect; nobody else is forked or asked to leave."""
    play = Play().up()
    before = {name: play.incarnation(name) for name in ("monitor", *CHAIN)}
    reload(play, "middle", "sink")
    new = heirs(play, "middle", "sink")
    assert play.machine.processes["middle"].successor.renewed  # type: ignore[union-attr]  # there is one
    for name, number in new.items():
        play.born(name, number)
    assert not [c for c in play.history if isinstance(c, p.Adopt)]
    play.hold()
    assert {c.name for c in play.of(p.AskLeave)} == {"middle", "sink"}
    play.died("middle")
    assert not play.of(p.Adopt)
    play.died("sink")
    kinds = play.kinds()
    assert kinds.index("Adopt") < kinds.index("SendReset")
    play.all_ready()
    assert answers(play) == [(1, ExitCode.OK)]
    assert {name: play.incarnation(name) for name in before} == before | new
    assert play.machine.generation == 2


def test_live_settings_take_effect_at_once() -> None:
    """Where no process changes nobody holds and nothing is reset; the limits are the new ones."""
    play = Play().up()
    plan = replace(PLAN, supervision=Supervision(drain_timeout=1.0, max_restarts=0), checkpoint=Checkpoint(0.1))
    reload(play, plan=plan)
    assert play.kinds() == ["Adopt", "Answer"]
    play.emitted = 1
    play.wait(0.11)
    assert play.of(AskBarrier)
    play.died("middle")
    assert play.state("middle") is State.FAILED
    play.say(p.Shutdown("SIGTERM"))


def test_service_gets_its_options_when_it_is_forked_again() -> None:
    """A service is asked to leave once the plan is in effect, so that the next one is told the new plan."""
    play = Play().up()
    reload(play, "monitor")
    assert play.kinds() == ["Adopt", "AskLeave"]
    play.died("monitor")
    assert play.of(p.Fork)
    assert not answers(play)
    play.born("monitor")
    assert answers(play) == [(1, ExitCode.OK)]
    assert play.machine.generation == 1


def test_successor_that_refuses_the_state_refuses_all() -> None:
    """When one successor cannot restore what the old stage has, the others are dropped too and nothing has changed."""
    play = Play().up()
    reload(play, "middle", "sink")
    new = heirs(play, "middle", "sink")
    play.born("middle", new["middle"])
    play.forked("sink", new["sink"])
    play.say(p.Failed("sink", new["sink"], "restore", "StateError: other features"))
    play.died("sink", new["sink"])
    assert [c.name for c in play.of(p.Kill)] == ["middle"]
    assert answers(play) == [(1, ExitCode.FAILED)]
    assert "other features" in play.of(p.Answer)[0].text
    assert play.machine.running
    assert not [c for c in play.history if isinstance(c, p.Adopt)]


def test_stop_beats_reload() -> None:
    """A stop of a stage that is about to be replaced refuses the reload as a whole."""
    play = Play().up()
    reload(play, "middle", "sink")
    play.say(p.Operate(2, "stop", ("middle",), 30.0))
    assert answers(play) == [(1, ExitCode.REFUSED)]
    assert not heirs(play, "middle", "sink")
    play.died("middle")
    assert not [c for c in play.history if isinstance(c, p.Adopt)]


def test_shutdown_refuses_a_reload() -> None:
    """Whoever is on the way out takes over no configuration, neither one under way nor a new one."""
    play = Play().up()
    reload(play, "middle")
    play.say(p.Shutdown("SIGTERM"))
    reload(play, "sink", ticket=2)
    assert answers(play) == [(1, ExitCode.REFUSED), (2, ExitCode.REFUSED)]


def test_slow_reload_is_told_and_goes_on() -> None:
    """Whoever does not want to wait longer is told what it waits for; the reload comes about all the same."""
    play = Play().up()
    reload(play, "middle", timeout=1.0)
    play.wait(1.0)
    assert answers(play) == [(1, ExitCode.TIMED_OUT)]
    assert "its successor still imports" in play.of(p.Answer)[0].text
    play.born("middle", heirs(play, "middle")["middle"])
    play.hold()
    play.died("middle")
    play.all_ready()
    assert answers(play)[1:] == [(1, ExitCode.OK)]


def test_commands_come_one_after_the_other() -> None:
    """A restart that is asked for meanwhile begins when the reload is over."""
    play = Play().up()
    reload(play, "middle")
    number = heirs(play, "middle")["middle"]
    play.say(p.Operate(2, "restart", ("middle",), 30.0))
    assert heirs(play, "middle") == {"middle": number}
    play.born("middle", number)
    play.hold()
    play.died("middle")
    play.all_ready()
    assert answers(play) == [(1, ExitCode.OK)]
    assert heirs(play, "middle")["middle"] != number


def test_restart_that_nobody_waits_for_gets_the_new_plan() -> None:
    """The successor of a restart that takes too long is replaced by one that knows the new plan; both wishes end with
    it."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("middle",), 1.0))
    old = heirs(play, "middle")["middle"]
    play.wait(1.0)
    reload(play, "middle", ticket=2)
    assert [c.incarnation for c in play.of(p.Kill)] == [old]
    number = heirs(play, "middle")["middle"]
    play.died("middle", old)
    play.born("middle", number)
    play.hold()
    play.died("middle")
    play.all_ready()
    assert answers(play) == [(1, ExitCode.TIMED_OUT), (2, ExitCode.OK), (1, ExitCode.OK)]


def test_restart_that_fails_leaves_the_reload_whole() -> None:
    """A restart that nobody waits for has given a successor to a reload. When its other one fails, the restart
    alone fails with it: either all stages of a reload take over or none."""
    play = Play().up()
    play.say(p.Operate(1, "restart", ("sink", "middle"), 1.0))
    failing = heirs(play, "sink")["sink"]
    play.wait(1.0)
    reload(play, "middle", "source", ticket=2)
    numbers = heirs(play, "middle", "source")
    play.died("sink", failing)
    assert answers(play) == [(1, ExitCode.TIMED_OUT), (1, ExitCode.FAILED)]
    assert heirs(play, "middle", "source") == numbers
    for name, number in numbers.items():
        play.born(name, number)
    play.hold()
    for name in numbers:
        play.died(name)
    play.all_ready()
    assert answers(play)[2:] == [(2, ExitCode.OK)]


def test_starved_successor_has_the_time_that_it_did_not_get() -> None:
    """A successor that has not loaded in time is looked at: what it waited for a CPU does not count, the rest does."""
    play = Play().up()
    reload(play, "middle")
    number = heirs(play, "middle")["middle"]
    play.say(p.Forked("middle", number, 99))
    heir = play.machine.processes["middle"].successor
    assert heir is not None
    limit = Supervision().start_timeout
    play.wait(limit)
    assert heir.asked
    waited = Sample(0, Phase.LOADING, False, False, False, cpu=1.0, queued=limit - 1.0)
    play.say(p.Sampled("middle", number, waited))
    play.wait(limit - 2.0)
    assert not heir.asked
    play.wait(1.5)
    assert heir.asked
    play.say(p.Sampled("middle", number, waited))
    assert p.Kill("middle", number) in play.of(p.Kill)


def test_crash_while_a_successor_imports() -> None:
    """When the old stage dies meanwhile, its successor takes over at once, with the new plan, from the last epoch."""
    play = Play().up()
    reload(play, "middle")
    number = heirs(play, "middle")["middle"]
    play.died("middle")
    assert not play.of(p.Fork)
    play.born("middle", number)
    assert play.of(p.Adopt)
    play.all_ready()
    assert answers(play) == [(1, ExitCode.OK)]


def test_reload_brings_back_what_has_failed() -> None:
    """A stage that was given up gets a successor: that may be what the file was edited for."""
    play = Play(max_restarts=0).up()
    play.died("middle")
    assert play.state("middle") is State.FAILED
    reload(play, "middle")
    play.born("middle", heirs(play, "middle")["middle"])
    play.all_ready()
    assert answers(play) == [(1, ExitCode.OK)]
    assert play.machine.running


def test_stopped_stage_stays_stopped() -> None:
    """A reload starts nothing that an operator has stopped; the next start brings the new options."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("middle",), 30.0))
    play.died("middle")
    reload(play, "middle", ticket=2)
    assert play.of(p.Adopt)
    assert not play.of(p.Fork)
    assert answers(play)[-1] == (2, ExitCode.OK)
    assert play.state("middle") is State.STOPPED


def test_start_during_a_reload_is_of_the_new_plan_in_the_end() -> None:
    """A stage that was stopped when the reload began, and is started before it takes effect, is replaced again: none is
    left with the old options."""
    play = Play().up()
    play.say(p.Operate(1, "stop", ("middle",), 30.0))
    play.died("middle")
    reload(play, "middle", "sink", ticket=2, timeout=1.0)
    play.wait(1.0)
    play.say(p.Operate(3, "start", ("middle",), 30.0))
    play.born("middle")
    started = play.incarnation("middle")
    play.born("sink", heirs(play, "sink")["sink"])
    play.died("sink")
    assert play.of(p.Adopt)
    assert [c.name for c in play.of(p.AskLeave)] == ["middle"]
    play.died("middle")
    play.born("middle")
    play.all_ready()
    assert play.incarnation("middle") != started
    assert dict(answers(play))[2] == ExitCode.OK


def test_failure_behind_the_reload_is_told_as_one() -> None:
    """When a stage is given up with its new options the plan has been taken over, and the operator is told of the
    stage."""
    play = Play(max_restarts=0).up()
    plan = replace(PLAN, supervision=Supervision(max_restarts=0))
    reload(play, "middle", plan=plan)
    play.born("middle", heirs(play, "middle")["middle"])
    play.hold()
    play.died("middle")
    assert play.of(p.Adopt)
    play.died("middle")
    assert answers(play) == [(1, ExitCode.FAILED)]
    assert "middle failed" in play.of(p.Answer)[0].text
