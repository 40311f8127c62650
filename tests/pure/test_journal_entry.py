"""Events as entries of the journal: what stands in an event can forge neither a field nor an entry."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streampiped.runtime.event_format import make_record
from streampiped.runtime.journal_entry import COMMAND_FIELDS, NAME_CHARS_MAX, encode, entry_of
from support.journal import decoded

HEAD = {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "STREAMPIPE_STAGE", "STREAMPIPE_EVENT", "STREAMPIPE_PID"}
VALID = re.compile(r"[A-Z][A-Z0-9_]*")
"""What journald takes as a name; one that begins with an underscore would be its own."""


def entry(event: str, fields: Mapping[str, object], *, relayed: bool = False, level: Any = "error") -> dict[str, str]:
    """The fields of an event about the trainer, written and read again."""
    record = make_record(event, "trainer", level, 1_700_000_000.0, 42, None, fields)
    return decoded(entry_of(record, epoch=7, relayed=relayed))


def test_an_event_has_its_fields() -> None:
    """Stage, event, epoch, pid and priority are fields; the event's own are too, with the types' plainest text."""
    assert entry("stage_restart_scheduled", {"delay": 0.5, "count": 2, "window": 60.0, "wanted": True}) == {
        "MESSAGE": "trainer: restart in 0.50 s (2 in the last 60 s)",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "streampipe",
        "STREAMPIPE_STAGE": "trainer",
        "STREAMPIPE_EVENT": "stage_restart_scheduled",
        "STREAMPIPE_PID": "42",
        "STREAMPIPE_EPOCH": "7",
        "STREAMPIPE_DELAY": "0.5",
        "STREAMPIPE_COUNT": "2",
        "STREAMPIPE_WINDOW": "60.0",
        "STREAMPIPE_WANTED": "true",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", "7"), ("info", "6"), ("notice", "5"), ("warning", "4"), ("error", "3"), ("critical", "2")],
)
def test_priorities(level: str, priority: str) -> None:
    """A level is the syslog priority of its name."""
    assert entry("stage_ready", {}, level=level)["PRIORITY"] == priority


def test_an_events_own_epoch() -> None:
    """An event that names an epoch is about that one, any other stands after the last committed one."""
    assert entry("epoch_aborted", {"epoch": 8, "reason": "x"})["STREAMPIPE_EPOCH"] == "8"
    assert entry("stage_died", {"reason": "x"})["STREAMPIPE_EPOCH"] == "7"


def raised(message: str) -> tuple[str, str]:
    """(reason, traceback) of an exception, as a stage reports it."""
    try:
        raise ValueError(message)
    except ValueError as error:
        return f"ValueError: {error}", "".join(traceback.format_exception(error))


def test_a_traceback_is_one_entry() -> None:
    """A traceback stands whole in the message of one entry, once, with the place that raised as fields."""
    reason, trace = raised("boom")
    found = entry("stage_raised", {"phase": "process", "reason": reason, "traceback": trace})
    assert found["MESSAGE"] == f"trainer: raised in process: ValueError: boom\n{trace.rstrip()}"
    assert (found["CODE_FILE"], found["CODE_FUNC"]) == (__file__, "raised")
    assert found["CODE_LINE"].isdigit()
    assert "STREAMPIPE_TRACEBACK" not in found


@pytest.mark.parametrize(
    "message", ["", '\n  File "/forged", line 1, in it', 'Traceback (most recent call last):\n  File "/forged", line 1']
)
def test_an_exceptions_text_is_no_place(message: str) -> None:
    """Lines of an exception's message that look like frames do not become CODE_FILE."""
    reason, trace = raised(message)
    assert entry("stage_raised", {"phase": "p", "reason": reason, "traceback": trace})["CODE_FILE"] == __file__
    assert "CODE_FILE" not in entry("stage_raised", {"phase": "p", "reason": reason[:-2] + "...", "traceback": trace})


NASTY = st.text() | st.sampled_from(["a\nMESSAGE=forged", "x\n_PID=1\n", "\n", "\n\n\x00", "PRIORITY=0", "\ud800"])
KEYS = st.text(max_size=80) | st.sampled_from(
    ["Stage", "STAGE", "epoch", "uid", "UID", "x=y", "a\nb", "_PID", "é", "ſtage", "x" * 53, "x" * 54]
)


@given(st.dictionaries(KEYS, NASTY, max_size=8), NASTY, st.booleans())
@example(fields={"Stage": "evaluator", "STAGE": "evaluator", "eVENT": "x"}, line="line", relayed=True)
def test_nothing_can_be_forged(fields: dict[str, str], line: str, relayed: bool) -> None:
    """Whatever a stage sends or prints, names are valid, each comes once, and those of the head say what is so."""
    for event, given_fields in (("my_event", fields), ("stage_output", {**fields, "line": line})):
        found = entry(event, given_fields, relayed=relayed)
        assert found.keys() >= HEAD
        assert all(VALID.fullmatch(name) and len(name) <= NAME_CHARS_MAX for name in found)
        assert all(name.startswith("STREAMPIPE_") for name in found.keys() - HEAD)
        assert (found["STREAMPIPE_STAGE"], found["STREAMPIPE_EVENT"], found["STREAMPIPE_PID"]) == (
            "trainer",
            event,
            "42",
        )
        assert found["PRIORITY"] == "3"
        assert found["MESSAGE"].startswith("trainer: ")
        assert not relayed or not COMMAND_FIELDS & found.keys()


def test_who_wanted_what() -> None:
    """A command has its user in fields; what a stage says about a user is beside them."""
    command = {"method": "restart", "params": "all", "uid": 0, "who": "root"}
    found = entry("command_received", command)
    assert (found["STREAMPIPE_UID"], found["STREAMPIPE_WHO"], found["STREAMPIPE_METHOD"]) == ("0", "root", "restart")
    assert found["MESSAGE"] == "trainer: restart all by root"
    assert entry("command_received", command, relayed=True)["STREAMPIPE_UID_"] == "0"


@given(st.lists(st.tuples(st.from_regex(r"[A-Z][A-Z0-9_]{0,10}", fullmatch=True), NASTY), unique_by=lambda f: f[0]))
def test_encoding_is_reversible(fields: list[tuple[str, str]]) -> None:
    """What is encoded is what a reader of the protocol finds, whatever the values."""
    wanted = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in fields}
    assert decoded(encode(fields)) == wanted


def test_values_are_harmless_and_bounded() -> None:
    """No control character of a value reaches a terminal, and a list is JSON of bounded length."""
    found = entry("my_event", {"reason": "\x1b[31mred", "items": ["x" * 8000] * 64, "nothing": None})
    assert found["STREAMPIPE_REASON"] == "\\x1b[31mred"
    assert len(found["STREAMPIPE_ITEMS"]) == 8192
    assert "STREAMPIPE_NOTHING" not in found
