"""stages/evaluator.py: scores in band, the cross-check, and the law of snapshots."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from streampiped.errors import OptionError, StateError
from streampiped.holdout import held_out
from streampiped.learn.estimators import equal
from streampiped.learn.lookback import Lookback
from streampiped.learn.past import Looks, Past
from streampiped.marks import BOUNDED, MARKS, QUARANTINED
from streampiped.records import Batch, Span
from streampiped.stages.base import ApiCall, StageContext
from streampiped.stages.crosscheck import CELLS_MAX, PAST, STRIDE, Late
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions

NAN = float("nan")


def evaluator(**options: Any) -> Evaluator:
    return Evaluator(EvaluatorOptions(**options), StageContext("evaluator", seed=5, pipeline_seed=7))


def stream(batches: int, rows: int = 30, *, dirty: bool = False) -> list[Batch]:
    rng = np.random.default_rng(3)
    result = []
    for number in range(batches):
        y = 5 + rng.normal(size=rows)
        columns = {"x": rng.normal(size=rows), "y": y, "prediction": y + rng.normal(size=rows) / 3}
        if dirty:
            columns["y"][rng.random(rows) < 0.1] = NAN
        spans = (Span("s", number * rows, rows),)
        result.append(Batch.build({**columns, "model_version": np.full(rows, number)}, spans=spans))
    return result


def chain(batches: int, rows: int = 30) -> list[Batch]:
    """What the gate and the trainer make of a stream: marks, intervals, two generations of the model."""
    rng = np.random.default_rng(6)
    result = []
    for number, batch in enumerate(stream(batches, rows, dirty=True)):
        marks = np.where(rng.random(rows) < 0.1, QUARANTINED, 0) | np.where(rng.random(rows) < 0.3, BOUNDED, 0)
        width = rng.random(rows)
        width[rng.random(rows) < 0.1] = NAN
        start = number * rows
        more = {
            "prediction_low": batch["prediction"] - width,
            "prediction_high": batch["prediction"] + width,
            MARKS: marks,
            "model_generation": (np.arange(start, start + rows) >= batches * rows * 0.7).astype(np.int64),
        }
        result.append(batch.with_columns(more))
    return result


def scorable(batches: list[Batch]) -> np.ndarray:
    return np.isfinite(whole(batches, "y")) & ((whole(batches, MARKS) & QUARANTINED) == 0)


def told(batches: list[Batch], **options: Any) -> Evaluator:
    result = evaluator(**options)
    for batch in batches:
        assert result.process(batch) is batch
    return result


def whole(batches: list[Batch], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


def test_total_window_and_held_out_rows_are_scored_apart() -> None:
    """Each of the three equals plain arithmetic over its own rows."""
    batches = stream(20)
    results = told(batches, last=100, holdout=0.2).query("report", {})["results"]
    errors = (whole(batches, "y") - whole(batches, "prediction")) ** 2
    spared = np.concatenate([held_out(7, batch, 0.2) for batch in batches])
    for part, chosen in (("total", errors), ("last", errors[-100:]), ("held_out", errors[spared])):
        assert results[part]["rows"] == len(chosen)
        assert results[part]["mse"] == pytest.approx(chosen.mean(), rel=1e-9)


def test_a_window_too_small_for_any_verdict_is_refused() -> None:
    """With fewer than 100 rows there would never be enough data, however many came; with 100 there is."""
    with pytest.raises(ValidationError, match="greater than or equal to 100"):
        EvaluatorOptions(last=99)
    assert told(stream(10), last=100).query("report", {})["results"]["verdict"] != "not_enough_data"


def test_the_guesses_are_scored_on_the_same_rows() -> None:
    """Baselines and skill are those of a loop over the targets, in total and over the window."""
    batches = stream(10)
    results = told(batches, last=100).query("report", {})["results"]
    y, prediction = whole(batches, "y"), whole(batches, "prediction")
    before = np.array([y[:i].mean() if i else 0.0 for i in range(len(y))])
    last = np.concatenate(([0.0], y[:-1]))
    for name, guess in (("running_mean", before), ("last_value", last)):
        for part, rows in (("total", slice(None)), ("last", slice(-100, None))):
            mse = np.mean((y - guess)[rows] ** 2)
            assert results["baselines"][name][part]["mse"] == pytest.approx(mse, rel=1e-9)
            compared = slice(1, None) if part == "total" else rows  # the first row had no label before it
            skill = 1 - np.mean((y - prediction)[compared] ** 2) / np.mean((y - guess)[compared] ** 2)
            assert results["skill"][name][part] == pytest.approx(skill, rel=1e-9)


def test_rows_that_cannot_be_scored_are_counted() -> None:
    """A row without a finite target or prediction is in no score and in its count."""
    batch = Batch.build({"y": [1.0, NAN, 3.0, 4.0], "prediction": [1.0, 2.0, NAN, 4.5]}, spans=(Span("s", 0, 4),))
    results = told([batch]).query("report", {})["results"]
    assert (results["rows"], results["missing_target"], results["unpredicted"]) == (4, 1, 1)
    assert results["total"]["rows"] == 2


def agrees(part: dict[str, Any], y: np.ndarray, prediction: np.ndarray) -> None:
    """The figures equal scikit-learn's over these rows."""
    assert part["rows"] == len(y)
    assert part["mse"] == pytest.approx(mean_squared_error(y, prediction), rel=1e-9)
    assert part["mae"] == pytest.approx(mean_absolute_error(y, prediction), rel=1e-9)
    assert part["r2"] == pytest.approx(r2_score(y, prediction), rel=1e-9)


def test_every_part_equals_scikit_learn_over_its_rows() -> None:
    """Total, window, held-out, learned, warm-up, what came after it, and the generation, each over exactly its rows,
    with quarantined and missing labels in none."""
    batches = chain(20)
    results = told(batches, last=100, holdout=0.2).query("report", {})["results"]
    known = scorable(batches)
    y, prediction, row = whole(batches, "y"), whole(batches, "prediction"), np.arange(600)
    spared = np.concatenate([held_out(7, batch, 0.2) for batch in batches])
    told_of = known & (np.cumsum(known) > 1)
    newest = np.flatnonzero(known)[-100:]
    parts = {
        "total": known, "last": newest, "held_out": told_of & spared, "learned": told_of & ~spared,
        "warm_up": known & (row < 100), "after_warm_up": known & (row >= 100), "generation": known & (row >= 420),
    }  # fmt: skip
    for name, rows in parts.items():
        agrees(results[name], y[rows], prediction[rows])
    assert (results["generation"]["since_row"], results["generation"]["number"]) == (420, 1)
    assert results["blind"]["mse"] == (y[known][0] - prediction[known][0]) ** 2
    gap = results["gap"]
    assert (
        gap["ratio"]
        == results["held_out"]["mse"] / results["learned"]["mse"]
        == gap["mse_held_out"] / gap["mse_learned"]
    )


def test_a_quarantined_row_is_counted_and_never_scored() -> None:
    """Every row is under one count; a quarantined spike is in no figure, and no guess has learned it."""
    y = np.array([1.0, 2.0, 1e9, NAN, 3.0, 4.0])
    marks = np.array([0, BOUNDED, QUARANTINED, QUARANTINED, QUARANTINED | BOUNDED, 0])
    columns = {"y": y, "prediction": y + 1, MARKS: marks}
    results = told([Batch.build(columns, spans=(Span("s", 0, 6),))]).query("report", {})["results"]
    counts = ("rows", "scored", "missing_target", "quarantined", "unpredicted")
    assert [results[name] for name in counts] == [6, 3, 1, 2, 0]
    assert results["total"]["mse"] == 1.0
    assert results["baselines"]["last_value"]["total"]["mse"] == (1 + 1 + 4) / 3


def test_coverage_is_counted_over_rows_with_an_interval() -> None:
    """Total, window and the curve's bins say which share of intervals held the target."""
    batches = chain(20)
    results = told(batches, last=100).query("report", {})["results"]
    known = scorable(batches)
    width = whole(batches, "prediction_high") - whole(batches, "prediction_low")
    there = known & np.isfinite(width)
    inside = there & (np.abs(whole(batches, "y") - whole(batches, "prediction")) <= width / 2)
    coverage = results["coverage"]
    newest = np.flatnonzero(known)[-100:]
    assert (coverage["target"], coverage["rows"]) == (0.9, np.count_nonzero(there))
    assert coverage["total"] == np.count_nonzero(inside) / np.count_nonzero(there)
    assert coverage["last"] == np.count_nonzero(inside[newest]) / np.count_nonzero(there[newest])
    assert coverage["width"] == pytest.approx(width[newest][there[newest]].mean())
    second = results["curve"]["bins"][1]
    assert second["from"] == results["curve"]["rows_per_bin"] == 25
    assert second["covered"] == np.count_nonzero(inside[25:50]) / np.count_nonzero(there[25:50])


def test_the_sample_is_the_newest_held_out_rows() -> None:
    """At most 256 rows of predicted, actual and the interval, null where there is none."""
    batches = chain(20)
    sample = told(batches, holdout=1.0).query("report", {})["results"]["sample"]
    rows = np.flatnonzero(scorable(batches))[-256:]
    names = ("prediction", "y", "prediction_low", "prediction_high")
    wanted = np.column_stack([whole(batches, name)[rows] for name in names]).tolist()
    assert sample == [[None if v != v else v for v in row] for row in wanted]


def test_late_labels_are_compared_with_guesses_of_their_time() -> None:
    """Where the trainer says what mean and last value were when it predicted, these are scored; a discounted mean
    nobody knows, and it decides nothing."""
    y = np.tile([1.0, 3.0], 100)
    columns = {"y": y, "prediction": y + 0.5, "guess_mean": np.full(200, 2.0), "guess_last": np.full(200, 4.0)}
    columns["guess_last"][0] = NAN
    results = told([Batch.build(columns, spans=(Span("s", 0, 200),))]).query("report", {})["results"]
    assert results["baselines"]["running_mean"]["total"]["mse"] == 1.0
    assert results["baselines"]["last_value"]["total"]["mse"] == pytest.approx((99 * 9 + 100 + 1) / 200)
    assert results["baselines"]["discounted_mean"]["total"]["mse"] is None
    assert results["skill"]["discounted_mean"] == dict.fromkeys(("total", "last", "low", "high", "p"))
    assert results["verdict"] == "good"


def test_how_batches_are_cut_changes_no_figure() -> None:
    """One row at a time, all at once, or as they came: the same results to 1e-9."""
    batches = chain(12)
    whole_batch = Batch.build({n: whole(batches, n) for n in batches[0].schema.names}, spans=(Span("s", 0, 360),))
    singles = [
        Batch.build({n: batch[n][i : i + 1] for n in batch.schema.names}, spans=(Span("s", 30 * number + i, 1),))
        for number, batch in enumerate(batches)
        for i in range(30)
    ]
    wanted = told(batches, last=100, holdout=0.2).query("report", {})["results"]
    for cut in ([whole_batch], singles):
        assert close(told(cut, last=100, holdout=0.2).query("report", {})["results"], wanted)


def close(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == pytest.approx(other, rel=1e-9, abs=1e-12)) if isinstance(one, float) else one == other


def test_sections_of_other_stages_are_in_the_results_and_hide_nothing() -> None:
    """What the daemon has collected is put beside the evaluator's own figures, which win."""
    sections = {"gate": {"rows": 9, "columns": {}}, "rows": {"mine": 1}}
    results = told(stream(2)).query("report", {"sections": sections})["results"]
    assert results["gate"] == {"rows": 9, "columns": {}}
    assert results["rows"] == 60


def test_the_report_is_plain_and_readable() -> None:
    """Results and operations are JSON without NaN, the text begins with the verdict."""
    for batches in ([], stream(10, dirty=True)):
        report = told(batches).query("report", {})
        json.dumps(report, allow_nan=False)
        assert report["text"].startswith("Good" if batches else "Not enough data")
        json.dumps(told(batches).query("summary", {}), allow_nan=False)


def test_an_unknown_question_is_a_key_error() -> None:
    """A method that nobody has is named."""
    with pytest.raises(KeyError, match="weather"):
        evaluator().query("weather", {})


def test_the_question_is_about_the_snapshot_of_its_epoch() -> None:
    """committed asks for the held-out rows up to the snapshot, not for those that came since."""
    batches = stream(20)
    stage = told(batches[:10], holdout=0.2, trainer="teacher")
    stage.snapshot()
    for batch in batches[10:]:
        stage.process(batch)
    call = stage.committed(31)
    assert isinstance(call, ApiCall)
    spared = np.concatenate([held_out(7, batch, 0.2) for batch in batches[:10]])
    assert (call.stage, call.method, call.params["version"]) == ("teacher", "score", 31)
    assert call.params["targets"] == whole(batches[:10], "y")[spared].tolist()
    assert call.params["rows"] == {"x": whole(batches[:10], "x")[spared].tolist()}


def test_the_reservoir_is_bounded() -> None:
    """The newest held-out rows are asked for, at most `reservoir` of them and CELLS_MAX numbers."""
    batches = stream(10)
    stage = told(batches, holdout=1, reservoir=40)
    stage.snapshot()
    call = stage.committed(1)
    assert call is not None
    assert call.params["targets"] == whole(batches, "y")[-40:].tolist()
    wide = {f"x{i}": np.zeros(40) for i in range(3000)} | {"y": np.zeros(40), "prediction": np.zeros(40)}
    stage = told([Batch.build(wide, spans=(Span("s", 0, 40),))], holdout=1)
    stage.snapshot()
    call = stage.committed(1)
    assert call is not None
    assert len(call.params["targets"]) * 3002 <= CELLS_MAX
    for none in (evaluator(), told(batches, holdout=0), told(batches, reservoir=0)):
        none.snapshot()
        assert none.committed(1) is None


@pytest.mark.parametrize("batch", [30, 700, 5000])
def test_the_question_says_what_was_known_before_each_row(batch: int) -> None:
    """However long the stream and through restores, `past` is what the trainer's own `Past` says of the same rows, and
    the labels that wait for it are bounded."""
    marks = np.where(np.arange(batch) % 50 == 7, QUARANTINED, 0)
    batches = [each.with_columns({MARKS: marks}) for each in stream(-(-20_000 // batch), batch, dirty=True)]
    options = {"holdout": 0.2, "reservoir": 3000}
    stage = evaluator(**options)
    for number, each in enumerate(batches):
        stage.process(each)
        if number % 9 == 5:
            twin = evaluator(**options)
            twin.restore(stage.snapshot())
            stage = twin
    late = stage.snapshot()["crosscheck"]["late"]
    call = stage.committed(1)
    assert call is not None
    y, known = whole(batches, "y"), scorable(batches)
    spared = np.concatenate([held_out(7, each, 0.2) for each in batches])
    rows = np.flatnonzero(known & spared)[-3000:]
    rows = rows[-len(call.params["targets"]) :]
    looks = Past().follow(y, known)
    assert call.params["targets"] == y[rows].tolist()
    for name in Looks.__slots__:
        assert np.array(call.params["past"][name]) == pytest.approx(getattr(looks, name)[rows], rel=1e-9, abs=1e-9)
    assert late is None or len(late["labels"]) < STRIDE + batch


def test_an_answer_goes_to_operations_alone() -> None:
    """The comparison is kept beside results and state, an error in its place, and a stray answer is ignored."""
    stage = told(stream(10), holdout=0.3)
    before, results = stage.snapshot(), stage.query("report", {})["results"]
    stage.api_answer({"mse": 1.0}, None)
    stage.committed(5)
    stage.api_answer(None, "no such socket")
    assert stage.query("report", {})["operations"]["crosscheck"]["error"] == "no such socket"
    stage.committed(6)
    stage.api_answer({"rows": 9, "mse": 0.5, "rmse": 0.7, "mae": 0.5, "r2": 0.1, "version": 6}, None)
    check = stage.query("report", {})["operations"]["crosscheck"]
    assert (check["epoch"], check["asked"], check["answered"], check["error"]) == (6, 2, 1, None)
    assert check["mse_difference"] == 0.5 - check["in_band"]["mse"]
    assert equal(before, stage.snapshot())
    assert stage.query("report", {})["results"] == results


@pytest.mark.parametrize("cut", [0, 1, 6])
def test_a_restored_evaluator_goes_on_bit_for_bit(cut: int) -> None:
    """Snapshot after any batch, restore in a fresh object: the same results, question and state to the last bit."""
    batches = chain(12)
    options = {"last": 100, "reservoir": 10, "holdout": 0.2}
    stage = told(batches[:cut], **options)
    state = stage.snapshot()
    twin = told(batches[-1:], **options)  # whatever happened since must be forgotten
    twin.restore(state if cut else None)
    for batch in batches[cut:]:
        stage.process(batch)
        twin.process(batch)
    assert equal(stage.snapshot(), twin.snapshot())
    assert stage.query("report", {}) == twin.query("report", {})
    assert stage.committed(3) == twin.committed(3)


def test_a_missing_column_is_named() -> None:
    """A stream without predictions is an OptionError that says so."""
    with pytest.raises(OptionError, match="'prediction'"):
        evaluator().process(Batch.build({"y": [1.0]}))


def test_a_snapshot_of_another_layout_is_refused() -> None:
    """The state of an evaluator that kept other things is an error that says so."""
    state = dict(told(stream(2)).snapshot())
    del state["layout"]
    with pytest.raises(StateError, match="layout 1"):
        evaluator().restore(state)


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_snapshots_in_between_change_nothing(every: int) -> None:
    """What waits to be looked at together is the same, and becomes the same, however often it was asked for its state,
    and that state is not touched by what comes later."""
    one, other, seen = Late(), Late(), []
    labels = np.random.default_rng(0).normal(size=300)
    for row in range(300):
        places = np.zeros(int(row % 11 == 3), dtype=np.intp)
        table = np.full((3 + PAST, len(places)), float(row))
        for late in (one, other):
            late.add(labels[row : row + 1], places, table.copy())
        if row % every == 0:
            state = other.state()
            assert state is not None
            seen.append((state, {name: value.copy() for name, value in state.items()}))
    first, second = one.told(Lookback(), 1), other.told(Lookback(), 1)
    assert first.tobytes() == second.tobytes()
    assert np.isfinite(first).all()
    ends = [late.state() for late in (one, other)]
    for ours, theirs in [*seen, (ends[0], ends[1])]:
        assert ours is not None
        assert theirs is not None
        assert all(np.array_equal(ours[name], theirs[name]) for name in ("labels", "places", "table"))
