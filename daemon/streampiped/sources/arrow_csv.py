"""Blocks of plain decimal numbers through the CSV reader of pyarrow, where that is installed (the extra `arrow`).

Whether it is installed may change no bit of a result. So a block comes here only when it has nothing but digits, signs,
points, exponents, delimiters and newlines; of those float() and pyarrow take the same texts for numbers and round them
correctly, and what pyarrow refuses is split and converted as ever. tests/stages/test_source_quick.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np

from streampiped.records import Array

Reader: TypeAlias = Callable[[Sequence[bytes], Sequence[str]], "dict[str, Array] | None"]

PLAIN: Final = b"0123456789+-.eE\n"
DELIMITERS: Final = ",;\t|"
"""Others could be a part of a number, or be trimmed."""


def reader(delimiter: str) -> Reader | None:
    """What makes columns of lines, or None of it for lines that it leaves to others; an empty field is NaN. None
    without pyarrow."""
    if delimiter not in DELIMITERS:
        return None
    try:
        import pyarrow
        from pyarrow import csv
    except ImportError:
        return None
    parse = csv.ParseOptions(delimiter=delimiter, quote_char=False)
    foreign_to = PLAIN + delimiter.encode()

    def read(lines: Sequence[bytes], names: Sequence[str]) -> dict[str, Array] | None:
        block = b"\n".join(lines)
        if block.translate(None, foreign_to):
            return None
        # A block in one piece: no line is cut, and no column is in several.
        how = csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=list(names))
        types = dict.fromkeys(names, pyarrow.float64())
        convert = csv.ConvertOptions(column_types=types, null_values=[""])
        try:
            table = csv.read_csv(pyarrow.py_buffer(block), how, parse, convert)
        except pyarrow.ArrowException:
            return None
        if table.num_rows != len(lines):  # blank lines are passed over
            return None
        return {name: np.concatenate([c.to_numpy(zero_copy_only=False) for c in table[name].chunks]) for name in names}

    return read
