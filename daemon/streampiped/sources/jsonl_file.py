"""JSON Lines files: one object per line. Its keys are the columns; a key that a line lacks is missing there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from streampiped.records import is_column_name
from streampiped.sources.columns import Table
from streampiped.sources.text_file import TextFile, TextFileOptions
from streampiped.stages.base import Emit

INT_BEYOND: Final = 2.0**63


Quick: TypeAlias = Callable[[bytes], "dict[str, Any] | None"]
"""A line's object, or None for a line that is left to `parse`."""


class JsonlOptions(TextFileOptions):
    """`type = "jsonl"`."""

    type: Literal["jsonl"] = "jsonl"


class JsonlSource(TextFile):
    """Records of a JSON Lines file."""

    def __init__(self, options: JsonlOptions, name: str, emit: Emit, *, resuming: bool = False) -> None:
        super().__init__(options, name, emit, JsonlFormat(options.columns or ()), resuming=resuming)


class JsonlFormat:
    """Splits lines with the standard library's parser, or with orjson where that is installed (the extra `json`):
    whichever it was, the values are the same, and so is what is rejected. Columns are those asked for, or the keys of
    the first lines in the order they were met; keys that come later, or can name no column, are left out: a batch has
    one layout. Those that come later are told."""

    header = False

    def __init__(self, wanted: tuple[str, ...]) -> None:
        self._wanted = wanted
        self._quick = _quick()

    def names(self, header: bytes | None, sample: Sequence[bytes]) -> tuple[str, ...]:
        parsed = (parse(line)[0] for line in sample)
        met = dict.fromkeys(key for record in parsed if record for key in record if is_column_name(key))
        return tuple(dict.fromkeys((*met, *self._wanted)))

    def split(
        self,
        lines: Sequence[bytes],
        names: Sequence[str],
        floats: Collection[str] = (),
        told: Collection[str] | None = None,
    ) -> Table:
        table = self._split(lines, names, self._quick, told)
        if self._quick is None or all(name in floats or _is_exact(table.columns[name]) for name in names):
            return table
        return self._split(lines, names, None, told)

    def _split(
        self, lines: Sequence[bytes], names: Sequence[str], quick: Quick | None, told: Collection[str] | None
    ) -> Table:
        records: list[dict[str, Any]] = []
        numbers: list[int] = []
        rejected, first_reason = 0, ""
        for number, line in enumerate(lines):
            record, reason = (quick(line) if quick else None), ""
            if record is None:
                record, reason = parse(line)
            if record is not None:
                records.append(record)
                numbers.append(number)
            elif reason:
                rejected += 1
                first_reason = first_reason or reason
        columns = _whole(records, names)
        # of lines that have every column their number of keys says it all, in 14 ns a line
        is_all = columns is not None and sum(map(len, records)) == len(names) * len(records)
        further = {} if told is None or is_all else _further(records, numbers, {*names, *told})
        if columns is None:
            columns = {name: [record.get(name) for record in records] for name in names}
        return Table(columns, np.array(numbers, dtype=np.intp), rejected, first_reason, further)


def _whole(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Sequence[Any]] | None:
    """The columns; None when a record lacks one, or there are so few that this way is none."""
    if len(names) > 1 and records:
        with contextlib.suppress(KeyError):
            return dict(zip(names, zip(*map(itemgetter(*names), records), strict=True), strict=True))
    return None


def _further(records: Sequence[Mapping[str, Any]], numbers: Sequence[int], known: Collection[str]) -> dict[str, int]:
    """Keys that could be columns and are not among the `known`, with the line that has them first."""
    keys: set[str] = set().union(*records)  # 90 ns a record of 16, where a look at each record would be 210
    new = {key for key in keys.difference(known) if is_column_name(key)}
    found: dict[str, int] = {}
    if new:
        for number, record in zip(numbers, records, strict=True):
            for key in record:
                if key in new:
                    found.setdefault(key, number)
    return found


def _quick() -> Quick | None:
    """orjson's reading of an ordinary line. How deep is too deep, and what is wrong with a line, the standard library
    has the word about."""
    try:
        import orjson
    except ImportError:
        return None

    def quick(line: bytes) -> dict[str, Any] | None:
        if line.count(b"{") != 1 or b"[" in line:
            return None
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        return value if value and isinstance(value, dict) else None

    return quick


def _is_exact(values: Sequence[Any]) -> bool:
    """No value is the float that orjson makes of an integer of more than 64 bits. To a column of floats it is the same
    number; in a text or an int column it would have other digits."""
    return not any(isinstance(value, float) and abs(value) >= INT_BEYOND for value in values)


def parse(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """The object, or None and why there is none; no reason for a blank line."""
    try:
        text = line.decode()
        value = json.loads(text) if text.strip() else None
        if "\\ud" in text or "\\uD" in text:  # an escape may be half a pair: no text that UTF-8 could carry on
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        return None, "it is too long or no UTF-8"
    except (ValueError, RecursionError) as error:
        return None, f"it is no JSON: {error}"
    if isinstance(value, dict):
        return (value, "") if value else (None, "it is an empty object")
    return None, "" if not text.strip() else f"it should be an object, is {type(value).__name__}"
