"""plain.py: the report on a terminal that has no blocks."""

from __future__ import annotations

import pytest

from streampiped.measure.sparkline import BLOCKS, bars, narrowed
from streampiped.plain import plain


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None])
def test_bars_become_ascii_where_there_are_none(encoding: str | None) -> None:
    """Every block has a sign of its own, of the same width; what can be encoded stays."""
    text = plain(f"{BLOCKS} 1…", encoding)
    text.encode(encoding or "ascii")
    assert len(set(text[:8])) == len(BLOCKS)
    assert len(text) == len(f"{BLOCKS} 1…")
    assert "?" not in text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bars_stay_where_there_are_some(encoding: str) -> None:
    """A terminal that has them gets them."""
    assert plain(BLOCKS, encoding) == BLOCKS


def test_a_bar_is_as_high_as_its_value() -> None:
    """From the lowest block for 0 to the highest for the top, a gap for nothing, and only low ones for only zeros."""
    assert bars([value / 8 for value in range(8)], 1.0) == BLOCKS
    assert bars([None, 5.0, 0.0]) == " █▁"
    assert bars([0.0, 0.0]) == "▁▁"
    assert bars([]) == ""


def test_neighbours_are_drawn_as_their_weighted_mean() -> None:
    """More values than there is room for become means weighted by their rows; what has none counts for nothing."""
    assert narrowed([1.0, 4.0, None, 8.0, 2.0], [1, 2, 0, 5, 1], 3) == [3.0, 8.0, 2.0]
    assert narrowed([None, None, 3.0], [0, 0, 1], 2) == [None, 3.0]
