"""stages/normalizer.py: what goes in, what comes out, what is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampiped.aligned import COLUMN_ALIGN_BYTES
from streampiped.errors import OptionError, StateError
from streampiped.learn.estimators import equal
from streampiped.marks import BOUNDED, IMPUTED, LABEL_REBASED, MARKS, QUARANTINED, REBASED
from streampiped.records import Batch, Schema, Span
from streampiped.stages.base import StageContext
from streampiped.stages.normalizer import Normalizer, NormalizerOptions
from support.streams import Events

NAN, INF = float("nan"), float("inf")


def normalizer(**options: Any) -> Normalizer:
    """One that scales, where nothing else is said."""
    options.setdefault("default_policy", "scale")
    return Normalizer(NormalizerOptions(**options), StageContext("normalizer"))


def stream(batches: int, rows: int = 50, *, dirty: bool = False) -> list[Batch]:
    rng = np.random.default_rng(3)
    result = []
    for number in range(batches):
        columns = {"a": 5 + 2 * rng.normal(size=rows), "y": rng.normal(size=rows), "b": 1e6 * rng.normal(size=rows)}
        if dirty:
            columns["a"][rng.random(rows) < 0.1] = NAN
            columns["b"][rng.random(rows) < 0.1] = -INF
            columns["b"][3] = 1e12
        result.append(Batch.build(columns, sequence=number, spans=(Span("s", number * rows, rows),), ingest_ns=7))
    return result


def one(normal: Normalizer, **columns: Any) -> Batch:
    batch = normal.process(Batch.build(columns, spans=(Span("s", 0, len(next(iter(columns.values())))),)))
    assert batch is not None
    return batch


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, 1),
        ({"target": "a"}, 0),
        ({"quarantine": False}, 0),
        ({"default_policy": "pass"}, 0),
        ({"columns": ["a"]}, 0),
    ],
)
def test_a_target_that_is_not_there_is_told_once(options: dict[str, Any], told: int) -> None:
    """Where labels may have another name, and be mended, the first batch says so, and no other one does."""
    events = Events()
    stage = Normalizer(NormalizerOptions(**{"target": "weight"} | options), StageContext("normalizer", emit=events))
    for _ in range(2):
        stage.process(Batch.build({"a": np.ones(3), "label": np.ones(3)}))
    assert [name for name, _ in events.seen] == ["target_missed"] * told
    if told:
        assert events.seen[0][1] == {"target": "weight", "mended": "a, label"}


def test_a_batch_is_scaled_with_itself_included() -> None:
    """The first batch comes out with mean 0 and deviation 1, later ones with the moments of all so far."""
    normal, seen = normalizer(), np.zeros(0)
    for batch in stream(4):
        seen = np.concatenate((seen, batch["a"]))
        out = normal.process(batch)
        assert out is not None
        assert out["a"] == pytest.approx((batch["a"] - seen.mean()) / seen.std(), rel=1e-12)


def test_the_target_and_the_envelope_are_untouched() -> None:
    """The target has the same bits, and sequence, spans, times, names and other types are as they were."""
    batch = Batch.build(
        {"x": [1.0, 2.0], "y": [NAN, INF], "n": np.array([1, 2]), "t": ["a", None]},
        sequence=4,
        spans=(Span("s", 8, 2),),
        ingest_ns=99,
    )
    out = normalizer().process(batch)
    assert out is not None
    assert out["y"].tobytes() == batch["y"].tobytes()
    assert (out["n"].tolist(), out["t"]) == ([1, 2], ["a", None])
    schema = Schema(batch.schema.floats, (*batch.schema.ints, MARKS), batch.schema.texts)
    assert (out.schema, out.sequence, out.spans, out.ingest_ns) == (schema, 4, (Span("s", 8, 2),), 99)


def test_the_output_has_the_layout_of_every_block() -> None:
    """Columns of the output are aligned, padded with zeros and read-only."""
    out = one(normalizer(), a=[1.0, 2.0, 3.0], b=[2.0, 4.0, NAN])
    assert out["b"].ctypes.data % COLUMN_ALIGN_BYTES == 0
    assert not out["b"].flags.writeable
    assert (out.floats.data.reshape(2, -1)[:, 3:] == 0).all()


def test_policies_decide_per_column() -> None:
    """scale, center, pass and drop do to their columns what they say."""
    normal = normalizer(policy={"b": "center", "c": "pass", "d": "drop", "t": "drop"})
    out = one(normal, a=[1.0, 3.0], b=[1.0, 3.0], c=[1.0, NAN], d=[1.0, 3.0], t=["u", "v"])
    assert out.schema.names == ("a", "b", "c", "marks")
    assert out["a"].tolist() == [-1.0, 1.0]
    assert out["b"].tolist() == [-1.0, 1.0]
    assert np.isnan(out["c"][1])
    scaled = one(normal, a=[9.0], b=[9.0], c=[9.0], d=[9.0], t=["w"])
    assert scaled["b"].tolist() == [9.0 - 13.0 / 3]
    assert scaled["c"].tolist() == [9.0]


def test_only_chosen_columns_are_scaled() -> None:
    """With a list of columns all others pass."""
    out = one(normalizer(columns=["a"]), a=[1.0, 3.0], b=[1.0, 3.0])
    assert (out["a"].tolist(), out["b"].tolist()) == ([-1.0, 1.0], [1.0, 3.0])


@pytest.mark.parametrize("missing", ["impute", "keep", "drop_row"])
def test_missing_and_infinite_values_are_handled_and_counted(missing: str) -> None:
    """Imputed as the mean, kept as NaN or dropped with their row; counted per column in any case."""
    normal = normalizer(missing=missing)
    out = one(normal, a=[1.0, NAN, 3.0, INF, 2.0], b=[1.0, 2.0, 3.0, 4.0, NAN], y=[1.0, 2.0, NAN, 4.0, 5.0])
    summary = normal.query("summary", {})
    assert [summary["columns"]["a"][k] for k in ("missing", "infinite")] == [1, 1]
    assert [summary["columns"][c]["missing"] for c in "aby"] == [1, 1, 1]
    if missing == "impute":
        assert out["a"][[1, 3]].tolist() == pytest.approx([0.0, 0.0])
        assert (out["marks"] & IMPUTED).tolist() == [0, IMPUTED, 0, IMPUTED, IMPUTED]
        assert [summary["columns"][c]["imputed"] for c in "aby"] == [2, 1, 0]
    elif missing == "keep":
        assert np.isnan(out["a"]).tolist() == [False, True, False, True, False]
    else:
        assert out["a"].tolist() == [-1.0, 1.0]
        assert (summary["rows_dropped"], out.spans) == (3, (Span("s", 0, 1), Span("s", 2, 1)))
    assert summary["columns"]["a"]["mean"] == 2.0


def test_a_batch_without_a_row_left_is_nothing() -> None:
    """When every row is dropped there is no output."""
    batch = Batch.build({"a": [NAN, INF]}, spans=(Span("s", 0, 2),))
    assert normalizer(missing="drop_row").process(batch) is None


def test_by_default_values_stay_in_their_own_units() -> None:
    """What nothing is wrong with comes out with the same bits, in the very same block."""
    normal = normalizer(default_policy="clean")
    for batch in stream(6):
        out = normal.process(batch)
        assert out is not None
        assert out.floats is batch.floats or out.floats.data.tobytes() == batch.floats.data.tobytes()
        assert out["marks"].tolist() == [0] * batch.rows


def test_every_action_is_marked_and_counted() -> None:
    """Spikes come out at the bound, missing values as the mean, a shift that lasts looks as before, a bad label is told
    of: per row in the marks, per column in the summary."""
    rng, normal = np.random.default_rng(0), normalizer(default_policy="clean")
    one(normal, a=rng.normal(size=500), b=rng.normal(size=500), y=rng.normal(size=500))
    a, b, y = rng.normal(size=(3, 100))
    a[10], a[20], b[60:], y[30], y[31] = 1e9, NAN, 1000 * b[60:], NAN, 1e9
    out = one(normal, a=a, b=b, y=y)
    assert np.flatnonzero(out["marks"] & BOUNDED).tolist() == [10]
    assert np.flatnonzero(out["marks"] & IMPUTED).tolist() == [20]
    assert np.flatnonzero(out["marks"] & QUARANTINED).tolist() == [30, 31]
    (row,) = np.flatnonzero(out["marks"] & REBASED).tolist()
    assert 60 <= row < 64
    assert 7 < out["a"][10] < 9
    assert np.abs(out["b"][64:]).max() < 4
    assert out["y"].tobytes() == y.tobytes()
    section = normal.query("section", {})["results"]
    assert [section["columns"]["a"][kind] for kind in ("bounded", "missing", "imputed", "rebased")] == [1, 1, 1, 0]
    assert section["columns"]["b"]["rebased"] == 1
    assert [section["label"][kind] for kind in ("quarantined_missing", "quarantined_spike", "rebased")] == [1, 1, 0]


def test_another_level_of_the_label_is_believed() -> None:
    """A label that stays away is no spike: after three rows, all quarantined, the last is marked as re-based."""
    rng, normal = np.random.default_rng(0), normalizer()
    one(normal, a=rng.normal(size=500), y=rng.normal(size=500))
    out = one(normal, a=rng.normal(size=100), y=np.where(np.arange(100) < 50, 0.0, 1000.0) + rng.normal(size=100))
    assert np.flatnonzero(out["marks"] & LABEL_REBASED).tolist() == [52]
    assert np.flatnonzero(out["marks"] & QUARANTINED).tolist() == [50, 51, 52]


def test_columns_are_known_by_name() -> None:
    """A stream whose columns come in another order goes on as before, in the order that was learned."""
    plain, turned = normalizer(), normalizer()
    for number, batch in enumerate(stream(6)):
        swapped = Batch.build({name: batch[name] for name in ("b", "y", "a")}, spans=batch.spans) if number else batch
        ours, theirs = plain.process(batch), turned.process(swapped)
        assert ours is not None
        assert theirs is not None
        assert ours.floats.data.tobytes() == theirs.floats.data.tobytes()
    assert equal(plain.snapshot(), turned.snapshot())


def test_an_empty_batch_passes() -> None:
    """A batch without rows changes nothing."""
    normal = normalizer()
    before = one(normal, a=[1.0, 2.0])
    normal.process(Batch.build({"a": np.zeros(0)}))
    assert normal.query("summary", {})["rows"] == before.rows


@pytest.mark.parametrize("options", [{"columns": ["nope"]}, {"policy": {"nope": "scale"}}])
def test_a_column_nobody_has_is_named(options: dict[str, Any]) -> None:
    """An option that names a column which is not in the stream is an OptionError with the name."""
    with pytest.raises(OptionError, match="nope"):
        one(normalizer(**options), a=[1.0])


def test_other_columns_than_learned_are_refused() -> None:
    """Moments of one schema are never applied to another."""
    normal = normalizer()
    one(normal, a=[1.0])
    with pytest.raises(OptionError, match="has learned"):
        one(normal, b=[1.0])


@pytest.mark.parametrize("missing", ["impute", "keep", "drop_row"])
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_restored_normalizer_goes_on_bit_for_bit(cut: int, missing: str) -> None:
    """Snapshot after any batch, restore in a fresh object: the same output and the same state to the last bit."""
    batches = stream(9, dirty=True)
    whole, twin = normalizer(missing=missing), normalizer(missing=missing)
    for batch in batches[:cut]:
        whole.process(batch)
    state = whole.snapshot()
    twin.process(batches[-1])  # whatever happened since must be forgotten
    twin.restore(state if cut else None)
    for batch in batches[cut:]:
        ours, theirs = whole.process(batch), twin.process(batch)
        assert ours is not None
        assert theirs is not None
        assert ours.floats.data.tobytes() == theirs.floats.data.tobytes()
    assert equal(whole.snapshot(), twin.snapshot())


@pytest.mark.parametrize("policy", ["clean", "scale", "center"])
@pytest.mark.parametrize("missing", ["impute", "keep"])
def test_transform_tells_what_would_become_of_a_row(policy: str, missing: str) -> None:
    """A row that is asked about comes out as one that passes, missing, absurd and believed values alike, and nothing is
    learned or counted of it; the target and columns of others are left aside."""
    normal = normalizer(default_policy=policy, missing=missing)
    for batch in stream(20, rows=400):
        normal.process(batch)
    before = normal.snapshot()
    asked: dict[str, list[float | None]] = {
        "a": [5.5, None, 1e9, -INF],
        "b": [0.0, 1e6, None, 2e6],
        "y": [1.0],
        "z": [],
    }
    answer = normal.api()["transform"](columns=asked)
    assert answer["takes"] == ["a", "b"]
    assert list(answer["columns"]) == ["a", "b"]
    assert equal(normal.snapshot(), before)
    for place in range(4):
        twin = normalizer(default_policy=policy, missing=missing)
        twin.restore(before)
        row = {name: np.array([asked[name][place]], dtype=np.float64) for name in ("a", "b")}
        out = one(twin, a=row["a"], y=np.zeros(1), b=row["b"])
        for name in ("a", "b"):
            found = answer["columns"][name][place]
            wanted = float(out[name][0])
            assert found is None if np.isnan(wanted) else found == pytest.approx(wanted, rel=1e-2, abs=1e-2)


def test_transform_before_the_first_batch_takes_nothing() -> None:
    """Who has no columns yet says so; what are no numbers is refused by name."""
    assert normalizer().api()["transform"](columns={"a": [1.0]}) == {"takes": [], "columns": {}}
    normal = normalizer()
    normal.process(stream(1)[0])
    for wrong in ("x", ["x"], [[1.0]], 5.0):
        with pytest.raises(ValueError, match="a must be"):
            normal.api()["transform"](columns={"a": wrong})


def test_a_snapshot_of_another_version_is_refused() -> None:
    """A state that says another version, or none, is refused with both versions, and what there was stays."""
    normal = normalizer()
    one(normal, a=[1.0, 2.0])
    before = normal.snapshot()
    for state, version in (
        ({**before, "version": 99}, "99"),
        ({k: v for k, v in before.items() if k != "version"}, "1"),
    ):
        with pytest.raises(StateError, match=rf"version {version} .* version 2"):
            normal.restore(state)
    assert equal(normal.snapshot(), before)


def test_a_label_of_integers_is_judged_as_a_number_when_it_is_one() -> None:
    """An absurd count is marked as an absurd float is, where labels are numbers."""
    counts = np.random.default_rng(5).poisson(9, size=300)
    counts[250] = 10**9
    out = one(normalizer(task="regression"), a=np.arange(300.0), y=counts)
    assert np.flatnonzero(out["marks"] & QUARANTINED).tolist() == [250]


def test_marks_of_a_gate_before_are_kept() -> None:
    """Behind another gate a row has the marks of both; a column of that name and another type is refused."""
    out = one(normalizer(), a=[1.0, NAN], marks=np.array([QUARANTINED, REBASED]))
    assert out[MARKS].tolist() == [QUARANTINED, REBASED | IMPUTED]
    for other in ([1.0, 2.0], ["u", "v"]):
        with pytest.raises(OptionError, match="'marks' is not int"):
            one(normalizer(), a=[1.0, 2.0], marks=other)


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_the_number_of_a_class_is_a_name(task: str) -> None:
    """Classes numbered with wide gaps are no spikes, in any order and however rare; as numbers they are."""
    labels = np.random.default_rng(1).integers(0, 2, 600)
    labels[400:] *= 1000
    labels[[100, 450, 500]] = 1_000_000
    normal, judging = normalizer(task=task), normalizer(task="regression")
    for first in range(0, 600, 50):
        columns = {"a": np.arange(50.0), "y": labels[first : first + 50]}
        assert not (one(normal, **columns)[MARKS] & (QUARANTINED | LABEL_REBASED)).any()
        one(judging, **columns)
    label = normal.query("summary", {})["label"]
    assert (label["quarantined_spike"], label["quarantined_missing"], label["rebased"]) == (0, 0, 0)
    assert judging.query("summary", {})["label"]["quarantined_spike"] > 0


def test_a_float_class_is_missing_or_there() -> None:
    """Told that floats are classes the gate withholds what is none, and nothing else; whatever they are, nothing is
    computed of them."""
    with np.errstate(all="raise"):
        out = one(normalizer(task="classification"), a=np.arange(5.0), y=np.array([0.0, NAN, 1e9, INF, 1e300]))
    assert (out[MARKS] & QUARANTINED).tolist() == [0, QUARANTINED, 0, QUARANTINED, 0]
