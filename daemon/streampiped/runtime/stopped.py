"""Who is stopped on purpose, as a file: a `stop` outlives the daemon.

STATE/stopped    a name to a line; missing: nobody
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from streampiped.errors import StateError
from streampiped.runtime.snapshots import sync_directory, write_durably

NAME: Final = "stopped"


def load(state: Path) -> frozenset[str]:
    """The names that were saved last. OSError when the file is there and cannot be read, StateError when it holds no
    text."""
    path = state / NAME
    try:
        return frozenset(path.read_bytes().decode().split())
    except FileNotFoundError:
        return frozenset()
    except UnicodeDecodeError as error:
        raise StateError(
            f"{path}: is no text; it should hold the names of the stages that an operator has stopped, one to a line: "
            "mend it, or remove it to start them all"
        ) from error


def save(state: Path, names: Iterable[str]) -> None:
    """Durable when it returns; OSError when the disk refuses."""
    text = "".join(f"{name}\n" for name in names)
    if text:
        write_durably(state / NAME, text.encode())
    else:
        (state / NAME).unlink(missing_ok=True)
        sync_directory(state)
