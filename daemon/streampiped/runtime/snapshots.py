"""The state directory: who holds it, whose it is, and what is in it. docs/specs/snapshots.md is the contract.

STATE/format                     "streampipe state 1" and the pipeline's name
STATE/lock                       held with flock by the running supervisor
STATE/epochs/e00000012.g3.NAME.snap   a stage's snapshot (wire/state.py)
STATE/epochs/e00000012.manifest  names, lengths and checksums of an epoch's snapshots; its rename is the commit
STATE/epochs/kept.json           names of epochs that are kept
STATE/stages/NAME/               a stage's own files
STATE/stopped                    who is stopped on purpose (runtime/stopped.py)
STATE/dead_letters.sqlite        records that are put aside (runtime/dead_letters.py)
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streampiped.errors import StateBusyError, StateError
from streampiped.runtime.durable import give_to_owner, make_directory, sync_directory, write_durably
from streampiped.runtime.epoch_store import DAMAGED, DISCARDED, Damage, EpochStore
from streampiped.runtime.kept import KeptEpochs
from streampiped.runtime.manifests import FORMAT, Manifest, manifest_name, snapshot_name
from streampiped.runtime.state_size import StateSize

__all__ = [
    "Damage",
    "Found",
    "Manifest",
    "StateDirectory",
    "manifest_name",
    "snapshot_name",
    "sync_directory",
    "write_durably",
]

FORMAT_LINE: Final = f"streampipe state {FORMAT}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a start restores (None: nothing was ever committed), and the newer epochs that it cannot, newest first."""

    manifest: Manifest | None
    damaged: tuple[Damage, ...] = ()


class StateDirectory:
    """The state directory in the hands of the one process that holds it."""

    def __init__(self, root: Path, pipeline: str | None, *, create: bool = True) -> None:
        """Take the lock; with `create`, make what is missing. `pipeline` None: anybody's. StateError when another
        process has it, or when it is of another pipeline or format; then nothing was touched, not even the lock."""
        self.root = root
        self.epochs = root / "epochs"
        self.store = EpochStore(self.epochs)
        self._names = KeptEpochs(self.epochs)
        self._size = StateSize(root)
        if not _check_format(root, pipeline) and not create:
            raise StateError(f"{root}: not a state directory of streampipe: it has no file 'format'")
        make_directory(root)
        self._lock = _take_lock(root)
        try:
            if not _check_format(root, pipeline):  # now nobody else can write it
                write_durably(root / "format", f"{FORMAT_LINE}\npipeline {pipeline}\n".encode())
            if create:
                make_directory(self.epochs)
                # whoever was killed between the rename of a manifest and this left a commit that a power loss takes
                # back, after sinks have shown it on the strength of what is read here
                sync_directory(self.epochs)
        except BaseException:
            os.close(self._lock)
            raise

    @staticmethod
    def discard(root: Path) -> None:
        """Remove everything of a former run; the directory itself stays. StateError when a daemon holds it, or when
        it does not look like a state directory."""
        if not root.exists() or not set(os.listdir(root)) - {"lock"}:  # a lock alone: discarded and not used since
            return
        if not (root / "format").exists():
            raise StateError(f"{root}: not empty and not a state directory of streampipe; nothing was removed")
        lock = _take_lock(root)
        try:
            for entry in ("epochs", "stages"):
                shutil.rmtree(root / entry, ignore_errors=True)
            for path in (root / "stopped", *root.glob("dead_letters.sqlite*")):
                path.unlink(missing_ok=True)
            (root / "format").unlink()
        finally:
            os.close(lock)

    # epochs

    def highest(self) -> int:
        """The largest epoch number in any file name, 0 when there is none: numbers are never used twice."""
        return self.store.highest()

    def newest(self) -> Found:
        """The newest epoch that is whole, every byte of it read. Changes nothing.

        StateError, with the operator's choices, when none is whole, or when newer ones are damaged and a source or
        sink cannot go back."""
        damaged: list[Damage] = []
        for epoch in reversed(self.store.committed()):
            match self.store.examine(epoch):
                case Damage() as damage:
                    damaged.append(damage)
                case Manifest() as manifest:
                    if damaged and manifest.unretractable:
                        raise StateError(self._choices(damaged, manifest.unretractable))
                    return Found(manifest, tuple(damaged))
        if damaged or self.store.put_aside():
            raise StateError(self._choices(damaged, []))
        return Found(None)

    def put_aside(self, damaged: tuple[Damage, ...]) -> None:
        """Before a run begins with an older epoch: no later start may find the damaged ones, for by then the sinks have
        gone back. Durable; OSError when it is not."""
        self.store.put_away(sorted(damage.epoch for damage in damaged), DAMAGED)

    def make_newest(self, epoch: int) -> None:
        """An operator wants `epoch` restored: put every newer one away for good, with its names. Durable; after an
        interruption a start finds either what it would have found before or `epoch`."""
        newer = [number for number in self.store.committed() if number > epoch]
        names = [name for name, number in self.kept().items() if number in newer]
        self.store.put_away(newer, DISCARDED)
        self.store.remove_snapshots(newer)
        self.forget_names(names)

    def _choices(self, damaged: list[Damage], stubborn: list[str]) -> str:
        """Why there is no start, and what an operator can do about it."""
        whole = [e for e in reversed(self.store.committed()) if isinstance(self.store.examine(e), Manifest)]
        first = damaged[0] if damaged else f"{self.epochs}: the manifests of all epochs were damaged and put aside"
        if not whole:
            return f"{first}; no epoch is whole; put the files back, or --fresh to begin anew and discard the state"
        names = {epoch: name for name, epoch in self._names_for_people().items()}
        shown = ", ".join(f"{epoch} ({names[epoch]})" if epoch in names else str(epoch) for epoch in whole)
        command = f"streampiped restore --state-dir {self.root} --from EPOCH"
        return (
            f"{first}; {' and '.join(stubborn)} cannot go back to an older epoch without repeating or losing records; "
            f"choose: `{command}` (whole: {shown}), or --fresh to begin anew"
        )

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest: the commit point of its epoch. Blocks for the disk; OSError when it fails, and then the
        manifest may be there all the same: `withdraw` it before anybody counts the epoch as aborted."""
        self.store.commit(manifest)

    def withdraw(self, epoch: int) -> None:
        """No later start finds the manifest of `epoch`. OSError when that is not certain: try again."""
        self.store.withdraw(epoch)

    def retain(self, count: int, before: int) -> None:
        """Of what is older than the epoch `before`, which was committed or aborted just now, remove all but the newest
        `count` whole epochs and the kept ones. StateError when the names cannot be read: then everything stays."""
        self.store.retain(count, before, set(self.kept().values()))

    def checkpoints(self, now: float) -> list[dict[str, Any]]:
        """Every committed epoch, newest first, msgpack-able; `now` is Unix time. `whole` is told by a glance (every
        file is there with its length), `live` is what a start would restore by that."""
        names = self._names_for_people()
        rows = []
        live = True
        for epoch in reversed(self.store.committed()):
            row = _row(self.store, epoch, now)
            row["names"] = sorted(name for name, of in names.items() if of == epoch)
            row["live"] = live and row["whole"]
            live = live and not row["whole"]
            rows.append(row)
        return rows

    # names

    def keep(self, name: str, epoch: int) -> None:
        """Keep a whole epoch, whatever the retention says. A name that is there already moves to it."""
        found = self.store.examine(epoch, lengths_only=True)
        if isinstance(found, Damage):
            raise StateError(f"epoch {epoch} cannot be kept as {name!r}: {found}; there are {self.store.committed()}")
        self._names.keep(name, epoch)

    def forget(self, name: str) -> None:
        """The epoch stays until the retention takes it. StateError when there is no such name."""
        self._names.forget(name)

    def kept(self) -> dict[str, int]:
        """Name -> epoch. StateError when the file cannot be understood."""
        return self._names.read()

    def forget_names(self, names: Iterable[str]) -> None:
        """Those whose epochs are gone."""
        for name in list(names):
            self._names.forget(name)

    def _names_for_people(self) -> dict[str, int]:
        try:
            return self.kept()
        except StateError:  # told by retention and fsck, and no reason to show nothing
            return {}

    # the rest

    def size(self, now: float) -> int:
        """Bytes of all files below the directory; the stages' own are counted every few seconds only. `now` in
        seconds, monotonic."""
        return self._size.bytes(now)

    def close(self) -> None:
        os.close(self._lock)


def _take_lock(root: Path) -> int:
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_to_owner(fd, root)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StateBusyError(f"{root}: in use by another streampiped") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_format(root: Path, pipeline: str | None) -> bool:
    """Whether it is a state directory of this format and pipeline; False when it is none yet. Only reads."""
    path = root / "format"
    try:
        found = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        if EpochStore(root / "epochs").committed():
            raise StateError(f"{root}: has epochs and no file 'format', whose are they? Put it back") from None
        return False
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    wanted = [FORMAT_LINE, f"pipeline {pipeline}"]
    if found != wanted and (pipeline is not None or found[:1] != wanted[:1]):
        owner = f" of pipeline {pipeline!r}" if pipeline is not None else ""
        raise StateError(
            f"{root}: holds {' of '.join(found[:2])!r}, expected format {FORMAT}{owner}; "
            "use another --state-dir, or --fresh to discard it"
        )
    return True


def _row(store: EpochStore, epoch: int, now: float) -> dict[str, Any]:
    found = store.examine(epoch, lengths_only=True)
    manifest = found if isinstance(found, Manifest) else None
    at = manifest.at if manifest is not None else None
    if at is None:  # damaged, or of an early version: as old as its file
        at = os.stat(store.path / manifest_name(epoch)).st_mtime
    return {
        "epoch": epoch,
        "at": at,
        "age": max(0.0, now - at),
        "seconds": manifest.seconds if manifest else None,
        "bytes": store.bytes_of(epoch),
        "positions": dict(manifest.positions) if manifest else {},
        "finished": manifest.finished if manifest else False,
        "whole": manifest is not None,
        "reason": None if manifest else str(found),
    }
