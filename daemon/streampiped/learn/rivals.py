"""Members that learn side by side, the champion among them that is served, and what happened to them: what a pool of
regressors and one of classifiers have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from streampiped.learn.champion import Contest
from streampiped.learn.drift import PageHinkley
from streampiped.learn.frame import Frame
from streampiped.learn.history import History
from streampiped.learn.members.base import Learner
from streampiped.learn.moments import Moments, moments_of
from streampiped.learn.scaling import deviation_of
from streampiped.learn.slot import Slot
from streampiped.records import Array

READY_ROWS: Final = 16  # that a member has learned before its answers are held against it
BLOCK_ROWS_MAX: Final = 1024  # a block costs 2 ms however short it is; within one, predictions do not learn
BLOCK_ROWS_MIN: Final = 8  # after a drift
GROWTH: Final = 16  # a block has at most this part of the rows before it: 8000 rows of warm-up are 127 blocks
COUNTS: Final = ("rows", "learned", "blocks", "_frame_rows", "_since", "_level", "_former")

M = TypeVar("M", bound=Learner)


class Forecasts(Protocol):
    """What `work` and `predict` answer, in common."""

    @property
    def prediction(self) -> NDArray[Any]: ...

    @property
    def fallback(self) -> bool: ...

    @property
    def fallbacks(self) -> int: ...


class Rivals(Generic[M]):
    """`members`: name -> a member that has learned nothing, of at least one trivial kind."""

    watched: ClassVar[tuple[str, ...]] = ("_drift",)
    """Attributes that are a part of the state, with `state` and `restore`."""

    def __init__(self, members: Mapping[str, M], columns: int) -> None:
        self.columns = columns
        self.slots: list[Slot[M]] = [Slot(name, member.fresh()) for name, member in members.items()]
        self._contest = self._new_contest()
        self._moments = Moments(columns)
        self._frame: Frame | None = None
        self._frame_rows = 0  # rows that the frame knows
        self._drift = PageHinkley()
        self._since = 0  # row of the last drift
        self._level = 0  # row of the last shift of the label
        self._former: int | None = None  # the champion at the last drift, as long as it is served
        self.history = History()
        self.rows = 0
        """Rows predicted in band."""
        self.learned = 0
        """Rows learned."""
        self.blocks = 0
        """Blocks learned: the version of the model that a row is predicted with."""

    def work(
        self, features: Array, labels: NDArray[Any], known: NDArray[np.bool_], learnable: NDArray[np.bool_]
    ) -> Forecasts:
        """Predict the first of these rows, then learn them; the forecast says by its length how many they were. At
        least one: the rest is predicted by what was learned. `known`: labels that later rows may look back at;
        `learnable` is a part of that: those that are learned and compared."""
        raise NotImplementedError

    # --- who is served ---------------------------------------------------------------------------------------------

    @property
    def champion(self) -> Slot[M]:
        return self.slots[self._contest.champion]

    @property
    def generation(self) -> int:
        """Drifts so far."""
        return self.history.drift_count

    @property
    def pinned(self) -> bool:
        return self._contest.pinned

    @property
    def fallback(self) -> bool:
        """Nothing beats guessing: a trivial member is served."""
        return self.champion.member.trivial

    # --- what others say of it -------------------------------------------------------------------------------------

    def label_shifted(self, labels: NDArray[Any]) -> None:
        """The labels have another level from the next row on, of which these are the first."""
        raise NotImplementedError

    def feature_shifted(self) -> None:
        """A feature is scaled anew from the next row on, to look as before: worth a mark, and nothing else."""
        self.history.shift(self.rows, self.champion.name)

    def promote(self, name: str) -> None:
        """Serve this member from the next row on, until another is better. Raises KeyError."""
        self._contest.seat(self._place(name))
        self._drift.restart()  # who is served errs otherwise, and that is no drift
        self.history.crown(self.rows, name, "promoted")

    def pin(self, name: str) -> None:
        """Serve this member whatever the test says, until `unpin`. Raises KeyError."""
        if self._place(name) != self._contest.champion:
            self._drift.restart()
        self._contest.seat(self._place(name))
        self._contest.pinned = True
        self.history.crown(self.rows, name, "pinned")

    def unpin(self) -> None:
        """Let the test choose again."""
        before = self._contest.champion
        self._contest.pinned = False
        self._contest.leave_guess()
        if self._contest.champion != before:
            self._drift.restart()
            self.history.crown(self.rows, self.champion.name, "unpinned")

    def go_back(self, state: Mapping[str, Any]) -> None:
        """Become what `state` saw, where we are in the stream: history and counts go on, and who is pinned stays it."""
        pinned, history = self.champion.name if self.pinned else None, self.history
        rows, learned, blocks = self.rows, self.learned, self.blocks
        self.history = History()
        self.restore(state)
        self.rows, self.learned, self.blocks, self.history = rows, learned, blocks, history
        self._since = min(self._since, rows)
        for slot in self.slots:
            slot.begun = rows  # what still waits for its label was answered by others
        pinned_then, self._contest.pinned = self._contest.pinned, pinned is not None
        if pinned is not None:
            self._contest.seat(self._place(pinned))
        elif pinned_then:
            self._contest.leave_guess()
        self.history.crown(rows, self.champion.name, "rolled back")

    # --- state -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        members = {slot.name: slot.state() for slot in self.slots}
        return {"members": members, "contest": self._contest.state(), **self._watch_state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become exactly what `state` saw. Of other members than ours the common ones are taken over, and who is served
        is found out anew, beginning with the champion of then if it is there."""
        there = state["members"]
        for slot in self.slots:
            if slot.name in there:
                slot.restore(there[slot.name])
            else:
                slot.begin_anew(int(state["counts"]["rows"]))
        names = [slot.name for slot in self.slots]
        if names == list(there):
            self._contest.restore(state["contest"])
        elif (champion := list(there)[int(state["contest"]["champion"])]) in names:
            self._contest.seat(names.index(champion))
            self._contest.pinned = bool(state["contest"]["pinned"])
            self._contest.leave_guess()
        self._restore_watch(state)

    def copy(self) -> Self:
        """An independent one in the same state; cheap, as what members have learned is shared and never changed."""
        twin = self._blank()
        twin.slots = [slot.copy() for slot in self.slots]
        twin._contest = twin._new_contest()
        twin._contest.restore(self._contest.state())
        twin._restore_watch(self._watch_state())
        return twin

    def frame_state(self) -> dict[str, Any] | None:
        """The coordinates of the members' columns: `(x - shift) * factor`; None before the first row."""
        return self._frame.state() if self._frame else None

    def info(self) -> list[dict[str, Any]]:
        """What is to be told of each member; `loss` is its discounted mean loss (None: not scored yet)."""
        losses, scored = self._contest.losses(), self._contest.rows > 0
        return [
            {
                "name": slot.name,
                "kind": slot.member.kind,
                "trivial": slot.member.trivial,
                "loss": float(loss) if scored else None,
                "rows": slot.rows,
                "rollbacks": slot.rollbacks,
                "resets": slot.resets,
                "full": slot.member.full,
            }
            for slot, loss in zip(self.slots, losses, strict=True)
        ]

    def full(self) -> frozenset[str]:
        """The members that learn no more, see `Learner.full`."""
        return frozenset(slot.name for slot in self.slots if slot.member.full)

    def _new_contest(self) -> Contest:
        """Where a member stands for all guesses, these are there to be held against and are not served."""
        members = [slot.member for slot in self.slots]
        trivial = [member.trivial for member in members]
        stands = next((place for place, member in enumerate(members) if member.stands_for_guesses), None)
        shown = [] if stands is None else [place for place, guess in enumerate(trivial) if guess and place != stands]
        return Contest(trivial, stands or 0, shown)

    def _blank(self) -> Self:
        """One without members."""
        return type(self)({}, self.columns)

    def _watch_state(self) -> dict[str, Any]:
        return {
            "moments": self._moments.state(),
            "frame": self.frame_state(),
            "history": self.history.state(),
            "counts": {name: getattr(self, name) for name in COUNTS},
            **{name.strip("_"): getattr(self, name).state() for name in self.watched},
        }

    def _restore_watch(self, state: Mapping[str, Any]) -> None:
        for name in self.watched:
            getattr(self, name).restore(state[name.strip("_")])
        self.history.restore(state["history"])
        self._moments = Moments.from_state(state["moments"])
        self._frame = Frame.from_state(state["frame"]) if state["frame"] is not None else None
        for name in COUNTS:
            setattr(self, name, state["counts"][name])

    # --- learning --------------------------------------------------------------------------------------------------

    def _block_rows(self) -> int:
        """A sixteenth of what was seen since the beginning or since the last drift: a first block of 64 rows would be
        predicted as a whole by a model that knows nothing."""
        since = self.rows - self._since
        return min(BLOCK_ROWS_MAX, max(BLOCK_ROWS_MIN if self._since else 1, since // GROWTH))

    def _reframe(self, features: Array) -> None:
        """Of the first rows, and again when rows have doubled. The frame knows features only, and no label."""
        if self._frame is not None and self.rows < 2 * self._frame_rows:
            return
        moments = moments_of(features.T) if self._frame is None else self._moments
        new = Frame.of(moments.mean, deviation_of(moments))
        if self._frame is not None:
            for slot in self.slots:
                slot.member.move(*self._frame.map_to(new))
        self._frame, self._frame_rows = new, max(1, self.rows)

    def _framing(self, features: Array) -> Array | Callable[[Array], Array]:
        """As `Seen` takes it."""
        return features if self._frame is None else self._frame.place

    def _settle(self, losses: Array | None, rows: int, learn: Callable[[int, Slot[M]], bool]) -> None:
        """Compare by the losses `(compared rows, members)`, or None where that is done; then let each member learn so
        many `rows`; `learn` says whether it did well."""
        before = self._contest.champion
        if losses is not None:
            self._contest.score(losses)
        for place, slot in enumerate(self.slots):
            if learn(place, slot):
                slot.learned(rows)
            else:
                slot.strike(self.rows)
        self.blocks += 1
        self.learned += rows
        if self._contest.champion != before:
            self._crowned(before)

    def _crowned(self, before: int) -> None:
        """Another champion. One that a drift has left behind begins anew, now that it is not served any more."""
        if self._former == before:
            self.slots[before].begin_anew(self.rows)
            self._former = None
        lead = "better" if not self.fallback else "nothing beats guessing"
        self.history.crown(self.rows, self.champion.name, lead)

    def _drifted(self, row: int) -> None:
        """The old champion stays and goes on learning; every other learner begins anew."""
        champion = self._contest.champion
        self.history.drift(row, "drift", self.champion.name)
        fresh = [n for n, slot in enumerate(self.slots) if n != champion and not slot.member.trivial]
        for place in fresh:
            self.slots[place].begin_anew(self.rows)
        self._former = None if self.fallback else champion
        self._contest.seat(champion)
        self._contest.renew(fresh)
        self._drift.restart()
        self._since = self.rows

    def _place(self, name: str) -> int:
        for place, slot in enumerate(self.slots):
            if slot.name == name:
                return place
        raise KeyError(name)


def until(place: int, learnable: NDArray[np.bool_]) -> int:
    """Rows up to and with the `place`-th learnable one."""
    return int(np.flatnonzero(learnable)[place]) + 1


def chosen(rows: NDArray[np.bool_], *tables: Any) -> Sequence[Any]:
    """These rows of each table; the very same tables when they are all."""
    return tables if rows.all() else [table[rows] for table in tables]
