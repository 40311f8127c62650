"""etc/streampipe.toml and the code say the same."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from streampiped.check import BUILTIN, SERVICES
from streampiped.config import load
from streampiped.faults import models_in
from streampiped.sections import SECTIONS, ServiceSection, StageSection
from support.example_config import HERE, documentation, options_model, render

EXAMPLE = Path(__file__).parents[2] / "etc" / "streampipe.toml"

TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    **{name: (section,) for name, section in SECTIONS.items()},
    **{f"stages.{name}": (StageSection, options_model(klass)) for name, klass in BUILTIN.items()},
    **{name: (ServiceSection, options_model(klass)) for name, klass in SERVICES.items()},
}
"""Table -> the models whose fields are its keys."""


def test_file_is_rendered_from_the_models() -> None:
    """The file is exactly what `tests/support/example_config.py` prints."""
    assert EXAMPLE.read_text() == render()


def _keys(text: str) -> dict[str, set[str]]:
    """Table -> the keys below its header, written out or commented out, and the names of its own tables."""
    found: dict[str, set[str]] = defaultdict(set)
    table = ""
    for line in text.splitlines():
        if header := re.fullmatch(r"#?\[\[?([\w.-]+)\]?\]", line):
            table = header[1].removesuffix(".COLUMN")
            parent, _, name = table.rpartition(".")
            found[parent].add(name)
        elif key := re.match(r"#?(\w+) = ", line):
            found[table].add(key[1])
    return found


@pytest.mark.parametrize("table", TABLES)
def test_every_option_and_no_other(table: str) -> None:
    """The keys of a table, found by reading lines, are the fields of its models."""
    fields = {info.alias or name for model in TABLES[table] for name, info in model.model_fields.items()}
    assert _keys(EXAMPLE.read_text())[table] == fields


def _values(data: Any, key: str, model: type[BaseModel]) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value in the file, default) of every key below `key` that is written out."""
    given = model.model_validate(data)
    for name, info in model.model_fields.items():
        if (info.alias or name) not in data:
            continue
        value, default = getattr(given, name), info.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            yield from _values(data[name], f"{key}.{name}", type(value))
        else:
            yield f"{key}.{info.alias or name}", value, default


@pytest.mark.parametrize("table", TABLES)
def test_values_are_the_defaults(table: str) -> None:
    """What is written out is the default, but for what the renderer lists as different, and for class and input."""
    data: Any = tomllib.loads(EXAMPLE.read_text())
    for part in table.split("."):
        data = data[part]
    for model in TABLES[table]:
        own = {name: value for name, value in data.items() if name in _keys_of(model)}
        for key, value, default in _values(own, table, model):
            if key in HERE:
                assert value != default, key
            elif not key.endswith((".class", ".input")):
                assert value == default, key


def _keys_of(model: type[BaseModel]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def _all_models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for info in model.model_fields.values():
        for inner in models_in(info.annotation):
            yield from _all_models(inner)


@pytest.mark.parametrize("table", TABLES)
def test_every_option_is_explained(table: str) -> None:
    """No option, however deep, is without a word about it."""
    for model in (inner for outer in TABLES[table] for inner in _all_models(outer)):
        assert not [name for name, words in documentation(model).items() if not words], model


def test_file_is_accepted(tmp_path: Path) -> None:
    """The shipped configuration is the default chain, bounded, with both services."""
    plan = load(EXAMPLE, environ={}, state_dir=str(tmp_path), runtime_dir=str(tmp_path), keep_directories=False)
    assert [spec.name for spec in plan.stages] == list(BUILTIN)
    assert [spec.role for spec in plan.stages] == ["source", "transform", "sink", "transform", "transform"]
    assert [spec.name for spec in plan.services] == list(SERVICES)
    assert [spec.name for spec in plan.stages if spec.api] == ["normalizer", "trainer"]


def test_empty_file_is_the_default_chain(tmp_path: Path) -> None:
    """An empty file is a valid configuration: the chain of the five stages."""
    file = tmp_path / "empty.toml"
    file.write_text("")
    plan = load(file, environ={}, state_dir=str(tmp_path), runtime_dir=str(tmp_path), keep_directories=False)
    assert [spec.name for spec in plan.stages] == list(BUILTIN)
    assert plan.edges() == tuple(zip(list(BUILTIN), list(BUILTIN)[1:], strict=False))
