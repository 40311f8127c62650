"""The judgement of health: who is how, with which reason, and that it does not flicker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from streampiped.core.health import Sample
from streampiped.core.judgement import Health, Judge, Look, Member, Verdict, Whole
from streampiped.core.lifecycle import State
from streampiped.phases import Phase
from streampiped.topology import Thresholds

CHAIN = (Member("source"), Member("middle", ("source",)), Member("sink", ("middle",)), Member("log", service=True))
LIMITS = Thresholds(lagging_after=5.0, stalled_after=10.0, flapping_deaths=3, epoch_after=30.0, clear_after=5.0)


def sample(phase: Phase = Phase.WAITING, pulse: int = 0, *, work: bool = False, blocked: bool = False) -> Sample:
    return Sample(pulse, phase, waiting_input=work, waiting_control=False, blocked_output=blocked)


def running(phase: Phase = Phase.WAITING, pulse: int = 0, *, age: float = 0.0, work: bool = False) -> Look:
    """Of a process that runs and is done with batch number `pulse`, which was `age` seconds old; a phase that waits for
    readers is one whose output is full."""
    blocked = phase in (Phase.BLOCKED, Phase.CREDITS, Phase.SLOTS)
    return Look(
        State.RUNNING, sample=sample(phase, pulse, work=work, blocked=blocked), generation=1, batches=pulse, age=age
    )


def stopped() -> Look:
    """Of a process under SIGSTOP that has work."""
    look = running(work=True)
    assert look.sample is not None
    return replace(look, sample=replace(look.sample, kernel="T"))


class Ward:
    """A pipeline that is looked at once a second."""

    def __init__(self, members: tuple[Member, ...] = CHAIN, limits: Thresholds = LIMITS) -> None:
        self._judge = Judge(members, limits)
        self._looks = {member.name: running() for member in members}
        self.now = 0.0
        self.whole = Verdict(Health.HEALTHY)
        self.history: list[dict[str, Health]] = []

    def passes(self, seconds: int, whole: Whole | None = None, **looks: Look) -> Mapping[str, Verdict]:
        """So many looks of the same kind: batches go on where an `age` is given."""
        for _ in range(seconds):
            self.now += 1.0
            for name, look in looks.items():
                pulse = int(self.now) if look.age else look.batches
                self._looks[name] = replace(
                    look, batches=pulse, sample=replace(look.sample, pulse=pulse) if look.sample else None
                )
            self.whole, verdicts = self._judge.look(self._looks, whole or Whole(), self.now)
            self.history.append({name: verdict.health for name, verdict in verdicts.items()})
        return verdicts


STOPPED = Look(State.STOPPED, wanted=False)
DOWN = Look(State.FAILED, reason="x")
BUSY = running(Phase.PROCESSING)
HELD = running(Phase.CREDITS)
RESETTING = Look(State.RESETTING, in_state=3.0)


@pytest.mark.parametrize(
    ("seconds", "looks", "name", "health", "words"),
    [
        (60, {}, "middle", Health.HEALTHY, None),
        (60, {"source": running(Phase.ENDED)}, "source", Health.HEALTHY, None),
        (60, {"source": running(Phase.HOLDING)}, "source", Health.HEALTHY, None),
        (60, {"middle": STOPPED}, "middle", Health.HEALTHY, "stopped by an operator"),
        (60, {"middle": STOPPED, "sink": Look(State.READY)},
         "sink", Health.HEALTHY, "waits for middle, which is stopped"),
        (9, {"middle": BUSY}, "middle", Health.LAGGING, "its records are 8.0 s old, at most 5 s"),
        (12, {"middle": BUSY}, "middle", Health.STALLED, "no progress for 11.0 s in phase processing; at most 10 s"),
        (12, {"middle": running(work=True)}, "middle", Health.STALLED, "in phase waiting, with input unread; at most"),
        (12, {"middle": stopped()},
         "middle", Health.STALLED, "input unread, stopped by a signal (SIGSTOP"),
        (60, {"source": HELD, "middle": BUSY}, "source", Health.HEALTHY, "held up by middle"),
        (60, {"middle": BUSY}, "sink", Health.HEALTHY, None),
        (60, {"log": BUSY}, "log", Health.STALLED, "no progress for 59.0 s in phase processing"),
        (1, {"middle": replace(running(), deaths=2, reason="exit status 3")}, "middle", Health.HEALTHY, None),
        (1, {"middle": replace(running(), deaths=3, reason="exit status 3")},
         "middle", Health.FLAPPING, "died 3 times within 60 s, last: exit status 3"),
        (1, {"middle": Look(State.BACKOFF, deaths=4, reason="ValueError: x", next_attempt=0.4)},
         "middle", Health.FLAPPING, "died 4 times within 60 s, last: ValueError: x; next attempt in 0.4 s"),
        (1, {"middle": Look(State.BACKOFF, reason="exit status 3", next_attempt=0.4)},
         "middle", Health.HEALTHY, "died: exit status 3; next attempt in 0.4 s"),
        (1, {"middle": replace(DOWN, deaths=6)}, "middle", Health.FAILED, "given up: x"),
        (1, {"middle": Look(State.LOADING, in_state=9.0)}, "middle", Health.HEALTHY, "loading for 9.0 s"),
        (1, {"middle": Look(State.LOADING, in_state=11.0)}, "middle", Health.STALLED, "still loading after 11.0 s"),
        (60, {"middle": RESETTING, "sink": Look(State.READY, in_state=60.0)},
         "sink", Health.HEALTHY, "waits for middle, which is resetting"),
    ],
)  # fmt: skip
def test_verdicts(seconds: int, looks: dict[str, Look], name: str, health: Health, words: str | None) -> None:
    """What a process is said to be after so many seconds in which the looks were these, and with which words."""
    verdict = Ward().passes(seconds, **looks)[name]
    assert verdict.health is health
    assert (verdict.reason is None) if words is None else (verdict.reason is not None and words in verdict.reason)


SLOW = {"source": running(Phase.CREDITS, age=0.001), "middle": running(Phase.CREDITS, age=4.0)}


@pytest.mark.parametrize(
    ("looks", "lagging"),
    [
        ({**SLOW, "sink": running(Phase.PROCESSING, age=8.0)}, "sink"),
        ({**SLOW, "middle": running(Phase.CREDITS, age=7.0), "sink": running(Phase.PROCESSING, age=8.0)}, "sink"),
        ({"source": HELD, "middle": running(Phase.PROCESSING, age=8.0), "sink": running(age=8.1)}, "middle"),
        ({"source": HELD, "middle": running(Phase.PROCESSING, age=4.99), "sink": running(age=5.01)}, "middle"),
        ({"source": HELD, "middle": running(Phase.THROTTLED, age=20.0), "sink": running(age=20.1)}, None),
        ({"source": running(age=0.001), "middle": running(age=0.1), "sink": running(age=4.0)}, None),
    ],
)
def test_the_slow_one_is_lagging(looks: dict[str, Look], lagging: str | None) -> None:
    """Late records are held against the stage that makes them late: not against those that it holds up before it, nor
    those that get them late behind it, nor against one whose `max_rate` an operator wanted."""
    ward = Ward()
    verdicts = ward.passes(20, **looks)
    found = {name for name, verdict in verdicts.items() if verdict.health is not Health.HEALTHY}
    assert found == ({lagging} if lagging else set())
    assert {verdicts[name].cause for name in verdicts} <= {None, lagging or "middle"}
    assert ward.whole.cause == lagging


def test_a_branch_that_is_held_up_by_the_other() -> None:
    """Behind a fork one slow reader holds up all; the other branch gets its records late and is not to blame."""
    fork = (Member("source"), Member("fork", ("source",)), Member("slow", ("fork",)), Member("quick", ("fork",)))
    looks = {"fork": running(Phase.CREDITS, age=7.0), "slow": running(Phase.PROCESSING, age=9.0)}
    verdicts = Ward(fork).passes(20, source=HELD, quick=running(age=7.1), **looks)
    assert {name for name, verdict in verdicts.items() if verdict.health is Health.LAGGING} == {"slow"}
    assert verdicts["quick"].reason == "its records come late, because slow is behind"
    assert verdicts["fork"].cause == "slow"


def test_an_idle_branch_holds_up_nobody() -> None:
    """Behind a fork the branch that only waits for records does not hold up the source; who is slow may stand
    further down the other one."""
    fork = (
        Member("source"), Member("branch", ("source",)), Member("quick", ("source",)), Member("slow", ("quick",)),
    )  # fmt: skip
    looks = {"branch": running(age=0.1), "quick": running(Phase.CREDITS, age=4.0)}
    verdicts = Ward(fork).passes(20, source=HELD, slow=running(Phase.PROCESSING, age=8.0), **looks)
    assert verdicts["source"].cause == "slow"
    assert {name for name, verdict in verdicts.items() if verdict.health is Health.LAGGING} == {"slow"}


def test_one_lagging_stage_lowers_nobodys_limit() -> None:
    """Records that are 3 s old are healthy whoever else lags; only who lags has to come below half of the limit."""
    two = (Member("a"), Member("b"))
    ward = Ward(two)
    verdicts = ward.passes(20, a=running(age=9.0), b=running(age=3.0))
    assert [verdicts[name].health for name in "ab"] == [Health.LAGGING, Health.HEALTHY]
    verdicts = ward.passes(20, a=running(age=3.0), b=running(age=3.0))
    assert verdicts["a"].health is Health.LAGGING
    assert "3.0 s old, at most 2.5 s are healthy" in (verdicts["a"].reason or "")


def test_one_late_batch_is_no_lag() -> None:
    """A single batch that took long, as after a pause of the machine, makes nobody lagging."""
    ward = Ward()
    ward.passes(10, sink=running(age=0.1))
    ward.passes(1, sink=running(Phase.PROCESSING, age=8.0))
    ward.passes(10, sink=running(age=0.1))
    assert {seen["sink"] for seen in ward.history} == {Health.HEALTHY}


def test_idle_after_a_late_batch() -> None:
    """The age of the last batch counts for nothing when there is nothing more to do."""
    ward = Ward()
    ward.passes(1, sink=running(age=8.0))
    verdicts = ward.passes(20, sink=running(Phase.WAITING, pulse=1))
    assert verdicts["sink"].health is Health.HEALTHY


def test_no_flicker_at_the_limit() -> None:
    """An age that swings around the limit is one lag, from which it is healthy only well below the limit."""
    ward = Ward()
    for _ in range(20):
        ward.passes(4, sink=running(Phase.PROCESSING, age=5.5))
        ward.passes(4, sink=running(Phase.PROCESSING, age=4.0))
    told = [seen["sink"] for seen in ward.history]
    assert sum(a is not b for a, b in pairwise(told)) == 1
    assert ward.passes(8, sink=running(age=1.0))["sink"].health is Health.HEALTHY


def test_better_only_after_a_while() -> None:
    """A stalled stage is healthy when it has made progress for `clear_after`, not at its first step; `since` is when it
    began."""
    ward = Ward()
    stalled = ward.passes(15, middle=running(work=True))["middle"]
    assert (stalled.health, stalled.since) == (Health.STALLED, 11.0)
    assert ward.passes(3, middle=running(age=0.1))["middle"].health is Health.STALLED
    assert ward.passes(1, middle=running(work=True))["middle"].since == 11.0
    ward.passes(5, middle=running(age=0.1))
    assert ward.passes(1, middle=running(age=0.1))["middle"].health is Health.HEALTHY


def test_a_shorter_patience_of_the_supervisor_counts() -> None:
    """A stage that would be killed sooner than `stalled_after` is called stalled before that."""
    members = (Member("source"), Member("middle", ("source",), hang_timeout=6.0))
    assert Ward(members).passes(4, middle=BUSY)["middle"].health is Health.STALLED


def test_an_operator_ends_failed_at_once() -> None:
    """`start` of a failed stage is believed; everything else has to prove itself first."""
    ward = Ward()
    ward.passes(3, middle=DOWN)
    assert ward.passes(1, middle=Look(State.LOADING, in_state=0.1))["middle"].health is Health.HEALTHY


@pytest.mark.parametrize(
    ("whole", "looks", "health", "words"),
    [
        (Whole(), {}, Health.HEALTHY, None),
        (Whole(epoch_age=29.0), {}, Health.HEALTHY, None),
        (Whole(epoch_age=31.0, epoch_trouble="No space left"), {}, Health.LAGGING,
         "no epoch committed for 31 s, at most 30 s are healthy: No space left"),
        (Whole(running=False, epoch_age=31.0), {}, Health.HEALTHY, None),
        (Whole(trouble="sink: disk full"), {}, Health.STALLED, "no records flow: sink: disk full"),
        (Whole(trouble="sink: disk full"), {"middle": DOWN}, Health.FAILED, "middle: given up"),
        (Whole(), {"log": DOWN}, Health.FAILED, "log: given up: x"),
    ],
)  # fmt: skip
def test_the_whole(whole: Whole, looks: dict[str, Look], health: Health, words: str | None) -> None:
    """The pipeline is as well as its worst process, and ill when no records flow or no epoch is committed."""
    ward = Ward()
    ward.passes(2, whole, **looks)
    assert ward.whole.health is health
    assert (ward.whole.reason is None) if words is None else words in str(ward.whole.reason)


@pytest.mark.parametrize("work", [False, True])
def test_credits_that_nobody_will_give_back_are_told(work: bool) -> None:
    """A source without credits above readers that all wait for input is stalled, though each of them alone is well; as
    long as a reader has work it is held up by that one."""
    ward = Ward()
    held, idle = running(Phase.CREDITS), running()
    verdicts = ward.passes(12, source=held, middle=idle, sink=running(work=work))
    assert (verdicts["source"].health is Health.STALLED) is not work
    if not work:
        assert "nobody below it has any work" in (verdicts["source"].reason or "")
