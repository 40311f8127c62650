"""What is believed of each column, and what is done with a value that is not: the input gate's statistics.

Per column: a discounted mean and deviation that single spikes cannot move, the range of what was believed, and a map
from the column's values to its output, which is the identity until a shift has lasted. A value beyond LIMIT deviations
and beyond everything that was believed before is brought to the bound. When more than half of the last RECENT values
are beyond, it is no spike but a shift: what comes is believed, and mapped so that it looks as what came before.

A batch is looked at as a whole: a shift that shows in it is believed from its first row on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from streampiped.cleaning.look import NOWHERE, Flags, Look, Passed, chosen, filled, look_at, moments_of, stuck_rows
from streampiped.cleaning.shift import RECENT, Map, first_bounds, first_of_shift, level_of, remapped
from streampiped.learn.scaling import CONSTANT_BELOW, CONSTANT_RELATIVE, FLOAT_MAX, LARGEST
from streampiped.records import Array, IntArray

LIMIT: Final = 8.0  # standard deviations
MEMORY: Final = 1000.0  # rows that mean and deviation remember
TRIMMED: Final = 4.0  # deviations as which a value beyond counts: a share of them below 1/16 cannot widen the bounds
FEW: Final = 1 / 16  # of the values beyond: so many spikes are judged at once, more may be a column that wanders
WARM_ROWS: Final = 100  # values before mean and deviation are known; until then median and MAD judge
STRETCH: Final = 64  # values judged by the same bounds, where many are beyond: bounds follow a column that wanders
KEPT: Final = np.exp(-1 / MEMORY)  # of the weight, by one row
COUNTS: Final = ("missing", "infinite", "imputed", "bounded", "rebased", "dead_rows")
PARTS: Final = ("mean", "variance", "weight", "low", "high", "scale", "shift", "last")


class Gate:
    """State of `width` columns. NaN is missing; infinite values become missing."""

    def __init__(self, width: int, limit: float = LIMIT) -> None:
        self.width, self.limit = width, limit
        self.seen: IntArray = np.zeros(width, dtype=np.int64)
        """Finite values."""
        self.judged: IntArray = np.zeros(width, dtype=np.int64)
        """Of these, since the column varied for the first time: a constant one tells nothing of what is absurd."""
        self.counts: dict[str, IntArray] = {name: np.zeros(width, dtype=np.int64) for name in COUNTS}
        self.mean, self.variance, self.weight = (np.zeros(width) for _ in range(3))
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)  # of what was believed
        self.scale, self.shift = np.ones(width), np.zeros(width)  # output = value * scale + shift
        self.last = np.full(width, np.nan)
        self.run: IntArray = np.zeros(width, dtype=np.int64)  # values before the next that are equal to the last
        self.repeats: IntArray = np.zeros(width, dtype=np.int64)  # values equal to the one before, but for dead rows
        self.varied: Flags = np.zeros(width, dtype=np.bool_)
        self._warm = False  # every column has been judged by WARM_ROWS values
        self._mapped: Flags | None = None  # columns whose map is not the identity, once it was asked for
        self._first: list[list[float]] = [[] for _ in range(width)]
        self._recent = np.zeros((width, RECENT))  # the newest values, and whether they were beyond
        self._beyond: Flags = np.zeros((width, RECENT), dtype=np.bool_)

    def take(self, table: Array, active: Flags, *, impute: bool) -> Passed:
        """Take in `(columns, rows)`, at least one row. What is not `active` is counted and left as it is; the very same
        table comes back when nothing is to be done."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._take(table, active, impute=impute)

    def _take(self, table: Array, active: Flags, *, impute: bool) -> Passed:
        look, came, present = look_at(table, self.last), table, None
        if not ((look.least >= -LARGEST) & (look.most <= LARGEST)).all():  # also with a NaN
            present = np.abs(table) <= LARGEST
            table = np.where(present | np.isnan(table), table, np.inf)
            look = look_at(filled(table, present, self.last), self.last)
        low, high = self.bounds()
        clean = (look.least >= low) & (look.most <= high)  # false with a NaN
        if not self._is_warm():
            every = table.shape[1] - 1
            constant = ~self.varied & (look.repeats == every) & (look.begins | np.isnan(self.last))
            clean &= (self.judged >= WARM_ROWS) | constant
        if np.count_nonzero(self._beyond):
            clean &= ~self._beyond.any(axis=1)
        clean &= ~self._may_be_stuck(look)
        mapped = self._mapped = (self.scale != 1.0) | (self.shift != 0.0) if self._mapped is None else self._mapped
        self._learn(look, clean, present)
        if present is None and np.count_nonzero(clean) == self.width and not np.count_nonzero(mapped):
            return Passed(table, None, None, NOWHERE)
        out = np.where((clean & mapped)[:, None], table * self.scale[:, None] + self.shift[:, None], table)
        imputed, bounded = (np.zeros(table.shape, dtype=np.bool_) for _ in range(2))
        if present is not None:
            self._fill(table, out, imputed, ~present & clean[:, None], active if impute else np.zeros_like(active))
        rebased: set[int] = set()
        for column in map(int, np.flatnonzero(~clean)):
            fill = impute and bool(active[column])
            rows = self._column(column, table[column], out[column], imputed[column], bounded[column], impute=fill)
            rebased.update(rows if active[column] else ())
        if not active.all():
            out[~active] = came[~active]
            imputed[~active] = bounded[~active] = False
        return Passed(out, imputed, bounded, np.array(sorted(rebased), dtype=np.int64))

    def _fill(self, table: Array, out: Array, imputed: Flags, absent: Flags, fill: Flags) -> None:
        """Count what is missing, and put the mean in its place where that is wanted."""
        self.count_missing(np.where(absent, table, 0.0))
        out[absent] = np.nan
        imputed |= absent & fill[:, None]
        np.copyto(out, (self.mean * self.scale + self.shift)[:, None], where=imputed)
        self.counts["imputed"] = self.counts["imputed"] + np.count_nonzero(imputed, axis=1)

    def count_missing(self, table: Array) -> None:
        """Count what is missing in rows that are not taken in."""
        empty, gone = np.isnan(table).sum(axis=1), (~np.isfinite(table)).sum(axis=1)
        self.counts["missing"] = self.counts["missing"] + empty
        self.counts["infinite"] = self.counts["infinite"] + gone - empty

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {
            **{name: getattr(self, name) for name in (*PARTS, "seen", "judged", "run", "repeats")},
            "varied": self.varied.astype(np.int64),
            "counts": dict(self.counts),
            "first": [np.array(values) for values in self._first],
            "recent": self._recent,
            "beyond": self._beyond.astype(np.int64),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for name in PARTS:
            setattr(self, name, np.array(state[name], dtype=np.float64))
        for name in ("seen", "judged", "run", "repeats"):
            setattr(self, name, np.array(state[name], dtype=np.int64))
        self.varied = np.array(state["varied"], dtype=np.bool_)
        self._warm, self._mapped = False, None
        self.counts = {name: np.array(state["counts"][name], dtype=np.int64) for name in COUNTS}
        self._first = [np.array(values, dtype=np.float64).tolist() for values in state["first"]]
        self._recent = np.array(state["recent"], dtype=np.float64).reshape(self.width, RECENT)
        self._beyond = np.array(state["beyond"], dtype=np.bool_).reshape(self.width, RECENT)

    def deviation(self) -> Array:
        """Standard deviations; 0 for what is constant up to rounding."""
        found: Array = np.sqrt(self.variance)
        constant = found <= np.maximum(CONSTANT_RELATIVE * np.abs(self.mean), CONSTANT_BELOW)
        return np.where(constant, 0.0, found) if np.count_nonzero(constant) else found

    def state_of(self, column: int) -> str:
        """ "live", "constant" (has never varied) or "dead" (varied, and is stuck)."""
        if not self.varied[column]:
            return "constant"
        return "dead" if self.run[column] >= self._stuck_rows()[column] else "live"

    # --- bounds ----------------------------------------------------------------------------------------------------

    def bounds(self) -> tuple[Array, Array]:
        """What is believed: LIMIT deviations, and everything that was believed before; all of it where nothing can be
        said."""
        deviation = self.deviation()
        known = (deviation > 0.0) & (self.limit > 0.0) & (self._is_warm() or self.judged >= WARM_ROWS)
        reach = self.limit * deviation
        low, high = np.minimum(self.mean - reach, self.low), np.maximum(self.mean + reach, self.high)
        if np.count_nonzero(known) == self.width:
            return low, high
        return np.where(known, low, -FLOAT_MAX), np.where(known, high, FLOAT_MAX)

    def _is_warm(self) -> bool:
        """Whether no column is in its warm-up any more: none goes back to it."""
        if not self._warm:
            self._warm = np.count_nonzero(self.judged >= WARM_ROWS) == self.width
        return self._warm

    def _first_bounds(self, values: Array) -> tuple[float, float]:
        return first_bounds(values) if self.limit else (-FLOAT_MAX, FLOAT_MAX)

    def _stuck_rows(self) -> IntArray:
        """Equal values in a row after which a column is dead."""
        return stuck_rows(self.repeats, self.seen, self.varied)

    def _may_be_stuck(self, look: Look) -> Flags:
        """Columns that have a run of equal values long enough to be dead, or are dead already."""
        some = np.count_nonzero(look.begins) or np.count_nonzero(look.repeats)
        return look.has_run(self._stuck_rows(), self.run) if some else np.zeros(self.width, dtype=np.bool_)

    # --- learning --------------------------------------------------------------------------------------------------

    def _learn(self, look: Look, which: Flags, present: Flags | None) -> None:
        """Take in the clean columns of a table; where not `present`, values are filled in, and teach nothing."""
        taken = np.count_nonzero(which)
        if present is None and taken == self.width == np.count_nonzero(self.varied):
            self._learn_all(look)
        elif taken:
            self._learn_some(look, which, present)

    def _learn_some(self, look: Look, which: Flags, present: Flags | None) -> None:
        table, rows = look.table, look.table.shape[1]
        told = np.full(self.width, rows) if present is None else np.count_nonzero(present, axis=1)
        count = np.maximum(told, 1).astype(np.float64)
        if present is None:
            mean, variance = moments_of(table)
        else:
            mean = np.where(present, table, 0.0).sum(axis=1) / count
            variance = np.where(present, np.square(table - mean[:, None]), 0.0).sum(axis=1) / count
            which = which & present.any(axis=1)
        some = None if np.count_nonzero(which) == self.width else which
        self._merge(some, mean, variance, count)
        varies = (look.repeats < rows - 1) | (~look.begins & ~np.isnan(self.last))
        self.low = chosen(some, np.minimum(self.low, look.least), self.low)
        self.high = chosen(some, np.maximum(self.high, look.most), self.high)
        self.seen = chosen(some, self.seen + told, self.seen)
        self.repeats = chosen(some, self.repeats + look.repeats + look.begins, self.repeats)
        self.run = chosen(some, look.tail(self.run), self.run)
        self.varied = chosen(some, self.varied | varies, self.varied)
        self.judged = chosen(some, self.judged + told * self.varied, self.judged)
        self.last = chosen(some, table[:, -1].copy(), self.last)
        self._remember(some, table)

    def _learn_all(self, look: Look) -> None:
        """What `_learn_some` does, to the last bit, where every column varies and is clean: nearly always."""
        mean, variance = moments_of(look.table)
        rows = look.table.shape[1]
        keep = self.weight * (KEPT if rows == 1 else np.exp(-rows / MEMORY))
        total = keep + rows
        apart, share = mean - self.mean, rows / total
        merged = (keep * self.variance + rows * variance) / total + apart * apart * (keep / total) * share
        total = total if np.count_nonzero(merged) == self.width else np.where(merged > 0.0, total, 1.0)
        self.variance, self.mean, self.weight = merged, self.mean + apart * share, total
        self.low, self.high = np.minimum(self.low, look.least), np.maximum(self.high, look.most)
        self.seen, self.judged = self.seen + rows, self.judged + rows
        if rows == 1 and not np.count_nonzero(look.begins):
            self.run = np.zeros(self.width, dtype=np.int64)
        else:
            self.repeats = self.repeats + look.repeats + look.begins
            self.run = look.tail(self.run)
        self.last = look.table[:, -1].copy()
        self._remember(None, look.table)

    def _merge(self, which: Flags | None, mean: Array, variance: Array, rows: Array) -> None:
        keep = self.weight * np.exp(-rows / MEMORY)
        total = np.maximum(keep + rows, 1.0)
        apart = mean - self.mean
        share = rows / total
        merged = (keep * self.variance + rows * variance) / total + apart * apart * (keep / total) * share
        total = np.where(merged > 0.0, total, np.minimum(total, 1.0))  # what has not varied may be anything yet
        self.variance = chosen(which, merged, self.variance)
        self.mean = chosen(which, self.mean + apart * share, self.mean)
        self.weight = chosen(which, total, self.weight)

    def _remember(self, which: Flags | None, table: Array) -> None:
        """The newest values, none of which was beyond."""
        newest = table[:, -RECENT:]
        newest = np.concatenate((self._recent[:, newest.shape[1] :], newest), axis=1)
        self._recent = newest if which is None else np.where(which[:, None], newest, self._recent)

    # --- one column that is not clean ------------------------------------------------------------------------------

    def _column(
        self, column: int, values: Array, out: Array, imputed: Flags, bounded: Flags, *, impute: bool
    ) -> list[int]:
        """Handle one column's values; the rows from which on it is mapped anew."""
        finite = np.isfinite(values)
        empty = int(np.count_nonzero(np.isnan(values)))
        gone = len(values) - int(np.count_nonzero(finite))
        self._count(column, missing=empty, infinite=gone - empty)
        rows = np.flatnonzero(finite)
        told = values[rows]
        stuck = self._stuck(column, told)
        rebased: list[int] = []
        mapped, hit = np.empty(len(told)), np.zeros(len(told), dtype=np.bool_)
        start, believed = 0, -1
        while start < len(told):
            start, shifted = self._stretch(column, told, stuck, start, mapped, hit, again=start == believed)
            if shifted:
                rebased.append(int(rows[start]) if start < len(rows) else len(values) - 1)
                believed = start
        out[rows], bounded[rows] = mapped, hit
        self._count(column, bounded=int(np.count_nonzero(hit)))
        absent = ~finite
        absent[rows[stuck]] = True
        if impute and absent.any():
            out[absent] = self.mean[column] * self.scale[column] + self.shift[column]
            imputed[absent] = True
            self._count(column, imputed=int(np.count_nonzero(absent)))
        elif absent.any():
            out[~finite] = np.nan
        return rebased

    def _stretch(
        self, column: int, told: Array, stuck: Flags, start: int, mapped: Array, hit: Flags, *, again: bool
    ) -> tuple[int, bool]:
        """Values from `start` on, up to a shift that is believed, or all: where the next stretch begins, and whether a
        shift is the reason. `again`: one was believed right before `start`. When most are beyond that level as well, as
        in a column that jumps to and fro, all that comes is believed: else this would have no end."""
        left = WARM_ROWS - int(self.judged[column])
        size = left if left > 0 else self._stretch_rows(column, told[start:])
        ahead, living = told[start : start + size + RECENT], ~stuck[start : start + size + RECENT]
        part, alive = ahead[:size], living[:size]
        if left > 0:
            low, high = self._first_bounds(np.concatenate((self._first[column], part)))
        else:
            low, high = (float(bound[column]) for bound in self.bounds())
        beyond = (ahead < low) | (ahead > high)
        shift = first_of_shift(self._beyond[column], beyond & living)
        if again and shift == 0:
            low, high = min(low, float(ahead.min())), max(high, float(ahead.max()))
            beyond[:], shift = False, None
        if shift is not None and shift >= len(part):
            shift = None  # it begins in the next stretch
        stop = len(part) if shift is None else shift
        self._settle(column, part[:stop], beyond[:stop], alive[:stop], (low, high))
        mapped[start : start + stop] = np.clip(part[:stop], low, high) * self.scale[column] + self.shift[column]
        hit[start : start + stop] = beyond[:stop] & alive[:stop]
        if shift is not None:
            before = self._recent[column][self._beyond[column]]
            rest = told[start + shift :]
            self._rebase(column, np.concatenate((before, rest[(rest < low) | (rest > high)])))
        return start + stop, shift is not None

    def _stretch_rows(self, column: int, rest: Array) -> int:
        """How many values are judged by the same bounds: of a young column as many as made them, if none is beyond."""
        young = len(rest) > self.judged[column]
        rest = rest[: max(STRETCH, int(self.judged[column]))]
        low, high = (float(bound[column]) for bound in self.bounds())
        few = np.count_nonzero((rest < low) | (rest > high)) <= (0 if young else FEW * len(rest))
        return len(rest) if few and self.variance[column] > 0.0 else STRETCH

    def _settle(self, column: int, part: Array, beyond: Flags, alive: Flags, bounds: tuple[float, float]) -> None:
        """Learn a stretch of one column."""
        if not len(part):
            return
        warm = bool(self.judged[column] < WARM_ROWS)
        self.seen[column] += len(part)
        if self.varied[column]:
            self.judged[column] += len(part)
        inside = part[alive & ~beyond]
        if alive.any():
            self._learn_one(column, np.clip(part, *bounds)[alive], beyond[alive], warm=warm)
        if len(inside):
            self.low[column] = min(self.low[column], float(inside.min()))
            self.high[column] = max(self.high[column], float(inside.max()))
        if warm:
            self._first[column] += part[alive].tolist()
            if not self.varied[column]:
                self._first[column] = self._first[column][:1]
            if self.judged[column] >= WARM_ROWS:
                self._end_warm_up(column)
        self._recent[column] = np.concatenate((self._recent[column], part))[-RECENT:]
        self._beyond[column] = np.concatenate((self._beyond[column], beyond & alive))[-RECENT:]

    def _learn_one(self, column: int, values: Array, beyond: Flags, *, warm: bool) -> None:
        deviation = float(self.deviation()[column])
        if deviation > 0.0 and not warm and beyond.any():
            middle = float(self.mean[column])
            near = np.clip(values, middle - TRIMMED * deviation, middle + TRIMMED * deviation)
            values = np.where(beyond, near, values)
        which = np.zeros(self.width, dtype=np.bool_)
        which[column] = True
        mean = np.where(which, values.mean(), 0.0)
        variance = np.where(which, values.var(), 0.0)
        self._merge(which, mean, variance, np.full(self.width, float(len(values))))

    def _end_warm_up(self, column: int) -> None:
        """The first values are all there: what of them is believed is where mean, deviation and range begin."""
        first = np.array(self._first[column])
        low, high = self._first_bounds(first)
        believed = first[(first >= low) & (first <= high)]
        if len(believed):
            self.mean[column], self.variance[column] = believed.mean(), believed.var()
            self.low[column], self.high[column] = believed.min(), believed.max()
        self._first[column] = []

    def _rebase(self, column: int, values: Array) -> None:
        """Believe the level of these values, and map it to look as the one before."""
        level = level_of(values)
        before = Map(float(self.scale[column]), float(self.shift[column]))
        after = remapped(before, float(self.mean[column]), float(self.deviation()[column]), level)
        self.scale[column], self.shift[column] = after.scale, after.shift
        self._mapped = None
        self.mean[column], self.variance[column] = level.mean, level.deviation**2
        self.low[column], self.high[column] = level.low, level.high
        self.weight[column] = min(float(self.weight[column]), float(level.rows))
        self._beyond[column] = False
        self._count(column, rebased=1)

    def _stuck(self, column: int, told: Array) -> Flags:
        """Which of these values belong to a run of equal ones that is too long for a column that lives."""
        stuck = np.zeros(len(told), dtype=np.bool_)
        if not len(told):
            return stuck
        changed = np.flatnonzero(told[1:] != told[:-1]) + 1
        own = np.diff(changed, prepend=0, append=len(told))  # values of each run, and with those before this table
        runs, carried = own.copy(), 0
        if told[0] == self.last[column]:
            carried = int(self.run[column]) + 1
            runs[0] += carried
        elif not np.isnan(self.last[column]):
            self.varied[column] = True
        dead = runs >= int(self._stuck_rows()[column])
        stuck = np.repeat(dead, own)
        self.repeats[column] += int((own[~dead] - 1).sum()) + int(carried > 0 and not dead[0])
        self.run[column] = int(runs[-1]) - 1
        self.varied[column] |= len(changed) > 0
        self.last[column] = told[-1]
        self._count(column, dead_rows=int(np.count_nonzero(stuck)))
        return stuck

    def _count(self, column: int, **counts: int) -> None:
        for name, more in counts.items():
            self.counts[name][column] += more
