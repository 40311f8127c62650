"""STATE/epochs: what is committed there, whether it is whole, and what of it goes. Blocks for the disk.

A name ends in what became of it: `.manifest` is a commit; `.manifest.damaged` was one, until a start found it damaged
and went back further; `.manifest.discarded` was one, until an operator restored an older one; `.burned` only keeps a
number from being used twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from streampiped.errors import StateError
from streampiped.runtime.durable import remove_durably, sync_directory, write_durably
from streampiped.runtime.manifests import EPOCH_FILE, Manifest, decode, encode, manifest_name

DAMAGED: Final = ".damaged"
DISCARDED: Final = ".discarded"
DAMAGED_KEPT: Final = 1  # epochs put aside that stay to be looked at, the newest; more would grow without bound
READ_BYTES: Final = 1 << 20  # at a time: a large model must not become memory of the supervisor
GONE_BAD: Final = {errno.ENOENT, errno.EIO, errno.EUCLEAN, errno.EISDIR, errno.ENOTDIR}
"""What reading says of a file that is lost. Anything else (permission, descriptors, memory) says something of the
reader, and a file that another reader could read must not be given up."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A committed epoch that cannot be restored: the file that is wrong, and what is wrong with it."""

    epoch: int
    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class EpochStore:
    """The directory of all snapshots and manifests."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> Iterator[tuple[str, re.Match[str]]]:
        """Every file of an epoch, with what its name says."""
        names = os.listdir(self.path) if self.path.is_dir() else []
        return ((name, match) for name in sorted(names) if (match := EPOCH_FILE.fullmatch(name)))

    def committed(self) -> list[int]:
        """The epochs that have a manifest, ascending; by number, for beyond 99 999 999 names sort otherwise."""
        return sorted(
            int(m["epoch"]) for _, m in self.files() if m["manifest"] and not m["aside"] and not m["temporary"]
        )

    def is_begun(self) -> bool:
        """Whether there is a committed epoch; no, when the directory may not be read."""
        with contextlib.suppress(OSError):
            return bool(self.committed())
        return False

    def put_aside(self) -> list[int]:
        """The epochs whose manifests were found damaged, ascending."""
        return sorted(int(m["epoch"]) for _, m in self.files() if m["aside"] == DAMAGED)

    def highest(self) -> int:
        """The largest epoch number in any file name, 0 when there is none: numbers are never used twice."""
        return max((int(match["epoch"]) for _, match in self.files()), default=0)

    def examine(self, epoch: int, *, lengths_only: bool = False) -> Manifest | Damage:
        """The manifest, if it and every snapshot are whole. `lengths_only` does not read the snapshots."""
        path = self.path / manifest_name(epoch)
        try:
            manifest = decode(path.read_bytes(), epoch)
        except OSError as error:
            return Damage(epoch, path, _lost(path, error))
        except StateError as error:
            return Damage(epoch, path, str(error))
        return next(self._damage(manifest, lengths_only), manifest)

    def _damage(self, manifest: Manifest, lengths_only: bool) -> Iterator[Damage]:
        for file, length, checksum in manifest.parts.values():
            path = self.path / file
            reason = _mismatch(path, length, None if lengths_only else checksum)
            if reason:
                yield Damage(manifest.epoch, path, reason)

    def bytes_of(self, epoch: int) -> int:
        """Of the manifest and the snapshots that are there."""
        return sum(os.lstat(self.path / name).st_size for name, match in self.files() if int(match["epoch"]) == epoch)

    # changes

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest: the commit point of its epoch. After OSError it may or may not be there: `withdraw`."""
        write_durably(self.path / manifest_name(manifest.epoch), encode(manifest))

    def withdraw(self, epoch: int) -> None:
        """After a failed `commit`: no later start finds the manifest. OSError: that is not certain, try again."""
        remove_durably(self.path / manifest_name(epoch))

    def put_away(self, epochs: Iterable[int], ending: str) -> None:
        """Rename manifests durably to their name with `ending` behind it, in this order. The last one is renamed when
        the others are on the disk: with the newest last, what is restored changes in one step."""
        numbers = list(epochs)
        for group in (numbers[:-1], numbers[-1:]):
            for epoch in group:
                name = manifest_name(epoch)
                os.rename(self.path / name, self.path / (name + ending))
            if group:
                sync_directory(self.path)

    def burn(self, epoch: int) -> None:
        """Keep a number from being used again when its files go."""
        write_durably(self.path / f"e{epoch:08d}.burned", b"")

    def retain(self, count: int, before: int, named: Collection[int]) -> None:
        """Of what is older than the epoch `before`, leftovers of aborted ones too, remove all but the newest `count`
        whole epochs and the `named` ones. Manifests first: what an interruption leaves counts for nothing."""
        kept = self._worth_keeping(count)
        if not kept and self.committed():
            return
        kept |= set(named) | set(self.put_aside()[-DAMAGED_KEPT:])
        old = [(n, m) for n, m in self.files() if int(m["epoch"]) < before and int(m["epoch"]) not in kept]
        for name, _ in sorted(old, key=lambda file: file[1]["manifest"] is None):
            (self.path / name).unlink(missing_ok=True)

    def _worth_keeping(self, count: int) -> set[int]:
        """The newest epochs that are whole as far as a glance tells; one at least."""
        newest_first = reversed(self.committed())
        whole = (e for e in newest_first if isinstance(self.examine(e, lengths_only=True), Manifest))
        return set(islice(whole, max(1, count)))

    def remove_snapshots(self, epochs: Collection[int]) -> None:
        for name, match in self.files():
            if match["stage"] and int(match["epoch"]) in epochs:
                (self.path / name).unlink(missing_ok=True)


def _mismatch(path: Path, length: int, checksum: int | None) -> str | None:
    """What is wrong with a snapshot; None when nothing is. Without `checksum` only its length is looked at."""
    try:
        found = os.stat(path).st_size
        if found != length:
            return f"{found} bytes, the manifest says {length}"
        if checksum is not None and (read := _checksum_of(path)) != checksum:
            return f"checksum {read:08x}, the manifest says {checksum:08x}"
    except OSError as error:
        return _lost(path, error)
    return None


def _checksum_of(path: Path) -> int:
    checksum = 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            checksum = zlib.crc32(data, checksum)
    return checksum


def _lost(path: Path, error: OSError) -> str:
    """Why the file is lost. StateError when it may be the reader who is wrong."""
    reason = f"cannot be read: {error.strerror}"
    if error.errno not in GONE_BAD:
        raise StateError(f"{path}: {reason}") from error
    return reason
