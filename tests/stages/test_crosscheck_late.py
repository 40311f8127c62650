"""The cross-check where labels come late: what is served is asked for the questions, whose features the evaluator never
had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.holdout import held_out
from streampiped.learn.estimators import equal
from streampiped.records import Batch, Span, origins
from streampiped.stages.base import ApiCall, StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.trainer import Trainer, TrainerOptions
from support.late_labels import Late, late_classes, late_labels

LATE = {"numbers": late_labels(4800, 40.0), "classes": late_classes(2400, 40.0)}
FIGURES = {"numbers": "mse", "classes": "accuracy"}
EACH = pytest.mark.parametrize("kind", LATE)


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage without a directory of its own keeps its files where it is."""
    monkeypatch.chdir(tmp_path)


def stages(holdout: float = 0.2, **options: Any) -> tuple[Trainer, Evaluator]:
    chosen = TrainerOptions.model_validate({"holdout": holdout, "labels": {"id": "id"}, **options})
    scorer = EvaluatorOptions(holdout=holdout)
    return (
        Trainer(chosen, StageContext("trainer", seed=5, pipeline_seed=7)),
        Evaluator(scorer, StageContext("evaluator", pipeline_seed=7)),
    )


def through(late: Late, trainer: Trainer, evaluator: Evaluator, start: int = 0, stop: int | None = None) -> None:
    for batch in list(late.batches())[start:stop]:
        evaluator.process(trainer.process(batch))


def committed(trainer: Trainer, evaluator: Evaluator, epoch: int) -> ApiCall:
    for stage in (trainer, evaluator):
        stage.snapshot()
    trainer.committed(epoch)
    call = evaluator.committed(epoch)
    assert call is not None
    return call


def answered(trainer: Trainer, evaluator: Evaluator, call: ApiCall) -> dict[str, Any]:
    evaluator.api_answer(trainer.api()[call.method](**call.params), None)
    check: dict[str, Any] = evaluator.query("report", {})["operations"]["crosscheck"]
    assert check["error"] is None
    return check


@EACH
def test_the_served_model_is_the_measured_one(kind: str) -> None:
    """Asked for what the questions of the held-out labels had, the model scores nearly what was scored in band; for
    other features it does not."""
    trainer, evaluator = stages()
    through(LATE[kind], trainer, evaluator)
    call = committed(trainer, evaluator, 3)
    check = answered(trainer, evaluator, call)
    figure = FIGURES[kind]
    assert check["rows"] == check["served"]["rows"] == len(call.params["targets"]) > 300
    assert check["served"][figure] == pytest.approx(check["in_band"][figure], rel=0.3)
    turned = {"targets": call.params["targets"][::-1]}
    wrong = trainer.api()["score"](**{**call.params, **turned})[figure]
    assert wrong > 3 * check["in_band"][figure] if kind == "numbers" else wrong < 0.7 * check["in_band"][figure]


def test_what_looks_back_is_asked_with_what_was_known_then() -> None:
    """With every label held out nothing is learned and a mean is served: the answer is what was served in band, for the
    mean of then is what is asked."""
    trainer, evaluator = stages(holdout=1.0)
    through(LATE["numbers"], trainer, evaluator)
    check = answered(trainer, evaluator, committed(trainer, evaluator, 1))
    assert check["served"]["mse"] == pytest.approx(check["in_band"]["mse"], rel=1e-12)


@EACH
def test_each_row_is_the_question_of_its_label(kind: str) -> None:
    """Asked for one label of many, the model answers as it predicts the features of that label's question, whatever
    else is held out and from wherever it comes."""
    late = LATE[kind]
    trainer, _ = stages(members=["ridge"])
    seen: list[tuple[tuple[str, int], int]] = []
    for number, batch in enumerate(late.batches()):
        half, start = batch.rows // 2, number * 64
        spans = (Span("a", start, half), Span("b", start, batch.rows - half))
        moved = Batch.build({name: batch[name] for name in batch.schema.names}, spans=spans)
        rows = np.flatnonzero(held_out(7, moved, 0.2) & np.isfinite(late.labels[start : start + batch.rows]))
        waiting = trainer.process(moved)["probability" if kind == "classes" else "prediction"]
        answers = np.isfinite(waiting)
        seen += [(key, start + int(row)) for key, row in zip(origins(moved, rows), rows, strict=True) if answers[row]]
    trainer.snapshot()
    trainer.committed(1)
    api = trainer.api()
    for (source, position), row in seen[-40:]:
        asked = late.features[np.flatnonzero(late.ids == late.ids[row])[0]].tolist()
        target = [late.label(late.labels[row])]
        found = api["score"](asked={source: [position]}, targets=target)
        assert found == api["score"](rows=[asked], targets=target) | {"age_s": found["age_s"]}


@EACH
def test_restored_stages_ask_and_answer_the_same(kind: str) -> None:
    """Both snapshots restored in fresh objects: the same question, answer and state; a later epoch changes neither, as
    long as the older one is kept."""
    late = LATE[kind]
    trainer, evaluator = stages()
    through(late, trainer, evaluator, stop=50)
    states = trainer.snapshot(), evaluator.snapshot()
    call = committed(trainer, evaluator, 3)
    answer = trainer.api()["score"](**call.params)
    others = stages()
    through(LATE["numbers" if kind == "numbers" else "classes"], *others, stop=7)
    for stage, state in zip(others, states, strict=True):
        stage.restore(state)
        assert equal(stage.snapshot(), state)
    again = committed(*others, 3)
    assert again == call
    assert others[0].api()["score"](**again.params) | {"age_s": 0} == answer | {"age_s": 0}
    through(late, trainer, evaluator, start=50)
    committed(trainer, evaluator, 4)
    assert trainer.api()["score"](**call.params) | {"age_s": 0} == answer | {"age_s": 0}


def test_what_is_not_kept_is_named() -> None:
    """A row that was learned, sources of another form, a model from the disk, and neither rows nor questions: each is a
    ValueError that says so."""
    trainer, evaluator = stages(retain_versions=1)
    through(LATE["numbers"], trainer, evaluator, stop=40)
    committed(trainer, evaluator, 1)
    score = trainer.api()["score"]
    with pytest.raises(ValueError, match=r"no held-out question of \('s', 999999\) is kept"):
        score(asked={"s": [999999]}, targets=[1.0])
    with pytest.raises(ValueError, match="source -> positions"):
        score(asked=[1], targets=[1.0])
    with pytest.raises(ValueError, match="either rows or asked"):
        score(targets=[1.0])
    plain = Trainer(TrainerOptions(), StageContext("trainer", seed=5, pipeline_seed=7))
    plain.process(Batch.build({"x": np.arange(9.0), "y": np.arange(9.0)}, spans=(Span("s", 0, 9),)))
    plain.snapshot()
    plain.committed(1)
    with pytest.raises(ValueError, match="of late labels alone"):
        plain.api()["score"](asked={"s": [1]}, targets=[1.0])
