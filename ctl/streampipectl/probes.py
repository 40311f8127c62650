"""Questions of machines: is it well (for probes, by the exit code), and its figures (for Prometheus)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streampipectl import render
from streampipectl.cells import cells, folded, left
from streampipectl.client import Client
from streampipectl.files import write_to
from streampipectl.output import colour, dumped, say, width
from streampipectl.table import Column, table
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
    write_to(output, text.encode())
    return int(ExitCode.OK)


def health_text(answer: Mapping[str, Any], columns: int | None = None, colours: bool = False) -> str:
    """The health of the pipeline, or of one stage, and of each process. A reason is what this is about: it is never
    cut, and goes on on the next line beyond `columns` (None: those of a pipe)."""
    wide = columns or render.WIDTH
    words = [answer["health"], *(name if answer[name] else f"not {name}" for name in ("live", "ready"))]
    lines = folded(f"{render.clean(answer['pipeline'])}: {', '.join(words)}", wide, 2)
    if answer.get("reason"):
        lines += folded(render.clean(answer["reason"]), wide, 2)
    heading, *rows = table(HEALTH_COLUMNS, answer["stages"], answer.get("now"), None)
    indent = max(map(cells, (heading, *rows))) + 2
    under = indent if wide - indent >= REASON_CELLS_MIN else 4
    lines += ["", f"{left(heading, indent)}REASON"]
    tones = {"healthy": "good", "lagging": "other", "stalled": "bad", "flapping": "bad", "failed": "bad"}
    for row, stage in zip(rows, answer["stages"], strict=True):
        first, *others = folded(left(row, indent) + _reason(stage), wide, under)
        word = stage["health"]
        if colours:
            first = first.replace(f" {word}", f" {render.paint(word, tones.get(word, 'other'))}", 1)
        lines += [first, *others]
    return "\n".join(lines)


def _reason(stage: Mapping[str, Any]) -> str:
    """With what to type where an operator alone can go on."""
    reason = render.clean(stage.get("reason") or render.MISSING)
    if stage["health"] == "failed":
        return f"{reason}; `streampipectl start {render.clean(stage['name'])}` begins anew"
    return reason


REASON_CELLS_MIN: Final = 30  # beside the other columns; below that a reason goes on below them
HEALTH_COLUMNS: Final = (
    Column("NAME", lambda row, _: render.clean(row["name"]), left=True),
    Column("HEALTH", lambda row, _: render.clean(row["health"]), left=True),
    Column("SINCE", lambda row, now: render.age(row.get("since"), now)),
)
