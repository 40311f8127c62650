"""How the generator cuts a stream into batches, in count and in time, and goes back to a position."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from streampiped.records import Batch
from streampiped.stages.base import Ended, Idle
from streampiped.stages.generator import GeneratorOptions, TokenBucket
from support.streams import column, drain, generator, idle, positions, same, travelled

STREAM = {"type": "synthetic", "records": 100, "features": 2}


def test_batches_are_cut_at_multiples_of_batch_max() -> None:
    """Batch k covers the rows [k * batch_max, (k + 1) * batch_max), the last one what is left."""
    batches = drain(generator(STREAM, batch_max=32))
    assert [(b.spans[0].start, b.rows, b.sequence) for b in batches] == [
        (0, 32, 0),
        (32, 32, 1),
        (64, 32, 2),
        (96, 4, 3),
    ]


def test_end_is_said_again_and_again() -> None:
    """A source at its end answers Ended for ever, also after a restore."""
    stage = generator(STREAM)
    drain(stage)
    state = travelled(stage.snapshot())
    assert [stage.read(0.0), stage.read(9.0)] == [Ended(), Ended()]
    other = generator(STREAM)
    other.restore(state)
    assert other.read(0.0) == Ended()
    assert other.snapshot() == stage.snapshot()


@pytest.mark.parametrize("boundary", range(5))
def test_restore_continues_bit_identically(boundary: int) -> None:
    """A stage restored at any batch boundary gives the batches of one that was never stopped."""
    options = {**STREAM, "defects": {"missing": 0.1, "bad_labels": 0.1}, "drift_at": [50]}
    whole = drain(generator(options, batch_max=30))
    stage = generator(options, batch_max=30)
    drain(stage, count=boundary)
    state = travelled(stage.snapshot())
    for successor in (generator(options, batch_max=30), stage):
        drain(successor, count=1)  # whatever happened since is forgotten
        successor.restore(state)
        rest = drain(successor)
        assert len(rest) == len(whole) - boundary
        assert all(map(same, rest, whole[boundary:]))


def test_restore_of_nothing_is_the_beginning() -> None:
    """restore(None) gives the state of a new pipeline."""
    stage = generator(STREAM, batch_max=30)
    first = drain(stage)
    stage.restore(None)
    assert all(map(same, first, drain(stage)))


def test_rate_is_kept_over_time() -> None:
    """With a rate, no more than its share has gone out at any time, and all of it over a second."""
    stage = generator({**STREAM, "records": 0}, rate="1k/s", linger="10ms", batch_max=64)
    now, rows = 50.0, 0
    assert idle(stage, now).wake_at == pytest.approx(50.01)
    while now < 51.0:
        got = stage.read(now)
        if isinstance(got, Batch):
            rows += got.rows
        else:
            assert isinstance(got, Idle)
            assert got.wake_at is not None
            assert got.wake_at > now
            now = got.wake_at
        assert rows <= (now - 50.0) * 1000 + 1e-3
    assert rows >= 980


def test_rate_makes_up_for_a_short_pause_only() -> None:
    """After a pause at most BURST_S seconds' worth of records goes out at once."""
    stage = generator({**STREAM, "records": 0}, rate="1k/s", linger=0, batch_max=64)
    idle(stage, 0.0)
    assert sum(b.rows for b in drain(stage, 100.0)) == 250


def test_a_lone_record_goes_at_once() -> None:
    """A record that comes when the last batch is older than `linger` waits for nobody."""
    stage = generator({**STREAM, "records": 0}, rate="100/s", linger="5ms", batch_max=64)
    assert idle(stage, 0.0).wake_at == pytest.approx(0.01)
    for tick in range(1, 20):
        got = stage.read(tick * 0.01)
        assert isinstance(got, Batch)
        assert got.rows == 1


def test_a_thick_stream_is_cut_once_per_linger() -> None:
    """Behind a batch the next records wait for others, until `linger` after it and no longer."""
    stage = generator({**STREAM, "records": 0}, rate="100/s", linger="50ms", batch_max=64)
    assert idle(stage, 0.0).wake_at == pytest.approx(0.05)
    assert idle(stage, 0.03).wake_at == pytest.approx(0.05)
    got = stage.read(0.0501)
    assert isinstance(got, Batch)
    assert got.rows == 5
    assert idle(stage, 0.0502).wake_at == pytest.approx(0.1001)


def test_what_piled_up_is_one_batch() -> None:
    """A pipeline that was busy for a while gets what came in the meantime as one batch, not as many small ones."""
    stage = generator({**STREAM, "records": 0}, rate="1k/s", linger="1ms", batch_max=1024)
    idle(stage, 0.0)
    got = stage.read(0.2)
    assert isinstance(got, Batch)
    assert got.rows == 200
    assert idle(stage, 0.2).wake_at == pytest.approx(0.201)


def test_cut_in_time_changes_no_record() -> None:
    """Whatever the rate, the records are those of the unlimited stream."""
    slow = generator(STREAM, rate="1k/s", linger="5ms")
    batches = [b for tick in range(400) if isinstance(b := slow.read(tick / 1000), Batch)]
    assert 15 <= len(batches) <= 21  # one per linger, the last ones too
    assert all(batch.rows for batch in batches)
    assert positions(batches) == list(range(100))
    assert column(batches, "y") == column(drain(generator(STREAM)), "y")


def test_bucket_allows_exactly_when_it_said() -> None:
    """A caller that waits until `when` is never told to wait again."""
    bucket = TokenBucket(rate=7.0, burst=3.0)
    now = 1e6 + 0.1
    bucket.allowed(now)
    for _ in range(1000):
        moment = bucket.when(1, now)
        assert moment is not None
        assert bucket.allowed(moment) >= 1
        bucket.spend(1)
        now = moment


def test_summary_counts() -> None:
    """The summary says what was read, in types that msgpack takes."""
    stage = generator(STREAM, batch_max=30)
    drain(stage, count=2)
    assert stage.query("summary", {}) == {
        "source": "synthetic",
        "batches": 2,
        "ended": False,
        "records": 60,
        "defects": {},
    }
    with pytest.raises(KeyError):
        stage.query("other", {})


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"source": {"type": "fax"}}, "source"),
        ({"source": {"type": "synthetic", "recrods": 1}}, "recrods"),
        ({"batch_max": 0}, "batch_max"),
        ({"rate": "fast"}, "rate"),
        ({"source": {"type": "synthetic", "drift_at": [5, 3]}}, "drift_at"),
        ({"source": {"type": "synthetic", "target": "x1"}}, "target"),
        ({"source": {"type": "synthetic", "defects": {"dead": {"at": 1, "column": "z"}}}}, "'z'"),
        ({"source": {"type": "csv", "path": "a.csv", "speed": 2}}, "time_column"),
        ({"source": {"type": "csv", "path": "a.csv", "delimiter": '"'}}, "delimiter"),
        ({"source": {"type": "csv", "path": "a.csv", "delimiter": "\n"}}, "delimiter"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], where: str) -> None:
    """An option that cannot be is refused with its name."""
    with pytest.raises(ValidationError, match=where):
        GeneratorOptions.model_validate(options)
