"""The state directory in an operator's hands: `streampiped restore` and `fsck`; and the thread that commits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streampiped import disk as disk_module
from streampiped.core.epoch_commands import Part, WriteManifest
from streampiped.disk import Disk
from streampiped.errors import ExitCode, StateError
from streampiped.runtime.dead_letters import FILE, DeadLetters, skips
from streampiped.runtime.dead_letters_schema import APPLICATION_ID
from streampiped.runtime.snapshots import Manifest, StateDirectory, manifest_name, snapshot_name
from streampiped.runtime.state_check import Remedy, look_over, mend
from streampiped.sinks.base import Sink
from streampiped.sinks.jsonl import JsonlSink, JsonlSinkOptions
from streampiped.sinks.parquet import ParquetSink
from streampiped.sinks.parquet_options import ParquetOptions
from streampiped.sinks.sqlite import SqliteOptions, SqliteSink
from streampiped.state_commands import fsck, perform, restore
from streampiped.topology import Checkpoint, Paths, Plan, StageSpec
from streampiped.wire.letters import pack
from streampiped.wire.messages import Guilty
from support.command_line import typed
from support.config_files import CHAIN, written
from support.state_dirs import SHAPE, committed, contents, listing, opened, prepared
from support.streams import Events, numbered


def plan_for(root: Path, **more: Any) -> Plan:
    """The plan whose epochs `support.state_dirs` makes; `more` goes into the sink's spec."""
    count = StageSpec("count", SHAPE["count"], "source")
    total = StageSpec(**{"name": "total", "klass": SHAPE["total"], "role": "sink", "inputs": ("count",), **more})
    paths = Paths(str(root), str(root / "run"), str(root / "log"))
    return Plan("p", 0, "streampipe.toml", paths, (count, total), checkpoint=Checkpoint(retain_epochs=2))


# the thread that commits


class Refusing(StateDirectory):
    """A disk that takes no manifest, but lets it be seen, and that refuses `refusals` removals."""

    refusals = 0
    removals = 0

    def commit(self, manifest: Manifest) -> None:
        super().commit(manifest)
        raise OSError(5, "Input/output error")

    def withdraw(self, epoch: int) -> None:
        self.removals += 1
        if self.removals <= self.refusals:
            raise OSError(30, "Read-only file system")
        super().withdraw(epoch)


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "WITHDRAW_BACKOFF_FIRST_S", 0.001)


def command_of(manifest: Manifest) -> WriteManifest:
    parts = tuple(Part(s, *part, position=manifest.positions.get(s)) for s, part in manifest.parts.items())
    return WriteManifest(
        manifest.generation, manifest.epoch, parts, manifest.finished, manifest.changes, manifest.seconds or 0.0
    )


def test_what_is_committed_is_what_was_said(tmp_path: Path) -> None:
    """A commit writes parts, positions, changes and times, and which sources and sinks can go back; a restore of it
    knows the snapshots and repeats the changes."""
    state = StateDirectory(tmp_path, "p")
    change = {"stage": "total", "verb": "promote"}

    async def story() -> None:
        disk = Disk(plan_for(tmp_path, retractable=False), state, None)
        wanted = replace(prepared(state, 1), positions={"count": 9}, changes=(change,), seconds=0.25)
        before = time.time()
        await disk.commit(command_of(wanted))
        found = state.newest().manifest
        assert found is not None
        assert (found.parts, found.shape, found.positions, found.changes) == (
            wanted.parts,
            SHAPE,
            {"count": 9},
            (change,),
        )
        assert (found.seconds, found.unretractable) == (0.25, ["total"])
        assert before <= (found.at or 0.0) <= time.time()
        assert disk.snapshot_of("total", 1) == wanted.parts["total"][0]
        disk.close()

    asyncio.run(story())


def test_the_disk_shows_and_keeps(tmp_path: Path) -> None:
    """Listing, keeping and forgetting go through the thread that removes, in order, so that nothing is shown that is
    about to go; the size is known after a retention."""
    state = StateDirectory(tmp_path, "p")

    async def story() -> None:
        disk = Disk(plan_for(tmp_path), state, None)
        assert disk.state_bytes is None
        for epoch in (1, 2, 3, 4):
            await disk.commit(command_of(prepared(state, epoch)))
            if epoch == 1:
                await disk.keep("first", 1)
            disk.retain(epoch)
        rows = await disk.checkpoints()
        assert [(row["epoch"], row["names"]) for row in rows] == [(4, []), (3, []), (1, ["first"])]
        assert disk.state_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        await disk.forget("first")
        disk.retain(4)
        assert [row["epoch"] for row in await disk.checkpoints()] == [4, 3]
        assert disk.trouble is None
        disk.close()

    asyncio.run(story())


@pytest.mark.usefixtures("quick_backoff")
def test_an_epoch_is_aborted_when_its_manifest_is_gone_for_certain(tmp_path: Path) -> None:
    """A commit that fails with its manifest in sight is told as failed only once no later start can find it; until then
    the trouble is said, afterwards it is not."""
    state = Refusing(tmp_path, "p")
    state.refusals = 3
    seen: list[str | None] = []

    class Watched(Disk):
        async def do(self, function: Any, *args: Any) -> Any:
            seen.append(self.trouble)
            return await super().do(function, *args)

    async def story() -> None:
        disk = Watched(plan_for(tmp_path), state, None)
        with pytest.raises(OSError, match="Input/output error"):
            await disk.commit(command_of(prepared(state, 1)))
        assert disk.trouble is None
        assert state.newest().manifest is None
        disk.close()

    asyncio.run(story())
    assert state.removals == 4
    assert seen[:2] == [None, None]
    assert all("epoch 1" in str(text) and "Read-only" in str(text) for text in seen[2:])
    assert len(seen) == 5


@pytest.mark.usefixtures("quick_backoff")
def test_leaving_does_not_wait_for_a_broken_disk(tmp_path: Path) -> None:
    """When everybody leaves while a manifest can be neither written nor removed, the wait for it ends, as a failure."""
    state = Refusing(tmp_path, "p")
    state.refusals = 1 << 30

    async def story() -> None:
        disk = Disk(plan_for(tmp_path), state, None)
        commit = asyncio.ensure_future(disk.commit(command_of(prepared(state, 1))))
        while disk.trouble is None:
            await asyncio.wait([commit], timeout=0.001)
        disk.give_up()
        with pytest.raises(OSError, match="Input/output error"):
            await commit
        disk.close()

    asyncio.run(story())


def test_names_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    """A retention that may not remove anything says so, until it may again."""
    state = StateDirectory(tmp_path, "p")

    async def story() -> None:
        disk = Disk(plan_for(tmp_path), state, None)
        (state.epochs / "kept.json").write_bytes(b"{")
        disk.retain(1)
        await disk.checkpoints()
        assert "kept.json" in str(disk.trouble)
        (state.epochs / "kept.json").unlink()
        disk.retain(1)
        await disk.checkpoints()
        assert disk.trouble is None
        disk.close()

    asyncio.run(story())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_costs_an_epoch_and_nothing_else(small_disk: Path) -> None:
    """On a disk without a byte left a commit fails, leaves nothing, and the epoch before is found; with room again the
    next number goes through."""
    with opened(small_disk) as state:
        old = committed(state, 1)
        second, third = prepared(state, 2), prepared(state, 3)
        fill = small_disk / "fill"
        with contextlib.suppress(OSError), open(fill, "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with pytest.raises(OSError, match="No space left"):
            state.commit(second)
        state.withdraw(2)
        assert not {name for name in listing(state) if "manifest" in name} - {manifest_name(1)}
        assert state.newest().manifest == old
        fill.unlink()
        state.commit(third)
        assert state.newest().manifest == third


def test_attempts_on_a_full_disk_do_not_fill_it(tmp_path: Path) -> None:
    """However often an epoch is aborted, before the first commit and after it, only the newest attempt's snapshots are
    there, which keep its number from being used again; the committed ones stay."""
    state = StateDirectory(tmp_path, "p")

    async def story() -> None:
        disk = Disk(plan_for(tmp_path), state, None)

        async def aborted(*epochs: int) -> set[str]:
            for epoch in epochs:
                prepared(state, epoch)
                disk.retain(epoch)
            await disk.checkpoints()
            return listing(state)

        assert await aborted(1, 2, 3) == {snapshot_name(stage, 1, 3) for stage in SHAPE}
        await disk.commit(command_of(prepared(state, 4)))
        left = {snapshot_name(stage, 1, epoch) for stage in SHAPE for epoch in (4, 9)}
        assert await aborted(*range(5, 10)) == left | {manifest_name(4)}
        assert state.highest() == 9
        disk.close()

    asyncio.run(story())


# restore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state directory with epochs 1 to 4; 2 is kept as `good`."""
    with opened(tmp_path / "state") as state:
        for epoch in (1, 2, 3, 4):
            committed(state, epoch, positions={"count": 100 * epoch}, at=0.0)
        state.keep("good", 2)
    return tmp_path / "state"


@pytest.mark.parametrize("wanted", ["2", "good"])
def test_restore_of_a_number_and_of_a_name(root: Path, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`restore` says what it discards, with ages and positions, and what the sinks will do; then a start goes on from
    that epoch, and the name is still there."""
    assert restore(plan_for(root), wanted, sure=True) == ExitCode.OK
    out = capsys.readouterr().out
    assert "epoch 2 is whole, count at record 200" in out
    assert "epoch 4, " in out
    assert "d old, count at record 400" in out
    assert "every sink takes back what it has shown of later epochs" in out
    with opened(root) as state:
        found = state.newest().manifest
        assert found is not None
        assert found.epoch == 2
        assert (state.highest(), state.kept()) == (4, {"good": 2})
        assert look_over(state) == []


def test_restore_of_the_newest_does_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is newer nothing is discarded and nothing is asked."""
    before = contents(root)
    assert restore(plan_for(root), "4", sure=False) == ExitCode.OK
    assert "nothing to do" in capsys.readouterr().out
    assert contents(root) == before


def test_restore_asks_first(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal to ask at and without --yes nothing is done; on one, only a yes does it."""
    before = contents(root)
    with open(os.devnull) as nowhere:
        monkeypatch.setattr(sys, "stdin", nowhere)
        assert restore(plan_for(root), "3", sure=False) == ExitCode.USAGE
    assert "say --yes" in capsys.readouterr().err
    ours, theirs = pty.openpty()
    with open(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        for answer, code in (b"n\n", ExitCode.FAILED), (b"\n", ExitCode.FAILED), (b"y\n", ExitCode.OK):
            assert contents(root) == before
            os.write(ours, answer)
            assert restore(plan_for(root), "3", sure=False) == code
            assert "discard 1 epoch? [y/N]" in capsys.readouterr().out
    os.close(ours)
    with opened(root) as state:
        assert state.store.committed() == [1, 2, 3]


@pytest.mark.parametrize("wanted", ["5", "nobody", "", "-1"])
def test_restore_of_what_is_not_there(root: Path, wanted: str) -> None:
    """An epoch or name that is not there is refused with those that are, and nothing changes."""
    before = contents(root)
    with pytest.raises(StateError, match=r"there are 1, 2, 3, 4; kept by name: good \(epoch 2\)"):
        restore(plan_for(root), wanted, sure=True)
    assert contents(root) == before


def test_restore_of_a_damaged_epoch(root: Path) -> None:
    """An epoch of which one byte is wrong is refused, and nothing changes."""
    path = root / "epochs" / snapshot_name("total", 1, 2)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = contents(root)
    with pytest.raises(StateError, match=r"epoch 2 cannot be restored: .*checksum"):
        restore(plan_for(root), "2", sure=True)
    assert contents(root) == before


def test_restore_past_damage_that_stops_the_start(root: Path) -> None:
    """Where a damaged newest epoch and a sink that cannot go back forbid the start, `restore` is the way: afterwards
    the start finds what was chosen."""
    with opened(root) as state:
        for epoch in (5, 6):
            committed(state, epoch, retractable={"total": False})
        (state.epochs / manifest_name(6)).write_bytes(b"")
        with pytest.raises(StateError, match="streampiped restore"):
            state.newest()
    assert restore(plan_for(root), "5", sure=True) == ExitCode.OK
    with opened(root) as state:
        found = state.newest().manifest
        assert found is not None
        assert found.epoch == 5


def test_restore_of_other_stages(root: Path) -> None:
    """Epochs of other stages than the configuration's are refused: the start would refuse them too."""
    with pytest.raises(StateError, match="the configuration has"):
        restore(plan_for(root, klass="x:Y"), "2", sure=True)


def test_restore_says_what_cannot_go_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sink that cannot take back is named before anything is done."""
    assert restore(plan_for(root, retractable=False), "2", sure=True) == ExitCode.OK
    assert "NOT EXACT: total: cannot take back" in capsys.readouterr().out


CONSUMER = "streampiped.stages.consumer:Consumer"


def consumed(root: Path, sink: dict[str, Any], epochs: int, also: int = 1) -> Plan:
    """A pipeline whose sink is the consumer, with `epochs` epochs of 1000 rows in its store; in the directory are the
    last and `also`."""
    plan = plan_for(root, klass=CONSUMER, options={"sink": sink})
    Path(root, "stages", "total").mkdir(parents=True)
    made = sink_of(plan, sink, Events())
    made.rollback(None)
    with opened(root) as state:
        for epoch in range(1, epochs + 1):
            made.write(numbered(1000 * epoch, 1000))
            made.prepare(epoch)
            made.commit(epoch)
            if epoch in (also, epochs):
                committed(state, epoch, shape={"count": SHAPE["count"], "total": CONSUMER})
    made.close()
    return plan


@pytest.mark.parametrize(
    ("sink", "epochs", "said"),
    [
        ({"type": "sqlite"}, 3, None),
        ({"type": "sqlite", "retain": 0}, 8, None),
        ({"type": "sqlite", "retain": 500}, 12, "the start will refuse"),
        ({"type": "jsonl"}, 3, None),
        ({"type": "jsonl"}, 70, None),
        ({"type": "parquet"}, 3, None),
        ({"type": "parquet"}, 70, None),
        ({"type": "parquet", "merge": True}, 70, "the start will refuse"),
    ],
)
def test_restore_says_where_a_store_is_not_exact(
    tmp_path: Path, sink: dict[str, Any], epochs: int, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the store has trimmed rows or forgotten the mark of the epoch, that is said before anything is done; where
    it can go back exactly nothing is."""
    plan = consumed(tmp_path / "state", sink, epochs)
    assert restore(plan, "1", sure=True) == ExitCode.OK
    out = capsys.readouterr().out
    assert ("NOT EXACT" in out) == (said is not None), out
    assert (said or "") in out


def sink_of(plan: Plan, sink: dict[str, Any], emit: Events) -> Sink:
    """The store of `consumed`, as the next start has it."""
    directory = Path(plan.paths.state, "stages", "total")
    options = {key: value for key, value in sink.items() if key != "type"}
    match sink["type"]:
        case "sqlite":
            return SqliteSink(SqliteOptions(**options), directory, emit, plan.checkpoint.retain_epochs)
        case "jsonl":
            return JsonlSink(JsonlSinkOptions(**options), directory, emit)
    return ParquetSink(ParquetOptions(**options), directory, emit, plan.checkpoint.retain_epochs)


def cut(path: Path) -> None:
    os.truncate(path, 100)


def forget_all(side: Path) -> None:
    """As a side file that was saved before the first epoch has it."""
    known = json.loads(side.read_text())
    length = next(key for key in known if key.startswith("visible_") and key != "visible_epoch")
    side.write_text(json.dumps({**known, "epochs": {}, "newest_epoch": None, "visible_epoch": None, length: 0}))


def forget_newer(store: Path) -> None:
    """As a copy of the store that was made in epoch 1 has it."""
    with contextlib.closing(sqlite3.connect(store)) as db, db:
        db.execute("DELETE FROM epochs WHERE epoch > 1")
        db.execute("UPDATE reach SET newest = 1")


def removed(first: int, end: int) -> Callable[[Path], None]:
    """These of the files, one of each epoch."""

    def remove(store: Path) -> None:
        for path in sorted((store / "data").iterdir())[first:end]:
            path.unlink()

    return remove


def beside(store: Path) -> Path:
    return store.with_name(f"{store.name}.epochs")


def untouched(store: Path) -> None:
    pass


REFUSES, INCOMPLETE, EXACT = "the start will refuse", "may lack older rows", ""


@pytest.mark.parametrize(
    ("sink", "harm", "outcome"),
    [
        ("parquet", untouched, EXACT),
        ("parquet", removed(4, 5), EXACT),  # rows that are taken back
        ("parquet", removed(0, 1), EXACT),  # from the beginning: for room, and no epoch that is kept needs them
        ("parquet", removed(1, 2), REFUSES),
        ("parquet", removed(0, 2), REFUSES),
        ("parquet", removed(0, 8), REFUSES),
        ("parquet", lambda store: shutil.rmtree(store / "data"), REFUSES),
        ("parquet", lambda store: forget_all(store / "epochs.json"), INCOMPLETE),
        ("parquet", lambda store: (store / "epochs.json").unlink(), REFUSES),
        ("parquet", lambda store: cut(store / "epochs.json"), REFUSES),
        ("jsonl", untouched, EXACT),
        ("jsonl", cut, REFUSES),
        ("jsonl", lambda store: forget_all(beside(store)), INCOMPLETE),
        ("jsonl", lambda store: beside(store).unlink(), REFUSES),
        ("jsonl", lambda store: cut(beside(store)), REFUSES),
        ("sqlite", untouched, EXACT),
        ("sqlite", forget_newer, INCOMPLETE),
    ],
)
def test_what_restore_says_of_a_store_is_what_the_next_start_does(
    tmp_path: Path, sink: str, harm: Callable[[Path], None], outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever was done to marks and rows: the start refuses, goes on with what it has, or has exactly the rows of the
    epoch, as restore has said; and that has only looked."""
    plan = consumed(tmp_path / "state", {"type": sink}, 8, also=2)
    store = Path(plan.paths.state, "stages", "total", f"records.{sink}")
    harm(store)
    before = contents(store.parent)
    assert restore(plan, "2", sure=True) == ExitCode.OK
    assert contents(store.parent) == before
    out = capsys.readouterr().out
    assert ("NOT EXACT" in out) == bool(outcome), out
    assert outcome in out
    emit = Events()
    again = sink_of(plan, {"type": sink}, emit)
    with pytest.raises(StateError) if outcome == REFUSES else contextlib.nullcontext():
        again.rollback(2)
    assert ("sink_incomplete" in emit.names()) == (outcome == INCOMPLETE)
    again.close()


@pytest.mark.parametrize("file", [None, b"no database" * 1000])
def test_restore_with_a_store_that_is_lost(
    tmp_path: Path, file: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that is not there or cannot be read is said, and is no reason not to restore."""
    plan = consumed(tmp_path / "state", {"type": "sqlite"}, 2)
    for path in (tmp_path / "state" / "stages" / "total").iterdir():
        path.unlink()
    if file is not None:
        (tmp_path / "state" / "stages" / "total" / "records.sqlite").write_bytes(file)
    assert restore(plan, "1", sure=True) == ExitCode.OK
    out = capsys.readouterr().out
    assert ("begins empty" if file is None else "is unknown: file is not a database") in out


# fsck


def test_a_healthy_directory_is_clean(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory with kept and discarded epochs has no finding, and looking changes nothing."""
    with opened(root) as state:
        state.make_newest(3)
    before = contents(root)
    assert fsck(root, "p", repair=False, as_json=False) == ExitCode.OK
    assert capsys.readouterr().out == f"{root}: 3 committed epochs; clean\n"
    assert contents(root) == before


def test_every_kind_of_harm_is_found_and_mended(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leftovers, damaged epochs, dangling names and a snapshot of another class are each found with file and remedy;
    `--repair` mends them, keeps every whole epoch, and the next look is clean."""
    epochs = root / "epochs"
    (epochs / manifest_name(3)).write_bytes(b"{")
    (epochs / snapshot_name("count", 1, 9)).write_bytes(b"")
    (epochs / (manifest_name(8) + ".tmp")).write_bytes(b"")
    (root / "format.tmp").write_bytes(b"")
    (epochs / "kept.json").write_text('{"good": 2, "bad": 77, "harmed": 5}')
    (root / "stopped.tmp").write_bytes(b"")
    (epochs / "notes.txt").write_text("mine")
    with opened(root) as state:
        wrong = prepared(state, 5)
        committed(state, 5, shape={**SHAPE, "total": "c:C"})
        state.commit(Manifest(5, 1, False, {**wrong.parts}, {**SHAPE, "total": "b:B"}))
        committed(state, 6)
        parts = committed(state, 7).parts
        state.commit(Manifest(7, 1, False, parts, {**SHAPE, "total": "c:C"}))
    before = contents(root)
    assert fsck(root, None, repair=False, as_json=True) == ExitCode.FAILED
    found = json.loads(capsys.readouterr().out)
    assert contents(root) == before
    assert {(Path(f["file"]).name, f["remedy"]) for f in found} == {
        (manifest_name(3), "put_aside"),
        (snapshot_name("total", 1, 5), "put_aside"),
        (snapshot_name("total", 1, 7), "put_aside"),
        (snapshot_name("count", 1, 9), "remove"),
        (manifest_name(8) + ".tmp", "remove"),
        ("format.tmp", "remove"),
        ("stopped.tmp", "remove"),
        ("kept.json", "forget"),
    }
    assert not any(f["repaired"] for f in found)
    assert fsck(root, None, repair=True, as_json=False) == ExitCode.FAILED
    out = capsys.readouterr().out
    assert "'bad' names epoch 77, which is not there\n  repaired: forget the name" in out
    assert "'harmed' names epoch 5, which is not there\n  repaired: forget the name" in out
    assert "snapshot was written by b:B, expected c:C" in out
    assert out.endswith(f"{root}: 4 committed epochs; clean\n")
    with opened(root) as state:
        assert look_over(state) == []
        assert (state.store.committed(), state.kept()) == ([1, 2, 4, 6], {"good": 2})
        assert state.highest() == 9
        assert "notes.txt" in listing(state)


def test_repair_does_not_choose_for_the_operator(root: Path) -> None:
    """A damaged newest epoch stays where the start would not pass it over, and so do damaged ones without a whole one:
    which epoch to restore is nothing that mending decides."""
    with opened(root) as state:
        committed(state, 5, retractable={"total": False})
        (state.epochs / manifest_name(committed(state, 6).epoch)).write_bytes(b"")
        findings = look_over(state)
        assert [(f.epoch, f.remedy) for f in findings] == [(6, Remedy.RESTORE)]
        mend(state, findings)
        with pytest.raises(StateError, match="streampiped restore"):
            state.newest()
        for epoch in state.store.committed():
            (state.epochs / manifest_name(epoch)).write_bytes(b"")
        findings = look_over(state)
        assert {f.remedy for f in findings} == {Remedy.OPERATOR}
        mend(state, findings)
        assert state.store.committed() == [1, 2, 3, 4, 5, 6]


def test_names_that_cannot_be_read_are_a_finding(root: Path) -> None:
    """A file of names that nobody understands holds up every retention; mending puts it aside."""
    with opened(root) as state:
        (state.epochs / "kept.json").write_bytes(b"[")
        findings = look_over(state)
        assert [f.remedy for f in findings] == [Remedy.RENAME]
        mend(state, findings)
        assert state.kept() == {}
        assert "kept.json.damaged" in listing(state)
        assert look_over(state) == []


def test_damaged_dead_letters_are_salvaged(root: Path) -> None:
    """Of a list of dead letters that SQLite finds wrong everything that can be read goes into a new one; the old one
    stays beside it."""
    path = root / FILE
    place = {"generation": 1, "via": "", "source": "s", "attempt": 0, "manner": "exception"}
    record = pack({"x": "y" * 600})
    rows = [Guilty(**place, position=n, reason="r" * 900, traceback="", record=record) for n in range(200)]
    with contextlib.closing(DeadLetters(root)) as letters:
        letters.add("count", rows, 0.0)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(data)
    with opened(root) as state:
        (finding,) = look_over(state)
        assert (finding.file, finding.remedy) == (path, Remedy.SALVAGE)
        assert "letters and 200 places to leave out can be read" in finding.problem
        mend(state, [finding])
        assert path.with_name(FILE + ".damaged").read_bytes() == data
        assert look_over(state) == []
    with contextlib.closing(DeadLetters(root)) as letters:
        assert 150 <= letters.counts()["dead"] < 200
    assert skips(root, "count") == {("", "s", 0): list(range(200))}


def test_dead_letters_that_are_no_database_are_the_operators(root: Path) -> None:
    """What nothing can be read of is told and left alone; so is a file of stopped stages that is no text."""
    (root / FILE).write_bytes(b"no database" * 1000)
    (root / "stopped").write_bytes(b"\xff")
    before = contents(root)
    with opened(root) as state:
        findings = look_over(state)
        assert [(f.file.name, f.remedy) for f in findings] == [(FILE, Remedy.OPERATOR), ("stopped", Remedy.OPERATOR)]
        mend(state, findings)
    assert contents(root) == before


@pytest.mark.parametrize(("version", "problem"), [(1, None), (2, None), (3, "and version 3, dead letters have")])
def test_versions_of_dead_letters(root: Path, version: int, problem: str | None) -> None:
    """A file of this version, or of the one before, which the next start takes over, is no finding; another one is."""
    with contextlib.closing(sqlite3.connect(root / "dead_letters.sqlite")) as db:
        db.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}")
    with opened(root) as state:
        findings = look_over(state)
    assert [finding.remedy for finding in findings] == ([Remedy.OPERATOR] if problem else [])
    assert all(problem in finding.problem for finding in findings if problem)


# the command line


def test_tools_as_an_operator_types_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`restore` and `fsck` take the configuration and answer with the exit codes of the page: done, findings, in use by
    a daemon, not a state directory, wrong usage."""
    config = written(tmp_path, CHAIN)
    root = tmp_path / "state"
    shape = {
        "numbers": "streampiped.stages.base:SourceStage",
        "scale": "streampiped.stages.base:Stage",
        "store": "streampiped.stages.base:SinkStage",
    }
    with opened(root, "streampipe") as state:
        for epoch in (1, 2):
            committed(state, epoch, shape=shape)
        busy = typed(capfd, "restore", "--config", config, "--state-dir", root, "--from", "1", "--yes")
        assert (busy.returncode, busy.stdout) == (ExitCode.FAILED, "")
        assert busy.stderr == f"streampiped: {root}: in use by another streampiped\n"
    (root / "epochs" / snapshot_name("scale", 1, 3)).touch()
    command = [sys.executable, "-m", "streampiped", "fsck", "--state-dir", str(root)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, "2 committed epochs; 1 finding\n" in found.stdout) == (ExitCode.FAILED, True), found
    done = typed(capfd, "restore", "--config", config, "--state-dir", root, "--from", "1", "--yes")
    assert (done.returncode, done.stderr) == (ExitCode.OK, ""), done
    assert done.stdout.endswith("done: the next start restores epoch 1\n")
    assert typed(capfd, "fsck", "--config", config, "--state-dir", root, "--repair").returncode == ExitCode.FAILED
    assert typed(capfd, "fsck", "--config", config, "--state-dir", root).returncode == ExitCode.OK
    assert typed(capfd, "restore", "--config", config).returncode == ExitCode.USAGE
    (tmp_path / "empty").mkdir()
    nothing = typed(capfd, "fsck", "--state-dir", tmp_path / "empty")
    assert (nothing.returncode, nothing.stderr.count("\n")) == (ExitCode.CONFIG, 1)
    assert not list((tmp_path / "empty").iterdir())


def test_another_pipelines_state_is_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither tool touches the state of another pipeline, not even its lock: one line, exit 78."""
    (root / "lock").unlink()
    before = contents(root)
    other = {**plan_for(root).to_dict(), "pipeline": "other"}
    assert perform({"verb": "restore", "plan": other, "wanted": "2", "yes": True}) == ExitCode.CONFIG
    task = {"verb": "fsck", "state_dir": str(root), "pipeline": "other", "repair": True, "json": False}
    assert perform(task) == ExitCode.CONFIG
    assert capsys.readouterr().err.count("expected format 1 of pipeline 'other'") == 2
    assert contents(root) == before


def interrupted(root: Path) -> Path:
    """A list of 300 letters whose writer was killed within a transaction, after the file was written into."""
    letters = DeadLetters(root)
    words = {"manner": "exception", "reason": "r" * 50, "traceback": "t" * 3000, "record": b"\x80"}
    letters.add("count", [Guilty(1, "", "s", n, 0, **words) for n in range(300)], now=1.0)
    letters.close()
    pid = os.fork()
    if not pid:
        db = sqlite3.connect(root / FILE, isolation_level=None)
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE letters SET status = 'dropped', reason = reason || 'x'")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (root / f"{FILE}-journal").stat().st_size
    return root / FILE


def test_fsck_plays_a_journal_back_into_a_copy(tmp_path: Path) -> None:
    """A list whose writer was killed within a commit is whole for fsck, as it is for a start, and not touched."""
    state = StateDirectory(tmp_path / "state", "p")
    interrupted(state.root)
    before = {path: path.read_bytes() for path in state.root.glob(f"{FILE}*")}
    assert len(before) == 2
    assert look_over(state) == []
    assert {path: path.read_bytes() for path in state.root.glob(f"{FILE}*")} == before
    state.close()


@pytest.mark.parametrize("hot", [False, True])
def test_a_mended_list_belongs_to_whom_the_old_one_belonged(tmp_path: Path, hot: bool) -> None:
    """Owner and mode stay, whoever repairs; no journal of the damaged list is left for the new one."""
    state = StateDirectory(tmp_path / "state", "p")
    path = interrupted(state.root)
    if not hot:
        letters = DeadLetters(state.root)
        assert letters.counts()["dead"] == 300
        letters.close()
    path.chmod(0o640)
    owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    whole = path.read_bytes()
    for page in range(len(whole) // 4096 - 1, 1, -1):  # the first one from the end that no journal brings back
        path.write_bytes(whole[: page * 4096] + b"\xff" * 4096 + whole[(page + 1) * 4096 :])
        if findings := look_over(state):
            break
    assert [finding.remedy for finding in findings] == [Remedy.SALVAGE]
    mend(state, findings)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (*owner, 0o640)
    assert look_over(state) == []
    assert not Path(f"{path}-journal").exists()
    state.close()
