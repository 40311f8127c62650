"""From a trial to the list: guilty rows travel whole, and a verdict is kept before anybody goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from streampiped.verdicts import Verdicts
from streampiped.wire.messages import Guilty, Judged

STAGE = "fragile"


class Disk:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[Guilty] = []

    async def condemn(self, stage: str, rows: list[Guilty]) -> None:
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
