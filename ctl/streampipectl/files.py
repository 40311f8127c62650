"""A file that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import Final

FILE_MODE: Final = 0o644  # whatever the umask is: who reads it often runs as somebody else


def write_whole(place: str, data: bytes) -> None:
    """By a rename; OSError when it cannot be. The name before it has no ending that anybody looks for."""
    directory, name = os.path.split(os.path.abspath(place))
    if os.path.isdir(place):
        raise IsADirectoryError(21, "is a directory", place)
    fresh = os.path.join(directory, f".{name[:200]}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)  # of one that was killed here and had our pid
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(data)
        os.replace(fresh, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def complaint(place: str, error: OSError) -> str:
    """Why it cannot be written, and what of the path is to blame."""
    directory = os.path.dirname(os.path.abspath(place))
    if isinstance(error, FileNotFoundError):
        return f"{place}: there is no directory {directory}"
    if isinstance(error, PermissionError):
        return f"{place}: no permission to write in {directory}"
    return f"{place}: {error.strerror or error}"
