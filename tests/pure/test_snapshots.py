"""The state directory: one holder, one pipeline, numbers that are never used twice, damage that is found.

docs/specs/snapshots.md is the contract.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streampiped.errors import StateError
from streampiped.runtime import state_size
from streampiped.runtime.durable import remove_durably
from streampiped.runtime.manifests import decode, encode
from streampiped.runtime.snapshots import Manifest, StateDirectory, manifest_name, snapshot_name, write_durably
from support.state_dirs import SHAPE, committed, contents, listing, opened, prepared

# one holder, one pipeline


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """A second daemon is refused with the directory's name while the first lives, and may have it afterwards."""
    with opened(tmp_path), pytest.raises(StateError, match=rf"{tmp_path}: in use by another streampiped"):
        StateDirectory(tmp_path, "p")
    with opened(tmp_path) as directory:
        assert directory.newest().manifest is None


def test_another_pipelines_state_is_refused_and_untouched(tmp_path: Path) -> None:
    """The state of another pipeline, or of another format, is refused with both names; not a byte of it changes, and
    the lock is free again."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
    (tmp_path / "lock").unlink()
    before = contents(tmp_path)
    with pytest.raises(StateError, match="expected format 1 of pipeline 'other'"):
        StateDirectory(tmp_path, "other")
    assert contents(tmp_path) == before
    with opened(tmp_path) as directory:
        assert directory.highest() == 1
    (tmp_path / "format").write_text("streampipe state 2\npipeline p\n")
    (tmp_path / "lock").unlink()
    before = contents(tmp_path)
    for pipeline in ("p", None):
        with pytest.raises(StateError, match="streampipe state 2"):
            StateDirectory(tmp_path, pipeline)
    assert contents(tmp_path) == before


def test_epochs_of_nobody_are_refused_and_untouched(tmp_path: Path) -> None:
    """Epochs without the file that says whose they are are nobody's to take."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
    (tmp_path / "format").unlink()
    (tmp_path / "lock").unlink()
    before = contents(tmp_path)
    with pytest.raises(StateError, match="whose are they"):
        StateDirectory(tmp_path, "p")
    assert contents(tmp_path) == before


def test_a_tool_makes_nothing(tmp_path: Path) -> None:
    """A directory that is no state directory is refused to a tool, and nothing is made in it."""
    with pytest.raises(StateError, match="not a state directory"):
        StateDirectory(tmp_path, None, create=False)
    assert not contents(tmp_path)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Opening, being refused and closing leave no descriptor behind."""
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path), pytest.raises(StateError):
        StateDirectory(tmp_path, "p")
    with pytest.raises(StateError):
        StateDirectory(tmp_path, "other")
    StateDirectory.discard(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


# the newest epoch


def test_newest_is_what_was_committed_last(tmp_path: Path) -> None:
    """The newest manifest comes back as it was written; files of epochs that have none count for nothing."""
    with opened(tmp_path) as directory:
        assert directory.newest().manifest is None
        committed(directory, 1)
        wanted = committed(directory, 2, generation=5, finished=True)
        write_durably(directory.epochs / snapshot_name("count", 5, 3), b"of an epoch that was aborted")
        assert directory.newest().manifest == wanted


def test_newest_is_told_by_number(tmp_path: Path) -> None:
    """Epoch 100 000 000 (three years at one a second) is newer than 99 999 999, whatever their names sort like."""
    with opened(tmp_path) as directory:
        for epoch in (99_999_999, 100_000_000):
            committed(directory, epoch)
        newest = directory.newest().manifest
        assert newest is not None
        assert newest.epoch == directory.highest() == 100_000_000
        directory.retain(1, 100_000_000)
        assert directory.newest().manifest == newest


# manifests


FULL = Manifest(
    7,
    3,
    True,
    {"count": (snapshot_name("count", 3, 7), 100, 4_000_000_000)},
    {"count": "a:A"},
    at=1_700_000_000.123,
    seconds=0.25,
    positions={"count": 1 << 60},
    changes=({"stage": "trainer", "verb": "promote", "params": {"version": 3}},),
    retractable={"count": True, "total": False},
)


def test_manifest_comes_back() -> None:
    """A manifest is read as it was written, every field of it."""
    assert decode(encode(FULL), 7) == FULL


def test_manifest_of_an_early_version_is_read() -> None:
    """Without the later fields and the checksum a manifest is whole: nothing is known then, and everything can go
    back."""
    early = {"format": 1, "epoch": 7, "generation": 3, "finished": False, "shape": {"count": "a:A"}}
    parts = {"count": ["e00000007.g3.count.snap", 5, 6]}
    found = decode(json.dumps({**early, "parts": parts}).encode(), 7)
    assert (found.at, found.seconds, found.positions, found.changes, found.unretractable) == (None, None, {}, (), [])
    assert found.parts == {"count": ("e00000007.g3.count.snap", 5, 6)}


def test_manifest_of_a_later_version_is_read() -> None:
    """A field that this version does not know is no damage, as long as the format is the same."""
    body = json.loads(encode(FULL))
    del body["checksum"]
    assert decode(json.dumps({**body, "colour": "blue"}).encode(), 7) == FULL


def test_every_damage_of_a_manifest_is_found() -> None:
    """Cut off anywhere, or with any bit changed, a manifest is refused or says the same as before."""
    data = encode(FULL)
    for length in range(len(data)):
        with pytest.raises(StateError, match="not a manifest"):
            decode(data[:length], 7)
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            try:
                assert decode(bytes(damaged), 7) == FULL, (place, bit)
            except StateError:
                continue


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b"{}", b'{"format": 1}', b'{"format": 2}', b"null", b"[" * 9999]
)
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    """Whatever else stands in the file is refused, and never an exception of another kind."""
    with pytest.raises(StateError, match="not a manifest of format 1"):
        decode(body, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parts", []),
        ("parts", {}),
        ("parts", {"count": []}),
        ("parts", {"count": ["f", "x", 1]}),
        ("parts", {"count": ["../e00000007.g3.count.snap", 1, 1]}),
        ("parts", {"count": ["e00000006.g3.count.snap", 1, 1]}),
        ("shape", 5),
        ("shape", {}),
        ("format", 2),
        ("epoch", 8),
        ("positions", 5),
        ("changes", [5]),
        ("checksum", 5),
    ],
)
def test_manifest_with_a_wrong_field_is_refused(field: str, value: Any) -> None:
    """A manifest whose JSON is sound and whose fields are not is refused in the same way."""
    body = json.loads(encode(FULL))
    del body["checksum"]
    with pytest.raises(StateError, match="not a manifest"):
        decode(json.dumps(body | {field: value}).encode(), 7)


# damage and falling back


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"short": data[:-1], "long": data + b"x", "flipped": flipped, "empty": b""}[how])


@pytest.mark.parametrize("how", ["gone", "short", "long", "flipped", "empty"])
@pytest.mark.parametrize("what", [snapshot_name("total", 1, 2), manifest_name(2)])
def test_a_damaged_newest_epoch_is_passed_over(tmp_path: Path, what: str, how: str) -> None:
    """Whatever happened to a file of the newest epoch, the one before is taken, the damage is told, and looking has
    changed nothing."""
    with opened(tmp_path) as directory:
        wanted = committed(directory, 1)
        committed(directory, 2)
        damage(directory.epochs / what, how)
        before = contents(tmp_path)
        found = directory.newest()
        assert found.manifest == wanted
        if (what, how) == (manifest_name(2), "gone"):  # then it never was a commit
            assert found.damaged == ()
        else:
            assert [(d.epoch, d.file) for d in found.damaged] == [(2, directory.epochs / what)]
        assert contents(tmp_path) == before


def test_every_damage_of_the_newest_snapshot_is_found(tmp_path: Path) -> None:
    """A snapshot cut off at any length, or with any bit changed, is never restored."""
    with opened(tmp_path) as directory:
        wanted = committed(directory, 1)
        newest = committed(directory, 2)
        path = directory.epochs / newest.parts["count"][0]
        data = path.read_bytes()
        flips = (data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(len(data)) for bit in range(8))
        for damaged in (*(data[:length] for length in range(len(data))), *flips):
            path.write_bytes(damaged)
            assert directory.newest().manifest == wanted
        path.write_bytes(data)
        assert directory.newest().manifest == newest


def test_what_was_passed_over_never_comes_back(tmp_path: Path) -> None:
    """Once a run has begun with an older epoch the newer ones are put aside: even mended, no start finds them, and
    their numbers are not used again."""
    with opened(tmp_path) as directory:
        wanted = committed(directory, 1)
        for epoch in (2, 3):
            path = directory.epochs / committed(directory, epoch).parts["count"][0]
            data = path.read_bytes()
            damage(path, "flipped")
        directory.put_aside(directory.newest().damaged)
        path.write_bytes(data)
        assert directory.newest().manifest == wanted
        assert not directory.newest().damaged
        assert {manifest_name(2) + ".damaged", manifest_name(3) + ".damaged"} <= listing(directory)
        for epoch in (2, 3):
            directory.store.remove_snapshots([epoch])
        assert directory.highest() == 3


@pytest.mark.parametrize("stubborn", ["count", "total"])
def test_no_fall_back_where_one_cannot_go(tmp_path: Path, stubborn: str) -> None:
    """If a source or sink of the older epoch cannot go back, there is no start: the error gives the operator's choices
    with every whole epoch and its name, and nothing has changed."""
    retractable = {"count": True, "total": True} | {stubborn: False}
    with opened(tmp_path) as directory:
        for epoch in (1, 2, 3, 4):
            committed(directory, epoch, retractable=retractable)
        directory.keep("before", 1)
        damage(directory.epochs / manifest_name(4), "empty")
        damage(directory.epochs / snapshot_name("count", 1, 2), "gone")
        before = contents(tmp_path)
        with pytest.raises(StateError) as caught:
            directory.newest()
        assert contents(tmp_path) == before
    text = str(caught.value)
    assert f"{manifest_name(4)}: not a manifest" in text
    assert f"{stubborn} cannot go back" in text
    assert f"`streampiped restore --state-dir {tmp_path} --from EPOCH` (whole: 3, 1 (before))" in text
    assert "--fresh" in text


@pytest.mark.parametrize("aside", [False, True])
def test_no_whole_epoch_is_no_new_beginning(tmp_path: Path, aside: bool) -> None:
    """If none of the epochs is whole, also when all were put aside before, the start is refused and nothing begins
    anew by itself."""
    with opened(tmp_path) as directory:
        for epoch in (1, 2):
            committed(directory, epoch)
            damage(directory.epochs / manifest_name(epoch), "short")
        if aside:
            directory.store.put_away([1, 2], ".damaged")
        with pytest.raises(StateError, match=r"no epoch is whole; .*--fresh"):
            directory.newest()


def test_what_only_we_cannot_read_is_not_given_up(tmp_path: Path) -> None:
    """A reader that is out of descriptors says nothing of the file: no epoch is passed over because of it."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with pytest.raises(StateError, match="cannot be read: Too many open files"):
                directory.store.examine(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_operators_choice_becomes_the_newest(tmp_path: Path) -> None:
    """After `make_newest` a start restores exactly that epoch; the newer ones, their snapshots and names are gone, and
    their numbers are not used again."""
    with opened(tmp_path) as directory:
        wanted = committed(directory, 1)
        for epoch in (2, 3, 4):
            committed(directory, epoch)
        for name, epoch in (("old", 1), ("new", 3)):
            directory.keep(name, epoch)
        directory.make_newest(1)
        assert directory.newest().manifest == wanted
        assert directory.kept() == {"old": 1}
        assert directory.highest() == 4
        snapshots = {file for file, _, _ in wanted.parts.values()}
        assert {name for name in listing(directory) if name.endswith(".snap")} == snapshots


# every instant of a commit


def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Whatever a kill left of a commit, a start finds the epoch before it or the new one, whole, and no number that
    a file carries is used twice."""
    with opened(tmp_path) as directory:
        old = committed(directory, 1)
        new = prepared(directory, 2)
        data = encode(new)
        temporary = directory.epochs / (manifest_name(2) + ".tmp")
        files = {file: (directory.epochs / file).read_bytes() for file, _, _ in new.parts.values()}
        directory.store.remove_snapshots([2])
        for file, content in files.items():  # a snapshot after the other, half and whole
            half = directory.epochs / (file + ".tmp")
            half.write_bytes(content[: len(content) // 2])
            assert (directory.newest().manifest, directory.highest()) == (old, 2)
            half.write_bytes(content)
            half.rename(directory.epochs / file)
            assert (directory.newest().manifest, directory.highest()) == (old, 2)
        for length in (0, len(data) // 2, len(data)):
            temporary.write_bytes(data[:length])
            assert (directory.newest().manifest, directory.highest()) == (old, 2)
        temporary.rename(directory.epochs / manifest_name(2))
        assert (directory.newest().manifest, directory.newest().damaged) == (new, ())


@pytest.mark.parametrize("kills_after", range(4))
def test_a_choice_that_was_interrupted_changes_nothing_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills_after: int
) -> None:
    """However many renames of `make_newest` came about, a start finds what it would have found before, or what was
    chosen; and the same command completes it."""
    with opened(tmp_path) as directory:
        manifests = {epoch: committed(directory, epoch) for epoch in (1, 2, 3, 4)}
        failing(monkeypatch, "rename", after=kills_after)
        if kills_after < 3:
            with pytest.raises(OSError, match="rename"):
                directory.make_newest(1)
        else:
            directory.make_newest(1)
        monkeypatch.undo()
        assert directory.newest().manifest == manifests[1 if kills_after == 3 else 4]
        directory.make_newest(1)
        assert directory.newest().manifest == manifests[1]


# a disk that refuses


def failing(monkeypatch: pytest.MonkeyPatch, call: str, after: int = 0, *, done: bool = False) -> None:
    """The system call `call` raises EIO after it has worked `after` times; `done`: having done its work."""
    real: Callable[..., Any] = getattr(os, call)
    left = after

    def fake(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            return real(*args, **kwargs)
        if done:
            real(*args, **kwargs)
        raise OSError(5, f"Input/output error in {call}")

    monkeypatch.setattr(os, call, fake)


@pytest.mark.parametrize(
    ("call", "after", "done"),
    [
        ("open", 0, False),
        ("write", 0, False),
        ("fsync", 0, False),
        ("rename", 0, False),
        ("rename", 0, True),
        ("fsync", 1, True),
    ],
)
def test_a_failed_commit_can_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int, done: bool
) -> None:
    """Whichever step of writing a manifest fails, also one that did its work and failed all the same, after `withdraw`
    no start finds it, and nothing half-written is left."""
    with opened(tmp_path) as directory:
        old = committed(directory, 1)
        new = prepared(directory, 2)
        before = listing(directory)
        failing(monkeypatch, call, after, done=done)
        with pytest.raises(OSError, match="Input/output error"):
            directory.commit(new)
        monkeypatch.undo()
        assert listing(directory) - before <= {manifest_name(2)}
        directory.withdraw(2)
        assert listing(directory) == before
        assert (directory.newest().manifest, directory.highest()) == (old, 2)


def test_a_withdrawal_is_sure_or_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal whose directory could not be synced is a failure, and the next attempt takes the same care though the
    file is not to be seen any more."""
    path = tmp_path / "m"
    path.write_bytes(b"")
    failing(monkeypatch, "fsync")
    for _ in range(2):
        with pytest.raises(OSError, match="fsync"):
            remove_durably(path)
    monkeypatch.undo()
    remove_durably(path)
    assert not list(tmp_path.iterdir())


# numbers and retention


def test_highest_counts_every_file(tmp_path: Path) -> None:
    """The highest number comes from any file of an epoch, committed or not, half-written or not; others are no
    matter."""
    with opened(tmp_path) as directory:
        assert directory.highest() == 0
        committed(directory, 4)
        assert directory.highest() == 4
        for number, name in enumerate(
            [snapshot_name("count", 1, 5), manifest_name(6) + ".tmp", "e00000007.g2.x.snap.tmp"]
        ):
            (directory.epochs / name).touch()
            assert directory.highest() == 5 + number
        for name in ("e99.manifest", "x00000099.manifest", "e00000099.txt", "notes"):
            (directory.epochs / name).touch()
        assert directory.highest() == 7


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_retain_keeps_the_newest(tmp_path: Path, count: int) -> None:
    """The newest `count` epochs stay whole, and the newest one always; what aborted epochs before it left goes, what
    came after it stays."""
    with opened(tmp_path) as directory:
        for epoch in (1, 2, 4, 5):
            committed(directory, epoch)
        for epoch in (3, 6):  # an aborted one, and one in flight
            write_durably(directory.epochs / snapshot_name("count", 1, epoch), b"")
        (directory.epochs / "e00000003.g1.total.snap.tmp").touch()
        (directory.epochs / "notes.txt").touch()
        directory.retain(count, 5)
        kept = (1, 2, 4, 5)[-max(count, 1) :]
        wanted = {manifest_name(e) for e in kept} | {snapshot_name(s, 1, e) for e in kept for s in SHAPE}
        assert set(os.listdir(directory.epochs)) == wanted | {snapshot_name("count", 1, 6), "notes.txt"}
        newest = directory.newest().manifest
        assert newest is not None
        assert newest.epoch == 5


def test_damaged_epochs_do_not_count_for_retention(tmp_path: Path) -> None:
    """Of the retained epochs every one can be restored: a damaged one takes nobody's place."""
    with opened(tmp_path) as directory:
        for epoch in (1, 2, 3, 4, 5):
            committed(directory, epoch)
        for epoch in (3, 4):
            damage(directory.epochs / snapshot_name("count", 1, epoch), "short")
        directory.retain(3, 5)
        assert directory.store.committed() == [1, 2, 5]


def test_nothing_goes_when_nothing_is_whole(tmp_path: Path) -> None:
    """Without a whole epoch the retention touches nothing: a damaged one is better than none."""
    with opened(tmp_path) as directory:
        for epoch in (1, 2):
            committed(directory, epoch)
            damage(directory.epochs / snapshot_name("count", 1, epoch), "gone")
        before = listing(directory)
        directory.retain(1, 3)
        assert listing(directory) == before


def test_what_was_put_aside_goes_in_time(tmp_path: Path) -> None:
    """Of the damaged epochs the newest stays to be looked at, whole or not; the others, and what an operator
    discarded, go with the epochs that follow."""
    with opened(tmp_path) as directory:
        for epoch in (1, 2, 3, 4):
            committed(directory, epoch)
        directory.store.put_away([1, 2], ".damaged")
        directory.store.put_away([3], ".discarded")
        committed(directory, 5)
        directory.retain(1, 5)
        damaged = {manifest_name(2) + ".damaged", *(snapshot_name(s, 1, 2) for s in SHAPE)}
        assert listing(directory) == damaged | {manifest_name(5), *(snapshot_name(s, 1, 5) for s in SHAPE)}


def test_an_interrupted_retention_leaves_no_half_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the removal of old epochs stops, every manifest that is left has its snapshots; the next one goes on."""
    with opened(tmp_path) as directory:
        for after in range(7):
            for epoch in range(10 * after + 1, 10 * after + 4):
                committed(directory, epoch)
            newest = 10 * after + 3
            with monkeypatch.context() as patch:
                failing(patch, "unlink", after)
                with contextlib.suppress(OSError):
                    directory.retain(1, newest)
            assert all(isinstance(directory.store.examine(e), Manifest) for e in directory.store.committed())
            directory.retain(1, newest)
            assert directory.store.committed() == [newest]


# names


def test_a_kept_epoch_stays(tmp_path: Path) -> None:
    """A named epoch outlives the retention as long as one name is on it; a name moves; both survive a restart."""
    with opened(tmp_path) as directory:
        first = committed(directory, 1)
        for name in ("before-upgrade", "also.this"):
            directory.keep(name, 1)
        for epoch in (2, 3, 4):
            committed(directory, epoch)
    with opened(tmp_path) as directory:
        directory.retain(1, 4)
        assert directory.store.committed() == [1, 4]
        assert directory.store.examine(1) == first
        directory.keep("before-upgrade", 4)
        directory.retain(1, 5)
        assert directory.store.committed() == [1, 4]
        directory.forget("also.this")
        directory.retain(1, 5)
        assert directory.store.committed() == [4]
        assert directory.kept() == {"before-upgrade": 4}


@pytest.mark.parametrize("name", ["", "12", "a/b", ".hidden", "-x", "a b", "x" * 65, "ü", "a\n"])
def test_names_are_names(tmp_path: Path, name: str) -> None:
    """What could be an epoch's number, a path or a surprise on a terminal names no epoch."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
        with pytest.raises(StateError, match="cannot name an epoch"):
            directory.keep(name, 1)
        assert directory.kept() == {}


def test_names_point_somewhere(tmp_path: Path) -> None:
    """An epoch that is not committed or not whole cannot be kept, and a name that is not there cannot be forgotten."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
        damage(directory.epochs / snapshot_name("count", 1, committed(directory, 2).epoch), "short")
        for epoch in (2, 3):
            with pytest.raises(StateError, match=rf"epoch {epoch} cannot be kept as 'x'"):
                directory.keep("x", epoch)
        with pytest.raises(StateError, match="no epoch is kept as 'y'; there are none"):
            directory.forget("y")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"a": "x"}', b"\xff"])
def test_unreadable_names_keep_everything(tmp_path: Path, body: bytes) -> None:
    """If nobody can tell which epochs are kept, the retention removes none; the listing goes on."""
    with opened(tmp_path) as directory:
        for epoch in (1, 2):
            committed(directory, epoch)
        (directory.epochs / "kept.json").write_bytes(body)
        with pytest.raises(StateError, match=r"kept\.json"):
            directory.retain(1, 2)
        assert [row["epoch"] for row in directory.checkpoints(0.0)] == [2, 1]
        assert directory.newest().manifest is not None


# what is shown


def test_checkpoints_as_data(tmp_path: Path) -> None:
    """Every committed epoch, newest first, with its age, size, positions and names; the first whole one is live."""
    with opened(tmp_path) as directory:
        old = committed(directory, 1, at=100.0, seconds=0.5, positions={"count": 7})
        committed(directory, 2, at=200.0, finished=True)
        committed(directory, 3, at=300.0)
        for name in ("b", "a"):
            directory.keep(name, 1)
        damage(directory.epochs / snapshot_name("count", 1, 3), "short")
        rows = directory.checkpoints(310.0)
    assert [(r["epoch"], r["whole"], r["live"], r["age"], r["finished"]) for r in rows[1:]] == [
        (2, True, True, 110.0, True),
        (1, True, False, 210.0, False),
    ]
    assert (rows[0]["epoch"], rows[0]["whole"], rows[0]["live"]) == (3, False, False)
    assert "the manifest says" in rows[0]["reason"]
    bytes_ = sum(length for _, length, _ in old.parts.values()) + len(encode(old))
    shown = {key: rows[2][key] for key in ("at", "seconds", "bytes", "positions", "names")}
    assert shown == {"at": 100.0, "seconds": 0.5, "bytes": bytes_, "positions": {"count": 7}, "names": ["a", "b"]}


def test_size_counts_every_file(tmp_path: Path) -> None:
    """The size is the bytes of all files; those of the epochs at once, those of the stages after a while."""
    with opened(tmp_path) as directory:
        before = directory.size(0.0)
        assert before == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        (directory.epochs / "x").write_bytes(bytes(100))
        stage = tmp_path / "stages" / "consumer"
        stage.mkdir(parents=True)
        (stage / "y").write_bytes(bytes(1000))
        assert directory.size(1.0) == before + 100
        assert directory.size(state_size.STAGES_EVERY_S) == before + 1100


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A file that cannot be written whole leaves the one of that name as it was."""
    path = tmp_path / "f"
    write_durably(path, b"old")
    path.with_name("f.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


# beginning anew


def test_discard_removes_the_state_and_nothing_else(tmp_path: Path) -> None:
    """`--fresh` removes epochs and the stages' files; what else somebody put there stays."""
    with opened(tmp_path) as directory:
        committed(directory, 3)
        (tmp_path / "stages" / "consumer").mkdir(parents=True)
        (tmp_path / "stages" / "consumer" / "records.sqlite").touch()
        (tmp_path / "mine.txt").touch()
    StateDirectory.discard(tmp_path)
    assert set(os.listdir(tmp_path)) == {"lock", "mine.txt"}


def test_discarded_twice_is_discarded(tmp_path: Path) -> None:
    """An empty directory, none at all, and one that was discarded before have nothing to discard."""
    StateDirectory.discard(tmp_path / "none")
    StateDirectory.discard(tmp_path)
    with opened(tmp_path, "one"):
        pass
    StateDirectory.discard(tmp_path)
    StateDirectory.discard(tmp_path)
    with opened(tmp_path, "two") as directory:
        assert directory.highest() == 0


def test_discard_refuses_what_is_not_ours(tmp_path: Path) -> None:
    """A directory without our format file, or one that a daemon holds, keeps every file."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StateError, match="nothing was removed"):
        StateDirectory.discard(tmp_path)
    (tmp_path / "thesis.txt").unlink()
    with opened(tmp_path) as directory:
        committed(directory, 1)
        before = contents(tmp_path)
        with pytest.raises(StateError, match="in use"):
            StateDirectory.discard(tmp_path)
        assert contents(tmp_path) == before
