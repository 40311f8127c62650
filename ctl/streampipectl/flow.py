"""The flow of a pipeline as lines of text. Pure.

A chain stands on one line, or goes on below where the terminal is too narrow; what a stage feeds beside that hangs
below it as in a tree. A stage with several inputs is drawn where it is met first, and named in parentheses elsewhere:

    generator 48k/s → splitter 48k/s
    ├→ trainer 48k/s → evaluator 48k/s
    └→ archive 48k/s → (evaluator)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from streampipectl.cells import cells, shorten

ARROW: Final = " → "
AGAIN: Final = "  → "
"""Before what goes on below."""
LEAST: Final = 12  # cells; deeper trees are not indented further


class Node(NamedTuple):
    """A stage, what is written about it, and the stages that it reads from."""

    name: str
    label: str
    inputs: Sequence[str]


def drawn(nodes: Sequence[Node], width: int) -> list[str]:
    """The lines, each at most `width` cells wide. Inputs that are no node are left out; a node that no source leads to
    begins a drawing of its own."""
    known = {node.name: node for node in nodes}
    readers: dict[str, list[str]] = {name: [] for name in known}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            if name in known:
                readers[name].append(node.name)
    fed = {reader for names in readers.values() for reader in names}
    met: set[str] = set()
    lines: list[str] = []
    for node in sorted(nodes, key=lambda node: node.name in fed):  # sources first, and else as given
        if node.name not in met:
            lines += _tree(node.name, known, readers, met, width)
    return [shorten(line, width) for line in lines]


def _tree(
    name: str, known: Mapping[str, Node], readers: Mapping[str, Sequence[str]], met: set[str], width: int
) -> Iterator[str]:
    """A chain up to where it ends or parts, and the branches below it."""
    labels = []
    while True:
        if name in met:
            labels.append(f"({name})")
            branches: Sequence[str] = ()
            break
        met.add(name)
        labels.append(known[name].label)
        branches = readers[name]
        if len(branches) != 1:
            break
        name = branches[0]
    yield from _wrapped(labels, width)
    room = max(width - 3, LEAST)
    for branch in branches:
        last = branch == branches[-1]
        for number, line in enumerate(list(_tree(branch, known, readers, met, room))):
            yield (("└→ " if last else "├→ ") if number == 0 else ("   " if last else "│  ")) + line


def _wrapped(labels: Sequence[str], width: int) -> Iterator[str]:
    line = labels[0]
    for label in labels[1:]:
        if cells(line) + len(ARROW) + cells(label) <= width:
            line += ARROW + label
        else:
            yield line
            line = AGAIN + label
    yield line
