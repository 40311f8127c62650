"""Files that are there whole or not at all, also after a power loss.

A file is written under a temporary name, fsynced, renamed, and its directory fsynced.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

TEMPORARY: Final = ".tmp"


def write_durably(path: Path, data: bytes) -> None:
    """All or nothing, and still there after a power loss.

    OSError when it failed. Before the rename nothing of it is left. The rename itself, or the fsync of the directory,
    may fail and the file be there all the same: who must not have that removes it with `remove_durably`."""
    temporary = path.with_name(path.name + TEMPORARY)
    temporary.unlink(missing_ok=True)  # never into the old one: after EIO a second fsync of a file says what is not so
    try:
        _write(temporary, data)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """The file is not there, and will not be after a power loss; OSError when that is not certain. A file that is not
    there may still come back (its rename reached the disk, the removal did not), so it takes the same care."""
    with contextlib.suppress(OSError):  # a full disk takes no new file, and still the removal
        # Something new for the directory's fsync to do: after EIO it may call clean what it has given up.
        os.close(os.open(path.with_name(path.name + TEMPORARY), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.with_name(path.name + TEMPORARY).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make it, and those above it, where it is missing; its name survives a power loss as its files do."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync_directory(path.parent)


def give_to_owner(fd: int, directory: Path) -> None:
    """What root makes in a directory of the service's user belongs to that user, as SQLite does with its journals: the
    service could not open it otherwise."""
    if os.geteuid() == 0:
        owner = os.stat(directory)
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        give_to_owner(fd, path.parent)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
