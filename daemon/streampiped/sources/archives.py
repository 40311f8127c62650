"""Compressed files beside a followed one. None is ever read; but one that stands where reading should go on must be
told of, or its records would be missing without a word."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from streampiped.sources.identity import HEAD_BYTES

OPENERS: Final[Mapping[str, Callable[[Path], Any] | None]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": None,
    ".lz4": None,
    ".Z": None,
}
"""By the suffix that a compressor adds; None: nobody here can look into it."""
SECOND_NS: Final = 1_000_000_000  # logrotate gives an archive the time of its file, in whole seconds


def first_unread(archives: Iterable[Path], fd: int) -> Path | None:
    """The oldest that was written later than the open file, which is gone from its directory, and is not that file
    itself. None: there is none.

    By the times that compressors keep: one that does not makes an old archive look new, and the reader stop where it
    need not. Of those that cannot be looked into one, the oldest, is taken for the open file."""
    own = os.fstat(fd)
    head = os.pread(fd, HEAD_BYTES + 1, 0)
    since = own.st_mtime_ns // SECOND_NS * SECOND_NS
    later = sorted((mtime, archive) for archive in archives if (mtime := _mtime(archive)) >= since)
    closed_ones = 0
    for _, archive in later:
        opener = OPENERS[archive.suffix]
        if opener is None:
            closed_ones += 1
        if closed_ones > 1 or (opener is not None and _head(archive, opener) != head):
            return archive
    return None


def _mtime(archive: Path) -> int:
    try:
        return archive.stat().st_mtime_ns
    except OSError:
        return -1


def _head(archive: Path, opener: Callable[[Path], Any]) -> Any:
    try:
        with opener(archive) as file:
            return file.read(HEAD_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError):  # whatever it is, it is not the open file
        return None
