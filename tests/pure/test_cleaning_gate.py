"""cleaning/column_gate.py and cleaning/label_gate.py: what is believed, mended, re-based, and left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampiped.cleaning.column_gate import Gate
from streampiped.cleaning.label_gate import TOLD, LabelGate
from streampiped.cleaning.look import DEAD_ROWS
from streampiped.cleaning.shift import RECENT
from streampiped.learn.estimators import equal
from support.reference import STREAMS, read_stream

Floats = np.ndarray
BATCHES = (1, 7, 64, 1024)


def through(values: Floats, batch: int, gate: Gate | None = None) -> tuple[Floats, Gate]:
    """One column, or `(columns, rows)`, in batches."""
    table = np.atleast_2d(values)
    gate = gate or Gate(len(table))
    active = np.ones(len(table), dtype=bool)
    parts = [
        gate.take(np.ascontiguousarray(table[:, start : start + batch]), active, impute=True).table
        for start in range(0, table.shape[1], batch)
    ]
    out = np.concatenate(parts, axis=1)
    return (out[0] if np.ndim(values) == 1 else out), gate


def total(gate: Gate, kind: str) -> int:
    return int(gate.counts[kind].sum())


CLEAN = {
    "normal": lambda rng, n: rng.normal(size=n) * 3 + 100,
    "uniform": lambda rng, n: rng.random(n),
    "trend": lambda rng, n: np.arange(n) + rng.normal(size=n),
    "walk": lambda rng, n: np.cumsum(rng.normal(size=n)),
    "binary": lambda rng, n: (rng.random(n) < 0.3).astype(float),
    "rare binary": lambda rng, n: (rng.random(n) < 0.002).astype(float),
    "stairs": lambda rng, n: np.repeat(np.arange(n // 50 + 1), 50)[:n].astype(float),
    "constant": lambda rng, n: np.full(n, 4.0),
}


def test_a_long_first_batch_is_judged_in_few_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first 8,192 rows of a clean column bounds are made anew each time that the rows behind them have doubled,
    not every 64 rows."""
    stretches = 0
    settle = Gate._settle

    def counted(*arguments: Any) -> None:
        nonlocal stretches
        stretches += 1
        settle(*arguments)

    monkeypatch.setattr(Gate, "_settle", counted)
    values = np.random.default_rng(5).normal(size=8192)
    out, _ = through(values, len(values))
    assert stretches <= 10
    assert out.tobytes() == values.tobytes()


def test_a_long_first_batch_of_labels_is_read_one_by_one_for_its_first_rows_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first 64 labels tell level and steps; the rest of a clean batch is taken as a whole, and a spike in it is
    found at its row."""
    asked: list[int] = []
    one_by_one = LabelGate._one_by_one

    def counted(gate: LabelGate, labels: Floats) -> Any:
        asked.append(len(labels))
        return one_by_one(gate, labels)

    monkeypatch.setattr(LabelGate, "_one_by_one", counted)
    labels = np.random.default_rng(6).normal(size=8192)
    bad, rebased = LabelGate().take(labels)
    assert (asked, int(bad.sum()), rebased) == ([64], 0, [])
    labels[5000] = 1e6
    bad, _ = LabelGate().take(labels)
    assert np.flatnonzero(bad).tolist() == [5000]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", CLEAN)
def test_clean_columns_are_left_alone(kind: str, batch: int) -> None:
    """Columns of the kinds that people have come out with the same bits: nothing bounded, re-based or dead."""
    values = CLEAN[kind](np.random.default_rng(1), 4000)
    out, gate = through(values, batch)
    assert [total(gate, each) for each in ("bounded", "rebased", "dead_rows", "imputed")] == [0, 0, 0, 0]
    assert out.tobytes() == values.tobytes()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("draw", ["lognormal", "exponential", "laplace"])
def test_heavy_tails_are_cut_seldom(draw: str, batch: int) -> None:
    """Of skewed and heavy-tailed columns less than 1 % is brought to the bound."""
    values = getattr(np.random.default_rng(2), draw)(size=4000)
    _, gate = through(values, batch)
    assert total(gate, "bounded") < 40
    assert total(gate, "rebased") == 0


@pytest.mark.parametrize("batch", BATCHES)
def test_a_sparse_column_keeps_its_values(batch: int) -> None:
    """Of a column that is 0 in nineteen rows of twenty and about 20 in the others, less than three other values in a
    hundred are brought to the bound."""
    rng = np.random.default_rng(4)
    values = np.where(rng.random(20_000) < 0.05, 20 + 5 * rng.normal(size=20_000), 0.0)
    _, gate = through(values, batch)
    assert total(gate, "bounded") < 0.03 * np.count_nonzero(values)
    assert total(gate, "rebased") == 0


@pytest.mark.parametrize("size", [1e6, 1e12, 1e300])
@pytest.mark.parametrize("batch", BATCHES)
def test_spikes_come_to_the_bound(batch: int, size: float) -> None:
    """One value in fifty that is absurd, from the first rows on, is brought to about eight deviations; the others are
    as they were, and the bounds do not widen."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=6000)
    spiked = values.copy()
    spiked[20::50] = size * np.where(np.arange(len(spiked[20::50])) % 2, 1, -1)
    out, gate = through(spiked, batch)
    hit = np.arange(6000) % 50 == 20
    assert out[~hit].tobytes() == values[~hit].tobytes()
    assert np.abs(out[200:]).max() < 12
    assert total(gate, "rebased") == 0


@pytest.mark.parametrize("batch", BATCHES)
def test_missing_and_infinite_become_the_mean(batch: int) -> None:
    """NaN and infinity are counted apart and replaced by the mean; they teach nothing."""
    values = np.random.default_rng(4).normal(size=2000) + 50
    values[10::20], values[15::40] = np.nan, np.inf
    out, gate = through(values, batch)
    assert np.isfinite(out).all()
    assert np.abs(out[~np.isfinite(values)][5:] - 50).max() < 1
    assert (total(gate, "missing"), total(gate, "infinite"), total(gate, "imputed")) == (100, 50, 150)


@pytest.mark.parametrize("batch", BATCHES)
def test_another_unit_looks_as_before(batch: int) -> None:
    """A column that comes times 1000 from some row on is divided by exactly 1000 once that has lasted, within RECENT
    rows; with the batch in sight, from its first row on."""
    values = np.random.default_rng(5).normal(size=4000) + 3
    changed = values.copy()
    changed[2000:] *= 1000
    out, gate = through(changed, batch)
    assert total(gate, "rebased") == 1
    np.testing.assert_allclose(out[2000 + RECENT :], values[2000 + RECENT :], rtol=1e-12)
    if batch > 2 * RECENT:
        assert total(gate, "bounded") <= RECENT // 2


@pytest.mark.parametrize("batch", BATCHES)
def test_another_level_looks_as_before(batch: int) -> None:
    """A shift by a hundred deviations and a spread of twice the size is mapped to mean and deviation of before."""
    values = np.random.default_rng(6).normal(size=4000)
    changed = np.where(np.arange(4000) < 2000, values, 100 + 2 * values)
    out, gate = through(changed, batch)
    later = out[2000 + 2 * RECENT :]
    assert total(gate, "rebased") == 1
    assert abs(later.mean()) < 0.5
    assert 0.5 < later.std() < 2.0


@pytest.mark.parametrize("batch", BATCHES)
def test_a_burst_of_spikes_is_no_shift(batch: int) -> None:
    """Absurd values for half of RECENT rows are bounded, and believed by nobody."""
    values = np.random.default_rng(7).normal(size=2000)
    values[1000 : 1000 + RECENT // 2] = 1e6
    out, gate = through(values, batch)
    assert total(gate, "rebased") == 0
    assert np.abs(out).max() < 12


@pytest.mark.parametrize("batch", BATCHES)
def test_a_stuck_column_is_dead_until_it_moves(batch: int) -> None:
    """A column that has never repeated a value and sticks is dead: its mean stands in for it, until it moves again."""
    values = np.random.default_rng(8).normal(size=3000) + 5
    values[1000:2000] = 0.0
    out, gate = through(values, batch)
    assert gate.state_of(0) == "live"
    assert np.abs(out[1000 + 2 * DEAD_ROWS : 2000] - 5).max() < 0.5
    assert out[2000:].tobytes() == values[2000:].tobytes()
    assert 1000 - 2 * DEAD_ROWS <= total(gate, "dead_rows") <= 1000
    assert through(values[:1500], batch)[1].state_of(0) == "dead"


@pytest.mark.parametrize("batch", BATCHES)
def test_a_constant_column_may_wake(batch: int) -> None:
    """What has never varied is constant, and believed when it varies."""
    values = np.where(np.arange(2000) < 1000, 0.0, np.random.default_rng(9).normal(size=2000))
    out, gate = through(values, batch)
    assert gate.state_of(0) == "live"
    assert through(values[:900], batch)[1].state_of(0) == "constant"
    assert np.abs(out - values).max() < 1e-12


@pytest.mark.parametrize("cut", [1, 50, 130, 1010, 1900])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_restored_gate_goes_on_bit_for_bit(batch: int, cut: int) -> None:
    """Across spikes, gaps, a shift and a dead stretch."""
    rng = np.random.default_rng(10)
    table = rng.normal(size=(3, 2400))
    table[0, ::90], table[0, ::70] = np.nan, 1e9
    table[1, 1000:] *= 1000
    table[2, 1800:] = 1.0
    _, whole = through(table[:, :cut], batch)
    twin = Gate(3)
    twin.restore(whole.state())
    ours, _ = through(table[:, cut:], batch, whole)
    theirs, _ = through(table[:, cut:], batch, twin)
    assert ours.tobytes() == theirs.tobytes()
    assert equal(whole.state(), twin.state())


@pytest.mark.parametrize("batch", [64, 1024])
def test_a_shift_begins_behind_a_spike_before_it(batch: int) -> None:
    """A spike ten rows before a shift stays one: the values between both are what they were."""
    values = np.random.default_rng(21).normal(size=4000)
    values[3020:] += 1000
    values[3010] = 1e6
    active = np.ones(1, dtype=bool)
    gate, told = Gate(1), []
    for start in range(0, 4000, batch):
        passed = gate.take(values[None, start : start + batch].copy(), active, impute=True)
        told += (start + passed.rebased).tolist()
        if start <= 3011 < start + batch:
            assert passed.table[0, 3011 - start : 3020 - start].tobytes() == values[3011:3020].tobytes()
    assert told == [3020]


@pytest.mark.parametrize("batch", BATCHES)
def test_a_spike_behind_a_shift_is_not_believed(batch: int) -> None:
    """Spikes of 1e12 among the first rows of a new level do not belong to it: neither they nor later ones pass."""
    values = np.random.default_rng(22).normal(size=6000)
    values[3000:] += 1000
    values[3012::100] = 1e12
    out, gate = through(values, batch)
    assert total(gate, "rebased") == 1
    assert np.abs(out[3040:]).max() < 15
    assert gate.high[0] < 1100


# labels


def judged(labels: Floats, batch: int) -> tuple[Floats, list[int], LabelGate]:
    gate, bad, rebased = LabelGate(), [], []
    for start in range(0, len(labels), batch):
        part, rows = gate.take(labels[start : start + batch])
        bad.append(part)
        rebased += [start + row for row in rows]
    return np.concatenate(bad), rebased, gate


LABELS: dict[str, Any] = {
    "walk": lambda rng, n: 40 + np.cumsum(rng.normal(size=n)),
    "growth": lambda rng, n: np.exp(np.arange(n) / n * 4) * (1 + rng.normal(size=n) / 20),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "steps": lambda rng, n: np.repeat(rng.normal(size=n // 200 + 1) * 5, 200)[:n] + rng.normal(size=n),
    "counts": lambda rng, n: rng.poisson(0.3, size=n).astype(float),
    "student": lambda rng, n: rng.standard_t(3, size=n),
    "rare class": lambda rng, n: (rng.random(n) < 0.002).astype(float),
    "constant, then not": lambda rng, n: np.where(np.arange(n) < n // 2, 1.0, rng.normal(size=n)),
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_wander_are_believed(kind: str, seed: int, batch: int) -> None:
    """Of labels that walk, grow, jump, are rare or have long tails none is quarantined, and no level is made anew."""
    labels = LABELS[kind](np.random.default_rng(seed), 4000)
    bad, rebased, _ = judged(labels, batch)
    assert (np.count_nonzero(bad), rebased) == (0, [])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", STREAMS)
def test_labels_of_real_streams_are_believed(name: str, batch: int) -> None:
    """An approval rating and the weights of growing chicks: none is quarantined, however they are cut."""
    bad, rebased, _ = judged(read_stream(name)[STREAMS[name]], batch)
    assert (np.count_nonzero(bad), rebased) == (0, [])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("place", [0, 3, 9, 20, 31])
def test_a_spike_among_the_first_labels_hides_no_later_one(place: int, batch: int) -> None:
    """A label of 1e6 before anything is known is no measure of what is believed: those that come later are bad."""
    labels = np.random.default_rng(14).normal(size=1000)
    labels[[place, 500, 700]] = 1e6
    bad, _, gate = judged(labels, batch)
    assert np.flatnonzero(bad)[-2:].tolist() == [500, 700]
    assert np.count_nonzero(bad) == (3 if place >= 8 else 2)
    assert gate.level.deviation < 2


@pytest.mark.parametrize("batch", BATCHES)
def test_bad_labels_are_quarantined(batch: int) -> None:
    """Missing, infinite and absurd labels, and no others."""
    labels = np.random.default_rng(11).normal(size=4000)
    labels[100::200], labels[150::200], labels[170::200] = np.nan, np.inf, 1e6
    bad, rebased, gate = judged(labels, batch)
    assert np.flatnonzero(bad).tolist() == [row for row in range(4000) if row % 200 in (100, 150, 170)]
    assert (gate.counts["missing"], gate.counts["spikes"], rebased) == (40, 20, [])


@pytest.mark.parametrize("batch", BATCHES)
def test_a_level_that_lasts_is_believed(batch: int) -> None:
    """Labels that are 1000 higher from some row on are believed behind TOLD rows, which are bad; in whatever batches
    they come, since no label may say anything of a row before it."""
    labels = np.random.default_rng(12).normal(size=4000)
    labels[2000:] += 1000
    bad, rebased, gate = judged(labels, batch)
    assert len(rebased) == gate.counts["rebased"] == 1
    assert rebased == [2000 + TOLD - 1]
    assert np.flatnonzero(bad).tolist() == list(range(2000, rebased[0] + 1))


def test_every_level_of_a_batch_is_told() -> None:
    """Labels that rise and fall again within one batch: both rows are told."""
    labels = np.random.default_rng(15).normal(size=2048)
    labels[1300:1600] += 1000
    assert judged(labels, 1024)[1] == [1300 + TOLD - 1, 1600 + TOLD - 1]


@pytest.mark.parametrize("cut", [1, 40, 1995, 2010])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_restored_label_gate_goes_on_bit_for_bit(batch: int, cut: int) -> None:
    """Across spikes and another level."""
    labels = np.random.default_rng(13).normal(size=3000)
    labels[2000:] += 1000
    labels[::77] = np.nan
    _, _, whole = judged(labels[:cut], batch)
    twin = LabelGate()
    twin.restore(whole.state())
    for start in range(cut, 3000, batch):
        part = labels[start : start + batch]
        ours, theirs = whole.take(part), twin.take(part)
        assert ours[0].tolist() == theirs[0].tolist()
        assert ours[1] == theirs[1]
    assert equal(whole.state(), twin.state())


def grouped(seed: int, rows: int) -> Floats:
    """A column that has one value for each group of rows, as in many tables: it jumps to and fro."""
    rng = np.random.default_rng(seed)
    levels = rng.choice([0.0, 1.0, 1.0 + 1e-6, 50.0, -3e3, 1e9], size=rows) + rng.choice([0.0, 1e-3]) * rng.normal(
        size=rows
    )
    return np.repeat(levels, rng.integers(1, 60, size=rows))[:rows]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("seed", range(6))
def test_every_column_comes_to_an_end(seed: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a column jumps, a value is looked at a few times and no more: a level that most of what comes is beyond
    as well is not believed again at the same row, for ever."""
    values, calls, stretch = grouped(seed, 600), [0], Gate._stretch

    def counted(gate: Gate, *args: Any, **options: Any) -> tuple[int, bool]:
        calls[0] += 1
        assert calls[0] <= 2 * len(values)
        return stretch(gate, *args, **options)

    monkeypatch.setattr(Gate, "_stretch", counted)
    out, _ = through(values, batch)
    assert len(out) == len(values)
    assert np.isfinite(out).all()
