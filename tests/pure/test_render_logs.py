"""The summary of the log as text, and the log's section of the report."""

from __future__ import annotations

import time
from typing import Any

import pytest

from streampipectl.render_logs import summary_text
from streampiped.log_report import condensed, log_text

NOW = 1_700_050_000.0


def template(text: str, count: int, **changes: Any) -> dict[str, Any]:
    seen = {"level": "info", "first_seen": NOW - 9000, "last_seen": NOW - 5}
    return (
        {"stage": "trainer", "event": "stage_output", "template": text, "count": count, "example": text}
        | seen
        | changes
    )


def summary(**changes: Any) -> dict[str, Any]:
    """A whole answer to `log_summary`."""
    seen = {"first_seen": NOW - 90_000, "last_seen": NOW - 3}
    return {
        "now": NOW, "stage": None, "events": 12_345, "garbage": 0, "gaps": 0, "templates_forgotten": 0,
        "stages": {
            "trainer": {"levels": {"info": 12_000, "error": 12}, "drops": {"output_dropped": 7}, **seen},
            "supervisor": {"levels": {"info": 330, "warning": 3}, **seen},
        },
        "templates": [
            template("loss <n> after epoch <n>", 11_000, example="loss 0.5 after epoch 3"),
            template("ValueError: no <n>", 12, level="error", example="ValueError: no 7"),
        ],
        "incidents": [],
        "restarts": [{"stage": "trainer", "count": 3, "first_seen": NOW - 80, "last_seen": NOW - 60,
                      "reason": "killed by SIGKILL"}],
        "bursts": [{"stage": "trainer", "started": NOW - 70, "ended": NOW - 60, "errors": 12}],
        "slow_epochs": {"count": 4, "last": [
            {"ts": NOW - 50, "epoch": 231, "seconds": 1.5, "median": 0.042, "part": "fsync"}]},
    } | changes  # fmt: skip


def clock(ts: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(ts))


def test_summary() -> None:
    """Everything that the log says stands on one screen of 80 columns."""
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(NOW - 90_000))
    first, last, end = clock(NOW - 9000), clock(NOW - 5), clock(NOW - 3)
    assert summary_text(summary(), 80).splitlines() == [
        f"12345 events since {day}",
        "",
        "STAGE       INFO  WARNING  ERROR        FIRST SEEN  LAST SEEN",
        f"supervisor   330        3      -  {day}   {end}",
        f"trainer      12k        -     12  {day}   {end}",
        "",
        "most frequent",
        "   11k  loss <n> after epoch <n>",
        f"        trainer, info, {first} to {last}, such as: loss 0.5 after epoch 3",
        "    12  ValueError: no <n>",
        f"        trainer, error, {first} to {last}, such as: ValueError: no 7",
        "",
        "restarts",
        "  COUNT  STAGE        LAST  REASON",
        f"      3  trainer  {clock(NOW - 60)}  killed by SIGKILL",
        "",
        "bursts of errors",
        "  STAGE       BEGAN  LASTED  ERRORS",
        f"  trainer  {clock(NOW - 70)}     10s      12",
        "",
        "slow epochs, 4 in all",
        "  EPOCH        AT  TOOK  USUAL  MOST IN",
        f"    231  {clock(NOW - 50)}  1.5s   42ms  fsync",
        "",
        "dropped",
        "  COUNT  STAGE    EVENT",
        "      7  trainer  output_dropped",
    ]


def test_summary_since() -> None:
    """The first line names the moment that was answered for; what is known in sum alone is an upper bound, and said to
    be one."""
    undated = dict.fromkeys(("garbage", "gaps", "templates_forgotten"))
    new = template("late <n>", 7) | {"count_max": 7}
    old = template("loss <n>", 11_000) | {"count": None, "count_max": 11_000}
    restart = {**summary()["restarts"][0], "count": None, "count_max": 3}
    found = summary(**undated, since=NOW - 600, templates=[new, old], restarts=[restart])
    lines = summary_text(found, 80).splitlines()
    assert lines[0] == f"12345 events since {clock(NOW - 600)}"
    assert "at most" in lines[1]
    assert "     7  late <n>" in lines
    assert " <=11k  loss <n>" in lines
    assert any(line.split()[:2] == ["<=3", "trainer"] for line in lines)
    exact = summary(**undated, since=NOW - 600, templates=[new], restarts=[])
    assert "<=" not in summary_text(exact)
    empty = summary(**undated, since=NOW - 600, events=0, stages={}, templates=[], restarts=[])
    assert summary_text(empty).startswith(f"no events since {clock(NOW - 600)}")


def test_quiet_summary() -> None:
    """What there is nothing of is not mentioned."""
    nothing = {"restarts": [], "bursts": [], "slow_epochs": {"count": 0, "last": []}, "templates": [], "stages": {}}
    assert summary_text(summary(**nothing, events=0)) == "no events yet"
    assert summary_text(summary(**nothing, stage="trainer")) == "no events of trainer yet"


def test_what_is_missing_is_said() -> None:
    """Lines that could not be counted, and gaps, stand below the total."""
    lines = summary_text(summary(garbage=2, gaps=1)).splitlines()
    assert lines[1] == "2 lines that are no events, 1 gaps"


@pytest.mark.parametrize("events", [0, 12_345])
def test_figures_that_stand_still_say_so(events: int) -> None:
    """Why the database cannot be written stands below the total, also when nothing has been counted."""
    lines = summary_text(summary(events=events, unwritten="database or disk is full")).splitlines()
    assert lines[1] == "newer events are not counted yet: database or disk is full"


@pytest.mark.parametrize("width", [None, 40, 80, 200])
@pytest.mark.parametrize("colour", [False, True])
def test_width(width: int | None, colour: bool) -> None:
    """No line is wider than the terminal, 80 into a pipe, and no control character of a stranger reaches it."""
    evil = "\x1b[2J" + "very long " * 30
    found = summary(
        stages={evil: {"levels": {"info": 1}, "first_seen": NOW, "last_seen": NOW, "drops": {evil: 1}}},
        templates=[template(evil, 1)],
        restarts=[{"stage": evil, "count": 1, "first_seen": NOW, "last_seen": NOW, "reason": evil}] * 30,
    )
    text = summary_text(found, width, colour)
    assert "\x1b[2J" not in text
    if not colour:
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= (width or 80)
    assert "and 22 more" in text


def test_section_of_the_report() -> None:
    """The report has the totals, the restarts with their reasons, and what is missing; 80 columns."""
    log = condensed(summary(garbage=1))
    assert log["levels"] == {"info": 12_330, "error": 12, "warning": 3}
    assert (log["slow_epochs"], log["bursts"], log["drops"]) == (4, 1, {"output_dropped": 7})
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(NOW - 90_000))
    assert log_text(log).splitlines() == [
        "Log",
        f"  events        12345 since {day} (12 error, 3 warning)",
        f"  restarts      trainer: killed by SIGKILL (3 times), {clock(NOW - 60)}",
        "  error bursts  1",
        "  slow epochs   4",
        "  dropped       7 by output_dropped",
        "  not counted   1 torn lines, 0 gaps",
    ]
    long = {"stage": "trainer", "reason": "x\ny" * 90, "count": 1, "last_seen": NOW}
    text = log_text({**log, "restarts": [long] * 9})
    assert max(map(len, text.splitlines())) <= 80
    assert "and 4 more kinds" in text
