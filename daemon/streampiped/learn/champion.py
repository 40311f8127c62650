"""Who is served: the champion, until another member is better by a paired test on recent losses.

Losses are compared row by row between members (paired: what makes a row hard is hard for all), discounted, and a
challenger has to be better by SIGMAS standard errors of the mean difference. A trivial member needs less: when nothing
beats guessing, guessing is served.

TRIVIAL_SIGMAS, LEADER_ROWS and LEADER_SIGMAS are what was least costly (tests/bench/choose.py) on the development and
the published streams, none of which the benchmark reports; MEMORY and SIGMAS were tried there, and kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import exp, inf, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array

MEMORY: Final = 1000.0  # rows that the comparison remembers
KEPT: Final = float(np.exp(-np.ones(1) / MEMORY)[0])  # behind one row; numpy's, whose last bit may be another
SIGMAS: Final = 2.0
GAIN: Final = 0.005  # of the champion's loss, at least, by which a challenger is better: equals do not take turns
TRIVIAL_SIGMAS: Final = 0.0
RENEWED: Final = 50.0  # rows that the losses before a drift weigh after it
LEADER_ROWS: Final = 128  # below, the guess with the least loss so far leads, and a learner may by less than SIGMAS
LEADER_SIGMAS: Final = 1.5  # of the lead over that guess: two sigma of so few rows are hardly ever reached


class Contest:
    """Discounted sums over members: of losses, and of products of losses, from which every pair's mean difference and
    its variance follow.

    >>> contest = Contest((True, False))
    >>> contest.score(np.array([[4.0, 1.0]] * 9))
    >>> contest.champion
    1
    """

    __slots__ = (
        "_products",
        "_shown",
        "_sums",
        "_trivial",
        "_weight",
        "_weight2",
        "champion",
        "pinned",
        "rows",
        "seated",
    )

    def __init__(self, trivial: Sequence[bool], champion: int = 0, shown: Collection[int] = ()) -> None:
        """`shown`: places of members whose losses are taken in, and who are not chosen."""
        self._trivial = tuple(trivial)
        self._shown = sorted(shown)
        self.champion = champion
        """Place of the member that is served."""
        self.seated = False
        """The champion has been there before, and is not to be replaced by whoever leads for a few rows."""
        self.pinned = False
        """The champion stays whatever the test says."""
        self.restart()

    def restart(self) -> None:
        """Forget every loss."""
        members = len(self._trivial)
        self.rows = 0
        """Rows scored since."""
        self._weight = self._weight2 = 0.0
        self._sums: Array = np.zeros(members)
        self._products: Array = np.zeros((members, members))

    def renew(self, places: Sequence[int]) -> None:
        """These members begin anew: they are as good as the champion until they show what they are. What was before
        counts for little from here on, also between the others."""
        keep, champion = RENEWED / max(self._weight, RENEWED), self.champion
        self._sums, self._products = self._sums * keep, self._products * keep
        self._weight, self._weight2 = self._weight * keep, self._weight2 * keep * keep
        for place in places:
            self._sums[place] = self._sums[champion]
            self._products[place, :] = self._products[champion, :]
            self._products[:, place] = self._products[:, champion]

    def seat(self, champion: int) -> None:
        """From here on this is the champion, until it is beaten."""
        self.champion, self.seated = champion, True

    def leave_guess(self) -> None:
        """A guess that another one stands for was served because somebody wanted it; nobody does any more."""
        if self.champion in self._shown and not self.pinned:
            self.seat(next(n for n, trivial in enumerate(self._trivial) if trivial and n not in self._shown))

    def score(self, losses: Array) -> None:
        """Take in the losses `(rows, members)` of one block, finite, and choose anew."""
        if len(losses):
            self._take(losses)
            self._choose()

    def follow(self, losses: Array) -> list[tuple[int, int]]:
        """Take in the losses of one block as `score` does, and choose anew behind each row: from which row on there is
        another champion, and which. What members have learned is that of the block; who is served need not be, for a
        row's label is known before the next row comes."""
        changes: list[tuple[int, int]] = []
        first = 0
        while first < len(losses) and (self.rows < LEADER_ROWS and not self.seated):
            before = self.champion
            self.score(losses[first : first + 1])
            first += 1
            if self.champion != before:
                changes.append((first, self.champion))
        rest = losses[first:]
        if len(rest):
            changes += [(first + row, champion) for row, champion in self._beaten(rest)]
            self._take(rest)
        return changes

    def _beaten(self, losses: Array) -> list[tuple[int, int]]:
        """Who becomes champion behind which of these rows; it is one already."""
        changes: list[tuple[int, int]] = []
        if self.pinned or (len(losses) == 1 and not self._may_be_beaten(losses[0].tolist())):
            return changes
        count = np.arange(1.0, len(losses) + 1.0)
        keep = np.exp(-count / MEMORY)
        sums = self._sums * keep[:, None] + np.cumsum(losses, axis=0)
        row = 0
        while row < len(losses):
            ahead = sums[row:] <= (1.0 - GAIN) * sums[row:, [self.champion]]
            ahead[:, [self.champion, *self._shown]] = False  # the champion itself: where all sums are 0
            rivals = np.flatnonzero(ahead.any(axis=0))  # mostly none, and the test costs ten times what this does
            if not len(rivals):
                break
            better = ahead[:, rivals] & self._is_beaten_by(rivals, losses, sums, keep, count)[row:]
            behind = np.flatnonzero(better.any(axis=1))
            if not len(behind):
                break
            first = int(behind[0])
            least = np.where(better[first], sums[row + first, rivals], np.inf).argmin()
            self.champion = int(rivals[least])
            row += first + 1
            changes.append((row, self.champion))
        return changes

    def _may_be_beaten(self, losses: list[float]) -> bool:
        """By one row, in a tenth of the time: whether anybody's sum is below the champion's by more than GAIN."""
        sums = [before * KEPT + loss for before, loss in zip(self._sums.tolist(), losses, strict=True)]
        most = (1.0 - GAIN) * sums[self.champion]
        for place in (self.champion, *self._shown):
            sums[place] = inf
        return any(each <= most for each in sums)

    def _is_beaten_by(
        self, rivals: NDArray[np.intp], losses: Array, sums: Array, keep: Array, count: Array
    ) -> NDArray[np.bool_]:
        """`(rows, rivals)`: whether each is better than the champion by the test behind each row of a block."""
        champion, products = self.champion, self._products
        weight, weight2 = (self._weight * keep + count)[:, None], (self._weight2 * keep * keep + count)[:, None]
        before = products[champion, champion] + products.diagonal()[rivals] - 2.0 * products[champion, rivals]
        apart = np.square(losses[:, [champion]] - losses[:, rivals])
        square = before * keep[:, None] + np.cumsum(apart, axis=0)
        mean = (sums[:, [champion]] - sums[:, rivals]) / weight
        error = np.sqrt(np.maximum(square / weight - mean * mean, 0.0) * weight2) / weight
        limits = np.array([TRIVIAL_SIGMAS if self._trivial[rival] else SIGMAS for rival in rivals])
        return np.asarray(mean > limits * error)

    def _take(self, losses: Array) -> None:
        rows = len(losses)
        keep = exp(-rows / MEMORY)
        row = losses[0]
        total, products = (row, row[:, None] * row) if rows == 1 else (losses.sum(axis=0), losses.T @ losses)
        self._weight = self._weight * keep + rows
        self._weight2 = self._weight2 * keep * keep + rows
        self._sums = self._sums * keep + total
        self._products = self._products * keep + products
        self.rows += rows

    def losses(self) -> Array:
        """Mean discounted loss per member; 0 before any row."""
        return self._sums / max(self._weight, 1.0)

    def lead(self, challenger: int, champion: int | None = None) -> float:
        """Standard errors by which the challenger's loss is below the champion's (or another's); infinite when it
        always was by the same."""
        champion = self.champion if champion is None else champion
        mean = (self._sums[champion] - self._sums[challenger]) / self._weight
        square = self._products[champion, champion] + self._products[challenger, challenger]
        variance = (square - 2.0 * self._products[champion, challenger]) / self._weight - mean * mean
        error = sqrt(max(variance, 0.0) * self._weight2) / self._weight
        if error == 0.0:
            return 0.0 if mean == 0.0 else float(np.copysign(np.inf, mean))
        return float(mean / error)

    def copy(self) -> Contest:
        """Independent, in the same state; cheap, as sums are replaced and never changed in place."""
        twin = Contest.__new__(Contest)
        for name in Contest.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {
            "champion": self.champion,
            "rows": self.rows,
            "seated": self.seated,
            "pinned": self.pinned,
            "weights": [self._weight, self._weight2],
            "sums": self._sums,
            "products": self._products,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.champion, self.rows = int(state["champion"]), int(state["rows"])
        self.seated, self.pinned = bool(state["seated"]), bool(state["pinned"])
        self._weight, self._weight2 = (float(weight) for weight in state["weights"])
        self._sums = np.array(state["sums"], dtype=np.float64)
        self._products = np.array(state["products"], dtype=np.float64).reshape(len(self._sums), len(self._sums))

    def _choose(self) -> None:
        if self.pinned:
            return
        order = [place for place in np.argsort(self._sums, kind="stable").tolist() if place not in self._shown]
        if self.rows < LEADER_ROWS and not self.seated:
            guess = next((place for place in order if self._trivial[place]), order[0])
            self.champion = order[0] if self.lead(order[0], guess) > LEADER_SIGMAS and self.rows > 1 else guess
            return
        for challenger in order:
            if challenger == self.champion or self._sums[challenger] > (1.0 - GAIN) * self._sums[self.champion]:
                return
            if self.lead(challenger) > (TRIVIAL_SIGMAS if self._trivial[challenger] else SIGMAS):
                self.champion = challenger
                return
