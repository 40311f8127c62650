"""Answers of the daemon as text for people. Pure: dictionaries and a width in, a string out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streampipectl.cells import cells, folded, shorten, shorten_middle
from streampipectl.table import Column, table

MISSING: Final = "-"
WIDTH: Final = 80  # into a pipe: what every mail and ticket shows unbroken
NAME_SHARE: Final = 0.3  # of the width, for a name: beside 24 of 80 columns records in and out have their place
NAME_LEAST: Final = 8
REASON_LINES_MAX: Final = 12  # below the table; a pipeline in trouble must not push its table off the screen

GOOD: Final = frozenset({"ready", "running", "finished"})
PIPELINE: Final = ("supervisor", "launcher")  # their reason is the pipeline's state, and not a death
BAD: Final = frozenset({"failed", "backoff", "killing", "degraded"})
_COLOURS: Final = {"good": "\x1b[32m", "bad": "\x1b[31m", "other": "\x1b[33m", "dim": "\x1b[2m", "bold": "\x1b[1m"}
_PLAIN: Final = "\x1b[0m"
LEVEL_TONES: Final = {"debug": "dim", "notice": "bold", "warning": "other", "error": "bad", "critical": "bad"}


def healthy(status: Mapping[str, Any]) -> bool:
    """Every wanted process is ready, or has finished its work; what was stopped on purpose does not count."""
    wanted = [process for process in status["processes"] if process.get("wanted")]
    return status["state"] != "failed" and all(process["state"] in GOOD for process in wanted)


def status_text(status: Mapping[str, Any], width: int | None = None, colour: bool = False) -> str:
    """The status of docs/specs/control.md for people. A terminal of `width` columns gets what there is room for; into
    a pipe (None) nothing is left out, and what is longer than WIDTH goes on on the next line. In the table long names
    lose their middle."""
    lines = [_headline(status), ", ".join(totals(status))]
    if (report := status.get("report")) is not None:
        mse, r2 = figure(report.get("mse")), figure(report.get("r2"))
        lines.append(f"MSE {mse}, R2 {r2} over {count(report.get('rows'))} rows")
    if (health := status.get("health", "healthy")) != "healthy":
        lines.append(f"{clean(health)}: {clean(status.get('health_reason'))}")
    lines += _recovery(status)
    processes, drawn = _drawn(status, width)
    lines += ["", *drawn]
    lines += _reasons(status)
    if width is None:
        lines = [part for line in lines for part in ([line] if line in drawn else folded(line, WIDTH, 2))]
    else:
        lines = [shorten(line, width) for line in lines]
    return "\n".join(_painted(lines, status["state"], processes) if colour else lines)


def _drawn(status: Mapping[str, Any], width: int | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The table, and the processes with the names that stand in it."""
    limit = width or WIDTH
    room = max(NAME_LEAST, int(limit * NAME_SHARE))
    while True:
        named = [{**p, "name": shorten_middle(clean(p["name"]), room)} for p in status["processes"]]
        drawn = table(COLUMNS, named, status.get("now"), width, roomy=WIDTH)
        over = max(map(cells, drawn)) - limit
        if over <= 0 or room == NAME_LEAST:
            return named, drawn
        room = max(NAME_LEAST, room - over)


def _headline(status: Mapping[str, Any]) -> str:
    parts = [f"{clean(status['pipeline'])}: {status['state']}"]
    if (up := status.get("uptime")) is not None:
        parts.append(f"up {duration(up)}")
    if (epoch := status.get("epoch")) is not None:
        age = status.get("epoch_age")
        parts.append(f"epoch {epoch}" + (f" ({duration(age)} ago)" if age is not None else ""))
    parts.append(f"generation {status.get('generation', MISSING)}")
    if reason := status.get("reason"):
        parts.append(clean(reason))
    return ", ".join(parts)


def totals(status: Mapping[str, Any]) -> list[str]:
    """Figures of the pipeline as a whole, the most important first."""
    figures = status["totals"]
    records, total = figures.get("records"), figures.get("total")
    parts = [f"{count(records)} records"]
    if total and records is not None:
        parts[0] = f"{count(records)} of {count(total)} records ({min(100, 100 * records // total)} %)"
    parts.append(f"{count(figures.get('records_per_s'))}/s")
    parts.append(f"lag {duration(figures.get('lag_s'))}")
    restarts = figures.get("restarts")
    parts.append(f"{count(restarts)} restart{'' if restarts == 1 else 's'}")
    if figures.get("cpu_percent") is not None:
        parts.append(f"CPU {figures['cpu_percent']:.0f} %")
    if figures.get("rss_bytes") is not None:
        parts.append(f"RSS {size(figures['rss_bytes'])}")
    return parts


def _recovery(status: Mapping[str, Any]) -> list[str]:
    """What the last epoch took and the last recovery, what waits on the disk and for the operator; nothing of what is
    not known."""
    lines = []
    if parts := status.get("epoch_parts"):
        known = epoch_parts(parts)
        lines.append(f"last epoch {duration(parts.get('total'))}" + (f": {', '.join(known)}" if known else ""))
    left_behind = kept(status)
    return [*lines, ", ".join(left_behind)] if left_behind else lines


def epoch_parts(parts: Mapping[str, Any]) -> list[str]:
    """What of an epoch took how long, as far as it is known."""
    return [f"{word} {duration(parts[key])}" for key, word in EPOCH_PARTS if parts.get(key) is not None]


def kept(status: Mapping[str, Any]) -> list[str]:
    """What waits on the disk and for the operator, and the last recovery."""
    found = [] if status.get("state_bytes") is None else [f"state {size(status['state_bytes'])}"]
    if status.get("recovery_s") is not None:
        found.append(f"last recovery {duration(status['recovery_s'])}")
    if letters := status.get("dead_letters"):
        found.append(f"{count(letters)} dead letter{'' if letters == 1 else 's'}")
    if lost := sum((status.get("log_drops") or {}).values()):
        found.append(f"{count(lost)} log line{'' if lost == 1 else 's'} lost")
    if held := status.get("held"):
        found.append(f"held: {' '.join(map(clean, held))}")
    return found


EPOCH_PARTS: Final = (
    ("align", "align"), ("snapshot", "snapshot"), ("fsync", "fsync"), ("manifest", "manifest"), ("sink_commit", "sink"),
)  # fmt: skip
"""Keys of a status's `epoch_parts`, and the word for each."""


def _reasons(status: Mapping[str, Any]) -> list[str]:
    """Why processes are not what is wanted, or have been restarted; the worst first."""
    told = [p for p in status["processes"] if p.get("last_reason")]
    told.sort(key=lambda p: (p["state"] in GOOD, -(p.get("restarts") or 0)))
    lines = [reason_text(process) for process in told[:REASON_LINES_MAX]]
    return ["", *lines] if lines else []


def reason_text(process: Mapping[str, Any]) -> str:
    """Why a process is not what is wanted, or died last."""
    name, reason = clean(process["name"]), clean(process["last_reason"])
    if process["state"] == "failed":
        return f"{name}: given up until `streampipectl start {name}`: {reason}"
    line = f"{name}: {reason}"
    if (wait := process.get("next_attempt_s")) is not None:
        line += f"; next attempt in {duration(wait)}"
    return line


def _painted(lines: list[str], state: str, processes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Colours after the layout, so that widths are those of the text."""
    states = {process["name"]: process["state"] for process in processes}
    painted = []
    for line in lines:
        words = line.split(maxsplit=2)
        if line.startswith("NAME "):
            line = paint(line, "bold")
        elif len(words) >= 2 and states.get(words[0]) == words[1]:
            line = line.replace(f" {words[1]} ", f" {paint(words[1], tone(words[1]))} ", 1)
        painted.append(line)
    painted[0] = painted[0].replace(f": {state}", f": {paint(state, tone(state))}", 1)
    return painted


def tone(state: str) -> str:
    return "good" if state in GOOD else "bad" if state in BAD else "other"


def paint(text: str, chosen: str) -> str:
    return f"{_COLOURS[chosen]}{text}{_PLAIN}"


def event_text(record: Mapping[str, Any], text: str, colour: bool = False) -> str:
    """A log event on one line: time of day in local time, level, process, `text` (what `events.describe`
    makes)."""
    level = clean(record.get("level", MISSING))
    line = f"{clock(record.get('ts'))} {level:<8} {clean(record.get('stage') or MISSING)}: {clean(text)}"
    chosen = LEVEL_TONES.get(level)
    return paint(line, chosen) if colour and chosen else line


def change_text(answer: Mapping[str, Any], stages: Sequence[str]) -> str:
    """One line about a change that was carried out or accepted."""
    what = f"{answer['verb']} {' '.join(stages) or 'of the pipeline'}"
    if not answer["done"]:
        return f"{what}: accepted, going on"
    changed = ", ".join(clean(name) for name in answer.get("changed", ()))
    return f"{what}: {changed or 'nothing to do'}, {answer['seconds']:.2f} s"


def reload_text(answer: Mapping[str, Any]) -> str:
    """What has changed, a line for each setting, and which processes are others for it."""
    if not answer["done"]:
        return "reload: accepted, going on"
    if not answer["changes"]:
        return "reload: nothing to do, the file says what is in effect"
    others = ", ".join(clean(name) for name in answer["changed"]) or "none"
    replaced = "would be replaced" if answer["dry_run"] else "replaced"
    lines = [f"  {clean(line)}" for line in answer["changes"]]
    return "\n".join([f"reload: {replaced}: {others}, {answer['seconds']:.2f} s", *lines])


def checkpoint_text(answer: Mapping[str, Any]) -> str:
    """One line about an epoch that was asked for."""
    if not answer["done"]:
        return "checkpoint: accepted, going on"
    position = f", {count(answer['position'])} records" if answer.get("position") is not None else ""
    kept = f", kept as {clean(answer['keep'])}" if answer.get("keep") else ""
    return f"checkpoint: epoch {answer['epoch']}{position}, {answer['seconds']:.2f} s{kept}"


def checkpoints_text(answer: Mapping[str, Any], width: int | None = None) -> str:
    """The epochs that one can go back to; a star at the live one."""
    lines = table(CHECKPOINT_COLUMNS, answer["checkpoints"], answer.get("now"), width)
    return "\n".join(lines) if answer["checkpoints"] else "no epoch has been committed yet"


def why_text(answer: Mapping[str, Any], width: int | None = None) -> str:
    """The state of a stage, what it waits for, and how it came to that."""
    state = clean(answer["state"])
    so_long = since(answer, answer.get("now"))
    lines = [f"{clean(answer['stage'])}: {state}" + (f" for {so_long}" if so_long != MISSING else "")]
    if reason := answer.get("reason"):
        of_old = answer["state"] in GOOD and answer["stage"] not in PIPELINE
        lines.append(f"{'died last' if of_old else 'reason'}: {clean(reason)}")
    if waits_for := answer.get("waits_for"):
        lines.append(f"waits for: {clean(waits_for)}")
    if (wait := answer.get("next_attempt_s")) is not None:
        lines.append(f"next attempt: in {duration(wait)}")
    for entry in answer.get("story") or ():
        cause = f" ({clean(entry['cause'])})" if entry.get("cause") else ""
        lines.append(f"  {clock(entry.get('ts'))} {clean(entry['what'])}{cause}")
    return "\n".join(line if width is None else shorten(line, width) for line in lines)


def report_text(report: Mapping[str, Any]) -> str:
    """The evaluator's own text when it has one, else its figures one below the other."""
    if isinstance(text := report.get("text"), str):
        return "\n".join(map(clean, text.splitlines()))
    return "\n".join(_figures(report, 0))


def verdict(report: Mapping[str, Any]) -> str:
    """The verdict in a report's results; empty when its stage has none."""
    results = report.get("results")
    return str(results.get("verdict", "")) if isinstance(results, Mapping) else ""


def _figures(report: Mapping[str, Any], indent: int) -> list[str]:
    lines = []
    for name, value in report.items():
        if isinstance(value, Mapping):
            lines += [f"{'  ' * indent}{clean(name)}:", *_figures(value, indent + 1)]
        else:
            lines.append(f"{'  ' * indent}{clean(name)}: {figure(value)}")
    return lines


def count(number: float | None) -> str:
    """A number of things in at most five characters: 0, 9.5, 999, 1.2k, 48k, 3.4M."""
    if number is None:
        return MISSING
    if isinstance(number, float) and 0 < number < 10:
        return f"{number:.1f}"
    value = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1000
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"


def size(number: float | None) -> str:
    """Bytes in binary units: 512B, 9.5M, 120M."""
    if number is None:
        return MISSING
    value = float(number)
    for unit in ("B", "K", "M", "G", "T"):
        if value < 1023.5 or unit == "T":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if unit != "B" and value < 9.95 else f"{value:.0f}{unit}"


def duration(seconds: float | None) -> str:
    """Two units at most: 250us, 12ms, 4.2s, 42s, 3m07s, 2h05m, 3d04h."""
    if seconds is None:
        return MISSING
    if seconds < 0.0995:
        return f"{seconds * 1e3:.0f}ms" if seconds >= 0.001 or seconds <= 0 else f"{seconds * 1e6:.0f}us"
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def clock(ts: float | None) -> str:
    """The time of day in local time, to the millisecond."""
    seconds = float(ts or 0.0)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03d}"


def clean(text: object) -> str:
    """Text of strangers on one line: a control character could move the cursor or speak to the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(text))


def figure(value: object) -> str:
    return MISSING if value is None else f"{value:.6g}" if isinstance(value, float) else clean(value)


def since(entry: Mapping[str, Any], now: float | None) -> str:
    return age(entry.get("since"), now)


def age(since: float | None, now: float | None) -> str:
    """How long ago `since` was at `now`, both seconds since the epoch."""
    return MISSING if since is None or now is None else duration(max(0.0, now - since))


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0f}%"


COLUMNS: Final = (
    Column("NAME", lambda p, _: clean(p["name"]), left=True),
    Column("STATE", lambda p, _: clean(p["state"]), left=True),
    Column("SINCE", since),
    Column("PID", lambda p, _: str(p.get("pid") or MISSING)),
    Column("RST", lambda p, _: count(p.get("restarts"))),
    Column("IN", lambda p, _: count(p.get("records_in")), rank=3),
    Column("OUT", lambda p, _: count(p.get("records_out")), rank=4),
    Column("REC/S", lambda p, _: count(p.get("records_per_s"))),
    Column("LAG", lambda p, _: duration(p.get("lag_s")), rank=1),
    Column("CPU", lambda p, _: percent(p.get("cpu_percent")), rank=2),
    Column("RSS", lambda p, _: size(p.get("rss_bytes")), rank=2),
    Column("USS", lambda p, _: size(p.get("uss_bytes")), rank=5),
)

CHECKPOINT_COLUMNS: Final = (
    Column("EPOCH", lambda c, _: f"{c['epoch']}{'*' if c.get('live') else ''}"),
    Column("AGE", lambda c, now: age(c.get("at"), now)),
    Column("SIZE", lambda c, _: size(c.get("bytes"))),
    Column("RECORDS", lambda c, _: count(c.get("position"))),
    Column("TOOK", lambda c, _: duration(c.get("seconds")), rank=1),
    Column("NAMES", lambda c, _: " ".join(map(clean, c.get("names") or ())) or MISSING, left=True),
)
