"""STATE/dead_letters.sqlite: rows that a stage cannot live with. docs/specs/dead_letters.md is the contract.

`DeadLetters` is the supervisor's side: it alone writes, in its disk thread. `skips` and `records` are a stage's side,
at every reset: read-only, creating nothing, and a look at one file name while nothing ever died.

A rollback journal and not a WAL: readers of a WAL leave files beside it, and one file is what people copy. Writes are
as rare as poison, and a reader waits for one no longer than its fsync takes. synchronous is EXTRA: FULL does not sync
the directory after it has removed the journal, so a power loss could bring the journal back, and with it take back a
verdict that replays have already counted on.

sqlite3 is imported when there is something to open, never with this module: the supervisor is to stay small.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from streampiped.errors import ExitCode, RpcError, StateError, StorageError
from streampiped.runtime.dead_letters_schema import JUDGE, REPLAYED, SKIP, VERSION, VERSION_BEFORE, build, version_of
from streampiped.runtime.snapshots import sync_directory
from streampiped.wire import letters as wire
from streampiped.wire.messages import Guilty

if TYPE_CHECKING:
    import sqlite3

Status: TypeAlias = Literal["dead", "replayed", "dropped"]
STATUSES: Final[tuple[Status, ...]] = ("dead", "replayed", "dropped")

FILE: Final = "dead_letters.sqlite"
BUSY_S: Final = 5.0  # for a person in the sqlite3 shell, or a reader; a reset that waits longer shows why
TEXT_CHARS_MAX: Final = 16 << 10  # of a reason or traceback; what a stage sends in one message is not much longer
PAGE_BYTES: Final = 512 << 10  # of records and tracebacks in one page: half of what an answer on the socket may have
REPLAY_BYTES_MAX: Final = 64 << 20  # of records in one change: the stage holds them all
REPLAY_LETTERS_MAX: Final = 1000  # in one change: 10 kB of the message that resets a stage and of each manifest

_SHORT: Final = (
    "id", "stage", "via", "source", "position", "attempt", "status", "manner", "reason", "first_at", "last_at",
    "generation", "replay_epoch",
)  # fmt: skip
_PART: Final = ("record_bytes", "record")
_WHOLE: Final = (*_SHORT, "traceback", *_PART)


class DeadLetters:
    """The one writer. Every method opens the file when it is there; only `add` creates it. Each raises StorageError
    when the disk refuses (worth another try: the file is opened anew) and StateError when the file is not ours or is
    damaged. Not for two threads at once."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE
        self._opened: sqlite3.Connection | None = None
        self._planned: set[int] = set()

    def add(self, stage: str, verdicts: Sequence[Guilty], now: float) -> None:
        """Put the rows on the list, all or none, durably; again what is there already changes nothing. `now`: seconds
        since the epoch."""
        with self._transaction(create=True) as db:
            assert db is not None
            for v in verdicts:
                db.execute(SKIP, (stage, v.via, v.source, v.position, v.attempt))
                row = {
                    "stage": stage,
                    "via": v.via,
                    "source": v.source,
                    "position": v.position,
                    "attempt": v.attempt,
                    "manner": _text(v.manner),
                    "reason": _text(v.reason),
                    "traceback": _text(v.traceback),
                    "record": v.record,
                    "now": now,
                    "generation": v.generation,
                }
                db.execute(JUDGE, row)

    def page(
        self, stage: str | None = None, status: Status | None = None, after: int = 0, limit: int = 100,
        whole: bool = False,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The next letters with an id above `after`, ascending, at most `limit`, and not much more than PAGE_BYTES;
        an empty list ends the paging. `whole`: with `traceback` and `record` (the bytes of wire/letters.py); of one
        that is longer than PAGE_BYTES the beginning, `record_bytes` being its length, and `part` gives the rest."""
        fields = _WHOLE if whole else _SHORT
        where, values = _where(stage, status)
        query = f"SELECT {_selected(fields)} FROM letters WHERE id > ? {where} ORDER BY id LIMIT ?"
        found: list[dict[str, Any]] = []
        room = PAGE_BYTES
        with self._reading() as db:
            for row in db.execute(query, (after, *values, limit)) if db else ():
                room -= sum(len(value) for value in row if isinstance(value, str | bytes))
                if found and room < 0:
                    break
                found.append(dict(zip(fields, row, strict=True)))
        return found

    def get(self, letter: int) -> dict[str, Any] | None:
        """One letter, as `page` gives a whole one."""
        found = self.page(after=letter - 1, limit=1, whole=True)
        return found[0] if found and found[0]["id"] == letter else None

    def part(self, letter: int, offset: int) -> dict[str, Any] | None:
        """Of a letter `id`, `record_bytes` and `record` from `offset` on, at most PAGE_BYTES; None: there is none."""
        fields = ("id", *_PART)
        query = f"SELECT {_selected(fields, offset)} FROM letters WHERE id = ?"
        with self._reading() as db:
            row = db.execute(query, (letter,)).fetchone() if db else None
        return dict(zip(fields, row, strict=True)) if row else None

    def counts(self, stage: str | None = None) -> dict[Status, int]:
        """How many letters there are of each status."""
        counts: dict[Status, int] = dict.fromkeys(STATUSES, 0)
        where, values = _where(stage, None)
        with self._reading() as db:
            if db:
                counts |= dict(db.execute(f"SELECT status, count(*) FROM letters WHERE 1 {where} GROUP BY 1", values))
        return counts

    def plan(self, letters: Sequence[int] = (), stage: str | None = None) -> list[dict[str, Any]]:
        """The changes that would replay these letters, or without any all dead ones (of the stage): one per stage, in
        the form that goes into a manifest. At most REPLAY_LETTERS_MAX letters and REPLAY_BYTES_MAX, the oldest. Changes
        nothing; a plan is old when another replay was recorded after it. RpcError, as the operator should read it, for
        a letter that is not there or not dead. Until `replayed` or `forget_plan` the letters cannot be dropped."""
        changes: dict[str, list[list[int]]] = {}
        with self._reading() as db:
            _check_dead(db, letters)
            for number, owner, attempt in _dead(db, letters, stage) if db else ():
                changes.setdefault(owner, []).append([number, attempt + 1])
        self._planned = {number for pairs in changes.values() for number, _ in pairs}
        return [{"kind": "replay", "stage": owner, "letters": pairs} for owner, pairs in sorted(changes.items())]

    def replayed(self, change: Mapping[str, Any], epoch: int) -> None:
        """The manifest of `epoch` records this change and is durable. Again, or with a later epoch, is the same."""
        with self._transaction() as db:
            if db:
                db.executemany(REPLAYED, _marks(change, epoch))
                self._planned -= {number for number, _ in change["letters"]}

    def forget_plan(self) -> None:
        """What was planned last and not replayed will not be."""
        self._planned.clear()

    def reconcile(self, epoch: int | None, changes: Iterable[Mapping[str, Any]] = ()) -> None:
        """At a start that restores `epoch`, whose manifest names `changes`: replays of later epochs did not happen,
        those of `changes` did. StateError when a change names a letter that is not there: it could not be repeated."""
        self._planned.clear()
        with self._transaction() as db:
            if db:
                sooner = -1 if epoch is None else epoch
                db.execute(
                    "UPDATE letters SET status = 'dead' WHERE status = 'replayed' AND replay_epoch > ?", (sooner,)
                )
                db.execute("UPDATE letters SET replay_epoch = NULL WHERE replay_epoch > ?", (sooner,))
            for change in changes:
                _rows_of(db, self._path, change)
                if db:
                    db.executemany(REPLAYED, _marks(change, epoch))

    def drop(self, letters: Sequence[int] = (), stage: str | None = None) -> int:
        """Give up these letters, or without any all dead ones (of the stage) that are not planned to be replayed, for
        ever; how many. RpcError as `plan`, and for one that is planned; then none was dropped."""
        where, values = _where(stage, "dead")
        chosen = f" AND id IN ({', '.join('?' * len(letters))})" if letters else ""
        spared = f" AND id NOT IN ({', '.join(map(str, sorted(self._planned)))})"
        update = f"UPDATE letters SET status = 'dropped' WHERE 1 {where}{chosen}{spared}"
        with self._transaction() as db:
            _check_dead(db, letters)
            if planned := self._planned.intersection(letters):
                raise RpcError(f"letter {min(planned)} is on its way back into the stream", ExitCode.REFUSED)
            return db.execute(update, (*values, *letters)).rowcount if db else 0

    def complaints(self) -> list[str]:
        """What is wrong inside of a file that can be opened; for `fsck`."""
        key = "{0}.stage, {0}.via, {0}.source, {0}.position".format
        with_skip = f"SELECT 1 FROM skips AS s WHERE ({key('s')}) = ({key('l')})"
        with self._reading() as db:
            if not db:
                return []
            said = [str(row[0]) for row in db.execute("PRAGMA quick_check")]
            lost = db.execute(f"SELECT id FROM letters AS l WHERE NOT EXISTS ({with_skip})").fetchall()
        found = [f"{self._path}: {line}" for line in said if line != "ok"]
        return found + [f"{self._path}: letter {number} is on the list and not skipped" for (number,) in lost]

    def close(self) -> None:
        """The next call opens the file again."""
        if self._opened is not None:
            db, self._opened = self._opened, None
            db.close()

    @contextlib.contextmanager
    def _transaction(self, create: bool = False) -> Iterator[sqlite3.Connection | None]:
        """The open database in a transaction that is durable at the end of the block; None: there is none."""
        with self._reading(create) as db:
            if db is None:
                yield None
                return
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reading(self, create: bool = False) -> Iterator[sqlite3.Connection | None]:
        """After an error the file is opened anew: SQLite's memory of it may be wrong, and an fsync that failed once
        lies when it is repeated."""
        if self._opened is None and not create and not self._path.exists():
            yield None
            return
        with _failures(self._path):
            try:
                if self._opened is None:
                    self._opened = _open(self._path)
                yield self._opened
            except (StateError, RpcError):
                raise
            except BaseException:
                self.close()
                raise


def skips(root: Path, stage: str) -> dict[tuple[str, str, int], list[int]]:
    """Positions that `stage` leaves out, ascending, by (way, source, attempt). StorageError or StateError when the
    list is there and cannot be read: going on without it would be another stream."""
    found: dict[tuple[str, str, int], list[int]] = {}
    with _look(root) as db:
        query = "SELECT via, source, attempt, position FROM skips WHERE stage = ? ORDER BY 1, 2, 3, 4"
        for *key, position in db.execute(query, (stage,)) if db else ():
            found.setdefault(tuple(key), []).append(position)
    return found


class Record(NamedTuple):
    """A record that comes back into the stream."""

    source: str
    position: int
    via: str
    attempt: int
    values: dict[str, Any]


def records(root: Path, change: Mapping[str, Any]) -> list[Record]:
    """The record of each letter of a replay, by source, position and way: the order in which they enter the stage.
    StateError when one is not there."""
    with _look(root) as db:
        rows = _rows_of(db, root / FILE, change)
    return [Record(source, at, via, attempt, wire.unpack(data)) for source, at, via, attempt, data in rows]


@contextlib.contextmanager
def _look(root: Path) -> Iterator[sqlite3.Connection | None]:
    """The database for reading only; None: there is none."""
    path = root / FILE
    if not path.exists():
        yield None
        return
    with _failures(path):
        import sqlite3

        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None)
        try:
            yield db if _version(db, path, VERSION) else None
        finally:
            db.close()


def _open(path: Path) -> sqlite3.Connection:
    import sqlite3

    is_new = not path.exists()
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = EXTRA")
        build(db, _version(db, path, VERSION, VERSION_BEFORE))
        if is_new:
            sync_directory(path.parent)
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection, path: Path, *taken: int) -> int:
    """As `version_of`, with what an operator can do."""
    try:
        return version_of(db, *taken)
    except StateError as error:
        raise StateError(f"{path}: {error}; put the right file back, or use another state directory") from None


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    """SQLite's errors as ours; those of a wrong statement as they are."""
    import sqlite3

    damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    refused = (
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOLFS,
    )  # fmt: skip
    try:
        yield
    except sqlite3.Error as error:
        code = int(getattr(error, "sqlite_errorcode", 0)) & 0xFF  # the primary code, sqlite.org/rescode.html
        if code in damaged:
            raise StateError(f"{path}: {error}; put the right file back, or use another state directory") from error
        if code in refused:
            raise StorageError(f"{path}: {error}") from error
        raise
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error


def _selected(fields: Sequence[str], offset: int = 0) -> str:
    """The columns of a query; of the record the part from `offset` on."""
    made = {"record_bytes": "length(record)", "record": f"substr(record, {offset + 1}, {PAGE_BYTES})"}
    return ", ".join(made.get(field, field) for field in fields)


def _where(stage: str | None, status: Status | None) -> tuple[str, tuple[str, ...]]:
    wanted = {"stage": stage, "status": status}
    given = {name: value for name, value in wanted.items() if value is not None}
    return "".join(f" AND {name} = ?" for name in given), tuple(given.values())


def _dead(db: sqlite3.Connection, letters: Sequence[int], stage: str | None) -> list[tuple[int, str, int]]:
    """(id, stage, attempt) of what would be replayed, in the order of the replay."""
    where, values = _where(stage, "dead")
    chosen = f" AND id IN ({', '.join('?' * len(letters))})" if letters else ""
    query = (
        "SELECT stage, source, position, via, id, attempt, length(record) FROM letters "
        f"WHERE 1 {where}{chosen} ORDER BY id LIMIT {REPLAY_LETTERS_MAX}"
    )
    found: list[tuple[str, str, int, str, int, int]] = []
    room = REPLAY_BYTES_MAX
    for *row, size in db.execute(query, (*values, *letters)):
        room -= size
        if found and room < 0:
            if letters:
                raise RpcError(
                    f"records of more than {REPLAY_BYTES_MAX >> 20} MiB; replay fewer at once", ExitCode.USAGE
                )
            break
        found.append(tuple(row))
    return [(number, stage, attempt) for stage, _, _, _, number, attempt in sorted(found)]


def _check_dead(db: sqlite3.Connection | None, letters: Sequence[int]) -> None:
    """The operator named these by hand: each must be there, and dead."""
    if len(letters) > REPLAY_LETTERS_MAX:
        raise RpcError(f"{len(letters)} letters, at most {REPLAY_LETTERS_MAX} at once", ExitCode.USAGE)
    for number in letters:
        row = db.execute("SELECT status FROM letters WHERE id = ?", (number,)).fetchone() if db else None
        if row is None:
            raise RpcError(f"no dead letter {number}; `dlq list --status all` shows all", ExitCode.NO_SUCH_STAGE)
        if row[0] != "dead":
            raise RpcError(f"letter {number} is {row[0]}; only a dead one can be replayed or dropped", ExitCode.REFUSED)


def _rows_of(
    db: sqlite3.Connection | None, path: Path, change: Mapping[str, Any]
) -> list[tuple[str, int, str, int, bytes]]:
    """(source, position, via, attempt, record) of each letter of a change, by source, position and way."""
    rows = []
    for number, attempt in change["letters"]:
        query = "SELECT source, position, via, record FROM letters WHERE id = ? AND stage = ?"
        row = db.execute(query, (number, change["stage"])).fetchone() if db else None
        if row is None:
            raise StateError(
                f"{path}: has no letter {number} of {change['stage']}, which an epoch has replayed; put the file that "
                "belongs to this state directory back"
            )
        rows.append((row[0], row[1], row[2], attempt, row[3]))
    return sorted(rows)


def _marks(change: Mapping[str, Any], epoch: int | None) -> list[dict[str, Any]]:
    """What `REPLAYED` wants of each letter of a change."""
    stage = change["stage"]
    return [{"id": n, "stage": stage, "attempt": attempt, "epoch": epoch} for n, attempt in change["letters"]]


def _text(value: str) -> str:
    """Bounded, and encodable: what people wrote may have lone surrogates, which SQLite refuses. The end of a traceback
    says more than its beginning."""
    kept = value if len(value) <= TEXT_CHARS_MAX else f"...{value[-TEXT_CHARS_MAX:]}"
    return kept.encode("utf-8", "backslashreplace").decode()
