"""The repository as the tidy tests see it: which files there are, and the imports of a module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = {"streampiped": "daemon", "streampipectl": "ctl"}
NOT_OURS: Final = {"build", "dist", "var", "node_modules", "__pycache__"}
"""Directories that commands make; besides these everything that begins with a dot, and *.egg-info."""


def files(*suffixes: str) -> Iterator[Path]:
    """Every file of the repository with one of the suffixes, in a stable order. Not by asking git: a source
    archive has no .git."""
    return (path for path in _walk(REPOSITORY) if path.suffix in suffixes)


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            if path.name not in NOT_OURS and not path.name.startswith(".") and path.suffix != ".egg-info":
                yield from _walk(path)
        else:
            yield path


@cache
def modules() -> dict[str, Path]:
    """Dotted name to file of every module that is installed."""
    found = {}
    for package, directory in PACKAGES.items():
        for path in sorted((REPOSITORY / directory / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / directory).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def shown(path: Path) -> str:
    """The path as a person would say it."""
    return str(path.relative_to(REPOSITORY))


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a file takes from a module of ours; `name` is None for the module itself."""

    module: str
    name: str | None
    line: int


def imports(path: Path) -> Iterator[Import]:
    """What a file takes from our packages, wherever in the file it does so. An import for type checking alone
    is one too: it couples the two files as much."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_ours(alias.name):
                    yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}:{node.lineno}: imports are absolute here"
            if node.module and _is_ours(node.module):
                yield from (_resolved(node.module, alias.name, node.lineno) for alias in node.names)


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES


def _resolved(module: str, name: str, line: int) -> Import:
    """`from package import module` is an import of that module."""
    inner = f"{module}.{name}"
    return Import(inner, None, line) if inner in modules() else Import(module, name, line)
