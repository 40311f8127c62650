"""Renders etc/streampipe.toml from the models of the options: every option with default, unit and reason.

After an option has changed: `.venv/bin/python tests/support/example_config.py > etc/streampipe.toml`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from streampiped.check import BUILTIN, SERVICES
from streampiped.config import DEFAULT_CHAIN
from streampiped.faults import models_in
from streampiped.sections import SECTIONS, ServiceSection, StageSection
from streampiped.units import BYTES, SECONDS, parse_duration, parse_rate, parse_size

WIDTH = 100  # of the file, in characters

HEAD = """\
streampipe: the configuration, with every option there is. Change what you need; what is left out has its default, \
and an empty file is a valid one.

key = value     is the default, written out, unless the comment says "here"
#key = value    has no default; the value only shows the form
#[table]        an alternative, or an entry of a list; take away the first # of its lines to use it

Durations ("500ms", "10s", "2m", "1h", "7d"), sizes ("512kB", "64MiB") and rates ("10k/s") have their unit with them. \
`streampiped check --config FILE` names everything that is wrong with a file. docs/configuration.md says more. This \
file is rendered from the code (tests/support/example_config.py), and a test holds both together.
"""

HERE: Mapping[str, tuple[Any, str]] = {
    "stages.generator.rate": ("100k/s", "the stream takes about 20 s, long enough to look inside while it runs"),
    "stages.generator.source.records": (2_000_000, "a first run ends by itself and shows its report"),
    "stages.generator.source.drift_at": ([1_000_000], "the report shows how the model recovers from a change"),
}
"""Key -> the shipped value where it is not the default, and why."""

SILENT: Mapping[str, str] = {
    "target": "The column that is to be predicted.",
    "prediction": "The column with the trainer's predictions.",
    "default_policy": "What happens to a column without a policy of its own.",
    "type": "Which kind this table is.",
    "defects": "Faults on purpose. Shares are of all feature cells, with bad_labels of all records.",
    "unit_change": "From record `at` on every value of the column is multiplied by `factor`.",
    "dead": "From record `at` on the column is stuck at zero.",
    "path": "The file.",
    "source": "Where records come from:",
    "sink": "Where records are stored:",
    "delimiter": "Between two fields of a line.",
    "column": "The column it is about.",
    "function": "What is made of the window's values.",
    "at": "Record number, from 0.",
    "factor": "By which the values are multiplied.",
    "min": "The least allowed value. Unset: no bound.",
    "max": "The greatest allowed value. Unset: no bound.",
    "burst_window": "See burst_errors.",
}
"""What is said about options whose models say nothing."""


def render() -> str:
    """The text of etc/streampipe.toml."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    for paragraph in HEAD.strip().split("\n"):
        yield from _comment(paragraph) or ["#"]
    for name, section in SECTIONS.items():
        yield from _table(name, section, {})
    before = ""
    for name in DEFAULT_CHAIN:
        yield from ("", "", f"# {'-' * 20} the {name} {'-' * 20}")
        own = {"class": name, "input": before} if before else {"class": name}
        yield from _table(f"stages.{name}", StageSection, own, explained=not before)
        yield from _options(f"stages.{name}", options_model(BUILTIN[name]))
        before = name
    for name, klass in SERVICES.items():
        yield from ("", "", f"# {'-' * 20} the {name.replace('_', ' ')} {'-' * 20}")
        yield from _table(name, ServiceSection, {})
        yield from _options(name, options_model(klass))


def options_model(klass: str) -> type[BaseModel]:
    """The options of a class named `package.module:Class`."""
    module, _, name = klass.partition(":")
    model: type[BaseModel] = getattr(importlib.import_module(module), name).Options
    return model


def _table(
    key: str, model: type[BaseModel], given: Mapping[str, Any], *, explained: bool = True, mark: str = ""
) -> Iterator[str]:
    """A header and the options that are no tables."""
    yield ""
    if explained and not mark:
        yield from _comment(inspect.cleandoc(model.__doc__ or ""))
    yield f"{mark}[{key}]"
    yield from _scalars(key, model, given, explained=explained, mark=mark)


def _options(key: str, model: type[BaseModel], mark: str = "") -> Iterator[str]:
    """What follows the pipeline's own keys of a stage: the options of its class, tables last as TOML wants it."""
    yield from _scalars(key, model, {}, mark=mark)
    yield from _tables(key, model, mark)


def _scalars(
    key: str, model: type[BaseModel], given: Mapping[str, Any], *, explained: bool = True, mark: str = ""
) -> Iterator[str]:
    words = documentation(model)
    for field, info in sorted(model.model_fields.items(), key=lambda item: item[0] != "type"):  # what chooses the model
        name = info.alias or field
        if _is_table(info):
            continue
        if explained:
            yield from _comment(words[field], indent=mark)
        yield from _assignment(f"{key}.{name}", name, info, given, mark)


def _assignment(key: str, name: str, info: FieldInfo, given: Mapping[str, Any], mark: str) -> Iterator[str]:
    default = info.get_default(call_default_factory=True)
    if key in HERE:
        value, why = HERE[key]
        yield from _comment(f"Here not the default, which is {_written(default, info)}: {why}.")
        yield f"{name} = {_toml(value)}"
    elif name in given:
        yield f"{name} = {_toml(given[name])}"
    elif info.is_required() or default is None or (key.endswith("generator.input")):
        yield f"#{name} = {_toml(_form(info.annotation))}"
    else:
        yield f"{mark}{name} = {_written(default, info)}"


def _tables(key: str, model: type[BaseModel], mark: str) -> Iterator[str]:
    """The options that are tables: the default one written out, alternatives and list entries commented out."""
    words = documentation(model)
    for field, info in model.model_fields.items():
        if not _is_table(info):
            continue
        default = info.get_default(call_default_factory=True)
        for inner in models_in(info.annotation):
            chosen = isinstance(default, inner) and not mark
            form = _header_form(key, field, info)
            yield ""
            alternative = len(models_in(info.annotation)) > 1 or not words[field]
            yield from _comment(f"{words[field]} {inspect.cleandoc(inner.__doc__ or '') if alternative else ''}")
            inner_mark = "" if chosen else "#"
            yield f"{inner_mark}{form}"
            path = form.strip("[]")
            yield from _scalars(path, inner, {}, mark=inner_mark)
            yield from _tables(path, inner, inner_mark)


def _header_form(key: str, field: str, info: FieldInfo) -> str:
    origins = {typing.get_origin(part) for part in (info.annotation, *typing.get_args(info.annotation))}
    if origins & {list, tuple}:
        return f"[[{key}.{field}]]"
    if origins & {dict, Mapping}:
        return f"[{key}.{field}.COLUMN]"
    return f"[{key}.{field}]"


def _is_table(info: FieldInfo) -> bool:
    return bool(models_in(info.annotation))


# --- words --------------------------------------------------------------------------------------------------------


def documentation(model: type[BaseModel]) -> dict[str, str]:
    """Field -> what its model says about it: the Field's description, or the text below it in the class."""
    below: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if owner is not BaseModel and issubclass(owner, BaseModel) and owner.model_fields:
            below |= _texts_below(owner)
    return {
        name: f"{info.description or below.get(name) or SILENT.get(name, '')}{_choices(info)}"
        for name, info in model.model_fields.items()
    }


def _choices(info: FieldInfo) -> str:
    """The values of an option that has a few, unless it is the one that only tells its kind."""
    literals = (
        part
        for part in (info.annotation, *typing.get_args(info.annotation))
        if typing.get_origin(part) is typing.Literal
    )
    choices = [str(choice) for part in literals for choice in typing.get_args(part)]
    return f" One of: {', '.join(choices)}." if len(choices) > 1 else ""


def _texts_below(owner: type[BaseModel]) -> dict[str, str]:
    body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]).body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _comment(text: str, indent: str = "") -> list[str]:
    """In TOML nothing is None; what a model calls so is a key that is not there."""
    text = re.sub(r"^None: ", "Unset: ", text.strip()).replace("; None: ", "; unset: ")
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - 2)]


# --- values -------------------------------------------------------------------------------------------------------


def _written(value: Any, info: FieldInfo) -> str:
    """A default as people write it, in its unit."""
    parsers = {part.func for part in _metadata(info) if isinstance(part, BeforeValidator)}
    if value and parse_duration in parsers:
        return _toml(_in_units(value, {unit: SECONDS[unit] for unit in ("d", "h", "m", "s", "ms", "us")}))
    if value and parse_size in parsers:
        return _toml(_in_units(value, {unit: BYTES[unit] for unit in ("GiB", "MiB", "KiB", "GB", "MB", "kB", "B")}))
    if value and parse_rate in parsers:
        return _toml(_in_units(value, {"M/s": 1e6, "k/s": 1e3, "/s": 1.0}))
    if parsers & {parse_duration, parse_size, parse_rate}:
        return "0"
    return _toml(value)


def _metadata(info: FieldInfo) -> list[Any]:
    return [
        *info.metadata,
        *(m for part in typing.get_args(info.annotation) for m in getattr(part, "__metadata__", ())),
    ]


def _in_units(value: float, units: Mapping[str, float]) -> str:
    for unit, size in units.items():
        if value / size >= 1 and round(value / size, 9) == int(round(value / size, 9)):
            return f"{round(value / size)}{unit}"
    raise AssertionError(f"{value} is no whole number of any of {list(units)}")


def _toml(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} = {_toml(inner)}' for name, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _form(annotation: Any) -> Any:
    """A value that shows what an option without default looks like."""
    kinds = {typing.get_origin(part) or part for part in (annotation, *typing.get_args(annotation))}
    forms = {tuple: ["..."], list: ["..."], int: 1, float: 1.0, dict: {}}
    return next((form for kind, form in forms.items() if kind in kinds), "...")


if __name__ == "__main__":
    sys.stdout.write(render())
