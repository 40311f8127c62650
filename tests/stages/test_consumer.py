"""The consumer: what it adds, what it checks, and that it goes on after a crash as if there had been none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from streampiped.errors import OptionError
from streampiped.records import Batch
from streampiped.stages.base import StageContext
from streampiped.stages.consumer import Consumer, ConsumerOptions
from support.streams import Events, drain, generator, numbered, same, travelled

OPTIONS: dict[str, Any] = {
    "derived": {"r": "x1 / (1 + abs(x2))", "q": "r * 2"},
    "rolling": [
        {"column": "x1", "window": 50, "function": "mean"},
        {"column": "q", "window": 7, "function": "std", "name": "spread"},
        {"column": "x2", "window": 3, "function": "lag"},
    ],
    "checks": {
        "x1": {"min": -2, "max": 2, "action": "drop"},
        "x2": {"max": 1, "action": "mark"},
        "spread": {"max": 1.5, "action": "count"},
    },
}


def consumer(directory: Path = Path(), **options: Any) -> Consumer:
    """A consumer at the beginning; without a sink unless the options name one."""
    checked = ConsumerOptions.model_validate({"sink": {"type": "none"}, **options})
    made = Consumer(checked, StageContext(name="consumer", directory=directory, emit=Events()))
    made.rollback(None)
    made.restore(None)
    return made


def processed(stage: Consumer, batches: list[Batch]) -> list[Batch]:
    return [result for batch in batches if (result := stage.process(batch)) is not None]


def feed(records: int = 400) -> list[Batch]:
    source = {"type": "synthetic", "records": records, "features": 2, "defects": {"missing": 0.05, "infinite": 0.02}}
    return drain(generator(source, batch_max=37))


def test_new_columns_come_last_and_may_build_on_each_other() -> None:
    """Derived columns in their order, then rolling ones under their names, beside what came."""
    batch = processed(consumer(**OPTIONS), feed())[0]
    assert batch.schema.floats == ("x1", "x2", "y", "r", "q", "x1_mean_50", "spread", "x2_lag_3")
    assert batch.schema.ints == ("out_of_range",)
    assert batch["q"].tobytes() == (batch["r"] * 2).tobytes()


@pytest.mark.parametrize("boundary", range(12))
def test_restore_continues_bit_identically(boundary: int) -> None:
    """Restored at any batch boundary, in a new process or a used one, the rest and the state are those of one run."""
    batches = feed()
    undisturbed = consumer(**OPTIONS)
    whole = processed(undisturbed, batches)
    stage = consumer(**OPTIONS)
    processed(stage, batches[:boundary])
    state = travelled(stage.snapshot())
    for successor in (consumer(**OPTIONS), stage):
        processed(successor, batches[5:7])
        successor.restore(state)
        assert all(map(same, processed(successor, batches[boundary:]), whole[boundary:]))
        assert repr(successor.snapshot()) == repr(undisturbed.snapshot())


def test_dropped_rows_are_in_no_window() -> None:
    """A row that a check of an incoming column drops does not count in the windows, and its position is skipped."""
    stage = consumer(
        checks={"x": {"max": 100, "action": "drop"}},
        rolling=[{"column": "x", "window": 2, "function": "sum", "name": "s"}],
    )
    batch = stage.process(Batch.build({"x": [1.0, 1e6, 3.0]}, spans=numbered(0, 3).spans))
    assert batch is not None
    assert batch["s"].tolist() == [1.0, 4.0]
    assert batch.positions().tolist() == [0, 2]


def test_checks_count_mark_and_drop() -> None:
    """Violations and missing values are counted per column; bounds are allowed; marks say how many checks failed."""
    stage = consumer(
        derived={"z": "x * 10"},
        checks={
            "x": {"min": 1, "max": 3, "action": "mark"},
            "n": {"min": 0, "action": "count"},
            "z": {"max": 35, "action": "mark"},
        },
    )
    columns = {"x": np.array([0.0, 1.0, 3.0, 4.0, np.nan]), "n": np.array([-1, 0, 1, 2, 3])}
    batch = stage.process(Batch.build(columns, spans=numbered(0, 5).spans))
    assert batch is not None
    assert batch["out_of_range"].tolist() == [1, 0, 0, 2, 0]
    assert stage.query("summary", {}) == {
        "rows": 5,
        "checks": {"violations": {"x": 2, "n": 1, "z": 1}, "missing": {"x": 1, "n": 0, "z": 1}, "dropped": 0},
        "sink": {"sink": "none"},
    }


def test_a_batch_without_a_row_left_is_none() -> None:
    """When every row is dropped nothing goes on, and it is counted."""
    stage = consumer(checks={"x": {"max": -1, "action": "drop"}})
    assert stage.process(numbered(0, 4)) is None
    assert stage.query("summary", {})["checks"]["dropped"] == 4


def test_a_changed_window_begins_with_what_is_known() -> None:
    """After the operator has changed a window, the state of the old one is used as far as it reaches."""
    before = consumer(rolling=[{"column": "x", "window": 3, "function": "sum", "name": "s"}])
    before.process(numbered(0, 5))
    state = travelled(before.snapshot())
    for window, expected in ((1, 5.0), (2, 4 + 5.0), (10, 2 + 3 + 4 + 5.0)):
        stage = consumer(rolling=[{"column": "x", "window": window, "function": "sum", "name": "s"}])
        stage.restore(state)
        batch = stage.process(numbered(5, 1))
        assert batch is not None
        assert batch["s"].tolist() == [expected]


def test_rows_are_stored_with_what_was_added(tmp_path: Path) -> None:
    """The default sink is SQLite in the stage's directory; it has every column of the result."""
    stage = consumer(tmp_path, **{**OPTIONS, "sink": {"type": "sqlite"}})
    results = processed(stage, feed())
    stage.prepare(1)
    stage.commit(1)
    with closing(sqlite3.connect(tmp_path / "records.sqlite")) as db:
        found = db.execute("SELECT position, r, out_of_range FROM committed_records ORDER BY id").fetchall()
    assert [row[0] for row in found] == [int(p) for b in results for p in b.positions()]
    assert [row[2] for row in found] == [int(v) for b in results for v in b["out_of_range"]]
    stage.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"derived": {"z": "x +"}}, r"derived\.z: 'x \+', character 4"),
        ({"derived": {"z": "eval(x)"}}, r"derived\.z: .*no known function"),
    ],
)
def test_impossible_expressions_fail_at_construction(options: dict[str, Any], message: str) -> None:
    """An expression that cannot be compiled is an OptionError of the constructor."""
    with pytest.raises(OptionError, match=message):
        consumer(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rolling": [{"column": "x", "window": 0, "function": "mean"}]}, "window"),
        ({"rolling": [{"column": "x", "window": 5, "function": "median"}]}, "function"),
        ({"rolling": [{"column": "x", "window": 5, "function": "mean"}] * 2}, "made twice: x_mean_5"),
        ({"derived": {"out_of_range": "x"}}, "made twice: out_of_range"),
        ({"checks": {"x": {}}}, "needs min or max"),
        ({"checks": {"x": {"min": 2, "max": 1}}}, "min 2 is above max 1"),
        ({"checks": {"x": {"min": 2, "action": "explode"}}}, "action"),
        ({"sink": {"type": "postgres"}}, "sink"),
        ({"sink": {"type": "sqlite", "retain": -1}}, "retain"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    """An option that cannot be is refused with its name."""
    with pytest.raises(ValidationError, match=message):
        consumer(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"rolling": [{"column": "nix", "window": 5, "function": "mean"}]},
        {"checks": {"nix": {"min": 1}}},
        {"derived": {"z": "nix + 1"}},
    ],
)
def test_columns_that_nobody_has_are_told(options: dict[str, Any]) -> None:
    """A column that no batch has is an error that names it and those there are."""
    with pytest.raises(OptionError, match=r"'?nix.*x"):
        consumer(**options).process(numbered(0, 3))
