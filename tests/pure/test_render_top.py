"""Frames of `streampipectl top`: sizes, flows, text of strangers, and what is written when a frame changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipectl import flow
from streampipectl.cells import cells, shorten
from streampipectl.render_top import KEYS, SORTS, Event, View, frame, scroll_max, share, spark, written
from streampipectl.terminal import update
from streampipectl.top import keys
from support.control_backend import process, status_of
from support.screens import rows_of

PARTS = {"align": 0.012, "snapshot": 0.003, "fsync": 0.02, "manifest": 0.005, "sink_commit": 0.0024, "total": 0.042}
CHAIN = ("generator", "normalizer", "consumer", "trainer", "evaluator")
EVENTS = [Event(0.0, "error" if n == 9 else "info", "trainer", f"event number {n}") for n in range(10)]
EVIL = "\x1b]0;owned\x07\x1b[2J\nfake\u202e\x9b31m\ud800"


def chain(*names: str, **changes: Any) -> list[dict[str, Any]]:
    """Stages of which each reads from the one before, and a service in front, as the daemon lists them."""
    pairs = zip(names, [[], *([name] for name in names)], strict=False)
    service = process("service_monitor", role="service", records_per_s=None, lag_s=None)
    return [service, *(process(name, inputs=inputs, **changes) for name, inputs in pairs)]


def view(*processes: dict[str, Any], **changes: Any) -> View:
    status = status_of(*(processes or chain(*CHAIN)), epoch_parts=PARTS, state_bytes=120 << 20)
    return View(status, EVENTS, [0.02, 0.04, 0.08], **changes)


def lines(shown: View, columns: int, rows: int | None, colour: bool = False) -> list[str]:
    return [written(line, columns, colour) for line in frame(shown, columns, rows)]


def test_transcript() -> None:
    """At 80x24 a frame reads like this: everything, with air between."""
    assert [line.rstrip() for line in lines(view(), 80, 24)] == [
        "friedman running  up 4m12s · generation 2",
        "1.2M records · 48k/s · lag 12ms · 3 restarts · CPU 163 % · RSS 512M",
        "epoch 231 · 0.4s ago  ▂▄█  20ms to 80ms",
        "took 42ms · align 12ms · snapshot 3ms · fsync 20ms · manifest 5ms · sink 2ms",
        "MSE 3.05 · R2 0.877 · state 120M",
        "",
        "generator 48k/s → normalizer 48k/s → consumer 48k/s → trainer 48k/s",
        "  → evaluator 48k/s",
        "",
        "NAME            STATE REC/S  LAG CPU  RSS USS RST SINCE  PID   IN  OUT PHASE",
        "generator       ready   48k 12ms 63% 120M 40M   0 4m12s 4242 1.2M 1.2M process",
        "normalizer      ready   48k 12ms 63% 120M 40M   0 4m12s 4242 1.2M 1.2M process",
        "consumer        ready   48k 12ms 63% 120M 40M   0 4m12s 4242 1.2M 1.2M process",
        "trainer         ready   48k 12ms 63% 120M 40M   0 4m12s 4242 1.2M 1.2M process",
        "evaluator       ready   48k 12ms 63% 120M 40M   0 4m12s 4242 1.2M 1.2M process",
        "service_monitor ready     -    - 63% 120M 40M   0 4m12s 4242 1.2M 1.2M process",
        "",
        *(f"00:00:00 {level:<8} trainer: event number {n}" for n, level in
          ((4, "info"), (5, "info"), (6, "info"), (7, "info"), (8, "info"), (9, "error"))),
        "q quit  p pause  s sort: flow  ? help",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event 0 was at midnight."""
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_what_every_width_has(columns: int) -> None:
    """From 60 columns on every stage has its state, rate, lag, CPU, memory and restarts."""
    shown = lines(view(), columns, 30)
    heading = next(line for line in shown if line.startswith("NAME")).split()
    assert {"NAME", "STATE", "REC/S", "LAG", "CPU", "RSS", "RST"} <= set(heading)
    assert {line.split()[0] for line in shown if " 63% " in line} == {*CHAIN, "service_monitor"}
    assert max(map(cells, shown)) <= columns


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 80), st.integers(0, 40), st.integers(0, 60), st.sampled_from(SORTS),
    st.booleans(), st.integers(0, 3),
)  # fmt: skip
def test_every_size(columns: int, rows: int, stages: int, scroll: int, sort: str, helping: bool, trouble: int) -> None:
    """Any pipeline on any terminal: exactly its rows, and none wider than it."""
    names = [f"{'日本' if n % 3 == 0 else 'stage'}-{n}-{'x' * (n % 30)}" for n in range(stages)]
    processes = chain(*names, **({"state": "backoff", "last_reason": EVIL} if trouble else {}))
    shown = view(*processes, sort=sort, scroll=scroll, helping=helping, trouble=EVIL if trouble > 1 else None)
    drawn = lines(shown, columns, rows)
    assert len(drawn) == rows
    assert max(map(cells, drawn)) <= columns


def test_many_stages_scroll() -> None:
    """With more stages than lines the rest is scrolled to, the last one too, and it is said how many there are."""
    processes = chain(*(f"stage-{n:02}" for n in range(40)))
    top, end = lines(view(*processes), 80, 24), lines(view(*processes, scroll=10**6), 80, 24)
    assert any(line.startswith("stage-00 ") for line in top)
    assert "of 41" in top[-1]
    assert any(line.startswith("service_monitor ") for line in end)
    assert not any(line.startswith("stage-00 ") and "ready" in line for line in end)
    assert sum("event number" in line for line in top) >= 3
    most = scroll_max(view(*processes), 80, 24)
    assert lines(view(*processes, scroll=most), 80, 24) == end
    assert lines(view(*processes, scroll=most - 1), 80, 24) != end
    assert scroll_max(view(), 80, 24) == 0


def test_sorted() -> None:
    """The greatest first; by flow the services are last, and names are from a to z."""
    rows = [process(name, cpu_percent=n, records_per_s=-n % 3, lag_s=None if n == 2 else n, inputs=[])
            for n, name in enumerate(("b", "c", "a"))]  # fmt: skip
    names = {
        sort: [line.split()[0] for line in lines(view(*rows, sort=sort), 80, 24) if " ready" in line] for sort in SORTS
    }
    assert names["cpu"] == ["a", "c", "b"]
    assert names["rate"] == ["c", "a", "b"]
    assert names["lag"] == ["c", "b", "a"]
    assert names["name"] == ["a", "b", "c"]
    assert names["flow"] == ["b", "c", "a"]


def test_strangers_cannot_speak_to_the_terminal() -> None:
    """No control character of a name, a reason, an event or a trouble is written, with colours or without."""
    hostile = process("x" + EVIL, state="backoff", last_reason=EVIL, inputs=[EVIL], phase=EVIL)
    status = status_of(hostile, pipeline=EVIL, reason=EVIL, held=[EVIL])
    shown = View(status, [Event(0.0, EVIL, EVIL, EVIL)], trouble=EVIL)
    for rows in (None, 24):
        for line in lines(shown, 200, rows):
            assert line.isprintable(), line
    coloured = "".join(lines(shown, 200, 24, colour=True))
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"):
        coloured = coloured.replace(code, "")
    assert coloured == "".join(lines(shown, 200, 24))


def test_colours_by_level_and_state() -> None:
    """An error is red, a state has its colour, and without colour there is no escape."""
    text = "\n".join(lines(view(), 80, 24, colour=True))
    assert "\x1b[31mevent number 9\x1b[0m" in text
    assert "\x1b[32mready\x1b[0m" in text
    assert "\x1b" not in "\n".join(lines(view(), 80, 24))


def test_ascii() -> None:
    """A terminal without other characters gets none, and no line becomes wider."""
    for line in frame(view(), 80, 24):
        plain = written(line, 80, False, ascii_only=True)
        assert plain.isascii()
        assert len(plain) == cells(written(line, 80, False))


def test_trouble_pause_and_help_are_said() -> None:
    """Why the daemon is not heard, that the picture stands, and the keys."""
    told = lines(view(trouble="trying again: nobody answers"), 80, 24)[0]
    assert told == "friedman trying again: nobody answers  up 4m12s · generation 2"
    assert "paused" in lines(view(paused=True), 80, 24)[0]
    helped = "\n".join(lines(view(helping=True), 80, 24))
    assert all(what in helped for _, what in KEYS)
    bad = process("trainer", state="backoff", last_reason="killed by SIGSEGV", next_attempt_s=0.4)
    assert "trainer: killed by SIGSEGV; next attempt in 0.4s" in lines(view(bad), 80, 24)


def test_an_older_daemon() -> None:
    """One that tells neither inputs nor epochs is drawn without them."""
    row = {name: value for name, value in process("a").items() if name != "inputs"}
    shown = lines(View(status_of(row, epoch=None, epoch_age=None, report=None, uptime=None)), 80, 24)
    assert "no epoch yet" in shown[2]
    assert any(line.startswith("a ") for line in shown)


# the flow

BRANCHED = [
    flow.Node("a", "a 9/s", ()), flow.Node("b", "b 9/s", ("a",)), flow.Node("c", "c 9/s", ("b",)),
    flow.Node("d", "d 9/s", ("b",)), flow.Node("e", "e 9/s", ("d", "c")), flow.Node("f", "f 9/s", ("e",)),
    flow.Node("z", "z 9/s", ()),
]  # fmt: skip


def test_branches() -> None:
    """Branches hang below where they part; where they join they are drawn once, and named the second time."""
    assert flow.drawn(BRANCHED, 80) == [
        "a 9/s → b 9/s",
        "├→ c 9/s → e 9/s → f 9/s",
        "└→ d 9/s → (e)",
        "z 9/s",
    ]


def test_narrow_branches() -> None:
    """Chains go on below, inside their branch."""
    assert flow.drawn(BRANCHED, 20) == [
        "a 9/s → b 9/s",
        "├→ c 9/s → e 9/s",
        "│    → f 9/s",
        "└→ d 9/s → (e)",
        "z 9/s",
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sets(st.integers(0, 11), max_size=3), max_size=12), st.integers(1, 100))
def test_any_graph(inputs: list[set[int]], width: int) -> None:
    """Any graph, one with cycles included, is drawn inside the width, with every stage exactly once where there is
    room."""
    nodes = [flow.Node(f"s{n}", f"s{n}:", [f"s{i}" for i in reads]) for n, reads in enumerate(inputs)]
    drawn = flow.drawn(nodes, width)
    assert max(map(cells, drawn), default=0) <= width
    if width >= 60:
        text = "\n".join(drawn)
        assert [text.count(f"s{n}:") for n in range(len(nodes))] == [1] * len(nodes)


# parts


@pytest.mark.parametrize(
    ("room", "expected"), [(0, (0, 0, 0)), (4, (0, 4, 0)), (8, (1, 4, 3)), (18, (2, 8, 5)), (60, (2, 8, 40))]
)
def test_shares(room: int, expected: tuple[int, int, int]) -> None:
    """Stages come first, then events, then the flow; what is left goes to the events."""
    assert share(room, 2, 8, 40)[:3] == expected


@pytest.mark.parametrize(("values", "bars"), [([], ""), ([0.0], "▁"), ([1, 4, 8], "▁▄█"), ([5, 5], "██")])
def test_spark(values: list[float], bars: str) -> None:
    """A bar for each value, by its share of the greatest."""
    assert spark(values) == bars


@pytest.mark.parametrize(
    ("text", "width"), [("abc", 3), ("日本語", 6), ("e\u0301", 1), ("", 0), ("각", 2), ("→…▁│", 4)]
)
def test_cells(text: str, width: int) -> None:
    """Wide characters are two cells, combining ones none, and what is cut off is told."""
    assert cells(text) == width
    assert shorten(text, width) == text
    for less in range(width):
        assert cells(shorten(text, less)) <= less


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "ccc"]), min_size=4, max_size=4), min_size=1, max_size=6))
def test_updates_add_up(frames: list[list[str]]) -> None:
    """A screen that got every update shows the last frame, and one that did not change costs nothing."""
    text, before = "", None
    for each in frames:
        text += update(before, each)
        before = each
    assert rows_of(text, 4) == frames[-1]
    assert update(frames[-1], frames[-1]) == ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"q", ["q"]), (b"", ["q"]), (b"\x1b[A\x1bOBjk", ["k", "j", "j", "k"]),
     (b"\x1b[5~\x1b[6~", ["page up", "page down"]),
     (b"\x1b", []), (b"\x1b[C", []), (b"\xff?", ["\xff", "?"])],
)  # fmt: skip
def test_keys(data: bytes, expected: list[str]) -> None:
    """Keys are known by their names, arrows in both spellings; the end of the terminal quits."""
    assert keys(data) == expected
