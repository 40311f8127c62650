"""A state directory looked over, and mended: what `streampiped fsck` does. For a directory that no daemon holds.

The quick form of it, every byte of the newest epoch, is `StateDirectory.newest`, which every start runs. This one loads
numpy (a snapshot has arrays) and is not for the supervisor.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from streampiped.errors import StateError
from streampiped.runtime import stopped
from streampiped.runtime.dead_letters_schema import VERSION, VERSION_BEFORE, version_of
from streampiped.runtime.durable import TEMPORARY
from streampiped.runtime.epoch_store import DAMAGED, Damage
from streampiped.runtime.manifests import Manifest
from streampiped.runtime.salvage import looked_at, readable, salvage
from streampiped.runtime.snapshots import StateDirectory
from streampiped.wire import state as wire_state

DEAD_LETTERS: Final = "dead_letters.sqlite"


class Remedy(Enum):
    """What mending does. No epoch that could be restored is ever touched."""

    REMOVE = "remove the file"
    PUT_ASIDE = "rename the manifest to its name with .damaged behind it"
    FORGET = "forget the name"
    RENAME = "rename the file to its name with .damaged behind it; the names are lost"
    SALVAGE = "copy what can be read into a new file; the old one stays under its name with .damaged behind it"
    RESTORE = "nothing: choose an epoch with `streampiped restore`, or put the file back"
    OPERATOR = "nothing: put the file back, or move it away"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `epoch` and `name`: what it is about, for the remedy."""

    file: Path
    problem: str
    remedy: Remedy
    epoch: int = 0
    name: str = ""

    @property
    def mendable(self) -> bool:
        return self.remedy not in (Remedy.RESTORE, Remedy.OPERATOR)


def look_over(state: StateDirectory) -> list[Finding]:
    """Everything that is wrong with a directory of this format; changes nothing."""
    return [*_epochs(state), *_leftovers(state), *_names(state), *_dead_letters(state.root), *_stopped(state.root)]


def mend(state: StateDirectory, findings: Sequence[Finding]) -> None:
    """Apply the remedies. OSError when the disk refuses; what was mended until then stays so."""
    _keep_the_highest_number(state, findings)
    damaged = sorted({f.epoch for f in findings if f.remedy is Remedy.PUT_ASIDE})
    state.store.put_away(damaged, DAMAGED)
    for finding in findings:
        if finding.remedy is Remedy.REMOVE:
            finding.file.unlink(missing_ok=True)
        elif finding.remedy is Remedy.RENAME:
            os.rename(finding.file, str(finding.file) + DAMAGED)
        elif finding.remedy is Remedy.SALVAGE:
            salvage(finding.file)
    state.forget_names(f.name for f in findings if f.remedy is Remedy.FORGET)


def inspect(state: StateDirectory, epoch: int) -> Manifest | Damage:
    """As `EpochStore.examine`, and every snapshot is decoded too."""
    found = state.store.examine(epoch)
    if isinstance(found, Damage):
        return found
    for stage, (file, _, _) in found.parts.items():
        path = state.epochs / file
        try:
            wire_state.unpack(path.read_bytes(), found.shape[stage])
        except (OSError, StateError) as error:
            return Damage(epoch, path, str(error))
    return found


def _epochs(state: StateDirectory) -> Iterator[Finding]:
    """A damaged epoch that is newer than every whole one is what a start stumbles over. To put it aside is to go back
    further, and that is done here only where the start would do it too."""
    results = {epoch: inspect(state, epoch) for epoch in state.store.committed()}
    whole = [found for found in results.values() if isinstance(found, Manifest)]
    newest = whole[-1] if whole else None
    for epoch, found in results.items():
        if isinstance(found, Damage):
            may_go = newest is not None and (epoch < newest.epoch or not newest.unretractable)
            remedy = Remedy.PUT_ASIDE if may_go else Remedy.RESTORE if newest else Remedy.OPERATOR
            yield Finding(found.file, f"epoch {epoch} cannot be restored: {found.reason}", remedy, epoch)


def _leftovers(state: StateDirectory) -> Iterator[Finding]:
    known = {*state.store.committed(), *state.store.put_aside()}
    for name, match in state.store.files():
        epoch = int(match["epoch"])
        if match["temporary"]:
            yield Finding(state.epochs / name, "was never written to its end", Remedy.REMOVE, epoch)
        elif match["stage"] and epoch not in known:
            problem = f"belongs to epoch {epoch}, which was never committed or has been given up"
            yield Finding(state.epochs / name, problem, Remedy.REMOVE, epoch)
    beside = (state.root / name for name in ("format", stopped.NAME, DEAD_LETTERS))
    for file in (*beside, state.epochs / "kept.json"):
        if (file := Path(f"{file}{TEMPORARY}")).exists():
            yield Finding(file, "was never written to its end", Remedy.REMOVE)


def _names(state: StateDirectory) -> Iterator[Finding]:
    file = state.epochs / "kept.json"
    try:
        names = state.kept()
    except StateError as error:
        yield Finding(file, f"cannot be understood, so no epoch is removed: {error}", Remedy.RENAME)
        return
    committed = state.store.committed()
    for name, epoch in names.items():
        if epoch not in committed:
            yield Finding(file, f"{name!r} names epoch {epoch}, which is not there", Remedy.FORGET, name=name)


def _dead_letters(root: Path) -> Iterator[Finding]:
    path = root / DEAD_LETTERS
    if not path.exists():
        return
    try:
        with looked_at(path) as db:
            problems = [str(row[0]) for row in db.execute("PRAGMA quick_check(10)")]
            if problems == ["ok"]:
                version_of(db, VERSION, VERSION_BEFORE)
    except sqlite3.Error as error:
        problems = [str(error)]
    except StateError as error:
        yield Finding(path, str(error), Remedy.OPERATOR)
    if problems != ["ok"]:
        yield _damaged_letters(path, f"SQLite says: {'; '.join(problems)}")


def _damaged_letters(path: Path, problem: str) -> Finding:
    try:
        rows = readable(path)
    except (sqlite3.Error, StateError):
        return Finding(path, f"{problem}; nothing of it can be read", Remedy.OPERATOR)
    counts = f"{len(rows['letters'])} letters and {len(rows['skips'])} places to leave out can be read"
    return Finding(path, f"{problem}; {counts}, what is not among them may come back into the stream", Remedy.SALVAGE)


def _stopped(root: Path) -> Iterator[Finding]:
    try:
        stopped.load(root)
    except (StateError, OSError) as error:
        yield Finding(root / stopped.NAME, f"cannot be read, and no start goes on: {error}", Remedy.OPERATOR)


def _keep_the_highest_number(state: StateDirectory, findings: Sequence[Finding]) -> None:
    """The files that go may carry the largest number of all, and it must not be used again."""
    gone = {finding.file.name for finding in findings if finding.remedy is Remedy.REMOVE}
    left = [int(match["epoch"]) for name, match in state.store.files() if name not in gone]
    highest = state.highest()
    if highest > max(left, default=0):
        state.store.burn(highest)
