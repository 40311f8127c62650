"""What the supervisor has seen, as rows of the service monitor's history."""

from __future__ import annotations

from typing import Any

import pytest

from streampiped.stages.pipeline_flow import FLOWS, PIPELINE, WORST, rows
from support.observations import observation, row


def by_name(before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    return {name: dict(zip(FLOWS, values, strict=True)) for name, values in rows(before, after)}


def test_rates_and_epochs_are_those_in_between() -> None:
    """Records and epochs between two observations, over the time between them; percentiles as they were told."""
    found = by_name(observation(2000.0, 1000, 4), observation(2002.0, 1500, 6))
    assert set(found) == {"numbers", "kept", PIPELINE}
    assert found["kept"]["records_in_per_s"] == found[PIPELINE]["records_out_per_s"] == 250.0
    assert (found["kept"]["work_p95_s"], found["kept"]["latency_p99_s"]) == (0.008, 0.016)
    assert found[PIPELINE]["latency_p50_s"] == 0.002
    assert found[PIPELINE]["epoch_s"] == pytest.approx(0.05)
    assert found[PIPELINE]["epoch_fsync_s"] == pytest.approx(0.01)
    assert found["kept"]["epoch_s"] is None


def test_the_first_one_has_no_rates() -> None:
    """Without an observation before there is nothing to take a difference from."""
    found = by_name(None, observation())
    assert found["kept"]["records_in_per_s"] is found[PIPELINE]["records_out_per_s"] is None
    assert found[PIPELINE]["epoch_s"] is None
    assert found["kept"]["lag_s"] == 0.012


def test_health_is_a_rank() -> None:
    """The worse, the higher, so that a minute keeps the worst."""
    ill = observation(health="failed", processes=[row("kept", "sink", health="lagging")])
    found = by_name(None, ill)
    assert (found["kept"]["health"], found[PIPELINE]["health"]) == (1, 4)
    assert set(WORST) <= set(FLOWS)
