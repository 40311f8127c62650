"""Who and what is served within a block: champions behind each row, doubted labels, a learner's reach."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from bench.generators import Floats
from streampiped.learn.champion import LEADER_ROWS, Contest
from streampiped.learn.doubts import Doubts
from streampiped.learn.lineup import lineup
from streampiped.learn.members.base import Member
from streampiped.learn.members.trivial import RunningMean
from streampiped.learn.pool import Forecast, Pool


def losses_of(seed: int, rows: int = 300) -> Floats:
    """Three members' losses, of which the best changes every hundred rows."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.uniform(0.5, 2.0, size=(-(-rows // 100), 3)), 100, axis=0)[:rows]
    return np.asarray(level * rng.chisquare(1, size=(rows, 3)))


def contest_after(losses: Floats) -> Contest:
    contest = Contest((True, True, False))
    contest.follow(losses)
    return contest


@pytest.mark.parametrize("seed", range(6))
def test_a_champion_depends_on_no_later_row(seed: int) -> None:
    """Of two blocks that agree in their first rows, the first champions agree as well."""
    losses = losses_of(seed)
    other = losses.copy()
    other[200:] = losses_of(seed + 100)[200:]
    ours, theirs = (Contest((True, True, False)).follow(each) for each in (losses, other))
    assert [change for change in ours if change[0] <= 200] == [change for change in theirs if change[0] <= 200]


@pytest.mark.parametrize("seed", range(6))
def test_a_block_leaves_the_sums_that_score_leaves(seed: int) -> None:
    """`follow` takes in what `score` does, and its last champion is the one that the changes end with."""
    first, block = losses_of(seed, LEADER_ROWS), losses_of(seed + 50)
    ours, theirs = contest_after(first), contest_after(first)
    changes = ours.follow(block)
    theirs.score(block)
    for name in ("rows", "weights", "sums", "products"):
        assert np.array_equal(ours.state()[name], theirs.state()[name])
    assert not changes or changes[-1][1] == ours.champion


def test_a_champion_that_fails_is_replaced_within_the_block() -> None:
    """Nothing happens for a thousand rows; then one guess fails, and not the other. A few rows later that one is
    served, and not only behind the block."""
    contest = contest_after(np.zeros((1000, 3)))
    champion = contest.champion
    losses = np.ones((500, 3))
    losses[:, 1 - champion] = 0.01
    row, challenger = contest.follow(losses)[0]
    assert challenger == 1 - champion
    assert row <= 3


def test_a_pinned_champion_stays_in_a_block() -> None:
    """Whatever the losses are."""
    contest = contest_after(np.zeros((200, 3)))
    contest.pinned = True
    assert contest.follow(losses_of(1)) == []


def test_doubts_go_on_bit_for_bit() -> None:
    """Cut anywhere, saved and restored there, what a row may go by is the same."""
    labels = np.array([1.0, 9.0, 9.0, 1.0, nan, 9.0, 1.0, 7.0])
    known = np.array([True, False, False, True, False, False, True, True])
    whole = Doubts().follow(labels, known)
    assert whole is not None
    for cut in range(len(labels)):
        first, second = Doubts(), Doubts()
        begin = first.follow(labels[:cut], known[:cut])
        second.restore(first.state())
        end = second.follow(labels[cut:], known[cut:])
        parts = [np.full(n, nan) if part is None else part for n, part in ((cut, begin), (len(labels) - cut, end))]
        assert np.array_equal(np.concatenate(parts), whole, equal_nan=True)


def test_a_label_in_doubt_is_gone_by_until_one_passed() -> None:
    """The first label in doubt is gone by; when it has passed no other one is, until as many have lasted."""
    doubts, spike = Doubts(), np.array([9.0, 1.0])
    seen = [doubts.follow(spike, np.array([False, True])) for _ in range(2)]
    assert seen[0] is not None
    assert seen[1] is not None
    assert seen[0][1] == 9.0
    assert np.isnan(seen[1]).all()
    for _ in range(2):
        doubts.follow(np.array([9.0]), np.array([False]))
        doubts.confirm()
    last = doubts.follow(spike, np.array([False, True]))
    assert last is not None
    assert last[1] == 9.0


def walk(seed: int, rows: int) -> Floats:
    return np.cumsum(np.random.default_rng(seed).normal(size=rows))


def run(pool: Pool, features: Floats, labels: Floats, known: np.ndarray) -> Floats:
    found: list[Forecast] = []
    row = 0
    while row < len(labels):
        part = slice(row, None)
        found.append(pool.work(features[part], labels[part], known[part], known[part]))
        row += len(found[-1].prediction)
    return np.concatenate([each.prediction for each in found])


def pool_of(columns: int) -> Pool:
    return Pool(lineup(("ridge", "lagged"), columns, RunningMean), columns)


def test_a_jump_of_a_walk_is_gone_by_at_once() -> None:
    """Where the newest label is the best guess, the row behind a label that is not believed is served that label."""
    labels = walk(1, 600)
    labels[500:] += 1000.0
    known = np.ones(600, dtype=np.bool_)
    known[500:503] = False
    served = run(pool_of(2), np.random.default_rng(2).normal(size=(600, 2)), labels, known)
    assert abs(served[501] - labels[500]) == 0.0
    assert abs(served[502] - labels[501]) == 0.0


def test_noise_does_not_go_by_a_spike() -> None:
    """Where the mean is a better guess than the newest label, a label that is not believed moves nothing served."""
    labels = np.random.default_rng(1).normal(size=600)
    labels[500] = 1000.0
    known = np.ones(600, dtype=np.bool_)
    known[500] = False
    served = run(pool_of(2), np.random.default_rng(2).normal(size=(600, 2)), labels, known)
    assert np.abs(served).max() < 10.0


class Far(Member):
    """A learner that is right until it is far off."""

    kind = "far"
    off = 0.0

    def predict(self, inputs: object) -> Floats:
        return np.asarray(inputs.features[:, 0] + self.off)  # type: ignore[attr-defined]

    def fresh(self) -> Far:
        return Far()


def test_a_learner_is_served_near_the_best_guess() -> None:
    """What is served of a learner is no further from the best guess than REACH times that guess's error, whether in
    band or asked."""
    rng = np.random.default_rng(3)
    labels = rng.normal(size=1000)
    labels[0] = 100.0  # a range that bounds nothing
    pool = Pool({"mean": RunningMean(), "far": Far()}, 1)
    known = np.ones(1000, dtype=np.bool_)
    run(pool, labels[:, None].copy(), labels, known)
    assert pool.champion.name == "far"
    Far.off = 90.0
    try:
        asked = pool.predict(labels[:5, None].copy()).prediction
        given = pool.work(labels[:5, None].copy(), labels[:5], known[:5], known[:5]).prediction
    finally:
        Far.off = 0.0
    assert asked.max() < 50.0
    assert given.max() < 50.0
    low, high = pool.reach()
    assert asked.max() <= high
    assert low < high
