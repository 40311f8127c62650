"""The control tool's two parsers, and its values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipectl import app, client, interface, interface_model, letters, models, values
from streampipectl.commands import COMMANDS, Call
from streampipectl.output import dumped
from streampiped import control_params, control_server, events
from streampiped.errors import RpcError

WORDS = (
    "status", "start", "stop", "restart", "report", "logs", "version", "reload", "--dry-run",
    "normalizer", "trainer", "--json", "--watch", "--follow", "-f", "--no-wait", "--wait",
    "--timeout", "30s", "--timeout=2m", "--timeout=x", "--lines", "20", "--lines=0", "--level", "--level=error",
    "warning", "--since", "--since=10m", "--since=2024-05-31", "--since=now", "2h", "--summary",
    "why", "checkpoint", "checkpoints", "dlq", "dlq", "list", "show", "export", "replay", "drop", "--force",
    "--keep=nightly", "--keep", "7", "--forget", "nightly", "--all", "--stage", "--stage=trainer", "--status",
    "--status=all", "--limit", "--limit=0", "12", "-5", "2²",
    "--live", "--ready", "--output", "--output=x.prom", "--html", "--html=r.html", "--html=-", "--plot=r.png",
    "top", "--once", "--interval", "--interval=500ms", "1ms", "completion", "zsh",
    "model", "model", "predict", "promote", "pin", "unpin", "rollback", "--format", "--format=onnx", "--model=7",
    "--from", "csv", "--to=jsonl", "--as-is",
    "--socket", "/run/x", "--socket=/a", "--runtime-dir", "--runtime-dir=b", "--", "-x", "",
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["", *app.SYNTAX]), st.lists(st.sampled_from(WORDS), max_size=6))
def test_fast_parser_agrees_with_typer(command: str, more: list[str]) -> None:
    """Whatever the fast parser accepts, typer would have understood in the same way."""
    words = command.split() + more
    call = app.parse(words)
    if call is not None:
        assert interface.parse(words) == call


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("status", {"as_json": False, "watch": False}),
        ("status --json --watch", {"as_json": True, "watch": True}),
        ("restart a b --timeout 2m", {"stages": ("a", "b"), "timeout": 120.0, "wait": True, "force": False}),
        ("restart a --force", {"stages": ("a",), "timeout": 30.0, "wait": True, "force": True}),
        ("stop --no-wait", {"stages": (), "timeout": 30.0, "wait": False}),
        ("start a", {"stages": ("a",), "timeout": 30.0, "wait": True}),
        ("logs trainer -f --lines=5 --level error",
         {"stage": "trainer", "follow": True, "lines": 5, "level": "error", "since": None, "summary": False,
          "as_json": False}),
        ("logs --since 2h --summary",
         {"stage": None, "follow": False, "lines": None, "level": "info", "since": values.Since(ago=7200.0),
          "summary": True, "as_json": False}),
        ("top", {"interval": 1.0, "once": False}),
        ("top --once --interval 500ms", {"interval": 0.5, "once": True}),
        ("completion fish", {"shell": "fish"}),
        ("report", {"as_json": False, "html": None, "plot": None}),
        ("report --html r.html --plot=r.png", {"as_json": False, "html": "r.html", "plot": "r.png"}),
        ("reload", {"dry_run": False, "timeout": 30.0, "wait": True}),
        ("reload --dry-run --timeout 80s --no-wait", {"dry_run": True, "timeout": 80.0, "wait": False}),
        ("version", {}),
        ("why trainer", {"stage": "trainer", "as_json": False}),
        ("health", {"stage": None, "live": False, "ready": False, "as_json": False}),
        ("health trainer --json --ready", {"stage": "trainer", "live": False, "ready": True, "as_json": True}),
        ("metrics --output=/x/y.prom", {"output": "/x/y.prom"}),
        ("checkpoint --keep before-upgrade", {"keep": "before-upgrade", "timeout": 30.0, "wait": True}),
        ("checkpoints --json", {"as_json": True, "forget": None}),
        ("checkpoints --forget x", {"as_json": False, "forget": "x"}),
        ("dlq list", {"stage": None, "status": "dead", "limit": 50, "as_json": False}),
        ("dlq list --stage a --status all --limit 7 --json",
         {"stage": "a", "status": "all", "limit": 7, "as_json": True}),
        ("dlq show 12", {"letter": 12, "as_json": False}),
        ("dlq export --stage a", {"stage": "a", "status": "dead"}),
        ("dlq replay 3 1 --no-wait",
         {"letters": (3, 1), "every": False, "stage": None, "timeout": 30.0, "wait": False}),
        ("dlq drop --all --stage a", {"letters": (), "every": True, "stage": "a"}),
        ("model list --limit 3", {"stage": None, "limit": 3, "as_json": False}),
        ("model show 12 --json", {"version": 12, "stage": None, "as_json": True}),
        ("model show", {"version": None, "stage": None, "as_json": False}),
        ("model export 12 --format onnx --output x.onnx",
         {"version": 12, "output": "x.onnx", "kind": "onnx", "stage": None}),
        ("model promote ridge", {"member": "ridge", "stage": None, "timeout": 30.0, "wait": True}),
        ("model pin current --stage t", {"member": "current", "stage": "t", "timeout": 30.0, "wait": True}),
        ("model unpin --no-wait", {"stage": None, "timeout": 30.0, "wait": False}),
        ("model rollback 12 --timeout 2m", {"version": 12, "stage": None, "timeout": 120.0, "wait": True}),
        ("predict", {"stage": None, "version": None, "source": "auto", "target": "auto", "as_is": False}),
        ("predict --model 12 --from csv --to=jsonl --as-is",
         {"stage": None, "version": 12, "source": "csv", "target": "jsonl", "as_is": True}),
    ],
)  # fmt: skip
def test_what_people_type_is_fast(line: str, options: dict[str, object]) -> None:
    """The ordinary command lines are understood without typer."""
    words = line.split()
    command = " ".join(words[:2]) if words[0] in app.GROUPS else words[0]
    expected = Call(command, {"socket": None, "runtime_dir": None, **options})
    assert app.parse(words) == expected
    assert interface.parse(words) == expected


def test_both_know_the_same_commands() -> None:
    """Every command that typer declares can be parsed fast and carried out, and the reverse."""
    declared = {
        command.name or command.callback.__name__ for command in interface.app.registered_commands if command.callback
    }
    declared |= {f"dlq {command.name}" for command in interface.dlq.registered_commands}
    declared |= {f"model {command.name}" for command in interface_model.model.registered_commands}
    assert declared == set(app.SYNTAX) == set(COMMANDS)
    assert {group.name for group in interface.app.registered_groups} == app.GROUPS
    assert {f"model {action}" for action in models.ACTIONS} == {name for name in COMMANDS if name.startswith("model ")}
    assert {f"dlq {action}" for action in letters.ACTIONS} == {name for name in COMMANDS if name.startswith("dlq ")}


@pytest.mark.parametrize(
    "line",
    [
        "", "--help", "status --help", "frob", "report extra", "logs a b", "stop --timeout x", "why", "why a b", "dlq",
        "dlq frob", "dlq --json list", "dlq show", "dlq show x", "dlq drop 1 -1", "stop --force", "checkpoint now",
    ],
)  # fmt: skip
def test_the_rest_is_for_typer(line: str) -> None:
    """Help and mistakes are left to typer."""
    assert app.parse(line.split()) is None


@pytest.mark.parametrize(
    "line",
    [
        "frob", "report extra", "stop --timeout x", "logs --level loud", "logs --lines -1", "logs --since now",
        "why", "dlq frob",
        "dlq show", "dlq show 0", "dlq replay 1 x", "dlq list --limit 0", "dlq list --status gone", "stop --force",
        "model rollback", "model rollback x", "model pin", "model export --format pickle", "predict --from xml",
        "predict x", "checkpoint --keep 231", "top --interval 10ms", "completion csh", "completion",
        "checkpoints --forget ../x",
    ],
)  # fmt: skip
def test_mistakes_exit_with_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake on the command line is one short message and exit code 2."""
    with pytest.raises(SystemExit) as caught:
        interface.parse(line.split())
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("streampipectl: ")
    assert said.count("\n") == 1
    assert " -h` helps)" in said


def test_limits_are_the_daemons() -> None:
    """What the tool takes to be the daemon's limits and levels are the daemon's."""
    assert values.LEVELS == events.LEVELS
    assert values.LOG_LINES_MAX == control_params.LOG_LINES_MAX
    assert values.CHANGE_TIMEOUT_MAX_S == control_params.TIMEOUT_MAX_S
    assert values.CHANGE_TIMEOUT_S == control_server.CHANGE_TIMEOUT_S
    assert values.LETTER_ID_MAX == control_params.LETTER_ID_MAX
    assert (*control_params.STATUSES, "all") == values.LETTER_STATUSES
    assert values.CHECKPOINT_NAME == control_params.CHECKPOINT_NAME
    assert letters.PAGE == control_params.PAGE_LETTERS_MAX


@pytest.mark.parametrize("name", ["a", "before-upgrade_2.1", "x" * 64])
def test_checkpoint_names(name: str) -> None:
    """Tool and daemon take the same names, and no name reads as an epoch's number or a path."""
    assert values.checkpoint_name(name) == control_params.kept(name) == name
    for wrong in ("", "7", "7a", ".", "-a", "a/b", "é", "a\n", name + "x" * 64):
        for check in (values.checkpoint_name, control_params.kept):
            with pytest.raises(ValueError, match="should be a name"):
                check(wrong)


@pytest.mark.parametrize(("chosen", "every", "stage"), [((), False, None), ((1,), True, None), ((1,), False, "a")])
@pytest.mark.parametrize("action", ["replay", "drop"])
def test_nothing_chosen_is_not_everything(action: str, chosen: tuple[int, ...], every: bool, stage: str | None) -> None:
    """Without numbers nothing is replayed or dropped unless --all says so; the daemon is not even asked."""
    more = {"timeout": 1.0, "wait": True} if action == "replay" else {}
    with pytest.raises(RpcError, match="either numbers of letters or --all") as caught:
        letters.ACTIONS[action]("/nowhere", letters=chosen, every=every, stage=stage, **more)
    assert caught.value.code == 2


def test_where_the_socket_is() -> None:
    """A path given wins over a directory given, that over the environment."""
    environment = {"STREAMPIPE_RUNTIME_DIR": "/e"}
    assert client.socket_path("/s/x.sock", "/d", environment) == "/s/x.sock"
    assert client.socket_path(None, "/d", environment) == "/d/control.sock"
    assert client.socket_path(None, None, environment) == "/e/control.sock"


def test_json_by_the_book() -> None:
    """NaN and infinities become null."""
    assert dumped({"a": [float("nan"), float("inf"), 1.5]}) == '{"a": [null, null, 1.5]}'
