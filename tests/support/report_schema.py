"""docs/specs/report.md as something that a report can be held to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from support.tree import REPOSITORY

PAGE: Final = (REPOSITORY / "docs/specs/report.md").read_text()
SCHEMA: Final[dict[str, Any]] = json.loads(re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
TYPES: Final = {"int": int, "float": int | float, "bool": bool, "text": str, "any": object}


def faults(value: Any, form: Any, place: str = "") -> Iterator[str]:
    """Where `value` is not as `form` says."""
    if isinstance(form, str):
        yield from _faults_of_name(value, form, place)
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield f"{place} is no list"
        else:
            for number, entry in enumerate(value):
                yield from faults(entry, form[0], f"{place}[{number}]")
    elif not isinstance(value, dict):
        yield f"{place} is no map"
    else:
        yield from _faults_of_map(value, form, place)


def _faults_of_map(value: dict[str, Any], form: dict[str, Any], place: str) -> Iterator[str]:
    if "*" in form:
        form = dict.fromkeys(value, form["*"])
    known = {name.rstrip("?"): name for name in form}
    yield from (f"{place}.{name} is not on the page" for name in value if name not in known)
    for name, written in known.items():
        if name in value:
            yield from faults(value[name], form[written], f"{place}.{name}")
        elif not written.endswith("?"):
            yield f"{place}.{name} is missing"


def _faults_of_name(value: Any, form: str, place: str) -> Iterator[str]:
    if form.endswith("?") and value is None:
        return
    if form.startswith("@"):
        yield from faults(value, SCHEMA[form[1:].rstrip("?")], place)
    elif (kind := TYPES.get(form.rstrip("?"))) is not None:
        if not isinstance(value, kind) or (kind in (int, int | float) and isinstance(value, bool)):
            yield f"{place} is {value!r}, not {form}"
    elif value not in form.split("|"):
        yield f"{place} is {value!r}, not one of {form}"
