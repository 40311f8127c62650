"""The benchmark's stages in one process against the daemon."""

from __future__ import annotations

import numpy as np
import pytest

from bench import inline, pipeline
from bench.streams import load

pytestmark = pytest.mark.system


def test_inline_serves_what_the_daemon_serves() -> None:
    """The same stream, through five processes and in one, has the same predictions and the same results, to the last
    bit."""
    stream = load("chick")
    ran, alone = pipeline.run(stream, batch=100), inline.run(stream, batch=100)
    assert ran.deaths == 0
    assert set(ran.served) == set(alone.served)
    for name, values in alone.served.items():
        assert np.array_equal(values, ran.served[name], equal_nan=True), name
    assert alone.results == ran.results
    assert ran.results["total"]["r2"] == pytest.approx(ran.figures().r2, rel=1e-9)
