"""Files and functions that fit into a head."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from support.tree import modules, parse, shown

FILE_LINES_MAX: Final = 400
"""Lines; the codebases of this field that read best have a median of 90 to 250."""
FUNCTION_LINES_MAX: Final = 60
"""Lines from `def` to the end, docstring included; their median is 6 to 10, rarely over 60."""

LONG_FILES: Final[dict[str, str]] = {}
"""path: why it may be longer. One reason for each, and none that says 'for now'."""
LONG_FUNCTIONS: Final[dict[str, str]] = {}
"""path:function: why it may be longer."""


def test_no_long_file() -> None:
    """No file of the daemon or of the operator's tool is longer than a sitting, but for those with a
    reason."""
    lengths = {shown(path): len(path.read_text().splitlines()) for path in modules().values()}
    long = {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX and name not in LONG_FILES}
    assert not long
    assert set(LONG_FILES) <= {name for name, lines in lengths.items() if lines > FILE_LINES_MAX}


def test_no_long_function() -> None:
    """No function is longer than a screen, but for those with a reason."""
    long = {name: lines for name, lines in _functions() if lines > FUNCTION_LINES_MAX}
    assert {name: lines for name, lines in long.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) <= set(long)


def _functions() -> Iterator[tuple[str, int]]:
    for path in modules().values():
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{shown(path)}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
