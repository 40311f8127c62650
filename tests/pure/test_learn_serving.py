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


def test_a_label_in_doubt_is_gone_by_until_two_passed() -> None:
    """The first two labels in doubt are gone by; when they have passed no other one is, until so many have lasted that
    only one more has passed."""
    doubts, spike = Doubts(), np.array([9.0, 1.0])
    *first, third = (doubts.follow(spike, np.array([False, True])) for _ in range(3))
    assert all(seen is not None and seen[1] == 9.0 for seen in first)
    assert third is not None
    assert np.isnan(third).all()
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


def test_what_is_asked_is_what_is_served_next() -> None:
    """Asked of the next row, the pool answers what it then serves with it, also behind a label that is not believed."""
    labels = walk(1, 600)
    labels[500:] += 1000.0
    features = np.random.default_rng(2).normal(size=(600, 2))
    known = np.ones(600, dtype=np.bool_)
    known[500:503] = False
    pool = pool_of(2)
    run(pool, features[:495], labels[:495], known[:495])
    for row in range(495, 510):
        part = slice(row, row + 1)
        asked = pool.predict(features[part])
        served = pool.work(features[part], labels[part], known[part], known[part])
        assert (asked.prediction, asked.low, asked.high) == (served.prediction, served.low, served.high)


def test_no_row_behind_a_doubt_goes_by_later_labels() -> None:
    """Of two blocks that agree up to a row, what is served up to it agrees as well, whatever is not believed: not even
    whether the newest label is a good guess is told by later ones."""
    rng = np.random.default_rng(4)
    features, labels = rng.normal(size=(6000, 2)), walk(5, 6000)
    known = np.ones(6000, dtype=np.bool_)
    known[5300:5303] = False
    labels[5300:5303] += 500.0
    other = labels.copy()
    other[5303:] = rng.normal(size=697) * 1e4
    ours, theirs = (run(pool_of(2), features, each, known) for each in (labels, other))
    assert np.array_equal(ours[:5304], theirs[:5304])
    assert not np.array_equal(ours[5304:], theirs[5304:])


def test_a_champion_that_a_drift_left_behind_stays_what_it_is_while_served() -> None:
    """Beaten within a block and champion again at its end, it goes on; beaten for good, it begins anew."""
    pool = pool_of(2)
    labels = walk(1, 600)
    run(pool, np.zeros((600, 2)), labels, np.ones(600, dtype=np.bool_))
    place = next(n for n, slot in enumerate(pool.slots) if slot.name == "ridge")
    pool._former = place
    back, gone = pool._contest.copy(), pool._contest.copy()
    back.champion, gone.champion = place, 0
    pool._follow(back, [(0, place), (3, 0), (9, place)], 600)
    assert pool.slots[place].rows == 600
    pool._follow(gone, [(0, place), (3, 0)], 600)
    assert (pool.slots[place].rows, pool._former) == (0, None)


def test_what_an_older_version_saved_is_gone_on_with() -> None:
    """A state without doubts, whose interval knows its width alone, is restored, in whatever state the pool was."""
    labels = walk(1, 600)
    known = np.ones(600, dtype=np.bool_)
    pool, features = pool_of(2), np.random.default_rng(2).normal(size=(700, 2))
    run(pool, features[:600], labels, known)
    state = pool.state()
    del state["doubts"]
    state["intervals"] = {"width": 3.0, "first": [1.0] * 10}
    other = pool_of(2)
    run(other, features[:500], labels[:500], known[:500])
    other.work(features[500:501], labels[500:501] + 1e6, ~known[:1], ~known[:1])
    other.restore(state)
    asked, wanted = other.predict(features[600:]), pool.predict(features[600:])
    assert np.array_equal(asked.prediction, wanted.prediction)
    assert np.array_equal(asked.high, asked.prediction + 3.0)


class Silent(Member):
    """A learner without an answer to a feature of 1."""

    kind = "silent"

    def predict(self, inputs: object) -> Floats:
        found = inputs.features[:, 0].copy()  # type: ignore[attr-defined]
        found[found == 1.0] = nan
        return np.asarray(found)

    def fresh(self) -> Silent:
        return Silent()


def test_rows_behind_an_alarm_count_once() -> None:
    """Of a block that is cut at an alarm only what was served of it counts as having no finite answer."""
    rng = np.random.default_rng(6)
    labels = np.where(np.arange(4000) < 3000, 0.0, 1.0) * rng.normal(size=4000) * 50 + rng.uniform(2, 3, size=4000)
    features = labels[:, None].copy()
    features[3000:] = 2.0
    features[3500:3600] = 1.0
    pool = Pool({"mean": RunningMean(), "silent": Silent()}, 1)
    pool.pin("silent")
    known = np.ones(4000, dtype=np.bool_)
    row = fallbacks = 0
    while row < 4000:
        done = pool.work(features[row:], labels[row:], known[row:], known[row:])
        row += len(done.prediction)
        fallbacks += done.fallbacks
    assert pool.generation > 0
    assert fallbacks == 100


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
