"""Models as text for people. Pure, as render.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streampipectl.cells import shorten
from streampipectl.render import MISSING, clean, count, duration, figure, size
from streampipectl.table import Column, table


def list_text(answer: Mapping[str, Any], width: int | None = None) -> str:
    """A line per version, and who is served now."""
    versions = answer["versions"]
    columns = CLASS_COLUMNS if any("log_loss" in row["metrics"] for row in versions) else COLUMNS
    lines = table(columns, versions, None, width) if versions else ["no version has been made yet"]
    if answer["total"] > len(versions):
        lines.append(f"{len(versions)} of {count(answer['total'])}; --limit shows more")
    lines += ["", _served(answer)]
    if answer.get("refused"):
        lines.append(f"No version is made at present, the disk refuses: {clean(answer['refused'])}")
    return "\n".join(line if width is None else shorten(line, width) for line in lines)


def _served(answer: Mapping[str, Any]) -> str:
    if answer.get("champion") is None:
        return f"{clean(answer['stage'])}: no model yet"
    words = [f"{clean(answer['stage'])} serves {clean(answer['champion'])}"]
    if answer.get("pinned") is not None:
        words.append("pinned")
    if answer.get("epoch") is not None:
        words.append(f"as of epoch {answer['epoch']}, {duration(answer.get('age_s'))} ago")
    if answer.get("fallback"):
        words.append("which is a guess" + ("" if answer.get("pinned") is not None else ": nothing beats it"))
    return ", ".join(words)


def model_text(answer: Mapping[str, Any]) -> str:
    """One model: where it stands, its members, best first."""
    lines = [_served(answer)]
    row = answer.get("entry")
    if row is not None:
        lines.append(f"version {row['version']}: {_why(row, None)}, {_served_rows(row, None)}")
        kept = f"{clean(row['file'])}, {size(row['bytes'])}, SHA-256 {row['sha256']}" if row["kept"] else "gone"
        lines.append(f"parameters: {kept}")
    lines.append(f"rows: {count(answer['rows'])} seen, {count(answer['rows_learned'])} learned")
    lines.append(f"target: {clean(answer['target'])}; features: {', '.join(map(clean, answer['features']))}")
    if answer.get("members"):
        members = sorted(answer["members"], key=lambda m: (m.get("loss") is None, m.get("loss") or 0.0))
        lines += ["", *table(MEMBER_COLUMNS, members, None, None)]
        lines += [f"{clean(m['name'])} has grown to its limit: it learns no more" for m in members if m.get("full")]
    return "\n".join(lines)


def change_text(answer: Mapping[str, Any]) -> str:
    """One line about a change that was carried out or accepted."""
    values = " ".join(clean(str(value)) for name, value in answer["params"].items() if name in ("member", "version"))
    what = " ".join(filter(None, (answer["verb"], values, f"in {clean(answer['stage'])}")))
    if not answer["done"]:
        return f"{what}: accepted, going on"
    return f"{what}: from epoch {answer['epoch']} on, {answer['seconds']:.2f} s"


def _why(row: Mapping[str, Any], _: float | None) -> str:
    words = ", ".join(REASONS.get(reason, clean(reason)) for reason in row["reasons"])
    restored = f" to {row['restored']}" if row.get("restored") is not None else ""
    return f"{words}{restored}{' (withdrawn)' if row['withdrawn'] else ''}"


def _served_rows(row: Mapping[str, Any], _: float | None) -> str:
    until = count(row["until"]) if row.get("until") is not None else "now" if not row["withdrawn"] else MISSING
    return f"{count(row['since'])} to {until}"


REASONS: Final = {
    "first": "first",
    "champion": "another champion",
    "drift": "drift",
    "promote": "promoted",
    "rollback": "rolled back",
    "pin": "pinned",
    "unpin": "unpinned",
    "rows": "rows",
}
"""Why there is a version, in words."""

COLUMNS: Final = (
    Column("VERSION", lambda row, _: str(row["version"])),
    Column("ROWS", lambda row, _: count(row["rows"])),
    Column("CHAMPION", lambda row, _: clean(row["champion"]), 0, True),
    Column("SERVED", _served_rows, 2, True),
    Column("RMSE", lambda row, _: figure(row["metrics"].get("rmse")), 3),
    Column("KEPT", lambda row, _: size(row["bytes"]) if row["kept"] else MISSING, 4),
    Column("WHY", _why, 1, True),
)
CLASS_COLUMNS: Final = tuple(
    Column("LOG-LOSS", lambda row, _: figure(row["metrics"].get("log_loss")), 3) if column.title == "RMSE" else column
    for column in COLUMNS
)
"""Of a model that learns classes."""
MEMBER_COLUMNS: Final = (
    Column("MEMBER", lambda row, _: clean(row["name"]), 0, True),
    Column("KIND", lambda row, _: clean(row["kind"]), 0, True),
    Column("LOSS", lambda row, _: figure(row.get("loss"))),
    Column("ROWS", lambda row, _: count(row.get("rows"))),
    Column("ROLLBACKS", lambda row, _: count(row.get("rollbacks"))),
    Column("RESETS", lambda row, _: count(row.get("resets"))),
)
