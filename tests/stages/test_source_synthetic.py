"""The synthetic stream: what a record is depends on (seed, record number) alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.records import Array, Batch
from streampiped.sources.synthetic import BLOCK_ROWS, SyntheticOptions, SyntheticSource
from support.streams import drain, generator

DEFECTS = {
    "missing": 0.01,
    "infinite": 0.005,
    "spikes": 0.002,
    "bad_labels": 0.01,
    "unit_change": {"at": 5000, "column": "x2", "factor": 100.0},
    "dead": [{"at": 6000, "column": "x3"}],
}


def source(stage_seed: int = 7, **options: Any) -> SyntheticSource:
    return SyntheticSource(SyntheticOptions.model_validate(options), "generator", stage_seed)


def table(batch: Batch) -> Array:
    return batch.matrix(batch.schema.floats)


WHOLE = table(source(features=3, drift_at=[1500, 4096, 9000], defects=DEFECTS).read(3 * BLOCK_ROWS)).copy()


@given(start=st.integers(0, 3 * BLOCK_ROWS - 1), counts=st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_any_range_has_the_same_bits(start: int, counts: list[int]) -> None:
    """Records from any position on, in batches of any sizes, are those of one large batch from the beginning."""
    made = source(features=3, drift_at=[1500, 4096, 9000], defects=DEFECTS)
    made.seek({"row": start, "defects": {}})
    for count in counts:
        size = min(count, len(WHOLE) - start)
        assert table(made.read(size)).tobytes("F") == WHOLE[start : start + size].tobytes("F")
        start += size
        if start == len(WHOLE):
            break


def test_columns_are_aligned_as_in_every_batch() -> None:
    """The connector's own block has the layout of `Batch.build`, zero padding included."""
    batch = source(features=3).read(13)
    rebuilt = Batch.build(batch.columns())
    assert batch.floats.data.tobytes() == rebuilt.floats.data.tobytes()
    assert batch.floats.data.ctypes.data % 64 == 0


def test_seeds_differ() -> None:
    """Another seed is another stream; the option wins over the stage's seed."""
    first, second = source(1).read(10), source(2).read(10)
    assert not np.array_equal(first["x1"], second["x1"])
    assert source(2, seed=1).read(10)["y"].tobytes() == first["y"].tobytes()


def test_target_is_linear_up_to_noise() -> None:
    """Least squares finds the coefficients that the source tells, and what is left has the noise's deviation."""
    made = source(features=4, noise=0.1)
    batch = made.read(50_000)
    design = np.column_stack([batch[f"x{i}"] for i in range(1, 5)] + [np.ones(batch.rows)])
    found, *_ = np.linalg.lstsq(design, batch["y"], rcond=None)
    assert found == pytest.approx(made.coefficients(0), abs=0.01)
    assert np.std(batch["y"] - design @ found) == pytest.approx(0.1, rel=0.02)


def test_drift_begins_at_its_record() -> None:
    """Up to the record before a drift the old coefficients hold, from it on new ones; features stay."""
    steady, drifting = source(noise=0.0), source(noise=0.0, drift_at=[5000])
    a, b = steady.read(6000), drifting.read(6000)
    assert a["x1"].tobytes() == b["x1"].tobytes()
    assert a["y"][:5000].tobytes() == b["y"][:5000].tobytes()
    assert np.count_nonzero(a["y"][5000:] == b["y"][5000:]) == 0


def test_nonlinearity_is_added() -> None:
    """The nonlinear part is sin(2 x1) + x1 x2, times its weight."""
    plain, bent = source(features=2).read(100), source(features=2, nonlinearity=0.5).read(100)
    expected = plain["y"] + 0.5 * (np.sin(2 * plain["x1"]) + plain["x1"] * plain["x2"])
    assert bent["y"] == pytest.approx(expected, rel=1e-12)


def test_defects_are_where_the_counts_say() -> None:
    """Compared with the clean stream, the damaged cells are exactly as many as were counted."""
    options: dict[str, Any] = {"missing": 0.01, "bad_labels": 0.02}
    made = source(features=3, defects=options)
    damaged, clean = table(made.read(9000)), table(source(features=3).read(9000))
    counts = made.summary()["defects"]
    assert np.count_nonzero(np.isnan(damaged[:, :3])) == counts["missing"] == pytest.approx(270, rel=0.3)
    assert np.count_nonzero(damaged[:, 3] != clean[:, 3]) == counts["bad_labels"] == pytest.approx(180, rel=0.3)


def test_defect_kinds_do_what_they_say() -> None:
    """Infinite, far away, in another unit, stuck: each kind leaves its own trace and its count."""
    made = source(features=3, defects={**DEFECTS, "missing": 0.0})
    damaged, clean = made.read(9000), source(features=3).read(9000)
    counts = made.summary()["defects"]
    infinite = sum(int(np.isinf(damaged[f"x{i}"]).sum()) for i in (1, 2, 3))
    assert 0 < infinite <= counts["infinite"]  # a dead column hides some
    assert np.abs(damaged["x1"][np.isfinite(damaged["x1"])]).max() > 900
    assert counts["unit_change"] == 4000
    assert damaged["x2"][8999] == clean["x2"][8999] * 100.0
    assert counts["dead"] == 3000
    assert not damaged["x3"][6000:].any()


def test_kinds_are_independent() -> None:
    """Kinds with the same share hit other cells, and coefficients are no records: every use has its own draws."""
    made = source(features=3, defects={"missing": 0.05, "infinite": 0.05})
    damaged = table(made.read(9000))
    assert np.count_nonzero(np.isnan(damaged)) > 0.9 * made.summary()["defects"]["missing"]
    clean = source(features=3)
    assert not set(clean.coefficients(0)) & set(table(clean.read(9000)).ravel())


def test_counts_do_not_depend_on_batches() -> None:
    """Defects are counted for the records given out, the same for any batches, also from a position on."""
    options: dict[str, Any] = {"type": "synthetic", "records": 9000, "features": 3, "defects": DEFECTS}
    one, many = generator(options, batch_max=9000), generator(options, batch_max=70)
    drain(one)
    drain(many, count=60)
    resumed = generator(options, batch_max=1000)
    resumed.restore(many.snapshot())
    drain(resumed)
    assert resumed.query("summary", {})["defects"] == one.query("summary", {})["defects"]
