"""learn/members/boosting.py: fits at fixed rows, in a thread, and the same again after a restore and in a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from streampiped.classes import Codes
from streampiped.learn.class_members.base import ClassInputs
from streampiped.learn.class_members.boosting import ROUNDS_MIN, TREES, ClassBoosting
from streampiped.learn.class_members.trivial import ClassPrior
from streampiped.learn.class_past import ClassPast
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.estimators import equal
from streampiped.learn.members.base import Inputs
from streampiped.learn.members.boosting import FIRST_ROWS, WINDOW_ROWS, Boosting
from streampiped.learn.members.trivial import RunningMean
from streampiped.learn.past import Past
from streampiped.learn.pool import Pool

Floats = np.ndarray
ROWS = 1_800


def stream(rows: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    features = rng.random((rows, 3))
    return features, np.sin(6 * features[:, 0]) * features[:, 1] + rng.normal(size=rows) / 20


def inputs_of(features: Floats) -> Inputs:
    return Inputs(features, features, Past().now(len(features)))


def class_inputs_of(features: Floats) -> ClassInputs:
    past = ClassPast()
    past.follow(np.arange(4))
    return ClassInputs(features, features, past.now(len(features)))


def codes_of(labels: Floats) -> Codes:
    """Classes that no line tells apart, by the size of the label; the last one comes late."""
    codes = np.digitize(labels, [-0.3, 0.0, 0.3]).astype(np.intp)
    codes[: ROWS // 2] = np.minimum(codes[: ROWS // 2], 2)
    return codes


def taught(member: Any, start: int, stop: int, block: int = 60) -> list[bytes]:
    """What it answered for each block before it learned it."""
    features, labels = stream(ROWS)
    classes = isinstance(member, ClassBoosting)
    seen, told = (class_inputs_of, codes_of(labels)) if classes else (inputs_of, labels)
    answers = []
    for first in range(start, stop, block):
        rows = slice(first, min(stop, first + block))
        answers.append(member.predict(seen(features[rows])).tobytes())
        member.learn(seen(features[rows]), told[rows])
    return answers


def test_it_answers_from_its_first_fit_on_and_is_useful() -> None:
    """Nothing before the first fit takes effect, and then trees that know the shape."""
    member = Boosting(3, seed=1)
    features, labels = stream(ROWS)
    taught(member, 0, FIRST_ROWS)
    assert np.isnan(member.predict(inputs_of(features[:5]))).all()
    taught(member, FIRST_ROWS, ROWS)
    rest = slice(FIRST_ROWS, ROWS)
    assert np.mean((member.predict(inputs_of(features[rest])) - labels[rest]) ** 2) < 0.1 * labels.var()


def test_classes_are_told_apart_from_the_first_fit_on() -> None:
    """Nothing before it takes effect; then probabilities that sum up to 1, and none of a class that was not there. The
    bounds between the classes are a noise wide, so that a guess has 0.4 and nobody 0.8."""
    member = ClassBoosting(3, seed=1)
    features, labels = stream(ROWS)
    codes = codes_of(labels)
    taught(member, 0, FIRST_ROWS)
    assert member.predict(class_inputs_of(features[:5])).shape == (5, 0)
    taught(member, FIRST_ROWS, 700)
    first = member.predict(class_inputs_of(features[:50]))
    assert first.shape == (50, 3)
    assert first.sum(axis=1) == pytest.approx(np.ones(50))
    taught(member, 700, ROWS)
    answer = member.predict(class_inputs_of(features[ROWS // 2 :]))
    assert answer.shape[1] == 4
    assert np.mean(answer.argmax(axis=1) == codes[ROWS // 2 :]) > 0.65


def test_a_window_of_one_class_or_without_the_first() -> None:
    """Codes keep their places: of one class alone all is given to it, and of classes 1 and 3 nothing to 0 and 2."""
    features, _ = stream(600)
    inputs = class_inputs_of(features)
    for codes in (np.full(600, 2), np.where(features[:, 0] > 0.5, 3, 1)):
        member = ClassBoosting(3, seed=1)
        member.learn(inputs, codes)
        member.learn(inputs, codes)
        answer = member.predict(inputs)
        assert answer.shape == (600, codes.max() + 1)
        assert np.mean(answer.argmax(axis=1) == codes) > 0.99
        assert not answer[:, [0, -2]].any() or codes.min() == 3


def test_a_fit_of_many_classes_has_no_more_trees() -> None:
    """Rounds go down as classes come, so that a fit costs about the same."""
    member = ClassBoosting(3, seed=1)
    for classes in (2, 3, 30, 64):
        rounds = member.unfitted(np.arange(float(classes))).max_iter
        assert rounds * classes <= max(TREES, classes * ROUNDS_MIN)
    assert member.unfitted(np.arange(2.0)).max_iter == 150


@pytest.mark.parametrize("made", [Boosting, ClassBoosting])
def test_a_restored_one_goes_on_bit_for_bit(made: Any) -> None:
    """Snapshot while a fit is under way, and between two: the same answers and the same state; a copy too."""
    for cut in (FIRST_ROWS + 40, 1_140):
        whole, twin = made(3, seed=1), made(3, seed=1)
        taught(whole, 0, cut)
        twin.restore(whole.state())
        copy = whole.copy()
        ours, theirs, copied = (taught(each, cut, ROWS) for each in (whole, twin, copy))
        assert ours == theirs == copied
        assert equal(whole.state(), twin.state())


FORKED = """
import os, sys
from test_learn_boosting import FIRST_ROWS, Boosting, inputs_of, stream, taught
member = Boosting(3, seed=1)
taught(member, 0, FIRST_ROWS + 60)
child = os.fork()
taught(member, FIRST_ROWS + 60, 1_020)
sys.stdout.write(member.predict(inputs_of(stream(50)[0])).tobytes().hex() + "\\n")
sys.stdout.flush()
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_fork_makes_its_own_trees() -> None:
    """A process forked while a fit is under way, where no thread goes on, comes to the same answers. With one OpenMP
    thread, as in every stage: a fork beside more of them is not safe."""
    environ = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)]),
    }
    done = subprocess.run([sys.executable, "-c", FORKED], env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    ours, theirs = done.stdout.split()
    assert ours == theirs


def test_rows_are_bounded() -> None:
    """However many rows come, no more are kept than the window and what the fits were made of."""
    member = Boosting(1, seed=1)
    member._begins = 10**9  # no fits: they cost seconds
    for _ in range(30):
        member.learn(inputs_of(np.zeros((1000, 1))), np.zeros(1000))
    assert len(member.state()["rows"]) == WINDOW_ROWS


def test_silence_before_the_first_fit_is_held_against_nobody() -> None:
    """In a pool whose blocks are short, neither of the two is begun anew before it has anything to say."""
    features, labels = stream(ROWS)
    codes, every = (labels > 0).astype(np.intp), np.ones(ROWS, dtype=bool)
    numbers = Pool({"mean": RunningMean(), "boosting": Boosting(3, 1)}, 3)
    classes = ClassPool({"prior": ClassPrior(), "boosting": ClassBoosting(3, 1)}, 3, "int")
    known = classes.classes.codes(codes, every)
    made: list[tuple[Any, Any]] = [(numbers, labels), (classes, known)]
    for pool, told in made:
        row = 0
        while row < ROWS:
            row += len(pool.work(features[row:], told[row:], every[row:], every[row:]).prediction)
        assert (pool.slots[1].rows, pool.slots[1].rollbacks, pool.slots[1].resets) == (ROWS, 0, 0)
        assert pool.champion.name == "boosting"
