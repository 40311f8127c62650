"""learn/members/boosting.py: fits at fixed rows, in a thread, and the same again after a restore and in a fork."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from streampiped.learn.estimators import equal
from streampiped.learn.members.base import Inputs
from streampiped.learn.members.boosting import FIRST_ROWS, WINDOW_ROWS, Boosting
from streampiped.learn.past import Past

Floats = np.ndarray
ROWS = 1_800


def stream(rows: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    features = rng.random((rows, 3))
    return features, np.sin(6 * features[:, 0]) * features[:, 1] + rng.normal(size=rows) / 20


def inputs_of(features: Floats) -> Inputs:
    return Inputs(features, features, Past().now(len(features)))


def taught(member: Boosting, start: int, stop: int, block: int = 60) -> list[bytes]:
    """What it answered for each block before it learned it."""
    features, labels = stream(ROWS)
    answers = []
    for first in range(start, stop, block):
        rows = slice(first, min(stop, first + block))
        answers.append(member.predict(inputs_of(features[rows])).tobytes())
        member.learn(inputs_of(features[rows]), labels[rows])
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


def test_a_restored_one_goes_on_bit_for_bit() -> None:
    """Snapshot while a fit is under way, and between two: the same answers and the same state; a copy too."""
    for cut in (FIRST_ROWS + 40, 1_140):
        whole, twin = Boosting(3, seed=1), Boosting(3, seed=1)
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
    member._begins = 10**9  # type: ignore[misc]  # no fits: they cost seconds
    for _ in range(30):
        member.learn(inputs_of(np.zeros((1000, 1))), np.zeros(1000))
    assert len(member.state()["rows"]) == WINDOW_ROWS
