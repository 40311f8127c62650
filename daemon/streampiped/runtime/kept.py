"""Named epochs: what an operator keeps whatever the retention says. STATE/epochs/kept.json, name -> epoch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from streampiped.errors import StateError
from streampiped.runtime.durable import write_durably

FILE: Final = "kept.json"
NAME: Final = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What may be a file's name may be an epoch's; digits alone would be a number (`restore --from`)."""
NAMES_MAX: Final = 100  # each holds snapshots for good; whoever needs more forgets some first


class KeptEpochs:
    """The file of names. Every change is durable when it returns."""

    def __init__(self, epochs: Path) -> None:
        self.path = epochs / FILE

    def read(self) -> dict[str, int]:
        """StateError when the file is there and cannot be understood: nobody may take it for empty."""
        try:
            names = json.loads(self.path.read_bytes())
            return {str(name): int(epoch) for name, epoch in names.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(f"{self.path}: cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise StateError(f"{self.path}: should be a JSON object of names and epochs: {error}") from error

    def keep(self, name: str, epoch: int) -> None:
        """A name that is there already moves to `epoch`."""
        if not NAME.fullmatch(name):
            raise StateError(
                f"{name!r} cannot name an epoch: letters, digits, '.', '_' and '-', at most 64, a letter too"
            )
        names = self.read() | {name: epoch}
        if len(names) > NAMES_MAX:
            raise StateError(f"{self.path}: holds {NAMES_MAX} names already; forget some first")
        self.write(names)

    def forget(self, name: str) -> None:
        """The epoch stays until the retention takes it. StateError when there is no such name."""
        names = self.read()
        if names.pop(name, None) is None:
            raise StateError(f"no epoch is kept as {name!r}; there are {', '.join(sorted(names)) or 'none'}")
        self.write(names)

    def write(self, names: Mapping[str, int]) -> None:
        write_durably(self.path, json.dumps(dict(sorted(names.items())), indent=1).encode())
