"""The control tool's two parsers, and its values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipectl import app, client, interface, values
from streampipectl.commands import COMMANDS, Call, dumped
from streampiped import control_params, control_server, events

WORDS = (
    "status", "start", "stop", "restart", "report", "logs", "version",
    "normalizer", "trainer", "--json", "--watch", "--follow", "-f", "--no-wait", "--wait",
    "--timeout", "30s", "--timeout=2m", "--timeout=x", "--lines", "20", "--lines=0", "--level", "--level=error",
    "warning", "--socket", "/run/x", "--socket=/a", "--runtime-dir", "--runtime-dir=b", "--", "-x", "",
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_fast_parser_agrees_with_typer(words: list[str]) -> None:
    """Whatever the fast parser accepts, typer would have understood in the same way."""
    call = app.parse(words)
    if call is not None:
        assert interface.parse(words) == call


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("status", {"as_json": False, "watch": False}),
        ("status --json --watch", {"as_json": True, "watch": True}),
        ("restart a b --timeout 2m", {"stages": ("a", "b"), "timeout": 120.0, "wait": True}),
        ("stop --no-wait", {"stages": (), "timeout": 30.0, "wait": False}),
        ("start a", {"stages": ("a",), "timeout": 30.0, "wait": True}),
        ("logs trainer -f --lines=5 --level error",
         {"stage": "trainer", "follow": True, "lines": 5, "level": "error", "as_json": False}),
        ("report", {"as_json": False}),
        ("version", {}),
    ],
)  # fmt: skip
def test_what_people_type_is_fast(line: str, options: dict[str, object]) -> None:
    """The ordinary command lines are understood without typer."""
    words = line.split()
    expected = Call(words[0], {"socket": None, "runtime_dir": None, **options})
    assert app.parse(words) == expected
    assert interface.parse(words) == expected


def test_both_know_the_same_commands() -> None:
    """Every command that typer declares can be parsed fast and carried out, and the reverse."""
    declared = {
        command.name or command.callback.__name__ for command in interface.app.registered_commands if command.callback
    }
    assert declared == set(app.SYNTAX) == set(COMMANDS)


@pytest.mark.parametrize(
    "line", ["", "--help", "status --help", "frob", "report extra", "logs a b", "stop --timeout x"]
)
def test_the_rest_is_for_typer(line: str) -> None:
    """Help and mistakes are left to typer."""
    assert app.parse(line.split()) is None


@pytest.mark.parametrize("line", ["frob", "report extra", "stop --timeout x", "logs --level loud", "logs --lines -1"])
def test_mistakes_exit_with_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake on the command line is one short message and exit code 2."""
    with pytest.raises(SystemExit) as caught:
        interface.parse(line.split())
    assert caught.value.code == 2
    assert "Error:" in capsys.readouterr().err


def test_limits_are_the_daemons() -> None:
    """What the tool takes to be the daemon's limits and levels are the daemon's."""
    assert values.LEVELS == events.LEVELS
    assert values.LOG_LINES_MAX == control_params.LOG_LINES_MAX
    assert values.CHANGE_TIMEOUT_MAX_S == control_params.TIMEOUT_MAX_S
    assert values.CHANGE_TIMEOUT_S == control_server.CHANGE_TIMEOUT_S


def test_where_the_socket_is() -> None:
    """A path given wins over a directory given, that over the environment."""
    environment = {"STREAMPIPE_RUNTIME_DIR": "/e"}
    assert client.socket_path("/s/x.sock", "/d", environment) == "/s/x.sock"
    assert client.socket_path(None, "/d", environment) == "/d/control.sock"
    assert client.socket_path(None, None, environment) == "/e/control.sock"


def test_json_by_the_book() -> None:
    """NaN and infinities become null."""
    assert dumped({"a": [float("nan"), float("inf"), 1.5]}) == '{"a": [null, null, 1.5]}'
