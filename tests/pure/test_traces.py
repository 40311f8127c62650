"""A traceback in a process's output is one text, however it is written, and other lines stay what they are."""

from __future__ import annotations

import subprocess
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.runtime.event_format import make_record
from streampiped.runtime.journal_entry import fields_of
from streampiped.runtime.traces import TRACE_CHARS_MAX, Traces


def texts(lines: list[str]) -> list[str]:
    traces = Traces()
    return [text for line in lines for text in traces.feed(line)] + traces.flush()


def chained() -> str:
    """Two exceptions, the second raised while the first was handled."""
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904 - the implicit chain is what is wanted
    except ValueError:
        return traceback.format_exc().rstrip()


def grouped() -> str:
    try:
        raise ExceptionGroup("both", [ValueError(1), KeyError(2)])
    except ExceptionGroup:
        return traceback.format_exc().rstrip()


def dumped() -> str:
    """What faulthandler writes about two threads."""
    program = (
        "import faulthandler, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "def here(): faulthandler.dump_traceback()\n"
        "here()\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.rstrip()


def in_a_thread() -> str:
    """What Python prints about an exception in a thread."""
    program = "import threading\ndef fail(): 1 / 0\nthreading.Thread(target=fail).start()\n"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.rstrip()


WRITTEN = {"chained": chained, "group": grouped, "stack": dumped, "thread": in_a_thread}


@pytest.mark.parametrize("kind", WRITTEN)
def test_each_kind_is_one_text(kind: str) -> None:
    """Chained exceptions, groups, faulthandler's stacks and a thread's last words are one text each; the lines before
    and after are their own."""
    whole = WRITTEN[kind]()
    assert whole.count("\n") > 2
    assert texts(["before", *whole.split("\n"), "", "after", "more"]) == ["before", whole, "after", "more"]


def test_two_in_a_row_are_two() -> None:
    """A second traceback of its own begins anew: it is not one that the first led to."""
    one = 'Traceback (most recent call last):\n  File "a", line 1, in f\nValueError: 1'
    assert texts([*one.split("\n"), *one.split("\n")]) == [one, one]


def test_an_endless_one_is_given_in_pieces() -> None:
    """Lines that go on for ever as if they were frames take bounded memory, and none is lost."""
    lines = ["Traceback (most recent call last):", *("  x" * 100 for _ in range(1000))]
    given_texts = texts(lines)
    assert "\n".join(given_texts) == "\n".join(lines)
    assert max(map(len, given_texts)) < TRACE_CHARS_MAX + 400


@given(st.lists(st.sampled_from([
    "Traceback (most recent call last):", "  File", "E: x", "", "Current thread 0x1:", "Exception in thread T:",
    "During handling of the above", "plain",
])))  # fmt: skip
def test_no_line_is_lost(lines: list[str]) -> None:
    """Whatever is printed comes out in its order; only empty lines around tracebacks may go."""
    assert [line for text in texts(lines) for line in text.split("\n") if line] == [line for line in lines if line]


@pytest.mark.parametrize(("kind", "function"), [("chained", "chained"), ("stack", "here"), ("thread", "fail")])
def test_the_place_of_a_printed_one(kind: str, function: str) -> None:
    """The journal's entry of a printed traceback names the place that raised, or where the thread stood."""
    record = make_record("stage_output", "trainer", "error", 0.0, 1, None, {"line": WRITTEN[kind]()})
    assert dict(fields_of(record, epoch=None, relayed=False))["CODE_FUNC"] == function
