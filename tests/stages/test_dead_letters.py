"""The list of rows that a stage cannot live with: what is on it, what is left out, and what was replayed."""

from __future__ import annotations

import math
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streampiped.errors import ExitCode, RpcError, StateError, StorageError
from streampiped.runtime import dead_letters
from streampiped.runtime.dead_letters import FILE, REPLAY_LETTERS_MAX, DeadLetters
from streampiped.runtime.dead_letters_schema import APPLICATION_ID
from streampiped.runtime.snapshots import StateDirectory
from streampiped.wire.letters import pack, unpack
from streampiped.wire.messages import Guilty

STAGE = "consumer"
VIA = "left"
RECORD = pack({"x": 1.5})


def guilty(position: int, attempt: int = 0, source: str = "generator", **changes: Any) -> Guilty:
    """A verdict as the supervisor receives it."""
    words = {"manner": "signal SIGSEGV", "reason": "killed by SIGSEGV", "traceback": "", "record": RECORD}
    place = {"via": VIA, "source": source, "position": position, "attempt": attempt}
    return Guilty(**{"generation": 3, **place, **words, **changes})


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[DeadLetters]:
    store = DeadLetters(tmp_path)
    yield store
    store.close()


def statuses(store: DeadLetters) -> list[tuple[int, int, str]]:
    """(position, attempt, status) of every letter, in the order of their ids."""
    return [(row["position"], row["attempt"], row["status"]) for row in store.page()]


def test_nothing_is_created_before_the_first_letter(letters: DeadLetters, tmp_path: Path) -> None:
    """While nothing has died every question has an answer and there is no file."""
    assert dead_letters.skips(tmp_path, STAGE) == {}
    assert letters.counts() == {"dead": 0, "replayed": 0, "dropped": 0}
    assert (letters.page(), letters.get(1), letters.drop()) == ([], None, 0)
    assert letters.plan() == letters.complaints() == []
    letters.reconcile(7)
    assert list(tmp_path.iterdir()) == []


def test_supervisor_stays_small(tmp_path: Path) -> None:
    """SQLite is not loaded by looking where there are no letters."""
    script = (
        "import sys, pathlib\nfrom streampiped.runtime import dead_letters as d\nroot = pathlib.Path(sys.argv[1])\n"
        "d.skips(root, 'a'), d.DeadLetters(root).counts(), d.DeadLetters(root).reconcile(1)\n"
        "sys.exit('sqlite3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 0


def test_verdict(letters: DeadLetters, tmp_path: Path) -> None:
    """A verdict is a letter with all that was told, and a skip that a stage finds in another process."""
    letters.add(STAGE, [guilty(7, traceback="Traceback ...", record=pack({"x": math.nan, "who": "a"}))], now=100.0)
    (row,) = letters.page(whole=True)
    assert row["record"] == pack({"x": math.nan, "who": "a"})
    del row["record"]
    assert row == {
        "id": 1, "stage": STAGE, "via": VIA, "source": "generator", "position": 7, "attempt": 0, "status": "dead",
        "manner": "signal SIGSEGV", "reason": "killed by SIGSEGV", "traceback": "Traceback ...", "first_at": 100.0,
        "last_at": 100.0, "generation": 3, "replay_epoch": None, "record_bytes": 18,
    }  # fmt: skip
    script = "import sys, pathlib\nfrom streampiped.runtime.dead_letters import skips\n"
    script += "print(skips(pathlib.Path(sys.argv[1]), 'consumer'))"
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "{('left', 'generator', 0): [7]}\n"


def test_verdict_told_twice(letters: DeadLetters) -> None:
    """The same verdict again, in the same call or a later one, changes nothing."""
    letters.add(STAGE, [guilty(7), guilty(7)], now=100.0)
    before = letters.page(whole=True)
    letters.add(STAGE, [guilty(7, reason="said otherwise")], now=200.0)
    assert letters.page(whole=True) == before


def test_verdicts_are_all_or_none(letters: DeadLetters, tmp_path: Path) -> None:
    """When one row of a verdict cannot be stored none is, neither as a letter nor as a skip."""
    letters.add(STAGE, [guilty(1)], now=1.0)
    with pytest.raises(sqlite3.IntegrityError):
        letters.add(STAGE, [guilty(2), guilty(3, record=None)], now=2.0)
    assert statuses(letters) == [(1, 0, "dead")]
    assert dead_letters.skips(tmp_path, STAGE) == {(VIA, "generator", 0): [1]}


def test_skips_are_sorted_and_of_one_stage(letters: DeadLetters, tmp_path: Path) -> None:
    """Positions come ascending as numbers, by source and attempt, and those of other stages not at all."""
    letters.add(STAGE, [guilty(n) for n in (100, 9, 2**62)] + [guilty(9, 2), guilty(4, source="b")], now=1.0)
    letters.add("trainer", [guilty(5)], now=1.0)
    expected = {(VIA, "b", 0): [4], (VIA, "generator", 0): [9, 100, 2**62], (VIA, "generator", 2): [9]}
    assert dead_letters.skips(tmp_path, STAGE) == expected


def test_reader_is_not_disturbed(letters: DeadLetters, tmp_path: Path) -> None:
    """A stage reads at once what is committed while the supervisor is in the middle of a verdict, and leaves nothing
    behind."""
    letters.add(STAGE, [guilty(1)], now=1.0)
    with writing(tmp_path) as db:
        db.execute("DELETE FROM skips")
        before = sorted(tmp_path.iterdir())
        assert dead_letters.skips(tmp_path, STAGE) == {(VIA, "generator", 0): [1]}
        assert sorted(tmp_path.iterdir()) == before


@contextmanager
def writing(root: Path) -> Iterator[sqlite3.Connection]:
    """A transaction of somebody else, taken back in the end."""
    db = sqlite3.connect(root / FILE, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    yield db
    db.execute("ROLLBACK")
    db.close()


def test_text_of_strangers(letters: DeadLetters) -> None:
    """Reasons and tracebacks are bounded, keep their end, and may have what UTF-8 cannot encode."""
    letters.add(STAGE, [guilty(1, reason="a\ud800b", traceback="x" * 100_000 + "the end")], now=1.0)
    row = letters.get(1)
    assert row is not None
    assert row["reason"] == "a\\ud800b"
    assert row["traceback"].endswith("the end")
    assert len(row["traceback"]) < 20_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not a database at all, but long enough to be looked at" * 4, "not a database"),
        ("PRAGMA user_version = 3", "application id 0x0 and version 3"),
        ("CREATE TABLE t (x)", "application id 0x0"),
        (f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 3", "and version 3"),
    ],
)
def test_foreign_file(letters: DeadLetters, tmp_path: Path, content: bytes | str, words: str) -> None:
    """A file that is something else is refused by both sides with what would be right, and not touched."""
    path = tmp_path / FILE
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        db = sqlite3.connect(path)
        db.executescript(content)
        db.close()
    before = path.read_bytes()
    for act in (lambda: letters.add(STAGE, [guilty(1)], 1.0), lambda: dead_letters.skips(tmp_path, STAGE)):
        with pytest.raises(StateError, match=words):
            act()
    assert path.read_bytes() == before


def test_killed_while_it_was_made(letters: DeadLetters, tmp_path: Path) -> None:
    """An empty file, which a kill at the very first letter leaves, is no letters yet, and is used."""
    (tmp_path / FILE).touch()
    assert dead_letters.skips(tmp_path, STAGE) == {}
    letters.add(STAGE, [guilty(1)], now=1.0)
    assert statuses(letters) == [(1, 0, "dead")]


def test_killed_in_the_middle_of_a_verdict(letters: DeadLetters, tmp_path: Path) -> None:
    """What a killed supervisor left half written is for its successor to take back: a stage that looks earlier is
    refused and changes nothing."""
    letters.add(STAGE, [guilty(1)], now=1.0)
    root = tmp_path / "later"
    root.mkdir()
    with writing(tmp_path) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("UPDATE skips SET position = 2")
        db.execute("UPDATE letters SET traceback = ?", ("x" * 100_000,))  # more than the cache: it is in the file now
        for name in (FILE, f"{FILE}-journal"):
            shutil.copy(tmp_path / name, root / name)
    before = [path.read_bytes() for path in sorted(root.iterdir())]
    with pytest.raises(StorageError, match=FILE):
        dead_letters.skips(root, STAGE)
    assert [path.read_bytes() for path in sorted(root.iterdir())] == before
    successor = DeadLetters(root)
    successor.reconcile(None)
    successor.close()
    assert dead_letters.skips(root, STAGE) == {(VIA, "generator", 0): [1]}


def test_full_disk(letters: DeadLetters, tmp_path: Path) -> None:
    """A disk that refuses is a StorageError, nothing of that verdict is there, and the next attempt succeeds."""
    letters.add(STAGE, [guilty(1)], now=1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / FILE).stat().st_size, limits[1]))
    try:
        with pytest.raises(StorageError, match=FILE):
            letters.add(STAGE, [guilty(2, record=pack({"x": "y" * 100_000}))], now=2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert dead_letters.skips(tmp_path, STAGE) == {(VIA, "generator", 0): [1]}
    letters.add(STAGE, [guilty(2)], now=3.0)
    assert statuses(letters) == [(1, 0, "dead"), (2, 0, "dead")]


def test_no_directory(tmp_path: Path) -> None:
    """A directory that is not there is a StorageError that names the file."""
    with pytest.raises(StorageError, match=FILE):
        DeadLetters(tmp_path / "gone").add(STAGE, [guilty(1)], 1.0)


def test_pages(letters: DeadLetters) -> None:
    """Page after page gives every letter once, whatever the limit, and no page is much larger than an answer may
    be."""
    big = pack({"x": "y" * 100_000})
    letters.add(STAGE, [guilty(n, record=big) for n in range(20)], now=1.0)
    for limit, whole in ((3, False), (100, False), (100, True)):
        found, after = [], 0
        while page := letters.page(after=after, limit=limit, whole=whole):
            assert sum(len(row.get("record", b"")) for row in page) <= dead_letters.PAGE_BYTES
            found += page
            after = page[-1]["id"]
        assert [row["position"] for row in found] == list(range(20))


def test_letter_larger_than_a_page(letters: DeadLetters) -> None:
    """One letter is always on a page, or the paging would stand still before it."""
    letters.add(STAGE, [guilty(1, record=pack({"x": "y" * 2 * dead_letters.PAGE_BYTES})), guilty(2)], now=1.0)
    assert [row["id"] for row in letters.page(whole=True)] == [1]


def test_long_record_comes_in_parts(letters: DeadLetters) -> None:
    """Of a record that is too long for a page the page has the beginning and says how long it is; the parts together
    are the record."""
    record = pack({"x": "y" * (2 * dead_letters.PAGE_BYTES + 7)})
    letters.add(STAGE, [guilty(1, record=record)], now=1.0)
    found = letters.get(1)
    assert found is not None
    assert found["record_bytes"] == len(record)
    whole = found["record"]
    while len(whole) < len(record):
        part = letters.part(1, len(whole))
        assert part is not None
        assert 0 < len(part["record"]) <= dead_letters.PAGE_BYTES
        whole += part["record"]
    assert whole == record
    assert letters.part(2, 0) is None


def test_filters(letters: DeadLetters) -> None:
    """Letters are chosen by stage and status, counted likewise."""
    letters.add(STAGE, [guilty(1), guilty(2)], now=1.0)
    letters.add("trainer", [guilty(1)], now=1.0)
    letters.drop([2])
    assert [row["id"] for row in letters.page(STAGE)] == [1, 2]
    assert [row["id"] for row in letters.page(status="dead")] == [1, 3]
    assert [row["id"] for row in letters.page(STAGE, "dropped")] == [2]
    assert letters.counts() == {"dead": 2, "replayed": 0, "dropped": 1}
    assert letters.counts("trainer") == {"dead": 1, "replayed": 0, "dropped": 0}


# replays


def test_plan_is_one_change_per_stage(letters: DeadLetters) -> None:
    """A plan names letters with the attempt they would be, by stage, source and position, and changes nothing."""
    letters.add(STAGE, [guilty(9), guilty(4), guilty(5, source="a")], now=1.0)
    letters.add("trainer", [guilty(1)], now=1.0)
    expected = {"kind": "replay", "stage": STAGE, "letters": [[3, 1], [2, 1], [1, 1]]}
    assert letters.plan() == letters.plan() == [expected, {"kind": "replay", "stage": "trainer", "letters": [[4, 1]]}]
    assert letters.plan(stage="trainer") == [{"kind": "replay", "stage": "trainer", "letters": [[4, 1]]}]
    assert letters.plan([1]) == [{"kind": "replay", "stage": STAGE, "letters": [[1, 1]]}]


def test_records_of_a_replay(letters: DeadLetters, tmp_path: Path) -> None:
    """A stage reads the records of a change by source and position, with the attempt that the change names, also when
    the letter has gone on since."""
    letters.add(STAGE, [guilty(9), guilty(4, record=pack({"x": math.inf})), guilty(5, source="a")], now=1.0)
    (change,) = letters.plan()
    letters.replayed(change, 12)
    letters.add(STAGE, [guilty(4, 1, record=pack({"other": 0}))], now=2.0)
    places = [("a", 5, VIA, 1), ("generator", 4, VIA, 1), ("generator", 9, VIA, 1)]
    expected = [(*place, {"x": x}) for place, x in zip(places, (1.5, math.inf, 1.5), strict=True)]
    assert dead_letters.records(tmp_path, change) == expected
    assert dead_letters.records(tmp_path, {**change, "letters": change["letters"][::-1]}) == expected


def test_replay_of_what_is_not_there(letters: DeadLetters, tmp_path: Path) -> None:
    """A change whose letters are missing, of this file or with the file, is refused: it could not be repeated."""
    change = {"kind": "replay", "stage": STAGE, "letters": [[1, 1]]}
    for _ in range(2):
        for act in (lambda: dead_letters.records(tmp_path, change), lambda: letters.reconcile(3, [change])):
            with pytest.raises(StateError, match="has no letter 1 of consumer"):
                act()
        letters.add("trainer", [guilty(1)], now=1.0)


@pytest.mark.parametrize("act", ["plan", "drop"])
def test_what_cannot_be_chosen(letters: DeadLetters, act: str) -> None:
    """A letter that is not there or no longer dead is named, and nothing is done to the others."""
    letters.add(STAGE, [guilty(n) for n in range(3)], now=1.0)
    letters.drop([2])
    for chosen, code in (([1, 9], ExitCode.NO_SUCH_STAGE), ([1, 2], ExitCode.REFUSED)):
        with pytest.raises(RpcError, match=f"letter {chosen[1]}") as caught:
            getattr(letters, act)(chosen)
        assert caught.value.code == code
    with pytest.raises(RpcError, match="at most 1000"):
        getattr(letters, act)(range(1, REPLAY_LETTERS_MAX + 2))
    assert letters.counts() == {"dead": 2, "replayed": 0, "dropped": 1}


def test_a_plan_is_bounded(letters: DeadLetters) -> None:
    """All dead letters are replayed a bounded number at a time, the oldest first."""
    letters.add(STAGE, [guilty(n) for n in range(REPLAY_LETTERS_MAX + 1, 0, -1)], now=1.0)
    (change,) = letters.plan()
    assert sorted(number for number, _ in change["letters"]) == list(range(1, REPLAY_LETTERS_MAX + 1))


def test_bytes_of_a_plan_are_bounded(letters: DeadLetters, monkeypatch: pytest.MonkeyPatch) -> None:
    """All dead letters are replayed as many at a time as a stage can hold; more of them by number are refused."""
    monkeypatch.setattr(dead_letters, "REPLAY_BYTES_MAX", 2_500_000)
    letters.add(STAGE, [guilty(n, record=pack({"x": "y" * 1_000_000})) for n in range(3)], now=1.0)
    (change,) = letters.plan()
    assert change["letters"] == [[1, 1], [2, 1]]
    with pytest.raises(RpcError, match="replay fewer") as caught:
        letters.plan([1, 2, 3])
    assert caught.value.code == ExitCode.USAGE


def test_what_is_on_its_way_is_not_dropped(letters: DeadLetters) -> None:
    """Between its plan and the manifest a letter is neither dropped by its number nor with all; afterwards it is
    replayed, or, when no manifest came, dead as before."""
    letters.add(STAGE, [guilty(n) for n in range(3)], now=1.0)
    (change,) = letters.plan([1, 2])
    with pytest.raises(RpcError, match="letter 1 is on its way") as caught:
        letters.drop([3, 1])
    assert caught.value.code == ExitCode.REFUSED
    assert letters.drop() == 1
    assert statuses(letters) == [(0, 0, "dead"), (1, 0, "dead"), (2, 0, "dropped")]
    letters.replayed({**change, "letters": [[1, 1]]}, 5)
    with pytest.raises(RpcError, match="letter 1 is replayed"):
        letters.drop([1])
    letters.forget_plan()
    assert letters.drop() == 1
    assert statuses(letters) == [(0, 1, "replayed"), (1, 0, "dropped"), (2, 0, "dropped")]


def test_dead_again(letters: DeadLetters) -> None:
    """A letter that dies in its replay is dead with that attempt, whether the verdict or the manifest came first; its
    next attempt is another one."""
    letters.add(STAGE, [guilty(1), guilty(2)], now=1.0)
    (change,) = letters.plan()
    letters.add(STAGE, [guilty(1, 1)], now=2.0)
    letters.replayed(change, 5)
    letters.add(STAGE, [guilty(2, 1)], now=3.0)
    assert statuses(letters) == [(1, 1, "dead"), (2, 1, "dead")]
    assert letters.plan()[0]["letters"] == [[1, 2], [2, 2]]


def test_attempts_are_never_used_twice(letters: DeadLetters, tmp_path: Path) -> None:
    """After a restore to before a replay in which a row died its next replay is a new attempt: the skip of the old one
    would swallow it."""
    letters.add(STAGE, [guilty(1), guilty(2)], now=1.0)
    (change,) = letters.plan()
    letters.replayed(change, 5)
    assert statuses(letters) == [(1, 1, "replayed"), (2, 1, "replayed")]
    letters.add(STAGE, [guilty(1, 1)], now=2.0)
    letters.reconcile(4)
    assert letters.plan()[0]["letters"] == [[1, 2], [2, 2]]
    assert (VIA, "generator", 2) not in dead_letters.skips(tmp_path, STAGE)


def test_fresh_begins_without_letters(tmp_path: Path) -> None:
    """Discarding the state discards the letters: positions begin again, and skips of old ones would hit new rows."""
    root = tmp_path / "state"
    StateDirectory(root, "friedman").close()
    letters = DeadLetters(root)
    letters.add(STAGE, [guilty(1)], now=1.0)
    letters.close()
    StateDirectory.discard(root)
    assert dead_letters.skips(root, STAGE) == {}


def test_complaints(letters: DeadLetters, tmp_path: Path) -> None:
    """A sound file has nothing to say; a letter without its skip is named."""
    letters.add(STAGE, [guilty(1), guilty(2)], now=1.0)
    assert letters.complaints() == []
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("DELETE FROM skips WHERE position = 2")
    db.commit()
    db.close()
    assert [line.split(": ", 1)[1] for line in letters.complaints()] == ["letter 2 is on the list and not skipped"]


Place: TypeAlias = tuple[str, int]
"""Of a record before the stage: the branch that it comes over, and its position."""
PLACES = st.tuples(st.sampled_from(["left", "right"]), st.integers(0, 2))


class Timeline(RuleBasedStateMachine):
    """Verdicts, replays, lost marks and restores in any order, of records that come over one or both of two branches.
    What the letters must say follows from the committed manifests and the verdicts alone."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.root = Path(self.directory.name)
        self.store = DeadLetters(self.root)
        self.verdicts: set[tuple[Place, int]] = set()  # (place, attempt)
        self.manifests: list[tuple[int, list[dict[str, Any]]]] = []
        self.dropped: set[int] = set()  # ids
        self.epoch = 0

    @rule(place=PLACES)
    def die(self, place: Place) -> None:
        self.judge(place, 0)

    @rule(died=st.sets(PLACES), early=st.booleans(), lost=st.booleans())
    def replay(self, died: set[Place], early: bool, lost: bool) -> None:
        """Some die again, before the manifest or after; the mark behind the manifest may be lost with the
        supervisor, which then starts from that epoch."""
        changes = self.store.plan()
        again = [(p, attempt) for c in changes for n, attempt in c["letters"] if (p := self.place(n)) in died]
        for place, attempt in (p for c in changes for p in self.keys(c)):
            assert (place, attempt) not in self.verdicts
        for place, attempt in again if early else ():
            self.judge(place, attempt)
        self.epoch += 1
        self.manifests.append((self.epoch, changes))
        if lost:
            self.store.reconcile(self.epoch, changes)
        else:
            for change in changes:
                self.store.replayed(change, self.epoch)
        for place, attempt in () if early else again:
            self.judge(place, attempt)

    @rule(back=st.integers(0, 3))
    def restore(self, back: int) -> None:
        self.manifests = self.manifests[: max(0, len(self.manifests) - back)]
        self.store.close()
        self.store = DeadLetters(self.root)
        self.store.reconcile(*(self.manifests[-1] if self.manifests else (None,)))

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        dead = [row["id"] for row in self.store.page(status="dead")]
        if dead:
            chosen = data.draw(st.sampled_from(dead))
            self.store.drop([chosen])
            self.dropped.add(chosen)

    def judge(self, place: Place, attempt: int) -> None:
        self.store.add(STAGE, [guilty(place[1], attempt, via=place[0])], float(self.epoch))
        self.verdicts.add((place, attempt))

    def place(self, letter: int) -> Place:
        row = self.store.get(letter)
        assert row is not None
        return row["via"], row["position"]

    def keys(self, change: dict[str, Any]) -> list[tuple[Place, int]]:
        return [(self.place(number), attempt) for number, attempt in change["letters"]]

    @invariant()
    def letters_follow_from_manifests_and_verdicts(self) -> None:
        last = {p: attempt for _, changes in self.manifests for change in changes for p, attempt in self.keys(change)}
        for row in self.store.page():
            place = row["via"], row["position"]
            key = place, last.get(place, 0)
            expected = "dropped" if row["id"] in self.dropped else "dead" if key in self.verdicts else "replayed"
            assert row["status"] == expected, row
        found = dead_letters.skips(self.root, STAGE)
        assert {((i, p), attempt) for (i, _, attempt), ps in found.items() for p in ps} == self.verdicts

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestTimeline = Timeline.TestCase
TestTimeline.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)

VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=9)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=9)


@given(st.dictionaries(TEXTS, VALUES | TEXTS, max_size=5))
def test_record_round_trip(record: dict[str, Any]) -> None:
    """A record comes back as it was, NaN, infinities and lone surrogates included."""
    assert repr(unpack(pack(record))) == repr(record)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01\x02", b"\x81\x01\x02", b"\x81\xa1x"])
def test_what_is_no_record(data: bytes) -> None:
    """Bytes that are no map of names to values are refused."""
    with pytest.raises(StateError, match="record of a dead letter"):
        unpack(data)


# two branches: a record that comes over both is two rows


def test_a_record_over_two_branches_is_two_letters(letters: DeadLetters, tmp_path: Path) -> None:
    """Each branch of a record has its own letter, skip and attempts: what becomes of one says nothing of the other."""
    letters.add(STAGE, [guilty(7, via="right")], now=1.0)
    assert dead_letters.skips(tmp_path, STAGE) == {("right", "generator", 0): [7]}
    letters.add(STAGE, [guilty(7, via="left")], now=2.0)
    letters.replayed(letters.plan([1])[0], 5)
    letters.add(STAGE, [guilty(7, 1, via="left")], now=3.0)
    assert [(row["via"], row["status"], row["attempt"]) for row in letters.page()] == [
        ("right", "replayed", 1),
        ("left", "dead", 1),
    ]
    letters.add(STAGE, [guilty(7, 1, via="right")], now=4.0)
    assert letters.counts()["dead"] == 2
    assert letters.complaints() == []


def test_branches_of_a_record_come_back_in_one_order(letters: DeadLetters, tmp_path: Path) -> None:
    """Both letters of a record enter, each with its way, by source, position and way."""
    places = [("right", 9), ("right", 7), ("left", 9)]
    letters.add(STAGE, [guilty(position, via=via) for via, position in places], now=1.0)
    (change,) = letters.plan()
    assert change["letters"] == [[2, 1], [3, 1], [1, 1]]
    found = [(record.position, record.via) for record in dead_letters.records(tmp_path, change)]
    assert found == [(7, "right"), (9, "left"), (9, "right")]


# a file of version 1, which knew no ways

VERSION_1 = """
    CREATE TABLE letters (
        id INTEGER PRIMARY KEY, stage TEXT NOT NULL, source TEXT NOT NULL, position INTEGER NOT NULL,
        attempt INTEGER NOT NULL, status TEXT NOT NULL CHECK (status IN ('dead', 'replayed', 'dropped')),
        manner TEXT NOT NULL, reason TEXT NOT NULL, traceback TEXT NOT NULL, record BLOB NOT NULL,
        first_at REAL NOT NULL, last_at REAL NOT NULL, generation INTEGER NOT NULL, replay_epoch INTEGER,
        UNIQUE (stage, source, position));
    CREATE INDEX letters_by_status ON letters (status, id);
    CREATE TABLE skips (
        stage TEXT NOT NULL, source TEXT NOT NULL, attempt INTEGER NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY (stage, source, attempt, position)) WITHOUT ROWID;
    PRAGMA application_id = 1397769292;
    PRAGMA user_version = 1;
    INSERT INTO letters VALUES
        (3, 'consumer', 'generator', 7, 0, 'dead', 'loop', 'still', 'Trace', x'81a178c0', 1.0, 2.0, 4, NULL),
        (8, 'consumer', 'generator', 5, 1, 'replayed', 'crash', 'died', '', x'81a178c0', 3.0, 4.0, 5, 12);
    INSERT INTO skips VALUES ('consumer', 'generator', 0, 7), ('consumer', 'generator', 0, 5);
"""


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A directory with a dead letter and a replayed one, numbers 3 and 8."""
    db = sqlite3.connect(tmp_path / FILE)
    db.executescript(VERSION_1)
    db.close()
    return tmp_path


def rows(root: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(root / FILE)
    found = [db.execute("PRAGMA user_version").fetchone()]
    for table in ("letters", "skips"):
        found += db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4").fetchall()
    db.close()
    return found


def test_version_1_is_taken_over(version_1: Path) -> None:
    """The supervisor's start makes version 2 of it: every letter with its number and all that was known, put aside by
    every way, as it was until then."""
    before = rows(version_1)
    store = DeadLetters(version_1)
    store.reconcile(12)
    store.close()
    head = [(2,)]
    assert rows(version_1) == head + [(*row[:2], "", *row[2:]) for row in before[1:3]] + [
        (STAGE, "", "generator", 0, position) for position in (5, 7)
    ]
    assert dead_letters.skips(version_1, STAGE) == {("", "generator", 0): [5, 7]}


def test_letters_of_version_1_are_lived_with(version_1: Path) -> None:
    """They are replayed, die again in their attempt, and are dropped like all others; a new verdict stands beside
    them."""
    store = DeadLetters(version_1)
    assert store.plan() == [{"kind": "replay", "stage": STAGE, "letters": [[3, 1]]}]
    assert dead_letters.records(version_1, store.plan()[0]) == [("generator", 7, "", 1, {"x": None})]
    store.replayed(store.plan()[0], 13)
    store.add(STAGE, [guilty(7, 1, via=""), guilty(8, via="left")], now=9.0)
    assert store.complaints() == []
    found = [(row["id"], row["via"], row["attempt"], row["status"]) for row in store.page()]
    assert found == [(3, "", 1, "dead"), (8, "", 1, "replayed"), (9, "left", 0, "dead")]
    assert store.drop() == 2
    store.close()


def test_version_1_survives_a_kill_on_the_way(version_1: Path) -> None:
    """When the disk refuses in the middle of it the file is of version 1 as before, and the next attempt does it."""
    db = sqlite3.connect(version_1 / FILE)
    db.execute("UPDATE letters SET traceback = ?", ("x" * 100_000,))
    db.commit()
    db.close()
    before = rows(version_1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((version_1 / FILE).stat().st_size, limits[1]))
    store = DeadLetters(version_1)
    try:
        with pytest.raises(StorageError, match=FILE):
            store.reconcile(12)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert rows(version_1) == before
    store.reconcile(12)
    store.close()
    assert len(rows(version_1)) == len(before)
    assert rows(version_1)[0] == (2,)


def test_a_stage_takes_no_version_1(version_1: Path) -> None:
    """A stage writes nothing: what the supervisor has not taken over is refused, and not touched."""
    before = (version_1 / FILE).read_bytes()
    with pytest.raises(StateError, match="and version 1, dead letters have"):
        dead_letters.skips(version_1, STAGE)
    assert (version_1 / FILE).read_bytes() == before
