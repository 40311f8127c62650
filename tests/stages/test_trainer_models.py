"""The trainer's models: versions on the disk, changes by operators, the API. The law: kills change nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.errors import ExitCode, RpcError, StorageError
from streampiped.learn.estimators import equal
from streampiped.learn.npz import from_npz
from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.trainer import Trainer, TrainerOptions
from streampiped.wire.state import pack, unpack

ROWS = 40


def batch(number: int, *, shifted: bool = False) -> Batch:
    rng = np.random.default_rng(number)
    a, b = rng.normal(size=(2, ROWS))
    y = (50 - 9 * a + 4 * b if shifted else 50 + 3 * a - b) + rng.normal(size=ROWS) / 10
    return Batch.build({"a": a, "y": y, "b": b}, spans=(Span("s", number * ROWS, ROWS),))


class Life:
    """A trainer as its shell drives it: batches, barriers, changes behind them, and deaths. `restored` is what a new
    process would be given."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.options = options
        self.clock = 0.0
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.epoch = 0
        self.fed = 0
        self.kept: bytes | None = None
        self.kept_fed = 0
        self.changes: list[tuple[str, Mapping[str, Any]]] = []
        self.stage = self.born()

    def born(self) -> Trainer:
        def emit(event: str, /, **fields: Any) -> None:
            self.events.append((event, fields))

        context = StageContext("trainer", seed=5, pipeline_seed=7, directory=self.directory, emit=emit, now=self.now)
        return Trainer(TrainerOptions(**self.options), context)

    def now(self) -> float:
        return self.clock

    def feed(self, batches: int, *, shifted: bool = False) -> list[Batch]:
        out = [self.stage.process(batch(self.fed + n, shifted=shifted)) for n in range(batches)]
        self.fed += batches
        return out

    def commit(self, *, heard: bool = True, numbers: int = 1) -> int:
        """A barrier, committed; `heard`: the stage lives to be told. Some numbers are burned."""
        self.kept, self.kept_fed, self.changes = pack("t", self.stage.snapshot()), self.fed, []
        self.epoch += numbers
        if heard:
            self.stage.committed(self.epoch)
        return self.epoch

    def die(self) -> None:
        """A new process restores the last committed epoch, hears of it and applies its changes."""
        self.stage = self.born()
        self.stage.restore(unpack(self.kept, "t") if self.kept is not None else None)
        self.fed = self.kept_fed
        if self.epoch:
            self.stage.committed(self.epoch)
        for kind, params in self.changes:
            self.stage.change(kind, params)

    def plan(self, kind: str, **params: Any) -> dict[str, Any]:
        answer = self.stage.query("plan", {"kind": kind, "params": params})
        json.dumps(answer)
        return dict(answer)

    def change(self, kind: str, *, dies: bool = False, **params: Any) -> int:
        """As an operator has it: planned, recorded with an epoch, applied behind it; `dies` before it is applied."""
        planned = self.plan(kind, **params)
        assert planned["refused"] is None, planned
        epoch = self.commit(heard=not dies)
        self.changes = [(kind, planned["params"])]
        if dies:
            self.die()
        else:
            self.stage.change(kind, planned["params"])
        return epoch

    def ask(self, method: str, **params: Any) -> Any:
        return self.stage.api()[method](**params)

    def members(self) -> list[str]:
        return [row["name"] for row in self.ask("show")["members"]]

    def versions(self) -> list[tuple[int, tuple[str, ...]]]:
        return [(row["version"], tuple(row["reasons"])) for row in self.ask("history")["versions"]]

    def state(self) -> bytes:
        return pack("t", self.stage.snapshot())

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.directory / "models").iterdir())}


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


def taught(directory: Path, **options: Any) -> Life:
    """With a first version, epoch 1, and a champion that has learned."""
    life = Life(directory, **options)
    life.feed(20)
    life.commit()
    return life


# changes


DEEDS: dict[str, Callable[[Life], Any]] = {
    "promote": lambda life: life.change("promote", member="ridge_100"),
    "pin": lambda life: life.change("pin", member="current"),
    "unpin": lambda life: (life.change("pin", member="fast_mean"), life.change("unpin")),
    "rollback": lambda life: life.change("rollback", version=1),
    "rollback, pinned": lambda life: (life.change("pin", member="ridge"), life.change("rollback", version=1)),
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("deaths", [1, 3])
def test_a_change_is_repeated_by_a_restore(tmp_path: Path, deed: str, deaths: int) -> None:
    """Whoever dies behind a change and is restored to the epoch that records it goes on as if nobody had died."""
    calm, killed = taught(tmp_path / "a"), taught(tmp_path / "b")
    for life in (calm, killed):
        life.feed(5)
        DEEDS[deed](life)
    for _ in range(deaths):
        killed.feed(2)
        killed.die()
    ours, theirs = calm.feed(6), killed.feed(6)
    assert [o["prediction"].tobytes() for o in ours] == [o["prediction"].tobytes() for o in theirs]
    assert calm.state() == killed.state()
    assert calm.ask("history")["timeline"] == killed.ask("history")["timeline"]


@pytest.mark.parametrize("deed", ["promote", "rollback"])
def test_a_change_counts_once_whoever_dies_before_it(tmp_path: Path, deed: str) -> None:
    """A process that dies between the manifest and the change has it applied by its successor; the numbers of epochs,
    which are others in every run, are in no snapshot."""
    calm, killed = taught(tmp_path / "a"), Life(tmp_path / "b")
    killed.feed(20)
    killed.commit(numbers=7)
    wanted: dict[str, Any] = {"member": "ridge"} if deed == "promote" else {}
    for life, dies in ((calm, False), (killed, True)):
        life.feed(3)
        more = wanted or {"version": life.versions()[0][0]}
        life.change(deed, dies=dies, **more)
        life.feed(4)
    assert calm.state() == killed.state()


def test_promoted_member_is_served_until_another_is_better(life: Life) -> None:
    """From the change on its predictions go out; the test goes on, and a guess does not stay on a linear stream."""
    life.feed(20)
    life.commit()
    life.change("promote", member="fast_mean")
    assert life.ask("show")["champion"] != "fast_mean"  # what is served is the last committed
    life.commit()
    assert life.ask("predict", rows=[[0.0, 0.0]])["fallback"]
    life.feed(40)
    life.commit()
    assert not life.ask("predict", rows=[[0.0, 0.0]])["fallback"]
    reasons = [term["reason"] for term in life.ask("history")["timeline"]]
    assert "promoted" in reasons


def test_pinned_member_stays(life: Life) -> None:
    """However bad it is, until it is unpinned; meanwhile nobody is promoted."""
    life.feed(20)
    life.commit()
    life.change("pin", member="fast_mean")
    life.feed(60)
    life.commit()
    assert life.ask("history")["pinned"] == life.ask("show")["champion"] == "fast_mean"
    assert "pinned" in life.plan("promote", member="ridge")["refused"]
    life.change("unpin")
    life.feed(60)
    life.commit()
    assert life.ask("history")["pinned"] is None
    assert life.ask("show")["champion"] != "fast_mean"


def test_rollback_makes_the_model_what_it_was(tmp_path: Path) -> None:
    """What a version had learned is there again, bit for bit; position, history and counts go on."""
    life = taught(tmp_path)
    rows = [[0.5, -1.0], [2.0, 0.3]]
    before = life.ask("predict", rows=rows, version=1)
    life.feed(30, shifted=True)
    life.commit()
    assert life.ask("predict", rows=rows)["predictions"] != before["predictions"]
    life.change("rollback", version=1)
    life.commit()
    after = life.ask("predict", rows=rows)
    assert after["predictions"] == before["predictions"]
    assert life.ask("show")["rows"] == 50 * ROWS
    assert life.ask("history")["timeline"][-1]["reason"] == "rolled back"
    assert life.ask("history")["versions"][-1]["restored"] == 1


def test_pinned_member_stays_in_a_rollback(tmp_path: Path) -> None:
    """Who is pinned is served, whoever was the champion in the version that is gone back to; and the reverse."""
    life = taught(tmp_path)
    life.change("pin", member="fast_mean")
    life.commit()
    life.change("rollback", version=1)
    life.commit()
    assert life.ask("history")["pinned"] == "fast_mean"
    pinned = life.versions()[-1][0]
    life.change("unpin")
    life.change("rollback", version=pinned)
    life.commit()
    assert life.ask("history")["pinned"] is None


def test_loading_what_was_saved_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """A trainer whose model comes from a version's file learns on exactly as the one that wrote it."""
    life = taught(tmp_path)
    data = b""
    while (part := life.ask("saved", version=1, offset=len(data)))["bytes"] > len(data):
        data += part["data"]
    assert data == (tmp_path / "models" / "v00000001.npz").read_bytes()
    snapshot = unpack(life.kept or b"", "t")
    twin = Life(tmp_path / "twin")
    twin.stage.restore({**snapshot, "model": from_npz(data)["pool"]})
    twin.fed = life.fed
    ours, theirs = life.feed(20), twin.feed(20)
    assert [o["prediction"].tobytes() for o in ours] == [o["prediction"].tobytes() for o in theirs]
    assert life.state() == twin.state()


@pytest.mark.parametrize(
    ("kind", "params", "code", "words"),
    [
        ("promote", {"member": "zzz"}, ExitCode.NO_SUCH_STAGE, "no member 'zzz'; there are blend"),
        ("promote", {"member": "current"}, ExitCode.NO_SUCH_STAGE, "no member 'current'"),
        ("promote", {}, ExitCode.USAGE, "promote takes member, not member"),
        ("pin", {"member": "ridge", "x": 1}, ExitCode.USAGE, "not x"),
        ("unpin", {}, ExitCode.REFUSED, "no member is pinned"),
        ("rollback", {"version": 99}, ExitCode.NO_SUCH_STAGE, "no model of epoch 99 is kept; there are 1"),
        ("rollback", {"version": "1"}, ExitCode.USAGE, "should be a number"),
        ("frob", {}, ExitCode.USAGE, "a model knows promote, pin, unpin, rollback"),
    ],
)
def test_what_cannot_be_had_is_refused(
    tmp_path: Path, kind: str, params: dict[str, Any], code: int, words: str
) -> None:
    """In words for the operator and with the code of control.md, with nothing changed."""
    life = taught(tmp_path)
    before = life.state()
    planned = life.plan(kind, **params)
    assert (words in planned["refused"], planned["code"]) == (True, code)
    assert life.state() == before


def test_nothing_to_change_before_the_first_batch(life: Life) -> None:
    """A trainer without a model says so."""
    assert "no model yet" in life.plan("promote", member="ridge")["refused"]
    with pytest.raises(RpcError, match="no model yet"):
        life.ask("predict", rows=[])
    assert life.ask("history")["versions"] == []
    assert life.ask("info")["versions"] == []


def test_what_has_become_impossible_is_told_and_left(tmp_path: Path) -> None:
    """Two operators at once: the second change finds another state than it was planned for, and changes nothing."""
    life = taught(tmp_path)
    life.change("pin", member="ridge")
    before = life.state()
    life.stage.change("promote", {"member": "mean"})
    assert life.state() == before
    assert life.events[-1][0] == "change_left"


def test_a_file_that_went_between_plan_and_change_is_the_disks_fault(tmp_path: Path) -> None:
    """What the manifest records has to be done or nobody goes on; when the file is back it is done."""
    life = taught(tmp_path)
    planned = life.plan("rollback", version=1)["params"]
    path = tmp_path / "models" / "v00000001.npz"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(StorageError, match=r"v00000001\.npz is damaged"):
        life.stage.change("rollback", planned)
    path.write_bytes(data)
    life.stage.change("rollback", planned)


def test_a_planned_version_is_not_removed(tmp_path: Path) -> None:
    """Between plan and change other epochs come, and what they push out is still there to go back to; also for a
    process that dies in between, and ever after for whoever restores that epoch."""
    life = taught(tmp_path, retain_versions=1, version_rows=ROWS)
    planned = life.plan("rollback", version=1)["params"]
    for _ in range(2):
        life.feed(1)
        life.commit()
    life.feed(1)
    life.commit(heard=False)
    life.changes = [("rollback", planned)]
    life.die()
    life.feed(1)
    life.commit()
    for _ in range(3):
        life.feed(1)
        life.commit()
    assert {"v00000001.npz", f"v{life.epoch:08d}.npz"} == {name for name in life.files() if name.endswith(".npz")}


# versions


def test_versions_are_made_when_something_happened(tmp_path: Path) -> None:
    """Of many epochs those are versions in which the champion changed, a drift was found, an operator acted or enough
    rows have passed."""
    life = taught(tmp_path, version_rows=30 * ROWS)
    for _ in range(5):
        life.feed(1)
        life.commit()
    assert life.versions() == [(1, ("first",))]
    epoch = life.change("pin", member="ridge")
    life.commit()
    assert life.versions()[-1] == (epoch + 1, ("pin",))
    life.feed(30)
    epoch = life.commit()
    assert life.versions()[-1][0] == epoch
    assert "rows" in life.versions()[-1][1]


def test_a_version_is_completed_after_a_kill(tmp_path: Path) -> None:
    """Killed before, in the middle of and after its files were written, an epoch is one version with the same bytes."""
    calm = taught(tmp_path / "calm")
    wanted = calm.files()
    for name in (None, *wanted):
        killed = Life(tmp_path / str(name))
        killed.feed(20)
        killed.commit(heard=name is not None)
        if name is not None:
            path = tmp_path / name / "models" / name
            path.write_bytes(path.read_bytes()[:-3])
        killed.die()
        killed.ask("info")
        assert killed.files() == wanted, name


def test_damage_hurts_nobody(tmp_path: Path) -> None:
    """A damaged file is named to who asks for it; the stream, the other versions and the registry go on."""
    life = taught(tmp_path, version_rows=ROWS)
    life.feed(1)
    life.commit()
    (tmp_path / "models" / "v00000001.npz").write_bytes(b"rubbish")
    life.die()
    assert "v00000001.npz is damaged" in life.plan("rollback", version=1)["refused"]
    with pytest.raises(RpcError, match=r"v00000001\.npz is damaged"):
        life.ask("predict", rows=[[0.0, 0.0]], version=1)
    assert life.ask("predict", rows=[[0.0, 0.0]], version=2)["epoch"] == 2
    life.feed(1)
    life.commit()
    assert [version for version, _ in life.versions()] == [1, 2, 3]


def test_full_disk_makes_no_version_and_no_trouble(tmp_path: Path) -> None:
    """When the disk refuses, the epoch is told and left out, and a later one is the version."""
    life = Life(tmp_path)
    life.feed(20)
    (tmp_path / "models").write_bytes(b"in the way")
    life.commit()
    assert life.events[-1][0] == "version_left_out"
    assert life.ask("predict", rows=[[0.0, 0.0]])["epoch"] == 1
    told = len(life.events)
    life.commit()
    assert len(life.events) == told  # every epoch tries, and tells it once
    assert "models" in life.stage.query("summary", {})["versions_refused"]
    (tmp_path / "models").unlink()
    life.commit()
    assert "versions_refused" not in life.stage.query("summary", {})
    assert life.versions() == [(3, ("first",))]


# the API


def test_who_asks_before_an_error_is_known_is_told_no_bounds(tmp_path: Path) -> None:
    """None, as whatever is not known; from the first error on there are bounds."""
    life = Life(tmp_path)
    for row, known in ((0, False), (1, True)):
        columns = {name: np.array([float(row)]) for name in ("a", "b", "y")}
        life.stage.process(Batch.build(columns, spans=(Span("s", row, 1),)))
        life.commit()
        answer = life.ask("predict", rows=[[1.0, 2.0], [3.0, 4.0]])
        assert [answer[name] == [None, None] for name in ("low", "high")] == [not known] * 2
        assert all(isinstance(value, float) for value in answer["predictions"])


def test_what_is_served_is_the_last_committed(tmp_path: Path) -> None:
    """Learning goes on and nobody sees it before the next epoch; the age says how old the answer is."""
    life = taught(tmp_path)
    rows = [[1.0, 2.0]]
    first = life.ask("predict", rows=rows)
    assert (first["epoch"], first["version"], first["age_s"], first["fallback"]) == (1, 1, 0.0, False)
    assert first["low"][0] < first["predictions"][0] < first["high"][0]
    life.clock = 2.5
    life.feed(10, shifted=True)
    assert life.ask("predict", rows=rows) == {**first, "age_s": 2.5}
    life.commit()
    assert life.ask("predict", rows=rows)["predictions"] != first["predictions"]
    assert life.ask("predict", rows=rows, version=1)["predictions"] == first["predictions"]


def test_asking_changes_nothing(tmp_path: Path) -> None:
    """Whatever is asked, state and later predictions are those of a trainer that nobody asked."""
    asked, alone = taught(tmp_path / "a"), taught(tmp_path / "b")
    for _ in range(3):
        for method in ("info", "history", "show", "export", "saved"):
            asked.ask(method)
        asked.ask("predict", rows=[[0.1, 0.2]])
        asked.ask("score", rows=[[0.1, 0.2]], targets=[50.0], version=1)
        asked.plan("rollback", version=1)
        ours, theirs = asked.feed(2), alone.feed(2)
        assert [o["prediction"].tobytes() for o in ours] == [o["prediction"].tobytes() for o in theirs]
        asked.commit()
        alone.commit()
    assert asked.state() == alone.state()


def test_old_versions_answer_exactly(tmp_path: Path) -> None:
    """A version that is no longer in memory answers from its file what it answered when it was served, also to a
    successor of the process."""
    life = taught(tmp_path, retain_versions=5, version_rows=2 * ROWS)
    rows = [[0.3, -0.7]]
    told = {1: life.ask("predict", rows=rows)["predictions"]}
    for _ in range(4):
        life.feed(2)
        epoch = life.commit()
        told[epoch] = life.ask("predict", rows=rows)["predictions"]
    life.die()
    for epoch, predictions in told.items():
        assert life.ask("predict", rows=rows, version=epoch)["predictions"] == predictions


def test_saved_is_portable(tmp_path: Path) -> None:
    """A model comes in parts that fit into a message, and as a whole it is what the trainer holds."""
    life = taught(tmp_path)
    answer = life.ask("saved")
    state = from_npz(answer["data"])
    assert answer["bytes"] == len(answer["data"])
    assert state["features"] == ["a", "b"]
    assert equal(state["pool"], unpack(life.kept or b"", "t")["model"])
