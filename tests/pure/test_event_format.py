"""Events as records and lines: bounded, valid, harmless to a terminal."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampiped.runtime.event_file import head_of
from streampiped.runtime.event_format import (
    FIELDS_MAX,
    LINE_BYTES_MAX,
    PRIORITY,
    RESERVED,
    make_record,
    printable,
    readable,
    to_json,
    with_priority,
)

TS = 1_700_000_000.25


def record(event: str = "stage_died", **fields: object) -> dict[str, Any]:
    return make_record(event, "trainer", "error", TS, 42, None, fields)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=50)
    | st.binary(max_size=20)
    | st.text(min_size=1, max_size=3).map(lambda t: t * 9000),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=40)  # each is a 30 KiB line
@given(st.dictionaries(st.text(max_size=10), VALUES, max_size=40))
def test_any_fields_become_one_bounded_line(fields: dict[str, Any]) -> None:
    """Whatever an emitter sends becomes exactly one valid JSON line within the limit, the head intact."""
    line = to_json(make_record("stage_died", "trainer", "error", TS, 42, "c1", fields))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert len(line) <= LINE_BYTES_MAX
    parsed = json.loads(line)
    assert [parsed[name] for name in RESERVED] == [TS, "error", "stage_died", "trainer", 42, "c1"]


@pytest.mark.parametrize("item", ["x" * 9000, "\x00" * 9000, ["é" * 9000] * 64, {"k" * 500: "\n" * 9000}])
def test_the_largest_fields_fit(item: object) -> None:
    """As many of the largest fields as are allowed still make one line within the limit."""
    fields = {f"field{n}": item for n in range(FIELDS_MAX)}
    line = to_json(make_record("stage_died", "t", "error", TS, 1, None, fields))
    assert len(line) <= LINE_BYTES_MAX
    assert json.loads(line)["event"] == "stage_died"


def test_a_traceback_keeps_both_ends() -> None:
    """A text that is too long loses its middle and says how much."""
    text = json.loads(to_json(record(traceback="begin" + "x" * 50_000 + "ValueError: end")))["traceback"]
    assert text.startswith("begin")
    assert text.endswith("ValueError: end")
    assert "characters left out" in text


def test_fields_cannot_forge_the_head() -> None:
    """A field named like one of the log's own is kept beside it."""
    parsed = json.loads(to_json(record(stage="evaluator", level="debug")))
    assert (parsed["stage"], parsed["stage_"]) == ("trainer", "evaluator")
    assert (parsed["level"], parsed["level_"]) == ("error", "debug")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 1 << 20_000, b"\xff", object(), "\ud800", {1: 2}], ids=type
)
def test_values_json_has_not(value: object) -> None:
    """NaN, infinities, huge integers, bytes, objects and lone surrogates stay readable for a strict parser."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(to_json(record(value=value)), parse_constant=refuse)


def test_head_is_read_without_a_parser() -> None:
    """Level and stage come out of a line as it was written, and None out of anything else."""
    line = record(reason="x")
    assert head_of(to_json(line)) == ("error", "trainer", line["ts"])
    assert head_of(b'{"level":"error"}') is None


def test_terminal_line() -> None:
    """Time in ISO 8601 UTC, level, stage, text; a traceback stands indented below."""
    text = readable(record(reason="signal 9", traceback="Traceback:\n  boom\n"), colour=False)
    assert text == ("2023-11-14T22:13:20.250Z ERROR    trainer        died: signal 9\n    Traceback:\n      boom\n")


def test_colour_only_when_asked() -> None:
    """Escape sequences appear with colour and not without."""
    assert "\x1b[31m" in readable(record(reason="x"), colour=True)
    assert "\x1b" not in readable(record(reason="\x1b[31mred"), colour=False)


def test_lines_that_systemd_reads_carry_their_priority() -> None:
    """Every line for a standard error that systemd reads begins with its syslog priority, also those of a traceback."""
    lines = with_priority(record(reason="x", traceback="a\nb")).splitlines()
    assert lines == ["<3>trainer: died: x", "<3>    a", "<3>    b"]
    assert PRIORITY["debug"] == 7
    assert PRIORITY["critical"] == 2


@given(st.text())
def test_nothing_a_terminal_obeys(text: str) -> None:
    """No control character but newline and tab gets through."""
    assert not [c for c in printable(text) if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]


def test_unlisted_events_show_their_fields() -> None:
    """An event of a user's stage that no template knows is shown by its name and fields."""
    assert "model_saved path=/x" in readable(record("model_saved", path="/x"), colour=False)
