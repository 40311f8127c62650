"""The example of a user's own stage: found by its name, validated, and as exact over a crash as the built-in ones."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from streampiped.errors import OptionError
from streampiped.records import Batch
from streampiped.stages.base import Stage, StageContext
from support.streams import drain, generator, numbered, same, travelled

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def clip(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class, found as `clip_stage:Clip` with the examples' directory on the path."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("clip_stage").Clip


def made(clip: Any, **options: Any) -> Stage:
    stage: Stage = clip(clip.Options.model_validate(options), StageContext(name="clip"))
    stage.restore(None)
    return stage


def test_values_are_clipped_and_counted(clip: Any) -> None:
    """What is beyond a limit becomes the limit; missing stays missing, other columns stay as they are."""
    batch = Batch.build({"x": np.array([-9.0, 0.5, np.inf, np.nan]), "n": np.arange(4)}, spans=numbered(0, 4).spans)
    stage = made(clip, low=-1, high=1)
    result = stage.process(batch)
    assert result is not None
    assert result["x"].tolist()[:3] == [-1.0, 0.5, 1.0]
    assert np.isnan(result["x"][3])
    assert result["n"].tolist() == [0, 1, 2, 3]
    assert result.spans == batch.spans
    assert stage.query("summary", {}) == {"clipped": {"x": 2}}


def test_nothing_to_do_is_the_batch_itself(clip: Any) -> None:
    """A batch within the limits goes on unchanged."""
    batch = numbered(0, 4)
    assert made(clip, low=-1, high=9).process(batch) is batch


@pytest.mark.parametrize("boundary", range(4))
def test_restore_continues_bit_identically(clip: Any, boundary: int) -> None:
    """Restored at any batch boundary, results and counts are those of one run."""
    batches = drain(generator({"type": "synthetic", "records": 90, "features": 3}, batch_max=30))
    undisturbed = made(clip, low=-1, high=1, columns=["x2", "y"])
    whole = [undisturbed.process(batch) for batch in batches]
    stage = made(clip, low=-1, high=1, columns=["x2", "y"])
    for batch in batches[:boundary]:
        stage.process(batch)
    state = travelled(stage.snapshot())
    stage.process(batches[0])
    stage.restore(state)
    for batch, expected in zip(batches[boundary:], whole[boundary:], strict=True):
        result = stage.process(batch)
        assert result is not None
        assert expected is not None
        assert same(result, expected)
    assert stage.snapshot() == undisturbed.snapshot()


def test_wrong_options_are_told(clip: Any) -> None:
    """Impossible limits and unknown keys are refused when the options are validated, a column nobody has by the
    first batch."""
    for options in ({"low": 1, "high": 1}, {"low": 0, "high": 1, "middle": 0.5}, {"low": 0}):
        with pytest.raises(ValidationError):
            made(clip, **options)
    with pytest.raises(OptionError, match="'z'; there are x"):
        made(clip, low=0, high=1, columns=["z"]).process(numbered(0, 4))
