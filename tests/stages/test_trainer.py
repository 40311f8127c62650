"""stages/trainer.py: test-then-train, versions, the API, and the law of snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from streampiped.errors import OptionError, RpcError, StateError
from streampiped.holdout import held_out
from streampiped.learn.estimators import equal
from streampiped.marks import LABEL_REBASED, MARKS, QUARANTINED
from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.trainer import Trainer, TrainerOptions

NAN, INF = float("nan"), float("inf")
MLP = {"estimator": "sklearn.neural_network.MLPRegressor", "params": {"hidden_layer_sizes": [4]}}


def trainer(**options: Any) -> Trainer:
    return Trainer(TrainerOptions(**options), StageContext("trainer", seed=5, pipeline_seed=7))


def stream(batches: int, rows: int = 20, *, dirty: bool = False) -> list[Batch]:
    rng = np.random.default_rng(3)
    result = []
    for number in range(batches):
        a, b = rng.normal(size=(2, rows))
        y = 50 + 3 * a - b + rng.normal(size=rows) / 10
        if dirty:
            a[rng.random(rows) < 0.1] = NAN
            y[rng.random(rows) < 0.1] = [NAN, INF][number % 2]
        result.append(Batch.build({"a": a, "y": y, "b": b}, spans=(Span("s", number * rows, rows),)))
    return result


def taught(batches: int = 20, **options: Any) -> Trainer:
    result = trainer(**options)
    for batch in stream(batches):
        result.process(batch)
    return result


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage without a directory of its own keeps its files where it is."""
    monkeypatch.chdir(tmp_path)


def ask(stage: Trainer, method: str, *args: Any, **params: Any) -> Any:
    """Of what is served after one more epoch."""
    stage.snapshot()
    stage.committed(77)
    return stage.api()[method](*args, **params)


def commit(stage: Trainer, epoch: int) -> None:
    stage.snapshot()
    stage.committed(epoch)


def rows_of(batch: Batch) -> list[list[float]]:
    return [list(pair) for pair in zip(batch["a"].tolist(), batch["b"].tolist(), strict=True)]


def test_warming_up_predicts_each_row_before_it_is_learned() -> None:
    """In growing blocks too, a row's target changes no prediction up to its own, and does change later ones."""
    (batch,) = stream(1)
    plain = trainer(holdout=0).process(batch)["prediction"].tolist()
    for row in (0, 7, 19):
        targets = batch["y"].copy()
        targets[row] += 5
        other = trainer(holdout=0).process(batch.with_columns({"y": targets}))["prediction"].tolist()
        assert other[: row + 1] == plain[: row + 1]
        assert row == 19 or other[row + 1 :] != plain[row + 1 :]


def test_versions_count_what_the_predicting_model_had_learned() -> None:
    """The version of a row is the number of blocks learned before it; blocks grow with what was seen."""
    (batch,) = stream(1)
    assert trainer(holdout=0).process(batch)["model_version"].tolist() == [*range(20)]


def test_the_batch_comes_back_with_five_columns_more() -> None:
    """All columns, positions and types stay; prediction and interval are floats, version and generation integers. No
    error is known before the second row is over, so that two rows have no interval."""
    (batch,) = stream(1)
    out = trainer(prediction="guess").process(batch)
    assert out.schema.floats == (*batch.schema.floats, "guess", "guess_low", "guess_high")
    assert out.schema.ints == ("model_version", "model_generation")
    assert out.spans == batch.spans
    assert out["a"].tobytes() == batch["a"].tobytes()
    assert np.isnan([out["guess_low"][:2], out["guess_high"][:2]]).all()
    assert (out["guess_low"][2:] <= out["guess"][2:]).all()
    assert (out["guess"][2:] <= out["guess_high"][2:]).all()


def test_held_out_rows_are_predicted_and_never_learned() -> None:
    """Other targets in held-out rows change nothing that a member on features alone has learned."""
    ours, theirs = (trainer(holdout=0.3, members=["ridge", "squares", "sgd"]) for _ in range(2))
    for batch in stream(10):
        spared = held_out(7, batch, 0.3)
        assert spared.any()
        ours.process(batch)
        theirs.process(batch.with_columns({"y": np.where(spared, 1e9, batch["y"])}))
    for name in ("ridge", "squares", "sgd"):
        one, other = (each.snapshot()["model"]["members"][name]["member"] for each in (ours, theirs))
        assert equal(one, other)
    assert ours.query("summary", {})["held_out"] == sum(held_out(7, b, 0.3).sum() for b in stream(10))


def test_quarantined_labels_are_not_learned() -> None:
    """What the gate has marked as a bad label changes nothing at all in the model, and is counted."""
    ours, theirs = trainer(), trainer()
    for batch in stream(10):
        bad = np.arange(batch.rows) % 7 == 3
        marked = batch.with_columns({MARKS: np.where(bad, QUARANTINED, 0)})
        ours.process(marked)
        theirs.process(marked.with_columns({"y": np.where(bad, 1e9, batch["y"])}))
    assert equal(ours.snapshot(), theirs.snapshot())
    assert ours.query("summary", {})["quarantined"] == 10 * 3


def test_a_label_of_another_level_is_served_at_once() -> None:
    """Behind the row that says that the label has been re-based the predictions are of the new level."""
    stage = taught(60)
    (batch,) = stream(1)
    moved = batch.with_columns({"y": batch["y"] + 1000, MARKS: np.where(np.arange(20) == 0, LABEL_REBASED, 0)})
    predicted = stage.process(moved)["prediction"]
    assert (np.abs(predicted[1:] - moved["y"][1:]) < 20).all()
    assert [drift["kind"] for drift in stage.query("section", {})["results"]["drifts"]] == ["label_shift"]


def test_dirty_rows_are_predicted_and_counted() -> None:
    """Missing features count as 0, rows without a finite target are not learned, and every prediction is finite."""
    stage = trainer()
    batches = stream(10, dirty=True)
    for batch in batches:
        assert np.isfinite(stage.process(batch)["prediction"]).all()
    summary = stage.query("summary", {})
    assert summary["imputed"] == sum(np.isnan(b["a"]).sum() for b in batches) > 0
    assert summary["missing_target"] == sum((~np.isfinite(b["y"])).sum() for b in batches) > 0
    assert summary["rows"] == 200 > summary["rows_learned"]


def test_a_stream_without_targets_is_predicted_with_zero() -> None:
    """Where no target ever comes nothing is learned and nothing fails."""
    stage = trainer()
    for batch in stream(3):
        out = stage.process(batch.with_columns({"y": np.full(20, NAN)}))
        assert set(out["prediction"].tolist()) == {0.0}
    assert stage.query("summary", {})["blocks_learned"] == 0


def test_a_learned_model_is_useful() -> None:
    """On a linear stream the predictions follow the target to a tenth of its deviation."""
    stage = taught(60)
    (batch, *_), out = stream(1), None
    out = stage.process(batch)
    assert np.abs(out["prediction"] - out["y"]).mean() < 0.1 * stream(1)[0]["y"].std() + 0.1


@pytest.mark.parametrize("options", [{}, MLP, {"scale_target": False}], ids=["sgd", "mlp", "unscaled"])
@pytest.mark.parametrize("cut", [0, 1, 6])
def test_a_restored_trainer_goes_on_bit_for_bit(cut: int, options: dict[str, Any]) -> None:
    """Snapshot after any batch, restore in a fresh object: the same predictions and state to the last bit."""
    batches = stream(12, dirty=True)
    whole, twin = trainer(**options), trainer(**options)
    for batch in batches[:cut]:
        whole.process(batch)
    state = whole.snapshot()
    twin.process(batches[-1])  # whatever happened since must be forgotten
    twin.restore(state if cut else None)
    for batch in batches[cut:]:
        ours, theirs = whole.process(batch), twin.process(batch)
        assert ours["prediction"].tobytes() == theirs["prediction"].tobytes()
        assert ours["model_version"].tolist() == theirs["model_version"].tolist()
    assert equal(whole.snapshot(), twin.snapshot())


@pytest.mark.parametrize("options", [{}, MLP], ids=["sgd", "mlp"])
def test_a_committed_version_never_changes(options: dict[str, Any]) -> None:
    """predict(version=e) gives what the model of epoch e gave in band, however much is learned afterwards."""
    stage, batches = trainer(**options), stream(12)
    for batch in batches[:6]:
        stage.process(batch)
    stage.snapshot()
    in_band = stage.process(batches[6])
    first = int(np.count_nonzero(in_band["model_version"] == in_band["model_version"][0]))
    stage.committed(41)
    for batch in batches[7:]:
        stage.process(batch)
    served = stage.api()["predict"](rows=rows_of(batches[6]), version=41)
    assert first > 1
    assert served["predictions"][:first] == in_band["prediction"].tolist()[:first]
    assert served["rows_learned"] < stage.api()["info"]()["rows_learned"]
    assert ask(stage, "predict", rows_of(batches[6]))["predictions"] != served["predictions"]


def test_only_the_newest_versions_are_kept() -> None:
    """Of five committed epochs the last `retain_versions` are served, and those that are versions; the others are
    unknown by name."""
    stage = taught(2, retain_versions=2)
    for epoch in (3, 4, 7, 8, 9):
        commit(stage, epoch)
    assert stage.api()["info"]()["versions"] == [3, 8, 9]
    with pytest.raises(RpcError, match=r"epoch 7 is kept; there are 3, 8, 9"):
        stage.api()["predict"]([[0.0, 0.0]], version=7)


def test_a_restored_model_is_served_once_its_epoch_is_told() -> None:
    """After a restore no version is served, until `committed` names the epoch of the restored state."""
    stage, fresh = taught(3), trainer()
    fresh.restore(stage.snapshot())
    assert fresh.api()["info"]()["versions"] == []
    fresh.committed(12)
    rows = [[0.5, -0.5]]
    assert fresh.api()["info"]()["versions"] == [12]
    assert fresh.api()["predict"](rows, version=12)["predictions"] == ask(stage, "predict", rows)["predictions"]


def test_a_restore_forgets_the_versions_served() -> None:
    """What was committed after the restored state may have been rolled back, so nothing of it is served."""
    stage = taught(3)
    commit(stage, 7)
    commit(stage, 8)
    stage.restore(stage.snapshot())
    with pytest.raises(RpcError, match="epoch 8 is kept; there are 7"):
        stage.api()["predict"]([[0.0, 0.0]], version=8)


def test_rows_come_as_lists_or_by_name() -> None:
    """Both forms give the same predictions; columns that are no features are left aside; None counts as 0."""
    stage = taught()
    by_row = ask(stage, "predict", [[1.0, None], [0.5, 0.25]])["predictions"]
    by_name = ask(stage, "predict", {"b": [0.0, 0.25], "a": [1.0, 0.5], "other": [9, 9]})["predictions"]
    assert by_row == by_name
    assert ask(stage, "predict", [])["predictions"] == []


def test_a_score_leaves_out_rows_without_target() -> None:
    """score is scikit-learn's over the rows with a finite target."""
    stage, (batch,) = taught(), stream(1)
    predicted = np.array(ask(stage, "predict", rows_of(batch))["predictions"])
    targets = [None, *batch["y"].tolist()[1:]]
    scores = ask(stage, "score", rows_of(batch), targets)
    assert scores["rows"] == 19
    assert scores["mse"] == pytest.approx(np.mean((predicted[1:] - batch["y"][1:]) ** 2), rel=1e-9)


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("predict", {"rows": [[1.0]]}, "2 numbers"),
        ("predict", {"rows": [[1.0, 2.0], [1.0]]}, "of one length"),
        ("predict", {"rows": [["a", "b"]]}, "numbers"),
        ("predict", {"rows": 5}, "2 numbers"),
        ("predict", {"rows": {"a": [1.0]}}, r"lack the columns \['b'\]"),
        ("score", {"rows": [[1.0, 2.0]], "targets": [1.0, 2.0]}, "one per row"),
        ("export", {"version": "99"}, "number of an epoch"),
    ],
)
def test_a_caller_is_told_what_is_wrong(method: str, params: dict[str, Any], words: str) -> None:
    """Wrong arguments raise ValueError with a text for the caller."""
    with pytest.raises(ValueError, match=words):
        ask(taught(1), method, **params)


def test_before_the_first_batch_there_is_no_model() -> None:
    """The API says so instead of failing."""
    with pytest.raises(RpcError, match="no model yet"):
        ask(trainer(), "predict", [[1.0]])
    assert ask(trainer(), "info")["rows_learned"] == 0


def test_an_exported_ridge_can_be_computed_by_hand() -> None:
    """intercept + slopes . (x - shift) * factor is what predict gives."""
    stage = taught(members=["ridge"])
    plain = ask(stage, "export")
    assert (plain["format"], plain["champion"], plain["features"]) == ("streampipe-model/1", "ridge", ["a", "b"])
    frame = {name: np.frombuffer(part["data"], part["dtype"]) for name, part in plain["frame"].items()}
    x = np.array([0.3, -1.2])
    by_hand = plain["parameters"]["intercept"] + np.dot(
        plain["parameters"]["slopes"], (x - frame["shift"]) * frame["factor"]
    )
    assert ask(stage, "predict", [x.tolist()])["predictions"] == pytest.approx([by_hand], rel=1e-12)


def test_what_cannot_be_learned_is_named() -> None:
    """Columns that are not there, and no column at all, are OptionErrors with the name."""
    (batch,) = stream(1)
    for options, words in (
        ({"target": "z"}, "'z'"),
        ({"features": ["a", "q"]}, "'q'"),
        ({"ignore": ["a", "b"]}, "to learn from"),
        ({"estimator": "sklearn.linear_model.Ridge"}, "partial_fit"),
    ):
        with pytest.raises(OptionError, match=words):
            trainer(**options).process(batch)


@pytest.mark.parametrize("name", ["prediction", "prediction_low", "prediction_high"])
def test_no_column_of_the_stream_is_replaced(name: str) -> None:
    """A stream that has a column where the predictions are to be: that is told, and not lost."""
    (batch,) = stream(1)
    given = batch.with_columns({name: np.ones(batch.rows)})
    with pytest.raises(OptionError, match=f"has '{name}' already"):
        trainer().process(given)
    made = trainer(prediction="guess", ignore=[name]).process(given)
    assert made[name].tolist() == given[name].tolist()


def test_the_target_is_apart_from_what_is_learned_and_answered() -> None:
    """A target among the features, or one that a column of predictions would replace, is refused, and so is a feature
    that is named twice; a target whose name is part of another word is not."""
    for options, words in (
        ({"features": ["a", "y"]}, "should not have the target 'y'"),
        ({"features": ["a", "b", "a"]}, "features should differ"),
        ({"prediction": "y"}, "would replace the target"),
        ({"target": "p_low", "prediction": "p"}, "would replace the target"),
    ):
        with pytest.raises(ValidationError, match=words):
            TrainerOptions(**options)
    assert TrainerOptions(target="al").features == "all"


def test_the_linear_model_has_its_own_name() -> None:
    """`sgd` is the built-in model and `estimator` another one in its place; the latter name means the former where
    there is no other, and `sgd` never another."""

    def names(**options: Any) -> list[str]:
        return [member["name"] for member in ask(taught(1, **options), "info")["members"] if not member["trivial"]]

    assert names(members=["sgd"]) == names(members=["estimator"]) == ["sgd"]
    assert names(members=["estimator"], **MLP) == ["estimator"]
    assert "sgd" in names()
    assert {"sgd", "estimator"} & set(names(**MLP)) == {"estimator"}
    with pytest.raises(ValueError, match="called estimator"):
        TrainerOptions(members=["sgd"], **MLP)


def test_a_snapshot_with_the_old_name_is_taken_over() -> None:
    """The built-in model was called `estimator` once: restored from there it goes on to the last bit."""
    ours = taught(5, members=["sgd", "ridge"])
    state = ours.snapshot()
    members = {"estimator" if name == "sgd" else name: made for name, made in state["model"]["members"].items()}
    twin = trainer(members=["sgd", "ridge"])
    twin.restore({**state, "model": {**state["model"], "members": members}})
    for stage in (ours, twin):
        stage.process(stream(6)[5])
    assert equal(ours.snapshot()["model"], twin.snapshot()["model"])


def test_the_state_of_another_estimator_is_refused() -> None:
    """A snapshot is never restored into a model that is not its own."""
    state = taught(1).snapshot()
    with pytest.raises(StateError, match="SGDRegressor"):
        trainer(**MLP).restore(state)
    with pytest.raises(StateError, match="features"):
        trainer(features=["b"]).restore(state)


def test_many_columns_get_a_smaller_step() -> None:
    """With 400 features the default step is so small that SGD does not diverge."""
    rng = np.random.default_rng(1)
    stage = trainer(features="all")
    for number in range(5):
        table = rng.normal(size=(400, 50))
        columns = {f"x{i}": column for i, column in enumerate(table)} | {"y": table[0]}
        stage.process(Batch.build(columns, spans=(Span("s", number * 50, 50),)))
    assert ask(stage, "info")["params"]["eta0"] == 0.5 / 400
    assert all(member["rollbacks"] == 0 for member in ask(stage, "info")["members"])
