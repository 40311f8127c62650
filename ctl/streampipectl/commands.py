"""What each command does: ask, draw, and say by the exit code how it went."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from streampipectl import render
from streampipectl.changes import EXIT_INTERRUPTED, carry_out
from streampipectl.client import Client, socket_path
from streampipectl.grammar import Call
from streampipectl.output import colour, complain, dumped, say, screen, width
from streampiped import __version__
from streampiped.errors import ExitCode, RpcError
from streampiped.wire.rpc import PROTOCOL

VERDICTS: Final = {"good": 0, "not_better": 1, "not_enough_data": 2}
"""Exit codes of `report`, as probes and scripts want them; 1 and 2 mean something else to other commands."""
WATCH_SILENCE_S: Final = 15.0  # a watched daemon speaks every second


def perform(call: Call) -> int:
    """Carry out a command line; the exit code of docs/specs/control.md."""
    options = dict(call.options)
    path = socket_path(options.pop("socket"), options.pop("runtime_dir"), os.environ)
    try:
        return COMMANDS[call.command](path, **options)
    except RpcError as error:
        for line in str(error).splitlines():  # a refused reload has one for each reason
            complain(line)
        down = call.command == "status" and error.code in (ExitCode.UNREACHABLE, ExitCode.TIMED_OUT)
        return int(ExitCode.NOT_RUNNING if down else error.code)


def status(path: str, as_json: bool, watch: bool) -> int:
    client = Client(path)
    if not watch:
        answer = client.call("status", {"usage": True})
        say(dumped(answer, indent=2) if as_json else render.status_text(answer, width(), colour()))
        return _health(answer)
    answer = client.call("watch", {})
    try:
        drawn = _draw(answer, as_json, 0)
        for notification in client.notifications(WATCH_SILENCE_S):
            if notification.method == "status":
                answer = notification.params
                drawn = _draw(answer, as_json, drawn)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return _health(answer)


def _health(answer: Mapping[str, Any]) -> int:
    return int(ExitCode.OK if render.healthy(answer) else ExitCode.NOT_RUNNING)


def _draw(answer: Mapping[str, Any], as_json: bool, drawn: int) -> int:
    """Draw over the `drawn` lines of the last time on a terminal, below them elsewhere; the lines drawn
    now."""
    if as_json:
        say(dumped(answer))
        return 0
    if not sys.stdout.isatty():
        say(render.status_text(answer) + "\n")
        return 0
    columns, rows = screen()
    # one line less than the screen: a table that scrolls can no longer be drawn over
    lines = render.status_text(answer, columns, colour()).split("\n")[: rows - 1]
    up = f"\x1b[{drawn}F" if drawn else ""
    say(up + "\n".join(f"{line}\x1b[K" for line in lines) + "\n\x1b[J", end="")
    return len(lines)


def change(verb: str) -> Callable[..., int]:
    def run(path: str, stages: tuple[str, ...], timeout: float, wait: bool, force: bool = False) -> int:
        params = {"stages": list(stages), "timeout": timeout, "wait": wait, **({"force": True} if force else {})}
        return carry_out(path, verb, params, lambda answer: render.change_text(answer, stages))

    return run


def reload(path: str, dry_run: bool, timeout: float, wait: bool) -> int:
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):  # ExecReload=: a stop ends us too, and is no failure
        import signal  # enum and all, which nobody else needs

        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    return carry_out(path, "reload", {"dry_run": dry_run, "timeout": timeout, "wait": wait}, render.reload_text)


def checkpoint(path: str, keep: str | None, timeout: float, wait: bool) -> int:
    return carry_out(path, "checkpoint", {"keep": keep, "timeout": timeout, "wait": wait}, render.checkpoint_text)


def checkpoints(path: str, as_json: bool, forget: str | None) -> int:
    client = Client(path)
    if forget is not None:
        answer = client.call("forget_checkpoint", {"name": forget})
        say(dumped(answer) if as_json else f"{forget}: epoch {answer['epoch']} is kept no longer")
        return int(ExitCode.OK)
    answer = client.call("checkpoints", {})
    say(dumped(answer, indent=2) if as_json else render.checkpoints_text(answer, width()))
    return int(ExitCode.OK)


def why(path: str, stage: str, as_json: bool) -> int:
    answer = Client(path).call("why", {"stage": stage})
    say(dumped(answer, indent=2) if as_json else render.why_text(answer, width()))
    return int(ExitCode.OK)


def report(path: str, as_json: bool, html: str | None, plot: str | None) -> int:
    client = Client(path)
    answer = client.call("report", {})
    if html is not None or plot is not None:
        from streampipectl import report_files  # pages and pictures, for which `status` does not wait

        code = report_files.write(answer, client.daemon, as_json, html, plot)
        if code != ExitCode.OK:
            return code
    if as_json or (html is None and plot is None):
        from streampiped.plain import plain  # as for logs

        say(dumped(answer, indent=2) if as_json else plain(render.report_text(answer), sys.stdout.encoding))
    return VERDICTS.get(render.verdict(answer), int(ExitCode.OK))


def logs(path: str, **options: Any) -> int:
    from streampipectl import logs as command  # brings streampiped.events, 10 ms that only this command pays

    return command.logs(path, **options)


def version(path: str) -> int:
    say(f"streampipectl {__version__}, protocol {PROTOCOL}")
    try:
        daemon = Client(path).daemon
    except RpcError as error:
        if error.code != ExitCode.UNREACHABLE:
            raise
        say(str(error))
    else:
        about = f"protocol {daemon['protocol']}, pipeline {render.clean(daemon['pipeline'])}"
        say(f"streampiped {daemon['version']}, {about}")
    return int(ExitCode.OK)


def dead_letters(action: str) -> Callable[..., int]:
    def run(path: str, **options: Any) -> int:
        from streampipectl import letters  # `status` does not wait for what only these need

        return letters.ACTIONS[action](path, **options)

    return run


def model(action: str) -> Callable[..., int]:
    def run(path: str, **options: Any) -> int:
        from streampipectl import models  # as above

        return models.ACTIONS[action](path, **options)

    return run


def predict(path: str, **options: Any) -> int:
    from streampipectl.predict import predict as run

    return run(path, **options)


def probe(action: str) -> Callable[..., int]:
    def run(path: str, **options: Any) -> int:
        from streampipectl import probes  # as above

        asked: Callable[..., int] = getattr(probes, action)
        return asked(path, **options)

    return run


def top(path: str, interval: float, once: bool) -> int:
    from streampipectl.top import top as run

    return run(path, interval, once)


def completion(path: str, shell: str) -> int:
    from streampipectl.shells import script

    say(script(shell), end="")
    return int(ExitCode.OK)


COMMANDS: Final[Mapping[str, Callable[..., int]]] = {
    "status": status,
    "top": top,
    "start": change("start"),
    "stop": change("stop"),
    "restart": change("restart"),
    "reload": reload,
    "report": report,
    "logs": logs,
    "why": why,
    "health": probe("health"),
    "metrics": probe("metrics"),
    "checkpoint": checkpoint,
    "checkpoints": checkpoints,
    "dlq list": dead_letters("list"),
    "dlq show": dead_letters("show"),
    "dlq export": dead_letters("export"),
    "dlq replay": dead_letters("replay"),
    "dlq drop": dead_letters("drop"),
    "model list": model("list"),
    "model show": model("show"),
    "model export": model("export"),
    "model promote": model("promote"),
    "model pin": model("pin"),
    "model unpin": model("unpin"),
    "model rollback": model("rollback"),
    "predict": predict,
    "completion": completion,
    "version": version,
}
