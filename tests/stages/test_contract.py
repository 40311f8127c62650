"""docs/specs/stage.md as a test: every MUST, on every stage that is built in and on the example of a user's own.

A stage of yours is tested the same way: add a `Subject` with options it should work with.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack
import pytest
from pydantic import ValidationError

from streampiped.check import BUILTIN, role_of
from streampiped.records import Batch
from streampiped.runtime.throwaway import run
from streampiped.stages.base import Ended, StageOptions
from support.contract import BATCHES, Subject, batches, bits, fresh, garble, packed, steps, steps_from, unpacked

CSV = "a,b,y\n" + "".join(f"{i},{'' if i % 7 == 0 else i * i},{i / 3}\n" for i in range(200))
JSONL = "".join(f'{{"a": {i}, "b": "text {i}", "y": {i / 3}}}\n' for i in range(200)) + "not json\n"
DEFECTS = {"missing": 0.1, "infinite": 0.01, "spikes": 0.01, "bad_labels": 0.05}

SOURCES = {
    "synthetic": Subject(
        BUILTIN["generator"],
        {
            "source": {"type": "synthetic", "records": 1000, "drift_at": [500], "defects": DEFECTS},
            "batch_max": 96,
        },
    ),
    "csv": Subject(
        BUILTIN["generator"],
        {"source": {"type": "csv", "path": "{inputs}/in.csv"}, "batch_max": 25},
        {"in.csv": CSV},
    ),
    "jsonl": Subject(
        BUILTIN["generator"],
        {"source": {"type": "jsonl", "path": "{inputs}/in.jsonl"}, "batch_max": 25},
        {"in.jsonl": JSONL},
    ),
}
PLAIN = {
    "example": Subject("clip_stage:Clip", {"low": -1.0, "high": 1.0}),
    "normalizer": Subject(BUILTIN["normalizer"]),
    "normalizer_drop_row": Subject(BUILTIN["normalizer"], {"missing": "drop_row", "policy": {"x4": "drop"}}),
    "trainer": Subject(BUILTIN["trainer"], {"prediction": "guess"}),
    "trainer_late_labels": Subject(
        BUILTIN["trainer"],
        {"prediction": "guess", "labels": {"id": "note", "wait_rows_max": 20, "immediate": True}},
    ),
    "trainer_classes": Subject(BUILTIN["trainer"], {"target": "note"}),
    "evaluator": Subject(BUILTIN["evaluator"], {"last": 100, "reservoir": 16, "holdout": 0.1}),
}


SINKS = {
    "consumer_sqlite": Subject(
        BUILTIN["consumer"],
        {
            "derived": {"z": "x1 * 2 + log1p(abs(x3))"},
            "rolling": [{"column": "x1", "window": 10, "function": "mean", "name": "m"}],
            "checks": {"x1": {"min": -3, "max": 3, "action": "drop"}},
        },
    ),
    "consumer_jsonl": Subject(BUILTIN["consumer"], {"sink": {"type": "jsonl"}}),
    "consumer_parquet": Subject(BUILTIN["consumer"], {"sink": {"type": "parquet"}}),
    "consumer_none": Subject(BUILTIN["consumer"], {"sink": {"type": "none"}}),
}
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TRANSFORMS = PLAIN | SINKS
SUBJECTS = SOURCES | TRANSFORMS


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is found as it is with `python_path`."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return SUBJECTS[request.param].provided(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return SOURCES[request.param].provided(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(params=TRANSFORMS)
def transform(request: pytest.FixtureRequest) -> Subject:
    return TRANSFORMS[request.param]


@pytest.fixture(params=SINKS)
def sink(request: pytest.FixtureRequest) -> Subject:
    return SINKS[request.param]


def test_options_are_a_model(subject: Subject) -> None:
    """Options are a model of their own that refuses a key it does not know."""
    options = subject.load().Options
    assert issubclass(options, StageOptions)
    with pytest.raises(ValidationError, match="no_such_option"):
        options.model_validate({**subject.options, "no_such_option": 1})


def test_role_is_known(subject: Subject) -> None:
    """The class says what part it plays."""
    assert role_of(subject.load()) in ("source", "transform", "sink")


def test_same_input_same_output(subject: Subject, tmp_path: Path) -> None:
    """Two objects with the same options, seed and input give the same bits."""
    one, two = (list(steps(subject.make(_directory(tmp_path, name)))) for name in ("one", "two"))
    assert one == two
    assert len(one) >= BATCHES


def test_new_stage_is_a_restored_nothing(subject: Subject, tmp_path: Path) -> None:
    """A stage that was only constructed and one that was given no state are the same."""
    made = subject.make(_directory(tmp_path, "made"))
    assert packed(made) == packed(fresh(subject, _directory(tmp_path, "fresh"), None))


def test_restore_continues_bit_identically(subject: Subject, tmp_path: Path) -> None:
    """After every step: a new object with the snapshot gives the same outputs and at the end the same state."""
    run = _directory(tmp_path, "run")
    stage = subject.make(run)
    outputs: list[Any] = []
    states = [packed(stage)]
    for output in steps(stage):
        outputs.append(output)
        states.append(packed(stage))
    end = packed(stage)
    for number, state in enumerate(states):
        again = fresh(subject, _directory(tmp_path, f"from{number}"), state)
        assert list(steps_from(again, number)) == outputs[number:], f"from step {number}"
        assert packed(again) == end, f"from step {number}"


def test_snapshot_survives_its_encoding(subject: Subject, tmp_path: Path) -> None:
    """A snapshot is portable: what was written, read, restored and written again are the same bytes."""
    stage = subject.make(tmp_path)
    for _ in islice(steps(stage), 3):
        state = packed(stage)
        assert packed(fresh(subject, _directory(tmp_path, "again"), state)) == state
        assert unpacked(state) is not None


def test_snapshot_changes_nothing(subject: Subject, tmp_path: Path) -> None:
    """Whether snapshots were taken cannot be seen in the outputs."""
    undisturbed = list(steps(subject.make(_directory(tmp_path, "undisturbed"))))
    stage = subject.make(_directory(tmp_path, "asked"))
    asked = []
    for output in steps(stage):
        assert packed(stage) == packed(stage)
        asked.append(output)
    assert asked == undisturbed


def test_restore_forgets(subject: Subject, tmp_path: Path) -> None:
    """A used stage that is restored is as a new one that is: with nothing, and with an older state."""
    stage = subject.make(tmp_path)
    outputs = list(steps(stage))
    stage.restore(None)
    first = next(iter(steps(stage)))
    assert first == outputs[0]
    state = packed(stage)
    for _ in steps_from(stage, 1):
        pass
    stage.restore(unpacked(state))
    assert packed(stage) == state
    assert list(steps_from(stage, 1)) == outputs[1:]


def test_input_is_left_as_it_was(transform: Subject, tmp_path: Path) -> None:
    """`process` does not change the batch it is given."""
    stage = transform.make(tmp_path)
    for batch, original in zip(batches(), batches(), strict=True):
        stage.process(batch)
        assert bits(batch) == bits(original)


def test_input_is_not_kept(transform: Subject, tmp_path: Path) -> None:
    """What happens to a batch's memory after `process` has returned does not matter to the stage."""
    undisturbed = list(steps(transform.make(_directory(tmp_path, "undisturbed"))))
    stage = transform.make(_directory(tmp_path, "garbled"))
    outputs = []
    for batch in batches():
        outputs.append(bits(stage.process(batch)))
        garble(batch)
    assert outputs == undisturbed


def test_rows_keep_their_positions(transform: Subject, tmp_path: Path) -> None:
    """The rows of a result have positions, in order, of rows that came in, and have come by the same way."""
    stage = transform.make(tmp_path)
    for batch in batches():
        result = stage.process(batch)
        if result is not None:
            came, went = batch.positions().tolist(), result.positions().tolist()
            assert len(went) == result.rows
            assert went == [position for position in came if position in set(went)]
            assert {span.via for span in result.spans} <= {span.via for span in batch.spans} == {"left"}
            assert result.ingest_ns == batch.ingest_ns


def test_query(subject: Subject, tmp_path: Path) -> None:
    """A summary can travel and asking changes nothing; a method that is not known is a KeyError."""
    stage = subject.make(tmp_path)
    for _ in islice(steps(stage), 3):
        state = packed(stage)
        assert isinstance(msgpack.packb(stage.query("summary", {})), bytes)
        with pytest.raises(KeyError):
            stage.query("no_such_method", {})
        assert packed(stage) == state


def test_answer_is_no_state(subject: Subject, tmp_path: Path) -> None:
    """What comes from another stage's API, or that it does not come, cannot be seen in the snapshot."""
    stage = subject.make(tmp_path)
    for epoch, _ in enumerate(islice(steps(stage), 3)):
        stage.snapshot()
        stage.committed(epoch)
        state = packed(stage)
        stage.api_answer(None, "nobody answered")
        assert packed(stage) == state


def test_api_is_a_table_of_methods(subject: Subject, tmp_path: Path) -> None:
    """An API is a table from name to what can be called."""
    api = subject.make(tmp_path).api()
    assert all(isinstance(name, str) and callable(method) for name, method in api.items())


def test_close_may_be_called_at_any_time(subject: Subject, tmp_path: Path) -> None:
    """A stage can be closed before its first step, and after some."""
    subject.make(_directory(tmp_path, "unused")).close()
    stage = subject.make(_directory(tmp_path, "used"))
    for _ in islice(steps(stage), 2):
        pass
    stage.close()


def test_end_of_a_source_lasts(source: Subject, tmp_path: Path) -> None:
    """A source that has ended says so for ever, and again after a restore; its positions have no gap."""
    stage = source.make(tmp_path)
    assert stage.position() in (None, 0)
    rows = sum(output[1] for output in steps(stage))
    assert stage.total() in (None, rows)
    assert stage.position() in (None, rows)
    assert isinstance(stage.read(1e6), Ended)
    again: Any = fresh(source, tmp_path, packed(stage))
    assert isinstance(again.read(0.0), Ended)
    assert again.position() == stage.position()


def test_positions_of_a_source_ascend(source: Subject, tmp_path: Path) -> None:
    """Records of a source have its name and ascending positions, batches ascending sequence numbers."""
    stage = source.make(tmp_path)
    sequences, positions = [], []
    for _, _, sequence, spans, _ in steps(stage):
        sequences.append(sequence)
        positions += [p for span in spans for p in range(span.start, span.start + span.count)]
        assert {span.source for span in spans} == {"subject"}
    assert positions == sorted(set(positions))
    assert sequences == list(range(len(sequences)))


def _epochs(stage: Any, feed: list[Batch], first: int) -> Iterator[tuple[bytes, int]]:
    """One epoch per batch, as the shell makes them; the state of each."""
    for epoch, batch in enumerate(feed, first):
        stage.process(batch)
        state = packed(stage)
        stage.prepare(epoch)
        stage.commit(epoch)
        stage.committed(epoch)
        yield state, epoch


def test_sink_commits_again_and_rolls_back(sink: Subject, tmp_path: Path) -> None:
    """`commit` and `rollback` may be repeated; after a rollback the same epochs give the same state again."""
    stage = sink.make(tmp_path)
    feed = list(batches())
    states = [state for state, _ in _epochs(stage, feed, 1)]
    stage.commit(3)  # cumulative: an older one changes nothing
    stage.commit(len(feed))
    again = sink.make(tmp_path)
    for _ in range(2):
        again.rollback(3)
        again.restore(unpacked(states[2]))
    assert [state for state, _ in _epochs(again, feed[3:], len(feed) + 1)] == states[3:]


def test_sink_goes_back_to_nothing(sink: Subject, tmp_path: Path) -> None:
    """A rollback to nothing makes a used sink a new one."""
    stage = sink.make(tmp_path)
    feed = list(batches())
    states = [state for state, _ in _epochs(stage, feed, 1)]
    stage.rollback(None)
    stage.restore(None)
    assert [state for state, _ in _epochs(stage, feed, len(feed) + 1)] == states


def test_sink_is_sealed_at_the_barrier(sink: Subject, tmp_path: Path) -> None:
    """Rows processed behind `seal` are not part of its epoch, whether `prepare` has run by then or not."""
    feed = list(batches())
    apart, through = (sink.make(_directory(tmp_path, name)) for name in ("apart", "through"))
    if not apart.overlaps:
        pytest.skip("this sink holds `process` back while `prepare` runs")
    for stage in (apart, through):
        stage.process(feed[1])
        stage.seal(1)
    apart.prepare(1)
    for stage in (apart, through):
        stage.process(feed[2])
    through.prepare(1)
    for stage in (apart, through):
        stage.commit(1)
        stage.seal(2)
        stage.prepare(2)
        stage.rollback(1)
    assert apart.query("summary", {})["sink"].keys() == through.query("summary", {})["sink"].keys()
    for name in ("rows", "bytes", "epoch"):
        first, second = (stage.query("summary", {})["sink"].get(name) for stage in (apart, through))
        assert first == second


def test_sink_is_isolated_in_a_fork(sink: Subject, tmp_path: Path) -> None:
    """An isolated sink processes as it did, and changes no file."""
    stage = sink.make(tmp_path)
    feed = list(batches())
    stage.process(feed[1])
    stage.seal(1)
    stage.prepare(1)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if _is_kept(path)}

    def isolated() -> None:
        stage.isolate()
        for batch in feed[2:]:
            stage.process(batch)

    ending = run(isolated, cpu_limit=10.0, sleep_limit=10.0, tick=lambda: None)
    assert ending.manner == "passed", ending
    assert {path: path.read_bytes() for path in files} == files


def _is_kept(path: Path) -> bool:
    """SQLite's shared memory is no store."""
    return path.is_file() and not path.name.endswith("-shm")


def _directory(parent: Path, name: str) -> Path:
    directory = parent / name
    directory.mkdir(exist_ok=True)
    return directory
