"""Gate, trainer and evaluator behind each other, and labels that nobody should have to believe."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from streampiped.records import Batch, Span
from streampiped.stages.base import Stage, StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.normalizer import Normalizer, NormalizerOptions
from streampiped.stages.trainer import Trainer, TrainerOptions

ROWS = 4_000
Floats = np.ndarray


def through(features: Floats, labels: Floats, batch: int = 256) -> tuple[Floats, dict[str, Any]]:
    """What was served, and what is reported."""
    chain: list[Stage] = [
        Normalizer(NormalizerOptions(), StageContext("normalizer")),
        Trainer(TrainerOptions(), StageContext("trainer")),
        Evaluator(EvaluatorOptions(last=1_000), StageContext("evaluator")),
    ]
    served = []
    for start in range(0, len(labels), batch):
        columns = {f"x{n}": values[start : start + batch] for n, values in enumerate(features)}
        rows = len(labels[start : start + batch])
        passed: Batch | None = Batch.build(
            {**columns, "y": labels[start : start + batch]}, spans=(Span("s", start, rows),)
        )
        for stage in chain:
            assert passed is not None
            passed = stage.process(passed)
        assert passed is not None
        served.append([passed[name] for name in ("prediction", "prediction_low", "prediction_high")])
    return np.concatenate(served, axis=1), chain[-1].query("report", {"sections": {}})["results"]


def stream() -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3, ROWS))
    return features, features.sum(axis=0) + 0.3 * rng.normal(size=ROWS)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12, 1e100])
@pytest.mark.parametrize("place", [0, 1, 7, 12])
def test_one_absurd_label_among_the_first_is_forgotten(place: int, size: float) -> None:
    """Believed for want of others to compare it with, it costs nothing of what is learned behind the first rows, nor do
    the guesses suffer that the model is compared with."""
    features, labels = stream()
    labels[place] = size
    served, report = through(features, labels)
    later = slice(ROWS // 2, ROWS)
    errors = labels[later] - served[0, later]
    assert np.mean(errors**2) < 0.05 * labels[later].var()
    assert report["verdict"] == "good"
    assert report["baselines"]["running_mean"]["last"]["mse"] is not None


@pytest.mark.parametrize("size", [1e70, 1e160, 2.5e307])
def test_no_answer_is_nan_however_large_numbers_are(size: float) -> None:
    """Labels and features that no square can be taken of are no labels and no features; nothing warns, every answer is
    a number, and every bound is one as soon as an error is known (of labels that are none: never)."""
    features, labels = stream()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scaled in ((features, labels * size), (features * size, labels)):
            served, _ = through(*scaled)
            assert np.isfinite(served[0]).all()
            bounded = np.isfinite(served[1:]).all(axis=0)
            assert bounded[5:].all() or not bounded.any()
