"""learn/late/pending.py: questions that wait by id, against a plain dict; bounded, and restored exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streampiped.learn.estimators import equal
from streampiped.learn.late.asked import LOOKS, SERVED, Asked, AskedForm
from streampiped.learn.late.pending import LINES_FIRST, NO_LINE, Id, Pending
from streampiped.learn.past import Past

ROWS = st.lists(st.tuples(st.integers(0, 9) | st.none(), st.booleans()), max_size=60)


def plain(rows: list[tuple[Id | None, bool]], most: int, *, immediate: bool) -> tuple[list[Any], dict[str, int]]:
    """What each row is, with the row of its question, and the counts: by a dict and nothing else."""
    waiting: dict[Id, int] = {}
    counts = dict.fromkeys(("asked", "answered", "given_up", "late", "repeated", "without_id"), 0)
    kinds: list[Any] = []
    for row, (key, labelled) in enumerate(rows):
        if labelled and key in waiting:
            kinds.append(("tells", waiting.pop(key)))
            counts["answered"] += 1
        elif labelled:
            kinds.append(("both", row) if immediate else ("late", None))
            counts["late"] += not immediate
        else:
            kinds.append(("asks", None))
            if key is None or key in waiting:
                counts["without_id" if key is None else "repeated"] += 1
                continue
            counts["asked"] += 1
            waiting[key] = row
            if len(waiting) > most:
                del waiting[next(iter(waiting))]
                counts["given_up"] += 1
    return kinds, counts


def answered(pending: Pending[Asked], rows: list[tuple[Id | None, bool]], first: int, *, immediate: bool) -> list[Any]:
    """Kind of each row; every question writes its row number, and a label reads that of its question."""
    joined = pending.join([key for key, _ in rows], np.array([each for _, each in rows], bool), immediate=immediate)
    kinds = {(True, False): "asks", (False, True): "tells", (True, True): "both", (False, False): "late"}
    result: list[Any] = []
    for row, pair in enumerate(zip(joined.asks.tolist(), joined.tells.tolist(), strict=True)):
        line = joined.lines[row : row + 1]
        if pair[0]:
            past = Past().now(1)
            served = {name: float(first + row) for name in SERVED}
            pending.write(line, Asked.of(np.full((1, 2), first + row), past, [np.zeros(1)], served))
        told = pending.read(line) if pair[1] else None
        result.append((kinds[pair], None if told is None else float(told.served("row")[0])))
        assert (line[0] == NO_LINE) == (kinds[pair] == "late")
        assert told is None or told.features().tolist() == [[told.served("row")[0]] * 2]
    return result


@given(ROWS, st.integers(1, 5), st.booleans(), st.integers(0, 60))
def test_against_a_plain_dict(rows: list[tuple[Id | None, bool]], most: int, immediate: bool, cut: int) -> None:
    """Questions, labels, late labels, repeated and given-up questions are those of a plain dict, each label reads what
    its own question wrote, and a restore between any two batches changes nothing."""
    pending, twin = Pending(most, AskedForm(2, ["mean"])), Pending(most, AskedForm(2, ["mean"]))
    parts = [(0, rows[:cut]), (len(rows[:cut]), rows[cut:])]
    found = []
    for first, part in parts:
        ours = answered(pending, part, first, immediate=immediate)
        assert first == 0 or ours == answered(twin, part, first, immediate=immediate)
        twin = Pending(most, AskedForm(2, ["mean"]))
        twin.restore(pending.state())
        assert equal(twin.state(), pending.state())
        found += ours
    kinds, counts = plain(rows, most, immediate=immediate)
    assert found == kinds
    assert pending.counts == counts


def test_the_table_is_bounded() -> None:
    """However many questions are never answered, there is a line for `wait_rows_max` of them and for one batch."""
    pending, most, rows = Pending(500, AskedForm(2, ["mean"])), 500, 64
    for first in range(0, 100 * rows, rows):
        pending.join(list(range(first, first + rows)), np.zeros(rows, bool), immediate=False)
        assert len(pending) == min(most, first + rows)
    assert pending.counts["given_up"] == 100 * rows - most
    assert pending.state()["table"].shape == (most, 2 + LOOKS + 1 + len(SERVED))
    assert pending.lines <= most + rows + LINES_FIRST


def test_a_smaller_limit_gives_up_the_oldest() -> None:
    """Restored with a smaller `wait_rows_max`, the newest questions wait and the others count as given up."""
    old, new = Pending(10, AskedForm(2, ["mean"])), Pending(3, AskedForm(2, ["mean"]))
    answered(old, [(key, False) for key in range(5)], 0, immediate=False)
    new.restore(old.state())
    assert new.counts["given_up"] == 2
    told = answered(new, [(key, True) for key in range(5)], 5, immediate=False)
    assert told == [("late", None), ("late", None), ("tells", 2.0), ("tells", 3.0), ("tells", 4.0)]


def test_other_members_take_over_what_was_answered() -> None:
    """Restored with other members, a common one keeps its answers and a new one has given none."""
    old, new = Pending(10, AskedForm(1, ["mean", "ridge"])), Pending(10, AskedForm(1, ["ridge", "lagged"]))
    joined = old.join(["a"], np.zeros(1, bool), immediate=False)
    served = dict.fromkeys(SERVED, 7.0)
    old.write(joined.lines, Asked.of(np.full((1, 1), 3.0), Past().now(1), [np.ones(1), np.full(1, 2.0)], served))
    new.restore(old.state())
    told = new.read(new.join(["a"], np.ones(1, bool), immediate=False).lines)
    assert told.answers()[0].tolist() == [2.0]
    assert np.isnan(told.answers()[1]).all()
    assert (told.features().tolist(), told.served("row").tolist()) == ([[3.0]], [7.0])
