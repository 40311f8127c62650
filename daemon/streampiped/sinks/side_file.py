"""The side file of a sink whose place only grows: how far it had come at each epoch, and how much of it is committed.

It is replaced by rename, so a reader sees the old or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from streampiped.errors import StateError
from streampiped.sinks.base import unreachable
from streampiped.stages.base import Emit

DAMAGE: Final = (ValueError, KeyError, TypeError, AttributeError)  # what JSON of another form raises
MARKS_KEPT: Final = 1024  # epochs whose length is remembered: the largest `retain_epochs` is 1000; a file of 20 kB


class Marks:
    """What the side file says, and what it is to say next. Lengths are counted in `unit`: bytes, or rows."""

    def __init__(self, side: Path, unit: str) -> None:
        self.side = side
        self._visible_key = f"visible_{unit}"
        self.forget()

    def forget(self) -> None:
        """As of a place that has nothing."""
        self.epochs: dict[int, int] = {}  # epoch -> length, ascending
        self.newest: int | None = None  # epoch ever prepared
        self.visible: tuple[int | None, int] = (None, 0)

    def load(self) -> Mapping[str, Any]:
        """Know what the file says, and return all of it. Raises StateError for one that is damaged."""
        try:
            side: Mapping[str, Any] = json.loads(self.side.read_text())
            self.epochs = {int(epoch): _whole(length) for epoch, length in side["epochs"].items()}
            epoch, newest = side["visible_epoch"], side.get("newest_epoch", max(self.epochs, default=None))
            self.visible = (None if epoch is None else _whole(epoch), _whole(side[self._visible_key]))
            self.newest = None if newest is None else _whole(newest)
        except DAMAGE as error:
            raise self.damaged(error) from error
        return side

    def damaged(self, error: Exception) -> StateError:
        """To be raised."""
        return StateError(f"{self.side.name} is damaged ({error!r}); put it back")

    def add(self, epoch: int, length: int) -> None:
        """`epoch` is prepared, and ends here."""
        self.epochs[epoch] = length
        self.epochs = dict(sorted(self.epochs.items())[-MARKS_KEPT:])
        self.newest = max(epoch, -1 if self.newest is None else self.newest)

    def oldest(self, epoch: int, count: int) -> int:
        """The length at the oldest of the newest `count` marks up to this epoch; 0 without one."""
        return min([length for e, length in self.epochs.items() if e <= epoch][-count:], default=0)

    def forget_before(self, length: int) -> None:
        """Nobody can go back to less than this any more."""
        self.epochs = {epoch: its for epoch, its in self.epochs.items() if its >= length}

    def show(self, epoch: int) -> bool:
        """`epoch` is committed; whether that shows anything new."""
        mark = self.at(epoch)
        if mark is None or mark[0] <= (-1 if self.visible[0] is None else self.visible[0]):
            return False
        self.visible = mark
        return True

    def go_back(self, mark: tuple[int, int] | None) -> None:
        """Exactly `mark` is visible, and nothing later is known; None: nothing at all."""
        self.visible = mark or (None, 0)
        self.epochs = {e: length for e, length in self.epochs.items() if mark is not None and e <= mark[0]}

    def at(self, epoch: int) -> tuple[int, int] | None:
        """The newest prepared epoch up to this one, and its length."""
        return max(((e, length) for e, length in self.epochs.items() if e <= epoch), default=None)

    def target(self, epoch: int, place: Path, emit: Emit) -> tuple[int, int] | None:
        """The mark to go back to. Raises StateError when that of `epoch` was there and is gone; one that was never
        there is told."""
        mark = self.at(epoch)
        if mark is None or mark[0] != epoch:
            if self.newest is not None and epoch <= self.newest:
                raise unreachable(epoch, min(self.epochs, default=None), max(self.epochs, default=None))
            reason = f"the {_kind(place)} is new" if mark is None else f"the newest epoch it knows is {mark[0]}"
            emit("sink_incomplete", path=str(place), epoch=epoch, reason=reason)
        return mark

    def save(self, *, durable: bool, **more: Any) -> None:
        """Not durable: a power failure may bring back the file before, but never half of this one."""
        epochs = {str(epoch): length for epoch, length in self.epochs.items()}
        side = {
            "visible_epoch": self.visible[0],
            self._visible_key: self.visible[1],
            "newest_epoch": self.newest,
            "epochs": epochs,
            **more,
        }
        temporary = self.side.with_name(self.side.name + ".new")
        with temporary.open("w") as file:
            json.dump(side, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.side)
        if durable:
            sync_directory(self.side.parent)


def sync_directory(directory: Path) -> None:
    """What was made, renamed and removed in it survives a power failure."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of an epoch or of what it has")
    return value


def _kind(place: Path) -> str:
    return "directory" if place.is_dir() else "file"
