"""The catalogue of events and the code are one: whatever is emitted is listed, whatever is listed is emitted."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import streampiped
from streampiped.events import CATALOGUE, LEVELS, describe
from support.tree import REPOSITORY

PACKAGE = Path(streampiped.__file__).parent
EMITTERS = {"emit", "_emit", "_log", "Log", "relay", "_own"}
"""Names of what logs an event given as its first argument; `write` counts when its object is called a log."""
HEAD = {"ts", "level", "event", "stage", "pid", "cause"}
EVENT_NAME = re.compile(r"[a-z]+(_[a-z]+)+")


@dataclass(frozen=True)
class Call:
    """One place where an event is logged. `fields` None: not visible here (`**values`, a mapping)."""

    place: str
    event: str
    fields: frozenset[str] | None


def calls_in(source: str, place: str) -> Iterator[Call]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and logs(node.func):
            names = [keyword.arg for keyword in node.keywords]
            hidden = None in names or (not names and terminal(node.func) in {"Log", "relay"})
            fields = None if hidden else frozenset(name for name in names if name)
            for event in literals(node.args[0]):
                yield Call(f"{place}:{node.lineno}", event, fields)


def logs(function: ast.expr) -> bool:
    name = terminal(function)
    if name == "write" and isinstance(function, ast.Attribute):
        return "log" in terminal(function.value)
    return name in EMITTERS


def terminal(node: ast.expr) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def literals(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from literals(body)
            yield from literals(orelse)


def sources() -> dict[str, str]:
    return {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def calls() -> tuple[Call, ...]:
    return tuple(call for place, source in sources().items() for call in calls_in(source, place))


@cache
def words() -> frozenset[str]:
    """Every text constant outside the catalogue: an event's name may stand in a table or a variable."""
    return frozenset(
        node.value
        for place, source in sources().items()
        if place != "events.py"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def wanted(event: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(CATALOGUE[event].text) if name}


def test_the_scan_sees_calls() -> None:
    """The scan itself finds every way in which the code logs, and leaves other calls alone."""
    source = """
context.emit("a_b", x=1)
self._emit("c_d" if y else "e_f", **values)
self.log.write("g_h", stage=s, x=1)
p.Log("i_j", stage, values)
file.write("k_l")
emit(name)
"""
    assert [(c.event, c.fields) for c in calls_in(source, "here")] == [
        ("a_b", {"x"}),
        ("c_d", None),
        ("e_f", None),
        ("g_h", {"stage", "x"}),
        ("i_j", None),
    ]


def test_whatever_is_emitted_is_listed() -> None:
    """No event is logged that the catalogue does not have."""
    assert [call for call in calls() if call.event not in CATALOGUE] == []


@pytest.mark.parametrize("event", CATALOGUE)
def test_whatever_is_listed_is_emitted(event: str) -> None:
    """Every entry of the catalogue is used somewhere in the daemon."""
    assert event in words()


def test_calls_give_what_the_text_needs() -> None:
    """Where the fields of a call are visible, they hold every field of the event's text."""
    missing = {
        (call.place, call.event): lacking
        for call in calls()
        if call.event in CATALOGUE and call.fields is not None
        if (lacking := wanted(call.event) - call.fields - HEAD)
    }
    assert missing == {}


def test_every_field_is_documented() -> None:
    """docs/specs/events.md has a row for the journal's name of every field that the code gives an event."""
    page = (REPOSITORY / "docs" / "specs" / "events.md").read_text()
    given = {field for call in calls() for field in call.fields or ()}
    fields = given.union(*map(wanted, CATALOGUE)) - HEAD - {"line", "traceback", "stack", "level"}
    assert {f"STREAMPIPE_{field.upper()}" for field in fields} <= set(re.findall(r"`(STREAMPIPE_\w+)`", page))


@pytest.mark.parametrize("event", CATALOGUE)
def test_names_and_levels(event: str) -> None:
    """Names are lower-case words joined by underscores, levels are known, texts name fields only."""
    assert EVENT_NAME.fullmatch(event)
    assert CATALOGUE[event].level in LEVELS
    assert all(name.isidentifier() for name in wanted(event))


@pytest.mark.parametrize("event", CATALOGUE)
def test_an_event_without_its_fields_is_still_a_line(event: str) -> None:
    """A missing or mistyped field never makes an event unreadable for people."""
    assert describe(event, {})
    assert describe(event, dict.fromkeys(wanted(event), "text"))
