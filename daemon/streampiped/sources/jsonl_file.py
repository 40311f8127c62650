"""JSON Lines files: one object per line. Its keys are the columns; a key that a line lacks is missing there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from streampiped.records import is_column_name
from streampiped.sources.columns import Table
from streampiped.sources.text_file import TextFile, TextFileOptions
from streampiped.stages.base import Emit


class JsonlOptions(TextFileOptions):
    """`type = "jsonl"`."""

    type: Literal["jsonl"] = "jsonl"


class JsonlSource(TextFile):
    """Records of a JSON Lines file."""

    def __init__(self, options: JsonlOptions, name: str, emit: Emit, *, resuming: bool = False) -> None:
        super().__init__(options, name, emit, JsonlFormat(options.columns or ()), resuming=resuming)


class JsonlFormat:
    """Splits lines with the standard library's parser. Columns are those asked for, or the keys of the first lines in
    the order they were met; keys that come later, or can name no column, are left out: a batch has one layout."""

    header = False

    def __init__(self, wanted: tuple[str, ...]) -> None:
        self._wanted = wanted

    def names(self, header: bytes | None, sample: Sequence[bytes]) -> tuple[str, ...]:
        parsed = (_parse(line)[0] for line in sample)
        met = dict.fromkeys(key for record in parsed if record for key in record if is_column_name(key))
        return tuple(dict.fromkeys((*met, *self._wanted)))

    def split(self, lines: Sequence[bytes], names: Sequence[str]) -> Table:
        records: list[dict[str, Any]] = []
        numbers: list[int] = []
        rejected, first_reason = 0, ""
        for number, line in enumerate(lines):
            record, reason = _parse(line)
            if record is not None:
                records.append(record)
                numbers.append(number)
            elif reason:
                rejected += 1
                first_reason = first_reason or reason
        columns = {name: [record.get(name) for record in records] for name in names}
        return Table(columns, np.array(numbers, dtype=np.intp), rejected, first_reason)


def _parse(line: bytes) -> tuple[dict[str, Any] | None, str]:
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
