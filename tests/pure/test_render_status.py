"""The control tool's drawings: units, widths, reasons, and text of strangers."""

from __future__ import annotations

import pytest

from streampipectl import render
from support.control_backend import process, status_of

NAMES = ("generator", "normalizer", "consumer", "trainer", "evaluator", "log_extractor", "service_monitor")
WHOLE = status_of(*(process(name) for name in NAMES))


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0"), (7, "7"), (7.25, "7.2"), (999, "999"), (1000, "1.0k"), (48_230, "48k"),
     (999_600, "1.0M"), (3_400_000, "3.4M"), (12_000_000_000, "12G"), (0.0, "0")],
)  # fmt: skip
def test_count(number: float | None, text: str) -> None:
    """A count takes at most five characters and is rounded, not cut."""
    assert render.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0B"), (512, "512B"), (1 << 20, "1.0M"), (125 << 20, "125M")],
)
def test_size(number: int | None, text: str) -> None:
    """Bytes are shown in binary units."""
    assert render.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0ms"), (0.00025, "250us"), (0.012, "12ms"), (0.0999, "0.1s"), (4.21, "4.2s"), (42.4, "42s"),
     (59.7, "1m00s"), (187, "3m07s"), (7500, "2h05m"), (3 * 86400 + 4 * 3600, "3d04h")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    """A duration has its two largest units."""
    assert render.duration(seconds) == text


def test_transcript() -> None:
    """A whole status reads like this on a wide terminal."""
    trouble = process(
        "trainer", state="backoff", pid=None, restarts=3, last_reason="killed by SIGSEGV", next_attempt_s=0.4,
        records_per_s=None, lag_s=None, cpu_percent=None, rss_bytes=None, uss_bytes=None,
    )  # fmt: skip
    status = status_of(process("generator"), trouble, state="resetting", reason="trainer died")
    assert render.status_text(status).split("\n") == [
        "friedman: resetting, up 4m12s, epoch 231 (0.4s ago), generation 2, trainer died",
        "1.2M records, 48k/s, lag 12ms, 3 restarts, CPU 163 %, RSS 512M",
        "MSE 3.05, R2 0.877 over 1.2M rows",
        "",
        "NAME       STATE    SINCE   PID  RST    IN   OUT  REC/S   LAG  CPU   RSS  USS",
        "generator  ready    4m12s  4242    0  1.2M  1.2M    48k  12ms  63%  120M  40M",
        "trainer    backoff  4m12s     -    3  1.2M  1.2M      -     -    -     -    -",
        "",
        "trainer: killed by SIGSEGV; next attempt in 0.4s",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_width(width: int) -> None:
    """No line is wider than the terminal, and name, state and rate are always there."""
    lines = render.status_text(WHOLE, width).split("\n")
    assert max(map(len, lines)) <= width
    (header,) = (line for line in lines if line.startswith("NAME"))
    assert {"NAME", "STATE", "PID", "RST", "REC/S"} <= set(header.split())


def test_eighty_columns_show_the_flow() -> None:
    """At 80 columns records in and out, lag, CPU and RSS have their place."""
    header = next(line for line in render.status_text(WHOLE, 80).split("\n") if line.startswith("NAME"))
    assert {"IN", "OUT", "LAG", "CPU", "RSS"} <= set(header.split())


def test_colour_changes_no_text() -> None:
    """Without its colours the coloured drawing is the plain one."""
    status = status_of(process("generator"), process("trainer", state="failed"), state="failed")
    coloured = render.status_text(status, 80, colour=True)
    assert "\x1b[31mfailed\x1b[0m" in coloured
    plain = coloured
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"):
        plain = plain.replace(code, "")
    assert plain == render.status_text(status, 80)


def test_strangers_cannot_speak_to_the_terminal() -> None:
    """Escape sequences and newlines in reasons and names do not reach the terminal."""
    evil = "\x1b]0;owned\x07\nfake: line"
    text = render.status_text(status_of(process("x" + evil, last_reason=evil), reason=evil))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert not any(line.startswith("fake") for line in text.split("\n"))


def test_progress_of_a_bounded_stream() -> None:
    """With a known total the share that is done is shown."""
    status = status_of(process("generator"))
    status["totals"]["total"] = 2_400_000
    assert "1.2M of 2.4M records (50 %)" in render.status_text(status)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([process("a"), process("b", state="running")], True),
        ([process("a"), process("b", state="stopped", wanted=False)], True),
        ([process("a"), process("b", state="finished")], True),
        ([process("a"), process("b", state="stopped")], False),
        ([process("a"), process("b", state="backoff")], False),
        ([process("a", state="loading")], False),
    ],
)
def test_healthy(processes: list[dict[str, object]], expected: bool) -> None:
    """Healthy means every wanted process is ready; what was stopped on purpose does not count."""
    assert render.healthy(status_of(*processes)) is expected


def test_failed_pipeline_is_not_healthy() -> None:
    """A pipeline that gave up is not healthy, whatever its processes say."""
    assert not render.healthy(status_of(process("a"), state="failed"))


def test_unknown_is_a_dash() -> None:
    """Every figure may be null."""
    row = dict.fromkeys(process("a")) | {"name": "a", "state": "stopped"}
    totals = dict.fromkeys(status_of()["totals"])
    status = status_of(row, totals=totals, report=None, epoch=None, epoch_age=None, uptime=None, now=None)
    assert "a     stopped      -" in render.status_text(status)


def test_change_lines() -> None:
    """A change says what was changed and how long it took, or that it goes on."""
    done = {"verb": "restart", "changed": ["trainer"], "seconds": 0.114, "done": True}
    assert render.change_text(done, ("trainer",)) == "restart trainer: trainer, 0.11 s"
    assert render.change_text(done | {"changed": []}, ()) == "restart of the pipeline: nothing to do, 0.11 s"
    assert render.change_text(done | {"done": False}, ("trainer",)) == "restart trainer: accepted, going on"


def test_report() -> None:
    """The evaluator's own text is taken; without one the figures are listed."""
    assert render.report_text({"text": "MSE 3\n\x1b[2JR2 1"}) == "MSE 3\n?[2JR2 1"
    assert render.report_text({"results": {"mse": 3.0512345678, "rows": 5}}) == "results:\n  mse: 3.05123\n  rows: 5"
