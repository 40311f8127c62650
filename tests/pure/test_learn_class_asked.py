"""learn/late/class_asked.py: lines of questions that wait, while classes come and, after a rollback, go."""

from __future__ import annotations

import numpy as np

from streampiped.classes import UNKNOWN
from streampiped.learn.class_past import ClassLooks, ClassPast
from streampiped.learn.late.class_asked import SERVED, ClassAsked, ClassForm
from streampiped.learn.late.pending import NO_LINE, Pending

FEATURES = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
NONE = np.zeros((3, 0))
MEMBER = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
ANSWER = np.array([[0.4, 0.6], [0.5, 0.5], [0.6, 0.4]])


def looked() -> ClassLooks:
    """Three rows, of which the last two know a class and the last knows both."""
    past = ClassPast()
    return past.follow(np.array([0, 1, 0]))


def written() -> tuple[Pending[ClassAsked], ClassForm]:
    form = ClassForm(2, ["silent", "able"])
    pending: Pending[ClassAsked] = Pending(10, form)
    form.meet(["no", "yes"])
    pending.fit()
    lines = pending.join([1, 2, 3], np.zeros(3, dtype=bool), immediate=False).lines
    served = {name: float(place) for place, name in enumerate(SERVED)} | {"prediction": form.own(np.array([-1, 0, 1]))}
    pending.write(lines, ClassAsked.of(form, FEATURES, looked(), [NONE, MEMBER], ANSWER, served))
    return pending, form


def test_what_is_read_is_what_was_written() -> None:
    """Features, looks, answers and what was served, to the last bit; of who knew no class there is no answer; and
    nothing of a row without a line."""
    pending, _ = written()
    asked, looks = pending.read(np.array([0, 1, 2])), looked()
    assert asked.features().tobytes() == FEATURES.tobytes()
    for name in ClassLooks.__slots__:
        assert getattr(asked.looks, name).tobytes() == getattr(looks, name).tobytes(), name
    assert np.isnan(asked.answers()[0]).all()
    assert asked.answers()[1].tolist() == MEMBER.tolist()
    assert asked.probabilities().tolist() == ANSWER.tolist()
    assert asked.served("prediction").tolist() == [UNKNOWN, 0, 1]
    nothing = pending.read(np.array([NO_LINE]))
    assert nothing.looks.met.tolist() == [0]
    assert nothing.looks.last.tolist() == [UNKNOWN]
    assert np.isnan(nothing.probabilities()).all()


def test_a_class_that_comes_later_was_not_known() -> None:
    """Its share, its probability and the answers are 0 in what waits already."""
    pending, form = written()
    form.meet(["no", "yes", "maybe"])
    pending.fit()
    asked = pending.read(np.array([0, 1, 2]))
    assert asked.looks.shares[:, 2].tolist() == asked.probabilities()[:, 2].tolist() == [0.0] * 3
    assert asked.looks.shares[:, :2].tolist() == looked().shares.tolist()
    assert asked.answers()[1].tolist() == [[*row, 0.0] for row in MEMBER.tolist()]


def test_other_codes_for_the_same_classes() -> None:
    """After a rollback the model has lost one class and met another: what waits is read by label, not by code, and what
    it is not told of is UNKNOWN."""
    pending, form = written()
    form.meet(["yes", "new"])
    pending.fit()
    asked = pending.read(np.array([0, 1, 2]))
    assert asked.probabilities().tolist() == [[row[1], 0.0] for row in ANSWER.tolist()]
    assert asked.looks.last.tolist() == [UNKNOWN, UNKNOWN, 0]
    assert form.labels == ["no", "yes", "new"]
    twin: Pending[ClassAsked] = Pending(10, other := ClassForm(2, ["able"]))
    twin.restore(pending.state())
    other.meet(["new", "yes"])
    taken = twin.read(np.array([0, 1, 2]))
    assert taken.answers()[0][:, 1].tolist() == MEMBER[:, 1].tolist()
    assert taken.served("row").tolist() == [float(SERVED.index("row"))] * 3
