"""Rows of `streampipectl predict` as they come in and go out: CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from streampipectl.output import dumped

READ_BYTES: Final = 64 << 10
ANSWERS: Final = {"prediction": "predictions", "prediction_low": "low", "prediction_high": "high"}
CLASS_ANSWERS: Final = {"prediction": "predictions", "probability": "probability"}
"""Column -> what it is called in the answer; of numbers, and of classes."""
SEPARATORS: Final = {";": "';'", "\t": "a tab", "|": "'|'"}
"""What a header of one column may have been meant to be parted by."""
AN_ARRAY: Final = "a JSON array; give an object per line, as `jq -c '.[]'` makes of it"

Row = tuple[int, dict[str, Any]]
"""Its line, and its values by column as they came."""


class RowError(Exception):
    """What is wrong with the input, and on which line (from 1)."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


class Reader:
    """Rows from a descriptor, one after the other; `RowError` for the first that is wrong. `before_waiting` is called
    whenever all that has come is read."""

    def __init__(self, fd: int, source: str, before_waiting: Callable[[], None]) -> None:
        """Reads the first line where the rows may come as either (`auto`)."""
        lines = _lines(fd, before_waiting)
        if source == "auto":
            blank = []
            for line in lines:
                blank.append(line)
                if line.strip():
                    break
            lines = chain(blank, lines)
            first = blank[-1].lstrip() if blank else ""
            if first.startswith("["):
                raise RowError(len(blank), AN_ARRAY)
            source = "jsonl" if first.startswith("{") else "csv"
        self.kind = source
        self._lines = lines
        self._header: tuple[int, list[str]] | None = None
        self.found = False
        """Whether there was a row."""

    def __iter__(self) -> Iterator[Row]:
        for row in self._from_json() if self.kind == "jsonl" else self._from_csv():
            self.found = True
            yield row

    def lacks(self, columns: Sequence[str], wanted: Sequence[str], line: int) -> RowError:
        """The complaint that none of the rows from `line` on has these columns: of CSV it is the header's fault."""
        hint = ""
        if self._header is not None:
            line, names = self._header
            if len(names) == 1 and (found := [said for char, said in SEPARATORS.items() if char in names[0]]):
                hint = f"; columns are parted by commas, and the only one of this header has {found[0]} in it"
        return RowError(line, f"no column {', '.join(columns)}; wanted are {', '.join(wanted)}{hint}")

    def _from_json(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines, 1):
            if not line.strip():
                continue
            if line.lstrip().startswith("["):
                raise RowError(number, AN_ARRAY)
            try:
                value = json.loads(line, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as error:
                raise RowError(number, f"no JSON: {error}") from None
            if not isinstance(value, dict):
                raise RowError(number, "no JSON object")
            yield number, value

    def _from_csv(self) -> Iterator[Row]:
        reader = csv.reader(self._lines, strict=True)
        names: list[str] | None = None
        try:
            for cells in reader:
                if not cells:
                    continue
                if names is None:
                    names = [cell.strip() for cell in cells]
                    self._header = reader.line_num, names
                    if len(set(names)) < len(names):
                        raise RowError(reader.line_num, "a column's name stands twice in the header")
                elif len(cells) != len(names):
                    raise RowError(reader.line_num, f"{len(cells)} values, should be {len(names)}")
                else:
                    yield reader.line_num, dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise RowError(reader.line_num, str(error)) from None


class Writer:
    """CSV with a header, or JSON lines: what came in, and the answers."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._columns: dict[str, None] | None = None
        self._names: list[str] = []
        self._csv = csv.writer(sys.stdout, lineterminator="\n")
        self._lost = 0
        self._replaced: set[str] = set()

    def check(self, rows: Sequence[Row]) -> None:
        """To be called before `write`. RowError for a column that a header, which the first row makes, has no room
        for."""
        if self._kind == "jsonl" or not rows:
            return
        if self._columns is None:
            self._columns = dict.fromkeys(rows[0][1])
        for line, values in rows:
            if late := values.keys() - self._columns.keys():
                names = ", ".join(sorted(late))
                raise RowError(line, f"{names}: a column that the first row has not is not in the header; --to jsonl")

    def write(self, rows: Sequence[Row], answers: Mapping[str, Any]) -> None:
        names = CLASS_ANSWERS if "classes" in answers else ANSWERS
        self._replaced.update(name for name in names if any(name in row for _, row in rows))
        made = zip(*(answers[key] for key in names.values()), strict=True)
        found = [{**row, **dict(zip(names, values, strict=True))} for (_, row), values in zip(rows, made, strict=True)]
        if self._kind == "jsonl":
            for row in found:
                self._lost += sum(map(_is_lost, row.values()))
                sys.stdout.write(dumped(row) + "\n")
        else:
            if not self._names:
                self._names = list({**(self._columns or {}), **found[0]})
                self._csv.writerow(self._names)
            self._csv.writerows([_cell(row.get(name)) for name in self._names] for row in found)
        sys.stdout.flush()

    def told(self) -> Iterator[str]:
        """What did not come out as it came."""
        if self._replaced:
            yield f"{', '.join(sorted(self._replaced))} of the input has made way for that of the model"
        if self._lost:
            yield f"{self._lost} values that JSON does not have (NaN, infinities) are null"


def _is_lost(value: Any) -> bool:
    """`dumped` makes it null."""
    return isinstance(value, float) and not abs(value) < float("inf")


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """ValueError when a key stands twice: the first of its values would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} stands twice in an object")
    return found


def _lines(fd: int, before_waiting: Callable[[], None]) -> Iterator[str]:
    """The lines that are read there, with their ends; RowError for what is no UTF-8."""
    rest, number = b"", 0
    while True:
        before_waiting()
        try:
            data = os.read(fd, READ_BYTES)
        except OSError as error:
            raise RowError(number + 1, f"standard input cannot be read: {error.strerror}") from None
        *whole, rest = (rest + data).split(b"\n")
        if not data and rest:
            whole, rest = [rest], b""
        for line in whole:
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise RowError(number, "no UTF-8") from None
            yield text + "\n"
        if not data:
            return
