"""The JSON Lines sink: what stands in the file, and that the source reads it back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from streampiped.errors import StateError
from streampiped.records import Batch, Span
from streampiped.sinks.jsonl import BUFFER_BYTES, JsonlSink, JsonlSinkOptions
from support.streams import Events, column, drain, generator, numbered


def sink_in(directory: Path) -> JsonlSink:
    made = JsonlSink(JsonlSinkOptions(), directory, Events())
    made.rollback(None)
    return made


def test_lines_are_strict_json_and_come_back(tmp_path: Path) -> None:
    """Every line is JSON without extensions, and read by the source gives the same bits."""
    x = np.array([0.1, np.nan, np.inf, -np.inf, -0.0, 5e-324])
    texts = ["a", None, 'quo"te', "new\nline", "100%", "ü"]
    columns = {"x": x, "per%cent": x[::-1].copy(), "n": np.arange(6), "t": texts}
    sink = sink_in(tmp_path)
    sink.write(Batch.build(columns, spans=(Span("s", 0, 6),)))
    sink.prepare(1)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse)["t"] for line in lines] == texts
    batches = drain(generator({"type": "jsonl", "path": str(tmp_path / "records.jsonl"), "types": {"n": "int"}}))
    assert np.array(column(batches, "x")).tobytes() == x.tobytes()
    assert np.array(column(batches, "per%cent")).tobytes() == x[::-1].tobytes()
    assert column(batches, "n") == list(range(6))
    assert column(batches, "t") == texts
    sink.close()


def test_rows_go_out_before_the_barrier(tmp_path: Path) -> None:
    """What is not prepared yet is written in large pieces, so that memory stays bounded."""
    sink = sink_in(tmp_path)
    for start in range(0, 100_000, 1000):
        sink.write(numbered(start, 1000))
    assert (tmp_path / "records.jsonl").stat().st_size > BUFFER_BYTES
    sink.close()


def test_a_shortened_file_is_refused(tmp_path: Path) -> None:
    """A file that lost committed rows is not continued."""
    sink = sink_in(tmp_path)
    sink.write(numbered(0, 100))
    sink.prepare(1)
    sink.commit(1)
    sink.close()
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(StateError, match="shorter"):
        JsonlSink(JsonlSinkOptions(), tmp_path, Events()).rollback(1)


@pytest.mark.parametrize("epoch", [None, 1])
def test_a_file_without_its_marks_is_left_alone(tmp_path: Path, epoch: int | None) -> None:
    """Rows of another program, or of ours whose `NAME.epochs` was lost, are not touched, also after
    the refusal."""
    (tmp_path / "records.jsonl").write_text("mine\n")
    sink = JsonlSink(JsonlSinkOptions(), tmp_path, Events())
    for _ in range(2):
        with pytest.raises(StateError, match=r"has 5 bytes and no records\.jsonl\.epochs beside it"):
            sink.rollback(epoch)
    with pytest.raises(StateError):
        sink.write(numbered(0, 1))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("records.jsonl", "mine\n")]


def test_checking_a_configuration_creates_nothing(tmp_path: Path) -> None:
    """A sink that was only constructed and closed has no file."""
    JsonlSink(JsonlSinkOptions(), tmp_path, Events()).close()
    assert list(tmp_path.iterdir()) == []


def test_rows_taken_back_are_cut_off(tmp_path: Path) -> None:
    """After going back to an older epoch the file ends with its rows, and what comes next stands right behind them."""
    sink = sink_in(tmp_path)
    for number in range(1, 4):
        sink.write(numbered(number * 10, 10))
        sink.prepare(number)
        sink.commit(number)
    sink.rollback(1)
    sink.write(numbered(70, 1))
    sink.prepare(4)
    sink.commit(4)
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["position"] for line in lines] == [*range(10, 20), 70]
    sink.close()
