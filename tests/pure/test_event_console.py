"""The progress of a foreground run, as texts and as what reaches a descriptor."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streampiped.runtime.console import PLAIN_INTERVAL_S, Console, process_lines, progress_line

STATUS: dict[str, Any] = {
    "state": "running",
    "generation": 1,
    "epoch": 12,
    "uptime": 75.2,
    "report": {"rows": 449_000, "mse": 3.21456, "r2": 0.8723},
    "totals": {"records": 450_000, "records_per_s": 35_123.0, "lag_s": 0.012, "total": 1_000_000, "restarts": 1},
    "processes": [
        {"name": "generator", "state": "running", "records_in": 0, "records_out": 450_000, "records_per_s": 35e3}
    ],
}
NUMBERS = st.none() | st.integers(0, 10**12) | st.floats(0, 1e12)


def test_the_whole_line() -> None:
    """A running pipeline in one line: share done, rate, error, lag, time, restarts, epoch."""
    assert progress_line(STATUS, 160) == (
        "running · [##########..............] 45 % of 1M records · 35.1k/s · MSE 3.215 · R2 0.8723 · lag 12 ms"
        " · 1:15 · 1 restart · epoch 12 · generation 1"
    )


def test_an_early_status_is_enough() -> None:
    """Before anything is known the state alone is shown."""
    assert progress_line({"state": "starting"}, 80) == "starting"
    assert progress_line({"state": "starting", "report": None, "totals": {"records": None}}, 80) == "starting"


@given(
    st.integers(1, 200),
    st.fixed_dictionaries({"records": NUMBERS, "records_per_s": NUMBERS, "lag_s": NUMBERS, "total": NUMBERS}),
    st.booleans(),
)
def test_never_wider_than_asked(width: int, totals: dict[str, Any], bar: bool) -> None:
    """Whatever the figures, no line is wider than the terminal."""
    assert len(progress_line({**STATUS, "totals": totals}, width, bar=bar)) <= width
    assert all(len(line) <= width for line in process_lines(STATUS["processes"], width))


def test_plain_lines_keep_their_distance() -> None:
    """Without a terminal a line comes every few seconds, and at once when the state changes; no escapes in it."""
    reader, writer = os.pipe()
    console = Console(writer)
    assert console.update(STATUS, 100.0) == 100.0 + PLAIN_INTERVAL_S
    assert console.update(STATUS, 101.0) == 100.0 + PLAIN_INTERVAL_S
    console.update({**STATUS, "state": "draining"}, 102.0)
    console.update({**STATUS, "state": "draining"}, 102.0 + PLAIN_INTERVAL_S)
    console.close()
    os.close(writer)
    text = os.read(reader, 65536).decode()
    os.close(reader)
    assert [line.split(" ")[0] for line in text.splitlines()] == ["running", "draining", "draining"]
    assert "\x1b" not in text
