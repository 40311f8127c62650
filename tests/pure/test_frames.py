"""Frames on a link: whole, byte by byte, torn, damaged, beyond every limit; and where a batch's columns lie.

docs/specs/frames.md is the contract.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampiped.aligned import COLUMN_ALIGN_BYTES
from streampiped.errors import FrameError, SchemaError
from streampiped.records import COLUMNS_MAX, NAME_BYTES_MAX, ROWS_MAX, Batch, Schema, Span
from streampiped.wire.frames import (
    BARRIER,
    BATCH,
    BUFFER_BYTES,
    END,
    HEADER_BYTES_MAX,
    HELLO,
    Barrier,
    End,
    Frame,
    FrameReader,
    FrameWriter,
    Hello,
    padded,
)
from support.link_bytes import GENERATION, decoded, encoded, feed, floats, only_batch, plain

NOTHING = Schema()
EVERY_TYPE = Batch.build(
    {
        "x": [1.5, float("nan"), -0.0],
        "y": [float("inf"), 5e-324, 1e308],
        "n": np.array([-(2**63), 0, 2**63 - 1]),
        "who": ["a", None, "ü"],
    },
    sequence=2**40,
    spans=(Span("numbers", 10, 2), Span("others", 0, 1)),
    ingest_ns=2**62,
)
ONE_ROW = Batch.build({"x": [1.0], "y": [2.0]}, spans=(Span("numbers", 0, 1),))
NO_ROWS = Batch.build({"x": np.zeros(0), "n": np.zeros(0, np.int64)})
ONLY_TEXT = Batch.build({"who": ["", None], "what": ["b" * 300, "c"]})
NO_COLUMNS = Batch.build({})
HALF_CHARACTERS = Batch.build({"who": ["\ud83d", "a\udc00b"], "x": [1.0, 2.0]})
"""Lone surrogates, as json.loads gives them."""

STREAMS: dict[str, list[Frame]] = {
    "every_type": [Hello(EVERY_TYPE.schema), EVERY_TYPE],
    "one_row": [Hello(ONE_ROW.schema), ONE_ROW],
    "no_rows": [Hello(NO_ROWS.schema), NO_ROWS],
    "only_text": [Hello(ONLY_TEXT.schema), ONLY_TEXT],
    "half_characters": [Hello(HALF_CHARACTERS.schema), HALF_CHARACTERS],
    "no_columns": [Hello(NOTHING), NO_COLUMNS],
    "barrier": [Hello(NOTHING), Barrier(3), Barrier(2**32)],
    "end_and_barrier": [Hello(ONE_ROW.schema), ONE_ROW, End(), Barrier(4)],
    "schema_changes": [Hello(ONE_ROW.schema), ONE_ROW, Hello(NO_ROWS.schema), NO_ROWS, Barrier(1)],
}
streams = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)

PINNED: list[tuple[Frame, int, list[Any], int]] = [
    # frame, kind, header, bytes of data
    (Hello(Schema(("x",), ("n",), ("t",))), 1, [GENERATION, ["x"], ["n"], ["t"]], 0),
    (ONE_ROW, 2, [GENERATION, 1, 0, 0, [["numbers", 0, 1]], [], []], 128),
    (Barrier(12), 3, [GENERATION, 12], 0),
    (End(), 4, [GENERATION], 0),
]


def raw(kind: int, header: Any, data: bytes = b"", **prefix: Any) -> bytes:
    """A frame by the letter of the specification; `prefix` overrides a field of its prefix."""
    body = header if isinstance(header, bytes) else msgpack.packb(header)
    fields = {
        "magic": b"SPFR",
        "version": 2,
        "kind": kind,
        "header_bytes": len(body),
        "checksum": zlib.crc32(body),
        "data_bytes": len(data),
    }
    start = struct.pack("<4sHHIIQ", *(fields | prefix).values())
    return start.ljust(64, b"\0") + body + bytes(-len(body) % 64) + data


def hello(*names: str) -> bytes:
    """A hello of float columns."""
    return raw(HELLO, [GENERATION, names, [], []])


# both directions


@pytest.mark.parametrize(("frame", "kind", "header", "data_bytes"), PINNED, ids=lambda v: type(v).__name__)
def test_wire_form(frame: Frame, kind: int, header: list[Any], data_bytes: int) -> None:
    """Each kind of frame has exactly the specification's bytes on the link, in both directions."""
    opening: list[Frame] = [] if kind == HELLO else [Hello(ONE_ROW.schema)]
    before = encoded(opening)
    block = encoded([*opening, frame])[len(before) :][-data_bytes:] if data_bytes else b""
    by_letter = raw(kind, header, block)
    assert encoded([*opening, frame]) == before + by_letter
    assert decoded(before + by_letter)[-1] == plain(frame)


def test_block_is_column_major_and_padded() -> None:
    """A column of n rows takes n items of 8 bytes, little-endian, then zeros up to the next 64 bytes."""
    data = encoded([ONE_ROW])[-128:]
    assert data == struct.pack("<d", 1.0) + bytes(56) + struct.pack("<d", 2.0) + bytes(56)


@streams
@pytest.mark.parametrize("step", [None, 1, 63, 64, 65])
def test_round_trip_in_any_pieces(stream: list[Frame], step: int | None) -> None:
    """However the bytes are cut, the same frames come out, to the bit; encoded again they are the same bytes."""
    data = encoded(stream)
    assert decoded(data, step) == [plain(frame) for frame in stream]
    assert encoded(stream) == data


@streams
def test_torn_tail(stream: list[Frame]) -> None:
    """Cut anywhere, the whole frames before the cut come out and no other; with the rest come the others."""
    data = encoded(stream)
    wanted = [plain(frame) for frame in stream]
    for cut in range(len(data)):
        reader = FrameReader(GENERATION)
        first = feed(reader, data[:cut])
        assert first == wanted[: len(first)]
        assert first + feed(reader, data[cut:]) == wanted
        assert reader.pending == 0


def test_writer_says_hello_by_itself() -> None:
    """The first frame of a generation is hello, whatever is written first, and a new schema is announced."""
    assert decoded(encoded([Barrier(1)])) == [Hello(NOTHING), Barrier(1)]
    assert decoded(encoded([End()])) == [Hello(NOTHING), End()]
    kinds = [type(frame) for frame in decoded(encoded([ONE_ROW, ONE_ROW, NO_ROWS]))]
    assert kinds == [Hello, tuple, tuple, Hello, tuple]


def test_buffer_grows_for_a_large_frame_and_goes_on() -> None:
    """A frame larger than the first buffer arrives whole, and so do the small ones around it."""
    large = Batch.build(floats(20_001, 5))
    assert large.floats.data.nbytes > 3 * BUFFER_BYTES
    stream: list[Frame] = [Hello(large.schema), Barrier(1), large, Barrier(2), large]
    assert decoded(encoded(stream), 100_000) == [plain(frame) for frame in stream]


# where the columns lie


@pytest.mark.parametrize(("rows", "step"), [(1, None), (7, None), (8, None), (9, None), (1000, None), (7, 1), (9, 1)])
def test_every_column_is_aligned(rows: int, step: int | None) -> None:
    """Every column of every batch starts on a 64-byte boundary at the reader, also in the second of two frames that
    lie in one buffer, and behind texts and numbers of any length."""
    columns = floats(rows, 3) | {"n": np.arange(rows), "who": ["x" * (rows % 61)] * rows}
    batches = [Batch.build(columns, sequence=10**digits, ingest_ns=10**digits) for digits in (0, 5, 18)]
    reader, seen = FrameReader(GENERATION), 0
    data = encoded(batches)
    for at in range(0, len(data), step or len(data)):
        piece = data[at : at + (step or len(data))]
        reader.space()[: len(piece)] = piece
        reader.filled(len(piece))
        while (frame := reader.next()) is not None:
            if isinstance(frame, Batch):
                assert [frame[name].ctypes.data % COLUMN_ALIGN_BYTES for name in ("x0", "x1", "x2", "n")] == [0] * 4
                assert frame.matrix(["x0", "x1", "x2"]).ctypes.data % COLUMN_ALIGN_BYTES == 0
                seen += 1
    assert seen == 3


CHOICES = {"all": ("x0", "x1", "x2", "x3"), "together": ("x1", "x2"), "apart": ("x3", "x0", "x2")}


@pytest.mark.parametrize("names", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("rows", [3, 64, 1001])
def test_same_bits_inline_and_in_process(names: tuple[str, ...], rows: int) -> None:
    """What is computed from a batch off a link has the same bits as from the batch before it: sums, products and
    matrix products depend on order and alignment, and both are the same."""
    ours = Batch.build(floats(rows, 4), sequence=3)
    theirs = only_batch(FrameReader(GENERATION), encoded([ours]))
    weights = np.linspace(-1.0, 1.0, len(names))
    for compute in COMPUTATIONS:
        ours_bits = np.asarray(compute(ours.matrix(names), weights)).tobytes()
        theirs_bits = np.asarray(compute(theirs.matrix(names), weights)).tobytes()
        assert ours_bits == theirs_bits
    assert theirs.matrix(names).strides == ours.matrix(names).strides


COMPUTATIONS: list[Callable[[Any, Any], Any]] = [
    lambda x, w: x @ w,
    lambda x, w: x.T @ x,
    lambda x, w: x.sum(),
    lambda x, w: x.sum(axis=0),
    lambda x, w: x.mean(axis=1),
    lambda x, w: np.exp(x[:, 0] * 1e-9).sum(),
]


def test_a_matrix_of_a_column_twice_is_refused() -> None:
    """By its name: no block has two columns of one name, so it cannot be made."""
    with pytest.raises(ValueError, match="named twice"):
        Batch.build(floats(3, 2)).matrix([*floats(3, 2), next(iter(floats(3, 2)))])


def test_views_are_read_only() -> None:
    """Nobody can write into a batch that others read too."""
    batch = only_batch(FrameReader(GENERATION), encoded([ONE_ROW]))
    for view in (batch["x"], batch.matrix(["x", "y"])):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1.0


# what is no frame

SIXTEEN = bytes(128)  # two columns of one row

REFUSED: dict[str, tuple[bytes, str]] = {
    "magic": (raw(END, [GENERATION], magic=b"HTTP"), "starts with b'HTTP'"),
    "version": (raw(END, [GENERATION], version=1), "version 1"),
    "checksum": (hello() + raw(END, [GENERATION], checksum=1), "checksum"),
    "header_length": (raw(HELLO, b"", header_bytes=HEADER_BYTES_MAX + 1), "header of"),
    "frame_length": (raw(HELLO, [GENERATION, [], [], []], data_bytes=1 << 62), "at most"),
    "data_not_in_steps": (raw(BATCH, [GENERATION, 0, 0, 0, [], [], []], bytes(8)), "steps of 64"),
    "unknown_kind": (hello() + raw(5, [GENERATION]), "unknown kind 5"),
    "kind_zero": (hello() + raw(0, [GENERATION]), "unknown kind 0"),
    "wrong_generation": (raw(HELLO, [GENERATION - 1, [], [], []]), "generation 6, expected 7"),
    "batch_without_hello": (raw(BATCH, [GENERATION, 0, 0, 0, [], [], []]), "must be hello"),
    "barrier_without_hello": (raw(BARRIER, [GENERATION, 1]), "must be hello"),
    "no_msgpack": (raw(HELLO, b"\xc1"), "cannot be read"),
    "no_list": (raw(HELLO, b"\x05"), "cannot be read"),
    "torn_msgpack": (raw(HELLO, msgpack.packb([GENERATION, [], [], []])[:-1]), "cannot be read"),
    "too_few_fields": (raw(HELLO, [GENERATION, []]), "cannot be read"),
    "too_many_fields": (hello() + raw(BARRIER, [GENERATION, 1, 2]), "cannot be read"),
    "data_behind_a_barrier": (hello() + raw(BARRIER, [GENERATION, 1], bytes(64)), "has 64 bytes of data"),
    "rows_and_data_differ": (hello("x", "y") + raw(BATCH, [GENERATION, 9, 0, 0, [], [], []], SIXTEEN), "does not fit"),
    "columns_and_data_differ": (hello("x") + raw(BATCH, [GENERATION, 1, 0, 0, [], [], []], SIXTEEN), "does not fit"),
    "negative_rows": (hello("x", "y") + raw(BATCH, [GENERATION, -1, 0, 0, [], [], []]), "does not fit"),
    "rows_are_text": (hello("x", "y") + raw(BATCH, [GENERATION, "1", 0, 0, [], [], []], SIXTEEN), "cannot be read"),
    "too_many_rows": (hello() + raw(BATCH, [GENERATION, ROWS_MAX + 1, 0, 0, [], [], []]), "does not fit"),
    "text_column_missing": (
        raw(HELLO, [GENERATION, [], [], ["t"]]) + raw(BATCH, [GENERATION, 1, 0, 0, [], [], []]),
        "does not fit",
    ),
    "text_column_too_short": (
        raw(HELLO, [GENERATION, [], [], ["t"]]) + raw(BATCH, [GENERATION, 2, 0, 0, [], [["a"]], []]),
        "does not fit",
    ),
    "bad_span": (hello() + raw(BATCH, [GENERATION, 0, 0, 0, [["s", 1]], [], []]), "cannot be read"),
    "column_twice": (raw(HELLO, [GENERATION, ["x"], ["x"], []]), "must differ"),
    "column_without_name": (raw(HELLO, [GENERATION, [""], [], []]), "1 to 128 bytes"),
    "column_name_too_long": (raw(HELLO, [GENERATION, ["x" * (NAME_BYTES_MAX + 1)], [], []]), "1 to 128 bytes"),
    "column_name_no_text": (raw(HELLO, [GENERATION, [5], [], []]), "cannot be read"),
    "too_many_columns": (raw(HELLO, [GENERATION, [str(i) for i in range(COLUMNS_MAX + 1)], [], []]), "at most 4096"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_frame_is_refused(data: bytes, words: str) -> None:
    """Whatever breaks the specification is a FrameError that says what is wrong, and nothing else."""
    with pytest.raises(FrameError, match=words):
        decoded(data)


def test_limits_are_reached_before_they_are_exceeded() -> None:
    """The largest schema, the longest name and a frame of exactly the limit are frames."""
    names = ("é" * (NAME_BYTES_MAX // 2), *(f"c{i}" for i in range(COLUMNS_MAX - 1)))
    assert decoded(encoded([Hello(Schema(names))])) == [Hello(Schema(names))]
    rows = decoded(hello() + raw(BATCH, [GENERATION, ROWS_MAX, 0, 0, [], [], []]))[1]
    assert rows[1] == ROWS_MAX
    data = encoded([ONE_ROW])
    whole = len(data) - len(encoded([Hello(ONE_ROW.schema)]))
    assert len(decoded(data, limit=whole)) == 2
    with pytest.raises(FrameError, match=f"at most {whole - 64}"):
        decoded(data, limit=whole - 64)


def test_a_promised_length_costs_nothing() -> None:
    """A prefix that promises more than the limit is refused before any memory is taken for it."""
    reader = FrameReader(GENERATION, 1 << 20)
    reader.space()[:64] = raw(HELLO, b"", data_bytes=1 << 21)[:64]
    reader.filled(64)
    with pytest.raises(FrameError, match="at most 1048576"):
        reader.next()
    assert len(reader.space()) < BUFFER_BYTES


def test_a_flipped_bit_is_no_other_frame() -> None:
    """With one bit flipped in a prefix or header the frames before it come out and no wrong one, ever."""
    data = encoded([EVERY_TYPE, Barrier(3), End()])
    wanted = decoded(data)
    starts = _frame_starts(data)
    for start, header_bytes in starts:
        for at in [*range(start, start + 24), *range(start + 64, start + 64 + header_bytes)]:
            for bit in range(8):
                damaged = bytearray(data)
                damaged[at] ^= 1 << bit
                assert _readable_part(bytes(damaged)) == wanted[: _frames_before(starts, start)]


def _frame_starts(data: bytes) -> list[tuple[int, int]]:
    """(offset, header bytes) of every frame."""
    found, at = [], 0
    while at < len(data):
        header_bytes, _, data_bytes = struct.unpack_from("<IIQ", data, at + 8)
        found.append((at, header_bytes))
        at += 64 + padded(header_bytes) + data_bytes
    return found


def _frames_before(starts: list[tuple[int, int]], start: int) -> int:
    return [at for at, _ in starts].index(start)


def _readable_part(data: bytes) -> list[Any]:
    """The frames that come out before the reader refuses, or waits for more."""
    reader, frames = FrameReader(GENERATION), []
    reader.space()[: len(data)] = data
    reader.filled(len(data))
    try:
        while (frame := reader.next()) is not None:
            frames.append(plain(frame))
    except FrameError:
        pass
    return frames


# anything at all

names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), unique=True, max_size=6)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rows = draw(st.integers(0, 20))
    columns: dict[str, Any] = {}
    for name in draw(names):
        kind = draw(st.sampled_from("fit"))
        if kind == "f":
            columns[name] = np.array(draw(st.lists(st.floats(), min_size=rows, max_size=rows)), np.float64)
        elif kind == "i":
            whole = st.integers(-(2**63), 2**63 - 1)
            columns[name] = np.array(draw(st.lists(whole, min_size=rows, max_size=rows)), np.int64)
        else:
            text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
            columns[name] = draw(st.lists(text, min_size=rows, max_size=rows))
    spans = draw(st.lists(st.builds(Span, st.text("ab", min_size=1), st.integers(0, 2**62), st.integers(0, 99))))
    big = st.integers(0, 2**63 - 1)
    return Batch.build(columns, sequence=draw(big), spans=tuple(spans), ingest_ns=draw(big))


@given(st.lists(batches(), max_size=3), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_any_batches_round_trip(stream: list[Batch], step: int) -> None:
    """Any batches of any schemas, cut anywhere, arrive to the bit and in order."""
    frames = decoded(encoded(stream), step)
    assert [frame for frame in frames if not isinstance(frame, Hello)] == [plain(batch) for batch in stream]


@given(st.lists(batches(), min_size=1, max_size=3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_batch_that_is_handed_on_makes_the_frame_in_which_it_came(stream: list[Batch], is_known: bool) -> None:
    """Whoever says so or not: the bytes are the same. Of texts, which can be changed in place, nobody says so."""
    reader = FrameReader(GENERATION)
    data = encoded(stream)
    reader.space()[: len(data)] = data
    reader.filled(len(data))
    told, plainly = FrameWriter(GENERATION), FrameWriter(GENERATION)
    while (frame := reader.next()) is not None:
        if isinstance(frame, Batch):
            came = reader.came(frame)
            assert (came is None) == bool(frame.schema.texts)
            given = came if is_known else None
            assert b"".join(told.encode(frame, lambda _: [], given)) == b"".join(plainly.encode(frame))
            assert reader.came(Batch.build({"x": [1.0]})) is None


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 2},
        {"sequence": 8},
        {"ingest_ns": 1},
        {"spans": (Span("s", 1, 3),)},
        {"floats": Batch.build(floats(3, 2)).floats},
        {"ints": Batch.build({"n": np.arange(3)}).ints},
        {"schema": Schema(("a", "b"), ("n",))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_batch_that_was_changed_did_not_come_so(change: dict[str, Any]) -> None:
    """A stage may set anything of the batch that it was given, and return it: that goes on and not what came."""
    batch = Batch.build(floats(3, 2) | {"n": np.arange(3)}, sequence=7, spans=(Span("s", 0, 3),), ingest_ns=5)
    reader = FrameReader(GENERATION)
    data = encoded([batch])
    reader.space()[: len(data)] = data
    reader.filled(len(data))
    assert isinstance(reader.next(), Hello)
    found = reader.next()
    assert isinstance(found, Batch)
    assert reader.came(found) is not None
    for name, value in change.items():
        setattr(found, name, value)
    assert reader.came(found) is None


fields = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(st.sampled_from([HELLO, BATCH, BARRIER, END]), st.lists(fields, max_size=6), st.sampled_from([0, 64, 128]))
@settings(max_examples=100, deadline=None)
def test_nonsense_in_a_sound_frame_is_refused_or_read(kind: int, header: list[Any], data_bytes: int) -> None:
    """Whatever a header says, with a right checksum, is a frame or a FrameError: no other exception."""
    _readable_part(hello("x") + raw(kind, [GENERATION, *header], bytes(data_bytes)))


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    """Bytes that are not ours never become a frame."""
    assert _readable_part(data[:300]) == []


def test_writer_refuses_what_no_reader_takes() -> None:
    """A batch whose frame is larger than the limit is refused where it is made, with both figures and the remedy."""
    writer = FrameWriter(1, frame_bytes_max=4096)
    with pytest.raises(FrameError, match=r"1000 rows .* at most 4096; lower the source's batch_max"):
        writer.encode(Batch.build({"x": np.zeros(1000)}))


# the way of a row


def test_span_has_its_way_on_the_link_only_where_there_is_one() -> None:
    """By the letter: a span that has come past a stage with several inputs has a fourth item, others have three."""
    batch = Batch.build({"x": [1.0, 2.0]}, spans=(Span("a", 5, 1, "left/outer"), Span("a", 6, 1)))
    data = encoded([batch])
    assert msgpack.packb([["a", 5, 1, "left/outer"], ["a", 6, 1]]) in data
    assert decoded(data) == [Hello(batch.schema), plain(batch)]


@pytest.mark.parametrize(("before", "after"), [("", "outer"), ("left", "left/outer")])
def test_input_is_added_to_the_way(before: str, after: str) -> None:
    """The reader of a stage with several inputs writes its input behind the way of every span."""
    batch = Batch.build({"x": [1.0, 2.0]}, spans=(Span("a", 5, 1, before), Span("b", 5, 1, before)))
    hello, found = feed(FrameReader(GENERATION, via="outer"), encoded([batch]))
    batch.spans = (Span("a", 5, 1, after), Span("b", 5, 1, after))
    assert (hello, found) == (Hello(batch.schema), plain(batch))


def test_selected_rows_keep_their_way() -> None:
    """Rows that are taken out of a batch have the way that they had in it."""
    batch = Batch.build({"x": [0.0, 1.0, 2.0, 3.0]}, spans=(Span("a", 5, 2, "left"), Span("a", 5, 2, "right")))
    part = batch.select(np.array([False, True, True, False]))
    assert part.spans == (Span("a", 6, 1, "left"), Span("a", 5, 1, "right"))


def test_header_that_no_reader_takes_is_not_written() -> None:
    """Texts that make a header over the limit are refused where they are, whatever a frame may have."""
    batch = Batch.build({"who": ["x" * (HEADER_BYTES_MAX // 2)] * 2})
    with pytest.raises(FrameError, match="lower the source's batch_max"):
        FrameWriter(GENERATION).encode(batch)
    FrameWriter(GENERATION).encode(batch.select(np.array([True, False])))


def test_hello_comes_with_the_first_batch_that_makes_a_frame() -> None:
    """A batch of another schema that makes no frame takes nothing with it: its halves have their hello, and their rows
    come under their own names."""
    writer = FrameWriter(GENERATION, frame_bytes_max=4096)
    data = b"".join(map(bytes, writer.encode(ONE_ROW)))
    large = Batch.build({"z": np.arange(600.0)})
    with pytest.raises(FrameError, match="lower the source's batch_max"):
        writer.encode(large)
    half = large.select(np.arange(600) < 300)
    data += b"".join(bytes(each) for each in writer.encode(half))
    first, one, second, other = feed(FrameReader(GENERATION, frame_bytes_max=4096), data)
    assert (first, second) == (Hello(ONE_ROW.schema), Hello(half.schema))
    assert (one, other) == (plain(ONE_ROW), plain(half))


def test_hello_that_no_reader_takes_is_not_written() -> None:
    """Column names that make a frame over the limit are refused where they are, and the next schema is said."""
    writer = FrameWriter(GENERATION, frame_bytes_max=4096)
    with pytest.raises(SchemaError, match=r"100 columns make a frame of .* at most 4096; raise links.frame_bytes_max"):
        writer.encode(Batch.build({f"{n:0100}": [1.0] for n in range(100)}))
    assert feed(FrameReader(GENERATION), b"".join(map(bytes, writer.encode(End())))) == [Hello(NOTHING), End()]
