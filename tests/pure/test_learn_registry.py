"""learn/registry.py: which epochs become versions, why, and what of them is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streampiped.errors import StateError
from streampiped.learn.registry import Mark, Registry, rebuilt

EVERY = 1000


def mark(rows: int, champion: str = "ridge", **more: Any) -> Mark:
    return Mark(**{"rows": rows, "learned": rows, "champion": champion, "since": 0, "crowns": 1, "drifts": 0, **more})


def act(kind: str, **params: Any) -> dict[str, Any]:
    return {"kind": kind, "row": 1, **params}


class Story:
    """A registry with its list, as the shell drives it."""

    def __init__(self, retain: int = 2) -> None:
        self.registry = Registry(retain, EVERY)
        self.list: list[str] = []

    def put(self, record: dict[str, Any] | None) -> None:
        if record is not None:
            self.list.append(json.dumps(record))
            self.registry.take(json.loads(self.list[-1]))

    def commit(self, epoch: int, state: Mark) -> tuple[str, ...]:
        self.put(self.registry.leave(epoch))
        reasons = self.registry.why(state) if self.registry.get(epoch) is None else ()
        if reasons:
            file = {"file": f"v{epoch:08d}.npz", "bytes": 9, "sha256": f"{epoch:064d}"}
            self.put(self.registry.register(epoch, state, reasons, file))
        return reasons


@pytest.mark.parametrize(
    ("later", "reasons"),
    [
        (mark(5), ()),
        (mark(999), ()),
        (mark(1000), ("rows",)),
        (mark(9, "mean", since=7, crowns=2), ("champion",)),
        (mark(9, crowns=3), ()),  # there and back again between two epochs
        (mark(9, drifts=1), ("drift",)),
        (mark(9, act_count=1, acts=(act("promote", member="sgd"),)), ("promote",)),
        (
            mark(9, act_count=2, acts=(act("rollback", sha256=f"{3:064d}"), act("pin", member="sgd"))),
            ("rollback", "pin"),
        ),
        (
            mark(9, "sgd", since=8, crowns=2, drifts=1, act_count=1, acts=(act("unpin"),)),
            ("champion", "drift", "unpin"),
        ),
    ],
)
def test_a_version_is_made_when_something_happened(later: Mark, reasons: tuple[str, ...]) -> None:
    """The first model is a version; a later one is when what it tells differs from the last version's."""
    story = Story()
    assert story.commit(3, mark(0)) == ("first",)
    assert story.commit(4, later) == reasons
    assert story.commit(5, later) == ()


def test_members_that_take_turns_fill_no_list() -> None:
    """Over a thousand epochs in which two members alternate the list stays short; the one that lasts in the end is a
    version, and what an operator asks for is one at once."""
    story = Story()
    every = 50_000
    story.registry = Registry(2, 10**9)
    made = [
        story.commit(epoch, mark(epoch * every, ["ridge", "squares"][epoch % 2], since=epoch * every - 9, crowns=epoch))
        for epoch in range(1, 1001)
    ]
    assert sum(bool(reasons) for reasons in made) <= 2
    state = mark(1001 * every, "squares", since=1000 * every, crowns=1001)
    assert story.commit(1001, state) == ()
    wanted = act("promote", member="squares")
    asked = mark(1002 * every, "squares", since=1002 * every, crowns=1002, act_count=1, acts=(wanted,))
    assert story.commit(1002, asked) == ("promote",)
    rows = 1002 * every * 16 // 15 + 16
    assert story.commit(1003, mark(rows - 99, since=1002 * every, crowns=1003, act_count=1, acts=(wanted,))) == ()
    assert story.commit(1004, mark(rows, since=1002 * every, crowns=1003, act_count=1, acts=(wanted,))) == ("champion",)


def test_after_a_drift_a_champion_lasts_sooner() -> None:
    """What is calm since a thousand rows is judged by these, however long the stream is."""
    story = Story()
    story.registry = Registry(2, 10**9)
    story.commit(1, mark(10**7))
    turned = {"since": 10**7 + 900, "crowns": 2}
    assert story.commit(2, mark(10**7 + 1000, "squares", **turned)) == ()
    assert story.commit(3, mark(10**7 + 1000, "squares", **turned, calm_since=10**7)) == ("champion",)


def test_a_flood_of_drifts_makes_few_versions() -> None:
    """Single drifts each make one, a drift in every epoch few, and one that was left out makes a later one."""
    story = Story()
    story.registry = Registry(2, 10**9)
    made = [story.commit(epoch, mark(epoch * 1000, drifts=epoch)) for epoch in range(1, 1001)]
    assert all(made[:16])
    assert sum(map(bool, made[500:])) <= 8 * 12
    assert story.commit(1001, mark(2_000_000, drifts=1000)) == ("drift",)


def test_the_list_tells_everything() -> None:
    """A registry that is rebuilt from its list, or is told parts of it again, is the same."""
    story = Story()
    for epoch in range(2, 9):
        story.commit(epoch, mark(epoch * 600, f"m{epoch // 3}", since=epoch // 3 * 1800 - 400, crowns=epoch // 3))
    story.commit(4, mark(2400))  # an older epoch was restored
    records = [json.loads(line) for line in story.list]
    for told in (records, records + records[:3]):
        assert rebuilt(told, 2, EVERY).history() == story.registry.history()
    assert [row["withdrawn"] for row in story.registry.history()] == [False, False, True, True, True]


def test_who_was_replaced_before_a_row_came_has_served_none() -> None:
    """Of two champions of one row the first is served up to that row, and not still."""
    story = Story()
    story.commit(2, mark(1, "blend", since=0, crowns=1))
    story.commit(3, mark(1, "ridge", since=1, crowns=2, act_count=1, acts=(act("promote"),)))
    story.commit(4, mark(1, "mean", since=1, crowns=3, act_count=2, acts=(act("promote"),)))
    served = [(row["champion"], row["since"], row["until"]) for row in story.registry.history()]
    assert served == [("blend", 0, 1), ("ridge", 1, 1), ("mean", 1, None)]


def test_who_served_from_where_to_where() -> None:
    """A version's champion is served from `since` until another one is; what was withdrawn has served nobody since."""
    story = Story()
    story.commit(2, mark(10, "mean", since=0, crowns=1))
    story.commit(3, mark(50, "ridge", since=32, crowns=2))
    story.commit(4, mark(1050, "ridge", since=32, crowns=2))
    story.commit(5, mark(1180, "sgd", since=1080, crowns=3))
    served = [(row["champion"], row["since"], row["until"]) for row in story.registry.history()]
    assert served == [("mean", 0, 32), ("ridge", 32, 1080), ("ridge", 32, 1080), ("sgd", 1080, None)]


def test_an_older_epoch_withdraws_what_came_after_it() -> None:
    """Who restores an epoch leaves a past: its versions stay on the list, count no more and are not gone back to."""
    story = Story()
    for epoch, rows in ((2, 10), (5, 1100), (9, 2200)):
        story.commit(epoch, mark(rows))
    story.commit(5, mark(1100))
    newest = story.registry.newest()
    assert newest is not None
    assert newest.version == 5
    assert story.commit(12, mark(2200)) == ("rows",)
    assert [row["version"] for row in story.registry.history()] == [2, 5, 9, 12]


def test_a_stream_that_begins_anew_has_a_first_version_again() -> None:
    """With a fresh state the list of the stream before stays."""
    story = Story()
    story.commit(7, mark(5000))
    assert story.commit(8, mark(10)) == ("first",)


def test_what_is_kept() -> None:
    """The newest versions; for ever those that a rollback has gone to; and the one of a pin while it holds."""
    story = Story(retain=2)
    pin = (act("pin", member="sgd"),)
    story.commit(1, mark(0))
    story.commit(2, mark(10, act_count=1, acts=pin))
    for epoch in range(3, 6):
        story.commit(epoch, mark(epoch * EVERY, act_count=1, acts=pin))
    assert story.registry.keeps(pinned=True) == {2, 4, 5}
    assert story.registry.keeps(pinned=False) == {4, 5}
    story.commit(6, mark(5500, act_count=2, acts=(*pin, act("rollback", sha256=f"{3:064d}"))))
    assert story.registry.keeps(pinned=False) == {3, 5, 6}
    story.commit(5, mark(5 * EVERY, act_count=1, acts=pin))  # restored: it may be asked to go back to 3 once more
    assert story.registry.keeps(pinned=False) == {3, 4, 5}


@pytest.mark.parametrize("record", [{}, {"kind": "?"}, {"kind": "version"}, {"kind": "withdrawn"}])
def test_what_is_no_record_is_refused(record: dict[str, Any]) -> None:
    """A record of another kind or without its fields is an error and not a version."""
    with pytest.raises(StateError):
        Registry(2, EVERY).take(record)
