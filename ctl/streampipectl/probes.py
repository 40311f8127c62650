"""Questions of machines: is it well (for probes, by the exit code), and its figures (for Prometheus)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streampipectl import render
from streampipectl.cells import shorten
from streampipectl.client import Client
from streampipectl.files import complaint, write_whole
from streampipectl.output import colour, complain, dumped, say, width
from streampiped.errors import ExitCode, RpcError


def health(path: str, stage: str | None, live: bool, ready: bool, as_json: bool) -> int:
    """0 when what was asked for is so, else NOT_RUNNING; UNREACHABLE also for a daemon that does not answer in
    time."""
    try:
        answer = Client(path).call("health", {"stage": stage})
    except RpcError as error:
        if error.code == ExitCode.TIMED_OUT:
            raise RpcError(str(error), ExitCode.UNREACHABLE) from None
        raise
    if as_json:
        say(dumped(answer, indent=2))
    elif live or ready:
        asked = [name for name, wanted in (("live", live), ("ready", ready)) if wanted]
        say(", ".join(name if answer[name] else f"not {name}" for name in asked))
    else:
        say(health_text(answer, width(), colour()))
    good = (answer["live"] or not live) and (answer["ready"] or not ready)
    if not (live or ready):
        good = answer["health"] == "healthy"
    return int(ExitCode.OK if good else ExitCode.NOT_RUNNING)


def metrics(path: str, output: str | None) -> int:
    """The page to stdout, or as a file that is there whole or not at all."""
    text = Client(path).call("metrics", {})["text"]
    if output is None:
        say(text, end="")
        return int(ExitCode.OK)
    try:
        write_whole(output, text.encode())
    except OSError as error:
        complain(complaint(output, error))
        return int(ExitCode.FAILED)
    return int(ExitCode.OK)


def health_text(answer: Mapping[str, Any], columns: int | None = None, colours: bool = False) -> str:
    """The health of the pipeline, or of one stage, and a line for each process."""
    words = [answer["health"], *(name if answer[name] else f"not {name}" for name in ("live", "ready"))]
    lines = [f"{render.clean(answer['pipeline'])}: {', '.join(words)}"]
    if answer.get("reason"):
        lines.append(render.clean(answer["reason"]))
    lines += ["", *render.table(HEALTH_COLUMNS, answer["stages"], answer.get("now"), None)]
    lines = [line if columns is None else shorten(line, columns) for line in lines]
    if colours:
        tones = {"healthy": "good", "lagging": "other", "stalled": "bad", "flapping": "bad", "failed": "bad"}
        for place, row in enumerate(answer["stages"], len(lines) - len(answer["stages"])):
            word = row["health"]
            lines[place] = lines[place].replace(f" {word}", f" {render.paint(word, tones.get(word, 'other'))}", 1)
    return "\n".join(lines)


HEALTH_COLUMNS: Final = (
    render.Column("NAME", lambda row, _: render.clean(row["name"]), left=True),
    render.Column("HEALTH", lambda row, _: render.clean(row["health"]), left=True),
    render.Column("SINCE", lambda row, now: render.age(row.get("since"), now)),
    render.Column("REASON", lambda row, _: render.clean(row.get("reason") or render.MISSING), left=True),
)
