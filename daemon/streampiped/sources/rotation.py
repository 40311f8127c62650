"""The files that a path was rotated to, in their order, and which of them a reader goes on in.

Files that begin alike are told by what stood before them. A position carries marks of the files before its own. To find
it again, everything up to the newest that is still known goes; when none is left, all that is there comes after them,
for logrotate deletes the oldest first. Of the rest the first that holds what was read is the one: the renamed file,
which is the oldest of those not read to their end, or the copy of copytruncate, which stands before what was emptied.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from streampiped.errors import SourceError
from streampiped.sources.archives import OPENERS, first_unread
from streampiped.sources.identity import HEAD_BYTES, Identity, Mark, open_read

ROTATED_MAX: Final = 1000  # siblings that are looked at, the newest; logrotate keeps tens
MARKS_MAX: Final = 4  # files before the own one; more than one, for any of them may be taken away by hand
LOOKS_MAX: Final = 100  # until a directory is the same before and after; a rotation renames some tens of files

_NUMBERED: Final = re.compile(r"\.(\d{1,7})")  # logrotate: NAME.1 is the newest
_DATED: Final = re.compile(r"(?:-(\d{8})|\.(\d{8,}))(?:-(\d+))?")  # dateext: NAME-20260131, NAME-20260131-2


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the listing."""

    path: Path
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> Entry:
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def listing(path: Path) -> list[Entry]:
    """The rotated siblings of `path`, oldest first, and then `path` itself, as far as they are there.

    Names say the order: times are those of the copying when a directory was copied. Only numbers and dates beside each
    other are merged by time."""
    numbered: list[tuple[tuple[int, ...], Entry]] = []
    dated: list[tuple[tuple[int, ...], Entry]] = []
    for name in _names(path):
        number, date = _NUMBERED.fullmatch(name), _DATED.fullmatch(name)
        if number is None and date is None:
            continue
        entry = _entry(path.with_name(path.name + name))
        if entry is None:
            continue
        if number:
            numbered.append(((-int(number[1]),), entry))
        elif date:
            dated.append(((int(date[1] or date[2]), int(date[3] or -1)), entry))
    orders = ([entry for _, entry in sorted(kind, key=lambda pair: pair[0])] for kind in (dated, numbered))
    siblings = list(heapq.merge(*orders, key=lambda entry: entry.mtime_ns))[-ROTATED_MAX:]
    own = _entry(path)
    return siblings if own is None else [*siblings, own]


def _names(path: Path) -> list[str]:
    """What follows the name of `path` in the names that begin with it."""
    with contextlib.suppress(OSError):  # a directory that cannot be listed has nothing but `path`
        return [name[len(path.name) :] for name in os.listdir(path.parent) if name.startswith(path.name)]
    return []


def _archives(path: Path) -> list[Path]:
    """The rotated siblings of `path` that were compressed."""
    names = ((name, *os.path.splitext(name)) for name in _names(path))
    rotated = [
        n for n, stem, ending in names if ending in OPENERS and (_NUMBERED.fullmatch(stem) or _DATED.fullmatch(stem))
    ]
    return [path.with_name(path.name + name) for name in rotated]


def _entry(path: Path) -> Entry | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return None if stat.S_ISDIR(status.st_mode) else Entry.of(path, status)


# marks


def begin(path: Path) -> tuple[int | None, tuple[Mark, ...]]:
    """Open what is at `path` now (None: nothing), and the marks of what stands before it. Listed first: what is rotated
    between the two comes after the marks, and is not left out."""
    entries = listing(path)
    try:
        fd = open_read(path)
    except FileNotFoundError:
        return None, marks(path, entries, None)
    return fd, marks(path, entries, fd)


def marks(path: Path, entries: Iterable[Entry], fd: int | None) -> tuple[Mark, ...]:
    """Of the files before the open one (None: before any that will come at `path`), newest first. An empty file says
    nothing, and one that copytruncate is only making of the open file does not stand before it."""
    before = _before(entries, path, fd)
    found: dict[tuple[int, str, str], Mark] = {}
    for entry in reversed(before):
        mark = _mark(entry)
        if mark and mark.size and not (fd is not None and _is_copy(mark, entry.mtime_ns, fd)):
            found.setdefault(mark.content, mark)
        if len(found) == MARKS_MAX:
            break
    return tuple(found.values())


def marked(fd: int, earlier: Iterable[Mark]) -> tuple[Mark, ...]:
    """The marks of whatever comes after the open file, `earlier` being those of the file itself."""
    found: dict[tuple[int, str, str], Mark] = {}
    for mark in (Mark.of(fd), *earlier):
        if mark.size:
            found.setdefault(mark.content, mark)
    return tuple(found.values())[:MARKS_MAX]


def at_home(path: Path, known: Iterable[Mark], inode: int | None) -> tuple[Mark, ...]:
    """The saved marks, with the inodes that their files have now: others, when the files were copied elsewhere. `inode`
    is the one of the file that was saved with them."""
    entries = listing(path)
    places = [(mark, _place(mark, entries, path, inode)) for mark in known]
    return tuple(mark if at < 0 else replace(mark, inode=entries[at].inode) for mark, at in places)


def _mark(entry: Entry) -> Mark | None:
    """None: it is gone."""
    try:
        fd = open_read(entry.path)
    except FileNotFoundError:
        return None
    except SourceError:
        return Mark(entry.size, entry.inode, "", "")
    with _closing(fd):
        return Mark.of(fd)


def _is_copy(mark: Mark, mtime_ns: int, fd: int) -> bool:
    """Whether the file of the mark is one that copytruncate is making of the open file, or has made and has yet to
    truncate it: all of it stands there too. Short files may be alike by chance; a copy was written last."""
    if not mark.begins(fd):
        return False
    return mark.size >= HEAD_BYTES or mtime_ns >= os.fstat(fd).st_mtime_ns


def _before(entries: Iterable[Entry], path: Path, fd: int | None) -> list[Entry]:
    """The rotated files before the open one; all of them when it is at `path`, or nowhere."""
    own = None if fd is None else os.fstat(fd)
    found: list[Entry] = []
    for entry in entries:
        if entry.path == path or (own and (entry.device, entry.inode) == (own.st_dev, own.st_ino)):
            break
        found.append(entry)
    return found


def _after(entries: Sequence[Entry], path: Path, known: Iterable[Mark], inode: int | None) -> list[Entry]:
    """What comes after the newest of the marks. `inode` is the reader's: while a file has it, the files were not copied
    elsewhere, and a mark's own inode tells it from a file of equal content."""
    last = max((_place(mark, entries, path, inode) for mark in known), default=-1)
    return list(entries[last + 1 :])


def _place(mark: Mark, entries: Sequence[Entry], path: Path, inode: int | None) -> int:
    """Where the file of the mark stands; -1: nowhere. Of several with its content the oldest, rather one too many after
    it than one too few."""
    same = [i for i, entry in enumerate(entries) if entry.path != path and _is_known(mark, entry)]
    home = [i for i in same if entries[i].inode == mark.inode]
    if home:
        return home[-1]
    is_home = any(entry.inode == inode for entry in entries)
    return same[0] if same and not is_home else -1


def _is_known(mark: Mark, entry: Entry) -> bool:
    """A writer that has not let go of it may have made the file longer."""
    if entry.size != mark.size and not (entry.size > mark.size and entry.inode == mark.inode):
        return False
    if not mark.head:
        return (entry.size, entry.inode) == (mark.size, mark.inode)
    with contextlib.suppress(FileNotFoundError, SourceError):
        fd = open_read(entry.path)
        with _closing(fd):
            return mark.begins(fd)
    return False


# where to go on


def find(path: Path, wanted: Identity, offset: int, known: tuple[Mark, ...] | None) -> int:
    """Open the file that `wanted` is, `known` being the marks before it; None: an older version's position, which has
    none. Raises SourceError."""
    if known is None:
        return _find_by_inode(path, wanted, offset)
    fd = _steadily(path, lambda entries: _first(_after(entries, path, known, wanted.inode), path, wanted, offset))
    if fd is None:
        raise _lost(path, wanted, offset)
    return fd


def first_after(path: Path, known: tuple[Mark, ...]) -> int | None:
    """Open the first file that has come after the marks; None: there is none."""
    return _steadily(path, lambda entries: _first(_after(entries, path, known, None), path, None, 0))


def find_copy(
    path: Path, fd: int, wanted: Identity, offset: int, known: tuple[Mark, ...], *, truncated: bool
) -> int | None:
    """Open the copy that holds what was read of the open file, and more, before it was truncated; None: there is none.
    Not `truncated`: nobody has seen it happen, a copy may still be in the making."""

    def choose(entries: Sequence[Entry]) -> int | None:
        before = _before(entries, path, fd)
        if not truncated and not (_is_listed(entries, fd) and before and not _is_newest(known, before[-1])):
            return None  # nothing has come since: the usual case, and no file is read
        names = {entry.path for entry in before}
        for entry in _after(entries, path, known, wanted.inode):
            if entry.path not in names or (not truncated and entry.size <= offset):
                continue
            found = _opened(entry.path)
            if found is None:
                continue
            is_made = not truncated and _is_copy(Mark.of(found), os.fstat(found).st_mtime_ns, fd)
            if wanted.is_held_by(found, offset) and not is_made:
                return found
            os.close(found)
        return None

    return _steadily(path, choose)


def successor(path: Path, fd: int, known: tuple[Mark, ...] = ()) -> int | None:
    """Open the file that follows the open one in the order of rotation; None: the open one is still at `path`, or
    nothing has come after it yet."""
    own = os.fstat(fd)

    def choose(entries: Sequence[Entry]) -> int | None:
        keys = [(entry.device, entry.inode) for entry in entries]
        if (own.st_dev, own.st_ino) in keys:
            rest = list(entries[keys.index((own.st_dev, own.st_ino)) + 1 :])
        else:  # deleted meanwhile: what follows was written to later
            if (archive := first_unread(_archives(path), fd)) is not None:
                raise SourceError(
                    f"{archive} was compressed before it was read; decompress it where it is, and let rotation wait "
                    "(`delaycompress`); or start afresh"
                )
            rest = [e for e in _after(entries, path, known, None) if e.mtime_ns >= own.st_mtime_ns]
        # An empty file at `path` may be one whose writer has not yet let go of the old one; what it still writes
        # there must come first. With its first byte in the new file it has moved over.
        return _first([entry for entry in rest if entry.size or entry.path != path], path, None, 0)

    return _steadily(path, choose)


def _is_listed(entries: Iterable[Entry], fd: int) -> bool:
    own = os.fstat(fd)
    return (own.st_dev, own.st_ino) in [(entry.device, entry.inode) for entry in entries]


def _is_newest(known: Sequence[Mark], entry: Entry) -> bool:
    return bool(known) and (known[0].inode, known[0].size) == (entry.inode, entry.size)


def _first(entries: Sequence[Entry], path: Path, wanted: Identity | None, offset: int) -> int | None:
    """The first that holds what was read (None: that was nothing). What is only a copy in the making of the file at
    `path` is left: the file has it all, and will be read."""
    original = _opened(path) if entries and entries[-1].path == path else None
    with _closing(original):
        for entry in entries:
            fd = _opened(entry.path)
            if fd is None:
                continue
            if wanted is None or wanted.is_held_by(fd, offset):
                is_own = entry.path == path or (wanted is not None and wanted.inode == entry.inode)
                if is_own or original is None or not _is_copy(Mark.of(fd), entry.mtime_ns, original):
                    return fd
            os.close(fd)
    return None


def _steadily(path: Path, choose: Callable[[Sequence[Entry]], int | None]) -> int | None:
    """What `choose` opens of a listing that is the same afterwards: a rotation renames one file after the other, and in
    between a file may be seen twice, or not at all."""
    entries = listing(path)
    for _ in range(LOOKS_MAX):
        fd = choose(entries)
        now = listing(path)
        if [(e.path, e.inode) for e in now] == [(e.path, e.inode) for e in entries]:
            return fd
        if fd is not None:
            os.close(fd)
        entries = now
    raise SourceError(f"{path}: its files are renamed faster than they can be looked at")


def _find_by_inode(path: Path, wanted: Identity, offset: int) -> int:
    """Where several files hold the little that had been read, the inode decides; where none has it, nobody can."""
    found: dict[Path, int] = {}
    for entry in reversed(listing(path)):
        fd = _opened(entry.path)
        if fd is None:
            continue
        # one that was empty is told by its inode alone
        if wanted.is_held_by(fd, offset) if wanted.head_bytes else wanted.is_inode_of(fd):
            found[entry.path] = fd
        else:
            os.close(fd)
    own = [fd for fd in found.values() if wanted.is_inode_of(fd)]
    chosen = own[0] if own else next(iter(found.values())) if len(found) == 1 else None
    for fd in found.values():
        if fd != chosen:
            os.close(fd)
    if chosen is not None:
        return chosen
    if found:
        raise SourceError(
            f"{path}: of what was being read only {offset} bytes are known, and {', '.join(n.name for n in found)} all "
            "begin with them. Move away those that have been read to their end; or start afresh"
        )
    if not wanted.head_bytes and path.exists():
        return open_read(path)  # nothing had been read of a file that was empty; what is there now follows it
    raise _lost(path, wanted, offset)


def _lost(path: Path, wanted: Identity, offset: int) -> SourceError:
    return SourceError(
        f"{path} is not the file that was being read (at least {offset} bytes, inode {wanted.inode}, the same up to "
        f"there), nor is one of its rotated names ({path.name}.1, {path.name}-YYYYMMDD). Put it back, uncompressed; "
        "or start afresh"
    )


def _opened(path: Path) -> int | None:
    """None: it is gone."""
    try:
        return open_read(path)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _closing(fd: int | None) -> Iterator[None]:
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)
