"""The chain of stages against a plain loop over the same batches."""

from __future__ import annotations

import numpy as np
import pytest

from streampiped.records import Batch, Span, held_out
from streampiped.stages.base import Stage, StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.normalizer import Normalizer, NormalizerOptions
from streampiped.stages.trainer import Trainer, TrainerOptions
from support.reference import STREAMS, batches_of, read_stream, reference_scores

SEED, PIPELINE_SEED = 12345, 7
GROWING = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]


def stages(target: str, *, warm_up: bool) -> list[Stage]:
    context = StageContext("trainer", SEED, PIPELINE_SEED)
    return [
        Normalizer(NormalizerOptions(target=target), context),
        Trainer(TrainerOptions(target=target, warm_up=warm_up), context),
        Evaluator(EvaluatorOptions(target=target), context),
    ]


@pytest.mark.parametrize(
    ("sizes", "warm_up"),
    [(1, True), (16, True), (64, True), (1000, True), (16, False), (64, False), (GROWING, False)],
    ids=str,
)
@pytest.mark.parametrize("name", STREAMS)
def test_the_chain_scores_as_a_plain_loop(name: str, sizes: int | list[int], warm_up: bool) -> None:
    """Normalizer, trainer and evaluator report the MSE and R2 of scikit-learn in a plain loop, to 1e-12."""
    target, columns = STREAMS[name], read_stream(name)
    rows = len(columns[target])
    chain = stages(target, warm_up=warm_up)
    for part in batches_of(rows, sizes):
        span = Span("file", part.start, part.stop - part.start)
        batch: Batch | None = Batch.build({n: v[part] for n, v in columns.items()}, spans=(span,))
        for stage in chain:
            assert batch is not None
            batch = stage.process(batch)
    whole = Batch.build({"y": np.zeros(rows)}, spans=(Span("file", 0, rows),))
    spared = held_out(PIPELINE_SEED, whole, 0.02)
    wanted = reference_scores(columns, target, sizes, held_out=spared, seed=SEED, warm_up=warm_up)
    total = chain[-1].query("report", {})["results"]["total"]
    assert total["mse"] == pytest.approx(wanted["mse"], rel=1e-12)
    assert 1 - total["r2"] == pytest.approx(1 - wanted["r2"], rel=1e-12)
