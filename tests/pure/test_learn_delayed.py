"""learn/late/delayed.py: what a pool makes of labels whose questions were answered before it changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from streampiped.learn.estimators import equal
from streampiped.learn.late.asked import Asked
from streampiped.learn.late.delayed import DelayedPool, LateForecast, LateRows
from streampiped.learn.late.pending import Pending
from streampiped.learn.lineup import lineup
from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.members.trivial import LastLabel, RunningMean
from streampiped.records import Array

Floats = np.ndarray


def pool_of(members: dict[str, Member]) -> tuple[DelayedPool, Pending[Asked]]:
    pool = DelayedPool(members, 3)
    return pool, pool.waiting(100_000)


def ridges() -> tuple[DelayedPool, Pending[Asked]]:
    return pool_of(lineup(["ridge", "ridge_100"], 3, RunningMean))


def took(pool: DelayedPool, pending: Pending[Asked], ids: range, features: Floats, labels: Floats) -> LateForecast:
    """Rows of these ids; without a label it is a question."""
    told = np.isfinite(labels)
    joined = pending.join(ids, told, immediate=False)
    rows = LateRows(features, labels, told, told, joined.asks, joined.tells, joined.lines)
    found: list[LateForecast] = []
    done = 0
    while done < len(rows):
        found.append(pool.follow(rows[done:], pending))
        done += len(found[-1])
    return LateForecast.joined(found)


def asked(pool: DelayedPool, pending: Pending[Asked], ids: range, features: Floats) -> LateForecast:
    return took(pool, pending, ids, features[ids.start : ids.stop], np.full(len(ids), np.nan))


def told(pool: DelayedPool, pending: Pending[Asked], ids: range, labels: Floats) -> LateForecast:
    return took(pool, pending, ids, np.zeros((len(ids), 3)), labels[ids.start : ids.stop])


def stream(rows: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(4)
    features = rng.normal(size=(rows, 3))
    return features, 10 + features @ np.array([1.0, -2.0, 0.5]) + 0.5 * rng.normal(size=rows)


def watched(pool: DelayedPool) -> dict[str, Any]:
    """Who is compared, what drift is looked for, and the interval."""
    state = pool.state()
    return {name: state[name] for name in ("contest", "drift", "intervals")}


def test_what_was_asked_before_another_level_of_the_label() -> None:
    """Its labels are learned, and tell nothing of the members, of a drift, or of the interval's width."""
    features, labels = stream(2000)
    pool, pending = ridges()
    for first in range(0, 1000, 100):
        asked(pool, pending, range(first, first + 100), features)
        told(pool, pending, range(first, first + 100), labels)
    asked(pool, pending, range(1000, 1300), features)
    pool.label_shifted(labels[1000:1001] + 1000)
    before, learned = watched(pool), pool.learned
    told(pool, pending, range(1000, 1300), labels + 1000)
    assert equal(watched(pool), before)
    assert pool.learned == learned + 300
    forecast = asked(pool, pending, range(1300, 1301), features)
    assert abs(forecast.prediction[0] - labels[1300] - 1000) < 10


def test_what_was_asked_before_a_drift() -> None:
    """Its labels are learned and widen the interval, and are neither held against anybody nor another drift."""
    features, labels = stream(2000)
    pool, pending = ridges()
    for first in range(0, 1000, 100):
        asked(pool, pending, range(first, first + 100), features)
        told(pool, pending, range(first, first + 100), labels)
    asked(pool, pending, range(1000, 1600), features)
    for row in range(1000, 1600):
        told(pool, pending, range(row, row + 1), -3 * labels)
        if pool.generation:
            break
    assert pool.generation == 1
    before, learned = watched(pool), pool.learned
    told(pool, pending, range(row + 1, 1500), -3 * labels)
    after = watched(pool)
    assert equal([after["contest"], after["drift"]], [before["contest"], before["drift"]])
    sizes = [state["intervals"]["size"] * state["intervals"]["factor"] for state in (before, after)]
    assert sizes[1] > sizes[0]
    assert pool.learned == learned + 1500 - row - 1
    for first in range(1600, 2000, 50):
        asked(pool, pending, range(first, first + 50), features)
        told(pool, pending, range(first, first + 50), -3 * labels)
    told(pool, pending, range(1500, 1600), -3 * labels)  # when there is a mean again to be judged by
    assert pool.generation == 1


class Wild(Member):
    """Beyond all bounds, as it was made before it is begun anew, and right behind that."""

    kind = "wild"

    def __init__(self, right: bool = False) -> None:
        self.right = right

    def predict(self, inputs: Inputs) -> Array:
        return np.asarray(inputs.features[:, 0]) if self.right else np.full(len(inputs), 1e30)

    def fresh(self) -> Wild:
        return Wild(right=True)

    def copy(self) -> Wild:
        return Wild(self.right)

    def state(self) -> dict[str, Any]:
        return {"right": self.right}


def test_nobody_answers_for_who_was_there_before() -> None:
    """A member that is begun anew is not held to the answers of the one before it: three failed blocks are the end of
    one member, however many questions it has answered, and a row that it did not answer is as the champion's."""
    features, _ = stream(2000)
    labels = features[:, 0].copy()
    pool, pending = pool_of({"mean": RunningMean(), "last": LastLabel()} | {"wild": Wild()})
    pool.slots[2].member = Wild()
    asked(pool, pending, range(20), features)
    told(pool, pending, range(20), labels)  # answers before the first label are held against nobody
    asked(pool, pending, range(20, 1000), features)
    for first in range(20, 1000, 20):
        told(pool, pending, range(first, first + 20), labels)
        if pool.slots[2].resets:
            break
    contest = pool.state()["contest"]
    told(pool, pending, range(first + 20, 1000), labels)
    assert (pool.slots[2].resets, pool.slots[2].strikes) == (1, 0)
    sums = pool.state()["contest"]["sums"] - contest["sums"] * np.exp(-(980 - first) / 1000)
    champion = [slot.name for slot in pool.slots].index(pool.champion.name)
    assert abs(sums[2] - sums[champion]) < 1e-6 * sums[champion]
    for first in range(1000, 2000, 100):
        asked(pool, pending, range(first, first + 100), features)
        told(pool, pending, range(first, first + 100), labels)
    assert pool.champion.name == "wild"
