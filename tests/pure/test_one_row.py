"""A batch of one row takes shorter ways to the same bits: each is held to what it shortens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampiped.cleaning import column_gate
from streampiped.cleaning.column_gate import WARM_ROWS, Gate
from streampiped.cleaning.label_gate import LabelGate
from streampiped.cleaning.look import Look
from streampiped.holdout import held_out
from streampiped.learn.champion import Contest
from streampiped.learn.drift import ALARM, BOUND, WARM_UP, PageHinkley
from streampiped.learn.estimators import equal
from streampiped.learn.lineup import lineup
from streampiped.learn.members.estimator import EstimatorMember
from streampiped.learn.model import OnlineModel
from streampiped.learn.moments import Moments
from streampiped.learn.past import LAGS, MEMORIES, Looks, Past
from streampiped.learn.pool import Pool
from streampiped.learn.scaling import Standardiser
from streampiped.learn.sgd import SgdRecipe
from streampiped.measure import recent as recent_scores
from streampiped.measure import tally as tallies
from streampiped.measure.discounted import DiscountedMean
from streampiped.measure.metrics import Guesses
from streampiped.measure.recent import Recent
from streampiped.measure.tally import Tally, merged, split, state_of
from streampiped.records import Array, Batch, Span

ROWS = 300
SEEDS = range(5)


def labels_of(seed: int) -> Array:
    """With a level of its own for each seed, repetitions, and something far off."""
    generator = np.random.Generator(np.random.PCG64(seed))
    labels = 10.0**seed + generator.standard_normal(ROWS)
    labels[50:60] = labels[50]
    labels[200] += 1e6
    return labels


@pytest.mark.parametrize("seed", SEEDS)
def test_moments_and_scale(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows one by one, some with missing or infinite values, some at a limit or a little beyond, with a column that is
    constant or not: moments, bounds and scale as without the shorter ways."""
    others = np.full(ROWS, 7.0), labels_of(seed)[::-1] * 1e3

    def run() -> tuple[Any, list[Array]]:
        scaler, seen = Standardiser(3, 4.0), []
        for row in np.stack((labels_of(seed), labels_of(seed + 1) ** 2, others[seed % 2])).T:
            row[1] = np.nan if int(row[0] * 1e6) % 11 == 0 else row[1]
            if len(seen) in (4 * 150, 4 * 180):
                far = 4.0 if len(seen) == 4 * 150 else 4.8
                row[1:] = (scaler.moments.mean + far * scaler.deviation())[1:]
            row[1] = np.inf if len(seen) == 4 * 250 else row[1]
            seen += [scaler.learn(row[:, None]).copy(), *scaler.scale(), scaler.deviation()]
        return scaler.state(), seen

    short = run()
    monkeypatch.setattr(Standardiser, "_learn_row", lambda *_: False)
    monkeypatch.setattr(Moments, "_update_one", lambda *_: False)
    long = run()
    assert equal(short[0], long[0])
    assert equal(short[1], long[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_past(seed: int) -> None:
    """What a row may know of the labels before it, row by row: by their definition, and as in one block of two."""
    labels, past = labels_of(seed), Past()
    known = np.arange(ROWS) % 7 != 3
    told: list[float] = []
    for row in range(0, ROWS, 2):
        twin, pair = past.copy(), slice(row, row + 2)
        whole = twin.follow(labels[pair], known[pair])
        for place in range(2):
            one = past.follow(labels[row + place : row + place + 1], known[row + place : row + place + 1])
            for name in Looks.__slots__:
                assert getattr(one, name)[0].tobytes() == getattr(whole, name)[place].tobytes() or name == "mean"
            assert one.mean[0] == pytest.approx(whole.mean[place], rel=1e-12)  # its sums begin anew with each block
            newest = told[::-1][:LAGS]
            assert one.lags[0].tolist() == (newest + newest[-1:] * (LAGS - len(newest)) if told else [0.0] * LAGS)
            assert one.discounted.shape == (1, len(MEMORIES))
            told += [labels[row + place]] if known[row + place] else []
        past = twin


@pytest.mark.parametrize("seed", SEEDS)
def test_drift(seed: int) -> None:
    """An alarm is found in a row, and the row learned, as by the sums of a block."""
    residuals = np.abs(labels_of(seed) - 10.0**seed)
    one = PageHinkley()
    for size in residuals:
        row = np.array([size])
        found, heights = one.find(row), one._heights(row) if one._mean else np.zeros(1)
        assert (found is not None) == (one.rows >= WARM_UP and bool(heights[0] > ALARM)) or one._mean == 0.0
        assert one._height(size) == heights[0] if one._mean else True
        twin = PageHinkley()
        twin.restore(one.state())
        one.learn(row)
        if twin.rows >= WARM_UP and twin._mean > 0.0:
            twin._sum, size = float(twin._heights(row)[-1]), np.minimum(row, BOUND * twin._mean).sum()
        twin._follow(float(size), 1)
        assert one.state() == twin.state()


@pytest.mark.parametrize("seed", SEEDS)
def test_guesses_and_scores(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running mean, last value, discounted mean and recent scores, one row at a time, against the same in arrays."""
    labels = labels_of(seed)
    labels[250] = 1e300

    def run() -> list[Any]:
        guesses, discounted, recent, seen = Guesses(), DiscountedMean(), Recent(), []
        for row in range(ROWS):
            part = labels[row : row + 1]
            seen += [*guesses.follow(part), discounted.follow(part)]
            recent.add(part, part * 0.9)
        return [*seen, guesses.state(), discounted.state(), recent.state()]

    with np.errstate(all="ignore"):
        short = run()
        monkeypatch.setattr(recent_scores, "sums_of_one", recent_scores.sums_of)
        monkeypatch.setattr(Guesses, "_follow_one", _guesses_by_sums)
        monkeypatch.setattr(DiscountedMean, "_follow_one", _discounted_by_sums)
        assert equal(short, run())


def _guesses_by_sums(self: Guesses, target: float) -> tuple[Array, Array]:
    targets = np.array([target])
    origin = self.mean if self.rows else target
    known = self.rows + np.arange(1, 2)
    means = origin + np.cumsum(targets - origin) / known
    before = np.array([self.mean]), np.array([self.last])
    self.rows, self.mean, self.last = int(known[-1]), float(means[-1]), float(targets[-1])
    return before


def _discounted_by_sums(self: DiscountedMean, target: float) -> Array:
    result, part = np.array([self.mean]), np.array([target])
    if not self.rows:
        self.mean = target
    means = np.cumsum(part - self.mean) / self._weights(1) + self.mean
    self.mean, self.rows = float(means[0]), self.rows + 1
    if not np.isfinite(self.mean):
        self.mean, self.rows = 0.0, 0
    return result


@pytest.mark.parametrize("seed", SEEDS)
def test_label_gate(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels one by one: what is believed is the same to the last bit where one is believed as a block is."""

    def run() -> list[Any]:
        gate = LabelGate()
        bad = [gate.take(np.array([label]))[0] for label in labels_of(seed)]
        return [*bad, gate.state()]

    def by_arrays(self: LabelGate, labels: Array) -> None:
        series = np.concatenate(([self.last], labels)) if np.isfinite(self.last) else labels
        self.steps.learn(series[1:] - series[:-1])
        self.level.learn(labels)
        self.last = float(labels[-1])
        self.low, self.high = min(self.low, float(labels.min())), max(self.high, float(labels.max()))

    short = run()
    monkeypatch.setattr(LabelGate, "_believe", by_arrays)
    assert equal(short, run())


def test_held_out_rows() -> None:
    """A row is held out or not whether it comes alone or among others, at any position and share."""
    for share in (0.0, 0.02, 0.5, 1.0):
        for start in (0, 7, 2**40, 2**63 - 200):
            column = {"x": np.zeros(100)}
            whole = held_out(3, Batch.build(column, spans=(Span("s", start, 100),)), share)
            alone = [
                held_out(3, Batch.build({"x": [0.0]}, spans=(Span("s", start + n, 1),)), share) for n in range(100)
            ]
            assert whole.tolist() == np.concatenate(alone).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_number_is_scaled_as_a_column(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The single column of a target, value by value, with one far off and one that is infinite: bounds, moments and
    scale as of arrays."""
    labels = labels_of(seed)
    labels[10], labels[280:] = np.nan, labels[280:] * 50.0

    def run() -> tuple[Any, list[Array]]:
        scaler, seen = Standardiser(1, 4.0), []
        for label in labels:
            seen += [scaler.learn(np.array([[label]])), *scaler.scale(), scaler.deviation()]
        return scaler.state(), seen

    short = run()
    monkeypatch.setattr(Standardiser, "_learn_number", lambda *_: False)
    monkeypatch.setattr(Moments, "_update_one", lambda *_: False)
    assert equal(list(short), list(run()))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_of_a_pool(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows one by one through all that compete, with labels that are missing, held out or far off, features that make
    an answer wild, a drift and a shift of the level: what is served, and what the pool is behind it, as of a block."""
    generator = np.random.Generator(np.random.PCG64(seed))
    features = generator.standard_normal((2 * ROWS, 3))
    labels = 10.0**seed + features @ np.array([1.0, -2.0, 0.5]) + 0.1 * generator.standard_normal(2 * ROWS)
    labels[ROWS:] += 30.0 * features[ROWS:, 0]
    features[150], labels[220] = 1e9, 1e12
    known = np.arange(2 * ROWS) % 13 != 5
    known[:2] = known[220] = False
    learnable = known & (np.arange(2 * ROWS) % 17 != 3)

    def run() -> list[Any]:
        def estimator() -> EstimatorMember:
            recipe = SgdRecipe({"learning_rate": "constant", "eta0": 0.01}, seed)
            return EstimatorMember(recipe, 3, scale_target=True, limit=10.0)

        pool, seen = Pool(lineup(None, 3, estimator, "sgd"), 3), []
        for row in range(2 * ROWS):
            if row == 2 * ROWS - 50:
                pool.label_shifted(labels[row : row + 1])
            one = slice(row, row + 1)
            forecast = pool.work(features[one], labels[one], known[one], learnable[one])
            seen += [forecast.prediction, forecast.low, forecast.high, forecast.fallback, forecast.fallbacks]
        return [seen, pool.state(), pool.generation]

    short = run()
    monkeypatch.setattr(Pool, "_work_one", Pool._work_block)
    monkeypatch.setattr(OnlineModel, "_unscaled", lambda *_: np.nan)
    monkeypatch.setattr(Contest, "_may_be_beaten", lambda *_: True)
    long = run()
    assert short[2] > 1
    assert equal(short, long)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_contest_by_one_row(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who becomes champion, and every sum, as without the look whether anybody may."""
    losses = np.random.Generator(np.random.PCG64(seed)).standard_normal((2000, 4)) ** 2
    losses[:, 1] *= np.where(np.arange(2000) // 500 % 2, 0.5, 1.5)

    def run() -> list[Any]:
        contest = Contest((True, False, False, True))
        return [[contest.follow(losses[row : row + 1]) for row in range(2000)], contest.state()]

    short = run()
    monkeypatch.setattr(Contest, "_may_be_beaten", lambda *_: True)
    assert short[0] != [[]] * 2000
    assert repr(short[0]) == repr((long := run())[0])
    assert equal(short[1], long[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_in_the_gate(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows one by one, with values far off, missing, repeated and of another level: what passes and what is believed
    are as where least, most, runs and moments are those of a block."""
    table = np.stack((labels_of(seed), labels_of(seed + 1)[::-1], np.repeat(np.arange(ROWS // 20), 20) * 1.0))
    table[1, 100:150] += 1e5
    table[0, 70] = np.nan

    def run() -> list[Any]:
        gate, every = Gate(3), np.ones(3, dtype=np.bool_)
        seen = [gate.take(table[:, row : row + 1], every, impute=True).table.copy() for row in range(ROWS)]
        return [seen, gate.state()]

    short = run()
    monkeypatch.setattr(column_gate, "look_at", _look_by_passes)
    monkeypatch.setattr(column_gate, "moments_of", _moments_by_passes)
    monkeypatch.setattr(Look, "tail", lambda look, run: np.where(look.begins, run + 1, 0))
    monkeypatch.setattr(Gate, "_learn_all", lambda gate, look: gate._learn_some(look, np.ones(3, np.bool_), None))
    monkeypatch.setattr(Gate, "_is_warm", lambda gate: bool((gate.judged >= WARM_ROWS).all()))
    assert equal(short, run())


def _look_by_passes(table: Array, last: Array) -> Look:
    same = table[:, 1:] == table[:, :-1]
    least, most = np.minimum.reduce(table, axis=1), np.maximum.reduce(table, axis=1)
    return Look(table, least, most, same, table[:, 0] == last, np.count_nonzero(same, axis=1))


def _moments_by_passes(table: Array) -> tuple[Array, Array]:
    mean = np.add.reduce(table, axis=1) / table.shape[1]
    return mean, np.add.reduce(np.square(table - mean[:, None]), axis=1) / table.shape[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_is_tallied(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of rows one by one, held out or not, with an interval, one that holds the target or none: as of blocks."""
    labels = labels_of(seed)
    predicted = np.stack((labels * 0.9, labels - 1.0, np.full(ROWS, 3.0)))
    predicted[0, 17] = 1e200
    nobody, itself = np.zeros(0, dtype=np.intp), np.zeros(1, dtype=np.intp)
    insides = [None, np.array([True]), np.array([False]), *(np.array([n], dtype=np.int8) for n in (-1, 0, 1))]

    def run() -> list[Any]:
        made: tuple[list[Tally], list[Tally]] = [], []
        for row in range(ROWS):
            spared = itself if row % 5 == 2 else nobody
            pair = split(labels[row : row + 1], predicted[:, row : row + 1], spared, insides[row % len(insides)])
            for each, some in zip(pair, made, strict=True):
                some.append(each)
        return [state_of([*some, merged(some, 3)]) for some in made]

    with np.errstate(over="ignore"):
        short = run()
        monkeypatch.setattr(tallies, "_fill_one", _tallied_as_a_block)
        assert equal(short, run())


def _tallied_as_a_block(tally: Tally, target: float, predicted: Array, inside: Any) -> None:
    if inside is not None:
        tally.intervals, tally.covered = int(np.count_nonzero(inside >= 0)), int(np.count_nonzero(inside > 0))
    errors = np.abs(predicted - target)
    tally.rows, tally.origin = 1, target
    tally.absolute, tally.squared = (np.add.reduce(each, axis=1).tolist() for each in (errors, errors * errors))
