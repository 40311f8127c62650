"""Times in buckets: where they belong, what percentiles are made of them, and what a black box keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.histograms import ABOVE, BUCKETS, EDGES, bucket, cumulated, quantile
from streampiped.runtime.blackbox import END, STRIDE_MAX, BlackBox

NS = st.integers(min_value=-1000, max_value=1 << 62)


@given(NS)
def test_a_time_is_between_the_edges_of_its_bucket(ns: int) -> None:
    """Every time has one bucket, and the buckets lie side by side."""
    place = bucket(ns)
    assert place == 0 or EDGES[place - 1] <= ns
    assert place == BUCKETS - 1 or ns < EDGES[place]
    assert len(EDGES) == BUCKETS - 1
    assert sorted(set(EDGES)) == list(EDGES)


def counted(times: list[int]) -> list[int]:
    counts = [0] * BUCKETS
    for ns in times:
        counts[bucket(ns)] += 1
    return counts


@given(st.lists(st.integers(min_value=1024, max_value=ABOVE - 1), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_percentiles(times: list[int], share: float) -> None:
    """A percentile lies in the bucket in which that of the times themselves lies: at most an eighth away."""
    exact = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    found = quantile(counted(times), share)
    assert found is not None
    assert exact / 1.125 <= found * 1e9 <= exact * 1.125 + 1


@given(st.lists(NS))
def test_cumulated(times: list[int]) -> None:
    """The count at an edge is of the times below it."""
    for seconds, count in cumulated(counted(times), 2):
        assert count == sum(ns < round(seconds * 1e9) for ns in times)


MS = 1_000_000


def test_a_black_box_counts_for_its_whole_life() -> None:
    """Both histograms go on where a generation ends and its other counts begin anew; a clock read twice within its
    resolution does no harm."""
    box = BlackBox(BlackBox.make("test"))
    box.begin(1, 0)
    assert box.count(10, began_ns=8 * MS, now_ns=10 * MS, ingest_ns=5 * MS) == 1
    assert box.count(10, began_ns=12 * MS, now_ns=11 * MS, ingest_ns=12 * MS) == 2
    box.begin(2, 0)
    assert box.count(5, began_ns=18 * MS, now_ns=20 * MS, ingest_ns=17 * MS) == 1
    times, reading = box.times(), box.read()
    assert (reading.records_in, reading.batches, reading.lag_ns) == (5, 1, 3 * MS)
    assert times.work_s == pytest.approx(0.004)
    assert times.age_s == pytest.approx(0.008)
    assert list(times.work) == counted([2 * MS, 0, 2 * MS])
    assert list(times.age) == counted([5 * MS, 0, 3 * MS])
    assert len(box.words) >= END
    box.close()


@pytest.mark.parametrize("quick", [MS // 20, MS // 2, 50 * MS])
def test_a_slow_batch_stands_for_no_quick_ones(quick: int) -> None:
    """Where few of the batches are put into the buckets, which ones does not depend on how long they take: of a stream
    in which every tenth batch takes a hundred times as long, sums are exact and shares of the counts near the truth."""
    box = BlackBox(BlackBox.make("test"))
    box.begin(1, 0)
    now, slow, batches = MS, 100 * quick, 20_000
    for n in range(batches):
        began, now = now, now + (slow if n % 10 == 9 else quick)
        box.count(1, began_ns=began, now_ns=now, ingest_ns=began)
    times = box.times()
    assert times.work_s == times.age_s == pytest.approx((now - MS) / 1e9)
    assert batches - 2 * STRIDE_MAX <= sum(times.work) == sum(times.age) <= batches
    assert times.work[bucket(slow)] / sum(times.work) == pytest.approx(0.1, abs=0.02)
    assert times.work[bucket(quick)] + times.work[bucket(slow)] == sum(times.work)
    box.close()


def test_a_held_batch_and_the_histograms_do_not_meet() -> None:
    """The most spans that are kept of a batch leave the histograms alone."""
    box = BlackBox(BlackBox.make("test"))
    box.hold([(1 << 40, 1 << 40, 1 << 40, 1 << 40)] * 1000)
    assert sum(box.times().work) + sum(box.times().age) == 0
    box.close()
