"""What every test owes its reader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from support.tree import REPOSITORY, parse, shown

QUICK = ("pure", "stages")
"""Folders whose tests run in milliseconds: nothing in them waits for time to pass."""


def test_every_test_says_its_property() -> None:
    """Every test function has a docstring, its property in a sentence that ends with a full stop."""
    wrong = [
        f"{shown(path)}:{node.lineno}: {node.name}"
        for path, node in _tests()
        if not (ast.get_docstring(node) or "").rstrip().endswith((".", ":", "?"))
    ]
    assert not wrong, "\n".join(wrong)


def test_test_names_are_unique_in_a_file() -> None:
    """No test is shadowed by a later one of the same name, which would silently not run."""
    seen: set[tuple[Path, str, int]] = set()
    twice = []
    for path, node in _tests():
        key = (path, node.name, node.col_offset)
        if key in seen and node.col_offset == 0:
            twice.append(f"{shown(path)}:{node.lineno}: {node.name}")
        seen.add(key)
    assert not twice, "\n".join(twice)


def test_quick_tests_do_not_sleep() -> None:
    """The pure and the stage tests never sleep: time is an argument there."""
    wrong = [
        f"{shown(path)}:{node.lineno}"
        for folder in QUICK
        for path in sorted((REPOSITORY / "tests" / folder).rglob("*.py"))
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep", "asyncio.sleep")
    ]
    assert not wrong, "\n".join(wrong)


def _tests() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                yield path, node
