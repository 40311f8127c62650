"""What is wrong with a value, in the operator's words: key, value as written, what would be right.

pydantic finds the faults; here they get the key as it stands in the file, without the names of union branches, and
every unknown key the name that was probably meant.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ValidationError

Report: TypeAlias = Callable[[str, Any, str], None]
"""Take one problem: the dotted key, the value as written (`ABSENT` when there is none), what would be right."""

ABSENT: Final = object()

_WORDS: Final[Mapping[str, str]] = {
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "dict_type": "should be a table",
    "model_type": "should be a table",
}
"""pydantic's types of errors in TOML's words; for the others its own text is good enough."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean "x"?`, or the list of names when none is near, or nothing when there are none."""
    known = sorted(names)
    if near := difflib.get_close_matches(name, known, n=1):
        return f'; did you mean "{near[0]}"?'
    return f"; there are: {', '.join(known)}" if known else ""


def report_faults(
    error: ValidationError,
    model: type[BaseModel],
    data: Any,
    key: str,
    report: Report,
    also: Iterable[str] = (),
) -> set[str]:
    """Tell what pydantic found in `data`, which stands at `key`, and return the top-level keys with a fault.
    `also`: names that would have been right at the top level although `model` does not have them."""
    found: dict[str, tuple[Any, list[str]]] = {}
    for item in error.errors(include_url=False):
        where, value = place_of(item["loc"], data, key)
        text = _message(item, model, () if len(item["loc"]) > 1 else also)
        # the branches of a union complain one by one about the same value
        found.setdefault(where, (value, []))[1].append(text)
    for where, (value, texts) in found.items():
        report(where, value, " or ".join(dict.fromkeys(texts)))
    return {str(item["loc"][0]) for item in error.errors() if item["loc"]}


def place_of(loc: tuple[int | str, ...], data: Any, key: str) -> tuple[str, Any]:
    """The dotted key and the value of a fault; names that pydantic adds for union branches are left out."""
    for number, part in enumerate(loc):
        if isinstance(data, dict) and part in data:
            key, data = f"{key}.{part}" if key else str(part), data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            key, data = f"{key}[{part}]", data[part]
        elif isinstance(data, dict) and number == len(loc) - 1:
            key, data = f"{key}.{part}" if key else str(part), ABSENT
    return key, data


def _message(item: Any, model: type[BaseModel], also: Iterable[str]) -> str:
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            names = {*_names_at(model, item["loc"][:-1]), *also}
            return f"no such key{did_you_mean(str(item['loc'][-1]), names)}"
        case "missing":
            return "is needed"
        case "union_tag_invalid" | "union_tag_not_found":
            tags = context.get("expected_tags") or ", ".join(sorted(_tags_at(model, item["loc"])))
            return f"{context['discriminator']} should be one of {tags}"
    return _WORDS.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _names_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys that are right inside the table at `loc`."""
    return {info.alias or name for m in _models_at(model, loc) for name, info in m.model_fields.items()}


def _tags_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    return {repr(tag) for m in _models_at(model, loc) for tag in _literals(m)}


def _models_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    models = [model]
    for part in loc:
        fields = [m.model_fields[part] for m in models if isinstance(part, str) and part in m.model_fields]
        tagged = [m for m in models if part in _literals(m)]
        if fields:
            models = [m for info in fields for m in models_in(info.annotation)]
        elif tagged:
            models = tagged
    return models


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models somewhere inside an annotation such as `list[A | B]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in models_in(inner)]


def _literals(model: type[BaseModel]) -> set[Any]:
    """The values of the model's Literal fields: the tag that chooses it in a union."""
    annotations = [info.annotation for info in model.model_fields.values()]
    return {a for note in annotations if typing.get_origin(note) is typing.Literal for a in typing.get_args(note)}
