"""How much the state directory holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

STAGES_EVERY_S: Final = 10.0  # epochs come and go each second and are few files; a stage's own may be thousands


class StateSize:
    """Counts bytes of files; call it where waiting for the disk is allowed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rest = 0
        self._due: float | None = None

    def bytes(self, now: float) -> int:
        """All files below the directory. `now` in seconds, monotonic."""
        epochs = self._root / "epochs"
        if self._due is None or now >= self._due:
            self._rest = _bytes_below(self._root, without=str(epochs))
            self._due = now + STAGES_EVERY_S
        return self._rest + _bytes_below(epochs)


def _bytes_below(directory: str | os.PathLike[str], without: str = "") -> int:
    """What vanishes meanwhile, or cannot be looked at, counts for nothing."""
    total = 0
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if os.path.join(folder, name) != without]
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total
