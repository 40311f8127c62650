"""stages/trainer.py with a model of River as a member: state, restore, the registry, and refusals at construction."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.errors import OptionError, StateError
from streampiped.learn import river_models
from streampiped.learn.estimators import equal
from streampiped.learn.export.class_convert import classes_to_skops
from streampiped.learn.export.convert import to_onnx, to_skops
from streampiped.learn.export.document import export
from streampiped.learn.npz import from_npz, to_npz
from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.trainer import Trainer, TrainerOptions
from streampiped.wire.state import pack, unpack

TREE: dict[str, Any] = {
    "estimator": "river.tree.HoeffdingAdaptiveTreeRegressor",
    "params": {"grace_period": 30, "drift_detector": {"class": "river.drift.ADWIN"}},
}
LINEAR = {
    "estimator": "river.compose.Pipeline",
    "params": {
        "steps": [{"class": "river.preprocessing.StandardScaler"}, {"class": "river.linear_model.LinearRegression"}]
    },
}
FOREST = {"estimator": "river.forest.AMFRegressor", "params": {"n_estimators": 3}}
CLASSES = {"estimator": "river.forest.AMFClassifier", "params": {"n_estimators": 3}}
KINDS: dict[str, dict[str, Any]] = {"tree": TREE, "linear": LINEAR, "forest": FOREST, "classes": CLASSES}
BATCHES, ROWS = 16, 50


def trainer(**options: Any) -> Trainer:
    return Trainer(TrainerOptions(**options), StageContext("trainer", seed=5, pipeline_seed=7))


def stream(*, classes: bool = False) -> list[Batch]:
    """A bend that no line follows, with what is missing and infinite; three classes where it is cut."""
    rng, result = np.random.default_rng(3), []
    for number in range(BATCHES):
        a, b = rng.normal(size=(2, ROWS))
        y = 50 + 3 * np.abs(a) - b + rng.normal(size=ROWS) / 10
        a[rng.random(ROWS) < 0.05] = [np.nan, np.inf][number % 2]
        column: Any = y
        if classes:
            column = np.searchsorted([51.0, 53.0], y).astype(np.int64)
        result.append(Batch.build({"a": a, "y": column, "b": b}, spans=(Span("s", number * ROWS, ROWS),)))
    return result


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage without a directory of its own keeps its files where it is."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "limit"), [("forest", 10_000), ("classes", 2000)])
def test_a_model_that_is_full_is_told_of_once(name: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event comes with the batch that fills the model, and not again, nor from a trainer restored after it; the
    members' info says so from then on, of that member alone."""
    monkeypatch.setattr(river_models, "ENTRIES_MAX", limit)  # more than the trial beforehand makes
    monkeypatch.setattr(river_models, "CHECK_ROWS", 64)
    events: list[tuple[str, Any]] = []

    def told(event: str, /, **fields: Any) -> None:
        events.append((event, fields))

    def full(stage: Trainer) -> list[str]:
        return [each["name"] for each in stage.query("section", {})["results"]["members"] if each["full"]]

    def born() -> Trainer:
        context = StageContext("trainer", seed=5, pipeline_seed=7, emit=told)
        return Trainer(TrainerOptions(**KINDS[name]), context)

    stage = born()
    rows = 0
    for batch in stream(classes=name == "classes"):
        before = full(stage)
        stage.process(batch)
        rows += batch.rows
        new = [member for member in full(stage) if member not in before]
        assert [fields for event, fields in events if event == "member_full"] == [
            {"member": member, "row": rows} for member in new
        ]
        events.clear()
    assert len(full(stage)) == 1
    twin = born()
    twin.restore(unpack(pack("trainer", stage.snapshot()), "trainer"))
    twin.process(stream(classes=name == "classes")[0])
    assert full(twin) == full(stage)
    assert "member_full" not in [event for event, _ in events]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("cut", [1, 9])
def test_a_restored_trainer_goes_on_bit_for_bit(name: str, cut: int) -> None:
    """Restored from the bytes of a snapshot, a trainer with a model of River gives the same batches and the same state
    as one that was not stopped, though that took more snapshots."""
    batches, whole = stream(classes=name == "classes"), trainer(**KINDS[name])
    for batch in batches[:cut]:
        whole.process(batch)
    twin = trainer(**KINDS[name])
    twin.restore(unpack(pack("trainer", whole.snapshot()), "trainer"))
    for batch in batches[cut:]:
        one, other = whole.process(batch), twin.process(batch)
        assert one.schema == other.schema
        assert all(equal(one[column], other[column]) for column in one.schema.names)
        whole.snapshot()
    assert equal(whole.snapshot(), twin.snapshot())


@pytest.mark.parametrize("name", KINDS)
def test_parameters_of_a_version_go_on(name: str) -> None:
    """What the registry keeps of the model, as npz without pickle, is the model."""
    batches, whole = stream(classes=name == "classes"), trainer(**KINDS[name])
    for batch in batches[:9]:
        whole.process(batch)
    state = whole.snapshot()
    pool = from_npz(to_npz({"features": state["features"], "pool": state["model"]}))
    back = whole.saved_pool(pool)
    assert equal(back.state(), state["model"])


def test_another_version_of_river_is_refused() -> None:
    """A snapshot of another version of River does not become this one's model."""
    stage = trainer(**LINEAR)
    stage.process(stream()[0])
    state = unpack(pack("trainer", stage.snapshot()), "trainer")
    state["model"]["members"]["estimator"]["member"]["model"]["estimator"]["river"] = "0.1"
    with pytest.raises(StateError, match=r"River 0\.1, and here is.*Install river==0\.1"):
        trainer(**LINEAR).restore(state)


def test_exports_of_a_model_of_river() -> None:
    """It is given out as plain numbers; ONNX and skops are refused with the reason."""
    stage = trainer(**TREE)
    for batch in stream():
        stage.process(batch)
    pool: Any = stage._pool
    pool.promote("estimator")
    plain = export(pool)
    assert plain["champion"] == "estimator"
    assert plain["state"]["member"]["model"]["estimator"]["graph"]["shapes"][0]["class"].startswith("river.tree.")
    for make in (to_onnx, to_skops):
        with pytest.raises(StateError, match=r"model of River.*json and npz"):
            make(pool, ["a", "b"], "y")


def test_a_classifier_of_river_is_not_given_to_scikit_learn() -> None:
    """A model of classes of River is refused as skops with the reason, as one of numbers is."""
    stage = trainer(**CLASSES)
    for batch in stream(classes=True):
        stage.process(batch)
    pool: Any = stage._pool
    pool.promote("estimator")
    with pytest.raises(StateError, match=r"model of River.*json and npz"):
        classes_to_skops(pool, ["a", "b"], "y")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimator": "river.tree.NoSuchTree"}, "River has no 'river.tree.NoSuchTree'"),
        ({"estimator": "river.neighbors.KNNRegressor"}, "cannot be put into a snapshot"),
        ({"estimator": "river.linear_model.LinearRegression", "params": {"step": 1}}, "does not take params"),
        ({"estimator": "river.linear_model.LinearRegression", "task": "classification"}, "learns numbers"),
        ({"estimator": "river.linear_model.LogisticRegression", "task": "regression"}, "learns classes"),
    ],
)
def test_what_cannot_be_is_refused_at_construction(options: dict[str, Any], words: str) -> None:
    """`check` constructs the stage: what would fail in the stream fails there."""
    with pytest.raises(OptionError, match=words):
        trainer(**options)


def test_without_river_the_rest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the default trainer works, and one that needs River says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "river"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "river", None)
    trainer().process(stream()[0])
    with pytest.raises(OptionError, match=r"pip install 'streampipe-daemon\[river\]'"):
        trainer(**TREE)
