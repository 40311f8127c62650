"""The trainer with classes whose labels come late: what was served is what is scored, whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.errors import OptionError
from streampiped.holdout import held_out
from streampiped.learn.estimators import equal
from streampiped.marks import MARKS, QUARANTINED
from streampiped.records import Batch, Span
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.normalizer import Normalizer, NormalizerOptions
from streampiped.stages.trainer import Trainer, TrainerOptions
from support.late_labels import Late, late_classes
from support.report_schema import faults

TEXTS = ("prediction", "guess_prior", "guess_last")
FLOATS = ("probability", "score", "guess_share")
ADDED = (*TEXTS, *FLOATS, "model_version", "model_generation")
SERVED = ("prediction", "probability", "score", "guess_prior", "guess_last", "model_version")


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage without a directory of its own keeps its files where it is."""
    monkeypatch.chdir(tmp_path)


def trainer(*, labels: dict[str, Any] | None = None, **options: Any) -> Trainer:
    chosen = TrainerOptions.model_validate({**options, "labels": {"id": "id", **(labels or {})}})
    return Trainer(chosen, StageContext("trainer", seed=5, pipeline_seed=7))


def outputs(stage: Trainer, late: Late, **cut: Any) -> dict[str, list[Any]]:
    """Every added column over the whole stream."""
    parts = [stage.process(batch) for batch in late.batches(**cut)]
    return {name: [value for part in parts for value in plain(part[name])] for name in ADDED}


def plain(column: Any) -> list[Any]:
    """NaN as None, so that equal is equal."""
    values = column.tolist() if isinstance(column, np.ndarray) else column
    return [None if value != value else value for value in values]


def same(ours: Batch, theirs: Batch, names: tuple[str, ...] = ADDED) -> None:
    for name in names:
        one, other = ours[name], theirs[name]
        assert (one.tobytes() == other.tobytes()) if isinstance(one, np.ndarray) else one == other, name


def pending(stage: Trainer) -> dict[str, int]:
    found: dict[str, int] = stage.query("section", {})["results"]["pending"]
    return found


@pytest.mark.parametrize("delay", [0.5, 20.0, 300.0])
@pytest.mark.parametrize("most", [100_000, 50])
def test_scores_are_those_of_a_plain_loop(delay: float, most: int) -> None:
    """With random delays, rows never answered, answered twice and given up, each label's row has what was served for
    its question, with the most frequent and the newest class known when it was asked and the share that its own class
    had then, as a loop with a dict has them; a label without a question has no prediction."""
    late = late_classes(800, delay)
    stage = trainer(labels={"wait_rows_max": most})
    out = outputs(stage, late)
    waiting: dict[int, tuple[Any, ...]] = {}
    known: list[str] = []
    counts = dict.fromkeys(("asked", "answered", "given_up", "late"), 0)
    for row, (key, value) in enumerate(zip(late.ids.tolist(), late.labels.tolist(), strict=True)):
        label = late.label(value)
        if label is None:
            guesses = (max(known, key=known.count), known[-1]) if known else (None, None)
            assert (out["guess_prior"][row], out["guess_last"][row]) == guesses
            assert out["guess_share"][row] is None
            shares = {each: (known.count(each) + 1) / (len(known) + max(len(set(known)), 2)) for each in late.names}
            waiting[key] = (shares if known else None, tuple(out[name][row] for name in SERVED))
            counts["asked"] += 1
            if len(waiting) > most:
                del waiting[next(iter(waiting))]
                counts["given_up"] += 1
        elif key in waiting:
            shares_then, served = waiting.pop(key)
            assert served == tuple(out[name][row] for name in SERVED)
            share = out["guess_share"][row]
            assert share is None if shares_then is None else share == pytest.approx(shares_then[label], rel=1e-12)
            known.append(str(label))
            counts["answered"] += 1
        else:
            assert [out[name][row] for name in ("prediction", "probability", "score", "guess_share")] == [None] * 4
            counts["late"] += 1
    assert pending(stage) == {**counts, "waiting": len(waiting), "repeated": 0, "without_id": 0}
    assert counts["late"] > 0
    assert (counts["given_up"] > 0) == (most == 50)


@pytest.mark.parametrize("members", ["auto", ["sgd", "ridge"]])
def test_labels_in_their_own_rows_change_nothing(members: Any) -> None:
    """With `immediate`, a stream that brings every label at once is worked on as without this table, to the last bit:
    across a new class and a drift, and with rows held out."""
    late = late_classes(2500, 1.0, answered=0, drift=1700)
    codes = np.array([0.0, 1.0, 2.0])[
        np.argmax(late.features @ np.array([[-1.0, 1, 0], [0, 0, 1.2], [0, 0, 0]]), axis=1)
    ]
    codes[:800] = np.minimum(codes[:800], 1.0)
    codes[1700:] = np.array([1.0, 0.0, 2.0])[codes[1700:].astype(int)]
    at_once = Late(late.ids, late.features, codes, late.names)
    plain_one = Trainer(TrainerOptions(members=members), StageContext("trainer", seed=5, pipeline_seed=7))
    stage = trainer(members=members, labels={"immediate": True})
    for batch in at_once.batches():
        same(
            stage.process(batch),
            plain_one.process(batch),
            ("prediction", "probability", "score", "model_version", "model_generation"),
        )
    assert equal(stage.snapshot()["model"], plain_one.snapshot()["model"])
    assert len(stage.query("section", {})["results"]["drifts"]) == 1


def test_a_label_counts_from_when_it_comes() -> None:
    """Another label changes nothing in any row up to its own but what is said of that label, and something later."""
    late = late_classes(400, 30.0, repeated=0)
    row = int(np.flatnonzero(np.isfinite(late.labels))[100])
    labels = late.labels.copy()
    labels[row] = (labels[row] + 1) % 2
    other = Late(late.ids, late.features, labels, late.names)
    ours, theirs = outputs(trainer(holdout=0), late), outputs(trainer(holdout=0), other)
    for name in ADDED:
        until = row if name == "guess_share" else row + 1
        assert ours[name][:until] == theirs[name][:until]
    assert ours["probability"][row + 1 :] != theirs["probability"][row + 1 :]


def test_held_out_labels_are_never_learned() -> None:
    """A label whose row is held out changes nothing that a member on features alone has learned, whatever it says."""
    late = late_classes(600, 30.0)
    ours, theirs = (trainer(holdout=0.3, members=["ridge", "sgd"]) for _ in range(2))
    for number, batch in enumerate(late.batches()):
        spared = held_out(7, batch, 0.3)
        ours.process(batch)
        changed = [
            "ant" if label and spare and number else label for label, spare in zip(batch["y"], spared, strict=True)
        ]
        theirs.process(batch.with_columns({"y": changed}))
    for name in ("ridge", "sgd"):
        one, other = (each.snapshot()["model"]["members"][name]["member"] for each in (ours, theirs))
        assert equal(one, other)
    assert ours.query("summary", {})["held_out"] > 100


@pytest.mark.parametrize("cut", [0, 1, 7, 20])
@pytest.mark.parametrize("text", [False, True], ids=["int", "text"])
def test_a_restored_trainer_goes_on_bit_for_bit(cut: int, text: bool) -> None:
    """Snapshot after any batch, restore in a fresh object: the same columns, counts and state to the last bit."""
    batches = list(late_classes(900, 60.0, drift=500).batches(text=text))
    whole, twin = (trainer(labels={"wait_rows_max": 100}) for _ in range(2))
    for batch in batches[:cut]:
        whole.process(batch)
    twin.process(batches[-1])  # whatever happened since must be forgotten
    twin.restore(whole.snapshot() if cut else None)
    for batch in batches[cut:]:
        same(whole.process(batch), twin.process(batch))
    assert equal(whole.snapshot(), twin.snapshot())
    assert pending(whole) == pending(twin)
    assert pending(whole)["given_up"] > 0


def test_a_drift_is_found_once_and_followed() -> None:
    """Labels 50 rows late: one drift, some rows after its first labels have come, and classes are told apart again."""
    late = late_classes(5000, 50.0, answered=1, repeated=0, drift=2500)
    stage = trainer()
    out = outputs(stage, late)
    (drift,) = stage.query("section", {})["results"]["drifts"]
    first = int(np.flatnonzero(late.ids == 2500)[0])
    assert first < drift["row"] < first + 300
    told = np.flatnonzero(np.isfinite(late.labels))
    right = np.array([out["prediction"][row] == late.label(late.labels[row]) for row in told])
    assert right[told > np.flatnonzero(late.ids == 4000)[0]].mean() > 0.9
    assert right.mean() > 0.85


def test_a_rollback_leaves_what_waits_as_it_was_served() -> None:
    """Gone back to before the third class came, with questions waiting that were answered with it: each label's row has
    what was served, and another class that comes then is not taken for the third."""
    late = late_classes(600, 60.0, answered=1, repeated=0)
    stage = trainer(retain_versions=20, version_rows=1)
    waiting: dict[int, tuple[Any, ...]] = {}
    lost = newts = 0
    for epoch, batch in enumerate(late.batches()):
        if epoch == 14:
            assert stage.api()["info"]()["classes"] == ["ant", "zebra", "mole"]
            stage.change("rollback", stage.query("plan", {"kind": "rollback", "params": {"version": 3}})["params"])
            assert stage.api()["info"]()["classes"] == ["ant", "zebra"]
        if epoch >= 14:
            batch = batch.with_columns({"y": ["newt" if label == "mole" else label for label in batch["y"]]})
        out = stage.process(batch)
        stage.snapshot()
        stage.committed(epoch)
        for row, key in enumerate(batch["id"].tolist()):
            served = tuple(plain(out[name])[row] for name in ("prediction", "probability", "score"))
            if batch["y"][row] is None:
                waiting[key] = served
                assert epoch < 14 or served[0] != "mole"
                newts += served[0] == "newt"
            else:
                assert served == waiting.pop(key)
                lost += epoch >= 14 and served[0] == "mole"
    assert min(lost, newts) > 5
    assert stage.api()["info"]()["classes"] == ["ant", "zebra", "newt"]
    twin = trainer(retain_versions=20, version_rows=1)
    twin.restore(stage.snapshot())
    assert equal(stage.snapshot(), twin.snapshot())


def test_other_members_take_over_what_waits() -> None:
    """Restored with fewer members and with more, the questions that wait are answered as they were served."""
    batches = list(late_classes(600, 60.0, repeated=0).batches())
    whole = trainer(members=["ridge", "sgd"])
    for batch in batches[:10]:
        whole.process(batch)
    state = whole.snapshot()
    for members in (["ridge"], ["squares", "ridge", "sgd"]):
        twin = trainer(members=members)
        twin.restore(state)
        assert pending(twin) == pending(whole)
        out, ours = twin.process(batches[10]), trainer(members=["ridge", "sgd"])
        ours.restore(state)
        theirs = ours.process(batches[10])
        told = [row for row, label in enumerate(batches[10]["y"]) if label is not None]
        old = [row for row in told if batches[10]["id"][row] not in batches[10]["id"][:row]]
        assert [out["prediction"][row] for row in old] == [theirs["prediction"][row] for row in old]
        assert [out["score"][row] for row in old] == [theirs["score"][row] for row in old]
        for batch in batches[11:]:
            twin.process(batch)


def test_behind_the_gate_bad_labels_leave_the_model_alone() -> None:
    """The gate marks questions as having no label, and that changes nothing; what is quarantined is answered and not
    learned, whatever it says."""
    late = late_classes(800, 40.0, repeated=0)
    gate = Normalizer(NormalizerOptions(), StageContext("normalizer", seed=5, pipeline_seed=7))
    ours, theirs = trainer(), trainer()
    for batch in late.batches():
        mended = gate.process(batch)
        assert mended is not None
        told = np.array([label is not None for label in mended["y"]])
        bad = told & (mended["id"] % 7 == 3)
        marked = mended.with_columns({MARKS: np.where(bad, mended[MARKS] | QUARANTINED, mended[MARKS])})
        ours.process(marked)
        wrong = ["newt" if spoilt else label for label, spoilt in zip(mended["y"], bad, strict=True)]
        theirs.process(marked.with_columns({"y": wrong}))
    assert equal(ours.snapshot(), theirs.snapshot())
    results = ours.query("section", {})["results"]
    assert results["pending"]["answered"] == np.count_nonzero(np.isfinite(late.labels))
    assert results["counts"]["quarantined"] > 50
    assert results["counts"]["missing_target"] == 0


def test_ints_are_refused_with_what_to_do() -> None:
    """An int column has no missing label, so that nobody could tell a question."""
    batch = Batch.build({"x": np.arange(3.0), "y": np.arange(3), "id": np.arange(3)}, spans=(Span("s", 0, 3),))
    with pytest.raises(OptionError, match=r"no label can be missing; .* classes as text"):
        trainer().process(batch)


def test_the_evaluator_scores_what_was_served() -> None:
    """Its figures, of the model and of both guesses, are those of a loop that keeps the answers by id; a question
    counts as unlabelled, a label without one as unpredicted, and the report tells of those that wait."""
    late = late_classes(900, 40.0)
    stage = trainer(labels={"wait_rows_max": 100})
    evaluator = Evaluator(EvaluatorOptions(), StageContext("evaluator", pipeline_seed=7))
    waiting: dict[int, tuple[Any, ...]] = {}
    right: list[list[bool]] = []
    shares: list[float] = []
    for batch in late.batches():
        out = stage.process(batch)
        evaluator.process(out)
        answers = zip(out["prediction"], out["guess_prior"], out["guess_last"], strict=True)
        share = plain(out["guess_share"])
        for row, (key, label, answer) in enumerate(zip(batch["id"].tolist(), batch["y"], answers, strict=True)):
            if label is None:
                waiting[key] = answer
                if len(waiting) > 100:
                    del waiting[next(iter(waiting))]
            elif key in waiting and (answered := waiting.pop(key))[0] is not None:
                right.append([label == given for given in answered])
                shares.append(0.5 if share[row] is None else share[row])
    section = stage.query("section", {})["results"]
    report = evaluator.query("report", {"sections": {"model": section}})
    results, told = report["results"], np.isfinite(late.labels)
    model, prior, last = np.mean(right, axis=0)
    assert results["total"]["accuracy"] == pytest.approx(model, rel=1e-9)
    assert results["baselines"]["class_prior"]["total"]["accuracy"] == pytest.approx(prior, rel=1e-9)
    assert results["baselines"]["last_class"]["total"]["accuracy"] == pytest.approx(last, rel=1e-9)
    assert results["baselines"]["class_prior"]["total"]["log_loss"] == pytest.approx(-np.log(shares).mean(), rel=1e-9)
    assert (results["task"], results["verdict"]) == ("classification", "good")
    assert results["unlabelled"] == np.count_nonzero(~told)
    assert results["missing_target"] == 0
    assert results["scored"] == len(right)
    assert results["unpredicted"] == np.count_nonzero(told) - len(right)
    assert results["held_out"]["rows"] > 0
    assert list(faults(results, "@classification")) == []
    assert list(faults(section, "@model")) == []
    assert f"{section['pending']['answered']} of 900 questions are answered" in " ".join(report["text"].split())
