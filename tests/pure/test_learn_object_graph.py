"""learn/object_graph.py and learn/river_parts.py: a graph of objects through a snapshot without pickle."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial
from typing import Any

import numpy as np
import pytest
from river import stats
from river.drift import ADWIN
from river.proba import Gaussian
from river.stats import Mean
from river.utils import VectorDict

from streampiped.learn.estimators import equal
from streampiped.learn.object_graph import put_together, take_apart
from streampiped.learn.portable import NotPortableError
from streampiped.learn.river_parts import RiverParts
from streampiped.wire.state import pack, unpack

PARTS = RiverParts()
MEAN = "river.stats.mean.Mean"
DEEP = 5000  # beyond any stack


def there_and_back(value: Any) -> Any:
    """Through the bytes of a snapshot."""
    return put_together(unpack(pack("test", take_apart(value, PARTS)), "test"), PARTS)


VALUES: dict[str, Any] = {
    "numbers": [0, -1, 2.5, float("inf"), True, None, "text", b"bytes", 1 << 80, -(1 << 70)],
    "nested": {"a": [1, (2, (3, [4]))], 5: {"b": ()}},
    "sets": {"ints": {3, 1, 2}, "texts": frozenset({"b", "a"}), "mixed": {1, "a", None, (1, "b")}},
    "collections": [OrderedDict([("b", 1), ("a", 2)]), Counter("abca"), deque([1, 2], maxlen=3), deque([1])],
    "factories": [defaultdict(float, a=1.0), defaultdict(partial(defaultdict, list), b=defaultdict(list, c=[1]))],
    "classes": [float, Counter, Mean],
    "partial": partial(dict, [("x", 1)], y=[2]),
    "arrays": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3))), np.float64(0.1), np.array(3)],
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_as_it_was(name: str) -> None:
    """Python's containers, with their kinds, their order, and what makes a missing value."""
    value = VALUES[name]
    back = there_and_back(value)
    assert type(back) is type(value)
    assert repr(back) == repr(value) or name == "sets"
    assert name != "sets" or back == value
    assert equal(take_apart(back, PARTS), take_apart(value, PARTS))


def test_what_is_shared_stays_shared() -> None:
    """Objects know each other as before: shared ones, and those that lead back to themselves."""
    generator, loop = random.Random(3), []
    loop.append((loop, generator))
    back = there_and_back([generator, loop])
    assert back[1][0][0] is back[1]
    assert back[1][0][1] is back[0]
    assert back[0].random() == generator.random()


def test_a_deep_graph_needs_no_stack() -> None:
    """A chain of objects longer than Python's stack comes back whole."""
    root = node = Mean()
    for _ in range(DEEP):
        node.next = Mean()
        node = node.next
    back, length = there_and_back(root), 0
    while hasattr(back, "next"):
        back, length = back.next, length + 1
    assert length == DEEP


def test_a_set_of_texts_has_the_same_bytes_in_every_process() -> None:
    """Python orders a set of texts anew in each process; what is written of it stays."""
    code = "from test_learn_object_graph import PARTS, take_apart; print(take_apart({str(n) for n in range(9)}, PARTS))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join([*sys.path, __file__.rpartition("/")[0]])},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


NATIVE = {
    "EWMean": stats.EWMean, "EWVar": stats.EWVar, "IQR": stats.IQR, "Kurtosis": stats.Kurtosis, "Skew": stats.Skew,
    "PeakToPeak": stats.PeakToPeak, "Quantile": stats.Quantile, "RollingIQR": partial(stats.RollingIQR, 10),
    "RollingQuantile": partial(stats.RollingQuantile, 0.5, 10), "ADWIN": partial(ADWIN, grace_period=3),
}  # fmt: skip


@pytest.mark.parametrize("name", NATIVE)
def test_what_rust_holds_goes_on_bit_for_bit(name: str) -> None:
    """ADWIN's windows and River's statistics go on from their bytes with the same numbers."""
    one, rng = NATIVE[name](), random.Random(5)
    for _ in range(200):
        one.update(rng.random())
    twin = there_and_back(one)
    for shift in range(300):
        value = rng.random() + shift // 100
        one.update(value)
        twin.update(value)
        if name == "ADWIN":
            assert (one.estimation, one.width, one.n_detections) == (twin.estimation, twin.width, twin.n_detections)
        else:
            assert repr(one.get()) == repr(twin.get())
    assert equal(take_apart(one, PARTS), take_apart(twin, PARTS))


def test_an_idle_generator_is_no_state() -> None:
    """A distribution without a seed has a generator that nothing learned depends on: two of them are the same."""
    assert equal(take_apart(Gaussian(), PARTS), take_apart(Gaussian(), PARTS))
    assert 0 < there_and_back(Gaussian(seed=1))._rng.random() < 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: 0, "<lambda>"),
        (subprocess.run, "subprocess.run"),
        (subprocess.Popen, "subprocess.Popen"),
        (object(), "builtins.object"),
        ({Mean(): 1}, "key"),
        ({Mean()}, "member"),
        (VectorDict({"a": 1.0}, float), "VectorDict with a factory"),
        (VectorDict({"a": np.float64(1)}), "VectorDict of other things"),
        (Exception("x"), "Exception"),
        (partial(subprocess.run), "subprocess.run"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_what_is_not_portable_is_named(value: Any, words: str) -> None:
    """What is not on the list is refused, with the place where it stands and what it is."""
    with pytest.raises(NotPortableError, match=words) as caught:
        take_apart({"a": [value]}, PARTS)
    assert "['a'][0]" in str(caught.value)


def shape(kind: str, name: str = "", names: Any = ()) -> dict[str, Any]:
    return {"kind": kind, "class": name, "names": list(names)}


@pytest.mark.parametrize(
    "data",
    [
        {"shapes": [shape("object", "subprocess.Popen")], "entries": [[0]]},
        {"shapes": [shape("name", "os.system")], "entries": [[0]]},
        {"shapes": [shape("name", "builtins.eval")], "entries": [[0]]},
        {"shapes": [shape("name", "river.datasets.base.Dataset")], "entries": [[0]]},
        {"shapes": [shape("name", "river.tree.base.pd.read_pickle")], "entries": [[0]]},
        {"shapes": [shape("name", "river.utils.math.np")], "entries": [[0]]},
        {"shapes": [shape("native", "os.system")], "entries": [[0, "true"]]},
        {
            "shapes": [shape("native", "river._river_rust.drift.AdaptiveWindowing")],
            "entries": [[0, b"", 1, 2, 3, 4, 5]],
        },
        {"shapes": [shape("native", "river._river_rust.vectordict.VectorDict")], "entries": [[0, "a", [0]]]},
        {"shapes": [shape("object", MEAN, ["|__class__"])], "entries": [[0, 1]]},
        {"shapes": [shape("tuple")], "entries": [[0, [0]]]},
        {
            "shapes": [shape("method"), shape("object", "river.stats.mean.Mean")],
            "entries": [[0, [1], "__class__"], [1]],
        },
        {"shapes": [shape("no such kind")], "entries": [[0]]},
        {"shapes": [], "entries": [[0]]},
        {"shapes": [shape("list")], "entries": [[0, [7]]]},
        {"shapes": [shape("dict")], "entries": [[0, "key"]]},
        {"entries": []},
        {"shapes": [], "entries": []},
    ],
    ids=lambda data: str(data)[:60],
)
def test_what_no_writer_has_written_is_refused(data: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A state that names what is not on the list, or is no graph, makes nothing and raises one error."""
    with pytest.raises(NotPortableError):
        put_together(data, PARTS)
