"""Imports point one way: the architecture, held by its import graph."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Final

import pytest

from support.tree import REPOSITORY, files, imports, modules, parse, shown

VOCABULARY: Final = {
    "classes",
    "holdout",
    "aligned",
    "column_values",
    "records",
    "errors",
    "events",
    "histograms",
    "marks",
    "metrics",
    "phases",
    "plain",
    "topology",
    "units",
}
"""Modules of values that every layer may speak in."""

ALLOWED: Final[dict[str, set[str]]] = {
    # layer: what it may import besides itself and the vocabulary
    "vocabulary": set(),
    "wire": set(),
    "core": set(),
    "learn": set(),
    "cleaning": {"learn"},
    "measure": set(),
    "stages": {"learn", "cleaning", "measure", "sources", "sinks"},
    "sources": {"stages.base"},
    "sinks": {"stages.base"},
    "runtime": {"wire"},
    "shell": {"wire", "core", "learn", "cleaning", "measure", "stages", "stages.base", "sources", "sinks", "runtime"},
    "streampipectl": {"wire"},
}
CTL_VOCABULARY: Final = {"errors", "events", "plain"}
"""The operator's tool starts in milliseconds: records would bring numpy, units pydantic."""

HEAVY: Final = {
    # module: what its process must never load
    "streampiped.start": "numpy scipy sklearn pydantic psutil rich typer",
    "streampiped.control_server": "numpy scipy sklearn pydantic psutil rich typer",
    "streampipectl.app": "numpy scipy sklearn pydantic psutil rich asyncio uvloop",
}


def layer_of(module: str) -> str:
    """The layer of a dotted name: its folder; a module at the top of streampiped is vocabulary or shell."""
    package, *rest = module.split(".")
    if package == "streampipectl":
        return package
    if not rest or rest[0] in VOCABULARY:
        return "vocabulary"
    if rest == ["stages", "base"]:
        return "stages.base"
    return rest[0] if rest[0] in ALLOWED else "shell"


def may_import(module: str, target: str) -> bool:
    source, wanted = layer_of(module), layer_of(target)
    if source == "streampipectl" and wanted == "vocabulary":
        return target in {"streampiped", *(f"streampiped.{name}" for name in CTL_VOCABULARY)}
    home = source.split(".")[0]  # stages.base is a part of stages, which others may use without the rest
    return wanted in {"vocabulary", source, home, *ALLOWED[home]} or (home, wanted) == ("stages", "stages.base")


def edges() -> Iterator[tuple[str, str, str]]:
    """(importing module, imported module, place) of every import inside the two packages."""
    for module, path in modules().items():
        for each in imports(path):
            yield module, each.module, f"{shown(path)}:{each.line}"


def test_imports_point_one_way() -> None:
    """Every module imports only its own layer, the vocabulary and the layers that it may know."""
    wrong = [
        f"{place}: {module} ({layer_of(module)}) must not import {target} ({layer_of(target)})"
        for module, target, place in edges()
        if not may_import(module, target)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_package_is_installed() -> None:
    """pyproject.toml lists every folder of modules: one that is left out is missing where a wheel is installed."""
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(name for name, path in modules().items() if path.name == "__init__.py")


@pytest.mark.parametrize(
    ("module", "target", "allowed"),
    [
        ("streampiped.core.epochs", "streampiped.errors", True),
        ("streampiped.core.epochs", "streampiped.wire.frames", False),
        ("streampiped.wire.rpc", "streampiped.runtime.pipes", False),
        ("streampiped.learn.moments", "streampiped.stages.base", False),
        ("streampiped.records", "streampiped.wire.frames", False),
        ("streampiped.stages.trainer", "streampiped.learn.moments", True),
        ("streampiped.stages.trainer", "streampiped.stages.base", True),
        ("streampiped.stages.trainer", "streampiped.wire.rpc", False),
        ("streampiped.stages.base", "streampiped.records", True),
        ("streampiped.sources.csv", "streampiped.stages.base", True),
        ("streampiped.sources.csv", "streampiped.stages.generator", False),
        ("streampiped.sinks.sqlite", "streampiped.sources.csv", False),
        ("streampiped.runtime.pipes", "streampiped.core.epochs", False),
        ("streampiped.supervisor", "streampiped.core.epochs", True),
        ("streampiped.supervisor", "streampipectl.client", False),
        ("streampipectl.client", "streampiped.wire.rpc", True),
        ("streampipectl.client", "streampiped.records", False),
        ("streampipectl.client", "streampiped.config", False),
    ],
)
def test_the_rule_itself(module: str, target: str, allowed: bool) -> None:
    """The rule that the graph is held to says what docs/ARCHITECTURE.md says."""
    assert may_import(module, target) is allowed


def test_no_import_cycle() -> None:
    """No module needs, in the end, itself."""
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for module, target, _ in edges():
        graph[module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_private_name_of_another_file() -> None:
    """A name with an underscore stays in its file: nobody imports it or reaches it through the module."""
    wrong = [f"{shown(path)}:{line}: {name}" for path in files(".py") for name, line in _private_uses(parse(path))]
    assert not wrong, "\n".join(wrong)


def _private_uses(tree: ast.Module) -> Iterator[tuple[str, int]]:
    ours: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("streampipe"):
            ours |= {alias.asname or alias.name for alias in node.names if alias.name.islower()}
            private = (alias.name for alias in node.names if _is_private(alias.name))
            yield from ((f"{node.module}.{name}", node.lineno) for name in private)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id in ours:
                yield f"{owner.id}.{node.attr}", node.lineno


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@pytest.mark.parametrize("module", HEAVY)
def test_light_processes_stay_light(module: str) -> None:
    """A fresh interpreter that has imported the module has loaded none of what that process must not
    carry."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & set(HEAVY[module].split())
