"""The sections that other stages add to the report, as text: the trainer's `model`, the normalizer's `gate`.

They come from another process, perhaps from a class of a user's: what is missing is left out, and nothing in them makes
the report fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from streampiped.measure.report_text import cell, name, table, wrapped

MEMBERS_MAX: Final = 16  # lines; the rest is in --json
TIMELINE_MAX: Final = 8  # the newest
DRIFTS_MAX: Final = 8
COLUMNS_MAX: Final = 24
PLACED: Final = ("promoted", "pinned")  # reasons of an operator
DEFECTS: Final = ("missing", "infinite", "imputed", "bounded", "rebased")


def model_lines(model: Any) -> list[str]:
    """Champion, members, who of them learns no more, who served when, drifts."""
    if not isinstance(model, Mapping):
        return []
    try:
        return [
            *_champion(model),
            *_left_out(model),
            *_pending(model),
            *_members(model),
            *_full(model),
            *_timeline(model),
            *_drifts(model),
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["Model: its section is not of a form that is known here; --json has it."]


def gate_lines(gate: Any) -> list[str]:
    """Defects per column, of those that have any, and what was done with labels."""
    if not isinstance(gate, Mapping):
        return []
    try:
        return [_gate_head(gate), *_columns(gate), *_label(gate)]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["Gate: its section is not of a form that is known here; --json has it."]


def _champion(model: Mapping[str, Any]) -> list[str]:
    if model["champion"] is None:
        return ["Model: there is none yet, as no row has come."]
    text = f"Model: {name(model['champion'], 40)} serves"
    text += f", {why_a_guess(model) or 'for nothing beats guessing'}" if model.get("fallback") else ""
    rows = model.get("rows_seen", model.get("rows"))
    text += f"; {cell(model.get('rows_learned'))} of {cell(rows)} rows learned."
    return wrapped(text)


def _left_out(model: Mapping[str, Any]) -> list[str]:
    """Rows of classes for which there was no place."""
    count = (model.get("counts") or {}).get("too_many_classes")
    if not count:
        return []
    text = f"{cell(count)} {'row' if count == 1 else 'rows'} of further classes than can be learned were left out; ints"
    return wrapped(f'{text} are learned as numbers with task = "regression".')


def why_a_guess(model: Mapping[str, Any]) -> str:
    """Why a guess is served where it is not that nothing beats it: an operator wanted it. Else empty."""
    timeline = model.get("timeline")
    last = timeline[-1] if isinstance(timeline, list) and timeline else None
    reason = last.get("reason") if isinstance(last, Mapping) else None
    return f"as it was {reason}" if reason in PLACED else ""


def _pending(model: Mapping[str, Any]) -> list[str]:
    """Of labels that come late."""
    counts = model.get("pending")
    if not counts:
        return []
    asked, answered, waiting, given_up, late = (
        cell(counts[key]) for key in ("asked", "answered", "waiting", "given_up", "late")
    )
    text = f"Labels come late: {answered} of {asked} questions are answered, {waiting} wait, {given_up} were given up;"
    return wrapped(f"{text} {late} labels had no question.")


def _members(model: Mapping[str, Any]) -> list[str]:
    members = model.get("members") or []
    if not members:
        return []
    rows = [
        [
            ("* " if member["name"] == model["champion"] else "  ") + name(member["name"], 26),
            name(member.get("kind", ""), 15),
            *(cell(member.get(key)) for key in ("loss", "rows", "rollbacks", "resets")),
        ]
        for member in members[:MEMBERS_MAX]
    ]
    lines = table(["  member", "kind", "loss", "rows", "rollbacks", "resets"], rows, left=2)
    return lines + _more(members, MEMBERS_MAX, "members")


def _full(model: Mapping[str, Any]) -> list[str]:
    """Who learns no more; an older trainer does not say."""
    full = [name(member["name"], 26) for member in model.get("members") or [] if member.get("full") is True]
    lines = []
    for each in full[:MEMBERS_MAX]:
        lines += wrapped(f"  {each} has grown to its limit: it answers on, and learns no more until begun anew.", "  ")
    return lines


def _timeline(model: Mapping[str, Any]) -> list[str]:
    """A line for each time that somebody served, the newest last."""
    timeline = model.get("timeline") or []
    if len(timeline) < 2:
        return []
    lines = ["served" + (f" (the last {TIMELINE_MAX} of {len(timeline)})" if len(timeline) > TIMELINE_MAX else "")]
    for part in timeline[-TIMELINE_MAX:]:
        until = "now" if part.get("to") is None else cell(part["to"])
        reason = f": {name(part['reason'], 40)}" if part.get("reason") else ""
        lines += wrapped(f"  rows {cell(part['from'])} to {until} {name(part['member'], 26)}{reason}", "    ")
    return lines


def _drifts(model: Mapping[str, Any]) -> list[str]:
    drifts: Sequence[Mapping[str, Any]] = model.get("drifts") or []
    count = model.get("drift_count", len(drifts))
    if not count:
        return []
    words = {"drift": "drift", "shift": "shift of a feature", "label_shift": "shift of the label"}
    told = [f"{words.get(d['kind'], name(d['kind'], 20))} at row {cell(d['row'])}" for d in drifts[-DRIFTS_MAX:]]
    return wrapped(f"{cell(count)} {'drift' if count == 1 else 'drifts'}: " + ", ".join(told), "  ")


def _gate_head(gate: Mapping[str, Any]) -> str:
    dropped = gate.get("rows_dropped") or 0
    tail = f", {cell(dropped)} dropped" if dropped else ""
    quiet = "" if any(map(_has_news, gate["columns"].values())) else "; nothing to tell of any feature"
    return f"Gate: {cell(gate['rows'])} rows{tail}{quiet}."


def _columns(gate: Mapping[str, Any]) -> list[str]:
    news = {title: column for title, column in gate["columns"].items() if _has_news(column)}
    if not news:
        return []
    rows = [
        [f"  {name(title, 24)}", name(column.get("state", ""), 9), *(_defect(column.get(key)) for key in DEFECTS)]
        for title, column in list(news.items())[:COLUMNS_MAX]
    ]
    return table(["  column", "state", *DEFECTS], rows, left=2) + _more(list(news), COLUMNS_MAX, "columns")


def _has_news(column: Mapping[str, Any]) -> bool:
    return column.get("state", "live") != "live" or any(column.get(key) for key in DEFECTS)


def _defect(count: Any) -> str:
    return cell(count) if count else "-"


def _label(gate: Mapping[str, Any]) -> list[str]:
    label = gate.get("label")
    if not label:
        return []
    kinds = {
        "quarantined_missing": "missing",
        "quarantined_spike": "quarantined as spikes",
        "rebased": "lasting shifts believed",
    }
    told = [f"{cell(label[key])} {words}" for key, words in kinds.items() if label.get(key)]
    return wrapped(f"  label {name(label.get('name', ''), 24)}: {', '.join(told)}", "    ") if told else []


def _more(entries: Sequence[Any], most: int, what: str) -> list[str]:
    return [f"  and {len(entries) - most} more {what}"] if len(entries) > most else []
