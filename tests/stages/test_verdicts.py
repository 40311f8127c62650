"""From a trial to the list: guilty rows travel whole, and a verdict is kept before anybody goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from streampiped.errors import StorageError
from streampiped.verdicts import Verdicts
from streampiped.wire.messages import Guilty, Judged

STAGE = "fragile"


class Disk:
    """Keeps what it is given, but refuses it `refusals` times before."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.rows: list[Guilty] = []
        self.before: Callable[[], None] = lambda: None

    async def condemn(self, stage: str, rows: list[Guilty]) -> None:
        self.before()
        if self.refusals:
            self.refusals -= 1
            raise StorageError("no space")
        self.rows += rows


def row(position: int, record: bytes, *, more: bool = False) -> Guilty:
    return Guilty(3, "", "s", position, 0, "exception", "" if more else "why", "", record, more)


def test_parts_of_a_record_are_put_together() -> None:
    """A record that came in several messages is one row, with what the last of them says."""
    disk = Disk()
    kept: list[tuple[Any, ...]] = []
    verdicts = Verdicts(disk, lambda *what: kept.append(what), lambda *_: None)  # type: ignore[arg-type]  # a fake
    for part in (row(7, b"ab", more=True), row(7, b"cd", more=True), row(7, b"e"), row(8, b"f")):
        verdicts.named(STAGE, 1, part)
    asyncio.run(verdicts.judged(STAGE, 1, Judged(3, 2)))
    assert disk.rows == [row(7, b"abcde"), row(8, b"f")]
    assert kept == [(STAGE, 1, 3, 2)]


@pytest.mark.parametrize("refusals", [0, 1])
def test_a_verdict_ends_with_its_stage(refusals: int) -> None:
    """What the disk refuses while its stage dies is not written any more, and what it takes is a verdict; which of both
    is told, for everybody waits for it."""
    disk = Disk(refusals)
    kept: list[tuple[Any, ...]] = []
    verdicts = Verdicts(disk, lambda *what: kept.append(what), lambda *_: None)  # type: ignore[arg-type]  # a fake
    disk.before = lambda: verdicts.died(STAGE, 1)
    verdicts.named(STAGE, 1, row(7, b"a"))
    asyncio.run(asyncio.wait_for(verdicts.judged(STAGE, 1, Judged(3, 1)), 5.0))
    assert disk.rows == ([] if refusals else [row(7, b"a")])
    assert kept == [(STAGE, 1, 3, None if refusals else 1)]
    assert verdicts.trouble is None


def test_a_refused_verdict_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as its stage lives, and meanwhile the trouble is told."""
    monkeypatch.setattr("streampiped.verdicts.RETRY_FIRST_S", 0.001)
    disk = Disk(3)
    kept: list[tuple[Any, ...]] = []
    troubles: list[str | None] = []
    verdicts = Verdicts(disk, lambda *what: kept.append(what), lambda *_: troubles.append(verdicts.trouble))  # type: ignore[arg-type]  # a fake
    verdicts.named(STAGE, 1, row(7, b"a"))
    asyncio.run(verdicts.judged(STAGE, 1, Judged(3, 1)))
    assert (disk.rows, kept) == ([row(7, b"a")], [(STAGE, 1, 3, 1)])
    assert troubles == ["fragile: 1 guilty records cannot be put aside: no space"] * 3
