"""column_values.py and Batch.build: what a stage gives becomes a column of the same values, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampiped.records import Batch

REFUSED: dict[str, tuple[Any, str]] = {
    "unsigned beyond int64": (
        np.array([2**63], np.uint64),
        "column 'v' has 9223372036854775808, an int column at most",
    ),
    "unsigned of the other byte order": (np.array([2**64 - 1], ">u8"), "column 'v' has 18446744073709551615, an int"),
    "masked integers": (np.ma.array([1], mask=[True]), "is int, which has no missing, and masked"),
    "complex": (np.array([1 + 2j]), "complex numbers; give their parts as two columns"),
    "complex objects": (np.array([1 + 2j], object), "complex numbers; give their parts as two columns"),
}


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize(("values", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_a_column_has_no_place_for_is_refused(values: Any, reason: str, rows: int) -> None:
    """With the column and the reason, however many rows a batch has: they became other numbers, by the batch's size."""
    many = np.ma.concatenate([values] * rows) if isinstance(values, np.ma.MaskedArray) else np.repeat(values, rows)
    with pytest.raises(ValueError, match=reason):
        Batch.build({"v": many})


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_what_is_masked_is_missing(rows: int) -> None:
    """A masked number is NaN, and not what lies below the mask."""
    batch = Batch.build(
        {"v": np.ma.array(np.full(rows, 7.0), mask=[True] * rows), "w": np.ma.array(np.full(rows, 7.0))}
    )
    assert np.isnan(batch["v"]).all()
    assert batch["w"].tolist() == [7.0] * rows


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_numbers_of_every_type_keep_their_value(rows: int) -> None:
    """Smaller integers, unsigned ones that have a place, booleans and single precision."""
    given = {
        "small": np.full(rows, -5, np.int8),
        "unsigned": np.full(rows, 2**63 - 1, np.uint64),
        "flag": np.full(rows, True),
        "single": np.full(rows, 0.5, np.float32),
    }
    batch = Batch.build(given)
    assert batch.schema.ints == ("small", "unsigned")
    assert batch.schema.floats == ("flag", "single")
    assert {name: batch[name].tolist() for name in given} == {name: given[name].tolist() for name in given}


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_a_time_that_is_none_is_missing(rows: int) -> None:
    """NaT is NaN; a time is its number of units."""
    batch = Batch.build({"at": np.array(["NaT"] * (rows - 1) + ["1970-01-02"], "datetime64[s]")})
    assert np.isnan(batch["at"][:-1]).all()
    assert batch["at"][-1] == 86_400.0


def test_a_list_of_complex_numbers_is_refused() -> None:
    """As an array of them is."""
    with pytest.raises(ValueError, match="column 'v' has complex numbers"):
        Batch.build({"v": [1.0, 1j]})
