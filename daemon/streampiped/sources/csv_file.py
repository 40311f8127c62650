"""CSV files: one record per line, RFC 4180 quoting within the line.

A quoted field may hold delimiters and doubled quotes but no newline: a position is then a line, a torn or wrong line
spoils one record and not the rest of the file, and a followed file knows when a record is complete.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from streampiped.records import is_column_name
from streampiped.sources import arrow_csv
from streampiped.sources.columns import Table, numbers_among
from streampiped.sources.lines import LINE_BYTES_MAX
from streampiped.sources.text_file import TextFile, TextFileOptions
from streampiped.stages.base import Emit

QUOTING: Final = ('"', "\r", "\0")
"""A block without these is split at every delimiter."""

NO_DELIMITERS: Final = (*QUOTING, "\n")
"""They already mean something in a line; Python's csv refuses some of them, which ones depends on its version."""

ARROW_LINES_MIN: Final = 128
"""pyarrow takes a quarter of a millisecond to begin; of 16 columns it is faster from about 100 lines on."""

csv.field_size_limit(LINE_BYTES_MAX)  # of the library: a field may fill a line, which is bounded already


class CsvOptions(TextFileOptions):
    """`type = "csv"`."""

    type: Literal["csv"] = "csv"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    names: tuple[str, ...] = ()
    """The columns of a file without a header line; empty: the first line is the header."""

    @model_validator(mode="after")
    def _differ(self) -> CsvOptions:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names should differ, got {list(self.names)}")
        return self

    @field_validator("delimiter")
    @classmethod
    def _delimits(cls, delimiter: str) -> str:
        if delimiter in NO_DELIMITERS:
            raise ValueError(f"delimiter should be a character that neither quotes nor ends a line, got {delimiter!r}")
        return delimiter


class CsvSource(TextFile):
    """Records of a CSV file."""

    def __init__(self, options: CsvOptions, name: str, emit: Emit, *, resuming: bool = False) -> None:
        line_format = CsvFormat(options.delimiter, options.names, options.missing)
        super().__init__(options, name, emit, line_format, resuming=resuming)


class CsvFormat:
    """Splits lines: those without a quote at their delimiters, all at once, and others with the standard library's
    parser. Where all columns are numbers pyarrow may do it, and convert them too. Whichever it was, the values are the
    same, and so is what is rejected."""

    def __init__(self, delimiter: str, names: tuple[str, ...], missing: Collection[str] = ("",)) -> None:
        self.header = not names
        self._names = names
        self._delimiter = delimiter
        self._arrow: arrow_csv.Reader | None = None
        self._arrow_awaited = "" in missing and not numbers_among(missing)  # which is imported when it is first used

    def names(self, header: bytes | None, sample: Sequence[bytes]) -> tuple[str, ...]:
        if header is None:
            return self._names
        fields, reason = self._split_one(header.removeprefix(b"\xef\xbb\xbf"))
        if fields is None:
            raise ValueError(f"the header cannot be read: {reason}")
        names = tuple(field.strip() for field in fields)
        if not all(map(is_column_name, names)) or len(set(names)) != len(names):
            raise ValueError(f"the header should have names that differ, got {names}; `names` says there is no header")
        return names

    def split(
        self,
        lines: Sequence[bytes],
        names: Sequence[str],
        floats: Collection[str] = (),
        told: Collection[str] | None = None,
    ) -> Table:
        """A line with further fields is rejected, so that there is nothing further to tell."""
        columns = self._split_quickly(lines, names, floats)
        if columns is not None:
            return Table(columns, np.arange(len(lines)))
        try:
            rows = self._reader([line.decode() for line in lines])
        except (UnicodeDecodeError, csv.Error):
            return self.split_each(lines, names)
        # A quote that is left open swallows the lines behind it: then there are fewer rows than lines.
        if len(rows) != len(lines) or set(map(len, rows)) - {len(names)}:
            return self.split_each(lines, names)
        return Table(_by_column(rows, names), np.arange(len(rows)))

    def _split_quickly(
        self, lines: Sequence[bytes], names: Sequence[str], floats: Collection[str]
    ) -> Mapping[str, Any] | None:
        """The columns, when no line has anything odd."""
        if len(lines) >= ARROW_LINES_MIN and set(names) <= set(floats):
            if self._arrow_awaited:
                self._arrow, self._arrow_awaited = arrow_csv.reader(self._delimiter), False
            columns = self._arrow(lines, names) if self._arrow is not None else None
            if columns is not None:
                return columns
        return _split_plain(lines, names, self._delimiter)

    def split_each(self, lines: Sequence[bytes], names: Sequence[str]) -> Table:
        rows: list[list[str]] = []
        numbers: list[int] = []
        rejected, first_reason = 0, ""
        for number, line in enumerate(lines):
            fields, reason = self._split_one(line)
            if fields is None or (fields and len(fields) != len(names)):
                rejected += 1
                first_reason = first_reason or reason or f"{len(fields or ())} fields, not {len(names)}"
            elif fields:
                rows.append(fields)
                numbers.append(number)
        return Table(_by_column(rows, names), np.array(numbers, dtype=np.intp), rejected, first_reason)

    def _split_one(self, line: bytes) -> tuple[list[str] | None, str]:
        """The fields, none at all for a blank line; None and the reason when it is no CSV."""
        try:
            rows = self._reader([line.decode()])
        except UnicodeDecodeError:
            return None, "it is too long or no UTF-8"
        except csv.Error as error:
            return None, str(error)
        return (rows[0] if rows else []), ""

    def _reader(self, texts: Sequence[str]) -> list[list[str]]:
        return list(csv.reader(texts, delimiter=self._delimiter, strict=True))


def _split_plain(lines: Sequence[bytes], names: Sequence[str], delimiter: str) -> dict[str, list[str]] | None:
    """The fields of lines without quotes. A mark between lines, which can be no field of a line, shows that each has as
    many fields as there are names. A line without anything is a record of one column to `split`, and none to CSV."""
    mark = f"{delimiter}\n{delimiter}"
    try:
        text = mark.encode().join(lines).decode()
    except UnicodeDecodeError:
        return None
    if any(sign in text for sign in QUOTING) or (len(names) == 1 and b"" in lines):
        return None
    width = len(names) + 1
    fields = text.split(delimiter)
    if len(fields) != width * len(lines) - 1 or any(field != "\n" for field in fields[width - 1 :: width]):
        return None
    return {name: fields[number::width] for number, name in enumerate(names)}


def _by_column(rows: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, Sequence[str]]:
    if not rows:
        return dict.fromkeys(names, ())
    return dict(zip(names, zip(*rows, strict=True), strict=True))
