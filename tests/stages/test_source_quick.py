"""The quick ways through a block of lines give what the ordinary way gives: the same bits, the same lines rejected."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streampiped.sources import csv_file, jsonl_file
from streampiped.sources.columns import Table, convert, to_floats
from streampiped.sources.csv_file import CsvFormat
from streampiped.sources.jsonl_file import JsonlFormat
from streampiped.sources.text_file import KEYS_SHOWN, KEYS_TOLD_MAX
from support.streams import Events, column, drain, generator, positions

MISSING = frozenset(("", "NA"))
FLOATS = ("float", "float", "float")
QUIET = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# fmt: off
ODD = (
    "", " ", "NA", "nan", "NaN", "-nan", "inf", "-Infinity", "1_000", "0x10", "1,5", "1e5", "1E+05", "1e", "e1", "+1",
    "+", "-", ".", "5.", ".5", "-.5", "--1", "1-1", "1e400", "-1e400", "1e-400", "-0", "-0.0", "007", " 1", "1 ", "\t2",
    "1\x1f", "1\x0b", "\x00", "1\x00", "\N{ARABIC-INDIC DIGIT THREE}", "1\u00a0", "ü", "word", '"', '""', '"1"', '"1',
    '1"', '"a,b"', "1\r", "\r", "9007199254740993", "2.4703282292062327e-324", "2.4703282292062328e-324", "1e308",
    "1.7976931348623158e308", "1.7976931348623159e308", "0." + "0" * 400 + "1", "1" + "0" * 400, "True", "-999",
    "123456789012345678901234567890",
)
# fmt: on

numbers = st.floats(allow_nan=False, allow_infinity=False)
decimals = st.from_regex(r"[+-]?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{1,3})?", fullmatch=True)
fields = st.one_of(numbers.map(repr), numbers.map(repr), decimals, st.sampled_from(ODD))


def bits(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: values.tobytes() if isinstance(values, np.ndarray) else values for name, values in columns.items()}


def outcome(table: Table, kinds: dict[str, Any], missing: frozenset[str] = MISSING) -> Any:
    """All that TextFile looks at."""
    made = {name: convert(kind, table.columns[name], missing) for name, kind in kinds.items()}
    values = {
        name: np.delete(column, bad) if isinstance(column, np.ndarray) else column
        for name, (column, bad) in made.items()
    }
    wrong = {name: (bad, str(table.columns[name][bad[0]]) if bad else "") for name, (_, bad) in made.items()}
    return bits(values), wrong, table.lines.tolist(), table.rejected, table.reason


@pytest.fixture(params=["core", "extras"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extras, for blocks of any size, and as if they were not installed."""
    monkeypatch.setattr(csv_file, "ARROW_LINES_MIN", 1)
    for module in ("pyarrow", "orjson"):
        if request.param == "core":
            monkeypatch.setitem(sys.modules, module, None)
        else:
            pytest.importorskip(module)


def ordinary_csv(lines: Sequence[bytes], names: Sequence[str], delimiter: str) -> Table:
    """One line after another, with the standard library's parser."""
    return CsvFormat(delimiter, ()).split_each(lines, names)


@pytest.mark.usefixtures("_way")
@QUIET
@given(
    rows=st.lists(st.lists(fields, min_size=3, max_size=3), max_size=6),
    extra=st.lists(st.tuples(st.integers(0, 6), st.text('1,;."\r e\x00ü', max_size=6)), max_size=2),
    delimiter=st.sampled_from([",", ",", ";", "\t", " ", "ü", "1"]),
    kinds=st.sampled_from([FLOATS, FLOATS, ("text", "float", "int")]),
    width=st.sampled_from([3, 3, 3, 1]),
    missing=st.sampled_from([MISSING, MISSING, frozenset(("NA",)), frozenset(("-", "-999", ""))]),
)
@example(rows=[], extra=[(0, "1,2,3,4"), (1, "1,2")], delimiter=",", kinds=FLOATS, width=3, missing=MISSING)
@example(rows=[["-999", "1", ""]], extra=[], delimiter=",", kinds=FLOATS, width=3, missing=frozenset(("", "-999")))
@example(rows=[["", "1", "2"]], extra=[], delimiter=",", kinds=FLOATS, width=3, missing=frozenset(("NA",)))
def test_csv_blocks(
    rows: list[list[str]],
    extra: list[tuple[int, str]],
    delimiter: str,
    kinds: tuple[str, ...],
    width: int,
    missing: frozenset[str],
) -> None:
    """Any lines, well-formed or not, with any delimiter: split all at once or one by one, the columns have the same
    bits, the same values are wrong, and the same lines are rejected with the same reason."""
    lines = [delimiter.join(row[:width]).encode() for row in rows]
    for place, text in extra:
        lines.insert(place, text.encode())
    names = ["a", "b", "c"][:width]
    types: dict[str, Any] = dict(zip(names, kinds, strict=False))
    floats = [name for name in names if types[name] == "float"]
    quick = CsvFormat(delimiter, (), missing).split(lines, names, floats)
    assert outcome(quick, types, missing) == outcome(ordinary_csv(lines, names, delimiter), types, missing)


values = st.recursive(
    st.one_of(
        numbers.map(repr),
        decimals,
        st.integers(-(1 << 70), 1 << 70).map(str),
        st.text().map(json.dumps),
        st.sampled_from(
            [
                "null",
                "true",
                "NaN",
                "-Infinity",
                "-0",
                "01",
                "1.",
                '"\\ud800"',
                '"\\ud83d\\ude00"',
                '"[{"',
                '"NA"',
                '"1.5"',
                "1e400",
                "1" + "0" * 400,
                '"a\x01"',
                '"\x7f"',
                "[]",
                "{}",
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]"), inner.map(lambda each: f'{{"k": {each}}}')
    ),
    max_leaves=4,
)
objects = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "other"]), values), max_size=5).map(
    lambda pairs: "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"
)
pieces = st.sampled_from(
    ["", " ", "{", "}", "[1]", "null", "1", '{"a": 1}x', ' {"a": 1}', '{"a": 1}\r', "\ufeff{}", "\f"]
)


@pytest.mark.usefixtures("_way")
@QUIET
@given(texts=st.lists(st.one_of(objects, objects, pieces), max_size=6), odd=st.booleans())
@example(texts=['{"a": ' + "[" * 980 + "]" * 980 + "}"], odd=True)
@example(texts=['{"b": [18446744073709551616]}'], odd=False)
@example(texts=['{"b": 18446744073709551616, "c": -9223372036854775809}'], odd=False)
def test_json_lines(texts: list[str], odd: bool) -> None:
    """Any lines, JSON or not, nested or not: the same values, wrong values, rejected lines and reasons as with the
    standard library alone."""
    lines = [text.encode(errors="surrogatepass") for text in texts] + [b'{"a": "\xff"}'] * odd
    names = ["a", "b", "c"]
    types: dict[str, Any] = {"a": "float", "b": "text", "c": "int"}
    quick = JsonlFormat(()).split(lines, names, ["a"], told=())
    parsed = [jsonl_file.parse(line) for line in lines]
    records = [record for record, _ in parsed if record is not None]
    reasons = [reason for record, reason in parsed if record is None and reason]
    numbered = np.array([n for n, (record, _) in enumerate(parsed) if record is not None], dtype=np.intp)
    columns = {name: [record.get(name) for record in records] for name in names}
    ordinary = Table(columns, numbered, len(reasons), reasons[0] if reasons else "")
    assert outcome(quick, types) == outcome(ordinary, types)
    has_other = [int(number) for number, record in zip(numbered, records, strict=True) if "other" in record]
    assert quick.further == ({"other": has_other[0]} if has_other else {})
    assert JsonlFormat(()).split(lines, names, ["a"], told=("other",)).further == {}
    assert JsonlFormat(()).split(lines, names, ["a"]).further == {}


def grown(path: Path) -> dict[str, Any]:
    """A file whose lines have other keys further down: one more, one instead of another, one in a single line, and two
    that can name no column."""
    rows: list[dict[str, Any]] = [{"a": n, "b": n / 3} for n in range(1000)]
    for number, row in enumerate(rows):
        row |= {"late": 1.0} if number >= 400 else {}
        row |= {"": 1, "k" * 129: 1} if number >= 300 else {}
        if number >= 600:
            row["renamed"] = row.pop("b")
    rows[777]["once"] = [1]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"type": "jsonl", "path": str(path)}


@pytest.mark.parametrize("size", [1, 7, 256, 1000])
@pytest.mark.usefixtures("_way")
def test_a_key_that_comes_later_is_told_once(tmp_path: Path, size: int) -> None:
    """The line in whose middle a JSON Lines file gains a key is told with the key: once for each key, wherever batches
    are cut and also when the source goes back, and never of one that could be no column."""
    events = Events()
    stage = generator(grown(tmp_path / "in"), emit=events, batch_max=size)
    for _ in range(2):
        batches = drain(stage)
        assert batches[0].schema.names == ("a", "b")
        assert sum(batch.rows for batch in batches) == 1000
        stage.restore(None)
    told = {"late": 400, "renamed": 600, "once": 777}
    assert set(events.names()) == {"keys_left_out"}
    assert ", ".join(fields["keys"] for _, fields in events.seen) == ", ".join(told)
    assert all(fields["row"] == told[fields["keys"].split(", ")[0]] for _, fields in events.seen)
    assert len(events.seen) == (1 if size == 1000 else 3)


def test_keys_without_end_are_told_a_bounded_number_of_times(tmp_path: Path) -> None:
    """A file each of whose lines has a key of its own makes as many events as keys are told at most, and one batch that
    brings them all makes one of a bounded length."""
    source = {"type": "jsonl", "path": str(tmp_path / "in")}
    lines = ['{"a": 1}\n'] * 256 + [f'{{"a": 1, "id{n}": 1}}\n' for n in range(500)]
    (tmp_path / "in").write_text("".join(lines))
    for size, most in ((1, KEYS_TOLD_MAX), (756, 1)):
        events = Events()
        assert sum(batch.rows for batch in drain(generator(source, emit=events, batch_max=size))) == 756
        assert len(events.seen) == most
        assert events.seen[0][1]["row"] == 256
    assert events.seen[0][1]["keys"].endswith(f"id{KEYS_SHOWN - 1} and {500 - KEYS_SHOWN} more")


def test_who_names_columns_is_told_of_no_other(tmp_path: Path) -> None:
    """A key that was not asked for is not missed."""
    events = Events()
    drain(generator(grown(tmp_path / "in") | {"columns": ["a"]}, emit=events))
    assert events.seen == []


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.usefixtures("_way")
def test_batches_of_both_ways(tmp_path: Path, kind: str) -> None:
    """A file in which some batches are plain and some have an odd line: values, positions and events are those of the
    file read line by line."""
    random = np.random.default_rng(3)
    rows = random.standard_normal((2000, 3)).tolist()
    path = tmp_path / f"in.{kind}"
    if kind == "csv":
        texts = [",".join(map(repr, row)) for row in rows]
        texts[700] = '"1.5",2,'
        texts[701] = "1,2"
        texts[1500] = "1,NA,x"
        path.write_text("\n".join(["a,b,c", *texts]) + "\n")
    else:
        texts = [json.dumps(dict(zip("abc", row, strict=True))) for row in rows]
        texts[700] = '{"a": "1.5", "b": 2}'
        texts[701] = "{"
        texts[1500] = '{"a": 1, "b": null, "c": "x"}'
        path.write_text("\n".join(texts) + "\n")
    seen: dict[int, Any] = {}
    for size in (1, 256):
        events = Events()
        batches = drain(generator({"type": kind, "path": str(path)}, emit=events, batch_max=size))
        found = {name: np.array(column(batches, name)).tobytes() for name in "abc"}
        seen[size] = found, positions(batches), [(event, fields["reason"]) for event, fields in events.seen]
    assert seen[1] == seen[256]
    assert seen[1][1] == [n for n in range(2000) if n not in (701, 1500)]
    assert len(seen[1][2]) == 2


@pytest.mark.parametrize("others", [[], ["word"], ["NA"]])
def test_a_number_may_mean_missing(others: list[str]) -> None:
    """A number among the texts that mean 'no value' is no value, whatever else is in the block."""
    column, bad = to_floats(["1.5", "-999", "nan", *others], frozenset(("-999", "NA")))
    assert np.array_equal(column[:3], [1.5, np.nan, np.nan], equal_nan=True)
    assert bad == ([3] if others == ["word"] else [])
