"""A result that no reader could take, told where it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from streampiped.errors import OutputError
from streampiped.output_check import check_output
from streampiped.records import ROWS_MAX, Batch, Block, Schema, Span

SOURCES: Final = {"here", "there"}


def batch(**changed: Any) -> Batch:
    """Three rows of two sources with columns of each type, but for what is changed."""
    columns = {"x": [0.5, 1.5, 2.5], "y": [0.0, 1.0, 2.0], "n": np.arange(3), "who": ["a", None, "c"]}
    made = Batch.build(columns, sequence=7, spans=(Span("here", 5, 2), Span("there", 0, 1, "left")))
    for name, value in changed.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "good",
    [
        batch(),
        batch().with_columns({"z": [1.0, 2.0, 3.0]}),
        batch().select(np.array([True, False, True])),
        batch().select(np.zeros(3, dtype=np.bool_)),
        Batch.build({}),
    ],
)
def test_what_the_contract_asks_for_passes(good: Batch) -> None:
    """Batches that were built, added to or chosen from pass, and so does one without rows or columns."""
    check_output(good, SOURCES)


WRONG: Final[dict[str, tuple[Callable[[], Batch], str]]] = {
    "a source that nobody is": (lambda: batch(spans=(Span("nobody", 0, 3),)), "'nobody'"),
    "a position below zero": (lambda: batch(spans=(Span("here", -1, 3),)), "start=-1"),
    "a count below zero": (lambda: batch(spans=(Span("here", 0, 4), Span("here", 9, -1))), "count=-1"),
    "no spans": (lambda: batch(spans=()), "of 3 rows, has spans of 0"),
    "spans of more": (lambda: batch(spans=(Span("here", 0, 4),)), "spans of 4"),
    "fewer rows than blocks": (lambda: batch(rows=2, spans=(Span("here", 0, 2),)), "blocks of 3 rows"),
    "too many rows": (lambda: batch(rows=ROWS_MAX + 1, spans=(Span("here", 0, ROWS_MAX + 1),)), f"0 to {ROWS_MAX}"),
    "a sequence below zero": (lambda: batch(sequence=-1), "sequence from 0 on"),
    "float columns in another order": (lambda: batch(schema=Schema(("y", "x"), ("n",), ("who",))), "schema's order"),
    "a column that is not there": (lambda: batch(schema=Schema(("x", "y"), ("n", "m"), ("who",))), "2 int columns"),
    "a block of fewer rows": (lambda: batch(ints=Block.build(("n",), 2, [np.arange(2)], np.int64)), "2 rows of 1 int"),
    "texts that are not there": (lambda: batch(texts={}), "0 texts of the column 'who'"),
    "texts of fewer rows": (lambda: batch(texts={"who": ["a"]}), "1 texts of the column 'who'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_no_reader_takes_is_told(what: str) -> None:
    """Each way of being no batch is an OutputError that names the batch, what is wrong with it and what would be
    right."""
    made, said = WRONG[what]
    with pytest.raises(OutputError, match=r"^the result, batch -?\d+ of \d+ rows, .*\. Right would be: ") as caught:
        check_output(made(), SOURCES)
    assert said in str(caught.value)
