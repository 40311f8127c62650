"""Completion by the real shells, with the names of a running pipeline."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streampipectl import complete
from streampipectl.app import GROUPS, SYNTAX, WHERE
from streampipectl.grammar import COMPLETION_VARIABLE, Grammar
from streampipectl.shells import abouts, script
from streampiped.wire.letters import pack
from streampiped.wire.messages import Guilty
from support.control_backend import STAGES, Daemon, running
from support.daemon import BIN, DEADLINE_S
from support.screens import session

pytestmark = pytest.mark.system

SHELLS = ("bash", "zsh", "fish")
TAB_BUDGET_S = 0.15
DOWN_BUDGET_S = 0.3

CASES = [
    # what is typed before TAB, what is offered
    ("streampipectl chec", ["checkpoint", "checkpoints"]),
    ("streampipectl dlq re", ["replay"]),
    ("streampipectl restart ", list(STAGES)),
    ("streampipectl restart monitor ", [name for name in STAGES if name != "monitor"]),
    ("streampipectl stop --no-wait tr", ["trainer"]),
    ("streampipectl why sup", ["supervisor"]),
    ("streampipectl logs gen", ["generator"]),
    ("streampipectl checkpoints --forget ", ["before-upgrade", "nightly"]),
    ("streampipectl dlq list --status d", ["dead", "dropped"]),
    ("streampipectl dlq list --stage nor", ["normalizer"]),
    ("streampipectl dlq replay ", ["1", "2"]),
    ("streampipectl restart --fo", ["--force"]),
    ("streampipectl completion z", ["zsh"]),
    ("streampipectl checkpoint --keep ", []),
]


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{shell} is not installed")
        pytest.skip(f"needs {shell}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("completed")
    with running(directory) as started:
        started.backend.epochs[0]["names"] = ["before-upgrade", "nightly"]
        words = ("raised", "ValueError: no", "Traceback ...")
        verdicts = [Guilty(3, "", "generator", n, 0, *words, pack({})) for n in range(2)]
        started.do(lambda: started.backend.letters.add("trainer", verdicts, 1.0))
        for shell in SHELLS:
            (directory / f"script.{shell}").write_text(script(shell))
        yield started


def environment(daemon: Daemon) -> dict[str, str]:
    home = str(Path(daemon.path).parent)
    more = {"STREAMPIPE_RUNTIME_DIR": home, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}
    return {**os.environ, **more, "PATH": f"{BIN}:{os.environ['PATH']}"}


def script_of(daemon: Daemon, shell: str) -> Path:
    return Path(daemon.path).parent / f"script.{shell}"


def bash(daemon: Daemon, line: str) -> list[str]:
    """By the function that `complete -F` names, as readline calls it."""
    code = f"""source {script_of(daemon, "bash")}
        COMP_WORDS=({line.replace("=", " = ")}{'""' if line.endswith((" ", "=")) else ""})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _streampipectl streampipectl "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    return run(daemon, ["bash", "--norc", "--noprofile", "-c", code])


def fish(daemon: Daemon, line: str) -> list[str]:
    code = f"source {script_of(daemon, 'fish')}; complete -C '{line}'"
    return [choice.partition("\t")[0] for choice in run(daemon, ["fish", "--no-config", "-c", code])]


def run(daemon: Daemon, words: list[str]) -> list[str]:
    done = subprocess.run(
        words, env=environment(daemon), capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(("line", "expected"), CASES)
@pytest.mark.parametrize(("shell", "ask"), [("bash", bash), ("fish", fish)])
def test_choices(
    daemon: Daemon, shell: str, ask: Callable[[Daemon, str], list[str]], line: str, expected: list[str]
) -> None:
    """Commands, options, and what the pipeline has, each where it belongs."""
    needs(shell)
    assert sorted(ask(daemon, line)) == sorted(expected)


def test_equals_signs(daemon: Daemon) -> None:
    """`--status=d` is completed although bash cuts it into three words."""
    assert bash(daemon, "streampipectl dlq list --status=d") == ["dead", "dropped"]
    assert bash(daemon, "streampipectl dlq list --status=") == ["dead", "replayed", "dropped", "all"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_person_presses_tab(daemon: Daemon, shell: str) -> None:
    """In the shell itself TAB completes a command, an option and the name of a stage, and lists what is left to
    choose from."""
    needs(shell)
    start = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
    given = {"PS1": "ready> ", **environment(daemon)}
    with session(start, 120, 30, **given) as seen:
        seen.wait(lambda text: "ready> " in text, "a prompt")
        before = "autoload -Uz compinit; compinit -u -D; " if shell == "zsh" else ""
        seen.type(f"{before}source {script_of(daemon, shell)}; echo sour''ced\n")
        seen.wait(lambda text: "ready> " in text.partition("sourced\r\n")[2], "sourced")
        seen.type("streampipectl rest\t")
        seen.wait(lambda text: "streampipectl restart" in text, "the command")
        seen.type("norm\t")
        seen.wait(lambda text: "normalizer" in text, "the stage")
        seen.type("--fo\t")
        seen.wait(lambda text: "--force" in text, "the option")
        seen.type("\x15streampipectl stop \t\t")
        seen.wait(lambda text: all(name in text for name in STAGES), "all stages")
        if shell == "zsh":
            seen.type("\x15streampipectl dlq \t")
            seen.wait(lambda text: "Give them up for ever" in text, "what a command is for")


def test_files(daemon: Daemon, tmp_path: Path) -> None:
    """Where a path belongs the shell's own completion takes over."""
    (tmp_path / "control.sock").touch()
    needs("fish")
    code = f"source {script_of(daemon, 'fish')}; complete -C 'streampipectl --socket {tmp_path}/con'"
    assert run(daemon, ["fish", "--no-config", "-c", code]) == [f"{tmp_path}/control.sock"]


@pytest.mark.parametrize("left_behind", [False, True, None])
def test_without_a_daemon(tmp_path: Path, left_behind: bool | None) -> None:
    """Silence, nothing to choose from, no waiting: with no socket, one left behind, a daemon that hangs (None)."""
    with socket.socket(socket.AF_UNIX) as stale:
        if left_behind is not False:
            stale.bind(str(tmp_path / "control.sock"))
        if left_behind is None:
            stale.listen()
        begun = time.monotonic()
        asked = [sys.executable, "-m", "streampipectl.app", "--runtime-dir", str(tmp_path), "restart", ""]
        done = subprocess.run(
            asked, env={**os.environ, COMPLETION_VARIABLE: "bash"}, capture_output=True, text=True, check=False
        )
        took = time.monotonic() - begun
    assert (done.returncode, done.stdout, done.stderr) == (0, "words\n", "")
    assert took > complete.PATIENCE_S if left_behind is None else took < DEADLINE_S


@pytest.mark.timing
@pytest.mark.parametrize("up", [True, False])
def test_a_tab_is_fast(daemon: Daemon, tmp_path: Path, up: bool) -> None:
    """The best of five answers is there within 150 ms, and where a daemon hangs within 300."""
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "control.sock"))
        hung.listen()
        directory = Path(daemon.path).parent if up else tmp_path
        asked = [sys.executable, "-m", "streampipectl.app", "--runtime-dir", str(directory), "restart", ""]
        times = []
        for _ in range(5):
            begun = time.monotonic()
            subprocess.run(asked, env={**os.environ, COMPLETION_VARIABLE: "bash"}, capture_output=True, check=True)
            times.append(time.monotonic() - begun)
    assert min(times) < (TAB_BUDGET_S if up else DOWN_BUDGET_S)


def test_strangers_cannot_add_choices(daemon: Daemon) -> None:
    """A reason with a line end and an escape is one line of text."""
    evil = "x\n--force\ty\x1b[2J"
    grammar = Grammar(SYNTAX, GROUPS, WHERE)
    place = complete.placed(["dlq", "show", ""], grammar)
    words = dict(complete.choices(place, grammar, lambda *_: {"letters": [{"id": 1, "stage": "a", "reason": evil}]}))
    assert words == {"1": f"a: {evil}"}
    daemon.backend.processes[0]["state"] = evil
    try:
        done = subprocess.run(
            [sys.executable, "-m", "streampipectl.app", "restart", "mon"],
            env={**environment(daemon), COMPLETION_VARIABLE: "zsh"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        daemon.backend.processes[0]["state"] = "ready"
    assert done.stdout == "words\nmonitor\tx --force y?[2J\n"


def test_every_command_says_what_it_is_for() -> None:
    """zsh and fish show a word about every command and option."""
    said = abouts()
    words = {word for name in SYNTAX for word in name.split()} - GROUPS
    options = {option for syntax in SYNTAX.values() for option in syntax.options}
    assert words | options <= set(said)
